"""Write a sweep's report: the page, four tables and the verdict."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import page
from analysis.correlation import correlations
from analysis.frontier import frontiers
from analysis.readers import load_runs
from analysis.savings import savings
from analysis.schema import Runs
from analysis.stability import stability
from analysis.verdict import verdict
from cl_bench.errors import UserError
from cl_bench.paths import SweepDir, write_atomic


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report says and where it was written."""

    runs: Runs
    savings: pd.DataFrame
    stability: pd.DataFrame
    verdict: dict[str, Any]
    path: Path


def analyse(runs: Runs, target_ppl: float | None = None) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """(savings, stability, verdict) of loaded runs. Raises UserError for a target that no baseline reached."""
    if target_ppl is not None and not (math.isfinite(target_ppl) and target_ppl > 1):
        raise UserError(f"target {target_ppl:g}: a perplexity is a number above 1 (for a loss of L nats, exp(L))")
    saved = savings(runs, target_ppl)
    stable = stability(runs)
    return saved, stable, verdict(runs, saved, stable, target_ppl)


def write(folder: str | Path, target_ppl: float | None = None) -> Report:
    """Analyse a sweep's folder and write report.html, four tables (CSV) and verdict.json into it."""
    runs = load_runs(folder)
    if runs.evals.empty:
        raise UserError(f"{folder}: no run has an evaluation yet; wait for the first one or see `cl-bench status`")
    saved, stable, words = analyse(runs, target_ppl)
    edges, correlated = frontiers(runs.runs, stable), correlations(runs.runs, runs.train)
    out = SweepDir.at(folder)
    command = f"python -m analysis report {folder}" + (f" --target {target_ppl:g}" if target_ppl is not None else "")
    html = page.render(
        page.ReportData(
            title=runs.name,
            question=runs.question,
            command=command,
            verdict=words,
            runs=runs.runs,
            train=runs.train,
            evals=runs.evals,
            savings=saved,
            stability=stable,
            frontier=edges,
            correlation=correlated,
            attempts=runs.attempts,
            generated=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        )
    )
    write_atomic(out.savings, saved.to_csv(index=False))
    write_atomic(out.stability, stable.to_csv(index=False))
    write_atomic(out.frontier, edges.to_csv(index=False))
    write_atomic(out.correlation, correlated.to_csv(index=False))
    write_atomic(out.verdict, json.dumps(words, indent=1, allow_nan=False))
    write_atomic(out.report, html)
    return Report(runs, saved, stable, words, out.report)
