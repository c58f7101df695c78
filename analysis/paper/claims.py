"""Published claims beside the results of the published cells' runs here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from analysis.paper.facts import Cell, Claim, Experiment
from analysis.paper.measure import Group, saved_at_validation, saved_at_zeroshot
from analysis.schema import Runs
from analysis.stats.intervals import Estimate
from cl_bench.runs.status import FINISHED

Cells = Sequence[tuple[Experiment | None, Cell | None, Group]]
"""Cells of the sweep that are published ones."""

_BASELINE = "baseline_512"
"""GPT-2 1.5B's small baseline, whose final quality is the target."""
_LARGE_BASELINE = "baseline_4096"
_CURRICULA = {"v1": ("cl_v1",)}
"""The curriculum of a version's figures; for the later versions it is not a verified fact, so both are measured."""
_LATER = ("cl_v1", "cl_later")
_ELEVEN_TASKS = "the 11 tasks run outside this project, on what `cl-bench export` writes"
_FORTY = "the cell of 40x LR is not among the verified facts"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one cell on a claim: a count of diverged runs, or a saving; else the reason for having neither."""

    cell: str
    why_not: str = ""
    diverged: int | None = None
    of: int | None = None
    """Runs of which `diverged` diverged."""
    saved: Estimate | None = None
    at_least: bool = False
    """Whether the true saving may be larger."""


@dataclasses.dataclass(frozen=True)
class ClaimResult:
    """A claim and its findings here, one per curriculum."""

    claim: Claim
    findings: tuple[Finding, ...]


def assess(runs: Runs, claim: Claim, cells: Cells) -> ClaimResult:
    """The findings on a claim."""
    names = _CURRICULA.get(claim.version, _LATER)
    if claim.series == "GPT-3":
        findings = [Finding("", _FORTY if claim.at == "stability" else _ELEVEN_TASKS)]
    elif claim.at == "stability":
        findings = [_divergence(name, cells) for name in (_LARGE_BASELINE, *names)]
    else:
        findings = [_saving(runs, claim, name, cells) for name in names]
    return ClaimResult(claim, tuple(findings))


def _groups(name: str, cells: Cells) -> list[Group]:
    """The runs here of a cell of GPT-2 1.5B, the group with the most seeds first."""
    groups = [g for e, c, g in cells if e and c and (e.name, c.name) == ("gpt2_1558m", name)]
    return sorted(groups, key=lambda g: len(g.rows), reverse=True)


def _divergence(name: str, cells: Cells) -> Finding:
    groups = _groups(name, cells)
    if not groups:
        return Finding(name, f"no run of {name}")
    rows = groups[0].rows
    diverged = int((rows["state"] == "DIVERGED").sum())
    if not diverged and not rows["state"].isin(FINISHED).all():
        return Finding(name, f"{name} is not finished")
    return Finding(name, diverged=diverged, of=len(rows))


def _saving(runs: Runs, claim: Claim, name: str, cells: Cells) -> Finding:
    baselines, groups = _groups(_BASELINE, cells), _groups(name, cells)
    if not baselines or not groups:
        return Finding(name, f"no run of {name if baselines else _BASELINE}")
    group = groups[0]
    baseline = next((g for g in baselines if g.setting == group.setting), None)
    if baseline is None:
        return Finding(name, f"{_BASELINE} and {name} differ in more than batch, learning rate and curriculum")
    measure = saved_at_validation if claim.at == "validation" else saved_at_zeroshot
    saved = measure(runs, group, baseline)
    estimate = saved.tokens if claim.what == "tokens" else saved.time
    if estimate is None:
        return Finding(name, saved.why_not or "no figure")
    return Finding(name, saved=estimate, at_least=saved.at_least)
