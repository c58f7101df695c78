"""Curves -> targets -> savings and stability -> figures -> report."""

from analysis.correlation import correlations
from analysis.frontier import frontiers
from analysis.readers import load_runs
from analysis.savings import cells, savings
from analysis.schema import Runs
from analysis.stability import stability
from analysis.targets import Crossing, crossing

__all__ = ["Crossing", "Runs", "cells", "correlations", "crossing", "frontiers", "load_runs", "savings", "stability"]
