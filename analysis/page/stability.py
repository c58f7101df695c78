"""The page's section on stability: boundaries, final loss over learning rate, events, loss ratios, correlations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis import figures
from analysis.figures import Figure
from analysis.page import stability_tables, tables
from analysis.page.data import ReportData
from analysis.stats.correlation import MIN_POINTS
from analysis.tables import Table
from analysis.verdict.boundary import boundary_sentence, joint_sentences

_SCATTERS = {"variance-l1": "adam_var_l1", "variance-max": "adam_var_max"}


@dataclass(frozen=True)
class Section:
    """Values of stability.html.jinja."""

    measured: bool
    """Whether training steps are known."""
    sentence: str
    joint_sentences: list[str]
    rules: str
    """When a run counts as diverged or as not having learned."""
    joint: Table
    joint_methods: list[str]
    """Titles of the maps of stable seeds."""
    batches: list[str]
    """Titles of the figures of final loss over learning rate."""
    responses: Table
    events: Table
    frontier: Table
    batch_frontier: Table
    methods: list[str]
    """Curricula, one map each."""
    ratio_top: float
    """Where the maps' colour scale ends."""
    cells: Table
    runs: Table
    train_left_out: str
    scatter_drawn: bool
    scatter_thinned: bool
    uncorrelated_runs: int
    min_points: int
    correlation: Table


def plots(report: ReportData, colors: Mapping[str, str], max_points: int) -> dict[str, Figure]:
    """The section's figures by the ids of their places in the page."""
    runs, train = report.runs, report.train
    maps = figures.stability_maps(report.stability)
    return {
        **{f"joint-{i}": figure for i, figure in enumerate(_joint_maps(report).values())},
        "frontier": figures.stability_frontier(report.frontier, colors),
        **{f"lr-response-{i}": figure for i, figure in enumerate(_lr_responses(report, colors).values())},
        **{f"stability-{i}": figure for i, figure in enumerate(maps.values())},
        "training": figures.training_curves(runs, train, unit=report.unit, max_points=max_points),
        **{
            place: figures.variance_scatter(runs, train, measure, max_points=max_points)
            for place, measure in _SCATTERS.items()
        },
    }


def _joint_maps(report: ReportData) -> dict[str, Figure]:
    return figures.joint_maps(report.instability.joint)


def _lr_responses(report: ReportData, colors: Mapping[str, str] | None = None) -> dict[str, Figure]:
    """Empty unless a method was trained at several learning rates: one point is no curve."""
    responses = report.instability.responses
    if all(len(r.points) < 2 for r in responses):
        return {}
    settings = report.runs["setting"].astype(str)
    levels = report.runs["run_id"].map(dict(report.unigram)).groupby(settings).first().dropna()
    return figures.lr_responses(responses, colors, {str(k): float(v) for k, v in levels.items()})


def section(report: ReportData, placed: Mapping[str, Figure]) -> Section:
    """The section's values; `placed` holds the figures of :func:`plots`."""
    scatters = [placed[place]["layout"].get("meta", {}) for place in _SCATTERS]
    correlation, judged = report.correlation, report.instability
    uncorrelated = correlation[(correlation["level"] == "run") & correlation["r"].isna()]
    return Section(
        measured=len(report.train) > 0,
        sentence=boundary_sentence(report.frontier),
        joint_sentences=joint_sentences(judged.joint),
        rules=report.rules_sentence,
        joint=stability_tables.joint_table(judged.joint),
        joint_methods=list(_joint_maps(report)),
        batches=list(_lr_responses(report)),
        responses=stability_tables.responses_table(judged.responses),
        events=stability_tables.events_table(judged.rates),
        frontier=stability_tables.frontier_table(report.frontier, "lr"),
        batch_frontier=stability_tables.frontier_table(report.frontier, "global_batch_size"),
        methods=list(figures.stability_maps(report.stability)),
        ratio_top=figures.RATIO_SCALE_TOP,
        cells=stability_tables.stability_table(report.stability),
        runs=stability_tables.stability_runs_table(report.stability),
        train_left_out=figures.left_out(placed["training"]),
        scatter_drawn=any("points" in meta for meta in scatters),
        scatter_thinned=any(meta.get("thinned") for meta in scatters),
        uncorrelated_runs=int(uncorrelated["run_id"].nunique()),
        min_points=MIN_POINTS,
        correlation=tables.correlation_table(correlation),
    )
