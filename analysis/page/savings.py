"""The page's section on savings: the cells, the figure that proves them, every target, and how crossings are read."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import pandas as pd

from analysis import figures
from analysis.figures import Figure, TimeUnit
from analysis.page import tables


def section(verdict: Mapping[str, Any], savings: pd.DataFrame, unit: TimeUnit) -> str:
    """HTML of the section; `savings` as in analysis.stats.savings."""
    cells = verdict["cells"]
    template = (files("analysis.page") / "assets" / "savings.html").read_text(encoding="utf-8")
    best = str(verdict["best_sentence"])
    bands = "" if len(cells) <= figures.MAX_BANDS else " Bands are left out with so many cells; the data hold them."
    return Template(template).substitute(
        best=f'<p class="second">{escape(best)}</p>' if best else "",
        looked_at=escape(_looked_at(cells, int(verdict["cells_tested"]))),
        cells_table=tables.cells_table(cells),
        savings_table=tables.savings_table(savings, unit),
        deepest_table=tables.deepest_table(cells),
        crossings_table=tables.crossings_table(cells),
        bands=escape(bands),
    )


def drawn(
    verdict: Mapping[str, Any], savings: pd.DataFrame, targets: pd.DataFrame, colors: Mapping[str, str]
) -> dict[str, Figure]:
    """The section's figures by the ids of their places."""
    return {
        "savings": figures.savings_intervals(verdict["cells"], savings, colors),
        "over-targets": figures.saving_over_targets(targets, colors, verdict["target_ppl"]),
    }


def _looked_at(cells: list[dict[str, Any]], tested: int) -> str:
    if not cells:
        return ""
    words = f"{len(cells)} cell{'s' * (len(cells) > 1)} looked at"
    if not tested:
        return words + "; none has two seeds to compare, so no difference is called."
    return (
        f"{words}, {tested} with two seeds or more. A difference is called where Holm's adjusted p is below 0.05: of "
        "sweeps without any real difference about one in twenty gets a call. The intervals are each cell's own, and "
        "one may exclude 0 where nothing is called."
    )
