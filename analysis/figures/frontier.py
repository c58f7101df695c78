"""The stability frontier: per batch size, the largest learning rate that each curriculum kept stable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.style import (
    Figure,
    Trace,
    empty_figure,
    legend_above,
    markup,
    method_colors,
    styled_axis,
    styled_layout,
)
from analysis.schema import method_names
from analysis.stats.boundary import Criterion, plain_rows, select
from analysis.verdict.boundary import boundary_words, multiple_words
from cl_bench.runs.identity import short_float

_DRAWN: tuple[Criterion, ...] = ("stable", "no_events")
_WORDS = {"stable": "stable", "no_events": "stable without an instability event"}
_SYMBOLS = {"exact": "circle", "at_least": "triangle-up", "below": "triangle-down"}
_MOST_LABELS = 12
_TABLE = (
    "global_batch_size",
    "max_loss_ratio_allowed",
    "kind",
    "largest_stable_lr",
    "unstable_from_lr",
    "multiple_relation",
    "multiple",
    "tested_lr",
    "runs",
    "diverged",
    "unfinished",
    "note",
    "criterion",
    "unstable_runs",
    "did_not_learn",
)
_MOST_TICKS = 9


def stability_frontier(table: pd.DataFrame, colors: Mapping[str, str] | None = None) -> Figure:
    """Largest stable learning rate (log axis) of each curriculum at each batch size.

    ``table`` is :func:`analysis.stats.boundary.all_boundaries`. Full marks: stable; hollow ones: and no instability
    event. A circle is the largest stable value; a triangle upwards means "at least" (no larger one
    was tested, or one is undecided), downwards "below"; a line leads to the smallest unstable learning rate above, a
    cross. ``colors`` (method -> hue) keeps the hues of other figures. ``layout.meta.table`` holds what is drawn.
    """
    rows = select(table)
    if rows.empty:
        return empty_figure("no run yet")
    methods = list(dict.fromkeys(method_names(rows)))
    grey = set(method_names(rows[rows["role"] == "baseline"]))
    hues = {**method_colors(methods, grey), **(colors or {})}
    batches = sorted(rows["at"].unique().tolist())
    offsets = dict(zip(methods, _offsets(len(methods)), strict=True))
    traces: list[Trace] = []
    cells: list[list[Any]] = []
    label = len(methods) * len(batches) <= _MOST_LABELS
    for criterion in _DRAWN:
        judged, is_strict = select(table, criterion=criterion), criterion != "stable"
        for method in methods:
            own = plain_rows(judged[np.array(method_names(judged)) == method])
            at = [batches.index(row["at"]) + offsets[method] + (0.07 if is_strict else 0.0) for row in own]
            traces += _method(method, own, at, hues[method], is_strict, label)
            cells += [_cell(method, row) for row in own]
    traces += [_legend_entry(method, hues[method]) for method in methods]
    rates = sorted({float(v) for text in rows["tested"] for v in str(text).split()})
    ticks = {"tickvals": rates, "ticktext": [short_float(r) for r in rates]} if len(rates) <= _MOST_TICKS else {}
    view = [math.log10(rates[0] / 1.7), math.log10(rates[-1] * 1.7)]
    layout = styled_layout(
        360,
        styled_axis(
            "batch size",
            tickvals=list(range(len(batches))),
            ticktext=[str(int(b)) for b in batches],
            range=[-0.6, len(batches) - 0.4],
            showgrid=False,
            fixedrange=True,
        ),
        styled_axis("largest stable learning rate", type="log", range=view, **ticks),
        meta={"table": {"columns": ["curriculum", *_TABLE], "rows": cells}},
    )
    legend_above(layout, 48)
    return {"data": traces, "layout": layout}


def _offsets(count: int) -> Sequence[float]:
    """Places of the curricula around a batch's tick."""
    half = min(0.4, 0.13 * (count - 1))
    return [float(x) for x in np.linspace(-half, half, count)] if count > 1 else [0.0]


def _method(
    method: str, rows: Sequence[Mapping[str, Any]], at: Sequence[float], color: str, is_strict: bool, label: bool
) -> list[Trace]:
    """One curriculum by one criterion: its marks, and lines to the smallest unstable learning rate."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row, place in zip(rows, at, strict=True):
        if row["unstable_from"] is not None and row["largest_stable"] is not None:
            x += [place, place, None]
            y += [row["largest_stable"], row["unstable_from"], None]
    decided = [(row, place) for row, place in zip(rows, at, strict=True) if row["kind"] in _SYMBOLS]
    name = markup(method)
    marks: Trace = {
        "type": "scatter",
        "mode": "markers+text" if label and not is_strict else "markers",
        "name": name,
        "x": [place for _, place in decided],
        "y": [row["largest_stable"] or row["unstable_from"] for row, _ in decided],
        "marker": {
            "symbol": [_SYMBOLS[row["kind"]] + ("-open" if is_strict else "") for row, _ in decided],
            "size": 9 if is_strict else 12,
            "color": color,
            "line": {"width": 1.6, "color": color},
        },
        "customdata": [_hover(method, row) for row, _ in decided],
        "hovertemplate": "%{customdata}<extra></extra>",
        "legendgroup": name,
        "showlegend": False,
    }
    if label and not is_strict:
        marks["text"] = [multiple_words(row["multiple"], row["multiple_relation"]) for row, _ in decided]
        marks["textposition"] = "top center"
        marks["textfont"] = {"size": 11}
    way: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": y,
        "line": {"width": 1.2, "color": color, "dash": "dot" if is_strict else "solid"},
        "marker": {"symbol": "x-thin", "size": [0, 8, 0] * (len(x) // 3), "line": {"width": 1.8, "color": color}},
        "opacity": 0.75,
        "hoverinfo": "skip",
        "legendgroup": name,
        "showlegend": False,
    }
    return [trace for trace in (way, marks) if trace["x"]]


def _legend_entry(method: str, color: str) -> Trace:
    """A mark of one shape per hue, whatever shapes are drawn."""
    name = markup(method)
    nowhere: Trace = {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "hoverinfo": "skip"}
    return {**nowhere, "name": name, "legendgroup": name, "showlegend": True, "marker": {"size": 11, "color": color}}


def _hover(method: str, row: Mapping[str, Any]) -> str:
    times = multiple_words(row["multiple"], row["multiple_relation"])
    lines = [
        f"<b>{markup(method)}</b>, batch {int(row['at'])}",
        f"{_WORDS[row['criterion']]}: {boundary_words(row)}",
        *([f"{times} the baseline's"] if times else []),
        f"tested {markup(row['tested'])}",
        f"{row['diverged']} of {row['runs']} runs diverged",
        *([f"{row['did_not_learn']} did not learn"] if row["did_not_learn"] else []),
    ]
    return "<br>".join(lines)


def _cell(method: str, row: Mapping[str, Any]) -> list[Any]:
    names = ("largest_stable", "unstable_from", "multiple_relation", "multiple", "tested")
    counts = ("runs", "diverged", "unfinished", "note", "criterion", "unstable_runs", "did_not_learn")
    first = [method, int(row["at"]), row["max_loss_ratio_allowed"], row["kind"]]
    return [*first, *(row[n] for n in names), *(row[n] for n in counts)]
