"""Difference of final validation loss at equal tokens and at equal seconds: it exists for every cell with two seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis.stats.crossings import Curve
from analysis.stats.intervals import Interval, IntervalMethod, t_interval

Axis = Literal["tokens", "seconds"]


@dataclasses.dataclass(frozen=True)
class LossDifference:
    """Curriculum minus baseline, in nats per token; negative: the curriculum is better."""

    mean: float | None = None
    """None if no pair of runs has finished."""
    low: float | None = None
    """Ends of the 95% interval; None with one seed."""
    high: float | None = None
    p_value: float | None = None
    """Of a difference of 0; None with one seed or without spread."""
    p_holm: float | None = None
    """`p_value` adjusted over the cells that have one."""
    method: IntervalMethod = ""
    n: int = 0
    """Pairs; in an unpaired comparison, runs of the smaller arm."""

    @property
    def span(self) -> tuple[float, float] | None:
        """Both ends of the interval, if there are both."""
        return None if self.low is None or self.high is None else (self.low, self.high)


NO_DIFFERENCE = LossDifference()
"""Of no seed."""


def difference_at_end(curriculum: Curve, baseline: Curve, axis: Axis = "tokens") -> float:
    """Loss of one pair, curriculum minus baseline (nats), where the shorter of the two runs ended.

    The longer run is read on the straight line between its evaluations, as evaluated: noise of mean zero is part of the
    spread. At equal seconds the longer run has not finished its learning-rate decay there. NaN without seconds.
    """
    ours, theirs = (c.tokens if axis == "tokens" else c.seconds for c in (curriculum, baseline))
    end = min(float(ours[-1]), float(theirs[-1]))
    if not end > 0:
        return math.nan
    return float(np.interp(end, ours, curriculum.loss) - np.interp(end, theirs, baseline.loss))


def loss_difference(values: Sequence[float], factor: float = 1.0) -> LossDifference:
    """Student's t over the seeds' differences; NaN values are left out. `factor` multiplies the standard error."""
    finite = np.array([v for v in values if math.isfinite(v)])
    if not len(finite):
        return LossDifference()
    if len(finite) == 1:
        return LossDifference(float(finite[0]), n=1)
    return from_interval(t_interval(finite, factor), "t", len(finite))


def from_interval(interval: Interval, method: IntervalMethod, n: int) -> LossDifference:
    """The difference of an interval in nats; without a p-value if the seeds have no spread."""
    mean, low, high, p_value = (float(v) for v in interval)
    copies = high - low <= 1e-12
    return LossDifference(mean, low, high, None if copies else p_value, None, method, n)
