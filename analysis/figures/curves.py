"""Curves over tokens or training time: validation perplexity, training metrics, sequence length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.figures.labels import name_lines
from analysis.figures.style import (
    BASELINE_GREY,
    Figure,
    TimeUnit,
    Trace,
    empty_figure,
    markup,
    perplexity_axis,
    run_styles,
    styled_axis,
    styled_layout,
    target_line,
    time_unit,
)
from analysis.figures.thinning import integers, significant, thin_minmax, thinned_runs
from analysis.figures.view import metric_view, perplexity_view
from analysis.schema import stretches

Axis = Literal["tokens", "seconds"]
Metric = Literal["loss", "loss_ratio", "grad_norm", "adam_var_max", "adam_var_l1"]

POINT_COLUMNS = ("step", "consumed_tokens", "train_time", "seqlen")
"""Columns of a curve point's ``customdata``; ``train_time`` is in the unit named by ``layout.meta.time``."""

_METRIC_WORDS: Mapping[Metric, str] = {
    "loss": "training loss (nats/token)",
    "loss_ratio": "loss ratio",
    "grad_norm": "gradient norm before clipping",
    "adam_var_max": "largest Adam variance",
    "adam_var_l1": "Adam variance, 1-norm",
}


def validation_curves(
    runs: pd.DataFrame,
    evals: pd.DataFrame,
    train: pd.DataFrame | None = None,
    *,
    target_ppl: float | None = None,
    axis: Axis = "tokens",
    unit: TimeUnit | None = None,
    max_points: int = 400,
) -> Figure:
    """Validation perplexity (log axis) of every run over consumed tokens or training time.

    ``runs`` as in :func:`run_styles`, with token_budget; ``evals`` has run_id, step, consumed_tokens, train_seconds
    (s), val_ppl; ``train`` (run_id, step, seqlen in tokens) only supplies the length shown in a hover. The first view
    is that of :func:`perplexity_view`; ``layout.meta.left_out`` describes what is outside it.
    """
    points = evals.assign(seqlen=length_at(evals, train))
    styles = run_styles(runs)
    figure = curves(styles, points, "val_ppl", "ppl %{y:.3r}", axis, unit, max_points)
    if not figure["data"]:
        return empty_figure("no evaluation yet")
    low, high, left_out = perplexity_view(runs, evals, target_ppl)
    layout = figure["layout"]
    layout["yaxis"] = perplexity_axis("validation perplexity", low, high)
    layout["meta"]["left_out"] = left_out
    if target_ppl is not None:
        layout["shapes"] = [target_line(target_ppl)]
    name_lines(figure, styles, low, high)
    return figure


def training_curves(
    runs: pd.DataFrame,
    train: pd.DataFrame,
    *,
    metric: Metric = "loss",
    axis: Axis = "tokens",
    unit: TimeUnit | None = None,
    max_points: int = 400,
) -> Figure:
    """A training metric of every run, thinned with :func:`thin_minmax` so that spikes stay.

    ``train`` has run_id, step, consumed_tokens, train_seconds (s), seqlen (tokens) and the metric (loss in nats/token).
    ``layout.meta.left_out`` describes what is outside the first view.
    """
    linear = metric in ("loss", "loss_ratio")
    styles = run_styles(runs)
    hover_value = f"{metric.replace('_', ' ')} %{{y:{'.4f' if linear else '.3g'}}}"
    train = thinned_runs(train, metric, max_points)
    figure = curves(styles, train, metric, hover_value, axis, unit, max_points)
    if not figure["data"]:
        return empty_figure("no training step yet")
    low, high, left_out = metric_view(runs, train, metric)
    linear = linear or low <= 0
    ends = [low, high] if linear else [math.log10(low), math.log10(high)]
    figure["layout"]["yaxis"] = styled_axis(_METRIC_WORDS[metric], type="linear" if linear else "log", range=ends)
    figure["layout"]["meta"]["left_out"] = left_out
    name_lines(figure, styles, low, high)
    return figure


def length_schedule(
    runs: pd.DataFrame, train: pd.DataFrame, *, axis: Axis = "tokens", unit: TimeUnit | None = None
) -> Figure:
    """Sequence length (tokens) over consumed tokens or training time; runs with the same schedule share one line.

    ``train`` has run_id, step, consumed_tokens, train_seconds (s), seqlen. Only the steps at which the length changes
    are kept, which loses nothing: between them the line is flat.
    """
    if train.empty:
        return empty_figure("no training step yet")
    if not train["seqlen"].max() > 0:
        return empty_figure("the sequence lengths are not known")
    # Neither learning rate nor seed changes the schedule: the line's name and weight leave them out.
    styles = run_styles(runs.assign(lr=runs["lr"].iloc[0], seed=0))
    same = runs[["curriculum", "variant", "model", "global_batch_size", "max_seqlen", "token_budget"]].astype(str)
    schedule_of = dict(zip(runs["run_id"], same.itertuples(index=False, name=None), strict=True))
    longest: dict[tuple[str, ...], pd.DataFrame] = {}
    for run_id, rows in stretches(train):
        changes = _length_changes(train.iloc[rows])
        key = schedule_of[run_id]
        # An interrupted run knows only a part of its schedule: the longest recording stands for all.
        if key not in longest or changes["step"].iloc[-1] > longest[key]["step"].iloc[-1]:
            longest[key] = changes.assign(run_id=run_id)
    figure = curves(styles, pd.concat(longest.values()), "seqlen", "", axis, unit, max_points=10**9)
    for trace in figure["data"]:
        trace["line"] |= {"shape": "hv", "width": 1.8}
        trace["mode"] = "lines"
        trace["meta"] |= {"lr": "", "seed": ""}
        trace.pop("marker", None)
    top = 1.06 * float(train["seqlen"].max())
    figure["layout"] |= {"yaxis": styled_axis("sequence length (tokens)", range=[0, top]), "height": 300}
    name_lines(figure, styles, 0.0, top)
    return figure


def _length_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one run at which the length changes, and its last."""
    lengths = rows["seqlen"].to_numpy()
    changed = np.append(True, lengths[1:] != lengths[:-1])
    changed[-1] = True
    return rows.iloc[np.flatnonzero(changed)]


def length_at(evals: pd.DataFrame, train: pd.DataFrame | None) -> npt.NDArray[np.float64]:
    """Training sequence length at each evaluation; NaN if unknown."""
    lengths = np.full(len(evals), np.nan)
    if train is None or train.empty or evals.empty:
        return lengths
    stretch_of_run = dict(stretches(train))
    train_steps, seqlens = train["step"].to_numpy(), train["seqlen"].to_numpy(dtype=float)
    steps = evals["step"].to_numpy()
    for run_id, rows in stretches(evals):
        if run_id in stretch_of_run:
            own = stretch_of_run[run_id]
            at = np.searchsorted(train_steps[own], steps[rows], side="right") - 1
            lengths[rows] = seqlens[own][np.maximum(at, 0)]
    return lengths


def curves(
    styles: pd.DataFrame,
    points: pd.DataFrame,
    value: str,
    hover_value: str,
    axis: Axis,
    unit: TimeUnit | None,
    max_points: int,
) -> Figure:
    """One line per run of ``styles`` with finite values of ``value``, baselines first so that curricula lie on top.

    ``points`` has run_id, step, consumed_tokens, train_seconds (s), seqlen (tokens) and the value; ``hover_value`` is
    the value's line in a hover.
    """
    unit = unit or time_unit(float(points["train_seconds"].max()) if len(points) else math.nan)
    hover = (
        "<b>%{meta.label}</b><br>step %{customdata[0]:,}<br>%{customdata[1]:.4s} tokens, "
        f"%{{customdata[2]:,.2f}} {unit.suffix}<br>length %{{customdata[3]}}<br>{hover_value}<extra></extra>"
    )
    finite = points[np.isfinite(points[value].to_numpy(dtype=float))].sort_values("step")
    groups = {str(run_id): rows for run_id, rows in finite.groupby("run_id", sort=False)}
    traces = []
    for run_id in sorted(styles.index, key=lambda run: styles.at[run, "color"] != BASELINE_GREY):
        if run_id in groups:
            rows = groups[run_id]
            rows = rows.iloc[thin_minmax(rows[value].to_numpy(dtype=float), max_points)]
            traces.append(_curve(run_id, styles.loc[run_id], rows, value, axis, unit) | {"hovertemplate": hover})
    axes = {
        "tokens": {"column": 1, "title": "consumed tokens"},
        "seconds": {"column": 2, "title": f"training time ({unit.word})"},
    }
    # A fixed range and its limits: autorange would make room for the end labels inside the plot.
    end = 1.01 * max((x for t in traces for x in t["x"] if x is not None), default=1)
    limits = {"minallowed": 0, "maxallowed": end}
    x_axis = styled_axis(str(axes[axis]["title"]), exponentformat="SI", nticks=8, range=[0, end], **limits)
    meta = {"axes": axes, "columns": list(dict.fromkeys((*POINT_COLUMNS, value))), "time": unit.word}
    return {"data": traces, "layout": styled_layout(480, x_axis, styled_axis(value), meta=meta)}


def _curve(run_id: str, style: pd.Series[Any], rows: pd.DataFrame, value: str, axis: Axis, unit: TimeUnit) -> Trace:
    tokens = integers(rows["consumed_tokens"])
    times = significant(rows["train_seconds"].to_numpy(dtype=float) / unit.seconds)
    points = zip(integers(rows["step"]), tokens, times, integers(rows["seqlen"]), strict=True)
    label = markup(f"× {style['label']}" if style["diverged"] else style["label"])
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": label,
        "x": tokens if axis == "tokens" else times,
        "y": significant(rows[value]),
        "customdata": [list(point) for point in points],
        "line": {"color": style["color"], "dash": style["dash"], "width": round(float(style["width"]), 2)},
        "opacity": round(float(style["opacity"]), 2),
        "showlegend": False,
        "meta": {
            "run_id": run_id,
            "label": label,
            **{field: str(style[field]) for field in ("method", "batch", "lr", "seed")},
            "diverged": bool(style["diverged"]),
        },
    }
    if style["diverged"]:
        trace["mode"] = "lines+markers"
        last_only = [0] * (len(rows) - 1) + [11]
        cross = {"width": 2.5, "color": style["color"]}
        trace["marker"] = {"symbol": "x-thin", "size": last_only, "opacity": 1, "line": cross}
    return trace
