"""Power of the tests: the smallest saving that can be significant, the seeds that others need, and equivalence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from analysis.stats.intervals import SIGNIFICANCE

DEFAULT_SD = 0.1
"""Spread of a pair's log ratio that is assumed without records; synthetic and real sweeps had 0.06 to 0.28."""
POWER = 0.8
MARGIN = 0.05
"""Savings and costs up to this share count as equivalent."""
_MOST_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class Power:
    """What a sweep's tests can detect in 80% of cases, after Holm's correction over its cells."""

    sd: float
    """Standard deviation of a pair's log ratio, pooled over the cells."""
    assumed: bool
    """Whether `sd` is DEFAULT_SD because no cell has two seeds."""
    seeds: int
    """Pairs of the typical (median) cell; at least 1."""
    cells: int
    """Cells tested together; at least 1."""
    smallest_saving: float | None
    """The smallest true saving (share) that is significant with 80% probability; None with one seed."""
    seeds_for_10: int | None
    """Seeds with which a true saving of 10% is significant with 80% probability; None if more than 1,000."""
    seeds_for_20: int | None


def power(log_ratio: float, sd: float, seeds: int, alpha: float) -> float:
    """Probability that a two-sided t test at `alpha` detects a true mean log ratio, in its own direction."""
    bound = float(special.stdtrit(seeds - 1, 1 - alpha / 2))
    return float(stats.nct.sf(bound, seeds - 1, abs(log_ratio) / sd * math.sqrt(seeds)))


def smallest_saving(sd: float, seeds: int, cells: int) -> float:
    """The smallest saving (share) that is significant with probability POWER, at Holm's first level 0.05 / cells.

    `sd` is that of a pair's log ratio; two seeds or more. Holm's later levels are easier, so a cell among others that
    differ needs less.
    """
    alpha = SIGNIFICANCE / cells
    enough = sd
    while power(enough, sd, seeds, alpha) < POWER:
        enough *= 2
    ratio = optimize.brentq(lambda d: power(d, sd, seeds, alpha) - POWER, 1e-9 * sd, enough)
    return -math.expm1(-float(ratio))


def seeds_needed(saving: float, sd: float, cells: int) -> int | None:
    """Seeds with which a true `saving` is significant with probability POWER; None if more than 1,000."""
    ratio = -math.log1p(-saving)

    def enough(seeds: int) -> bool:
        return power(ratio, sd, seeds, SIGNIFICANCE / cells) >= POWER

    if not enough(_MOST_SEEDS):
        return None
    low, high = 1, _MOST_SEEDS  # power rises with seeds: bisect for the first that suffice
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def pooled_sd(cells: Sequence[Sequence[float]]) -> float | None:
    """Spread of a log ratio over cells' seeds: root of the mean variance by degrees of freedom; None without any."""
    parts = [np.asarray(values) for values in cells if len(values) > 1]
    df = sum(len(p) - 1 for p in parts)
    return math.sqrt(sum(float(p.var(ddof=1)) * (len(p) - 1) for p in parts) / df) if df else None


def sweep_power(cells: Sequence[Sequence[float]]) -> Power:
    """The power of a sweep from the log ratios of each cell tested, one per seed."""
    sd = pooled_sd(cells)
    assumed = sd is None or sd < 1e-9  # copies of one run have no spread
    spread = DEFAULT_SD if sd is None or assumed else sd
    seeds = max(1, int(np.median([len(c) for c in cells]))) if cells else 1
    count = max(1, sum(len(c) > 1 for c in cells))
    return Power(
        sd=spread,
        assumed=assumed,
        seeds=seeds,
        cells=count,
        smallest_saving=smallest_saving(spread, seeds, count) if seeds > 1 else None,
        seeds_for_10=seeds_needed(0.10, spread, count),
        seeds_for_20=seeds_needed(0.20, spread, count),
    )


def equivalence_p(log_ratios: Sequence[float], margin: float = MARGIN) -> float | None:
    """TOST (Schuirmann 1987): p-value of a saving or cost of `margin` or more, over one log ratio per seed.

    The larger of two one-sided t tests' p-values; None with fewer than two seeds or without spread.
    """
    values = np.asarray(log_ratios)
    if len(values) < 2 or values.std() <= 1e-12:
        return None
    mean, error, df = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1
    above = special.stdtr(df, -(mean - math.log1p(-margin)) / error)
    below = special.stdtr(df, -(math.log1p(margin) - mean) / error)
    return float(max(above, below))
