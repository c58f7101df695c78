"""Stability maps: the largest loss ratio by batch size and learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.figures.style import INK, Figure, styled_axis, styled_layout
from analysis.schema import method_names
from analysis.stats.boundary import proportion
from cl_bench.runs.identity import short_float

RATIO_SCALE_TOP = 2.0
"""Loss ratios from here up have the full colour, so that one diverged run does not make all others look alike."""

_COUNTS = ("runs", "diverged", "finished", "diverged_low_pct", "diverged_high_pct")


def stability_maps(stability: pd.DataFrame) -> dict[str, Figure]:
    """One heat map per curriculum: batch size (rows) by learning rate (columns), all on one colour scale.

    ``stability`` has one row per run: curriculum, variant, global_batch_size (sequences), lr, state, diverged,
    max_loss_ratio (the largest training loss over the smallest before it, 1 = never rose). A cell shows the worst of
    its seeds; a diverged run adds an × with the count. The hover shows the share of finished seeds that diverged, with
    its exact 95% interval.
    """
    if stability.empty:
        return {}
    rows = stability.assign(method=method_names(stability))
    batches = sorted(rows["global_batch_size"].unique().tolist())
    rates = sorted(rows["lr"].unique().tolist())
    methods = sorted(rows["method"].unique().tolist(), key=lambda m: (not m.startswith("baseline"), m))
    return {m: _stability_map(rows[rows["method"] == m], batches, rates) for m in methods}


def _stability_map(rows: pd.DataFrame, batches: Sequence[float], rates: Sequence[float]) -> Figure:
    z: list[list[float | None]] = []
    text: list[list[str]] = []
    custom: list[list[list[float | None]]] = []
    words: list[list[str]] = []
    for batch in batches:
        cells = [rows[(rows["global_batch_size"] == batch) & (rows["lr"] == lr)] for lr in rates]
        z.append([_worst_ratio(cell) for cell in cells])
        text.append([_ratio_text(cell) for cell in cells])
        custom.append([_counts(cell) for cell in cells])
        words.append([_share_words(*counts) for counts in custom[-1]])
    heat = {
        "type": "heatmap",
        "x": [short_float(lr) for lr in rates],
        "y": [str(int(b)) for b in batches],
        "z": z,
        "text": text,
        "texttemplate": "%{text}",
        "textfont": {"size": 12, "color": INK},
        "customdata": custom,
        "hovertext": words,
        "hovertemplate": "batch %{y}, LR %{x}<br>max loss ratio %{text}<br>%{hovertext}<extra></extra>",
        "zmin": 1.0,
        "zmax": RATIO_SCALE_TOP,
        # Transparent to vermillion: pale on white paper, dark on dark paper, the same figure.
        "colorscale": [[0, "rgba(213,94,0,0.06)"], [1, "rgba(213,94,0,0.85)"]],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
    }
    layout = styled_layout(
        70 + 44 * len(batches),
        styled_axis("learning rate", type="category", showgrid=False, fixedrange=True, ticks=""),
        styled_axis("batch size", type="category", showgrid=False, fixedrange=True, ticks=""),
        meta={"columns": ["global_batch_size", "lr", "max_loss_ratio", *_COUNTS]},
    )
    layout["margin"] |= {"t": 6, "r": 6}
    return {"data": [heat], "layout": layout}


def _counts(cell: pd.DataFrame) -> list[float | None]:
    """_COUNTS of a cell."""
    lost = int(cell["diverged"].sum())
    finished = int((cell["diverged"].astype(bool) | (cell["state"] == "DONE")).sum())
    _, low, high = proportion(lost, finished)
    return [len(cell), lost, finished, *(None if math.isnan(v) else round(100 * v, 1) for v in (low, high))]


def _share_words(runs: float | None, lost: float | None, finished: float | None, *interval: float | None) -> str:
    if not finished:
        return f"none of {runs} runs has finished" if runs else ""
    low, high = interval
    waiting = f", {runs - finished:.0f} not finished" if runs and runs > finished else ""
    return f"{lost} of {finished} runs diverged (95% interval {low:.0f} to {high:.0f}%){waiting}"


def _worst_ratio(cell: pd.DataFrame) -> float | None:
    """The cell's largest finite loss ratio; a diverged run takes it to the top of the colour scale."""
    if cell.empty:
        return None
    finite = _finite_ratios(cell)
    if cell["diverged"].any():
        return max([RATIO_SCALE_TOP, *finite])
    return round(max(finite), 4) if finite else None


def _ratio_text(cell: pd.DataFrame) -> str:
    worst = max(_finite_ratios(cell), default=None)
    lost = int(cell["diverged"].sum())
    mark = "" if not lost else ("×" if len(cell) == 1 else f"× {lost}/{len(cell)}")
    return "<br>".join(part for part in (_short(worst), mark) if part)


def _short(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio < 1000 else f"{ratio:.0e}"


def _finite_ratios(cell: pd.DataFrame) -> list[float]:
    return [ratio for ratio in cell["max_loss_ratio"].astype(float).tolist() if math.isfinite(ratio)]
