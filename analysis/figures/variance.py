"""Loss ratio against Adam's second moment, one point per step at which both were measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.style import (
    BASELINE_GREY,
    Figure,
    Trace,
    empty_figure,
    markup,
    run_styles,
    styled_axis,
    styled_layout,
)
from analysis.figures.thinning import integers, significant, thin_minmax
from analysis.stats.correlation import MEASURES, measured
from cl_bench.runs.identity import short_float

MOST_POINTS = 2000
"""Points of all runs in one figure, so that many runs are drawn quickly; a run has at least 4."""


def variance_scatter(
    runs: pd.DataFrame, train: pd.DataFrame, measure: str = "adam_var_l1", *, max_points: int = 400
) -> Figure:
    """Loss ratio against one measure of Adam's second moment (log axis), one trace per run.

    ``runs`` as in :func:`run_styles`; ``train`` has run_id, step, loss_ratio and the measure. Each run keeps at most
    ``max_points`` points, fewer if the figure would exceed MOST_POINTS: the extremes of the loss ratio in each
    stretch of steps, so that spikes stay. ``layout.meta.points`` names a point's run_id, customdata, x and y;
    ``layout.meta.thinned`` says whether any was left out.
    """
    styles = run_styles(runs)
    measurements = {run_id: v for run_id, v in measured(train, [measure], also=["step"]) if run_id in styles.index}
    if not measurements:
        return empty_figure("Adam's variance was not measured (telemetry.adam_variance_interval)")
    most = min(max_points, max(4, min(MOST_POINTS, 50 * max_points) // len(measurements)))
    traces: list[Trace] = []
    thinned = False
    highest, low, high = 0.0, np.inf, 0.0
    for run_id in sorted(measurements, key=lambda run: styles.at[run, "color"] != BASELINE_GREY):
        values = measurements[run_id]  # (3, n): loss ratio, measure, step
        highest = max(highest, float(values[0].max()))
        low, high = min(low, float(values[1].min())), max(high, float(values[1].max()))
        kept = thin_minmax(values[0], most)
        thinned = thinned or len(kept) < values.shape[1]
        label = markup(styles.at[run_id, "label"])
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": significant(values[1][kept], 4),
                "y": significant(values[0][kept], 4),
                "customdata": integers(values[2][kept]),
                "marker": {"size": 5, "opacity": 0.55, "color": styles.at[run_id, "color"]},
                "hovertemplate": "<b>%{meta.label}</b><br>step %{customdata}, loss ratio %{y}, %{x}<extra></extra>",
                "showlegend": False,
                "meta": {"run_id": run_id, "label": label, "hue": str(styles.at[run_id, "method"])},
            }
        )
    layout = styled_layout(
        320,
        styled_axis(f"Adam's variance, {MEASURES[measure]}", **_log_ticks(low, high)),
        # One diverged run must not flatten all the others.
        styled_axis("loss ratio", type="log" if highest > 5 else "linear", nticks=7),
        meta={"points": ["run_id", "step", measure, "loss_ratio"], "thinned": thinned},
    )
    return {"data": traces, "layout": layout}


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """A log axis with few ticks, each labelled in full; plotly's own labels leave out the powers."""
    if low <= 0:
        return {"nticks": 6}
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 1.3 else (1, 3) if decades < 2.6 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [s * 10.0**p for p in powers for s in steps if low / 1.5 <= s * 10.0**p <= high * 1.5]
    return {"type": "log", "tickvals": ticks, "ticktext": [short_float(t) for t in ticks]}
