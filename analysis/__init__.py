"""Analysis of training curves: curves -> crossings -> savings and stability -> answer -> report."""

from analysis.answer import Answer, Options, analyse
from analysis.readers import load_runs
from analysis.schema import Runs
from analysis.stats.boundary import frontiers
from analysis.stats.correlation import correlations
from analysis.stats.crossings import Crossing, crossing
from analysis.stats.stability import stability

__all__ = [
    "Answer",
    "Crossing",
    "Options",
    "Runs",
    "analyse",
    "correlations",
    "crossing",
    "frontiers",
    "load_runs",
    "stability",
]
