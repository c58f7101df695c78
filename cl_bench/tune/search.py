"""The recipe as a pure function: search for a start length, binary search for T, checks of monotonicity.

A judge answers for (start, T). The search is deterministic, so an interrupted one is resumed by starting it again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from cl_bench.runs.search_record import Outcome, Purpose


class Steadiness(Protocol):
    """Result of a probe."""

    @property
    def begins_steady(self) -> bool:
        """Whether the perplexity was steady at the very beginning."""

    @property
    def steady(self) -> bool:
        """Whether it was steady from the beginning to the end."""


Judge = Callable[[Purpose, int, int], Steadiness]
"""(purpose, start length, T) -> steadiness."""


def most_probes(starts: int, durations: int, checks: int) -> int:
    """Upper bound on the number of probes for `starts` start lengths and `durations` values of T."""
    halvings = math.ceil(math.log2(durations)) if durations > 1 else 0
    return starts + halvings + min(checks, max(0, durations - 1 - halvings))


def search(starts: Sequence[int], durations: Sequence[int], judge: Judge, checks: int = 0) -> Outcome:
    """Find the first of `starts` that begins steadily with the longest T, and with it the longest steady T.

    Starts are probed with the longest T, under which the length stays near the start longest, so that too short a start
    shows. That probe is also the first of the binary search: no pair is probed twice. If all starts fail, which may be
    due to T, the search continues with the longest.
    """
    last = len(durations) - 1
    start, start_is_steady = starts[-1], False
    for start in starts:
        result = judge("start", start, durations[last])
        if result.begins_steady:
            start_is_steady = True
            break
    steady = {last: result.steady}  # by index in durations

    def probe(purpose: Purpose, index: int) -> None:
        steady[index] = judge(purpose, start, durations[index]).steady

    below, above = (last, last + 1) if steady[last] else (-1, last)
    while above - below > 1:
        middle = (below + above) // 2
        probe("T", middle)
        below, above = (middle, above) if steady[middle] else (below, middle)
    for _ in range(checks):
        left, right = max(itertools.pairwise([-1, *sorted(steady)]), key=lambda gap: gap[1] - gap[0])
        if right - left < 2:
            break
        probe("check", (left + right) // 2)

    longest = max((i for i, is_steady in steady.items() if is_steady), default=-1)
    fluctuating = sorted(i for i, is_steady in steady.items() if not is_steady)
    return Outcome(
        start=start,
        duration=durations[longest] if longest >= 0 else None,
        start_is_steady=start_is_steady,
        fluctuates_at=next((durations[i] for i in fluctuating if i > longest), None),
        contradictions=tuple(durations[i] for i in fluctuating if i < longest),
    )
