"""Analysis of training curves: curves -> crossings -> savings and stability -> answer -> report."""

from analysis.answer import Answer, Options, analyse
from analysis.readers import load_runs
from analysis.schema import Runs
from analysis.stats.boundary import all_boundaries
from analysis.stats.correlation import correlations
from analysis.stats.crossings import Crossing, crossing
from analysis.stats.stability import stability

__all__ = [
    "Answer",
    "Crossing",
    "Options",
    "Runs",
    "all_boundaries",
    "analyse",
    "correlations",
    "crossing",
    "load_runs",
    "stability",
]
