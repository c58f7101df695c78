"""Savings as tests look at them: tables and plain values."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.answer import Options, analyse
from analysis.renderers import cells_json, savings_table, verdict_json
from analysis.schema import Runs
from analysis.stats.crossings import Method
from analysis.stats.savings import cell_savings, run_savings


def savings(runs: Runs, target_ppl: float | None = None) -> pd.DataFrame:
    """savings.csv of the runs."""
    return savings_table(run_savings(runs, target_ppl))


def cells(runs: Runs, target_ppl: float | None = None) -> list[dict[str, Any]]:
    """The cells of verdict.json."""
    return cells_json(cell_savings(run_savings(runs, target_ppl)))


def verdict(runs: Runs, target_ppl: float | None = None, method: Method = "interpolate") -> dict[str, Any]:
    """verdict.json of the runs."""
    return verdict_json(analyse(runs, Options(target_ppl, method)))
