"""Estimate of a saving over seeds: point, 95% interval, p-value, and the bound that censored runs leave; Holm.

All computations use the log of each seed's ratio curriculum / baseline: a ratio of two amounts is positive and skewed,
its log is neither. A saving is 1 - ratio, as a share.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from analysis.stats.crossings import Crossing

CONFIDENCE = 0.95
"""Of every interval."""
SIGNIFICANCE = 0.05
"""Level of the tests: 1 - CONFIDENCE."""
BOOTSTRAP_FROM = 100
"""Number of seeds from which the bootstrap replaces Student's t; with fewer it covers less often than stated."""
_RESAMPLES = 9_999
_BOOTSTRAP_SEED = 0  # the same data give the same interval

Censored = Literal["", "at_most", "at_least", "unbounded"]
"""What is known of a pair's or cell's saving: its value (""), an upper bound, a lower bound, or neither.

A curriculum that never reached the target took longer than it was trained, so it saved at most 1 - trained / baseline.
A baseline that never reached it gives a lower bound. If neither did, nothing is known.
"""
IntervalMethod = Literal["", "t", "bootstrap", "welch", "censored", "jackknife"]
METHOD_WORDS: dict[IntervalMethod, str] = {
    "": "no interval",
    "t": "Student's t on the log ratio",
    "bootstrap": f"BCa bootstrap of the log ratio, {_RESAMPLES:,} resamples",
    "welch": "Welch's t on log amounts, runs of different seeds (unpaired)",
    "censored": "profile likelihood of a normal log ratio, with runs that never arrived as bounds",
    "jackknife": "delete-one-seed jackknife of the log ratio, the clock fitted again each time",
}


class Interval(NamedTuple):
    """A mean over seeds with its 95% interval and the two-sided p-value of a mean of 0; each of shape (...)."""

    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    p_value: npt.NDArray[np.float64]


class Pair(NamedTuple):
    """The log ratio curriculum / baseline of one seed, or its bound if a run was censored."""

    log_ratio: float
    censored: Censored = ""

    @property
    def saving(self) -> float:
        """1 - ratio; NaN if censored."""
        return math.nan if self.censored else -math.expm1(self.log_ratio)

    @property
    def bound(self) -> float:
        """The bound on the saving; NaN unless censored on one side."""
        return -math.expm1(self.log_ratio) if self.censored in ("at_most", "at_least") else math.nan

    @classmethod
    def exact(cls, log_ratio: float) -> Self:
        """A log ratio without a bound: unbounded if it is not finite."""
        return cls(log_ratio, "" if math.isfinite(log_ratio) else "unbounded")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A saving over the seeds of a cell, as shares (0.37: 37% less; negative: more)."""

    point: float | None = None
    """1 - the geometric mean of the ratios; None if a pair is censored."""
    low: float | None = None
    """Ends of the 95% interval; None with one seed. For a bound, only the end on its side is known."""
    high: float | None = None
    p_value: float | None = None
    """Of the two-sided t test of a ratio of 1 on the log ratios; None without an interval or without spread."""
    method: IntervalMethod = ""
    """How the interval was computed."""
    bound: float | None = None
    """If pairs are censored: the bound on the saving of these seeds."""
    censored: Censored = "unbounded"
    """The kind of bound; "" if there is a point."""
    arrived: int = 0
    """Pairs in which both runs reached the target."""
    n: int = 0
    """All pairs."""

    @property
    def span(self) -> tuple[float, float] | None:
        """Both ends of the interval, if there are both."""
        return None if self.low is None or self.high is None else (self.low, self.high)


NO_ESTIMATE = Estimate()
"""Of no seed."""


def pair(curriculum: float, baseline: float, curriculum_bound: float, baseline_bound: float) -> Pair:
    """One seed's pair from the amounts to the target (NaN: never reached) and the amounts each run was trained for.

    Amounts are tokens, seconds or GPU-hours. Against a baseline that needed none there is no ratio: unbounded.
    """
    ours, theirs = (not math.isnan(curriculum)), (not math.isnan(baseline))
    top = curriculum if ours else curriculum_bound
    bottom = baseline if theirs else baseline_bound
    if not (top > 0 and bottom > 0) or not (ours or theirs):
        return Pair(math.nan, "unbounded")
    censored: Censored = "" if ours and theirs else "at_most" if theirs else "at_least"
    return Pair(math.log(top / bottom), censored)


def pair_of(
    curriculum: Crossing,
    baseline: Crossing,
    what: Literal["tokens", "seconds"] = "tokens",
    ranks: tuple[float, float] = (1, 1),
) -> Pair:
    """One seed's pair in tokens or seconds, each side multiplied by its `ranks`.

    A run that begins at or below the target reached it at its first evaluation at the latest: for a curriculum this
    gives a lower bound on the saving, for a baseline no comparison.
    """
    if baseline.from_start:
        return Pair(math.nan, "unbounded")
    amounts, bounds = [], []
    for crossing, n in zip((curriculum, baseline), ranks, strict=True):
        reached = crossing.tokens if what == "tokens" else crossing.seconds
        amounts.append(math.nan if reached is None else reached * n)
        bounds.append(n * (crossing.tokens_bound if what == "tokens" else crossing.seconds_bound))
    result = pair(amounts[0], amounts[1], bounds[0], bounds[1])
    if not curriculum.from_start:
        return result
    return Pair(result.log_ratio, "at_least") if not result.censored else Pair(math.nan, "unbounded")


def estimate(pairs: Sequence[Pair]) -> Estimate:
    """Point and interval over seeds, or a bound if some pairs are censored; no pair is dropped.

    The bound is that of the geometric mean with each censored ratio at its own bound: a statement about these seeds.
    The end of the interval on its side is the t interval's of the same logs, so its centre is conservative. Pairs
    censored on different sides give no bound.
    """
    n, arrived = len(pairs), sum(not p.censored for p in pairs)
    sides = {p.censored for p in pairs if p.censored}
    if not pairs or len(sides) > 1 or "unbounded" in sides:
        return Estimate(arrived=arrived, n=n)
    logs = np.array([p.log_ratio for p in pairs])
    low, high = _ends(logs)
    value, method = _saving(logs.mean()), method_for(n)
    if not sides:
        p_value = _p_value(logs) if n > 1 else None
        return Estimate(value, low, high, p_value, method, None, "", arrived, n)
    (side,) = sides
    low, high = low if side == "at_least" else None, high if side == "at_most" else None
    return Estimate(None, low, high, None, method, value, side, arrived, n)


def estimate_savings(savings: Iterable[float]) -> Estimate:
    """The estimate over one saving per seed (shares); without point and bound if any is NaN."""
    return estimate([Pair.exact(math.log1p(-s) if s < 1 else math.nan) for s in savings])


def _saving(log_ratio: float | np.floating) -> float:
    return -math.expm1(float(log_ratio))


def _ends(logs: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The saving's interval: low, high."""
    if len(logs) < 2:
        return None, None
    low, high = log_interval(logs[:, None])
    return _saving(high[0]), _saving(low[0])


def widened(base: Estimate, logs: Sequence[float], factor: float) -> Estimate:
    """The estimate with its t interval `factor` times as wide on the log ratio, and p by the same standard error."""
    if base.point is None or base.low is None:
        return base
    values = np.asarray(logs)
    error = factor * float(_standard_error(values))
    half = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error
    mean = float(values.mean())
    p_value = float(2 * special.stdtr(len(values) - 1, -abs(mean / error))) if error > 1e-12 else None
    low, high = _saving(mean + half), _saving(mean - half)
    return dataclasses.replace(base, low=low, high=high, p_value=p_value, method="t")


def method_for(n_seeds: int) -> IntervalMethod:
    """How the interval over `n_seeds` is computed."""
    if n_seeds < 2:
        return ""
    return "bootstrap" if n_seeds >= BOOTSTRAP_FROM else "t"


def log_interval(logs: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Low and high end of the 95% interval of the mean log ratio; `logs` has shape (seeds, figures), seeds >= 2."""
    mean = logs.mean(axis=0)
    if method_for(len(logs)) == "bootstrap" and (np.ptp(logs, axis=0) > 0).all():
        interval = stats.bootstrap(
            (logs,),
            np.mean,
            axis=0,
            confidence_level=CONFIDENCE,
            n_resamples=_RESAMPLES,
            batch=1 + 2_000_000 // logs.size,
            rng=np.random.default_rng(_BOOTSTRAP_SEED),
        ).confidence_interval
        return np.asarray(interval.low), np.asarray(interval.high)
    half = special.stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2) * _standard_error(logs)
    return mean - half, mean + half


def _standard_error(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    error: npt.NDArray[np.float64] = logs.std(axis=0, ddof=1) / math.sqrt(len(logs))
    return error


def _p_value(logs: npt.NDArray[np.float64]) -> float | None:
    mean, error = float(logs.mean()), float(_standard_error(logs))
    if error <= 1e-12:  # seeds without spread are copies of one run
        return None
    return float(2 * special.stdtr(len(logs) - 1, -abs(mean / error)))


def t_interval(values: npt.NDArray[np.float64], factor: float = 1.0) -> Interval:
    """Student's t over the last axis of `values` (..., seeds >= 2), with the standard error multiplied by `factor`."""
    n = values.shape[-1]
    mean, error = values.mean(-1), factor * values.std(-1, ddof=1) / math.sqrt(n)
    return interval_from(mean, error, np.full_like(mean, n - 1.0))


def interval_from(
    mean: npt.NDArray[np.float64], error: npt.NDArray[np.float64], df: npt.NDArray[np.float64]
) -> Interval:
    """The t interval of a mean with standard error `error` and `df` degrees of freedom, each of shape (...)."""
    half = special.stdtrit(df, (1 + CONFIDENCE) / 2) * error
    p_value = 2 * special.stdtr(df, -np.abs(mean) / np.maximum(error, 1e-300))
    return Interval(mean, mean - half, mean + half, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given; they control the family-wise error rate.

    Sorted, the k-th of m is multiplied by m - k + 1, never falls below the one before it, and is at most 1 (S. Holm,
    Scandinavian Journal of Statistics 6, 1979). NaN stays NaN and is not counted.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    given = np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(a) for a in adjusted]
