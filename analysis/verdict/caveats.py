"""What a reader must know before repeating the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.schema import Runs
from analysis.stats.best_vs_best import Best

DISAGREE = 0.05
"""Savings that differ by more than this with how a crossing is read are named."""


def caveats(runs: Runs, grid: list[dict[str, Any]], champions: Sequence[Best] = ()) -> list[str]:
    """What a reader must know before repeating the sentence."""
    found = []
    if grid and max(c["of"] for c in grid) == 1:
        found.append("One seed: no interval. A second seed may change the sign.")
    elif grid and (n := sum(c["of"] == 1 for c in grid)):
        found.append(f"{n} of {len(grid)} cells have one seed and no interval.")
    censored = [c for c in grid if c["censored"] in ("at_most", "at_least")]
    if censored:
        found.append(
            f"In {_cells(len(censored))} not every run reached the target: the saving there is a bound; as far as both "
            "runs of each seed got there is a figure, and on that differences are called."
        )
    differ = [c for c in grid if disagree(c)]
    if differ:
        found.append(
            f"In {_cells(len(differ))} of {len(grid)} the saving moves by more than {DISAGREE * 100:.0f} points with "
            "how a crossing is read (first evaluation, first crossing, last crossing); the table has all three."
        )
    if any(not b.crossfitted and b.candidates != (1, 1) for b in champions):
        found.append("Best against best rests on the seed that chose the best: it flatters the choice.")
    alike = sum(c["both_saving_low"] is not None and c["token_p"] is None for c in grid)
    if alike:
        found.append(
            f"In {_cells(alike)} all seeds gave the same figure to the last digit: are they copies of one run?"
        )
    late = sum(c["waiting"] for c in grid)
    if late:
        found.append(f"{late} curriculum run{'s' * (late > 1)} cannot be compared yet and counted for nothing.")
    open_states = runs.runs[~runs.runs["state"].isin(["DONE", "DIVERGED"])]
    if len(open_states):
        counts = open_states["state"].value_counts()
        found.append("Not finished: " + ", ".join(f"{n} {str(s).lower()}" for s, n in counts.items()) + ".")
    return [*found, *runs.notes]


def disagree(cell: Mapping[str, Any]) -> bool:
    """Whether a cell's saving depends on how a crossing is read, by more than DISAGREE or in that one never comes."""
    values = [cell["token_saving_interpolate"], cell["token_saving_first"], cell["token_saving_sustained"]]
    known = [v for v in values if v is not None]
    if not known:
        return False
    return len(known) < len(values) or max(known) - min(known) > DISAGREE


def _cells(n: int) -> str:
    return f"{n} cell{'s' * (n > 1)}"
