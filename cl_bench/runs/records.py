"""Metric rows of a run: writing, compaction, reading.

Each attempt has a JSONL file with one unbuffered write per row, so that a kill loses nothing. Its first row holds the
step that the attempt restored; a reader drops earlier attempts' rows after that step, so that a run always reads as one
clean curve. The rows of a finished run are compacted to Parquet.
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

# Column -> pandas dtype. Null stands for a number that was not finite or not measured.
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
# Columns that a reader adds to each attempt.
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
        """Append one row by a single write. Non-finite numbers become null (JSON has no NaN)."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        line = memoryview(json.dumps({"kind": kind, "attempt": self.attempt, **plain}).encode() + b"\n")
        while line:
            # A nearly full disk may accept part of the row: the next write raises, and the torn line stays the last.
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Make the rows durable."""
        os.fsync(self._fd)
        os.close(self._fd)


def next_attempt(run: RunDir) -> int:
    """Number of the next attempt."""
    numbers = [int(p.stem.split("_")[1]) for p in run.attempts()]
    if run.table("attempt").exists():  # a finished run that is trained further
        numbers += _read_table(run, "attempt")["attempt"].tolist()
    return 1 + max(numbers, default=-1)


def _read_attempt(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of one JSONL file, and a note on a last line torn by a kill. Raises RecordError for other damage."""
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
        frame["hardware"] = frame["hardware"].map(lambda v: v if isinstance(v, str) else "")  # missing in older rows
    return frame.astype(COLUMNS[kind])


def _drop_superseded(frame: pd.DataFrame, attempts: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows that a later attempt repeated: those after the step that it restored.

    The evaluation at the restored step itself belongs to the earlier attempt and is kept.
    """
    if len(attempts) <= 1 and frame["step"].is_monotonic_increasing:
        return frame
    keep = pd.Series(True, index=frame.index)
    for attempt, restored in zip(attempts["attempt"], attempts["restored_step"], strict=True):
        keep &= ~((frame["attempt"] < attempt) & (frame["step"] > restored))
    return frame[keep].sort_values(["step", "attempt"], kind="stable").reset_index(drop=True)


def _spent(train: pd.DataFrame, evals: pd.DataFrame, attempts: pd.DataFrame) -> pd.DataFrame:
    """The attempts with SPENT_COLUMNS, computed from the rows of all attempts.

    `trained_seconds` is an attempt's training time, `lost_seconds` the part that later attempts rolled back; the kept
    parts add up to the clean curve's last train_seconds. An attempt's clock starts at the restored step; if no earlier
    row holds that time, the attempt's first step is not counted.
    """
    number, step, clock = (train[c].to_numpy() for c in ("attempt", "step", "train_seconds"))
    eval_number, eval_seconds = (evals[c].to_numpy() for c in ("attempt", "eval_seconds"))
    restored = list(zip(attempts["attempt"].tolist(), attempts["restored_step"].tolist(), strict=True))
    spent = np.zeros((len(attempts), len(SPENT_COLUMNS)))
    for row, (attempt, first_step) in zip(spent, restored, strict=True):
        row[2] = np.nansum(eval_seconds[eval_number == attempt])
        own = np.flatnonzero(number == attempt)
        if len(own):
            before = np.flatnonzero((number < attempt) & (step == first_step))
            start = 0.0 if first_step == 0 else clock[before[-1]] if len(before) else clock[own[0]]
            kept = own[step[own] <= min((r for a, r in restored if a > attempt), default=math.inf)]
            row[0] = clock[own[-1]] - start
            row[1] = clock[own[-1]] - (clock[kept[-1]] if len(kept) else start)
    return pd.concat([attempts, pd.DataFrame(spent, attempts.index, list(SPENT_COLUMNS))], axis=1)


class Record:
    """A run's record.

    `train` and `evals` hold one clean curve each, `attempts` one row per attempt with its training time, the part that
    was rolled back and its evaluation time (SPENT_COLUMNS), `notes` the damage tolerated while reading.
    """

    def __init__(self, train: pd.DataFrame, evals: pd.DataFrame, attempts: pd.DataFrame, notes: list[str]) -> None:
        self.train = _drop_superseded(train, attempts)
        self.evals = _drop_superseded(evals, attempts).drop_duplicates("step", keep="first").reset_index(drop=True)
        self.attempts = _spent(train, evals, attempts)
        self.notes = notes

    @property
    def lost_seconds(self) -> float:
        """Seconds of training that were rolled back, over all attempts."""
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
        for kind in COLUMNS:
            table = _read_table(run, kind)
            # A crash may leave JSONL files beside the table that already holds their rows.
            fresh = frames[kind][~frames[kind]["attempt"].isin(table["attempt"])]
            frames[kind] = pd.concat([table, fresh], ignore_index=True) if len(fresh) else table
    return frames, notes


def _read_table(run: RunDir, kind: Kind) -> pd.DataFrame:
    try:
        # Without threads and pyarrow's multi-file layer: a sweep has thousands of small files.
        with pq.ParquetFile(run.table(kind)) as file:
            frame: pd.DataFrame = file.read(use_threads=False).to_pandas()
        return frame.assign(hardware="") if kind == "attempt" and "hardware" not in frame else frame
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(f"{run.table(kind)}: {error}; delete the folder to train the run again") from None


def compact(run: RunDir) -> None:
    """Convert a finished run's JSONL to Parquet, including the rows of superseded attempts.

    The JSONL is removed only once all tables are on disk.
    """
    paths = run.attempts()
    frames, _ = _all_rows(run, paths)
    for kind in ("attempt", "eval", "train"):  # train last: it implies that all tables exist
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
