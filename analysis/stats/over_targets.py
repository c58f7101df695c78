"""No favourite target: a cell's saving at every target that all its runs reached, and at the deepest of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from analysis.schema import Runs, rows_of
from analysis.stats.crossings import Floats, Method
from analysis.stats.curves import Curve, curves
from analysis.stats.intervals import log_interval
from analysis.stats.savings import CELL

N_TARGETS = 60
_EARLIEST = 0.02
"""Share of the baseline's tokens before which no target is taken: there every curve falls alike."""

TARGET_COLUMNS = (
    "cell",
    *CELL,
    "n",
    "target_loss",
    "target_ppl",
    *(f"{m}_saving{end}" for m in ("token", "time") for end in ("", "_low", "_high")),
)


class Target(NamedTuple):
    """The pairs of a cell at one target: the saving and its interval, as shares; NaN where there is none."""

    loss: float
    n: int
    token: tuple[float, float, float]
    time: tuple[float, float, float]


def over_targets(runs: Runs, savings: pd.DataFrame, method: Method = "interpolate") -> pd.DataFrame:
    """One row a target and cell (TARGET_COLUMNS), from the earliest to the deepest target that all its runs reached.

    `cell` numbers the cells as `savings.cells` lists them. The band is pointwise: each target's own 95% interval. The
    targets are what the first baseline of the cell had reached at points evenly spaced over the log of its tokens.
    """
    known = curves(runs.evals)
    rows: list[dict[str, Any]] = []
    for number, (key, group) in enumerate(savings.groupby(CELL, sort=False, dropna=False)):
        where: dict[str, Any] = {"cell": number, **dict(zip(CELL, cast(tuple[Any, ...], key), strict=True))}
        rows += [
            where
            | {
                "n": t.n,
                "target_loss": t.loss,
                "target_ppl": math.exp(t.loss),
                **_columns("token", t.token),
                **_columns("time", t.time),
            }
            for t in at_targets(_pairs(group, known), method)
        ]
    return pd.DataFrame(rows, columns=list(TARGET_COLUMNS))


def deepest(table: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """Of each cell, the row of `over_targets` with the deepest target; plain values, None for NaN."""
    last = table.groupby("cell", sort=False).tail(1)
    return {int(r["cell"]): {k: None if v != v else v for k, v in r.items()} for r in rows_of(last)}


def _columns(measure: str, values: tuple[float, float, float]) -> dict[str, float]:
    return {f"{measure}_saving{end}": v for end, v in zip(("", "_low", "_high"), values, strict=True)}


def _pairs(group: pd.DataFrame, known: dict[str, Curve]) -> list[tuple[Curve, Curve]]:
    pairs = zip(group["run_id"].astype(str), group["baseline_run_id"], strict=True)
    return [(known[ours], known[theirs]) for ours, theirs in pairs if ours in known and theirs in known]


def at_targets(pairs: Sequence[tuple[Curve, Curve]], method: Method = "interpolate") -> list[Target]:
    """The savings of (curriculum, baseline) pairs, one a seed, at targets that every one of their curves reached."""
    found = targets_of(pairs, method)
    if not len(found):
        return []
    both = [[c.crossings(found, method) for c in p] for p in pairs]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.array([np.log(ours[i] / theirs[i]) for ours, theirs in both]) for i in (0, 1)]
    tokens, seconds = (_summary(part) for part in logs)
    return [
        Target(float(loss), len(pairs), *(tuple(s[:, i].tolist()) for s in (tokens, seconds)))
        for i, loss in enumerate(found)
    ]


def targets_of(pairs: Sequence[tuple[Curve, Curve]], method: Method = "interpolate") -> Floats:
    """Losses, falling, that every curve started above and got to; the last is the deepest such loss.

    The deepest is no run's choice: it is where the worst of them ended.
    """
    all_curves = [c for p in pairs for c in p]
    if not all_curves:
        return np.empty(0)
    deep, start = max(c.depth(method) for c in all_curves), min(c.start for c in all_curves)
    if not (math.isfinite(deep) and deep < start):
        return np.empty(0)
    baseline = pairs[0][1]
    first = baseline.tokens[baseline.tokens > 0]
    if not len(first):
        return np.empty(0)
    at = np.geomspace(max(first[0], _EARLIEST * first[-1]), first[-1], N_TARGETS)
    usable = np.isfinite(baseline.loss)
    reached = np.interp(at, baseline.tokens[usable], np.minimum.accumulate(baseline.loss[usable]))
    between = np.unique(reached[(reached > deep) & (reached < start)])[::-1]
    return np.append(between, deep)


def _summary(logs: Floats) -> Floats:
    """Saving, low and high, shape (3, targets), of log ratios of shape (seeds, targets)."""
    mean = logs.mean(axis=0)
    nothing = np.full_like(mean, np.nan)
    low, high = log_interval(logs) if len(logs) > 1 and np.isfinite(logs).all() else (nothing, nothing)
    summary: Floats = -np.expm1(np.array([mean, high, low]))
    return np.where(np.isfinite(summary), summary, np.nan)
