"""Write a sweep's report: the page, two tables and the verdict."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import page
from analysis.readers import load_runs
from analysis.readers.source import Source
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
    """Analyse a sweep's folder and write report.html, savings.csv, stability.csv and verdict.json into it."""
    return write_source(
        Source(load_runs(folder), SweepDir.at(folder).root, f"python -m analysis report {folder}"), target_ppl
    )


def write_source(source: Source, target_ppl: float | None = None) -> Report:
    """Analyse curves of any origin and write the four files into the source's folder of the report."""
    runs, out = source.runs, SweepDir.at(source.out)
    if runs.evals.empty:
        raise UserError(f"{runs.folder}: no run has an evaluation yet; wait for the first one or see `cl-bench status`")
    saved, stable, words = analyse(runs, target_ppl)
    command = source.command + (f" --target {target_ppl:g}" if target_ppl is not None else "")
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
            attempts=runs.attempts,
            generated=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        )
    )
    write_atomic(out.savings, saved.to_csv(index=False))
    write_atomic(out.stability, stable.to_csv(index=False))
    write_atomic(out.verdict, json.dumps(words, indent=1, allow_nan=False))
    write_atomic(out.report, html)
    return Report(runs, saved, stable, words, out.report)
