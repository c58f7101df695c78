"""Names of lines: at their ends if they fit, otherwise a legend of the encoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.figures.style import INK, Figure, Trace, markup

MAX_LABELLED_LINES = 16
"""With more lines than this, end labels would cover each other, and a legend is shown instead."""

_LABEL_GAP_PX = 14.0


def name_lines(figure: Figure, styles: pd.DataFrame, low: float, high: float) -> None:
    """Name the lines of a figure whose view goes from ``low`` to ``high``."""
    layout = figure["layout"]
    if len(figure["data"]) <= MAX_LABELLED_LINES:
        layout["annotations"] = _end_labels(figure, low, high)
        layout["margin"]["r"] = 24 + round(6.4 * max(len(str(t["name"])) for t in figure["data"]))
        return
    figure["data"].extend(_key_traces(styles))
    layout["showlegend"] = True
    layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "itemclick": False}
    layout["legend"]["itemdoubleclick"] = False
    layout["margin"]["t"] = 64


def _end_labels(figure: Figure, low: float, high: float) -> list[dict[str, Any]]:
    """A label to the right of each line's last point, pushed apart vertically until none overlap.

    The view goes from ``low`` to ``high``.
    """
    layout = figure["layout"]
    # plotly places annotations on a log axis by exponent
    scale = math.log10 if layout["yaxis"].get("type") == "log" else float
    height = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]

    def end(trace: Trace) -> float:
        return scale(min(max(trace["y"][-1], low), high))

    lines = sorted(figure["data"], key=end)
    wanted = [(end(line) - scale(low)) / (scale(high) - scale(low)) * height for line in lines]
    return [
        {
            "x": line["x"][-1],
            "y": end(line),
            "ax": 14,
            "ay": at - put,
            "text": line["name"],
            "font": {"color": line["line"]["color"], "size": 11},
            "xanchor": "left",
            "showarrow": True,
            "arrowhead": 0,
            "arrowwidth": 0.7,
            "arrowcolor": line["line"]["color"],
        }
        for line, at, put in zip(lines, wanted, _spread(wanted, height), strict=True)
    ]


def _spread(wanted: Sequence[float], height: float) -> list[float]:
    """Ascending positions moved as little as a single sweep each way allows, a label apart, below ``height``."""
    placed = list(wanted)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + _LABEL_GAP_PX)
    limit = height
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - _LABEL_GAP_PX
    return placed


def _key_traces(styles: pd.DataFrame) -> list[Trace]:
    """Legend entries that explain the encoding instead of naming every line."""

    def entry(name: str, **line: object) -> Trace:
        key = {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": True}
        return {**key, "name": markup(name), "line": {"color": INK, "width": 2, **line}}

    entries = [entry(m, color=c) for m, c in zip(styles["method"], styles["color"], strict=True)]
    if styles["batch"].nunique() > 1:
        pairs = styles.sort_values("batch")
        entries += [entry(f"batch {b}", dash=d) for b, d in zip(pairs["batch"], pairs["dash"], strict=True)]
    if styles["lr"].nunique() > 1:
        pairs = styles.sort_values("width")
        entries += [entry(f"LR {lr}", width=w) for lr, w in zip(pairs["lr"], pairs["width"], strict=True)]
    return list({str(e["name"]): e for e in entries}.values())
