"""Error rates of the correlation test, on pairs of synthetic series with known correlation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import signal

from analysis.stats.boundary import proportion
from analysis.stats.correlation import COEFFICIENTS, Coefficient, half_width, p_value, tested
from analysis.stats.crossings import Floats
from analysis.stats.intervals import SIGNIFICANCE


@dataclasses.dataclass(frozen=True)
class CorrelationRow:
    """The results of many pairs of series of one kind."""

    points: int
    phi: float
    """Autocorrelation of neighbouring points."""
    true_r: float
    """Correlation of the two series' noise."""
    coefficient: Coefficient
    series: int
    """Pairs of series."""
    share: float
    """Share of pairs with a significant correlation: a rate of errors if `true_r` is 0, else the power."""
    share_low: float
    """Exact interval of `share`."""
    share_high: float
    naive_share: float
    """The same by the test that counts every point as independent."""
    covered: float
    """Share of the intervals that hold the truth."""
    effective_points: float
    """Median."""


def calibration(n_series: int = 1000, seed: int = 0) -> list[CorrelationRow]:
    """Correlations of AR(1) series x(t) = phi x(t-1) + noise, independent and with noise correlated at 0.5."""
    rng = np.random.default_rng(seed)
    rows = []
    for true_r, points in ((0.0, 100), (0.0, 1000), (0.5, 100)):
        for phi in (0.0, 0.5, 0.9):
            noise = rng.standard_normal((2, n_series, points + 200))
            noise[1] = true_r * noise[0] + math.sqrt(1 - true_r**2) * noise[1]
            series = signal.lfilter([1.0], [1.0, -phi], noise, axis=-1)[..., 200:]
            for coefficient in COEFFICIENTS:
                r, effective, p = tested(series[0], series[1], coefficient)
                count = int(((p < SIGNIFICANCE) & (effective > 3)).sum())
                rows.append(
                    CorrelationRow(
                        points,
                        phi,
                        true_r,
                        coefficient,
                        n_series,
                        *proportion(count, n_series),
                        naive_share=float((p_value(r, float(points)) < SIGNIFICANCE).mean()),
                        covered=_covered(r, effective, true_r, coefficient),
                        effective_points=float(np.median(effective)),
                    )
                )
    return rows


def _covered(r: Floats, effective: Floats, true_r: float, coefficient: Coefficient) -> float:
    """Share of the intervals that hold the truth; of a normal pair Spearman's is 6/pi arcsin(r/2)."""
    truth = true_r if coefficient == "pearson" else 6 / math.pi * math.asin(true_r / 2)
    return float((np.abs(np.arctanh(r) - math.atanh(truth)) <= half_width(effective, coefficient)).mean())
