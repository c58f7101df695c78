"""Reader of W&B's local files (.wandb), of offline and online runs alike; the service is not needed.

The message types come from wandb, which takes a second to import: it is imported where a file is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.readers import naming, tidy, wandb_log, wandb_runs
from analysis.readers.reader import Option, Reader
from analysis.readers.wandb_runs import WandbRun
from analysis.schema import NoRunsError, Runs
from cl_bench.errors import UserError
from cl_bench.runs.status import State


def load_wandb_dir(folder: str | Path, names: Mapping[str, str] | None = None, baseline: str = tidy.BASELINE) -> Runs:
    """Every W&B run at any depth below a folder; `names` maps our metric and config names to the runs'.

    `baseline` is the curriculum of the runs that others are compared with.

    A file whose end is cut off is read up to there, with a note. Raises NoRunsError if there are no runs, UserError for
    a file that is damaged before its end.
    """
    root = Path(folder)
    if not root.exists():
        raise NoRunsError(f"{root}: no such folder")
    files = [root] if root.is_file() else sorted({p.resolve() for p in root.rglob("run-*.wandb")})
    if not files:
        raise NoRunsError(f"{root}: no run-*.wandb below it; give a folder that W&B logged into")
    notes: list[str] = []
    return wandb_runs.combine(root.resolve().name, root, _read_all(files, notes), names or {}, notes, baseline)


def _read_all(files: list[Path], notes: list[str]) -> Iterator[WandbRun]:
    for path in files:
        run, note = read_file(path)
        notes += [note] if note else []
        if run:
            yield run


def read_file(path: Path) -> tuple[WandbRun | None, str]:
    """The run in one .wandb file and a note on a cut-off end; None if the record that names the run is incomplete.

    Raises UserError for a file of another format or damaged before its end.
    """
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record()
    about: Any = None
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    exit_code: int | None = None
    note = ""
    try:
        for payload in wandb_log.records(path.read_bytes(), path):
            record.ParseFromString(payload)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                rows.append({_key(i): _value(i.value_json) for i in record.history.item})
            elif kind == "summary":
                _update(summary, record.summary)
            elif kind == "config":
                _update(config, record.config)
            elif kind == "run":
                about = about or wandb_internal_pb2.RunRecord.FromString(record.run.SerializeToString())
                _update(config, record.run.config)
            elif kind == "exit":
                exit_code = record.exit.exit_code
    except wandb_log.Torn:
        note = f"{path}: its end is cut off; read up to there."
    if about is None:
        return None, f"{path}: cut off before the run's name; left out."
    config.pop("_wandb", None)
    state: State = "LOST" if exit_code is None else "FAILED" if exit_code else "DONE"
    run = WandbRun(about.run_id, about.display_name, about.run_group, about.job_type, config, summary, state, rows)
    return run, note


def _key(item: Any) -> str:
    """A metric's name, nested ones dotted."""
    return str(item.key or ".".join(item.nested_key))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UserError(f"W&B value {text[:40]!r} is not JSON") from None


def _update(plain: dict[str, Any], record: Any) -> None:
    """Apply a record of changed and removed keys to a nested dictionary."""
    for item in record.update:
        *groups, last = list(item.nested_key) or [item.key]
        inner = plain
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = _value(item.value_json)
    for item in record.remove:
        plain.pop(item.key, None)


READER = Reader(
    Option("wandb-dir", "FOLDER", "instead: W&B's offline runs below a folder"),
    load_wandb_dir,
    {"names": naming.MAP, "baseline": naming.BASELINE},
)
