"""A sweep's report as one self-contained HTML page: its sections, and its figures for plotly.js."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis import figures, words
from analysis.figures import Figure
from analysis.page import cost, glance, html, savings, stability
from analysis.page.data import ReportData
from analysis.page.key import key
from analysis.page.tables import runs_table
from analysis.stats.boundary import SPIKE_RATIO
from cl_bench.runs.status import AT_WORK

SIZE_LIMIT_BYTES = 5_900_000
"""Curves of a page larger than this are thinned further; plotly.js alone is about 4.8 MB."""

_PLOTLY_BYTES = 4_700_000
_BYTES_PER_POINT = 30
"""Of a curve, at least: step, tokens, seconds, length and the value."""
_POINTS_PER_CURVE = (400, 150, 60, 24, 16, 8)


def render(report: ReportData) -> str:
    """The whole page as one HTML document."""
    page = ""
    for max_points in _candidates(report):
        page = _document(report, max_points)
        if len(page.encode()) <= SIZE_LIMIT_BYTES:
            break
    return page


def _candidates(report: ReportData) -> Sequence[int]:
    """Those of _POINTS_PER_CURVE at which the points alone do not exceed the limit already, or the last."""
    evaluations = report.evals.groupby("run_id").size()
    runs = len(report.runs)

    def least(points: int) -> int:
        count = int(evaluations.clip(upper=points).sum()) + runs * points * bool(len(report.train))
        return _PLOTLY_BYTES + _BYTES_PER_POINT * count

    return [p for p in _POINTS_PER_CURVE if least(p) <= SIZE_LIMIT_BYTES] or _POINTS_PER_CURVE[-1:]


def _document(report: ReportData, max_points: int) -> str:
    verdict, unit = report.verdict, report.unit
    plots = all_figures(report, max_points)
    first, *further = verdict["headline"]
    return html.document(
        "report.html.jinja",
        _payload(report, {**glance.plots(report, _colors(report)), **plots}),
        kind="curriculum report",
        title=report.title,
        question=report.question,
        sentence=first,
        further=further,
        spikes=verdict["spikes_sentence"],
        glance=glance.section(report),
        given_target=verdict["target_kind"] == "given",
        caveats=verdict["caveats"],
        refresh_s=report.refresh_s,
        runs=len(report.runs),
        ended=int((~report.runs["state"].isin(AT_WORK)).sum()),
        time_word=unit.word if report.runs["train_seconds"].notna().any() else "",
        target_ppl=verdict["target_ppl"],
        target_words=_target_words(report),
        key=key(report.runs),
        max_points=max_points,
        most_evaluations=int(report.evals.groupby("run_id").size().max()) if len(report.evals) else 0,
        evals_left_out=figures.left_out(plots["validation"]),
        savings=savings.section(verdict, report.savings, unit),
        cost=cost.section(report.cost),
        stability=stability.section(report, plots),
        spike_ratio=f"{SPIKE_RATIO:g}",
        runs_table=runs_table(report.runs, unit),
        ours=report.ours,
        crossing=verdict["crossing"],
        command=report.command,
        generated=report.generated.replace("T", " "),
    )


def all_figures(report: ReportData, max_points: int = _POINTS_PER_CURVE[0]) -> dict[str, Figure]:
    """Every figure by the id of its place in the page; the figures for print are made from the same."""
    runs, train, unit = report.runs, report.train, report.unit
    colors = _colors(report)
    return {
        "validation": figures.validation_curves(
            runs, report.evals, train, target_ppl=report.verdict["target_ppl"], unit=unit, max_points=max_points
        ),
        **savings.plots(report.verdict, report.savings, report.targets, colors),
        **stability.plots(report, colors, max_points),
        "schedule": figures.length_schedule(runs, train, unit=unit),
        **cost.plots(report.cost, runs),
    }


def _colors(report: ReportData) -> dict[str, str]:
    """Hue of each method."""
    styles = figures.run_styles(report.runs)
    return dict(zip(styles["method"], styles["color"], strict=True))


def _payload(report: ReportData, plots: Mapping[str, Figure]) -> dict[str, object]:
    pairs = zip(report.savings["run_id"], report.savings["baseline_run_id"], strict=True)
    return {
        "title": report.title,
        "target": report.verdict["target_ppl"],
        "watched": report.refresh_s is not None,
        "pairs": {str(run): base for run, base in pairs if isinstance(base, str) and base},
        "figures": html.compact(plots),
    }


def _target_words(report: ReportData) -> str:
    target, kind = report.verdict["target_ppl"], report.verdict["target_kind"]
    if target is None and kind == "per_cell":
        return "Runs of several settings have no target in common: each cell has its own."
    if target is None:
        return "The report has no common target: no baseline run has finished."
    source = "given with --target" if kind == "given" else "the best baseline's final perplexity"
    return f"The report's own target is {words.ppl(target)}, {source}."
