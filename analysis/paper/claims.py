"""A published claim beside what the published cells' runs here came to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from analysis.paper.facts import Cell, Claim, Experiment
from analysis.paper.measure import Group, Saved, plain_estimate, saved_at_validation, saved_at_zeroshot
from analysis.schema import Runs
from cl_bench.runs.status import FINISHED

Cells = Sequence[tuple[Experiment | None, Cell | None, Group]]
"""Cells of the sweep that are published ones."""

_BASELINE = "baseline_512"
"""GPT-2 1.5B's small baseline: its final quality is the target."""
_LARGE_BASELINE = "baseline_4096"
_CURRICULA = {"v1": ("cl_v1",)}
"""Which curriculum a version's figures belong to; of the later versions that is not a verified fact, so both stand."""
_LATER = ("cl_v1", "cl_later")
_ELEVEN_TASKS = "the 11 tasks run outside this project, on what `cl-bench export` writes"
_FORTY = "the cell of 40x LR is not among the verified facts"


def claim(runs: Runs, published: Claim, cells: Cells) -> dict[str, Any]:
    """Plain values: the claim, and under `measured_here` an entry for each curriculum, why_not where it has none."""
    names = _CURRICULA.get(published.version, _LATER)
    if published.series == "GPT-3":
        measured = [_none(_FORTY if published.at == "stability" else _ELEVEN_TASKS)]
    elif published.at == "stability":
        measured = [_diverged(name, cells) for name in (_LARGE_BASELINE, *names)]
    else:
        measured = [_saving(runs, published, name, cells) for name in names]
    return dataclasses.asdict(published) | {"measured_here": measured}


def _none(why_not: str, cell: str = "") -> dict[str, Any]:
    return {"cell": cell, "why_not": why_not}


def _of(name: str, cells: Cells) -> Group | None:
    """The runs here of a cell of GPT-2 1.5B; of several groups the one with the most seeds."""
    found = [g for e, c, g in cells if e and c and (e.name, c.name) == ("gpt2_1558m", name)]
    return max(found, key=lambda g: len(g.rows), default=None)


def _diverged(name: str, cells: Cells) -> dict[str, Any]:
    group = _of(name, cells)
    if group is None:
        return _none(f"no run of {name}", name)
    over = group.rows[group.rows["state"].isin(FINISHED)]
    if len(over) < len(group.rows) and not (over["state"] == "DIVERGED").any():
        return _none(f"{name} is not finished", name)
    return {"cell": name, "diverged": int((over["state"] == "DIVERGED").sum()), "of": len(group.rows), "why_not": ""}


def _saving(runs: Runs, published: Claim, name: str, cells: Cells) -> dict[str, Any]:
    group = _of(name, cells)
    baselines = [g for e, c, g in cells if e and c and (e.name, c.name) == ("gpt2_1558m", _BASELINE)]
    missing = [n for n, found in ((_BASELINE, baselines), (name, group)) if not found]
    if missing or group is None:
        return _none(f"no run of {missing[0]}", name)
    baseline = next((g for g in baselines if g.setting == group.setting), None)
    if baseline is None:
        return _none(f"{_BASELINE} and {name} differ in more than batch, learning rate and curriculum", name)
    measure = saved_at_validation if published.at == "validation" else saved_at_zeroshot
    return _entry(name, measure(runs, group, baseline), published.what)


def _entry(name: str, saved: Saved, what: str) -> dict[str, Any]:
    figure = plain_estimate(saved.tokens if what == "tokens" else saved.time)
    if figure is None:
        return _none(saved.why_not or "no figure", name)
    return {"cell": name, "saved": figure, "at_least": saved.at_least, "why_not": ""}
