"""Selection of what the headline says: the figures it prints, the cells, the stability, the costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from analysis.answer import Answer, BestBaseline
from analysis.schema import ROLES, Role
from analysis.stats.best_vs_best import Best
from analysis.stats.intervals import SIGNIFICANCE, Estimate, holm
from analysis.stats.savings import CellSaving, Difference, tested
from analysis.verdict.contrast import Contrast, contrasts

_WEAKER = 1.02
"""A baseline whose final perplexity exceeds the best one's by this factor is reported as weaker."""


class Loss(NamedTuple):
    """A difference of final loss at equal tokens, curriculum less baseline, in nats per token."""

    point: float
    span: tuple[float, float] | None
    """Ends of the 95% interval; None with one seed."""


def printed_tokens(cell: CellSaving) -> Estimate:
    """The saving in tokens that the report prints."""
    return cell.tokens if cell.tokens.point is not None else cell.lowest_common


def printed_time(cell: CellSaving) -> Estimate:
    """The saving in time that the report prints."""
    return cell.time


def loss_at_equal_tokens(cell: CellSaving) -> Loss | None:
    """The difference of loss at equal tokens; None if it is not known."""
    return None


def best_loss(best: Best) -> Loss | None:
    """The same for best against best."""
    return None


def excluded_difference(estimate: Estimate) -> float | None:
    """The share that a difference in tokens does not exceed by an equivalence test; None if that is open."""
    return None


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A cell and what is significant in it, over all cells together."""

    saving: CellSaving
    tokens: Estimate
    time: Estimate
    loss: Loss | None
    tokens_differ: Difference | None
    """None with fewer than two seeds to compare, or if a curriculum run diverged."""
    time_differs: Difference | None

    @property
    def failed(self) -> bool:
        """Whether a curriculum run diverged: nothing was saved, whatever the other seeds did."""
        return self.saving.diverged > 0


@dataclasses.dataclass(frozen=True)
class Spikes:
    """The largest loss ratio and the diverged runs of one role."""

    role: Role
    largest: float | None
    diverged: int
    runs: int


@dataclasses.dataclass(frozen=True)
class Headline:
    """What the headline says."""

    obstacle: str
    """Why no curriculum can be compared; empty if one can."""
    target_ppl: float | None
    """If given; else each baseline's final perplexity."""
    stability: tuple[Contrast, ...]
    best: Best | None
    """Best against best, if the runs have one setting and there was a choice."""
    cells: tuple[CellResult, ...]
    """All of the grid."""
    several: bool
    """Whether the runs have several settings."""
    best_baseline: BestBaseline | None

    def weaker(self, saving: CellSaving) -> tuple[float, float] | None:
        """Perplexities of a cell's baseline and of the grid's best, if the former is weaker and so easier to beat."""
        best = self.best_baseline
        if best is None or self.target_ppl is not None or saving.cell.point == best.cell.point:
            return None
        own = saving.target_ppl
        return (own, best.final_ppl) if own is not None and own > _WEAKER * best.final_ppl else None


def headline(answer: Answer) -> Headline:
    """The headline of an answer."""
    best = answer.best[0] if len(answer.best) == 1 and answer.best[0].chosen else None
    return Headline(
        _obstacle(answer),
        answer.options.target_ppl,
        tuple(contrasts(answer)),
        best,
        _results(answer.cells),
        len({c.cell.setting for c in answer.cells}) > 1,
        answer.best_baseline,
    )


def _results(cells: Sequence[CellSaving]) -> tuple[CellResult, ...]:
    times = [printed_time(c) for c in cells]
    p_values = [
        math.nan if not tested(c) or e.span is None else 1.0 if e.p_value is None else e.p_value
        for c, e in zip(cells, times, strict=True)
    ]
    results = []
    for cell, time, p in zip(cells, times, holm(p_values), strict=True):
        failed = cell.diverged > 0
        results.append(
            CellResult(
                cell,
                printed_tokens(cell),
                time,
                loss_at_equal_tokens(cell),
                None if failed else cell.difference,
                None if failed else difference(time, p),
            )
        )
    return tuple(results)


def difference(estimate: Estimate, p_value: float | None) -> Difference | None:
    """Whether an estimate's difference from 0 is significant at this (adjusted) p, and its sign."""
    if p_value is None or math.isnan(p_value) or estimate.point is None:
        return None
    if p_value >= SIGNIFICANCE:
        return "undecided"
    return "saved" if estimate.point > 0 else "cost"


def place(saving: CellSaving, *, several: bool = False) -> str:
    """A cell's batch size and learning rate and, if it differs in more, its label.

    If the grid holds `several` settings, the variant or the setting itself identifies them.
    """
    cell = saving.cell
    special = f", {cell.variant}" if cell.variant else ""
    if several:
        special = special or f", setting {cell.setting}"
    elif special and cell.label:
        special = f" ({cell.label})"
    return cell.place + special


def _obstacle(answer: Answer) -> str:
    if not answer.cells:
        return "There is no curriculum run here to compare with a baseline."
    states: Sequence[str] = answer.baselines["state"].tolist()
    if answer.options.target_ppl is not None or "DONE" in states:
        return ""
    why = "No baseline has finished yet" if states else "There is no baseline in this grid"
    if states and set(states) == {"DIVERGED"}:
        why = "Every baseline diverged and has no final perplexity"
    return f"{why}: nothing to compare with."


def spikes(answer: Answer) -> tuple[Spikes, ...]:
    """The largest loss ratio and the diverged runs of each role."""
    table = answer.stability.merge(answer.runs.runs[["run_id", "role"]], on="run_id")
    result = []
    for role in ROLES:
        own = table[table["role"] == role]
        largest = float(own["max_loss_ratio"].max())
        result.append(Spikes(role, None if math.isnan(largest) else largest, int(own["diverged"].sum()), len(own)))
    return tuple(result)
