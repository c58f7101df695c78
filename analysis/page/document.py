"""One self-contained HTML page from a sweep's results: tables made here, figures drawn by plotly.js in the browser.

The page holds no address of another host, and its content-security policy allows exactly the two scripts written here,
so text that comes from run names or logs cannot run even if an escape were forgotten.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import pandas as pd

from analysis import figures
from analysis.cost import hours
from analysis.figures import Figure, TimeUnit
from analysis.page import cost as page_cost
from analysis.page import key, tables
from analysis.page import savings as page_savings
from analysis.page import stability as page_stability
from cl_bench.runs.status import AT_WORK

_OURS = (
    "Perplexity is exp(validation loss), always at full length and on the same validation blocks; evaluations fall on "
    "a grid of tokens that all runs of the sweep share, and one is made before training."
)
_FOREIGN = (
    "Perplexity is exp(validation loss), as the curves' source gives it: that all runs were evaluated on the same "
    "text, at the same length, and count tokens and seconds alike is the source's word."
)
_CROSSINGS = {
    "interpolate": "the first time that the line through the evaluations (loss over tokens) meets the target",
    "first": "the first evaluation at or below the target",
    "sustained": "the last time that the line through the evaluations (loss over tokens) meets the target, after which "
    "no evaluation is above it",
}
_METHODS = (
    "Each curriculum run is compared with the baseline run of the same batch size, learning rate and seed, all other "
    "settings equal. Its target is what that baseline finally reached, at its last evaluation; or, where a target was "
    "given, that perplexity for all runs.",
    "Tokens to target: $crossing. Time is read at the same place. Two other ways to read it are in a table beside it. "
    "A curve that begins at or below the target was there at its first evaluation at the latest: of a curriculum that "
    "makes the saving “at least” so much, of a baseline it leaves nothing to compare with.",
    "Saving = 1 − (the curriculum run's tokens to target ÷ its baseline's tokens to the same target), and the same "
    "with training time and with GPU-hours (time × ranks). Negative values are a cost.",
    "A run that never reaches the target took more than it was trained on: its ratio is bounded, and with it the "
    "cell's mean, which is then “at most” (a curriculum that never arrived) or “at least” (a baseline). No run is "
    "dropped.",
    "Over several seeds, a cell's saving is 1 − the geometric mean of the seeds' ratios, with a 95% interval of "
    "Student's t on the log ratio (from 100 seeds on a BCa bootstrap). A cell with a single seed has no interval. "
    "Where a bound is all there is, the end of the interval on its side is given.",
    "A difference is called where the p-value of the t test of a ratio of 1, adjusted by Holm over all cells with two "
    "seeds or more, is below 0.05. Where a run of a pair never arrived, its pair is compared at the deepest loss that "
    "both of its runs reached, so that a cost can be called as a saving can and no cell leaves the family. Intervals "
    "in the tables are each cell's own: one may exclude 0 where no difference is called over all cells together.",
    "At every target: from 2% of a baseline's tokens to the deepest loss that every run of the cell reached; all "
    "seeds of a cell at the same target. Where a saving is small, this is the figure to read: at a baseline's own "
    "last loss it is luck whether a run arrives.",
    "Best against best: for each seed, the baseline cell with the lowest mean final loss and the curriculum cell with "
    "the fewest tokens to it, both chosen on the other seeds; the interval is that of Nadeau and Bengio's corrected "
    "resampled t test, since the choices share seeds.",
    "“Against the best baseline” compares with the batch size and learning rate whose finished baselines have the "
    "lowest mean final loss over seeds, at the same seed; the target is that baseline's final perplexity, unless one "
    "was given.",
    "Training time counts training steps only: no evaluation, no saving of checkpoints, no queue, and no work that was "
    "rolled back after a restart.",
    "Hours of a run are the seconds of each attempt times its ranks. The second figure of “Clocks and cost” charges "
    "either side all training that it rolled back, and a curriculum run the whole search (`cl-bench tune`) that its "
    "start length and T came from in the same setting: the probes' training and evaluations. Seconds of runs on other "
    "hardware, numbers of ranks or precision are compared only with a warning.",
    *page_stability.METHODS,
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
    """What analysis.verdict.headline.verdict gives."""
    runs: pd.DataFrame
    """One row a run: run_id, cell, named (the cell's name where the sweep gave it one, else empty), role, curriculum,
    shape, variant, model, global_batch_size, lr, seed, state, token_budget, max_seqlen, consumed_tokens, train_seconds
    (s), final_loss (nats/token), final_ppl, best_ppl, tokens_per_second."""
    train: pd.DataFrame
    """One row a training step: run_id, step, consumed_tokens, seqlen, loss, train_seconds, loss_ratio, and optimizer
    statistics that the page does not draw."""
    evals: pd.DataFrame
    """One row an evaluation: run_id, step, consumed_tokens, train_seconds (s), val_loss (nats/token), val_ppl."""
    savings: pd.DataFrame
    """One row a curriculum run: run_id, named, baseline_run_id, best_baseline_run_id, curriculum, variant,
    global_batch_size, lr, seed, target_ppl, reached, tokens_to_target, seconds_to_target, baseline_tokens,
    baseline_seconds, token_saving, time_saving, token_saving_bound, vs_best_target_ppl, vs_best_reached,
    vs_best_token_saving, vs_best_time_saving (fractions, NaN where never reached), note."""
    targets: pd.DataFrame
    """One row a target and cell (analysis.stats.over_targets.TARGET_COLUMNS)."""
    stability: pd.DataFrame
    """One row a run: run_id, named, curriculum, variant, global_batch_size, lr, seed, state, diverged, max_loss_ratio,
    steps_above_1_2, steps_above_1_5, steps (counts)."""
    frontier: pd.DataFrame
    """analysis.stats.boundary.all_boundaries() of the runs."""
    correlation: pd.DataFrame
    """analysis.stats.correlation.correlations() of the runs."""
    attempts: pd.DataFrame
    """One row an attempt: run_id, attempt, restored_step, world_size, device, started. May have no rows."""
    cost: hours.Cost
    """What the runs cost."""
    ours: bool = True
    """Whether the curves are of this tool's own runs."""
    refresh_s: float | None = None
    """Seconds after which the page loads itself again, while a sweep runs."""


SIZE_LIMIT_BYTES = 5_900_000
"""Larger than this and curves are thinned further; plotly.js alone is about 4.8 MB."""

_PLOTLY_BYTES = 4_700_000
_BYTES_A_POINT = 30
"""Of a curve, at least: step, tokens, seconds, length and the value."""
_POINTS_A_CURVE = (400, 150, 60, 24, 16)


def render(report: ReportData) -> str:
    """The whole page as one HTML document."""
    page = ""
    for max_points in _worth_trying(report):
        page = _document(report, max_points)
        if len(page.encode()) <= SIZE_LIMIT_BYTES:
            break
    return page


def _worth_trying(report: ReportData) -> Sequence[int]:
    """Of _POINTS_A_CURVE those at which the points alone do not exceed the limit already, or the last."""
    evaluations = report.evals.groupby("run_id").size()
    runs = len(report.runs)

    def least(points: int) -> int:
        drawn = int(evaluations.clip(upper=points).sum()) + runs * points * bool(len(report.train))
        return _PLOTLY_BYTES + _BYTES_A_POINT * drawn

    return [p for p in _POINTS_A_CURVE if least(p) <= SIZE_LIMIT_BYTES] or _POINTS_A_CURVE[-1:]


def _document(report: ReportData, max_points: int) -> str:
    unit = _unit(report)
    drawn = all_figures(report, max_points)
    plotly_js = _plotly_js()
    page_js = _asset("page.js")
    target = report.verdict["target_ppl"]
    values = {
        "csp": _content_security_policy(plotly_js, page_js),
        "refresh": "" if report.refresh_s is None else f'<meta http-equiv="refresh" content="{report.refresh_s:g}">\n',
        "running": "" if report.refresh_s is None else _running(report),
        "title": escape(report.title),
        "question": escape(report.question),
        "generated": escape(report.generated.replace("T", " ")),
        "sentence": escape(str(report.verdict["sentence"])),
        "caveats": _list(report.verdict["caveats"], "caveats"),
        "time_word": unit.word,
        "target": "" if target is None else f"{target:.4g}",
        "target_words": escape(_target_words(report)),
        "evals_note": _evals_note(report, max_points),
        "evals_left_out": _left_out(drawn["validation"]),
        "key": key.key(report.runs),
        "savings_section": page_savings.section(report.verdict, report.savings, unit),
        "cost_section": page_cost.section(report.cost),
        "stability_section": page_stability.section(report, drawn, unit, max_points),
        "runs_table": tables.runs_table(report.runs, unit),
        "methods": _list(_methods(report), "methods"),
        "command": escape(report.command),
        "css": _asset("style.css"),
        "data": script_json(_payload(report, drawn)),
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
    return (files("analysis.page") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # a second to import, and only a page needs it

    return str(get_plotlyjs()).replace("\r\n", "\n")


@functools.cache
def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _content_security_policy(*scripts: str) -> str:
    allowed = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    # plotly.js styles its elements inline and saves images through data and blob addresses.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def all_figures(report: ReportData, max_points: int = _POINTS_A_CURVE[0]) -> dict[str, Figure]:
    """Every figure by the id of its place in the page. What is printed is made of the same."""
    runs, train, unit = report.runs, report.train, _unit(report)
    styles = figures.run_styles(runs)
    colors = dict(zip(styles["method"], styles["color"], strict=True))
    return {
        "validation": figures.validation_curves(
            runs, report.evals, train, target_ppl=report.verdict["target_ppl"], unit=unit, max_points=max_points
        ),
        **page_savings.drawn(report.verdict, report.savings, report.targets, colors),
        **page_stability.drawn(report, colors, unit, max_points),
        "schedule": figures.length_schedule(runs, train, unit=unit),
        **page_cost.drawn(report.cost, runs),
    }


def _unit(report: ReportData) -> TimeUnit:
    return figures.time_unit(float(report.runs["train_seconds"].max()) if len(report.runs) else math.nan)


def _payload(report: ReportData, drawn: Mapping[str, Figure]) -> dict[str, object]:
    pairs = zip(report.savings["run_id"], report.savings["baseline_run_id"], strict=True)
    return {
        "title": report.title,
        "target": report.verdict["target_ppl"],
        "watched": report.refresh_s is not None,
        "pairs": {str(run): base for run, base in pairs if isinstance(base, str) and base},
        "figures": {name: _said_once(_without_x(figure)) for name, figure in drawn.items()},
    }


def _said_once(figure: Figure) -> Mapping[str, object]:
    """What all traces of a figure have in common goes into ``shared``: with 200 runs it is a tenth of the page."""
    traces = figure["data"]
    shared = (
        {k: v for k, v in traces[0].items() if all(k in t and t[k] == v for t in traces)} if len(traces) > 1 else {}
    )
    return {**figure, "data": [{k: v for k, v in t.items() if k not in shared} for t in traces], "shared": shared}


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


def _running(report: ReportData) -> str:
    over = int((~report.runs["state"].isin(AT_WORK)).sum())
    words = f"Still running: {over} of {len(report.runs)} runs are over. This page loads itself again"
    return f'<p class="running" role="status">{words} every {report.refresh_s:g} seconds.</p>'


def _methods(report: ReportData) -> list[str]:
    """How the numbers were computed, one paragraph each."""
    how = [line.replace("$crossing", _CROSSINGS[report.verdict["crossing"]]) for line in _METHODS]
    return [_OURS if report.ours else _FOREIGN, *how]


def _list(items: Iterable[str], css: str) -> str:
    rows = "".join(f"<li>{escape(str(item))}</li>" for item in items)
    return f'<ul class="{css}">{rows}</ul>' if rows else ""


def _target_words(report: ReportData) -> str:
    target = report.verdict["target_ppl"]
    if target is None:
        if report.verdict["target_kind"] == "per_cell":
            return "Runs of several settings have no target in common: each cell has its own."
        return "The report has no common target: no baseline run has finished."
    kind = "given with --target" if report.verdict["target_kind"] == "given" else "the best baseline's final perplexity"
    return f"The report's own target is {figures.format_ppl(target)}, {kind}."


def _evals_note(report: ReportData, max_points: int) -> str:
    most = int(report.evals.groupby("run_id").size().max()) if len(report.evals) else 0
    if most <= max_points:
        return "Every evaluation is drawn, unsmoothed, joined by straight lines."
    return f"At most {max_points} evaluations a run are drawn, each stretch's extremes kept; not smoothed."


def _left_out(figure: Figure) -> str:
    return escape(figure["layout"].get("meta", {}).get("left_out", ""))
