"""Many comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: at most `alpha` of families hold a false call at `alpha`.

    Sorted, the k-th of m is multiplied by m - k + 1, never falls below the one before it, and is at most 1 (S. Holm,
    Scandinavian Journal of Statistics 6, 1979). NaN stays NaN and is not counted.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(a) for a in adjusted]
