"""Training steps of each run by shape, with their recorded durations: the input of the clock (analysis.stats.clock).

A shape is what determines how long a step takes: batch size, sequence length, hardware, ranks and precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import Row, Runs, rows_of, stretches

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
UNKNOWN_SHAPE = -1
"""Shape of a row whose steps had several lengths."""


class Shape(NamedTuple):
    """All that determines the duration of a step, within one setting (model, text and everything else)."""

    setting: str
    batch: int
    """Sequences of `seqlen` tokens per step: tokens of the step over its length, so that a batch warmup has its own."""
    seqlen: int
    hardware: str
    ranks: int
    precision: str


@dataclasses.dataclass(frozen=True)
class RunSteps:
    """The training rows of one run; each array has shape (rows,)."""

    run_id: str
    seed: int
    is_baseline: bool
    tokens: Floats
    """Consumed tokens after each row; increasing."""
    shapes: Ints
    """Index of each row's shape, or UNKNOWN_SHAPE."""
    steps: Floats
    """Optimizer steps since the previous row."""
    seconds: Floats
    """Recorded training seconds since the previous row."""
    measured: Medians


class Medians(NamedTuple):
    """Step times of one run by shape; each array has shape (shapes it measured,).

    From rows whose steps are all of one shape, without the first step of each attempt, which warms up.
    """

    shapes: Ints
    seconds: Floats
    """Median seconds per step."""
    steps: Floats
    """Number of steps."""


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """The steps of all runs that record them."""

    shapes: tuple[Shape, ...]
    runs: tuple[RunSteps, ...]


def step_times(runs: Runs) -> StepTimes:
    """The steps of every run with training rows in order and finite seconds; other runs are left out."""
    needed = {"step", "consumed_tokens", "train_seconds", "seqlen"}
    if runs.train.empty or not needed <= set(runs.train.columns):
        return StepTimes((), ())
    train = runs.train
    attempt = train["attempt"].to_numpy() if "attempt" in train else np.zeros(len(train), dtype=np.int64)
    step, tokens, seconds, seqlen = (
        train[c].to_numpy(dtype=float) for c in ("step", "consumed_tokens", "train_seconds", "seqlen")
    )
    rows = {str(row["run_id"]): row for row in rows_of(runs.runs)}
    machines = _machines(runs.attempts)
    codes: dict[Shape, int] = {}
    result = []
    for run_id, part in stretches(train):
        if run_id not in rows:
            continue
        columns = _Columns(step[part], tokens[part], seconds[part], seqlen[part], attempt[part])
        if (steps := _run_steps(rows[run_id], columns, machines.get(run_id, {}), codes)) is not None:
            result.append(steps)
    return StepTimes(tuple(codes), tuple(result))


class _Columns(NamedTuple):
    """Columns of one run's training rows."""

    step: Floats
    tokens: Floats
    seconds: Floats
    seqlen: Floats
    attempt: npt.NDArray[Any]


_Machine = tuple[str, int]
"""Hardware and ranks."""


def _machines(attempts: pd.DataFrame) -> dict[str, dict[int, _Machine]]:
    """The machine of each attempt of each run_id; older records hold the device ('cpu', 'cuda') instead of a name."""
    if not {"run_id", "attempt", "hardware", "device", "world_size"} <= set(attempts.columns):
        return {}
    result: dict[str, dict[int, _Machine]] = {}
    for row in rows_of(attempts):
        name = str(row["hardware"] or str(row["device"]).split(":")[0])
        result.setdefault(str(row["run_id"]), {})[int(row["attempt"])] = name, int(row["world_size"])
    return result


def _run_steps(
    run: Row, columns: _Columns, machines: Mapping[int, _Machine], codes: dict[Shape, int]
) -> RunSteps | None:
    """One run's steps; `codes` grows by its shapes. None unless tokens increase and seconds are finite."""
    steps, moved, took = (np.diff(c, prepend=0.0) for c in (columns.step, columns.tokens, columns.seconds))
    if not (np.isfinite(took).all() and (moved > 0).all() and (steps > 0).all() and took.any()):
        return None
    is_start = np.diff(columns.attempt, prepend=columns.attempt[0] - 1) != 0
    same_length = np.diff(columns.seqlen, prepend=np.nan) == 0
    is_one_shape = (columns.seqlen > 0) & ((steps == 1) | same_length)
    seqlen = np.where(is_one_shape, columns.seqlen, 1).astype(np.int64)
    batch = np.rint(moved / steps / seqlen).astype(np.int64)
    keys, index = np.unique(np.stack([batch, seqlen, columns.attempt.astype(np.int64)]), axis=1, return_inverse=True)
    other = str(run.get("hardware") or ""), int(run.get("world_size") or 0)
    keyed = [
        Shape(str(run["setting"]), int(b), int(length), *machines.get(int(a), other), str(run.get("precision") or ""))
        for b, length, a in keys.T
    ]
    used = set(index[is_one_shape].tolist())
    numbers = np.array([codes.setdefault(s, len(codes)) if i in used else -1 for i, s in enumerate(keyed)])
    shapes = np.where(is_one_shape, numbers[index.reshape(-1)], UNKNOWN_SHAPE)
    return RunSteps(
        run_id=str(run["run_id"]),
        seed=int(run["seed"]),
        is_baseline=run["role"] == "baseline",
        tokens=columns.tokens,
        shapes=shapes,
        steps=steps,
        seconds=took,
        measured=_medians(shapes, steps, took, is_one_shape & ~is_start & (took > 0)),
    )


def _medians(shapes: Ints, steps: Floats, seconds: Floats, is_measured: npt.NDArray[np.bool_]) -> Medians:
    rows = pd.DataFrame({"shape": shapes, "pace": seconds / steps, "steps": steps})[is_measured]
    table = rows.groupby("shape").agg(pace=("pace", "median"), steps=("steps", "sum"))
    return Medians(table.index.to_numpy(dtype=np.int64), table["pace"].to_numpy(), table["steps"].to_numpy())
