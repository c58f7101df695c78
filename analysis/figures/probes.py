"""A search for a curriculum (`cl-bench tune`): perplexity of every probe, and the values of T in order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.figures.curves import curves, length_at
from analysis.figures.labels import name_lines
from analysis.figures.style import (
    CURRICULUM_HUES,
    Figure,
    Trace,
    data_table,
    empty_figure,
    legend_above,
    line_across,
    perplexity_axis,
    styled_axis,
    styled_layout,
)

_LOOKS = {"steady": (CURRICULUM_HUES[0], "solid", "circle"), "fluctuates": (CURRICULUM_HUES[1], "dash", "x-thin")}
"""Hue, dash and mark of a probe's verdict."""


def probe_curves(
    probes: pd.DataFrame, evals: pd.DataFrame, train: pd.DataFrame, beginning_tokens: int | None = None
) -> Figure:
    """Validation perplexity (log axis) of every probe over consumed tokens or training time.

    ``probes`` has run_id, start (tokens), duration (T in steps), steady, worst_tokens; a ring marks a fluctuating
    probe's worst evaluation, a vertical line ``beginning_tokens``. ``evals`` and ``train`` as in
    :func:`validation_curves`.
    """
    values = evals["val_ppl"].to_numpy(dtype=float) if len(evals) else np.empty(0)
    finite = values[np.isfinite(values)]
    if not len(finite) or probes.empty:
        return empty_figure("no probe has an evaluation yet")
    styles = _styles(probes)
    figure = curves(
        styles, evals.assign(seqlen=length_at(evals, train)), "val_ppl", "ppl %{y:.3r}", "tokens", None, max_points=400
    )
    unsteady = probes[~probes["steady"].astype(bool)]
    worst = dict(zip(unsteady["run_id"].astype(str), unsteady["worst_tokens"], strict=True))
    for trace in figure["data"]:
        _mark_worst(trace, worst.get(trace["meta"]["run_id"]))
    low, high = float(finite.min()) / 1.04, float(finite.max()) * 1.04
    layout = figure["layout"]
    layout["yaxis"] = perplexity_axis("validation perplexity", low, high)
    if beginning_tokens:
        layout["shapes"] = [line_across("x", beginning_tokens, dash="dot", width=1.5)]
    name_lines(figure, styles, low, high)
    return figure


def search_path(probes: pd.DataFrame) -> Figure:
    """T of every probe, one row per probe from first to last.

    ``probes`` has start (tokens), duration (T in steps) and steady.
    """
    if probes.empty:
        return empty_figure("no probe has ended yet")
    count = len(probes)
    rows = np.arange(count, 0, -1)
    verdicts = np.array(_verdicts(probes))
    traces: list[Trace] = []
    for verdict, (color, _, symbol) in _LOOKS.items():
        own = verdicts == verdict
        marker = {"symbol": symbol, "size": 11, "color": color, "line": {"width": 2.5, "color": color}}
        trace: Trace = {"type": "scatter", "mode": "markers", "name": verdict, "showlegend": True, "marker": marker}
        trace |= {"x": probes["duration"][own].tolist(), "y": rows[own].tolist()}
        traces.append(trace | {"hovertemplate": f"%{{y}}: T = %{{x:,}} steps, {verdict}<extra></extra>"})
    table = probes[["start", "duration"]].assign(verdict=verdicts)
    table.insert(0, "probe", range(1, count + 1))
    names = [f"{probe}: {name}" for probe, name in enumerate(_names(probes), 1)]
    layout = styled_layout(
        100 + 26 * count,
        styled_axis("T (steps)", range=[0, 1.04 * float(probes["duration"].max())], fixedrange=True),
        styled_axis("", tickvals=rows.tolist(), ticktext=names, range=[0.4, count + 0.6], fixedrange=True, ticks=""),
        meta={"table": data_table(table)},
    )
    legend_above(layout, 36)
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _verdicts(probes: pd.DataFrame) -> list[str]:
    return ["steady" if steady else "fluctuates" for steady in probes["steady"]]


def _names(probes: pd.DataFrame) -> list[str]:
    return [f"start {start}, T {duration}" for start, duration in zip(probes["start"], probes["duration"], strict=True)]


def _styles(probes: pd.DataFrame) -> pd.DataFrame:
    """Look and name of each probe, in the form of :func:`run_styles`."""
    verdicts = _verdicts(probes)
    hues, dashes, _ = zip(*(_LOOKS[verdict] for verdict in verdicts), strict=True)
    same = {"batch": "", "lr": "", "seed": "", "width": 1.6, "opacity": 1.0, "diverged": False}
    looks = {"method": verdicts, "color": hues, "dash": dashes, "label": _names(probes)}
    return pd.DataFrame({**looks, **same}, index=pd.Index(probes["run_id"].astype(str), name="run_id"))


def _mark_worst(trace: Trace, worst_tokens: int | None) -> None:
    """A ring around the evaluation at ``worst_tokens``."""
    sizes = [12 * (tokens == worst_tokens) for tokens in trace["x"]]
    if any(sizes):
        trace["mode"] = "lines+markers"
        ring = {"width": 2.4, "color": trace["line"]["color"]}
        trace["marker"] = {"symbol": "circle-open", "size": sizes, "opacity": 1, "line": ring}
