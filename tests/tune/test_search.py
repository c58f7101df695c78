"""The search against judges with known answers, and the criterion on hand-made curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cl_bench.config.tune import TuneConfig
from cl_bench.tune import run, search
from cl_bench.tune.probe import Space, judge

GRID = tuple(range(100, 2100, 100))
STARTS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Said:
    steady: bool
    begins_steady: bool = True


class Judge:
    """Answers from a rule and remembers what it was asked."""

    def __init__(self, steady: Callable[[int, int], bool], begins: Callable[[int], bool] = lambda start: True) -> None:
        self.steady, self.begins = steady, begins
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, purpose: str, start: int, duration: int) -> Said:
        self.calls.append((purpose, start, duration))
        begins = self.begins(start)
        return Said(begins and self.steady(start, duration), begins)


@pytest.mark.parametrize("largest", GRID)
@pytest.mark.parametrize("checks", [0, 1, 3])
def test_the_longest_steady_t_is_found_by_halving(largest: int, checks: int) -> None:
    ask = Judge(lambda _, duration: duration <= largest)
    outcome = search.search(STARTS, GRID, ask, checks)
    assert (outcome.start, outcome.duration, outcome.start_is_steady, outcome.contradictions) == (8, largest, True, ())
    assert outcome.fluctuates_at == (None if largest == GRID[-1] else largest + 100)
    assert len(set(ask.calls)) == len(ask.calls)  # nothing twice
    assert len(ask.calls) <= search.most_probes(len(STARTS), len(GRID), checks)
    assert sum(purpose == "T" for purpose, _, _ in ask.calls) <= 5


def test_the_shortest_start_that_begins_steadily() -> None:
    ask = Judge(lambda _, duration: duration <= 700, begins=lambda start: start >= 32)
    outcome = search.search(STARTS, GRID, ask)
    assert (outcome.start, outcome.duration, outcome.start_is_steady) == (32, 700, True)
    assert ask.calls[:3] == [("start", 8, 2000), ("start", 16, 2000), ("start", 32, 2000)]
    assert {start for _, start, _ in ask.calls[3:]} == {32}


def test_all_good() -> None:
    ask = Judge(lambda *_: True)
    outcome = search.search(STARTS, GRID, ask)
    assert (outcome.start, outcome.duration, outcome.fluctuates_at) == (8, 2000, None)
    assert len(ask.calls) == 1
    assert "the longest T searched is steady" in run.describe(outcome, Space(STARTS, GRID))[0]


def test_all_bad() -> None:
    outcome = search.search(STARTS, GRID, Judge(lambda *_: False, begins=lambda _: False), checks=2)
    assert (outcome.start, outcome.duration, outcome.start_is_steady, outcome.fluctuates_at) == (64, None, False, 100)
    words = run.describe(outcome, Space(STARTS, GRID))
    assert words[0].startswith("No steady T: with start 64, probes fluctuate from T = 100 on")
    assert words[1].startswith("Every start fluctuates at the beginning with T = 2000")


def test_starts_that_only_a_long_t_makes_fluctuate() -> None:
    class Late(Judge):
        def __call__(self, purpose: str, start: int, duration: int) -> Said:
            self.calls.append((purpose, start, duration))
            return Said(duration <= 500, duration <= 500)

    outcome = search.search(STARTS, GRID, Late(lambda *_: True))
    assert (outcome.start, outcome.duration, outcome.start_is_steady) == (64, 500, False)


def test_non_monotone_judgements_are_reported_if_seen() -> None:
    # Steady but for 500: the first check looks at the middle of the widest stretch, below the longest T.
    outcome = search.search((8,), tuple(range(100, 1100, 100)), Judge(lambda _, t: t != 500), checks=1)
    assert (outcome.duration, outcome.contradictions) == (1000, (500,))
    words = run.describe(outcome, Space((8,), (100, 1000)))
    assert any(sentence.startswith("But the shorter T = 500 fluctuates") for sentence in words)
    # Steady up to 200 and again at 800: halving ends at 200, the second check finds 800.
    outcome = search.search((8,), tuple(range(100, 1100, 100)), Judge(lambda _, t: t <= 200 or t == 800), checks=2)
    assert (outcome.duration, outcome.fluctuates_at, outcome.contradictions) == (800, 1000, (300, 500, 700))
    # Not looked for, not seen.
    outcome = search.search((8,), GRID, Judge(lambda _, t: t != 500), checks=0)
    assert (outcome.duration, outcome.contradictions) == (2000, ())


def test_a_single_value_of_t() -> None:
    assert search.search((8,), (100,), Judge(lambda *_: True), checks=3).duration == 100
    assert search.search((8,), (100,), Judge(lambda *_: False), checks=3).duration is None
    assert search.most_probes(1, 1, 3) == 1


# --- the criterion ----------------------------------------------------------------------------------------------------


def verdict(ppl: list[float], *, diverged: bool = False, **settings: object) -> tuple[bool, bool, float, int]:
    outcome = judge(
        [1000 * i for i in range(len(ppl))],
        ppl,
        tuning=TuneConfig(**settings),  # type: ignore[arg-type]
        beginning=2000,
        diverged=diverged,
    )
    return outcome.steady, outcome.begins_steady, outcome.worst_ratio, outcome.worst_tokens


def test_a_falling_curve_is_steady() -> None:
    assert verdict([256, 100, 50, 40, 30]) == (True, True, 0.8, 3000)


def test_at_the_threshold_is_steady_and_above_it_is_not() -> None:
    assert verdict([256, 100, 50, 65, 30]) == (True, True, 1.3, 3000)
    assert verdict([256, 100, 50, 65.1, 30])[:2] == (False, True)
    assert verdict([256, 100, 50, 65.1, 30], threshold=1.4)[:2] == (True, True)


def test_a_slow_rise_counts_from_the_best_so_far() -> None:
    steady, begins, ratio, at = verdict([256, 50, 40, 44, 48, 53])
    assert (steady, begins, at) == (False, True, 5000)
    assert ratio == pytest.approx(53 / 40)


def test_a_fluctuation_at_the_beginning() -> None:
    assert verdict([256, 100, 140, 60, 50])[:2] == (False, False)


def test_the_first_evaluations_are_not_judged_but_count_as_best() -> None:
    assert verdict([100, 400, 90, 80])[0]
    assert not verdict([100, 400, 90, 80], skip=0)[0]
    assert not verdict([256, 40, 60, 50])[0]


def test_not_finite_or_diverged_is_not_steady() -> None:
    assert verdict([256, math.nan, 50, 40]) == (False, False, math.inf, 1000)  # not even where nothing is judged
    assert verdict([256, 100, 50, math.inf])[:3] == (False, True, math.inf)
    assert verdict([256, 100, 50, 40], diverged=True)[:2] == (False, True)
    assert verdict([256, 100], diverged=True)[:2] == (False, False)
