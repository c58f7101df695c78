"""A saving over seeds: its point, its 95% interval, and what is left of both where runs never arrived.

Everything is computed on the log of the ratio curriculum / baseline of each seed's pair: a ratio of two amounts is
positive and skewed, its log is neither. A saving is 1 - ratio, as a share.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from analysis.stats.crossings import Crossing

CONFIDENCE = 0.95
BOOTSTRAP_FROM = 100
"""Seeds from which on the bootstrap replaces Student's t: with fewer its own coverage falls short of its name."""
_RESAMPLES = 9_999
_BOOTSTRAP_SEED = 0  # the same data give the same interval, whoever asks

Censored = Literal["", "at_most", "at_least", "unbounded"]
"""What is known of a pair or a cell: the saving ("", exact), at most or at least so much, or neither.

A curriculum that never arrived took longer than it was trained: it saved at most 1 - trained / baseline. A baseline
that never arrived bounds the saving from below. Where neither arrived, nothing is known.
"""
IntervalMethod = Literal["", "t", "bootstrap"]
METHOD_WORDS: dict[IntervalMethod, str] = {
    "": "no interval",
    "t": "Student's t on the log ratio",
    "bootstrap": f"BCa bootstrap of the log ratio, {_RESAMPLES:,} resamples",
}


class Pair(NamedTuple):
    """The log ratio curriculum / baseline of one seed, or the bound that censoring leaves of it."""

    log_ratio: float
    censored: Censored = ""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A saving over the seeds of a cell, as shares (0.37: 37% less; negative: more was needed)."""

    point: float | None
    """1 - the geometric mean of the ratios; None where a pair is censored."""
    low: float | None
    """Ends of the 95% interval; None with one seed. Where the saving is at most (at least) so much, only the end on
    that side is there: nothing is known of the other."""
    high: float | None
    p_value: float | None
    """Of a ratio of 1, by a two-sided t test on the log ratios; None where there is no interval, or no spread."""
    method: IntervalMethod
    """How the interval was computed."""
    bound: float | None
    """Where pairs are censored: what the saving of these seeds is at most or at least."""
    censored: Censored
    """Which of the two the bound is."""
    arrived: int
    """Pairs in which both arrived."""
    n: int
    """All pairs."""


NOTHING = Estimate(None, None, None, None, "", None, "unbounded", 0, 0)


def pair(curriculum: float, baseline: float, curriculum_bound: float, baseline_bound: float) -> Pair:
    """One seed's pair from what each needed to the target (NaN: never arrived) and how far each was followed.

    Amounts in tokens, seconds or GPU-hours. A baseline that needed nothing has no ratio: unbounded.
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
    """One seed's pair in tokens or seconds, each side times its `ranks`.

    A run that begins at or below the target was there at its first evaluation at the latest. Of a curriculum that makes
    the saving at least so much; a baseline like that leaves nothing to compare with.
    """
    if baseline.from_start:
        return Pair(math.nan, "unbounded")
    amounts, bounds = [], []
    for crossing, n in zip((curriculum, baseline), ranks, strict=True):
        reached = crossing.tokens if what == "tokens" else crossing.seconds
        amounts.append(math.nan if reached is None else reached * n)
        bounds.append(n * (crossing.tokens_bound if what == "tokens" else crossing.seconds_bound))
    found = pair(amounts[0], amounts[1], bounds[0], bounds[1])
    if not curriculum.from_start:
        return found
    return Pair(found.log_ratio, "at_least") if not found.censored else Pair(math.nan, "unbounded")


def estimate(pairs: Sequence[Pair]) -> Estimate:
    """Point and interval over seeds, or the bound where some never arrived. None of them is dropped.

    The bound is that of the geometric mean with each censored ratio at its own bound: a statement about these seeds.
    The end of the interval on its side is the t interval's of the same logs, and so conservative in its centre. Pairs
    censored on different sides bound nothing.
    """
    if not pairs:
        return NOTHING
    sides = {p.censored for p in pairs if p.censored}
    arrived = sum(not p.censored for p in pairs)
    logs = np.array([p.log_ratio for p in pairs])
    if sides:
        side: Censored = next(iter(sides)) if len(sides) == 1 else "unbounded"
        if side == "unbounded":
            return Estimate(None, None, None, None, "", None, side, arrived, len(pairs))
        low, high = _ends(logs)
        return Estimate(
            None,
            low if side == "at_least" else None,
            high if side == "at_most" else None,
            None,
            method_for(len(logs)),
            _saving(logs.mean()),
            side,
            arrived,
            len(pairs),
        )
    low, high = _ends(logs)
    p_value = _p_value(logs) if len(logs) > 1 else None
    return Estimate(_saving(logs.mean()), low, high, p_value, method_for(len(logs)), None, "", arrived, len(pairs))


def _saving(log_ratio: float | np.floating) -> float:
    return -math.expm1(float(log_ratio))


def _ends(logs: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The saving's interval: low, high."""
    if len(logs) < 2:
        return None, None
    low, high = log_interval(logs[:, None])
    return _saving(high[0]), _saving(low[0])


def widened(found: Estimate, logs: Sequence[float], factor: float) -> Estimate:
    """The estimate with its t interval `factor` times as wide on the log ratio, and p by the same standard error."""
    if found.point is None or found.low is None:
        return found
    values = np.asarray(logs)
    error = factor * float(_standard_error(values))
    half = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error
    mean = float(values.mean())
    p_value = float(2 * special.stdtr(len(values) - 1, -abs(mean / error))) if error > 1e-12 else None
    low, high = _saving(mean + half), _saving(mean - half)
    return dataclasses.replace(found, low=low, high=high, p_value=p_value, method="t")


def method_for(n_seeds: int) -> IntervalMethod:
    """How an interval over so many seeds is computed."""
    if n_seeds < 2:
        return ""
    return "bootstrap" if n_seeds >= BOOTSTRAP_FROM else "t"


def log_interval(logs: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Low and high end of the 95% interval of the mean log ratio; `logs` has shape (seeds, figures), seeds >= 2."""
    mean = logs.mean(axis=0)
    if method_for(len(logs)) == "bootstrap" and (np.ptp(logs, axis=0) > 0).all():
        found = stats.bootstrap(
            (logs,),
            np.mean,
            axis=0,
            confidence_level=CONFIDENCE,
            n_resamples=_RESAMPLES,
            batch=1 + 2_000_000 // logs.size,
            rng=np.random.default_rng(_BOOTSTRAP_SEED),
        ).confidence_interval
        return np.asarray(found.low), np.asarray(found.high)
    half = special.stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2) * _standard_error(logs)
    return mean - half, mean + half


def _standard_error(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    error: npt.NDArray[np.float64] = logs.std(axis=0, ddof=1) / math.sqrt(len(logs))
    return error


def _p_value(logs: npt.NDArray[np.float64]) -> float | None:
    mean, error = float(logs.mean()), float(_standard_error(logs))
    if error <= 1e-12:  # seeds that do not differ are copies, and prove nothing
        return None
    return float(2 * special.stdtr(len(logs) - 1, -abs(mean / error)))


def summarise(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """(point, low, high) of savings (shares) of pairs that all arrived."""
    found = estimate([Pair(float(np.log1p(-v))) for v in values])
    if found.point is None:
        raise ValueError(f"no saving can be summarised from {list(values)}")
    return found.point, found.low, found.high
