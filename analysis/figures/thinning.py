"""Fewer points and shorter numbers, without losing spikes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import stretches


def thin_minmax(y: npt.ArrayLike, max_points: int = 400) -> npt.NDArray[np.intp]:
    """Indices of at most ``max_points`` points of a curve that keep its first, last, and every bucket's extremes.

    ``y`` is one run's finite values in order; buckets hold equal numbers of points. A spike of one step survives, which
    plain striding or averaging would lose.
    """
    values = np.asarray(y, dtype=float)
    if max_points < 4:
        raise ValueError(f"max_points is {max_points}; thinning needs at least 4: first, last, one bucket's extremes")
    if values.size <= max_points:
        return np.arange(values.size)
    edges = np.linspace(0, values.size, (max_points - 2) // 2 + 1).astype(int)
    keep = {0, values.size - 1}
    for start, stop in pairwise(edges.tolist()):
        bucket = values[start:stop]
        keep.update((start + int(bucket.argmin()), start + int(bucket.argmax())))
    return np.array(sorted(keep), dtype=np.intp)


def thinned_runs(points: pd.DataFrame, value: str, max_points: int) -> pd.DataFrame:
    """Each run's finite values of a column, thinned as by :func:`thin_minmax`; run_id as text.

    Millions of rows are read in place, and only the kept ones are copied.
    """
    values = points[value].to_numpy(dtype=float)
    kept = []
    for _, rows in stretches(points):
        finite = rows.start + np.flatnonzero(np.isfinite(values[rows]))
        kept.append(finite[thin_minmax(values[finite], max_points)])
    rows_kept = points.iloc[np.concatenate(kept)] if kept else points.iloc[:0]
    return rows_kept.assign(run_id=rows_kept["run_id"].astype(str))


def significant(values: npt.ArrayLike, digits: int = 5) -> list[float | None]:
    """Numbers rounded to significant digits (shorter JSON); None for values that are not finite."""
    out: list[float | None] = []
    for value in np.asarray(values, dtype=float).tolist():
        if not math.isfinite(value):
            out.append(None)
        else:
            rounded = float(f"{value:.{digits}g}")
            out.append(int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded)
    return out


def integers(values: npt.ArrayLike) -> list[int | None]:
    """Whole numbers; None for values that are not finite."""
    return [int(v) if math.isfinite(v) else None for v in np.asarray(values, dtype=float).tolist()]
