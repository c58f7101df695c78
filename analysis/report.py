"""Write a sweep's report: the page, its tables and the verdict."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cost import hours, tuning
from analysis.page import document
from analysis.page.data import ReportData
from analysis.readers.source import Source, of_folder
from analysis.schema import Runs
from analysis.stats.boundary import frontiers
from analysis.stats.correlation import correlations
from analysis.stats.crossings import Method
from analysis.stats.over_targets import over_targets
from analysis.stats.savings import savings
from analysis.stats.stability import stability
from analysis.verdict.headline import verdict
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir, write_atomic


@dataclasses.dataclass(frozen=True)
class Options:
    """What a reader asks of a report."""

    target_ppl: float | None = None
    """Target perplexity; None: what each baseline finally reached."""
    method: Method = "interpolate"
    """How a crossing is read."""
    price: float | None = None
    """Money per GPU-hour."""
    searches: tuple[str, ...] = ()
    """Tuning to be counted beside what is found to belong to the runs."""
    refresh_s: float | None = None
    """Seconds after which the page loads itself again; None: never."""

    def shown(self) -> str:
        """As on the command line."""
        words = f" --target {self.target_ppl:g}" if self.target_ppl is not None else ""
        words += f" --crossing {self.method}" if self.method != "interpolate" else ""
        words += f" --price {self.price:g}" if self.price is not None else ""
        return words + (f" --tuning {','.join(self.searches)}" if self.searches else "")


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
    cost: hours.Cost


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
    words = verdict(runs, saved, stable, target_ppl, targets, method, edges)
    spent = hours.cost(runs.runs, runs.train, runs.attempts, saved, charges, price)
    words["caveats"] += hours.caveats(spent)
    words["cost"] = hours.plain(spent)
    return Answer(runs, saved, targets, stable, edges, correlated, words, spent)


def page_data(answer: Answer, command: str = "", generated: str = "", refresh_s: float | None = None) -> ReportData:
    """What the page shows of an answer; `command` makes it again, `generated` is when, ISO 8601."""
    runs = answer.runs
    return ReportData(
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
        ours=bool(runs.configs),
        refresh_s=refresh_s,
    )


def answer_of(source: Source, options: Options | None = None) -> Answer:
    """Analyse curves of any origin. Raises UserError where no run has an evaluation."""
    options = options or Options()
    hours.check_price(options.price)
    runs = source.runs
    if runs.evals.empty:
        raise UserError(f"{runs.folder}: no run has an evaluation yet; wait for the first one or see `cl-bench status`")
    charges = tuning.charges(runs, source.outputs, options.searches) if source.outputs else None
    if options.searches and not source.outputs:
        raise UserError(f"--tuning {','.join(options.searches)}: searches lie in an outputs folder; report on one")
    return analyse(runs, options.target_ppl, options.method, charges, options.price)


def write(folder: str | Path, options: Options | None = None) -> Report:
    """Analyse a sweep's folder and write report.html, verdict.json and its tables into it."""
    return write_source(of_folder(folder), options)


def write_source(source: Source, options: Options | None = None) -> Report:
    """Analyse curves of any origin and write report.html, verdict.json and the tables into the source's folder."""
    options = options or Options()
    answer, out = answer_of(source, options), SweepDir.at(source.out)
    generated = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    html = document.render(page_data(answer, source.command + options.shown(), generated, options.refresh_s))
    for path, table in (
        (out.savings, answer.savings),
        (out.targets, answer.targets),
        (out.stability, answer.stability),
        (out.frontier, answer.frontier),
        (out.correlation, answer.correlation),
        (out.cost, answer.cost.runs),
    ):
        write_atomic(path, table.to_csv(index=False))
    write_atomic(out.verdict, json.dumps(answer.verdict, indent=1, allow_nan=False))
    write_atomic(out.report, html)
    return Report(answer, out.report)
