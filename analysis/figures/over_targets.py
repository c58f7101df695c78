"""Savings at every target that a cell's runs reached, with their intervals as bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.style import (
    DASHES,
    Figure,
    Trace,
    data_table,
    empty_figure,
    line_across,
    markup,
    method_colors,
    perplexity_axis,
    place,
    styled_axis,
    styled_layout,
    target_line,
)
from analysis.figures.thinning import significant
from analysis.schema import method_names
from cl_bench.runs.identity import short_float

MAX_BANDS = 6
"""With more cells than this, bands would hide each other: only lines are drawn, and the data hold the bands."""
MOST_POINTS = 1200
"""Of all lines together, so that a grid of hundreds of cells does not fill the page with this one figure."""
_SHOWN = (-100.0, 100.0)
"""Largest range of savings (%) in the first view: ratios are wild at the beginning of training."""


def saving_over_targets(
    targets: pd.DataFrame, colors: Mapping[str, str] | None = None, target_ppl: float | None = None
) -> Figure:
    """Tokens saved (%) over target perplexity, one line per cell, deeper targets to the right.

    ``targets`` are the rows of :func:`analysis.stats.over_targets.over_targets` (shares). ``colors`` (method -> hue)
    keeps the hues of other figures; ``target_ppl`` is marked.
    """
    if targets.empty:
        return empty_figure("no target that all runs of a cell reached")
    targets = _fewer(targets)
    methods = method_names(targets)
    hues = {**method_colors(methods), **(colors or {})}
    batches = sorted(targets["global_batch_size"].unique().tolist())
    rates = sorted(targets["lr"].unique().tolist())
    groups = list(targets.assign(method=methods).groupby("cell", sort=False))
    traces: list[Trace] = []
    for _, rows in groups:
        first = rows.iloc[0]
        color = hues[str(first["method"])]
        if len(groups) <= MAX_BANDS and rows["token_saving_low"].notna().all():
            traces.append(_band(rows, color, first))
        weight = rates.index(first["lr"]) / max(1, len(rates) - 1)
        dash = DASHES[batches.index(first["global_batch_size"]) % len(DASHES)]
        traces.append(_line(rows, first, {"color": color, "dash": dash, "width": round(1.4 + 1.0 * weight, 2)}))
    low, high = _view(targets)
    shallowest, deepest = (float(f(targets["target_ppl"])) for f in (max, min))
    layout = styled_layout(
        380,
        perplexity_axis("target perplexity (deeper to the right)", shallowest, deepest),
        styled_axis("tokens saved (%)", range=[low, high], ticksuffix="%"),
        shapes=[line_across("y", 0), *([target_line(target_ppl, "x")] if target_ppl is not None else [])],
        meta={"table": _table(targets)},
    )
    return {"data": traces, "layout": layout}


def _fewer(targets: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_POINTS rows: every n-th target of each cell, counted from the deepest."""
    every = -(-len(targets) // MOST_POINTS)
    from_the_deepest = targets.groupby("cell", sort=False).cumcount(ascending=False)
    return targets[from_the_deepest % every == 0]


def _name(first: pd.Series[Any]) -> str:
    return markup(f"{first['method']}, {place(first)}")


def _meta(first: pd.Series[Any]) -> dict[str, str]:
    """Fields by which the page's key shows or hides a line."""
    batch = str(int(first["global_batch_size"]))
    return {"method": str(first["method"]), "batch": batch, "lr": short_float(float(first["lr"])), "seed": ""}


def _line(rows: pd.DataFrame, first: pd.Series[Any], line: dict[str, Any]) -> Trace:
    spans = [
        "no interval" if np.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}%"
        for low, high in zip(rows["token_saving_low"], rows["token_saving_high"], strict=True)
    ]
    seeds = f"{int(first['n'])} seed{'s' * (int(first['n']) > 1)}"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _name(first),
        "x": significant(rows["target_ppl"]),
        "y": significant(100 * rows["token_saving"]),
        "customdata": spans,
        "line": line,
        "showlegend": False,
        "meta": _meta(first),
        "hovertemplate": f"<b>{_name(first)}</b><br>at perplexity %{{x}}: %{{y:.1f}}% of tokens saved"
        f"<br>%{{customdata}}, {seeds}<extra></extra>",
    }


def _band(rows: pd.DataFrame, color: str, first: pd.Series[Any]) -> Trace:
    x = significant(rows["target_ppl"])
    low, high = (significant(100 * rows[f"token_saving_{end}"]) for end in ("low", "high"))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{_name(first)}, 95%",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": _faint(color),
        "line": {"width": 0, "color": color},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": _meta(first),
    }


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"


def _view(targets: pd.DataFrame) -> tuple[float, float]:
    values = [100 * targets["token_saving"]]
    if targets["cell"].nunique() <= MAX_BANDS:
        values += [100 * targets[f"token_saving_{end}"] for end in ("low", "high")]
    finite = pd.concat(values).dropna()
    low, high = min(0.0, float(finite.min())), max(0.0, float(finite.max()))
    margin = max(4.0, 0.05 * (high - low))
    return max(low - margin, _SHOWN[0]), min(high + margin, _SHOWN[1])


def _table(targets: pd.DataFrame) -> dict[str, Any]:
    """What the figure shows, and the savings of time with their bands, as rows for a CSV file."""
    rows = targets.drop(columns=["cell", "setting"], errors="ignore")
    return data_table(rows.map(lambda value: float(f"{value:.5g}") if isinstance(value, float) else value))
