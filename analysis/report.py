"""A sweep's report: the page, its tables and the verdict, written into its folder."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from analysis.answer import Answer, Options, analyse
from analysis.cost import tuning
from analysis.page import document
from analysis.page.data import ReportData
from analysis.readers.source import Source, of_folder
from analysis.renderers import csv_tables, savings_table, verdict_json
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir, write_atomic


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report."""

    answer: Answer
    verdict: dict[str, Any]
    """The content of verdict.json."""
    path: Path
    """The page."""


def page_data(answer: Answer, command: str = "", generated: str = "", refresh_s: float | None = None) -> ReportData:
    """The input of the page; `command` makes it again, `generated` is the time of reading, ISO 8601."""
    runs = answer.runs
    return ReportData(
        title=runs.name,
        question=runs.question,
        command=command,
        verdict=verdict_json(answer),
        runs=runs.runs,
        train=runs.train,
        evals=runs.evals,
        savings=savings_table(answer.run_savings),
        targets=answer.targets,
        stability=answer.stability,
        frontier=answer.frontier,
        correlation=answer.correlation,
        attempts=runs.attempts,
        generated=generated,
        cost=answer.cost,
        instability=answer.instability,
        rules_sentence=answer.rules_sentence,
        unigram=runs.unigram,
        ours=bool(runs.configs),
        refresh_s=refresh_s,
    )


def answer_of(source: Source, options: Options | None = None) -> Answer:
    """Analyse curves of any origin. Raises UserError if no run has an evaluation."""
    options = options or Options()
    runs = source.runs
    if runs.evals.empty:
        raise UserError(f"{runs.folder}: no run has an evaluation yet; wait for the first one or see `cl-bench status`")
    if options.searches and not source.outputs:
        raise UserError(f"--tuning {','.join(options.searches)}: searches lie in an outputs folder; report on one")
    charges = tuning.charges(runs, source.outputs, options.searches) if source.outputs else None
    return analyse(runs, options, charges)


def write(folder: str | Path, options: Options | None = None) -> Report:
    """Analyse a sweep's folder and write report.html, verdict.json and its tables into it."""
    return write_source(of_folder(folder), options)


def write_source(source: Source, options: Options | None = None) -> Report:
    """Analyse curves of any origin and write report.html, verdict.json and the tables into the source's folder."""
    options = options or Options()
    answer, out = answer_of(source, options), SweepDir.at(source.out)
    generated = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    data = page_data(answer, source.command + options.arguments(), generated, options.refresh_s)
    html = document.render(data)
    for path, table in csv_tables(answer, out).items():
        write_atomic(path, table.to_csv(index=False))
    write_atomic(out.verdict, json.dumps(data.verdict, indent=1, allow_nan=False))
    write_atomic(out.report, html)
    return Report(answer, dict(data.verdict), out.report)
