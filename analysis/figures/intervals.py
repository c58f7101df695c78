"""Savings with their intervals, one row per cell of the grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.figures.style import (
    Figure,
    Trace,
    empty_figure,
    legend_above,
    line_across,
    markup,
    method_colors,
    one_legend_entry_each,
    place,
    styled_axis,
    styled_layout,
)
from analysis.schema import method_name

LOWEST_SHOWN = -200.0
"""Savings (%) below this are outside the first view, so that one cell's wide interval does not flatten all others."""


class _Saving(NamedTuple):
    """One of the two measures drawn in a cell's row."""

    column: str
    name: str
    symbol: str
    offset: float


_SAVINGS = (_Saving("token_saving", "tokens", "circle", 0.14), _Saving("time_saving", "time", "diamond-open", -0.14))


def savings_intervals(
    cells: Sequence[Mapping[str, Any]], savings: pd.DataFrame, colors: Mapping[str, str] | None = None
) -> Figure:
    """Saved tokens and time of each cell with its interval; right of zero saved, left of zero cost.

    ``cells`` are the verdict's cells (run_ids; token_saving, time_saving and their _low/_high as fractions, None if
    unknown); ``savings`` has one row per curriculum run (run_id, token_saving, time_saving, token_saving_bound as
    fractions, censored). Ticks are single seeds; a triangle points to where the saving of a seed lies whose curriculum
    ("at_most") or baseline ("at_least") never arrived. ``colors`` (method -> hue) keeps the hues of other figures.
    """
    if not cells:
        return empty_figure("no curriculum run has a baseline to be compared with")
    methods = [method_name(str(c["curriculum"]), str(c.get("variant") or "")) for c in cells]
    hues = {**method_colors(methods), **(colors or {})}
    rows = list(range(len(cells) - 1, -1, -1))
    traces = []
    for y, cell, method in zip(rows, cells, methods, strict=True):
        seeds = savings[savings["run_id"].isin(cell["run_ids"])]
        for saving in _SAVINGS:
            traces += [_seed_ticks(y, seeds, saving, hues[method]), _cell_mark(y, cell, method, saving, hues[method])]
        traces += [_bounds(y, seeds, censored, hues[method]) for censored in ("at_most", "at_least")]
    traces = [trace for trace in traces if trace["x"]]
    one_legend_entry_each(traces)
    for trace in traces:
        trace["legendrank"] = 1001 if trace["name"] == "one seed" else 1000
    many = len(set(methods)) > 1
    labels = [f"{markup(m)}<br>{place(c)}" if many else place(c) for c, m in zip(cells, methods, strict=True)]
    layout = styled_layout(
        96 + (46 if len(cells) <= 12 else 34) * len(cells),
        styled_axis("saved (%)", range=_range(traces), ticksuffix="%"),
        styled_axis(
            "", tickvals=rows, ticktext=labels, range=[-0.6, len(cells) - 0.4], showgrid=False, fixedrange=True
        ),
        annotations=[_side("← costs more", "right"), _side("saves →", "left")],
        shapes=[line_across("x", 0)],
        meta={"columns": ["cell", "what", "saving_pct", "low_pct", "high_pct"]},
    )
    legend_above(layout, 66)
    return {"data": traces, "layout": layout}


def _percent(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float | np.floating) else math.nan
    return round(100 * number, 2) if math.isfinite(number) else None


def _cell_mark(y: float, cell: Mapping[str, Any], method: str, saving: _Saving, color: str) -> Trace:
    value, low, high = (_percent(cell[f"{saving.column}{end}"]) for end in ("", "_low", "_high"))
    name = f"{method}, {place(cell)}"
    marker = {"symbol": saving.symbol, "size": 10, "color": color, "line": {"width": 2, "color": color}}
    values = [] if value is None else [(value, name)]
    hover = f"{saving.name} saved %{{x:.1f}}%<br>%{{customdata[1]}}"
    trace = _marks(saving.name, y + saving.offset, values, hover, marker)
    if value is None or low is None or high is None:
        span: list[str | float | None] = ["no interval", None, None]
    else:
        span = [f"{low:.1f} to {high:.1f}%", low, high]
        ends = {"array": [round(high - value, 2)], "arrayminus": [round(value - low, 2)]}
        trace["error_x"] = {"type": "data", "symmetric": False, **ends, "thickness": 1.5, "width": 4, "color": color}
    trace["customdata"] = [[who, *span] for who, *_ in trace["customdata"]]
    return trace


def _seed_ticks(y: float, seeds: pd.DataFrame, saving: _Saving, color: str) -> Trace:
    # A lone seed lies under its own cell's mark: nothing to add.
    values = _values(seeds, saving.column) if len(seeds) > 1 else []
    marker = {"symbol": "line-ns-open", "size": 9, "color": color, "line": {"width": 1.5}}
    return _marks("one seed", y + saving.offset, values, f"{saving.name} saved %{{x:.1f}}%", marker)


def _bounds(y: float, seeds: pd.DataFrame, censored: str, color: str) -> Trace:
    values = _values(seeds[seeds["censored"] == censored], "token_saving_bound")
    side, symbol = ("at most", "triangle-left-open") if censored == "at_most" else ("at least", "triangle-right-open")
    marker = {"symbol": symbol, "size": 11, "color": color, "line": {"width": 2}}
    hover = f"a bound: saved {side} %{{x:.1f}}%"
    return _marks(f"bound: {side}", y + _SAVINGS[0].offset, values, hover, marker)


def _values(seeds: pd.DataFrame, column: str) -> list[tuple[float, str]]:
    """(percent, run_id) of the runs that have a value."""
    pairs = zip(seeds[column], seeds["run_id"].astype(str), strict=True)
    return [(percent, run_id) for value, run_id in pairs if (percent := _percent(value)) is not None]


def _marks(name: str, y: float, values: Sequence[tuple[float, str]], hover: str, marker: dict[str, Any]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [value for value, _ in values],
        "y": [y for _ in values],
        "marker": marker,
        "customdata": [[markup(who), "", None, None] for _, who in values],
        "hovertemplate": f"%{{customdata[0]}}<br>{hover}<extra></extra>",
    }


def _range(traces: Sequence[Trace]) -> list[float]:
    values = [0.0]
    for trace in traces:
        values += trace["x"]
        values += [end for _, _, *ends in trace["customdata"] for end in ends if end is not None]
    low, high = max(min(values), LOWEST_SHOWN), max(values)
    margin = max(4.0, 0.06 * (high - low))
    return [low - margin, high + margin]


def _side(words: str, anchor: str) -> dict[str, Any]:
    return {
        "text": words,
        "x": 0,
        "xref": "x",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "xanchor": anchor,
        "xshift": 6 if anchor == "left" else -6,
        "showarrow": False,
        "font": {"size": 11},
        "opacity": 0.8,
    }
