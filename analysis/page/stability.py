"""The page's section on stability: the frontier, the maps, the training loss, and correlations with Adam's variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis import figures
from analysis.figures import Figure
from analysis.page import tables
from analysis.page.data import ReportData
from analysis.stats.boundary import sentence
from analysis.stats.correlation import MIN_POINTS
from analysis.tables import Table

_SCATTERS = {"variance-l1": "adam_var_l1", "variance-max": "adam_var_max"}


@dataclass(frozen=True)
class Section:
    """Values of stability.html.jinja."""

    measured: bool
    """Whether training steps are known."""
    sentence: str
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
        "frontier": figures.stability_frontier(report.frontier, colors),
        **{f"stability-{i}": figure for i, figure in enumerate(maps.values())},
        "training": figures.training_curves(runs, train, unit=report.unit, max_points=max_points),
        **{
            place: figures.variance_scatter(runs, train, measure, max_points=max_points)
            for place, measure in _SCATTERS.items()
        },
    }


def section(report: ReportData, placed: Mapping[str, Figure]) -> Section:
    """The section's values; `placed` holds the figures of :func:`plots`."""
    scatters = [placed[place]["layout"].get("meta", {}) for place in _SCATTERS]
    correlation = report.correlation
    uncorrelated = correlation[(correlation["level"] == "run") & correlation["r"].isna()]
    return Section(
        measured=len(report.train) > 0,
        sentence=sentence(report.frontier),
        frontier=tables.frontier_table(report.frontier, "lr"),
        batch_frontier=tables.frontier_table(report.frontier, "global_batch_size"),
        methods=list(figures.stability_maps(report.stability)),
        ratio_top=figures.RATIO_SCALE_TOP,
        cells=tables.stability_table(report.stability),
        runs=tables.stability_runs_table(report.stability),
        train_left_out=figures.left_out(placed["training"]),
        scatter_drawn=any("points" in meta for meta in scatters),
        scatter_thinned=any(meta.get("thinned") for meta in scatters),
        uncorrelated_runs=int(uncorrelated["run_id"].nunique()),
        min_points=MIN_POINTS,
        correlation=tables.correlation_table(correlation),
    )
