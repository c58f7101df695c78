"""Cost of runs: tokens per second over sequence length, and where each curriculum's hours went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.figures.style import (
    DASHES,
    Figure,
    Trace,
    data_table,
    empty_figure,
    legend_above,
    markup,
    method_colors,
    one_legend_entry_each,
    styled_axis,
    styled_layout,
)
from analysis.figures.thinning import significant
from analysis.schema import method_names

_MOST_MARKED = 24
_PARTS = {"training": "", "evaluation": ".", "lost": "x", "tuning": "/"}
_PART_WORDS = {"lost": "rolled back or failed", "training": "training that was kept"}


def throughput_by_length(
    throughput: pd.DataFrame, colors: Mapping[str, str] | None = None, dashes: Mapping[int, str] | None = None
) -> Figure:
    """Tokens per second over sequence length (log axis), one line per curriculum, batch size and hardware.

    ``throughput`` has curriculum, variant, model, hardware, world_size, global_batch_size (sequences), seqlen (tokens),
    steps, tokens, seconds, tokens_per_second. A curriculum of one length is a single mark. ``colors`` (method -> hue)
    and ``dashes`` (batch size -> dash) keep the look of other figures.
    """
    if throughput.empty:
        return empty_figure("fewer than two training steps yet")
    rows = throughput.assign(method=method_names(throughput))
    hues = {**method_colors(rows["method"]), **(colors or {})}
    batches = sorted(rows["global_batch_size"].unique().tolist())
    strokes = {b: DASHES[i % len(DASHES)] for i, b in enumerate(batches)} | dict(dashes or {})
    keys = ["method", "model", "hardware", "world_size", "global_batch_size"]
    several = [k for k in keys[1:4] if rows[k].nunique() > 1]
    clocks = [tuple(c) for c in rows[["hardware", "world_size"]].drop_duplicates().to_numpy().tolist()]
    traces = []
    for key, line in rows.groupby(keys, sort=False, dropna=False):
        values: dict[str, Any] = dict(zip(keys, key, strict=True))
        stroke = strokes[values["global_batch_size"]]
        traces.append(_line(line, values, several, hues[str(values["method"])], stroke))
        traces[-1]["opacity"] = max(0.4, 1 - 0.3 * clocks.index((values["hardware"], values["world_size"])))
    one_legend_entry_each(traces)
    low, high = (float(f(rows["seqlen"])) for f in (min, max))
    powers = [2**p for p in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    span = [math.log10(0.85 * low), math.log10(1.18 * high)]
    columns = ["curriculum", *several, "global_batch_size", "seqlen", "steps", "tokens_per_second"]
    table = rows.assign(curriculum=rows["method"], tokens_per_second=rows["tokens_per_second"].round(1))[columns]
    layout = styled_layout(
        340,
        styled_axis("sequence length (tokens)", type="log", tickvals=powers, range=span, fixedrange=True),
        styled_axis("tokens per second", rangemode="tozero", tickformat="~s", fixedrange=True),
        meta={"table": data_table(table)},
    )
    return _with_legend({"data": traces, "layout": layout})


def _line(line: pd.DataFrame, values: Mapping[str, Any], several: list[str], color: str, dash: str) -> Trace:
    line = line.sort_values("seqlen")
    name = markup(values["method"])
    what = f"{name}, batch {int(values['global_batch_size'])}"
    units = {"world_size": "{} ranks"}
    for key in several:
        more = markup(units.get(key, "{}").format(values[key]) if values[key] else f"unknown {key}")
        what, name = f"{what}, {more}", f"{name}, {more}"
    alone = len(line) == 1
    return {
        "type": "scatter",
        "mode": "markers" if alone else "lines+markers" if len(line) <= _MOST_MARKED else "lines",
        "name": name,
        "x": line["seqlen"].astype(int).tolist(),
        "y": significant(line["tokens_per_second"]),
        "customdata": line["steps"].astype(int).tolist(),
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "size": 10 if alone else 5, "symbol": "diamond" if alone else "circle"},
        "hovertemplate": f"{what}<br>length %{{x}}: %{{y:,.0f}} tokens/s<br>%{{customdata:,}} steps<extra></extra>",
    }


def hours_spent(
    totals: pd.DataFrame, word: str, per_hour: float = 1.0, colors: Mapping[str, str] | None = None
) -> Figure:
    """Where each method's hours went: one stacked bar per method, the sum over its runs.

    ``totals`` has method, role, training, evaluation, lost, tuning (rank-hours). ``word`` names the axis'
    unit; an hour is ``per_hour`` of it.
    """
    if totals.empty:
        return empty_figure("no run yet")
    baselines = set(totals.loc[totals["role"] == "baseline", "method"])
    hues = {**method_colors(totals["method"], baselines), **(colors or {})}
    rows = list(range(len(totals) - 1, -1, -1))
    traces: list[Trace] = []
    for part, pattern in _PARTS.items():
        if part != "training" and not totals[part].any():
            continue
        words = _PART_WORDS.get(part, part)
        for y, row in zip(rows, totals.to_dict("records"), strict=True):
            color = hues[str(row["method"])]
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": words,
                    "x": significant([row[part] * per_hour]),
                    "y": [y],
                    "width": 0.56,
                    "marker": {"color": color, "pattern": {"shape": pattern, "fillmode": "overlay", "solidity": 0.45}},
                    "hovertemplate": f"{markup(row['method'])}: {words}<br>%{{x:,.4~g}} {word}<extra></extra>",
                }
            )
            if part != "training":
                traces[-1]["marker"] |= {"opacity": 0.8}
    one_legend_entry_each(traces)
    names = [markup(m) for m in totals["method"]]
    table = totals[["method", *_PARTS]].rename(columns={part: f"{part}_rank_hours" for part in _PARTS})
    layout = styled_layout(
        104 + 42 * len(totals),
        styled_axis(word, rangemode="tozero", fixedrange=True),
        styled_axis(
            "", tickvals=rows, ticktext=names, range=[-0.6, len(rows) - 0.4], showgrid=False, fixedrange=True, ticks=""
        ),
        barmode="stack",
        meta={"table": data_table(table.round(6))},
    )
    return _with_legend({"data": traces, "layout": layout})


def _with_legend(figure: Figure) -> Figure:
    """The figure with its legend above and room for it; `layout.meta.narrow_top` is the room for one entry per line."""
    names = [str(trace["name"]) for trace in figure["data"] if trace["showlegend"]]
    wide = math.ceil(sum(7 * len(name) + 50 for name in names) / 1050)  # an estimate, at 7 px a letter
    room = 26 * len(names) + 20
    layout = figure["layout"]
    legend_above(layout, 26 + 22 * wide)
    layout["legend"] |= {"maxheight": room}
    layout["meta"] |= {"narrow_top": room}
    return figure
