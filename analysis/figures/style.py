"""Look and names shared by all figures: hues, dashes, line names, axes, layout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import pandas as pd

from analysis.schema import method_names
from cl_bench.runs.identity import short_float

Trace = dict[str, Any]


class Figure(TypedDict):
    """A plotly figure, JSON-serialisable, free of NaN."""

    data: list[Trace]
    layout: dict[str, Any]


class TimeUnit(NamedTuple):
    """A unit of training time: its suffix, its word on an axis, and its length in seconds."""

    suffix: str
    word: str
    seconds: float


BASELINE_GREY = "#858585"
# Okabe & Ito, "Color Universal Design" (2008), without black; yellow last, it is faint on white.
CURRICULUM_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
INK = "#24262b"
RULE = "rgba(128,128,128,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def markup(text: object) -> str:
    """Text as plotly shows it literally: it reads a subset of HTML in names and hovers."""
    return escape(str(text), quote=False)


def place(row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """'batch 16, LR 2e-3' of a cell."""
    return f"batch {int(row['global_batch_size'])}, LR {short_float(float(row['lr']))}"


def time_unit(longest_s: float) -> TimeUnit:
    """Seconds for short runs, hours from two hours on; ``longest_s`` in seconds (NaN: seconds)."""
    return TimeUnit("h", "hours", 3600.0) if longest_s >= 7200 else TimeUnit("s", "seconds", 1.0)


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
    """Look and name of each run, indexed by run_id.

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
            "lr": [short_float(lr) for lr in runs["lr"]],
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
        "lr": [short_float(lr) for lr in runs["lr"]],
        "seed": [f"s{int(s)}" for s in runs["seed"]],
    }
    varying = [column for column in parts.values() if len(set(column)) > 1]
    return [" ".join((method, *(column[i] for column in varying))) for i, method in enumerate(methods)]


def styled_axis(title: str, **extra: object) -> dict[str, Any]:
    """A plotly axis; ``extra`` are further plotly settings."""
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


def perplexity_axis(title: str, first: float, last: float) -> dict[str, Any]:
    """A log axis of perplexities from ``first`` to ``last``."""
    return styled_axis(title, type="log", range=[math.log10(first), math.log10(last)], tickformat=".3~r", nticks=9)


def styled_layout(
    height: int, xaxis: Mapping[str, object], yaxis: Mapping[str, object], **extra: object
) -> dict[str, Any]:
    """A plotly layout of ``height`` px on transparent paper; ``extra`` are further plotly settings."""
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


def legend_above(layout: dict[str, Any], top: int) -> None:
    """Give a layout a horizontal legend in a margin of ``top`` px above the plot."""
    layout["showlegend"] = True
    layout["legend"] = {"orientation": "h", "xref": "container", "x": 0, "yref": "container", "y": 1, "yanchor": "top"}
    layout["margin"] |= {"t": top}


def one_legend_entry_each(traces: Iterable[Trace]) -> None:
    """Show each name once in the legend, where it stands for all traces of that name."""
    names: set[str] = set()
    for trace in traces:
        trace["legendgroup"] = trace["name"]
        trace["showlegend"] = trace["name"] not in names
        names.add(str(trace["name"]))


def data_table(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame as ``layout.meta.table``, from which the page makes a CSV file; None for NaN and infinity."""
    columns = [str(c) for c in frame.columns]
    rows = frame.astype(object).to_numpy().tolist()
    return {
        "columns": columns,
        "rows": [[None if isinstance(v, float) and not math.isfinite(v) else v for v in row] for row in rows],
    }


def left_out(figure: Figure) -> str:
    """What the first view of a figure of curves leaves out, in words."""
    return str(figure["layout"].get("meta", {}).get("left_out", ""))


def empty_figure(words: str) -> Figure:
    """A figure that shows why it is empty, so that a page or notebook needs no special case."""
    hidden = {"visible": False, "range": [0, 1]}
    note = {"text": words, "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False, "opacity": 0.7}
    return {"data": [], "layout": styled_layout(140, hidden, hidden, annotations=[note])}


def line_across(axis: Literal["x", "y"], at: float, **line: object) -> dict[str, Any]:
    """A plotly shape: a line across the whole plot at one value of an axis; ``line`` is its look."""
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1, f"{axis}ref": axis, f"{other}ref": "paper"}
    return {"type": "line", **ends, "line": {"color": BASELINE_GREY, **line}}


def target_line(target_ppl: float, axis: Literal["x", "y"] = "y") -> dict[str, Any]:
    """The target perplexity as a plotly shape across the whole plot."""
    return line_across(axis, target_ppl, width=1.5, dash="dot") | {"name": "target"}
