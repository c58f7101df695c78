"""Figures of the page for print: one column wide, on white paper, sizes in points, nothing that only a screen needs."""

from __future__ import annotations

import copy
import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from analysis.figures.style import BASELINE_GREY, INK, Figure, Trace

Width = Literal["one", "two"]
INCHES: dict[Width, float] = {"one": 3.3, "two": 6.9}
"""Width of one column of a two-column paper, and of both with the space between."""
PX_PER_INCH = 96
"""A browser's pixel is 1/96 inch on any paper."""

_AXIS_PX, _SMALL_PX = (round(pt * PX_PER_INCH / 72, 2) for pt in (8, 7))
_LEFT_PX = 50
_ROW_PX, _SAMPLE_PX, _CHARACTER_PX = 12, 18, 5.4
"""Sizes of the key; a character counts as wide as DejaVu's, the widest of the fonts below."""
_WIDE_DECADES = 0.9
_SQUARE = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
_RISING, _FALLING = [(-1.0, -1.0), (1.0, 1.0)], [(-1.0, 1.0), (1.0, -1.0)]
_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "circle": [[(math.cos(i * math.pi / 12), math.sin(i * math.pi / 12)) for i in range(24)]],
    "diamond": [[(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)]],
    "triangle-left": [[(-1, 0), (0.8, 1), (0.8, -1)]],
    "triangle-right": [[(1, 0), (-0.8, 1), (-0.8, -1)]],
    "triangle-up": [[(0, 1), (1, -0.8), (-1, -0.8)]],
    "triangle-down": [[(0, -1), (1, 0.8), (-1, 0.8)]],
    "line-ns": [[(0, -1.2), (0, 1.2)]],
    "x": [_RISING, _FALLING],
    "square": [_SQUARE],
    "square-rising": [_SQUARE, _RISING],
    "square-x": [_SQUARE, _RISING, _FALLING],
    "square-dot": [_SQUARE, [(-0.2, 0), (0.2, 0)]],
}
"""Samples of marks in the key, y upwards; a mark is filled unless its name ends in `-open`."""
_PATTERNS = {"": "square", ".": "square-dot-open", "/": "square-rising-open", "x": "square-x-open"}
"""Samples of bars, by plotly's pattern names."""
_SCALE = 0.62
"""Scale of heights, lines and marks of the page's figures on paper."""
_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_GRID = "#dddddd"


def printed(figure: Figure, width: Width = "one") -> Figure:
    """The same figure for print; ``layout`` has its width and height in px (96 an inch).

    A key of hue, dash and weight replaces the lines' names at their ends, for which a column has no room, and squares
    of a heat map become shapes, so that everything in the file is text and lines.
    """
    entries = _entries(figure)
    # A trace without a point is a legend entry.
    data = [_printed_trace(t) for t in copy.deepcopy(figure["data"]) if t.get("x") != [None]]
    layout = copy.deepcopy(figure["layout"])
    layout["width"] = round(INCHES[width] * PX_PER_INCH)
    layout["height"] = round(_SCALE * layout["height"])
    layout |= {"paper_bgcolor": "white", "plot_bgcolor": "white"}
    layout["font"] = {"family": _FONT, "size": _SMALL_PX, "color": INK}
    layout["margin"] = {"l": _left(layout["yaxis"]), "r": 10, "t": 8, "b": 34, "pad": 0}
    for name in ("xaxis", "yaxis"):
        layout[name] = _printed_axis(layout[name], narrow=width == "one" or name == "yaxis")
    for shape in layout.get("shapes", []):
        shape["line"] = {**shape.get("line", {}), "width": 0.8}
    # An annotation with an arrow names a line; one without is text above the plot.
    words = [a for a in layout.get("annotations", []) if not a.get("showarrow", True)]
    layout["annotations"] = [{**a, "font": {**a.get("font", {}), "size": _SMALL_PX}} for a in words]
    layout["showlegend"] = False
    if any(t["type"] == "heatmap" for t in data):
        data = _squares(data, layout)
    else:
        layout["annotations"] += _lost_marks(data, layout["yaxis"])
        _draw_key(entries, layout, above=_ROW_PX if words else 0)
    for name in ("hovermode", "hoverlabel", "meta"):
        layout.pop(name, None)
    return {"data": data, "layout": layout}


def over_time(figure: Figure) -> Figure | None:
    """A figure of curves with training time along the x axis; None if it has no such axis, or no times."""
    axes = figure["layout"].get("meta", {}).get("axes")
    if not axes:
        return None
    data = [{**t, "x": [p[axes["seconds"]["column"]] for p in t["customdata"]]} for t in figure["data"] if "meta" in t]
    x_axis = copy.deepcopy(figure["layout"]["xaxis"])
    x_axis["title"]["text"] = axes["seconds"]["title"]
    times = [x for t in data for x in t["x"] if x is not None]
    if not times:
        return None
    end = 1.01 * max(times)
    x_axis |= {"range": [0, end], "maxallowed": end}
    return {"data": data, "layout": {**figure["layout"], "xaxis": x_axis}}


def _printed_trace(trace: Trace) -> Trace:
    for name in ("hovertemplate", "hoverinfo", "customdata"):
        trace.pop(name, None)
    if "textfont" in trace:
        trace["textfont"]["size"] = _SMALL_PX
    for sized in (trace.get("line"), trace.get("marker"), trace.get("marker", {}).get("line"), trace.get("error_x")):
        for name in ("width", "size", "thickness"):
            if sized and name in sized:
                sized[name] = _scaled(sized[name])
    return trace


def _scaled(size: Any) -> Any:
    return [_scaled(s) for s in size] if isinstance(size, list) else round(_SCALE * size, 2)


def _left(axis: Mapping[str, Any]) -> int:
    """Left margin: room for the axis's own labels, or for numbers, and for its title."""
    lines = [line for label in axis.get("ticktext", ()) for line in html.unescape(label).split("<br>")]
    title = 20 if axis.get("title", {}).get("text") else 0
    return round(12 + title + _CHARACTER_PX * max(map(len, lines))) if lines else _LEFT_PX


def _printed_axis(axis: dict[str, Any], *, narrow: bool) -> dict[str, Any]:
    title = {"text": axis.get("title", {}).get("text", ""), "standoff": 5, "font": {"size": _AXIS_PX}}
    fixed = {"gridcolor": _GRID, "gridwidth": 0.5, "linecolor": INK, "tickcolor": INK, "tickwidth": 0.6, "ticklen": 3}
    # The margins are fixed: the key is placed relative to them, which automargin would change.
    fixed |= {"automargin": False, "tickangle": 0}
    out = {**axis, "title": title, **fixed, "tickfont": {"size": _SMALL_PX}}
    if "tickvals" in axis:
        return out
    if axis.get("type") == "log" and abs(axis["range"][1] - axis["range"][0]) > _WIDE_DECADES:
        out["dtick"] = "D2"  # 1, 2 and 5 of each decade
    elif narrow and axis.get("type") != "category":
        out["nticks"] = 6
    return out


def _lost_marks(traces: Sequence[Trace], axis: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An × at the upper edge for a diverged run whose last point is above the view."""
    if "range" not in axis:
        return []
    top = axis["range"][1]
    edge = 10.0**top if axis.get("type") == "log" else top
    lost = [t for t in traces if t.get("meta", {}).get("diverged") and t["y"][-1] is not None and t["y"][-1] > edge]
    cross = {"text": "×", "showarrow": False, "yanchor": "top", "borderpad": 0}
    return [{"x": t["x"][-1], "y": top, **cross, "font": {"size": 12, "color": t["line"]["color"]}} for t in lost]


def _squares(data: Sequence[Trace], layout: dict[str, Any]) -> list[Trace]:
    """A heat map as rectangles (in the layout) and text, because plotly draws heat maps as images."""
    texts = []
    layout["shapes"] = []
    for trace in data:
        low, high = (_rgba(color) for _, color in trace["colorscale"])
        squares = [
            (x, y, value, trace["text"][i][j])
            for i, (y, row) in enumerate(zip(trace["y"], trace["z"], strict=True))
            for j, (x, value) in enumerate(zip(trace["x"], row, strict=True))
            if value is not None
        ]
        for x, y, value, _ in squares:
            share = min(1.0, max(0.0, (value - trace["zmin"]) / (trace["zmax"] - trace["zmin"])))
            red, green, blue, alpha = (a + share * (b - a) for a, b in zip(low, high, strict=True))
            i, j = trace["y"].index(y), trace["x"].index(x)
            corners = {"x0": j - 0.48, "x1": j + 0.48, "y0": i - 0.46, "y1": i + 0.46}
            fill = f"rgba({red:.0f},{green:.0f},{blue:.0f},{alpha:.3f})"
            layout["shapes"].append(
                {"type": "rect", "layer": "below", **corners, "fillcolor": fill, "line": {"width": 0}}
            )
        texts.append(
            {
                "type": "scatter",
                "mode": "text",
                "x": [x for x, *_ in squares],
                "y": [y for _, y, *_ in squares],
                "text": [words for *_, words in squares],
                "cliponaxis": False,
            }
        )
        # Squares that were not run keep their places.
        for axis, values in (("xaxis", trace["x"]), ("yaxis", trace["y"])):
            order = {"categoryorder": "array", "categoryarray": list(values), "range": [-0.5, len(values) - 0.5]}
            layout[axis] |= order | {"showline": False}
    layout["height"] += 22
    return texts


def _rgba(color: str) -> list[float]:
    return [float(n) for n in re.findall(r"[\d.]+", color)]


class _Entry(NamedTuple):
    """An entry of the key: words, and the look of the line or mark that they explain."""

    words: str
    line: dict[str, Any]
    opacity: float = 1.0
    symbol: str = ""
    """Of a mark; empty for a line."""


def _entries(figure: Figure) -> list[_Entry]:
    """Entries of the key: hue, dash and weight of curves, or those of the page's legend."""
    lines = [t for t in figure["data"] if t.get("meta", {}).get("method") and "fill" not in t]
    entries = [
        _Entry(method, {"color": line["line"]["color"], "width": 1.2})
        for method, line in {str(t["meta"]["method"]): t for t in lines}.items()
    ]
    clouds = {str(t["meta"]["hue"]): t for t in figure["data"] if "hue" in t.get("meta", {})}
    entries += [_Entry(method, {"color": _color(t), "width": 1.0}, symbol="circle") for method, t in clouds.items()]
    for field, words, look in (("batch", "batch ", "dash"), ("lr", "LR ", "width")):
        values = {str(t["meta"][field]): t for t in lines if t["meta"].get(field)}
        for value in sorted(values, key=float) if len(values) > 1 else ():
            own = values[value]
            line = {"color": INK, "width": 1.0, look: own["line"][look]}
            entries.append(_Entry(words + value, line, own.get("opacity", 1.0) if look == "width" else 1.0))
    if any(t["meta"].get("diverged") for t in lines):
        entries.append(_Entry("diverged", {"color": INK, "width": 1.0}, symbol="x"))
    if any(s.get("name") == "target" for s in figure["layout"].get("shapes", [])):
        entries.append(_Entry("target", {"color": BASELINE_GREY, "dash": "dot", "width": 0.8}))
    shown = [t for t in figure["data"] if t.get("showlegend") and not (lines and t.get("mode") == "lines")]
    return entries + [_legend_entry(t, figure["data"]) for t in shown]


def _legend_entry(trace: Trace, data: Sequence[Trace]) -> _Entry:
    """An entry of the page's legend; black if its name stands for traces of several hues."""
    colors = {_color(t) for t in data if t.get("name") == trace["name"] and t.get("x") != [None]} or {_color(trace)}
    line = {"color": colors.pop() if len(colors) == 1 else INK, "width": 1.0}
    if "lines" in trace.get("mode", ""):
        return _Entry(str(trace["name"]), line)
    marker = trace.get("marker", {})
    symbol = marker.get("symbol", "circle")
    if trace["type"] == "bar":
        symbol = _PATTERNS.get(marker.get("pattern", {}).get("shape", ""), "square")
    return _Entry(str(trace["name"]), line, symbol=symbol if isinstance(symbol, str) else "circle")


def _color(trace: Trace) -> str:
    color = trace.get("marker", {}).get("color") or trace.get("line", {}).get("color")
    return color if isinstance(color, str) else INK


def _draw_key(entries: Sequence[_Entry], layout: dict[str, Any], above: int) -> None:
    """Samples and words in rows above the plot and the words of ``above`` px over it, as wide as the figure.

    plotly's own legend gives every entry the width of the longest and would fill half of a column's figure.
    """
    room = layout["width"] - 8
    placed: list[tuple[_Entry, float, int]] = []
    at, row = 0.0, 0
    for entry in entries:
        needed = _SAMPLE_PX + 4 + _CHARACTER_PX * len(html.unescape(entry.words))
        if at and at + needed > room:
            at, row = 0.0, row + 1
        placed.append((entry, at, row))
        at += needed + 10
    rows = row + 1 if placed else 0
    layout["margin"]["t"] += above + _ROW_PX * rows
    layout["height"] += above + _ROW_PX * rows
    for entry, left, row in placed:
        x, y = 4 - layout["margin"]["l"] + left, 4 + above + _ROW_PX * (rows - row - 0.5)
        layout.setdefault("shapes", []).append(_sample(entry, x, y))
        place = {"x": 0, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "middle"}
        shift = {"xshift": x + _SAMPLE_PX + 3, "yshift": y}
        words = {"text": entry.words, "showarrow": False, "font": {"size": _SMALL_PX}, "borderpad": 0}
        layout["annotations"].append(words | place | shift)


def _sample(entry: _Entry, x: float, y: float) -> dict[str, Any]:
    """A piece of line, or a mark, ``x`` and ``y`` px from the plot's upper left corner."""
    corner = {"xref": "paper", "yref": "paper", "xanchor": 0, "yanchor": 1, "xsizemode": "pixel", "ysizemode": "pixel"}
    look = {**corner, "line": entry.line, "opacity": entry.opacity}
    if not entry.symbol:
        return {"type": "line", **look, "x0": x, "x1": x + _SAMPLE_PX, "y0": y, "y1": y}
    name, is_open, _ = entry.symbol.partition("-open")
    filled = {} if is_open else {"fillcolor": entry.line["color"]}
    return {"type": "path", **look, **filled, "path": _outline(name, x + 0.5 * _SAMPLE_PX, y)}


def _outline(symbol: str, x: float, y: float) -> str:
    """A mark around a point as an SVG path."""
    strokes = _STROKES.get(symbol, _STROKES["circle"])
    return " ".join(
        "M"
        + " L".join(f"{x + 3.2 * dx:.2f},{y + 3.2 * dy:.2f}" for dx, dy in stroke)
        + (" Z" if len(stroke) > 2 else "")
        for stroke in strokes
    )
