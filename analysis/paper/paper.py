"""The comparison of a sweep with the published experiment, as values."""

from __future__ import annotations

import dataclasses
from typing import Any

from analysis.paper.claims import ClaimResult
from analysis.paper.facts import Cell, Experiment
from analysis.paper.measure import Measured
from analysis.stats.intervals import Estimate


@dataclasses.dataclass(frozen=True)
class Scale:
    """The runs of the sweep: sizes, tokens, seeds, texts."""

    models: tuple[tuple[str, int], ...]
    """Names and numbers of parameters."""
    token_budgets: tuple[int, ...]
    max_seqlens: tuple[int, ...]
    seeds: tuple[int, ...]
    precisions: tuple[str, ...]
    data: tuple[str, ...]
    runs: int
    done: int


@dataclasses.dataclass(frozen=True)
class PublishedCell:
    """A published cell and its runs here."""

    experiment: Experiment
    cell: Cell
    measured: tuple[Measured, ...]


@dataclasses.dataclass(frozen=True)
class Unpublished:
    """Runs that are not a published cell: the cell whose shape they have, or why they have none."""

    what: str
    measured: Measured


@dataclasses.dataclass(frozen=True)
class Paper:
    """A sweep beside the published experiment."""

    sweep: str
    question: str
    scale: Scale
    experiments: tuple[Experiment, ...]
    cells: tuple[PublishedCell, ...]
    claims: tuple[ClaimResult, ...]
    same_shape: tuple[Unpublished, ...]
    """`what` is the published cell's title."""
    others: tuple[Unpublished, ...]
    """`what` is the reason for not being a published cell."""
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        scale = dataclasses.asdict(self.scale)
        models = [{"name": name, "parameters": parameters} for name, parameters in self.scale.models]
        experiments = [dataclasses.asdict(e) for e in self.experiments]
        return {
            "sweep": self.sweep,
            "question": self.question,
            "runs_here": {**scale, "models": models},
            "published_runs": [{k: v for k, v in e.items() if k != "cells"} for e in experiments],
            "cells": [_cell(c) for c in self.cells],
            "claims": [_claim(c) for c in self.claims],
            "same_shape": [{"shape_of": s.what, "measured_here": _measured(s.measured)} for s in self.same_shape],
            "others": [{"why": o.what, "measured_here": _measured(o.measured)} for o in self.others],
            "notes": list(self.notes),
        }


def _cell(published: PublishedCell) -> dict[str, Any]:
    values = dataclasses.asdict(published.cell)
    standing = {k: values.pop(k) for k in ("name", "standing", "source")}
    measured = [_measured(m) for m in published.measured]
    return {"experiment": published.experiment.title, **standing, "published": values, "measured_here": measured}


def _claim(result: ClaimResult) -> dict[str, Any]:
    findings = []
    for finding in result.findings:
        plain: dict[str, Any] = {"cell": finding.cell, "why_not": finding.why_not}
        if finding.diverged is not None:
            plain |= {"diverged": finding.diverged, "of": finding.of}
        if finding.saved is not None:
            plain |= {"saved": _estimate(finding.saved), "at_least": finding.at_least}
        findings.append(plain)
    return dataclasses.asdict(result.claim) | {"measured_here": findings}


def _measured(measured: Measured) -> dict[str, Any]:
    plain = dataclasses.asdict(measured)
    del plain["saved"], plain["against"]
    if (saved := measured.saved) is not None:
        figures = {"tokens": _estimate(saved.tokens), "time": _estimate(saved.time)}
        plain["saved"] = {"against": measured.against, **figures, "why_not": saved.why_not, "at_least": saved.at_least}
    return plain


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {"value": estimate.point, "low": estimate.low, "high": estimate.high, "seeds": estimate.n}
