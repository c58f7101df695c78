"""Selection of what the verdict's sentence quotes: one cell per curriculum, the other cells, spikes."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from analysis.answer import Answer, BestBaseline
from analysis.schema import ROLES
from analysis.stats.savings import CellSaving, Difference
from cl_bench.config import Role

MOST_CURRICULA = 3
FEW_CELLS = 4
"""With more cells than this the sentence counts them instead of naming the extremes."""
_WEAKER = 1.02
"""A baseline whose final perplexity exceeds the best one's by this factor is reported as weaker."""


@dataclasses.dataclass(frozen=True)
class Head:
    """The cell quoted for a curriculum."""

    saving: CellSaving
    place: str
    """Its batch size, learning rate and, as far as needed to identify it, variant or setting."""
    weaker: tuple[float, float] | None
    """Perplexities of its baseline and of the grid's best, if the former is weaker and so easier to beat."""


@dataclasses.dataclass(frozen=True)
class Spikes:
    """The largest loss ratio and the diverged runs of one role."""

    role: Role
    largest: float | None
    diverged: int
    runs: int


@dataclasses.dataclass(frozen=True)
class Headline:
    """What the sentence says."""

    obstacle: str
    """Why no curriculum can be compared; empty if one can."""
    target_ppl: float | None
    """If given; else each baseline's final perplexity."""
    heads: tuple[Head, ...]
    """One per curriculum, that of the best baseline's batch size and learning rate first."""
    cells: tuple[CellSaving, ...]
    """All of the grid."""
    spikes: tuple[Spikes, ...]

    @property
    def others(self) -> list[CellSaving]:
        """The cells that are not quoted."""
        return [cell for cell in self.cells if all(cell is not head.saving for head in self.heads)]

    @property
    def differences(self) -> Counter[Difference | Literal["untested"]]:
        """The number of cells by outcome of the test."""
        return Counter(cell.difference or "untested" for cell in self.cells)


def headline(answer: Answer) -> Headline:
    """The headline of an answer."""
    by_curriculum: dict[str, list[CellSaving]] = {}
    for cell in answer.cells:
        by_curriculum.setdefault(cell.cell.curriculum, []).append(cell)
    best = answer.best_baseline
    quoted = [next((c for c in own if _at_best(c, best)), own[0]) for own in by_curriculum.values()]
    quoted.sort(key=lambda c: not _at_best(c, best))
    several = len({c.cell.setting for c in answer.cells}) > 1
    compare_with_best = best if answer.options.target_ppl is None else None
    heads = tuple(Head(c, place(c, several=several), _weaker(c, compare_with_best)) for c in quoted)
    return Headline(_obstacle(answer), answer.options.target_ppl, heads, answer.cells, _spikes(answer))


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


def _at_best(saving: CellSaving, best: BestBaseline | None) -> bool:
    return best is not None and saving.cell.point == best.cell.point


def _weaker(saving: CellSaving, best: BestBaseline | None) -> tuple[float, float] | None:
    if best is None or _at_best(saving, best) or saving.target_ppl is None:
        return None
    return (saving.target_ppl, best.final_ppl) if saving.target_ppl > _WEAKER * best.final_ppl else None


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


def _spikes(answer: Answer) -> tuple[Spikes, ...]:
    table = answer.stability.merge(answer.runs.runs[["run_id", "role"]], on="run_id")
    spikes = []
    for role in ROLES:
        own = table[table["role"] == role]
        largest = float(own["max_loss_ratio"].max())
        spikes.append(Spikes(role, None if math.isnan(largest) else largest, int(own["diverged"].sum()), len(own)))
    return tuple(spikes)
