"""The page's section on stability: the frontier, the maps, the training loss, and what goes with Adam's variance."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

import pandas as pd

from analysis import figures
from analysis.figures import Figure, TimeUnit
from analysis.page import tables
from analysis.stats.boundary import SPIKE_RATIO
from analysis.stats.correlation import MIN_POINTS
from analysis.verdict.boundary import boundary_sentence

if TYPE_CHECKING:
    from analysis.page.document import ReportData

METHODS = (
    "Loss ratio = a step's training loss ÷ the smallest training loss before it; 1 or less means that the loss never "
    "rose above its best. Max is over all steps of a run, and over the seeds of a cell in the map.",
    "Stability: a run is stable when it finished without diverging, and a cell when all of its seeds are; a seed that "
    "is not finished leaves it undecided. The frontier is the largest learning rate of the grid at which a "
    "curriculum's cell is stable, and nothing is read between or beyond the values tested: “at least” where no larger "
    "one was tested (or one is undecided), “below” where none is stable. Its multiple of the baseline's is in steps of "
    "the grid; the edges themselves lie between tested values, and “ratio of the edges” is what that leaves open. The "
    f"stricter criterion also asks that no loss ratio exceeds {SPIKE_RATIO:g}.",
    "The share of a cell's finished seeds that diverged has the exact (Clopper-Pearson) 95% interval: none of three "
    "leaves up to 71%.",
    "Correlations are taken within a run, over the steps where both values were measured, and never over the rows of "
    "several runs. Successive steps are not independent, so n steps are tested as n ÷ (1 + 2 Σ (1 − k/n) ρₓ(k) ρᵧ(k)) "
    "points, with the autocorrelations ρ of both series at the lags k (Bartlett 1935; Bretherton et al. 1999). Runs "
    "are put together by the mean of Fisher's z: over a cell's seeds, then over cells, with Student's t over these "
    "units. p is adjusted by Holm's method for all values of the same level (the curricula; all runs).",
)
_UNSEEN = (
    "These curves hold no training steps: loss ratios are not known, and whether a run diverged only where its source "
    "says so."
)
_SCATTERS = {"variance-l1": "adam_var_l1", "variance-max": "adam_var_max"}


def drawn(report: ReportData, colors: Mapping[str, str], unit: TimeUnit, max_points: int) -> dict[str, Figure]:
    """The section's figures by the ids of their places in the page."""
    runs, train = report.runs, report.train
    maps = figures.stability_maps(report.stability)
    return {
        "frontier": figures.stability_frontier(report.frontier, colors),
        **{f"stability-{i}": figure for i, figure in enumerate(maps.values())},
        "training": figures.training_curves(runs, train, unit=unit, max_points=max_points),
        **{
            place: figures.variance_scatter(runs, train, measure, max_points=max_points)
            for place, measure in _SCATTERS.items()
        },
    }


def section(report: ReportData, placed: Mapping[str, Figure], unit: TimeUnit, max_points: int) -> str:
    """The section's HTML, with a place for each of the figures of :func:`drawn`."""
    words = boundary_sentence(report.frontier) if len(report.train) else _UNSEEN
    methods = list(figures.stability_maps(report.stability))
    maps = "\n".join(_map_figure(i, method) for i, method in enumerate(methods))
    left_out = escape(placed["training"]["layout"].get("meta", {}).get("left_out", ""))
    values = {
        "sentence": f'<p class="prose">{escape(words)}</p>' if words else "",
        "spike_ratio": f"{SPIKE_RATIO:g}",
        "frontier_data": _data("frontier", "one row a mark"),
        "frontier_table": tables.frontier_table(report.frontier, "lr"),
        "batch_frontier_table": tables.frontier_table(report.frontier, "global_batch_size"),
        "maps": maps,
        "ratio_top": f"{figures.RATIO_SCALE_TOP:g}",
        "stability_data": _data("stability", "one row a square"),
        "stability_table": tables.stability_table(report.stability),
        "stability_runs_table": tables.stability_runs_table(report.stability),
        "time_word": unit.word,
        "max_points": str(max_points),
        "train_left_out": left_out,
        "training_data": _data("training", "the points drawn, one row each"),
        "scatter_l1": _scatter("variance-l1", "1-norm of Adam's second moment"),
        "scatter_max": _scatter("variance-max", "largest element of Adam's second moment"),
        "scatter_note": escape(_scatter_note(placed, report.correlation)),
        "correlation_table": tables.correlation_table(report.correlation),
    }
    html = (files("analysis.page") / "assets" / "stability.html").read_text(encoding="utf-8")
    return Template(html).substitute(values)


def _data(figure: str, rows: str) -> str:
    button = f'<button type="button" data-csv="{figure}">Download CSV</button>'
    return f'<details class="data"><summary>Data</summary>{button} <span>{rows}</span></details>'


def _map_figure(index: int, method: str) -> str:
    words = escape(f"Largest loss ratio by batch size and learning rate, {method}; the table below has the numbers.")
    return (
        f'<figure class="map"><h4>{escape(method)}</h4>'
        f'<div class="plot" id="stability-{index}" role="img" aria-label="{words}"></div></figure>'
    )


def _scatter(place: str, what: str) -> str:
    words = f"Loss ratio of single steps against the {what}, every run. The table below has the correlations."
    return (
        f'<figure class="half"><div class="plot" id="{place}" role="img" aria-label="{words}"></div>'
        f"{_data(place, 'the points drawn, one row each')}</figure>"
    )


def _scatter_note(placed: Mapping[str, Figure], correlation: pd.DataFrame) -> str:
    metas = [placed[place]["layout"].get("meta", {}) for place in _SCATTERS]
    if not any("points" in meta for meta in metas):
        return ""
    parts = [
        "Steps at which Adam's state was measured (telemetry.adam_variance_interval), unsmoothed; a spike between two "
        "of them is not here."
    ]
    if any(meta.get("thinned") for meta in metas):
        parts.append(
            "For fewer points, of each stretch of a run only the smallest and the largest loss ratio are drawn; the "
            "correlations use all."
        )
    parts.append("Clipping gradients to a norm c keeps the 1-norm at or below c².")
    silent = correlation[(correlation["level"] == "run") & correlation["r"].isna()]["run_id"].nunique()
    if silent:
        count = f"{silent} runs have" if silent > 1 else "1 run has"
        parts.append(f"{count} no correlation: fewer than {MIN_POINTS} such steps, or values that never change.")
    return " ".join((*parts, "Hues as above: one for each curriculum."))
