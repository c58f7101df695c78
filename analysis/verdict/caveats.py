"""Caveats of the verdict: what a reader must know before repeating it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.answer import Answer
from analysis.cost import comparability
from analysis.cost.hours import CellCost, Cost
from analysis.schema import Runs
from analysis.stats import clock
from analysis.stats.evaluations import Kind, Unlike
from analysis.stats.intervals import SIGNIFICANCE
from analysis.stats.power import POWER
from analysis.stats.savings import CellSaving
from analysis.verdict.contrast import contrasts
from analysis.words import percent, saved_share

DISAGREE = 0.05
"""Savings that differ by more than this between the ways to determine a crossing are reported."""


def caveats(answer: Answer) -> list[str]:
    """One sentence or two per caveat."""
    flattering = len(answer.best) == 1 and answer.best[0].chosen and not answer.best[0].crossfitted
    return [
        *_of_stability(answer),
        *_of_cells(answer.cells),
        *(["Best against best rests on the seed that chose the best: it flatters the choice."] if flattering else []),
        *_of_seeds(answer.cells),
        *_of_power(answer),
        *_unlike(answer.unlike),
        *_unfinished(answer.runs),
        *answer.runs.notes,
        *clock.notes(answer.clock, answer.runs.runs),
        *comparability.warnings(answer.runs.runs, answer.run_savings),
        *cost_caveats(answer.cost),
    ]


def _of_stability(answer: Answer) -> list[str]:
    """Which of the differences in stability too few runs leave undecided."""
    unsure = {c.curriculum: c.p_value for c in contrasts(answer) if c.p_value is not None and c.p_value >= SIGNIFICANCE}
    if not unsure:
        return []
    listed = ", ".join(f"{name} p {p:.2g}" for name, p in unsure.items())
    return [
        "The difference in stability is a count, not significant at 5% (McNemar's exact test over the seeds and cells "
        f"that both were trained at: {listed})."
    ]


def _of_cells(cells: Sequence[CellSaving]) -> list[str]:
    lines = []
    if cells and max(c.seeds for c in cells) == 1:
        lines.append("One seed: no interval. A second seed may change the sign.")
    elif n := sum(c.seeds == 1 for c in cells):
        lines.append(f"{n} of {len(cells)} cells have one seed and no interval.")
    if n := sum(bool(c.compared) and c.tokens.censored in ("at_most", "at_least") for c in cells):
        lines.append(
            f"In {_count(n)} not every run reached the target: by the paper's definition the saving there is a bound."
        )
    if n := sum(disagree(c) and not c.diverged for c in cells):
        lines.append(
            f"In {_count(n)} of {len(cells)} the saving moves by more than {DISAGREE * 100:.0f} points with "
            "how a crossing is read (first evaluation, first crossing, last crossing); the table has all three."
        )
    return lines


def _of_seeds(cells: Sequence[CellSaving]) -> list[str]:
    lines = []
    if n := sum(c.lowest_common.low is not None and c.lowest_common.p_value is None for c in cells):
        lines.append(f"In {_count(n)} all seeds gave the same figure to the last digit: are they copies of one run?")
    if n := sum(c.waiting for c in cells):
        lines.append(
            f"{n} curriculum run{'s' * (n > 1)} cannot be compared yet and {'are' if n > 1 else 'is'} left out."
        )
    return lines


def _of_power(answer: Answer) -> list[str]:
    """What the tests could have detected, if anything is left undecided."""
    power = answer.power
    if power.smallest_saving is None or all(c.difference in ("saved", "cost") for c in answer.cells):
        return []
    spread = "an assumed spread" if power.assumed else "the spread of these runs"
    needed = [
        f"{saving} would need {'more than 1,000' if n is None else n} seeds"
        for saving, n in (("10%", power.seeds_for_10), ("20%", power.seeds_for_20))
        if n is None or n > power.seeds
    ]
    return [
        f"Power: with {power.seeds} seeds, {_count(power.cells)} and {spread} ({percent(power.sd)} of the ratio), a "
        f"true saving of {saved_share(min(power.smallest_saving, 0.999))} is significant with {POWER:.0%} probability"
        f"{'; ' if needed else ''}{' and '.join(needed)}."
    ]


_MOST_FACTOR = 10.0
"""An error of a reading by more than this factor is not given as a number."""

_UNLIKE: dict[Kind, str] = {
    "noise": "evaluations scatter {:.2g} times as much as the baseline's; amounts are read off smoothed curves",
    "grid": "was evaluated {:.2g} times as often as the baseline; amounts are read off smoothed curves",
    "budget": "has {:.3g} times the baseline's token budget: their learning rates decay differently",
    "hardly readable": "is so noisy, or falls so little, that one reading is off by a factor of about {:.2g} in tokens",
    "too few evaluations": "has {:.0f} evaluations above 0 tokens, too few to read amounts from",
}


def _unlike(differences: Sequence[Unlike]) -> list[str]:
    """One line per kind of difference between the arms of a cell, with its first cell."""
    lines = []
    for kind in _UNLIKE:
        own = [d for d in differences if d.kind == kind]
        if own:
            more = f" ({len(own) - 1} more)" if len(own) > 1 else ""
            lines.append(f"{own[0].cell.name}{more}: {_unlike_words(kind, own[0].ratio)}.")
    return lines


def _unlike_words(kind: Kind, ratio: float) -> str:
    if kind != "hardly readable":
        return _UNLIKE[kind].format(ratio)
    factor = math.exp(min(ratio, 700.0))  # a ratio is an error of log tokens
    if factor > _MOST_FACTOR:
        return "is so noisy, or falls so little, that no amount can be read from it"
    return _UNLIKE[kind].format(factor)


def _unfinished(runs: Runs) -> list[str]:
    states = runs.runs.loc[~runs.runs["state"].isin(["DONE", "DIVERGED"]), "state"]
    counts = ", ".join(f"{n} {str(s).lower()}" for s, n in states.value_counts().items())
    return [f"Not finished: {counts}."] if counts else []


def disagree(saving: CellSaving) -> bool:
    """Whether a cell's saving depends on METHODS: by more than DISAGREE, or in that some have none."""
    values = [e.point for e in saving.tokens_by_method.values()]
    points = [v for v in values if v is not None]
    if not points:
        return False
    return len(points) < len(values) or max(points) - min(points) > DISAGREE


def cost_caveats(cost: Cost) -> list[str]:
    """The cell whose saving falls most, visibly, once rolled-back training and tuning are counted."""
    falls = [(fall, c) for c in cost.cells if (fall := _fall(c)) >= 0.005]
    if not falls:
        return []
    _, worst = max(falls, key=lambda fall: fall[0])
    assert worst.saving_alone is not None
    assert worst.saving_counted is not None
    text = (
        f"With rolled-back attempts and tuning counted, {worst.cell.name} saved {percent(worst.saving_counted)} of the "
        f"{cost.unit.hour_word}s, not {percent(worst.saving_alone)}"
    )
    runs = worst.break_even
    if runs is not None:
        again = f"paid back after {runs:,.0f} run{'s' * (runs != 1)}" if math.isfinite(runs) else "never paid back"
        text += f"; its tuning is {again}"
    more = len(falls) - 1
    return [text + (f"; {more} more cell{'s' * (more > 1)} in the table of costs." if more else ".")]


def _fall(cost: CellCost) -> float:
    if cost.saving_alone is None or cost.saving_counted is None:
        return 0.0
    return cost.saving_alone - cost.saving_counted


def _count(n: int) -> str:
    return f"{n} cell{'s' * (n > 1)}"
