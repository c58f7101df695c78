"""Metric rows: how they are written, compacted and read back.

One JSONL file per attempt, one unbuffered write a row, so that a kill loses nothing. An attempt begins with a row that
says at which step it restored; a reader drops earlier attempts' rows past that step, so that a run reads as one clean
curve whatever happened to it. A finished run's rows are compacted to Parquet.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cl_bench.errors import UserError
from cl_bench.runs.paths import RunDir, write_atomic

Kind = Literal["attempt", "train", "eval"]

# Column -> pandas dtype. A null number is a value that was not finite or not measured.
TRAIN_COLUMNS = {
    "step": "int64",
    "consumed_tokens": "int64",
    "consumed_samples": "int64",
    "seqlen": "int64",
    "global_batch_size": "int64",
    "lr": "float64",
    "loss": "float64",
    "loss_ratio": "float64",
    "grad_norm": "float64",
    "adam_var_l1": "float64",
    "adam_var_max": "float64",
    "adam_var_sqrt_l1": "float64",
    "adam_var_sqrt_max": "float64",
    "loss_scale": "float64",
    "train_seconds": "float64",
    "tokens_per_second": "float64",
    "attempt": "int64",
}
EVAL_COLUMNS = {
    "step": "int64",
    "consumed_tokens": "int64",
    "train_seconds": "float64",
    "val_loss": "float64",
    "val_ppl": "float64",
    "eval_seconds": "float64",
    "attempt": "int64",
}
ATTEMPT_COLUMNS = {
    "attempt": "int64",
    "restored_step": "int64",
    "world_size": "int64",
    "host": "str",
    "device": "str",
    "started": "float64",
    "versions": "str",
    "hardware": "str",
}
# What a reader adds to each attempt.
SPENT_COLUMNS = {"trained_seconds": "float64", "lost_seconds": "float64", "eval_seconds": "float64"}
COLUMNS: dict[Kind, dict[str, str]] = {"attempt": ATTEMPT_COLUMNS, "train": TRAIN_COLUMNS, "eval": EVAL_COLUMNS}


class RecordError(UserError):
    """A record that cannot be read."""


class RecordWriter:
    """Appends rows to one attempt's file; only rank 0 has one."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        run.metrics.mkdir(parents=True, exist_ok=True)
        self.attempt = attempt
        self.path = run.attempt(attempt)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, kind: Kind, row: dict[str, Any]) -> None:
        """Append one row with a single write. Non-finite numbers become null (JSON has no NaN)."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        line = memoryview(json.dumps({"kind": kind, "attempt": self.attempt, **plain}).encode() + b"\n")
        while line:
            # A nearly full disk takes part of the row: the next write raises, and the torn line stays the last one.
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Make the rows durable."""
        os.fsync(self._fd)
        os.close(self._fd)


def next_attempt(run: RunDir) -> int:
    """Number of the attempt about to start."""
    numbers = [int(p.stem.split("_")[1]) for p in run.attempts()]
    if run.table("attempt").exists():  # a finished run that is trained on
        numbers += _read_table(run, "attempt")["attempt"].tolist()
    return 1 + max(numbers, default=-1)


def _read_attempt(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of one JSONL file, and what was forgiven. Only a torn last line is: it is what a kill leaves behind."""
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "kind" not in row:
                raise ValueError("not a metric row")
        except ValueError as error:
            if number == len(lines):  # no newline after it: the write was cut short
                return rows, f"{path}: torn last line {number} ignored"
            raise RecordError(f"{path}, line {number}: {error}; the record is damaged before its end") from None
        rows.append(row)
    return rows, None


def _frame(rows: list[dict[str, Any]], kind: Kind) -> pd.DataFrame:
    frame = pd.DataFrame([r for r in rows if r["kind"] == kind], columns=list(COLUMNS[kind]))
    if kind == "attempt":
        frame["versions"] = frame["versions"].map(lambda v: v if isinstance(v, str) else json.dumps(v))
        frame["hardware"] = frame["hardware"].map(lambda v: v if isinstance(v, str) else "")  # older rows have none
    return frame.astype(COLUMNS[kind])


def _drop_superseded(frame: pd.DataFrame, attempts: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that a later attempt trained again: those past the step at which it restored.

    The evaluation at the restored step itself belongs to the earlier attempt and stays.
    """
    if len(attempts) <= 1 and frame["step"].is_monotonic_increasing:
        return frame
    keep = pd.Series(True, index=frame.index)
    for attempt, restored in zip(attempts["attempt"], attempts["restored_step"], strict=True):
        keep &= ~((frame["attempt"] < attempt) & (frame["step"] > restored))
    return frame[keep].sort_values(["step", "attempt"], kind="stable").reset_index(drop=True)


def _spent(train: pd.DataFrame, evals: pd.DataFrame, attempts: pd.DataFrame) -> pd.DataFrame:
    """The attempts with SPENT_COLUMNS, from the rows of all of them.

    `trained_seconds` is what an attempt trained, `lost_seconds` the part of it that later attempts rolled back, so that
    the kept parts add up to the clean curve's last train_seconds. An attempt's clock starts where it restored; where no
    earlier row tells that, the attempt's first step is not counted.
    """
    number, step, clock = (train[c].to_numpy() for c in ("attempt", "step", "train_seconds"))
    evaluated, took = (evals[c].to_numpy() for c in ("attempt", "eval_seconds"))
    restored = list(zip(attempts["attempt"].tolist(), attempts["restored_step"].tolist(), strict=True))
    spent = np.zeros((len(attempts), len(SPENT_COLUMNS)))
    for row, (attempt, begins) in zip(spent, restored, strict=True):
        row[2] = np.nansum(took[evaluated == attempt])
        own = np.flatnonzero(number == attempt)
        if len(own):
            before = np.flatnonzero((number < attempt) & (step == begins))
            start = 0.0 if begins == 0 else clock[before[-1]] if len(before) else clock[own[0]]
            kept = own[step[own] <= min((r for a, r in restored if a > attempt), default=math.inf)]
            row[0] = clock[own[-1]] - start
            row[1] = clock[own[-1]] - (clock[kept[-1]] if len(kept) else start)
    return pd.concat([attempts, pd.DataFrame(spent, attempts.index, list(SPENT_COLUMNS))], axis=1)


class Record:
    """What a run recorded: `train` and `evals`, one clean curve each; `notes` on what was forgiven; and `attempts`,
    each with what it trained, what of that was rolled back, and how long it evaluated (SPENT_COLUMNS)."""

    def __init__(self, train: pd.DataFrame, evals: pd.DataFrame, attempts: pd.DataFrame, notes: list[str]) -> None:
        self.train = _drop_superseded(train, attempts)
        self.evals = _drop_superseded(evals, attempts).drop_duplicates("step", keep="first").reset_index(drop=True)
        self.attempts = _spent(train, evals, attempts)
        self.notes = notes

    @property
    def lost_seconds(self) -> float:
        """Seconds of training that were rolled back and done again, over all attempts."""
        return float(self.attempts["lost_seconds"].sum())


def read(run: RunDir) -> Record:
    """Read a run, finished or not: columns as in TRAIN_COLUMNS, EVAL_COLUMNS, ATTEMPT_COLUMNS and SPENT_COLUMNS.

    Raises RecordError for damage before the end of a file.
    """
    frames, notes = _all_rows(run, run.attempts())
    return Record(frames["train"], frames["eval"], frames["attempt"], notes)


def _all_rows(run: RunDir, paths: list[Path]) -> tuple[dict[Kind, pd.DataFrame], list[str]]:
    """Every row of every attempt, from the tables and from the JSONL files `paths`."""
    if not paths and run.table("train").exists():
        return {kind: _read_table(run, kind) for kind in COLUMNS}, []
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for path in paths:
        more, note = _read_attempt(path)
        rows += more
        notes += [note] if note else []
    frames: dict[Kind, pd.DataFrame] = {kind: _frame(rows, kind) for kind in COLUMNS}
    if run.table("train").exists():
        done = {kind: _read_table(run, kind) for kind in COLUMNS}
        for kind in COLUMNS:
            # JSONL files that a crash left beside their compacted rows are not read twice.
            fresh = frames[kind][~frames[kind]["attempt"].isin(done[kind]["attempt"])]
            frames[kind] = pd.concat([done[kind], fresh], ignore_index=True) if len(fresh) else done[kind]
    return frames, notes


def _read_table(run: RunDir, kind: Kind) -> pd.DataFrame:
    try:
        # Without threads and the layer for data sets of many files: a sweep has thousands of small ones.
        with pq.ParquetFile(run.table(kind)) as file:
            frame: pd.DataFrame = file.read(use_threads=False).to_pandas()
        return frame.assign(hardware="") if kind == "attempt" and "hardware" not in frame else frame
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(f"{run.table(kind)}: {error}; delete the folder to train the run again") from None


def compact(run: RunDir) -> None:
    """Turn a finished run's JSONL into Parquet; rows of superseded attempts are kept and marked by their attempt.

    The JSONL is removed only once every table is on disk.
    """
    paths = run.attempts()
    frames, _ = _all_rows(run, paths)
    for kind in ("attempt", "eval", "train"):  # train last: its presence says that all are there
        table = pa.Table.from_pandas(frames[kind], preserve_index=False)
        sink = pa.BufferOutputStream()
        floats = [c for c, t in COLUMNS[kind].items() if t == "float64"]
        pq.write_table(
            table,
            sink,
            compression="zstd",
            use_dictionary=[c for c in COLUMNS[kind] if c not in floats],
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        )
        write_atomic(run.table(kind), sink.getvalue().to_pybytes())
    for path in paths:
        path.unlink()
