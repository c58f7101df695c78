"""The page's first section: tokens, time and stability at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis import figures
from analysis.figures import Figure
from analysis.page.data import ReportData

MOST_MAPS = 3
"""Maps of stability shown at a glance; the section on stability has all."""


@dataclass(frozen=True)
class Section:
    """Values of glance.html.jinja."""

    maps: list[str]
    """Titles of the maps of stability."""
    more: int
    """Methods without a map here."""


def _maps(report: ReportData) -> dict[str, Figure]:
    return figures.joint_maps(report.instability.joint)


def section(report: ReportData) -> Section:
    """The section's values."""
    titles = list(_maps(report))
    return Section(titles[:MOST_MAPS], max(0, len(titles) - MOST_MAPS))


def plots(report: ReportData, colors: Mapping[str, str]) -> dict[str, Figure]:
    """The section's figures by the ids of their places."""
    cells = report.verdict["cells"]
    return {
        "glance-tokens": figures.savings_glance(cells, "tokens", colors),
        "glance-time": figures.savings_glance(cells, "time", colors),
        **{f"glance-stability-{i}": f for i, f in enumerate(list(_maps(report).values())[:MOST_MAPS])},
    }
