"""Savings at every target: from early ones to the lowest that all runs of a cell reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.schema import CELL, Runs, perplexity
from analysis.stats.crossings import Curve, Floats, Method, curves
from analysis.stats.intervals import Estimate, log_interval, method_for
from analysis.stats.savings import CellSaving, CommonTarget

N_TARGETS = 60
_EARLIEST = 0.02
"""Share of the baseline's tokens before which no target is taken: there all curves fall alike."""

TARGET_COLUMNS = (
    "cell",
    *CELL,
    "n",
    "target_loss",
    "target_ppl",
    *(f"{m}_saving{end}" for m in ("token", "time") for end in ("", "_low", "_high")),
)


class Target(NamedTuple):
    """The pairs of a cell at one target: point, low and high of the saving, as shares; NaN if undefined."""

    loss: float
    n: int
    token: tuple[float, float, float]
    time: tuple[float, float, float]

    @property
    def common(self) -> CommonTarget:
        """As estimates."""
        return CommonTarget(self.loss, *(_estimate(values, self.n) for values in (self.token, self.time)))


def _estimate(values: tuple[float, float, float], n: int) -> Estimate:
    point, low, high = (None if math.isnan(v) else v for v in values)
    if point is None:
        return Estimate(arrived=n, n=n)
    return Estimate(point, low, high, method=method_for(n), censored="", arrived=n, n=n)


def over_targets(
    runs: Runs, cells: Sequence[CellSaving], method: Method = "interpolate"
) -> tuple[pd.DataFrame, list[CommonTarget | None]]:
    """One row per target and cell (TARGET_COLUMNS), and each cell's saving at the lowest of its targets.

    `cell` is the cell's index in `cells`. The band is pointwise: each target's own interval. The targets are the losses
    of the cell's first baseline at points evenly spaced over the log of its tokens.
    """
    by_run = curves(runs.evals)
    rows: list[dict[str, Any]] = []
    lowest: list[CommonTarget | None] = []
    for number, saving in enumerate(cells):
        key = {"cell": number, **{name: getattr(saving.cell, name) for name in CELL}}
        targets = at_targets(_pairs(saving, by_run), method)
        lowest.append(targets[-1].common if targets else None)
        rows += [
            key
            | {"n": t.n, "target_loss": t.loss, "target_ppl": perplexity(t.loss)}
            | _columns("token", t.token)
            | _columns("time", t.time)
            for t in targets
        ]
    return pd.DataFrame(rows, columns=list(TARGET_COLUMNS)), lowest


def _columns(measure: str, values: tuple[float, float, float]) -> dict[str, float]:
    return {f"{measure}_saving{end}": v for end, v in zip(("", "_low", "_high"), values, strict=True)}


def _pairs(cell: CellSaving, by_run: Mapping[str, Curve]) -> list[tuple[Curve, Curve]]:
    pairs = [(r.run_id, r.paired.baseline_run_id or "") for r in cell.runs]
    return [(by_run[ours], by_run[theirs]) for ours, theirs in pairs if ours in by_run and theirs in by_run]


def at_targets(pairs: Sequence[tuple[Curve, Curve]], method: Method = "interpolate") -> list[Target]:
    """The savings of (curriculum, baseline) pairs, one per seed, at targets that all of their curves reached."""
    losses = target_losses(pairs, method)
    if not len(losses):
        return []
    amounts = [[c.crossings(losses, method) for c in p] for p in pairs]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.array([np.log(ours[i] / theirs[i]) for ours, theirs in amounts]) for i in (0, 1)]
    tokens, seconds = (_summary(part) for part in logs)
    return [
        Target(float(loss), len(pairs), *(tuple(s[:, i].tolist()) for s in (tokens, seconds)))
        for i, loss in enumerate(losses)
    ]


def target_losses(pairs: Sequence[tuple[Curve, Curve]], method: Method = "interpolate") -> Floats:
    """Falling losses that every curve started above and reached; the last is the lowest such loss.

    No run is free to choose the lowest: it is the final loss of the worst of them.
    """
    all_curves = [c for p in pairs for c in p]
    if not all_curves:
        return np.empty(0)
    lowest, start = max(c.lowest(method) for c in all_curves), min(c.start for c in all_curves)
    if not (math.isfinite(lowest) and lowest < start):
        return np.empty(0)
    baseline = pairs[0][1]
    trained = baseline.tokens[baseline.tokens > 0]
    if not len(trained):
        return np.empty(0)
    at = np.geomspace(max(trained[0], _EARLIEST * trained[-1]), trained[-1], N_TARGETS)
    usable = np.isfinite(baseline.loss)
    reached = np.interp(at, baseline.tokens[usable], np.minimum.accumulate(baseline.loss[usable]))
    between = np.unique(reached[(reached > lowest) & (reached < start)])[::-1]
    return np.append(between, lowest)


def _summary(logs: Floats) -> Floats:
    """Saving, low and high, shape (3, targets), of log ratios of shape (seeds, targets)."""
    mean = logs.mean(axis=0)
    nothing = np.full_like(mean, np.nan)
    low, high = log_interval(logs) if len(logs) > 1 and np.isfinite(logs).all() else (nothing, nothing)
    summary: Floats = -np.expm1(np.array([mean, high, low]))
    return np.where(np.isfinite(summary), summary, np.nan)
