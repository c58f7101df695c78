"""One self-contained HTML page from a sweep's results: tables made here, figures drawn by plotly.js in the browser.

The page holds no address of another host, and its content-security policy allows exactly the two scripts written here,
so text that comes from run names or logs cannot run even if an escape were forgotten.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import zip_longest
from string import Template
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import Figure, TimeUnit

DEFAULT_METHODS = (
    "Perplexity is exp(validation loss), always at full length and on the same validation blocks; evaluations fall on "
    "a grid of tokens that all runs of the sweep share, and one is made before training.",
    "Tokens to target: where the loss first falls to the target's loss, interpolated linearly over tokens between the "
    "two evaluations around it. Time to target is read at the same place.",
    "Saving = 1 − (the curriculum run's tokens to target ÷ the tokens its baseline used). Each curriculum run is "
    "paired with the baseline run of the same batch size, learning rate and seed. Negative values are a cost.",
    "A run that never reaches the target has no saving; where its budget gives a bound, it saved at most that.",
    "Training time counts training steps only: no evaluation, checkpoint, queue, or work rolled back after a restart.",
    "Intervals are over seeds; a cell with a single seed has none.",
    "Loss ratio = a step's training loss ÷ the smallest training loss before it; 1 or less means that the loss never "
    "rose above its best. Max is over all steps of a run, and over the seeds of a cell in the map.",
)


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows. Frames may have no rows, never missing columns."""

    title: str
    """Name of the sweep."""
    question: str
    """The question the sweep asks, one sentence."""
    generated: str
    """When the results were read, ISO 8601."""
    command: str
    """The shell command that makes this page again."""
    verdict: Mapping[str, Any]
    """sentence (str), caveats (list of str), target_ppl (float or None), target_kind ("given" or
    "best_baseline_final"), cells: list of dicts with curriculum, variant, global_batch_size (sequences), lr, run_ids,
    baseline_run_ids, reached (count), of (count), token_saving, time_saving and their _low/_high (fractions, None where
    unknown), target_ppl, note."""
    runs: pd.DataFrame
    """One row a run: run_id, cell, role, curriculum, shape, variant, model, global_batch_size, lr, seed, state,
    token_budget, max_seqlen, consumed_tokens, train_seconds (s), final_loss (nats/token), final_ppl, best_ppl,
    tokens_per_second."""
    train: pd.DataFrame
    """One row a training step: run_id, step, consumed_tokens, seqlen, loss, train_seconds, loss_ratio, and optimizer
    statistics that the page does not draw."""
    evals: pd.DataFrame
    """One row an evaluation: run_id, step, consumed_tokens, train_seconds (s), val_loss (nats/token), val_ppl."""
    savings: pd.DataFrame
    """One row a curriculum run: run_id, baseline_run_id, best_baseline_run_id, curriculum, variant, global_batch_size,
    lr, seed, target_ppl, reached, tokens_to_target, seconds_to_target, baseline_tokens, baseline_seconds, token_saving,
    time_saving, token_saving_bound, vs_best_target_ppl, vs_best_reached, vs_best_token_saving, vs_best_time_saving
    (fractions, NaN where never reached), note."""
    stability: pd.DataFrame
    """One row a run: run_id, curriculum, variant, global_batch_size, lr, seed, state, diverged, max_loss_ratio,
    steps_above_1_2, steps_above_1_5, steps (counts)."""
    methods: Sequence[str] = DEFAULT_METHODS
    """How the numbers were computed, one paragraph each."""


SIZE_LIMIT_BYTES = 5_900_000
"""Larger than this and curves are thinned further; plotly.js alone is about 4.8 MB."""

_POINTS_A_CURVE = (400, 280, 200, 140, 100, 70, 48)


def render(report: ReportData) -> str:
    """The whole page as one HTML document."""
    page = ""
    for max_points in _POINTS_A_CURVE:
        page = _document(report, max_points)
        if len(page.encode()) <= SIZE_LIMIT_BYTES:
            break
    return page


def _document(report: ReportData, max_points: int) -> str:
    from plotly.offline import get_plotlyjs  # a second to import, and only a page needs it

    unit = figures.time_unit(float(report.runs["train_seconds"].max()) if len(report.runs) else math.nan)
    plotly_js = str(get_plotlyjs()).replace("\r\n", "\n")
    page_js = _asset("page.js")
    cells = report.verdict["cells"]
    maps = figures.stability_maps(report.stability)
    values = {
        "csp": _content_security_policy(plotly_js, page_js),
        "title": escape(report.title),
        "question": escape(report.question),
        "generated": escape(report.generated.replace("T", " ")),
        "sentence": escape(str(report.verdict["sentence"])),
        "caveats": _list(report.verdict["caveats"], "caveats"),
        "time_word": unit.word,
        "target": "" if report.verdict["target_ppl"] is None else f"{report.verdict['target_ppl']:.4g}",
        "target_words": escape(_target_words(report)),
        "max_points": str(max_points),
        "evals_note": _evals_note(report, max_points),
        "key": _key(report.runs),
        "cells_table": _cells_table(cells),
        "savings_table": _savings_table(report.savings, unit),
        "maps": "\n".join(_map_figure(i, name) for i, name in enumerate(maps)),
        "stability_table": _stability_table(report.stability),
        "stability_runs_table": _stability_runs_table(report.stability),
        "runs_table": _runs_table(report.runs, unit),
        "methods": _list(report.methods, "methods"),
        "command": escape(report.command),
        "ratio_top": f"{figures.RATIO_SCALE_TOP:g}",
        "css": _asset("style.css"),
        "data": script_json(_payload(report, list(maps.values()), unit, max_points)),
        "plotly_js": plotly_js,
        "page_js": page_js,
    }
    return Template(_asset("template.html")).substitute(values)


def script_json(value: object) -> str:
    """JSON that is safe between script tags: no tag or comment can begin in it; NaN is refused."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _asset(name: str) -> str:
    return (files("analysis") / "page_assets" / name).read_text(encoding="utf-8")


def _content_security_policy(*scripts: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    # plotly.js styles its elements inline and saves images through data and blob addresses.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _payload(report: ReportData, maps: Sequence[Figure], unit: TimeUnit, max_points: int) -> dict[str, object]:
    runs, target = report.runs, report.verdict["target_ppl"]
    styles = figures.run_styles(runs)
    colors = dict(zip(styles["method"], styles["color"], strict=True))
    drawn = {
        "validation": figures.validation_curves(
            runs, report.evals, report.train, target_ppl=target, unit=unit, max_points=max_points
        ),
        "savings": figures.savings_intervals(report.verdict["cells"], report.savings, colors),
        "training": figures.training_curves(runs, report.train, unit=unit, max_points=max_points),
        "schedule": figures.length_schedule(runs, report.train, unit=unit),
    } | {f"stability-{i}": figure for i, figure in enumerate(maps)}
    pairs = dict(zip(report.savings["run_id"], report.savings["baseline_run_id"], strict=True))
    return {
        "title": report.title,
        "target": target,
        "pairs": {str(run): str(base) for run, base in pairs.items() if isinstance(base, str) and base},
        "figures": {name: _without_x(figure) for name, figure in drawn.items()},
    }


def _without_x(figure: Figure) -> Figure:
    """Drops what the page makes itself: ``x`` is a column of customdata, and the key is written in HTML."""
    if "axes" not in figure["layout"].get("meta", {}):
        return figure
    layout = {k: v for k, v in figure["layout"].items() if k not in ("annotations", "legend", "shapes")}
    lines = [t for t in figure["data"] if "meta" in t]
    return {
        "data": [{k: v for k, v in t.items() if k not in ("x", "name")} for t in lines],
        "layout": layout | {"showlegend": False},
    }


# --- words ------------------------------------------------------------------------------------------------------------


def _list(items: Iterable[str], css: str) -> str:
    rows = "".join(f"<li>{escape(str(item))}</li>" for item in items)
    return f'<ul class="{css}">{rows}</ul>' if rows else ""


def _target_words(report: ReportData) -> str:
    target = report.verdict["target_ppl"]
    if target is None:
        return "The report has no common target: no baseline run has finished."
    kind = "given by the sweep" if report.verdict["target_kind"] == "given" else "the best baseline's final perplexity"
    return f"The report's own target is {figures.format_ppl(target)}, {kind}."


def _evals_note(report: ReportData, max_points: int) -> str:
    most = int(report.evals.groupby("run_id").size().max()) if len(report.evals) else 0
    if most <= max_points:
        return "Every evaluation is drawn, unsmoothed, joined by straight lines."
    return f"At most {max_points} evaluations a run are drawn, each stretch's extremes kept; not smoothed."


# --- the key, which is also the filter --------------------------------------------------------------------------------


def _key(runs: pd.DataFrame) -> str:
    """Check boxes with a sample of each line: they explain hue, dash and weight and choose what is drawn."""
    if runs.empty:
        return ""
    styles = figures.run_styles(runs)
    shapes = dict(zip(styles["method"], runs["shape"].astype(str), strict=True))
    methods = styles.drop_duplicates("method").sort_values(
        "color", key=lambda c: c != figures.BASELINE_GREY, kind="stable"
    )
    by_batch = styles.drop_duplicates("batch").sort_values("batch")
    by_rate = styles.drop_duplicates("lr").sort_values("width")
    samples = {
        "method": [_sample(color=color) for color in methods["color"]],
        "batch": [_sample(dash) for dash in by_batch["dash"]],
        "lr": [_sample(width=w, opacity=o) for w, o in zip(by_rate["width"], by_rate["opacity"], strict=True)],
    }
    return "".join(
        (
            _key_group("curriculum", "method", methods["method"], samples["method"], shapes),
            _key_group("batch", "batch", by_batch["batch"].astype(str), samples["batch"]),
            _key_group("LR", "lr", by_rate["lr"], samples["lr"]),
            _key_group("seed", "seed", [str(s) for s in sorted(styles["seed"].unique().tolist())]),
        )
    )


def _key_group(
    words: str,
    field: str,
    values: Iterable[str],
    samples: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
) -> str:
    values = list(values)
    if len(values) < 2 and field != "method":
        return ""
    boxes = []
    for value, sample in zip_longest(values, samples, fillvalue=""):
        extra = f" <small>{escape(more[value])}</small>" if more else ""
        box = f'<input type="checkbox" checked data-field="{field}" value="{escape(value)}">'
        boxes.append(f"<label>{box}{sample}<span>{escape(value)}{extra}</span></label>")
    return f"<fieldset><legend>{words}</legend>{''.join(boxes)}</fieldset>"


_SVG_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}


def _sample(dash: str = "solid", color: str = "currentColor", width: float = 2.2, opacity: float = 1.0) -> str:
    pattern = _SVG_DASHES[dash]
    return (
        f'<svg width="30" height="8" aria-hidden="true"><line x1="0" x2="30" y1="4" y2="4" stroke="{color}" '
        f'stroke-width="{width:.1f}" stroke-opacity="{opacity:.2f}" stroke-dasharray="{pattern}"/></svg>'
    )


def _map_figure(index: int, method: str) -> str:
    words = escape(f"Largest loss ratio by batch size and learning rate, {method}; the table below has the numbers.")
    return (
        f'<figure class="map"><h4>{escape(method)}</h4>'
        f'<div class="plot" id="stability-{index}" role="img" aria-label="{words}"></div></figure>'
    )


# --- tables -----------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A table column: its head (with the unit), its cells as text, and whether they are numbers."""

    head: str
    cells: Sequence[str]
    number: bool = False


def table(caption: str, columns: Sequence[Column], empty: str) -> str:
    """An HTML table inside a region that scrolls sideways by itself; ``empty`` is said where there is no row."""
    columns = [c for c in columns if c.cells]
    if not columns:
        return f'<p class="nothing">{escape(empty)}</p>'
    css = [' class="n"' if c.number else "" for c in columns]
    head = "".join(f'<th scope="col"{k}>{escape(c.head)}</th>' for c, k in zip(columns, css, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(text)}</td>" for text, k in zip(row, css, strict=True)) + "</tr>\n"
        for row in zip(*(c.cells for c in columns), strict=True)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _texts(values: Iterable[object]) -> list[str]:
    return ["" if v is None or v != v else str(v) for v in values]


def _numbers(values: Iterable[Any], decimals: int, scale: float = 1.0, *, sign: bool = False) -> list[str]:
    """Numbers at one precision down the column; an en dash where there is none."""
    out = []
    for value in values:
        number = float(value) * scale if value is not None and not pd.isna(value) else math.nan
        text = f"{number:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
        out.append(text if math.isfinite(number) else "–")
    return out


def _decimals(values: Iterable[Any], digits: int = 3, most: int = 4) -> int:
    """Decimals that give the smallest magnitude in a column ``digits`` significant digits."""
    sizes = [abs(float(v)) for v in values if v is not None and not pd.isna(v) and math.isfinite(float(v)) and v != 0]
    return min(most, max(0, digits - 1 - math.floor(math.log10(min(sizes))))) if sizes else 0


def _perplexities(head: str, values: Iterable[Any]) -> Column:
    values = list(values)
    return Column(head, _numbers(values, _decimals(values)), number=True)


def _tokens(head: str, values: pd.Series[Any], over: pd.Series[Any] | None = None) -> Column:
    """Tokens in K, M or B, chosen by the largest value of ``over`` (default: the column itself)."""
    largest = float(np.nanmax((over if over is not None else values).to_numpy(dtype=float), initial=0.0))
    suffix, scale = next(((s, 10.0**-p) for s, p in (("B", 9), ("M", 6), ("K", 3)) if largest >= 10**p), ("", 1.0))
    shown = f"{head} ({suffix})" if suffix else head
    return Column(shown, _numbers(values, 3 if suffix else 0, scale), number=True)


def _times(head: str, values: pd.Series[Any], unit: TimeUnit) -> Column:
    largest = float(np.nanmax(values.to_numpy(dtype=float), initial=0.0)) / unit.seconds
    return Column(f"{head} ({unit.suffix})", _numbers(values, 2 if largest < 100 else 1, 1 / unit.seconds), number=True)


def _percents(head: str, values: Iterable[Any]) -> Column:
    return Column(f"{head} (%)", _numbers(values, 1, 100, sign=True), number=True)


def _interval(cells: Sequence[Mapping[str, Any]], name: str) -> Column:
    lows = _numbers((c[f"{name}_low"] for c in cells), 1, 100, sign=True)
    highs = _numbers((c[f"{name}_high"] for c in cells), 1, 100, sign=True)
    spans = ["–" if "–" in (low, high) else f"{low} to {high}" for low, high in zip(lows, highs, strict=True)]
    return Column("interval (%)", spans, number=True)


def _where(rows: pd.DataFrame, *, seed: bool = True) -> list[Column]:
    """The columns that say which run or cell a row is about."""
    columns = [
        Column("curriculum", figures.method_names(rows)),
        Column("batch", [str(int(b)) for b in rows["global_batch_size"]], number=True),
        Column("LR", [figures.format_lr(float(lr)) for lr in rows["lr"]], number=True),
    ]
    return [*columns, Column("seed", [str(int(s)) for s in rows["seed"]], number=True)] if seed else columns


def _cells_table(cells: Sequence[Mapping[str, Any]]) -> str:
    rows = pd.DataFrame(cells, columns=["curriculum", "variant", "global_batch_size", "lr"])
    columns = [
        *_where(rows, seed=False),
        _percents("tokens saved", (c["token_saving"] for c in cells)),
        _interval(cells, "token_saving"),
        _percents("time saved", (c["time_saving"] for c in cells)),
        _interval(cells, "time_saving"),
        Column("reached", [f"{c['reached']} of {c['of']}" for c in cells], number=True),
        _perplexities("target ppl", (c["target_ppl"] for c in cells)),
        *_notes(c["note"] for c in cells),
    ]
    return table("Savings by cell, over seeds", columns, "No curriculum run has a baseline to be compared with yet.")


def _notes(notes: Iterable[object]) -> list[Column]:
    texts = _texts(notes)
    return [Column("note", texts)] if any(texts) else []


def _savings_table(savings: pd.DataFrame, unit: TimeUnit) -> str:
    columns = [
        *_where(savings),
        _perplexities("target ppl", savings["target_ppl"]),
        _tokens("tokens to target", savings["tokens_to_target"], over=savings["baseline_tokens"]),
        _tokens("baseline tokens", savings["baseline_tokens"]),
        _percents("tokens saved", savings["token_saving"]),
        _percents("at most", savings["token_saving_bound"]),
        _times("time to target", savings["seconds_to_target"], unit),
        _times("baseline time", savings["baseline_seconds"], unit),
        _percents("time saved", savings["time_saving"]),
        _perplexities("best baseline ppl", savings["vs_best_target_ppl"]),
        _percents("tokens saved against it", savings["vs_best_token_saving"]),
        _percents("time saved against it", savings["vs_best_time_saving"]),
        *_notes(savings["note"]),
        Column("run", _texts(savings["run_id"])),
    ]
    return table("Savings by run", columns, "No curriculum run to compare yet.")


def _stability_table(stability: pd.DataFrame) -> str:
    keys = ["curriculum", "variant", "global_batch_size", "lr"]
    cells = (
        stability.assign(variant=stability["variant"].fillna(""))
        .groupby(keys, sort=False, as_index=False)
        .agg(
            runs=("run_id", "size"),
            diverged=("diverged", "sum"),
            ratio=("max_loss_ratio", "max"),
            above_2=("steps_above_1_2", "sum"),
            above_5=("steps_above_1_5", "sum"),
            steps=("steps", "sum"),
        )
    )
    columns = [
        *_where(cells, seed=False),
        Column("runs", _numbers(cells["runs"], 0), number=True),
        Column("diverged", [f"× {int(d)}" if d else "0" for d in cells["diverged"]], number=True),
        Column("max loss ratio", _numbers(cells["ratio"], 2), number=True),
        Column("steps above 1.2", _numbers(cells["above_2"], 0), number=True),
        Column("steps above 1.5", _numbers(cells["above_5"], 0), number=True),
        Column("of steps", _numbers(cells["steps"], 0), number=True),
    ]
    return table("Stability by cell, over seeds: largest ratio, summed steps", columns, "No training step yet.")


def _stability_runs_table(stability: pd.DataFrame) -> str:
    columns = [
        *_where(stability),
        Column("state", _states(stability["state"])),
        Column("max loss ratio", _numbers(stability["max_loss_ratio"], 2), number=True),
        Column("steps above 1.2", _numbers(stability["steps_above_1_2"], 0), number=True),
        Column("steps above 1.5", _numbers(stability["steps_above_1_5"], 0), number=True),
        Column("of steps", _numbers(stability["steps"], 0), number=True),
        Column("run", _texts(stability["run_id"])),
    ]
    return table("Stability by run", columns, "No training step yet.")


def _states(states: Iterable[object]) -> list[str]:
    return ["× diverged" if state == "DIVERGED" else str(state).lower() for state in states]


def _runs_table(runs: pd.DataFrame, unit: TimeUnit) -> str:
    columns = [
        *_where(runs),
        *([Column("model", _texts(runs["model"]))] if runs["model"].nunique() > 1 else []),
        Column("state", _states(runs["state"])),
        _perplexities("final ppl", runs["final_ppl"]),
        _perplexities("best ppl", runs["best_ppl"]),
        _tokens("tokens", runs["consumed_tokens"], over=runs["token_budget"]),
        _tokens("budget", runs["token_budget"]),
        _times("time", runs["train_seconds"], unit),
        Column("tok/s", _numbers(runs["tokens_per_second"], 0), number=True),
        Column("lengths", _texts(runs["shape"])),
        Column("run", _texts(runs["run_id"])),
    ]
    return table("Final values, tokens and training time of every run", columns, "No run yet.")
