"""A sweep beside the published experiment: cells, claims, replicas, and what is missing (`python -m analysis paper`).

Measured figures of a run stand beside published ones only where the run is the published cell (paper_match); what has
only its shape stands apart, without published figures.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from analysis.paper import measure, tables
from analysis.paper.claims import claim
from analysis.paper.facts import CLAIMS, EXPERIMENTS, GPT2_1558M, Cell, Experiment
from analysis.paper.match import Match, at_scale, base_of, match
from analysis.paper.measure import Group
from analysis.readers import load_runs
from analysis.schema import Runs
from analysis.stats.stability import stability
from cl_bench import schedules
from cl_bench.config import RunConfig
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir, write_atomic


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A cell of the sweep and what it is beside the published grid."""

    group: Group
    config: RunConfig
    """Of one of its runs: they differ in the seed."""
    match: Match


def write(folder: str | Path) -> dict[str, Any]:
    """Build the comparison and write it into the sweep's folder as Markdown."""
    found = build(folder)
    write_atomic(SweepDir.at(folder).paper, tables.markdown(found))
    return found


def build(folder: str | Path) -> dict[str, Any]:
    """The comparison as plain values that JSON can hold. Raises UserError for a folder that is no sweep's, or empty."""
    path = Path(folder)
    if not SweepDir.at(path).manifest.exists():
        what = "not a sweep's folder (no manifest.json)" if path.exists() else "no such folder"
        raise UserError(f"{path}: {what}; give outputs/sweeps/NAME of a sweep that was launched")
    runs = load_runs(path)
    placed = _place(runs)
    shown = [e for e in EXPERIMENTS if any(at_scale(p.config, e) for p in placed)] or [GPT2_1558M]
    stable = stability(runs)

    def measured(one: _Placed) -> dict[str, Any]:
        return _measured(runs, one, placed, stable)

    cells = [(p.match.experiment, p.match.cell, p.group) for p in placed if p.match.is_published]
    replicas = [p for p in placed if p.match.replica]
    others = [p for p in placed if p.match.cell is None]
    return {
        "sweep": runs.name,
        "question": runs.question,
        "runs_here": _scale(runs, placed),
        "published_runs": [_experiment(e) for e in shown],
        "cells": [
            _published(e, cell) | {"measured_here": [measured(p) for p in placed if _is(p.match, e, cell)]}
            for e in shown
            for cell in e.cells
        ],
        "claims": [claim(runs, c, cells) for c in CLAIMS if c.series in {e.series for e in shown}],
        "same_shape": [{"shape_of": _title(p.match), "measured_here": measured(p)} for p in replicas],
        "others": [{"why": p.match.why, "measured_here": measured(p)} for p in others],
        "notes": [*_notes(placed), *runs.notes],
    }


def _place(runs: Runs) -> list[_Placed]:
    found = measure.groups(runs)
    configs = [runs.configs[str(g.rows["run_id"].iloc[0])] for g in found]
    return [
        _Placed(g, c, match(c, str(g.rows["cell"].iloc[0]), base_of(c, configs)))
        for g, c in zip(found, configs, strict=True)
    ]


def _is(found: Match, experiment: Experiment, cell: Cell) -> bool:
    return found.is_published and found.experiment is experiment and found.cell is cell


def _title(found: Match) -> str:
    assert found.experiment is not None
    assert found.cell is not None
    return f"{found.experiment.title} {found.cell.name}"


def _measured(runs: Runs, one: _Placed, placed: list[_Placed], stable: Any) -> dict[str, Any]:
    found = measure.measure(runs, one.group, stable)
    found["configuration"] = {
        "batch": one.config.global_batch_size,
        "lr": one.config.optim.lr,
        "shape": schedules.describe(one.config),
        "precision": one.config.deepspeed.precision,
        "parameters": one.config.model.n_parameters(),
        "token_budget": one.config.token_budget,
    }
    baseline = _small_baseline(one, placed)
    if baseline is not None and baseline is not one:
        found["saved"] = {"against": baseline.group.name} | dataclasses.asdict(
            measure.saved_at_validation(runs, one.group, baseline.group)
        )
    return found


def _small_baseline(one: _Placed, placed: list[_Placed]) -> _Placed | None:
    """What a cell's cost is measured against: of the baselines with its settings the smallest batch, then rate."""
    same = [p for p in placed if p.group.setting == one.group.setting]
    ramped = [p for p in same if p.match.is_published and _title(p.match) == "GPT-3 125M baseline"]
    plain = [p for p in same if p.config.is_baseline]
    if one.config.is_baseline:
        return None
    return min(ramped or plain, key=lambda p: (p.config.global_batch_size, p.config.optim.lr), default=None)


def _scale(runs: Runs, placed: list[_Placed]) -> dict[str, Any]:
    """What was trained here: sizes, tokens, seeds, texts."""
    configs = [p.config for p in placed]
    return {
        "models": [{"name": m.name, "parameters": m.n_parameters()} for m in dict.fromkeys(c.model for c in configs)],
        "token_budgets": sorted({c.token_budget for c in configs}),
        "max_seqlens": sorted({c.seqlen for c in configs}),
        "seeds": sorted({int(s) for s in runs.runs["seed"]}),
        "precisions": sorted({c.deepspeed.precision for c in configs}),
        "data": sorted({c.data.path or c.data.source for c in configs}),
        "runs": len(runs.runs),
        "done": int((runs.runs["state"] == "DONE").sum()),
    }


def _experiment(experiment: Experiment) -> dict[str, Any]:
    plain = dataclasses.asdict(experiment)
    return {k: v for k, v in plain.items() if k != "cells"}


def _published(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    values = dataclasses.asdict(cell)
    standing = {k: values.pop(k) for k in ("name", "standing", "source")}
    return {"experiment": experiment.title, **standing, "published": values}


def _notes(placed: list[_Placed]) -> list[str]:
    """Names that say another published cell than the values do, and runs in another precision than the published."""
    found = []
    for one in placed:
        experiment, cell = one.match.experiment, one.match.cell
        if not one.match.is_published or experiment is None or cell is None:
            continue
        name, precision = str(one.group.rows["cell"].iloc[0]), one.config.deepspeed.precision
        if name != cell.name and name in {c.name for c in experiment.cells}:
            found.append(f"The sweep's cell {name} has the values of {experiment.title} {cell.name}, and stands there.")
        if experiment.precision and precision != experiment.precision:
            found.append(f"{one.group.name} ran in {precision}; the published runs in {experiment.precision}.")
    return found
