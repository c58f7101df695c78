"""Write a sweep's report: the page, its tables and the verdict."""

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
from analysis.correlation import correlations
from analysis.frontier import frontiers
from analysis.over_targets import over_targets
from analysis.readers import load_runs
from analysis.savings import savings
from analysis.schema import Runs
from analysis.stability import stability
from analysis.targets import Method
from analysis.verdict import verdict
from cl_bench.errors import UserError
from cl_bench.paths import SweepDir, write_atomic


@dataclasses.dataclass(frozen=True)
class Answer:
    """What loaded runs come to."""

    runs: Runs
    savings: pd.DataFrame
    targets: pd.DataFrame
    stability: pd.DataFrame
    frontier: pd.DataFrame
    correlation: pd.DataFrame
    verdict: dict[str, Any]
    cost: cost.Cost


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report says and where it was written."""

    answer: Answer
    path: Path

    @property
    def verdict(self) -> dict[str, Any]:
        """The verdict, plain values."""
        return self.answer.verdict


def analyse(
    runs: Runs,
    target_ppl: float | None = None,
    method: Method = "interpolate",
    charges: tuning.Charges | None = None,
    price: float | None = None,
) -> Answer:
    """Everything that a report says of loaded runs. Raises UserError for a target that no baseline reached.

    `charges` are searches for curricula to be counted, `price` is money per GPU-hour.
    """
    if target_ppl is not None and not (math.isfinite(target_ppl) and target_ppl > 1):
        raise UserError(f"target {target_ppl:g}: a perplexity is a number above 1 (for a loss of L nats, exp(L))")
    saved = savings(runs, target_ppl, method)
    targets = over_targets(runs, saved, method)
    stable = stability(runs)
    edges, correlated = frontiers(runs.runs, stable), correlations(runs.runs, runs.train)
    words = verdict(runs, saved, stable, target_ppl, targets, method)
    spent = cost.cost(runs.runs, runs.train, runs.attempts, saved, charges, price)
    words["caveats"] += cost.caveats(spent)
    words["cost"] = cost.plain(spent)
    return Answer(runs, saved, targets, stable, edges, correlated, words, spent)


def page_data(answer: Answer, command: str = "", generated: str = "") -> page.ReportData:
    """What the page shows of an answer; `command` makes it again, `generated` is when, ISO 8601."""
    runs = answer.runs
    return page.ReportData(
        title=runs.name,
        question=runs.question,
        command=command,
        verdict=answer.verdict,
        runs=runs.runs,
        train=runs.train,
        evals=runs.evals,
        savings=answer.savings,
        targets=answer.targets,
        stability=answer.stability,
        frontier=answer.frontier,
        correlation=answer.correlation,
        attempts=runs.attempts,
        generated=generated,
        cost=answer.cost,
    )


def answer_of(
    folder: str | Path,
    target_ppl: float | None = None,
    method: Method = "interpolate",
    price: float | None = None,
    searches: Sequence[str] = (),
) -> Answer:
    """Load and analyse a sweep's folder. Raises UserError where no run has an evaluation.

    `price` is money per GPU-hour; `searches` names tuning to be counted beside what is found to belong to the runs.
    """
    cost.check_price(price)
    runs = load_runs(folder)
    if runs.evals.empty:
        raise UserError(f"{folder}: no run has an evaluation yet; wait for the first one or see `cl-bench status`")
    out = SweepDir.at(folder)
    charges = tuning.charges(runs, out.outputs if out.manifest.exists() else out.root, searches)
    return analyse(runs, target_ppl, method, charges, price)


def write(
    folder: str | Path,
    target_ppl: float | None = None,
    method: Method = "interpolate",
    price: float | None = None,
    searches: Sequence[str] = (),
) -> Report:
    """Analyse a sweep's folder and write report.html, verdict.json and its tables into it, asked as in `answer_of`."""
    answer, out = answer_of(folder, target_ppl, method, price, searches), SweepDir.at(folder)
    command = f"python -m analysis report {folder}" + (f" --target {target_ppl:g}" if target_ppl is not None else "")
    command += f" --crossing {method}" if method != "interpolate" else ""
    command += (f" --price {price:g}" if price is not None else "") + (
        f" --tuning {','.join(searches)}" * bool(searches)
    )
    html = page.render(page_data(answer, command, datetime.datetime.now().astimezone().isoformat(timespec="minutes")))
    write_atomic(out.savings, answer.savings.to_csv(index=False))
    write_atomic(out.targets, answer.targets.to_csv(index=False))
    write_atomic(out.stability, answer.stability.to_csv(index=False))
    write_atomic(out.cost, answer.cost.runs.to_csv(index=False))
    write_atomic(out.frontier, answer.frontier.to_csv(index=False))
    write_atomic(out.correlation, answer.correlation.to_csv(index=False))
    write_atomic(out.verdict, json.dumps(answer.verdict, indent=1, allow_nan=False))
    write_atomic(out.report, html)
    return Report(answer, out.report)
