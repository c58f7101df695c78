"""Curves -> targets -> savings and stability -> figures -> report."""

from analysis.readers import load_runs
from analysis.schema import Runs
from analysis.stats.boundary import frontiers
from analysis.stats.correlation import correlations
from analysis.stats.crossings import Crossing, crossing
from analysis.stats.savings import cells, savings
from analysis.stats.stability import stability

__all__ = ["Crossing", "Runs", "cells", "correlations", "crossing", "frontiers", "load_runs", "savings", "stability"]
