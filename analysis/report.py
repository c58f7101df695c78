"""Write a sweep's report: the page, two tables and the verdict."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import cost, page, tuning
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


def write(
    folder: str | Path, target_ppl: float | None = None, price: float | None = None, searches: Sequence[str] = ()
) -> Report:
    """Analyse a sweep's folder and write report.html, savings.csv, stability.csv, cost.csv and verdict.json into it.

    `price` is money per GPU-hour; `searches` names tuning to be counted beside what is found to belong to the runs.
    """
    cost.check_price(price)
    runs = load_runs(folder)
    if runs.evals.empty:
        raise UserError(f"{folder}: no run has an evaluation yet; wait for the first one or see `cl-bench status`")
    saved, stable, words = analyse(runs, target_ppl)
    out = SweepDir.at(folder)
    charges = tuning.charges(runs, out.outputs if out.manifest.exists() else out.root, searches)
    spent = cost.cost(runs.runs, runs.train, runs.attempts, saved, charges, price)
    words["caveats"] += cost.caveats(spent)
    words["cost"] = cost.plain(spent)
    command = f"python -m analysis report {folder}" + (f" --target {target_ppl:g}" if target_ppl is not None else "")
    command += (f" --price {price:g}" if price is not None else "") + (
        f" --tuning {','.join(searches)}" * bool(searches)
    )
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
            cost=spent,
        )
    )
    write_atomic(out.savings, saved.to_csv(index=False))
    write_atomic(out.stability, stable.to_csv(index=False))
    write_atomic(out.cost, spent.runs.to_csv(index=False))
    write_atomic(out.verdict, json.dumps(words, indent=1, allow_nan=False))
    write_atomic(out.report, html)
    return Report(runs, saved, stable, words, out.report)
