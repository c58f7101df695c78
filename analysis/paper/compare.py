"""Comparison of a sweep with the published experiment: cells, claims, replicas, and what is missing.

Results of a run are set beside published figures only if the run is the published cell (analysis.paper.match). Runs
that have only its shape are listed apart, without published figures.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from analysis.paper import measure, tables
from analysis.paper.claims import assess
from analysis.paper.facts import CLAIMS, EXPERIMENTS, GPT2_1558M
from analysis.paper.match import Match, at_scale, base_of, match
from analysis.paper.measure import Configuration, Group, Measured
from analysis.paper.paper import Paper, PublishedCell, Scale, Unpublished
from analysis.readers import load_runs
from analysis.schema import Runs
from analysis.stats.stability import judge_runs, stability, with_outcomes
from cl_bench import schedules
from cl_bench.config import RunConfig
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir, write_atomic


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A cell of the sweep and its place beside the published grid."""

    group: Group
    config: RunConfig
    """Of one of its runs: they differ in the seed."""
    match: Match


def write(folder: str | Path) -> Paper:
    """Build the comparison and write it into the sweep's folder as Markdown."""
    paper = build(folder)
    write_atomic(SweepDir.at(folder).paper, tables.markdown(paper))
    return paper


def build(folder: str | Path) -> Paper:
    """The comparison. Raises UserError if the folder is not a sweep's, or has no runs."""
    path = Path(folder)
    if not SweepDir.at(path).manifest.exists():
        what = "not a sweep's folder (no manifest.json)" if path.exists() else "no such folder"
        raise UserError(f"{path}: {what}; give outputs/sweeps/NAME of a sweep that was launched")
    runs = load_runs(path)
    judged = judge_runs(runs)
    runs = with_outcomes(runs, judged.outcomes)
    placed = _place(runs)
    experiments = [e for e in EXPERIMENTS if any(at_scale(p.config, e) for p in placed)] or [GPT2_1558M]
    ratios = stability(runs, judged)
    results = [(p, _measured(runs, p, placed, ratios)) for p in placed]
    published = [(p.match.experiment, p.match.cell, p.group) for p in placed if p.match.is_published]
    return Paper(
        sweep=runs.name,
        question=runs.question,
        scale=_scale(runs, placed),
        experiments=tuple(experiments),
        cells=tuple(
            PublishedCell(e, cell, tuple(m for p, m in results if p.match.is_cell(e, cell)))
            for e in experiments
            for cell in e.cells
        ),
        claims=tuple(assess(runs, c, published) for c in CLAIMS if c.series in {e.series for e in experiments}),
        same_shape=tuple(Unpublished(p.match.title, m) for p, m in results if p.match.replica),
        others=tuple(Unpublished(p.match.why, m) for p, m in results if p.match.cell is None),
        notes=(*_notes(placed), *runs.notes),
    )


def _place(runs: Runs) -> list[_Placed]:
    groups = measure.groups(runs)
    configs = [runs.configs[str(g.rows["run_id"].iloc[0])] for g in groups]
    return [
        _Placed(g, c, match(c, str(g.rows["cell"].iloc[0]), base_of(c, configs)))
        for g, c in zip(groups, configs, strict=True)
    ]


def _measured(runs: Runs, one: _Placed, placed: list[_Placed], ratios: pd.DataFrame) -> Measured:
    config = one.config
    settings = Configuration(
        batch=config.global_batch_size,
        lr=config.optim.lr,
        shape=schedules.describe(config),
        precision=config.deepspeed.precision,
        parameters=config.model.n_parameters(),
        token_budget=config.token_budget,
    )
    measured = measure.measure(runs, one.group, ratios, settings)
    baseline = _small_baseline(one, placed)
    if baseline is None or baseline is one:
        return measured
    saved = measure.saved_at_validation(runs, one.group, baseline.group)
    return dataclasses.replace(measured, saved=saved, against=baseline.group.name)


def _small_baseline(one: _Placed, placed: list[_Placed]) -> _Placed | None:
    """The baseline of a curriculum's cost: of those with its settings the smallest batch, then learning rate."""
    same = [p for p in placed if p.group.setting == one.group.setting]
    ramped = [p for p in same if p.match.is_published and p.match.title == "GPT-3 125M baseline"]
    plain = [p for p in same if p.config.is_baseline]
    if one.config.is_baseline:
        return None
    return min(ramped or plain, key=lambda p: (p.config.global_batch_size, p.config.optim.lr), default=None)


def _scale(runs: Runs, placed: list[_Placed]) -> Scale:
    configs = [p.config for p in placed]
    return Scale(
        models=tuple((m.name, m.n_parameters()) for m in dict.fromkeys(c.model for c in configs)),
        token_budgets=tuple(sorted({c.token_budget for c in configs})),
        max_seqlens=tuple(sorted({c.seqlen for c in configs})),
        seeds=tuple(sorted({int(s) for s in runs.runs["seed"]})),
        precisions=tuple(sorted({c.deepspeed.precision for c in configs})),
        data=tuple(sorted({c.data.path or c.data.source for c in configs})),
        runs=len(runs.runs),
        done=int((runs.runs["state"] == "DONE").sum()),
    )


def _notes(placed: list[_Placed]) -> list[str]:
    """Cells named after another published cell than their values', and precisions other than the published."""
    notes = []
    for one in placed:
        experiment, cell = one.match.experiment, one.match.cell
        if not one.match.is_published or experiment is None or cell is None:
            continue
        name, precision = str(one.group.rows["cell"].iloc[0]), one.config.deepspeed.precision
        if name != cell.name and name in {c.name for c in experiment.cells}:
            notes.append(f"The sweep's cell {name} has the values of {experiment.title} {cell.name}, and stands there.")
        if experiment.precision and precision != experiment.precision:
            notes.append(f"{one.group.name} ran in {precision}; the published runs in {experiment.precision}.")
    return notes
