"""Stability over batch size and learning rate together: one map per method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.figures.style import INK, Figure, styled_axis, styled_layout
from analysis.schema import method_name
from analysis.stats.joint_boundary import JointBoundary, MethodStability, PlaceStability
from cl_bench.runs.identity import short_float

_COLUMNS = ("curriculum", "global_batch_size", "lr", "batch_multiple", "lr_multiple", "seeds")
_COUNTS = ("stable", "unstable", "undecided")


def joint_maps(joint: Sequence[JointBoundary]) -> dict[str, Figure]:
    """One heat map per setting and method, by its title: batch size (rows) by learning rate, as multiples too.

    A square's text is the seeds that were stable, its colour the share that was unstable. The first map's
    ``layout.meta.table`` holds all of them.
    """
    maps: dict[str, Figure] = {}
    rows: list[list[Any]] = []
    for boundary in joint:
        grid = sorted({p.at for m in boundary.methods for p in m.places})
        for method in boundary.methods:
            name = method_name(method.curriculum, method.variant)
            title = f"{name}, setting {boundary.setting}" if len(joint) > 1 else name
            maps[title] = _map(method, boundary.reference, grid)
            rows += [_row(name, place) for place in method.places]
    for figure in list(maps.values())[:1]:
        figure["layout"]["meta"] = {"table": {"columns": [*_COLUMNS, *_COUNTS], "rows": rows}}
    return maps


def _row(name: str, place: PlaceStability) -> list[Any]:
    counts = (place.stable, place.unstable, place.undecided)
    return [name, *place.at, place.batch_multiple, place.lr_multiple, place.seeds, *counts]


def _map(method: MethodStability, reference: tuple[int, float], grid: Sequence[tuple[int, float]]) -> Figure:
    batches, rates = sorted({batch for batch, _ in grid}), sorted({lr for _, lr in grid})
    places = {p.at: p for p in method.places}
    cells = [[places.get((batch, lr)) for lr in rates] for batch in batches]
    heat = {
        "type": "heatmap",
        "x": [f"{short_float(lr)}<br>{lr / reference[1]:.3g}x" for lr in rates],
        "y": [f"{batch} ({batch / reference[0]:.3g}x)" for batch in batches],
        "z": [[None if p is None else _unstable_share(p) for p in row] for row in cells],
        "text": [["" if p is None else _text(p) for p in row] for row in cells],
        "texttemplate": "%{text}",
        "textfont": {"size": 12, "color": INK},
        "hovertext": [["" if p is None else _words(p) for p in row] for row in cells],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "zmin": 0.0,
        "zmax": 1.0,
        # Transparent to vermillion: pale on white paper, dark on dark paper, the same figure.
        "colorscale": [[0, "rgba(213,94,0,0.06)"], [1, "rgba(213,94,0,0.85)"]],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
    }
    layout = styled_layout(
        86 + 44 * len(batches),
        styled_axis("learning rate", type="category", showgrid=False, fixedrange=True, ticks=""),
        styled_axis("batch size", type="category", showgrid=False, fixedrange=True, ticks=""),
    )
    layout["margin"] |= {"t": 6, "r": 6}
    return {"data": [heat], "layout": layout}


def _unstable_share(place: PlaceStability) -> float:
    """Share of the decided seeds that were unstable."""
    decided = place.stable + place.unstable
    return place.unstable / decided if decided else 0.0


def _text(place: PlaceStability) -> str:
    return f"{place.stable}/{place.seeds}" + ("?" if place.undecided else "")


def _words(place: PlaceStability) -> str:
    lines = [
        f"batch {place.global_batch_size} ({place.batch_multiple:.3g}x), "
        f"LR {short_float(place.lr)} ({place.lr_multiple:.3g}x)",
        f"{place.stable} of {place.seeds} stable, {place.unstable} unstable",
    ]
    return "<br>".join([*lines, f"{place.undecided} undecided"] if place.undecided else lines)
