"""The page's section on savings: cells, the figure that proves them, every target, and how crossings are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import figures
from analysis.figures import Figure, TimeUnit
from analysis.page import tables
from analysis.tables import Table


@dataclass(frozen=True)
class Section:
    """Values of savings.html.jinja."""

    best: str
    """The sentence on the best curriculum against the best baseline; may be empty."""
    count: int
    """Cells compared."""
    tested: int
    """Cells with two seeds or more."""
    bands: bool
    """Whether the figure over targets shows intervals."""
    cells: Table
    deepest: Table
    crossings: Table
    runs: Table


def section(verdict: Mapping[str, Any], savings: pd.DataFrame, unit: TimeUnit) -> Section:
    """The section's values; `savings` as in analysis.stats.savings."""
    cells = verdict["cells"]
    return Section(
        best=str(verdict["best_sentence"]),
        count=len(cells),
        tested=int(verdict["cells_tested"]),
        bands=len(cells) <= figures.MAX_BANDS,
        cells=tables.cells_table(cells),
        deepest=tables.deepest_table(cells),
        crossings=tables.crossings_table(cells),
        runs=tables.savings_table(savings, unit),
    )


def plots(
    verdict: Mapping[str, Any], savings: pd.DataFrame, targets: pd.DataFrame, colors: Mapping[str, str]
) -> dict[str, Figure]:
    """The section's figures by the ids of their places."""
    return {
        "savings": figures.savings_intervals(verdict["cells"], savings, colors),
        "over-targets": figures.saving_over_targets(targets, colors, verdict["target_ppl"]),
    }
