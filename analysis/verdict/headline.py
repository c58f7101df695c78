"""Selection of what the headline says: the figures it prints, the cells, the stability, the costs."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from analysis.answer import Answer, BestBaseline
from analysis.schema import ROLES
from analysis.stats.best_vs_best import Best
from analysis.stats.intervals import SIGNIFICANCE, Estimate, holm
from analysis.stats.loss_difference import LossDifference
from analysis.stats.outcome import Kind, Outcome
from analysis.stats.savings import CellSaving, Difference, tested
from analysis.verdict.contrast import Contrast, contrasts, did_not_learn
from cl_bench.config import Role

_WEAKER = 1.02
"""A baseline whose final perplexity exceeds the best one's by this factor is reported as weaker."""


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A cell and what is significant in it, over all cells together."""

    saving: CellSaving
    tokens: Estimate
    time: Estimate
    loss: LossDifference
    tokens_differ: Difference | None
    """None with fewer than two seeds to compare, or if a curriculum run diverged."""
    time_differs: Difference | None
    loss_differs: Difference | None
    """Final loss at equal tokens: lower is "saved"."""
    ends: Mapping[Kind, int]
    """Curriculum runs by how they ended."""
    baseline_ends: Mapping[Kind, int]

    @property
    def failed(self) -> bool:
        """Whether a curriculum run was unstable: nothing was saved, whatever the other seeds did."""
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
    did_not_learn: str
    """How many runs did not learn, unless `stability` names each of them; empty if none."""
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
    found = tuple(contrasts(answer))
    named = sum(side.did_not_learn for c in found for side in (c.ours, c.theirs) if side is not None)
    slow = sum(outcome.kind == "did not learn" for outcome in answer.outcomes.values())
    best = answer.best[0] if len(answer.best) == 1 and answer.best[0].chosen else None
    return Headline(
        _obstacle(answer),
        answer.options.target_ppl,
        found,
        did_not_learn(answer) if slow > named else "",
        best,
        _results(answer.cells, answer.outcomes),
        len({c.cell.setting for c in answer.cells}) > 1,
        answer.best_baseline,
    )


def _results(cells: Sequence[CellSaving], outcomes: Mapping[str, Outcome]) -> tuple[CellResult, ...]:
    p_times = [
        math.nan if not tested(c) or c.printed_time.span is None else _or_one(c.printed_time.p_value) for c in cells
    ]
    results = []
    for cell, p_time in zip(cells, holm(p_times), strict=True):
        loss, time = cell.loss, cell.printed_time
        calls = (
            cell.difference,
            significant(time.point, p_time),
            significant(None if loss.mean is None else -loss.mean, loss.p_holm),
        )
        ours, theirs = (
            Counter(outcomes[i].kind for i in ids if i)
            for ids in ([r.run_id for r in cell.runs], [r.printed.at_target.baseline_run_id for r in cell.runs])
        )
        called = (None,) * 3 if cell.diverged else calls
        results.append(CellResult(cell, cell.printed, time, loss, *called, ours, theirs))
    return tuple(results)


def _or_one(p_value: float | None) -> float:
    """A p-value; 1 for seeds without spread, which have none."""
    return 1.0 if p_value is None else p_value


def significant(saved: float | None, p_value: float | None) -> Difference | None:
    """Whether a saving (negative: a cost) is significant at this adjusted p; None without a test."""
    if p_value is None or math.isnan(p_value) or saved is None:
        return None
    if p_value >= SIGNIFICANCE:
        return "undecided"
    return "saved" if saved > 0 else "cost"


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
