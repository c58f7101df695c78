"""The recipe as a pure search: a start length, a binary search of T, and a look at what the search takes for granted.

It asks a judge about (start, T) and knows nothing of runs. The same answers always lead to the same questions, so a
search that was interrupted is taken up by asking again.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

Purpose = Literal["start", "T", "check"]


class Answer(Protocol):
    """What a probe showed."""

    @property
    def begins_steady(self) -> bool:
        """Whether the perplexity was steady at the very beginning."""

    @property
    def steady(self) -> bool:
        """Whether it was steady from the beginning to the end."""


Judge = Callable[[Purpose, int, int], Answer]
"""(purpose, start length, T) -> answer."""


@dataclasses.dataclass(frozen=True)
class Found:
    """How a search ended."""

    start: int
    duration: int | None
    """The longest T that was steady; None: no probe was."""
    start_is_steady: bool
    """False: every start fluctuated at the beginning, and the search went on with the longest."""
    fluctuates_at: int | None
    """The shortest longer T that fluctuates; None: none did."""
    contradictions: tuple[int, ...] = ()
    """Every T that fluctuates although a longer one is steady: the search took for granted that there is none."""


def most_probes(starts: int, durations: int, checks: int) -> int:
    """The most probes that a search over so many starts and values of T asks for."""
    within = math.ceil(math.log2(durations)) if durations > 1 else 0
    return starts + within + min(checks, max(0, durations - 1 - within))


def search(starts: Sequence[int], durations: Sequence[int], judge: Judge, checks: int = 0) -> Found:
    """Find the first of `starts` that begins steadily with the longest T, and with it the longest steady T.

    Each start is tried with the longest T, where the length stays near it longest and a start that is too short has
    nowhere to hide. That probe is the first of the binary search, too: no pair is asked about twice. When all starts
    fail, T may be the reason, and the search goes on with the longest of them.
    """
    last = len(durations) - 1
    start, start_is_steady = starts[-1], False
    for start in starts:
        answer = judge("start", start, durations[last])
        if answer.begins_steady:
            start_is_steady = True
            break
    steady = {last: answer.steady}  # index in durations -> answer

    def ask(purpose: Purpose, index: int) -> None:
        steady[index] = judge(purpose, start, durations[index]).steady

    below, above = (last, last + 1) if steady[last] else (-1, last)
    while above - below > 1:
        middle = (below + above) // 2
        ask("T", middle)
        below, above = (middle, above) if steady[middle] else (below, middle)
    for _ in range(checks):
        left, right = max(itertools.pairwise([-1, *sorted(steady)]), key=lambda gap: gap[1] - gap[0])
        if right - left < 2:
            break
        ask("check", (left + right) // 2)

    longest = max((i for i, is_steady in steady.items() if is_steady), default=-1)
    fluctuating = sorted(i for i, is_steady in steady.items() if not is_steady)
    return Found(
        start=start,
        duration=durations[longest] if longest >= 0 else None,
        start_is_steady=start_is_steady,
        fluctuates_at=next((durations[i] for i in fluctuating if i > longest), None),
        contradictions=tuple(durations[i] for i in fluctuating if i < longest),
    )
