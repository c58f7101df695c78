"""Two-sided interval of a saving of which some seeds are bounds: censored normal likelihood of the log ratio.

For the paper's own definition, the saving at the baseline's final loss, where not every run arrives. A description,
never the basis of a test: it needs normal log ratios, which the flat end of a cosine schedule does not give.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from analysis.stats.intervals import CONFIDENCE, Estimate, Pair, estimate

Floats = npt.NDArray[np.float64]
_REACH = 12.0
"""Spreads from the known mean within which the ends are sought; beyond, the likelihood does not close."""
_SIGMAS = (0.05, 8.0)
"""The standard deviation is sought within these multiples of the known spread."""


def censored_estimate(pairs: Sequence[Pair]) -> Estimate:
    """`estimate`, with both ends of the interval from the likelihood if pairs are bounds.

    An end that the likelihood leaves open is None, and so are both if fewer than two seeds have a value.
    """
    base = estimate(pairs)
    values = np.array([p.log_ratio for p in pairs], dtype=float)
    side = np.array([{"at_most": 1, "at_least": -1}.get(p.censored, 0) for p in pairs])
    if not side.any() or any(p.censored == "unbounded" for p in pairs) or (side == 0).sum() < 2:
        return base
    low, high = (end if math.isfinite(end) else None for end in likelihood_interval(values, side))
    return dataclasses.replace(
        base,
        low=None if high is None else -math.expm1(high),
        high=None if low is None else -math.expm1(low),
        method="censored",
    )


def likelihood_interval(values: Floats, side: npt.NDArray[np.int_]) -> tuple[float, float]:
    """Low and high end of the 95% interval of a normal mean, infinite where the likelihood does not close.

    `values` (n,) holds values or, where `side` (n,) is 1 (-1), bounds that the value lies above (below); two values or
    more. The likelihood ratio is compared with n ln(1 + t^2 / (n - 1)), so that without bounds it is Student's t.
    """
    n, exact = len(values), side == 0
    center, spread = float(values[exact].mean()), float(values[exact].std())
    unit = max(spread, float(np.ptp(values)) / 4, 1e-6)
    quantile = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    limit = 0.5 * n * math.log1p(quantile**2 / (n - 1))

    def profile(mean: float) -> float:
        """Log likelihood at `mean`, at its best standard deviation."""

        def negative(log_sigma: float) -> float:
            z = (values - mean) / math.exp(log_sigma)
            parts = np.where(exact, -0.5 * z**2 - log_sigma, special.log_ndtr(np.where(side > 0, -z, z)))
            return -float(parts.sum())

        bounds = (math.log(_SIGMAS[0] * unit), math.log(_SIGMAS[1] * unit))
        return -float(optimize.minimize_scalar(negative, bounds=bounds, method="bounded").fun)

    lowest, highest = center - _REACH * unit, center + _REACH * unit
    best = optimize.minimize_scalar(
        lambda mean: -profile(float(mean)), bounds=(center - 3 * unit, center + 3 * unit), method="bounded"
    )
    peak, top = float(best.x), -float(best.fun)

    def below(mean: float) -> float:
        return profile(mean) - (top - limit)

    return _end(below, peak, lowest), _end(below, peak, highest)


def _end(below: Callable[[float], float], inside: float, outside: float) -> float:
    """Where `below` changes sign between the peak and the edge; infinite if it does not."""
    if below(outside) >= 0:
        return math.copysign(math.inf, outside - inside)
    return float(optimize.brentq(below, inside, outside, xtol=1e-9))
