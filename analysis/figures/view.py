"""The first view of a figure of curves: the values it shows, and in words what it leaves out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.words import ppl

_START = 0.05
"""Share of a run's token budget that may lie outside the first view: the fall from the untrained model."""

_ABOVE_WORST_FINAL = 4.0


class View(NamedTuple):
    """The values a figure shows at first."""

    low: float
    high: float
    left_out: str
    """One sentence; empty if the view shows every value."""


def perplexity_view(runs: pd.DataFrame, evals: pd.DataFrame, target_ppl: float | None) -> View:
    """The view that lets the ends be compared: at most 4 times the worst final perplexity, the target always in it.

    A spike of one run may be a thousand times higher; its line leaves the view at the top.
    """
    rows, started, healthy = _split(runs, evals, "val_ppl")
    finals = healthy.sort_values("step").groupby("run_id")["val_ppl"].last()
    low, high = float(started["val_ppl"].min()), float(healthy["val_ppl"].max())
    high = min(high, _ABOVE_WORST_FINAL * float(finals.max()))
    if target_ppl is not None:
        low, high = min(low, target_ppl), max(high, target_ppl)
    return _view(rows, "val_ppl", low / 1.04, high * 1.04)


def metric_view(runs: pd.DataFrame, train: pd.DataFrame, metric: str) -> View:
    """The view of a training metric: spikes are what readers look for, so only diverged runs may leave it."""
    rows, started, healthy = _split(runs, train, metric)
    low, high = float(started[metric].min()), float(healthy[metric].max())
    margin = 0.04 * (high - low) or 1.0
    return _view(rows, metric, low / 1.04 if low > 0 else low - margin, high + margin)


def _split(runs: pd.DataFrame, points: pd.DataFrame, value: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Points with a finite value: all, those after the start, and of these those of runs that did not diverge.

    An empty selection is replaced by the one before it.
    """
    rows = points[np.isfinite(points[value].to_numpy(dtype=float))]
    budget = rows["run_id"].map(runs.set_index("run_id")["token_budget"])
    rows = rows.assign(at_start=rows["consumed_tokens"] < _START * budget)
    started = rows[~rows["at_start"]]
    started = started if len(started) else rows
    healthy = started[~started["run_id"].isin(runs.loc[runs["state"] == "DIVERGED", "run_id"])]
    return rows, started, healthy if len(healthy) else started


def _view(rows: pd.DataFrame, value: str, low: float, high: float) -> View:
    outside = rows[(rows[value] < low) | (rows[value] > high)]
    later = outside[~outside["at_start"]]
    parts = []
    if len(later) < len(outside):
        parts.append(f"part of the first {_START:.0%} of the budget")
    if len(later):
        count = later["run_id"].nunique()
        parts.append(f"later values of {count} run{'s' * (count > 1)}, up to {ppl(float(later[value].max()))}")
    left_out = f"Outside the first view: {'; '.join(parts)}. Double-click shows all." if parts else ""
    return View(low, high, left_out)
