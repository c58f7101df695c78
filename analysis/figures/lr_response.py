"""Final validation loss over learning rate, one figure per batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.figures.style import (
    Figure,
    Trace,
    legend_above,
    line_across,
    markup,
    method_colors,
    styled_axis,
    styled_layout,
)
from analysis.schema import method_name
from analysis.stats.lr_response import Point, Response
from cl_bench.runs.identity import short_float

_COLUMNS = ("final_loss", "lowest", "highest", "seeds", "diverged", "did_not_learn", "useful")
_MOST_TICKS = 9


def lr_responses(
    responses: Sequence[Response],
    colors: Mapping[str, str] | None = None,
    unigram: Mapping[str, float] | None = None,
) -> dict[str, Figure]:
    """One figure per setting and batch size, by its title: mean final loss (nats per token) over learning rate.

    A band spans the seeds; a ring marks the best learning rate, a hollow mark a learning rate at which a run did not
    learn, an × at the top diverged runs, which are in no mean. `unigram` has the unigram cross-entropy of each setting,
    drawn as a line. ``layout.meta.table`` holds what is drawn.
    """
    groups: dict[tuple[str, int], list[Response]] = {}
    for response in responses:
        groups.setdefault((response.setting, response.global_batch_size), []).append(response)
    several = len({setting for setting, _ in groups}) > 1
    names = {method_name(r.curriculum, r.variant): r.role for r in responses}
    hues = {**method_colors(names, {n for n, role in names.items() if role == "baseline"}), **(colors or {})}
    return {
        f"batch {batch}" + (f", setting {setting}" if several else ""): _figure(own, hues, (unigram or {}).get(setting))
        for (setting, batch), own in sorted(groups.items(), key=lambda item: item[0][1])
    }


def _figure(responses: Sequence[Response], hues: Mapping[str, str], unigram: float | None) -> Figure:
    points = [p for r in responses for p in r.points]
    rates = sorted({p.lr for p in points})
    losses = [v for p in points for v in (p.low, p.high) if v is not None] + ([] if unigram is None else [unigram])
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    pad = 0.08 * (high - low) or 0.1
    top = high + pad
    traces: list[Trace] = []
    decades = math.log10(rates[-1] / rates[0]) or 1.0
    for i, response in enumerate(responses):
        # Marks of several methods at one rate stand side by side.
        shift = 10 ** (0.03 * decades * (i - (len(responses) - 1) / 2))
        traces += _method(response, hues[method_name(response.curriculum, response.variant)], top, shift)
    ticks = {"tickvals": rates, "ticktext": [short_float(r) for r in rates]} if len(rates) <= _MOST_TICKS else {}
    layout = styled_layout(
        300,
        styled_axis(
            "learning rate", type="log", range=[math.log10(rates[0] / 1.5), math.log10(rates[-1] * 1.5)], **ticks
        ),
        styled_axis("final validation loss", range=[low - pad, top + 0.7 * pad]),
        meta={"table": _table(responses), "narrow_top": 40 + 20 * ((len(responses) - 1) // 2)},
    )
    if unigram is not None:
        layout["shapes"] = [line_across("y", unigram, width=1.2, dash="dot")]
        place = {"xref": "paper", "x": 0.01, "y": unigram, "xanchor": "left", "yanchor": "top"}
        layout["annotations"] = [{**place, "text": "token frequencies", "showarrow": False, "font": {"size": 11}}]
    legend_above(layout, 40)
    return {"data": traces, "layout": layout}


def _method(response: Response, color: str, top: float, shift: float) -> list[Trace]:
    name = markup(method_name(response.curriculum, response.variant))
    ended = [(p, p.ended_loss, p.low, p.high) for p in response.points]
    drawn = [(p, m, lo, hi) for p, m, lo, hi in ended if m is not None and lo is not None and hi is not None]
    x = [p.lr for p, *_ in drawn]
    common: Trace = {"type": "scatter", "name": name, "legendgroup": name, "showlegend": False}
    band: Trace = {
        **common,
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*(hi for *_, hi in drawn), *(lo for _, _, lo, _ in reversed(drawn))],
        "fill": "toself",
        "fillcolor": _faint(color),
        "line": {"width": 0, "color": color},
        "hoverinfo": "skip",
    }
    line: Trace = {
        **common,
        "mode": "lines+markers",
        "x": x,
        "y": [mean for _, mean, *_ in drawn],
        "line": {"width": 1.8, "color": color},
        "marker": {
            "size": 7,
            "color": color,
            "symbol": ["circle-open" if p.did_not_learn else "circle" for p, *_ in drawn],
            "line": {"width": 1.6, "color": color},
        },
        "customdata": [_words(p) for p, *_ in drawn],
        "hovertemplate": f"<b>{name}</b><br>%{{customdata}}<extra></extra>",
    }
    best = [(p.lr, mean) for p, mean, *_ in drawn if p.lr == response.best_lr]
    ring: Trace = {
        **common,
        "mode": "markers",
        "x": [lr for lr, _ in best],
        "y": [mean for _, mean in best],
        "marker": {"symbol": "circle-open", "size": 15, "color": color, "line": {"width": 1.4, "color": color}},
        "hoverinfo": "skip",
    }
    lost = [p for p in response.points if p.diverged]
    crosses: Trace = {
        **common,
        "mode": "markers",
        "x": [p.lr * shift for p in lost],
        "y": [top] * len(lost),
        "marker": {"symbol": "x-thin", "size": 9, "color": color, "line": {"width": 2, "color": color}},
        "customdata": [_words(p) for p in lost],
        "hovertemplate": f"<b>{name}</b><br>%{{customdata}}<extra></extra>",
    }
    # One shape per hue in the legend, whatever shapes are drawn.
    look = {"line": line["line"], "marker": {"size": 7, "color": color}}
    entry: Trace = {**common, "mode": "lines+markers", "showlegend": True, "x": [None], "y": [None], **look}
    return [*(trace for trace in (band, line, ring, crosses) if trace["x"]), entry]


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"


def _words(point: Point) -> str:
    seeds = f"{point.seeds} seed{'s' * (point.seeds > 1)}"
    lines = [f"LR {short_float(point.lr)}, {seeds}"]
    if point.ended_loss is not None:
        lines.append(f"loss {point.ended_loss:.3f} ({point.low:.3f} to {point.high:.3f})")
    lines += [f"{point.diverged} of {seeds} diverged"] if point.diverged else []
    lines += [f"{point.did_not_learn} of {seeds} did not learn"] if point.did_not_learn else []
    return "<br>".join([*lines, "useful"] if point.useful else lines)


def _table(responses: Sequence[Response]) -> dict[str, Any]:
    rows = [
        [
            method_name(r.curriculum, r.variant),
            r.global_batch_size,
            p.lr,
            *(p.ended_loss, p.low, p.high, p.seeds, p.diverged, p.did_not_learn, p.useful),
        ]
        for r in responses
        for p in r.points
    ]
    return {"columns": ["curriculum", "global_batch_size", "lr", *_COLUMNS], "rows": rows}
