"""The report's figures as plain plotly dicts: DataFrames in, ``{"data": [...], "layout": {...}}`` out.

Nothing here imports plotly: a notebook passes a dict to ``plotly.graph_objects.Figure``, the page hands the same dict
to plotly.js. Colours are chosen to be readable on white and on near-black paper. Encoding, the same everywhere: hue =
curriculum (grey = baseline), dash = batch size, weight and opacity = learning rate, a final × = diverged.

Curve traces carry ``customdata`` rows of :data:`POINT_COLUMNS`, so that the horizontal axis can be switched between
tokens and time, and a point can be named in a hover, without a second copy of the data.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

Trace = dict[str, Any]
Axis = Literal["tokens", "seconds"]
Metric = Literal["loss", "loss_ratio", "grad_norm", "adam_var_max", "adam_var_l1"]


class Figure(TypedDict):
    """A plotly figure, JSON-serialisable, free of NaN."""

    data: list[Trace]
    layout: dict[str, Any]


class TimeUnit(NamedTuple):
    """How training time is shown: a suffix, the word for an axis, and its length in seconds."""

    suffix: str
    word: str
    seconds: float


POINT_COLUMNS = ("step", "consumed_tokens", "train_time", "seqlen")
"""Columns of a curve point's ``customdata``; ``train_time`` is in the unit named by ``layout.meta.time``."""

MAX_LABELLED_LINES = 16
"""With more lines than this, end labels would cover each other: a legend takes over."""

BASELINE_GREY = "#858585"
# Okabe & Ito, "Color Universal Design" (2008), without black; yellow last, it is faint on white.
CURRICULUM_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
INK = "#24262b"
RULE = "rgba(128,128,128,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_HEIGHT = 480
_LABEL_GAP_PX = 14.0
# The first tenth of training falls so steeply that showing it flattens the end, where the comparison is made.
_VIEW_FROM = 0.1
_METRIC_WORDS: Mapping[Metric, str] = {
    "loss": "training loss (nats/token)",
    "loss_ratio": "loss ratio",
    "grad_norm": "gradient norm before clipping",
    "adam_var_max": "largest Adam variance",
    "adam_var_l1": "Adam variance, 1-norm",
}


# --- words and numbers ------------------------------------------------------------------------------------------------


def format_lr(lr: float) -> str:
    """A learning rate as people write it: 2e-3, 1.5e-4."""
    if not math.isfinite(lr) or lr == 0:
        return "0" if lr == 0 else "n/a"
    mantissa, exponent = f"{lr:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_ppl(ppl: float | None) -> str:
    """A perplexity to 3 significant digits, never in exponent form below a million."""
    if ppl is None or not math.isfinite(ppl):
        return "n/a"
    if ppl <= 0 or ppl >= 1e6:
        return f"{ppl:.3g}"
    rounded = float(f"{ppl:.3g}")  # first, so that 9.996 becomes 10.0 and not 10.00
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}"


def method_name(curriculum: str, variant: str) -> str:
    """What a hue stands for: the curriculum and, where a sweep varies something else, its variant."""
    return f"{curriculum} {variant}" if variant else curriculum


def method_names(rows: pd.DataFrame) -> list[str]:
    """:func:`method_name` of every row of a frame with curriculum and variant."""
    pairs = zip(rows["curriculum"].astype(str), rows["variant"].fillna("").astype(str), strict=True)
    return [method_name(curriculum, variant) for curriculum, variant in pairs]


def time_unit(longest_s: float) -> TimeUnit:
    """Seconds for short runs, hours from two hours on; ``longest_s`` in seconds (NaN: seconds)."""
    return TimeUnit("h", "hours", 3600.0) if longest_s >= 7200 else TimeUnit("s", "seconds", 1.0)


def _significant(values: npt.ArrayLike, digits: int = 5) -> list[float | None]:
    """Numbers rounded to significant digits (shorter JSON); not finite becomes None, integers stay integers."""
    out: list[float | None] = []
    for value in np.asarray(values, dtype=float).tolist():
        if not math.isfinite(value):
            out.append(None)
        else:
            rounded = float(f"{value:.{digits}g}")
            out.append(int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded)
    return out


def _integers(values: npt.ArrayLike) -> list[int | None]:
    return [int(v) if math.isfinite(v) else None for v in np.asarray(values, dtype=float).tolist()]


# --- thinning ---------------------------------------------------------------------------------------------------------


def thin_minmax(y: npt.ArrayLike, max_points: int = 400) -> npt.NDArray[np.intp]:
    """Indices of at most ``max_points`` points of a curve that keep its first, last, and every bucket's extremes.

    ``y`` is one run's finite values in order; buckets hold equal numbers of points. A spike of one step survives, which
    plain striding or averaging would lose.
    """
    values = np.asarray(y, dtype=float)
    if max_points < 4:
        raise ValueError(f"max_points is {max_points}; thinning needs at least 4: first, last, one bucket's extremes")
    if values.size <= max_points:
        return np.arange(values.size)
    edges = np.linspace(0, values.size, (max_points - 2) // 2 + 1).astype(int)
    keep = {0, values.size - 1}
    for start, stop in pairwise(edges.tolist()):
        bucket = values[start:stop]
        keep.update((start + int(bucket.argmin()), start + int(bucket.argmax())))
    return np.array(sorted(keep), dtype=np.intp)


# --- styles -----------------------------------------------------------------------------------------------------------


def method_colors(methods: Iterable[str], baselines: Iterable[str] = ("baseline",)) -> dict[str, str]:
    """Hue of each method in order of first appearance; every method in ``baselines`` is the neutral grey."""
    grey = set(baselines)
    colors: dict[str, str] = {}
    for method in methods:
        if method not in colors:
            used = sum(1 for m in colors if m not in grey)
            colors[method] = BASELINE_GREY if method in grey else CURRICULUM_HUES[used % len(CURRICULUM_HUES)]
    return colors


def run_styles(runs: pd.DataFrame) -> pd.DataFrame:
    """How each run is drawn and named, indexed by run_id.

    ``runs`` needs run_id, role, curriculum, variant, model, global_batch_size (sequences), lr, seed, state. Returns
    method, batch, lr (text), seed, color, dash, width (px), opacity, diverged, and label: the parts of the name that
    differ between the runs, shortest form that still tells them apart.
    """
    methods = method_names(runs)
    baselines = {m for m, role in zip(methods, runs["role"], strict=True) if role == "baseline"}
    ordered = sorted(dict.fromkeys(methods), key=lambda m: m not in baselines)
    colors = method_colors(ordered, baselines)
    batches = sorted(runs["global_batch_size"].unique().tolist())
    rates = sorted(runs["lr"].unique().tolist())
    weight = np.linspace(0.0, 1.0, len(rates)) if len(rates) > 1 else np.ones(1)
    rank = runs["lr"].map(lambda lr: float(weight[rates.index(lr)]))
    return pd.DataFrame(
        {
            "method": methods,
            "batch": runs["global_batch_size"].astype(int).to_numpy(),
            "lr": [format_lr(lr) for lr in runs["lr"]],
            "seed": runs["seed"].astype(int).to_numpy(),
            "color": [colors[m] for m in methods],
            "dash": [DASHES[batches.index(b) % len(DASHES)] for b in runs["global_batch_size"]],
            "width": (1.2 + 1.1 * rank).to_numpy(),
            "opacity": (0.6 + 0.4 * rank).to_numpy(),
            "diverged": (runs["state"] == "DIVERGED").to_numpy(),
            "label": _run_labels(runs, methods),
        },
        index=pd.Index(runs["run_id"], name="run_id"),
    )


def _run_labels(runs: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    parts: dict[str, list[str]] = {
        "model": [str(m) for m in runs["model"]],
        "batch": [f"b{int(b)}" for b in runs["global_batch_size"]],
        "lr": [format_lr(lr) for lr in runs["lr"]],
        "seed": [f"s{int(s)}" for s in runs["seed"]],
    }
    varying = [column for column in parts.values() if len(set(column)) > 1]
    return [" ".join((method, *(column[i] for column in varying))) for i, method in enumerate(methods)]


# --- layout -----------------------------------------------------------------------------------------------------------


def _axis(title: str, **extra: object) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 10},
        "gridcolor": RULE,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": RULE,
        "linecolor": RULE,
        "automargin": True,
        **extra,
    }


def _layout(height: int, xaxis: Mapping[str, object], yaxis: Mapping[str, object], **extra: object) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 56, "r": 24, "t": 16, "b": 48},
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "showlegend": False,
        "xaxis": dict(xaxis),
        "yaxis": dict(yaxis),
        **extra,
    }


def _nothing(words: str) -> Figure:
    """A figure that says why it is empty, so that a page or notebook needs no special case."""
    hidden = {"visible": False, "range": [0, 1]}
    note = {"text": words, "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False, "opacity": 0.7}
    return {"data": [], "layout": _layout(140, hidden, hidden, annotations=[note])}


def _axes_meta(unit: TimeUnit) -> dict[str, dict[str, object]]:
    """For each choice of horizontal axis: its column in ``customdata`` and its title."""
    return {
        "tokens": {"column": 1, "title": "consumed tokens"},
        "seconds": {"column": 2, "title": f"training time ({unit.word})"},
    }


def _x_axis(axis: Axis, unit: TimeUnit) -> dict[str, Any]:
    return _axis(str(_axes_meta(unit)[axis]["title"]), exponentformat="SI", nticks=8)


# --- curves -----------------------------------------------------------------------------------------------------------


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

    ``runs`` as in :func:`run_styles`; ``evals`` has run_id, step, consumed_tokens, train_seconds (s), val_ppl;
    ``train`` (run_id, step, seqlen in tokens) only supplies the length shown in a hover. The first view leaves out the
    untrained start (a ppl near the vocabulary's size would flatten everything else) and diverged runs' heights.
    """
    points = evals.assign(seqlen=_length_at(evals, train))
    styles = run_styles(runs)
    figure = _curves(styles, points, "val_ppl", "ppl %{y:.3r}", axis, unit, max_points)
    if not figure["data"]:
        return _nothing("no evaluation yet")
    view = _focused_range(runs, evals, "val_ppl", include=target_ppl)
    yaxis = _axis("validation perplexity", type="log", range=[math.log10(v) for v in view], tickformat=".3~r", nticks=9)
    figure["layout"]["yaxis"] = yaxis
    if target_ppl is not None:
        figure["layout"]["shapes"] = [target_line(target_ppl)]
    _finish_labels(figure, styles, view, log=True)
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
    """
    value = "y:.4f" if metric in ("loss", "loss_ratio") else "y:.3g"
    styles = run_styles(runs)
    figure = _curves(styles, train, metric, f"{metric.replace('_', ' ')} %{{{value}}}", axis, unit, max_points)
    if not figure["data"]:
        return _nothing("no training step yet")
    view = _focused_range(runs, train, metric)
    log = metric not in ("loss", "loss_ratio") and view[0] > 0
    shown = [math.log10(v) for v in view] if log else list(view)
    figure["layout"]["yaxis"] = _axis(_METRIC_WORDS[metric], type="log" if log else "linear", range=shown)
    _finish_labels(figure, styles, view, log=log)
    return figure


def target_line(target_ppl: float) -> dict[str, Any]:
    """The target perplexity as a plotly shape across the whole plot."""
    line = {"color": BASELINE_GREY, "width": 1.5, "dash": "dot"}
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": "y",
        "y0": target_ppl,
        "y1": target_ppl,
        "line": line,
        "name": "target",
    }


def _length_at(evals: pd.DataFrame, train: pd.DataFrame | None) -> npt.NDArray[np.float64]:
    """Training sequence length in force at each evaluation (NaN where unknown)."""
    lengths = np.full(len(evals), np.nan)
    if train is None or train.empty or evals.empty:
        return lengths
    by_run = {key: group.sort_values("step") for key, group in train.groupby("run_id", sort=False)}
    for run_id, rows in evals.reset_index(drop=True).groupby("run_id", sort=False):
        if run_id in by_run:
            steps = by_run[run_id]["step"].to_numpy()
            at = np.searchsorted(steps, rows["step"].to_numpy(), side="right") - 1
            lengths[rows.index.to_numpy()] = by_run[run_id]["seqlen"].to_numpy(dtype=float)[np.maximum(at, 0)]
    return lengths


def _curves(
    styles: pd.DataFrame,
    points: pd.DataFrame,
    value: str,
    hover_value: str,
    axis: Axis,
    unit: TimeUnit | None,
    max_points: int,
) -> Figure:
    """One line per run with finite values of ``value``, baselines first so that curricula lie on top."""
    unit = unit or time_unit(float(points["train_seconds"].max()) if len(points) else math.nan)
    hover = (
        "<b>%{meta.label}</b><br>step %{customdata[0]:,}<br>%{customdata[1]:.4s} tokens, "
        f"%{{customdata[2]:,.2f}} {unit.suffix}<br>length %{{customdata[3]}}<br>{hover_value}<extra></extra>"
    )
    finite = points[np.isfinite(points[value].to_numpy(dtype=float))]
    groups: dict[Hashable, pd.DataFrame] = dict(iter(finite.groupby("run_id", sort=False)))
    order = sorted(styles.index, key=lambda run: styles.at[run, "color"] != BASELINE_GREY)
    traces = [
        _curve(str(run), styles.loc[run], groups[run], value, hover, axis, unit, max_points)
        for run in order
        if run in groups
    ]
    meta = {"axes": _axes_meta(unit), "columns": list(dict.fromkeys((*POINT_COLUMNS, value))), "time": unit.word}
    x_axis = _x_axis(axis, unit)
    # A fixed range: autorange would make room for the end labels inside the plot.
    x_axis["range"] = [0, 1.01 * max((x for t in traces for x in t["x"] if x is not None), default=1)]
    layout = _layout(_HEIGHT, x_axis, _axis(value), meta=meta)
    return {"data": traces, "layout": layout}


def _curve(
    run_id: str,
    style: pd.Series[Any],
    rows: pd.DataFrame,
    value: str,
    hover: str,
    axis: Axis,
    unit: TimeUnit,
    max_points: int,
) -> Trace:
    rows = rows.sort_values("step")
    rows = rows.iloc[thin_minmax(rows[value].to_numpy(dtype=float), max_points)]
    tokens = _integers(rows["consumed_tokens"])
    times = _significant(rows["train_seconds"].to_numpy(dtype=float) / unit.seconds)
    custom = list(zip(_integers(rows["step"]), tokens, times, _integers(rows["seqlen"]), strict=True))
    label = f"× {style['label']}" if style["diverged"] else str(style["label"])
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        # plotly reads a subset of HTML in names and hovers
        "name": escape(label, quote=False),
        "x": tokens if axis == "tokens" else times,
        "y": _significant(rows[value]),
        "customdata": [list(row) for row in custom],
        "line": {"color": style["color"], "dash": style["dash"], "width": round(float(style["width"]), 2)},
        "opacity": round(float(style["opacity"]), 2),
        "hovertemplate": hover,
        "showlegend": False,
        "meta": {
            "run_id": run_id,
            "label": escape(label, quote=False),
            "method": str(style["method"]),
            "batch": str(style["batch"]),
            "lr": str(style["lr"]),
            "seed": str(style["seed"]),
            "diverged": bool(style["diverged"]),
        },
    }
    if style["diverged"]:
        trace["mode"] = "lines+markers"
        trace["marker"] = {"symbol": "x-thin", "size": _last_only(len(rows)), "opacity": 1}
        trace["marker"]["line"] = {"width": 2.5, "color": style["color"]}
    return trace


def _last_only(count: int, size: int = 11) -> list[int]:
    return [0] * (count - 1) + [size]


def _focused_range(
    runs: pd.DataFrame, points: pd.DataFrame, value: str, include: float | None = None
) -> tuple[float, float]:
    """(low, high) that shows every healthy run from a tenth of its tokens on, and ``include`` where given."""
    rows = points[np.isfinite(points[value].to_numpy(dtype=float))]
    diverged = set(runs.loc[runs["state"] == "DIVERGED", "run_id"])
    healthy = rows[~rows["run_id"].isin(diverged)]
    rows = healthy if len(healthy) else rows
    last = rows.groupby("run_id")["consumed_tokens"].transform("max")
    seen = rows.loc[rows["consumed_tokens"] >= _VIEW_FROM * last, value].to_numpy(dtype=float)
    low, high = float(seen.min()), float(seen.max())
    if include is not None:
        low, high = min(low, include), max(high, include)
    if low > 0:
        return low / 1.04, high * 1.04
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _finish_labels(figure: Figure, styles: pd.DataFrame, view: tuple[float, float], *, log: bool) -> None:
    """Name the lines: at their ends while they fit, in a key of hue, dash and weight otherwise."""
    layout = figure["layout"]
    if len(figure["data"]) <= MAX_LABELLED_LINES:
        layout["annotations"] = _end_labels(figure["data"], view, layout["height"] - 64.0, log=log)
        layout["margin"]["r"] = 24 + round(6.4 * max(len(str(t["name"])) for t in figure["data"]))
        return
    figure["data"].extend(_key_traces(styles))
    layout["showlegend"] = True
    layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "itemclick": False}
    layout["legend"]["itemdoubleclick"] = False
    layout["margin"]["t"] = 64


def _end_labels(
    traces: Sequence[Trace], view: tuple[float, float], plot_height: float, *, log: bool
) -> list[dict[str, Any]]:
    """A label to the right of each line's last point, pushed apart vertically until none overlap."""

    def height(value: float) -> float:
        low, high, at = (math.log(v) if log else v for v in (*view, min(max(value, view[0]), view[1])))
        return (at - low) / (high - low) * plot_height

    ends = sorted(((height(t["y"][-1]), t) for t in traces), key=lambda end: end[0])
    placed = spread([at for at, _ in ends], _LABEL_GAP_PX, plot_height)
    labels = []
    for (at, trace), put in zip(ends, placed, strict=True):
        y = min(max(trace["y"][-1], view[0]), view[1])
        labels.append(
            {
                "x": trace["x"][-1],
                # plotly places annotations on a log axis by exponent
                "y": math.log10(y) if log else y,
                "ax": 14,
                "ay": at - put,
                "text": trace["name"],
                "font": {"color": trace["line"]["color"], "size": 11},
                "xanchor": "left",
                "showarrow": True,
                "arrowhead": 0,
                "arrowwidth": 0.7,
                "arrowcolor": trace["line"]["color"],
            }
        )
    return labels


def spread(wanted: Sequence[float], gap: float, height: float) -> list[float]:
    """Ascending positions moved as little as a single sweep each way allows, ``gap`` apart, below ``height``."""
    placed = list(wanted)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    limit = height
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed


def _key_traces(styles: pd.DataFrame) -> list[Trace]:
    """Legend entries that explain the encoding instead of naming every line."""

    def entry(name: str, **line: object) -> Trace:
        key = {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": True}
        return {**key, "name": escape(name, quote=False), "line": {"color": INK, "width": 2, **line}}

    entries = [entry(m, color=c) for m, c in zip(styles["method"], styles["color"], strict=True)]
    if styles["batch"].nunique() > 1:
        pairs = styles.sort_values("batch")
        entries += [entry(f"batch {b}", dash=d) for b, d in zip(pairs["batch"], pairs["dash"], strict=True)]
    if styles["lr"].nunique() > 1:
        pairs = styles.sort_values("width")
        entries += [entry(f"LR {lr}", width=w) for lr, w in zip(pairs["lr"], pairs["width"], strict=True)]
    return list({str(e["name"]): e for e in entries}.values())


# --- savings ----------------------------------------------------------------------------------------------------------


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

    ``cells`` are the verdict's cells (token_saving, time_saving and their _low/_high as fractions, None where there is
    none); ``savings`` has one row a curriculum run (curriculum, variant, global_batch_size, lr, token_saving,
    time_saving, token_saving_bound as fractions). Ticks are single seeds; a triangle is a run that never reached
    the target: it saved at most that. ``colors`` (method -> hue) keeps the hues of other figures.
    """
    if not cells:
        return _nothing("no curriculum run has a baseline to be compared with")
    methods = [method_name(str(c["curriculum"]), str(c.get("variant") or "")) for c in cells]
    hues = {**method_colors(methods), **(colors or {})}
    rows = list(range(len(cells) - 1, -1, -1))
    traces = []
    for method in dict.fromkeys(methods):
        color = hues[method]
        mine = [(y, c) for y, c, m in zip(rows, cells, methods, strict=True) if m == method]
        for saving in _SAVINGS:
            traces += [_seed_ticks(mine, savings, saving, color), *_cell_points(mine, method, saving, color)]
        traces.append(_bounds(mine, savings, color))
    drawn = [trace for trace in traces if trace["x"]]
    _one_legend_entry_each(drawn)
    labels = [_cell_label(c, m, many=len(set(methods)) > 1) for c, m in zip(cells, methods, strict=True)]
    pixels = 46 if len(cells) <= 12 else 34
    layout = _layout(
        96 + pixels * len(cells),
        _axis("saved (%)", range=_savings_range(drawn), ticksuffix="%"),
        _axis("", tickvals=rows, ticktext=labels, range=[-0.6, len(cells) - 0.4], showgrid=False, fixedrange=True),
        annotations=[_side("← costs more", "right"), _side("saves →", "left")],
        shapes=[_ZERO_LINE],
        meta={"columns": ["cell", "what", "saving_pct", "low_pct", "high_pct"]},
    )
    layout["showlegend"] = True
    layout["legend"] = {"orientation": "h", "xref": "container", "x": 0, "yref": "container", "y": 1, "yanchor": "top"}
    layout["margin"] |= {"t": 66}
    return {"data": drawn, "layout": layout}


def _cell_label(cell: Mapping[str, Any], method: str, *, many: bool) -> str:
    place = f"batch {int(cell['global_batch_size'])}, LR {format_lr(float(cell['lr']))}"
    return f"{escape(method, quote=False)}<br>{place}" if many else place


def _cell_name(cell: Mapping[str, Any], method: str) -> str:
    return f"{method}, batch {int(cell['global_batch_size'])}, LR {format_lr(float(cell['lr']))}"


def _percent(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float | np.floating) else math.nan
    return round(100 * number, 2) if math.isfinite(number) else None


def _cell_points(
    mine: Sequence[tuple[int, Mapping[str, Any]]], method: str, saving: _Saving, color: str
) -> list[Trace]:
    """The cells' marks: those with an interval and those without, which plotly would give bars of no length."""
    found = [_CellPoint.of(y + saving.offset, cell, saving) for y, cell in mine]
    drawn = [point for point in found if point is not None]
    return [
        _cell_trace([p for p in drawn if (p.low is not None) == spanned], method, saving, color)
        for spanned in (True, False)
    ]


class _CellPoint(NamedTuple):
    """A cell's saving in percent, with its interval's ends where it has one."""

    y: float
    value: float
    low: float | None
    high: float | None
    cell: Mapping[str, Any]

    @classmethod
    def of(cls, y: float, cell: Mapping[str, Any], saving: _Saving) -> _CellPoint | None:
        value, low, high = (_percent(cell.get(f"{saving.column}{end}")) for end in ("", "_low", "_high"))
        if value is None:
            return None
        return (
            cls(y, value, low, high, cell) if low is not None and high is not None else cls(y, value, None, None, cell)
        )


def _cell_trace(points: Sequence[_CellPoint], method: str, saving: _Saving, color: str) -> Trace:
    names = [escape(_cell_name(p.cell, method), quote=False) for p in points]
    spans = ["no interval" if p.low is None else f"{p.low:.1f} to {p.high:.1f}%" for p in points]
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "name": saving.name,
        "x": [p.value for p in points],
        "y": [p.y for p in points],
        "marker": {"symbol": saving.symbol, "size": 10, "color": color, "line": {"width": 2, "color": color}},
        "customdata": [[name, span, p.low, p.high] for name, span, p in zip(names, spans, points, strict=True)],
        "hovertemplate": f"%{{customdata[0]}}<br>{saving.name} saved %{{x:.1f}}%<br>%{{customdata[1]}}<extra></extra>",
    }
    if any(p.low is not None for p in points):
        trace["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": [round(p.high - p.value, 2) for p in points if p.high is not None],
            "arrayminus": [round(p.value - p.low, 2) for p in points if p.low is not None],
            "thickness": 1.5,
            "width": 4,
            "color": color,
        }
    return trace


def _runs_of(cell: Mapping[str, Any], savings: pd.DataFrame) -> pd.DataFrame:
    method = method_name(str(cell["curriculum"]), str(cell.get("variant") or ""))
    same: npt.NDArray[np.bool_] = np.array(method_names(savings), dtype=object) == method
    same &= savings["global_batch_size"].to_numpy(dtype=float) == float(cell["global_batch_size"])
    same &= np.isclose(savings["lr"].to_numpy(dtype=float), float(cell["lr"]))
    found: pd.DataFrame = savings[same]
    return found


def _small_points(found: Sequence[tuple[float, float, str]], name: str, hover: str, marker: dict[str, Any]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x for x, _, _ in found],
        "y": [y for _, y, _ in found],
        "marker": marker,
        "customdata": [[escape(run, quote=False), "", None, None] for _, _, run in found],
        "hovertemplate": f"%{{customdata[0]}}<br>{hover}<extra></extra>",
    }


def _seed_ticks(
    mine: Sequence[tuple[int, Mapping[str, Any]]], savings: pd.DataFrame, saving: _Saving, color: str
) -> Trace:
    found = [
        (value, y + saving.offset, str(run))
        for y, cell in mine
        for run, raw in _runs_of(cell, savings)[["run_id", saving.column]].itertuples(index=False)
        if (value := _percent(raw)) is not None
    ]
    # A lone seed lies under its own cell's mark: nothing to add.
    shared = [p for p in found if sum(q[1] == p[1] for q in found) > 1]
    marker = {"symbol": "line-ns-open", "size": 9, "color": color, "line": {"width": 1.5}}
    return _small_points(shared, "one seed", f"{saving.name} saved %{{x:.1f}}%", marker)


def _bounds(mine: Sequence[tuple[int, Mapping[str, Any]]], savings: pd.DataFrame, color: str) -> Trace:
    found = []
    for y, cell in mine:
        runs = _runs_of(cell, savings)
        missed = runs[~runs["reached"].astype(bool)]
        for run, raw in missed[["run_id", "token_saving_bound"]].itertuples(index=False):
            if (value := _percent(raw)) is not None:
                found.append((value, y + _SAVINGS[0].offset, str(run)))
    marker = {"symbol": "triangle-left-open", "size": 11, "color": color, "line": {"width": 2}}
    return _small_points(found, "never reached: at most", "target never reached: saved at most %{x:.1f}%", marker)


def _one_legend_entry_each(traces: Sequence[Trace]) -> None:
    seen: set[str] = set()
    for trace in traces:
        trace["legendgroup"] = trace["name"]
        trace["showlegend"] = trace["name"] not in seen
        trace["legendrank"] = 1001 if trace["name"] == "one seed" else 1000
        seen.add(str(trace["name"]))


def _savings_range(traces: Sequence[Trace]) -> list[float]:
    values = [0.0]
    for trace in traces:
        values += trace["x"]
        if error := trace.get("error_x"):
            values += [x + above for x, above in zip(trace["x"], error["array"], strict=True)]
            values += [x - below for x, below in zip(trace["x"], error["arrayminus"], strict=True)]
    margin = max(4.0, 0.06 * (max(values) - min(values)))
    return [min(values) - margin, max(values) + margin]


_ZERO_LINE = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": BASELINE_GREY}}


def _side(words: str, anchor: str) -> dict[str, Any]:
    shift = 6 if anchor == "left" else -6
    return {
        "text": words,
        "x": 0,
        "xref": "x",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "xanchor": anchor,
        "xshift": shift,
        "showarrow": False,
        "font": {"size": 11},
        "opacity": 0.8,
    }


# --- stability --------------------------------------------------------------------------------------------------------


def stability_maps(stability: pd.DataFrame) -> dict[str, Figure]:
    """One heat map per curriculum: batch size (rows) by learning rate (columns), all on one colour scale.

    ``stability`` has one row a run: curriculum, variant, global_batch_size (sequences), lr, diverged, max_loss_ratio
    (the largest training loss over the smallest before it, 1 = never rose). A cell shows the worst of its seeds; a
    diverged run adds an × with the count.
    """
    if stability.empty:
        return {}
    rows = stability.assign(method=method_names(stability))
    batches = sorted(rows["global_batch_size"].unique().tolist())
    rates = sorted(rows["lr"].unique().tolist())
    methods = sorted(rows["method"].unique().tolist(), key=lambda m: (not m.startswith("baseline"), m))
    return {m: _stability_map(rows[rows["method"] == m], batches, rates) for m in methods}


RATIO_SCALE_TOP = 2.0
"""Loss ratios from here on have the full colour: one diverged run must not make all the others look alike."""


def _stability_map(rows: pd.DataFrame, batches: Sequence[float], rates: Sequence[float]) -> Figure:
    z: list[list[float | None]] = []
    text: list[list[str]] = []
    custom: list[list[list[int]]] = []
    for batch in batches:
        cells = [rows[(rows["global_batch_size"] == batch) & (rows["lr"] == lr)] for lr in rates]
        z.append([_worst_ratio(cell) for cell in cells])
        text.append([_ratio_text(cell) for cell in cells])
        custom.append([[len(cell), int(cell["diverged"].sum())] for cell in cells])
    heat = {
        "type": "heatmap",
        "x": [format_lr(lr) for lr in rates],
        "y": [str(int(b)) for b in batches],
        "z": z,
        "text": text,
        "texttemplate": "%{text}",
        "textfont": {"size": 12, "color": INK},
        "customdata": custom,
        "hovertemplate": "batch %{y}, LR %{x}<br>max loss ratio %{text}<br>"
        "%{customdata[1]} of %{customdata[0]} runs diverged<extra></extra>",
        "zmin": 1.0,
        "zmax": RATIO_SCALE_TOP,
        # Transparent to vermillion: pale on white paper, dark on dark paper, the same figure.
        "colorscale": [[0, "rgba(213,94,0,0.06)"], [1, "rgba(213,94,0,0.85)"]],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
    }
    layout = _layout(
        70 + 44 * len(batches),
        _axis("learning rate", type="category", showgrid=False, fixedrange=True, ticks=""),
        _axis("batch size", type="category", showgrid=False, fixedrange=True, ticks=""),
        meta={"columns": ["global_batch_size", "lr", "max_loss_ratio", "runs", "diverged"]},
    )
    layout["margin"] |= {"t": 6, "r": 6}
    return {"data": [heat], "layout": layout}


def _worst_ratio(cell: pd.DataFrame) -> float | None:
    if cell.empty:
        return None
    finite = cell["max_loss_ratio"][np.isfinite(cell["max_loss_ratio"].to_numpy(dtype=float))]
    if cell["diverged"].any():
        return max(RATIO_SCALE_TOP, float(finite.max()) if len(finite) else RATIO_SCALE_TOP)
    return round(float(finite.max()), 4) if len(finite) else None


def _ratio_text(cell: pd.DataFrame) -> str:
    if cell.empty:
        return ""
    finite = cell["max_loss_ratio"][np.isfinite(cell["max_loss_ratio"].to_numpy(dtype=float))]
    worst = (f"{finite.max():.2f}" if finite.max() < 1000 else f"{finite.max():.0e}") if len(finite) else ""
    lost = int(cell["diverged"].sum())
    mark = "" if not lost else ("×" if len(cell) == 1 else f"× {lost}/{len(cell)}")
    return "<br>".join(part for part in (worst, mark) if part)


# --- schedule ---------------------------------------------------------------------------------------------------------


def length_schedule(
    runs: pd.DataFrame, train: pd.DataFrame, *, axis: Axis = "tokens", unit: TimeUnit | None = None
) -> Figure:
    """Sequence length (tokens) over consumed tokens or training time; runs with the same schedule share one line.

    ``train`` has run_id, step, consumed_tokens, train_seconds (s), seqlen. Only the steps where the length changes are
    kept, which loses nothing: between them the line is flat.
    """
    if train.empty:
        return _nothing("no training step yet")
    # Neither learning rate nor seed moves the schedule, so they leave the line's name and weight.
    styles = run_styles(runs.assign(lr=runs["lr"].iloc[0], seed=0))
    same = runs[["curriculum", "variant", "model", "global_batch_size", "max_seqlen", "token_budget"]].astype(str)
    schedule_of = dict(zip(runs["run_id"], same.itertuples(index=False, name=None), strict=True))
    longest: dict[tuple[str, ...], pd.DataFrame] = {}
    for run_id, rows in train.groupby("run_id", sort=False):
        changes = _length_changes(rows)
        key = schedule_of[str(run_id)]
        # An interrupted run knows only a part of its schedule: the longest recording stands for all.
        if key not in longest or changes["step"].iloc[-1] > longest[key]["step"].iloc[-1]:
            longest[key] = changes
    figure = _curves(styles, pd.concat(longest.values()), "seqlen", "", axis, unit, max_points=10**9)
    for trace in figure["data"]:
        trace["line"] |= {"shape": "hv", "width": 1.8}
        trace["mode"] = "lines"
        trace["meta"] |= {"lr": "", "seed": ""}
        trace.pop("marker", None)
    top = float(train["seqlen"].max())
    figure["layout"]["yaxis"] = _axis("sequence length (tokens)", range=[0, 1.06 * top])
    figure["layout"]["height"] = 300
    _finish_labels(figure, styles, (0.0, 1.06 * top), log=False)
    return figure


def _length_changes(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.sort_values("step")
    changed = rows["seqlen"].ne(rows["seqlen"].shift())
    changed.iloc[-1] = True
    return rows[changed]
