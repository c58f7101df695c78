"""The `zeroshot.json` of a run: zero-shot results of its saves, a list per task."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from cl_bench.errors import UserError
from cl_bench.runs import lock
from cl_bench.runs.paths import RunDir, write_atomic

METRICS = {"wikitext103": "word_ppl", "lambada": "accuracy"}
"""Task -> metric in comparisons."""
_MEASUREMENT = ("data_sha256", "window", "stride", "strict", "tokenizer")


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation of a save."""

    task: str
    step: int
    value: float
    """The task's metric."""
    measurement: tuple[Any, ...]
    """Data, window, stride, strictness and tokenizer: equal for comparable results."""


def read(run: RunDir) -> list[Result]:
    """The results of METRICS' tasks in the file's order, the newest last. Raises UserError for a damaged file."""
    try:
        return [
            Result(task, int(entry["step"]), float(entry[METRICS[task]]), _measurement(entry))
            for task, results in entries(run).items()
            if task in METRICS
            for entry in results
        ]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise _damaged(run) from None


def entries(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """Task -> its entries, with all keys of the file; empty without a file. Raises UserError for a damaged file."""
    try:
        content = json.loads(run.zeroshot.read_text())
        if isinstance(content, dict) and all(isinstance(e, dict) for results in content.values() for e in results):
            return content
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        pass
    raise _damaged(run)


def add(run: RunDir, task: str, entry: dict[str, Any]) -> None:
    """Append a result, replacing an earlier one of the same step and measurement. Raises UserError."""
    with lock.alone(run.zeroshot_lock):
        existing = entries(run)
        new = (entry.get("step"), _measurement(entry))
        others = [e for e in existing.get(task, []) if (e.get("step"), _measurement(e)) != new]
        write_atomic(run.zeroshot, json.dumps(existing | {task: [*others, entry]}, indent=1))


def _measurement(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(key) for key in _MEASUREMENT)


def _damaged(run: RunDir) -> UserError:
    return UserError(f"{run.zeroshot}: not zero-shot results; delete it and evaluate again")
