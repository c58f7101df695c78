"""Savings at a glance: one measure, one row per cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from analysis.figures.style import (
    Figure,
    Trace,
    empty_figure,
    line_across,
    markup,
    method_colors,
    place,
    styled_axis,
    styled_layout,
)
from analysis.schema import method_name
from analysis.words import percent

What = Literal["tokens", "time"]
_LOWEST_SHOWN = -100.0
"""Savings (%) below this are outside the first view."""
_FEW_ROWS = 12
_COLUMNS: dict[What, str] = {"tokens": "token_saving", "time": "time_saving"}


def savings_glance(cells: Sequence[Mapping[str, Any]], what: What, colors: Mapping[str, str] | None = None) -> Figure:
    """Saved tokens or time of each cell with its 95% interval, and the saving in figures.

    ``cells`` are the verdict's (shares; None if unknown). A full mark has an interval without 0; a hollow one includes
    0 or has no interval; a triangle is a bound. ``colors`` (method -> hue) keeps the hues of other figures.
    """
    methods = [method_name(str(c["curriculum"]), str(c.get("variant") or "")) for c in cells]
    hues = {**method_colors(methods), **(colors or {})}
    rows = list(range(len(cells) - 1, -1, -1))
    traces = [_mark(y, cell, m, what, hues[m]) for y, cell, m in zip(rows, cells, methods, strict=True)]
    drawn = [t for t in traces if t is not None]
    if not drawn:
        return empty_figure(f"no cell has a saving in {what}" if cells else "no curriculum run to compare")
    many = len(set(methods)) > 1
    labels = [f"{markup(m)}<br>{place(c)}" if many else place(c) for c, m in zip(cells, methods, strict=True)]
    layout = styled_layout(
        64 + (40 if len(cells) <= _FEW_ROWS else 26) * len(cells),
        styled_axis(f"{what} saved (%)", range=_range(drawn), ticksuffix="%", nticks=6),
        styled_axis(
            "", tickvals=rows, ticktext=labels, range=[-0.6, len(cells) - 0.4], showgrid=False, fixedrange=True
        ),
        shapes=[line_across("x", 0)],
    )
    layout["margin"] |= {"l": 20, "t": 8, "r": 12}
    layout["yaxis"]["tickfont"] = {"size": 11}
    return {"data": drawn, "layout": layout}


def _mark(y: int, cell: Mapping[str, Any], method: str, what: What, color: str) -> Trace | None:
    value, low, high, bound = (_share(cell[f"{_COLUMNS[what]}{end}"]) for end in ("", "_low", "_high", "_bound"))
    at = value if value is not None else bound
    if at is None:
        return None
    decided = low is not None and high is not None and not low <= 0 <= high
    symbol = "circle" if decided else "circle-open"
    words = percent(at)
    if value is None:
        least = cell["censored"] == "at_least"
        symbol, words = f"triangle-{'right' if least else 'left'}-open", f"{'≥' if least else '≤'} {words}"
    span = "no interval"
    trace: Trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [round(100 * at, 2)],
        "y": [y],
        "text": [words],
        "textposition": "top center",
        "textfont": {"size": 11},
        "marker": {"symbol": symbol, "size": 9, "color": color, "line": {"width": 2, "color": color}},
    }
    if value is not None and low is not None and high is not None:
        span = f"95% CI {percent(low)} to {percent(high)}"
        ends = {"array": [round(100 * (high - value), 2)], "arrayminus": [round(100 * (value - low), 2)]}
        trace["error_x"] = {"type": "data", "symmetric": False, **ends, "thickness": 1.5, "width": 4, "color": color}
    name = markup(f"{method}, {place(cell)}")
    trace["hovertemplate"] = f"{name}<br>{what} saved %{{text}} ({span})<extra></extra>"
    return trace


def _share(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _range(traces: Sequence[Trace]) -> list[float]:
    values = [0.0]
    for trace in traces:
        (at,) = trace["x"]
        error = trace.get("error_x", {"array": [0.0], "arrayminus": [0.0]})
        values += [at - error["arrayminus"][0], at + error["array"][0]]
    low, high = max(min(values), _LOWEST_SHOWN), max(values)
    margin = max(6.0, 0.1 * (high - low))
    return [low - margin, high + margin]
