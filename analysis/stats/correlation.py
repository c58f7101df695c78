"""Correlation of a step's loss ratio with Adam's second moment, tested with allowance for autocorrelation.

The paper (arXiv 2108.06084, section 3) reports Pearson's correlation over the steps of a run, with its p-value. But the
steps of a run are not independent: both series drift and are autocorrelated, and the usual test, which counts n steps
as n independent observations, is "significant" for half of all pairs of unrelated series. Here a correlation of n
points is tested as one of

    n_eff = n / (1 + 2 * sum over lags k >= 1 of (1 - k/n) * rho_x(k) * rho_y(k))

points: Bartlett, J. R. Stat. Soc. 98 (1935), as in Bretherton et al., J. Climate 12 (1999), section 5. rho(k) is the
sample autocorrelation, its sum of n - k products scaled to n (Pyper & Peterman, Can. J. Fish. Aquat. Sci. 55 (1998));
the sum ends before the first lag at which either autocorrelation is not positive, and n_eff is at most n. The test is
Student's t with n_eff - 2 degrees of freedom; analysis.calibration.correlation measures its error rates.

Two series that drift stay close to their recent values, so their n_eff is a handful however long they are, and rightly:
they would correlate whatever the cause. A run whose n_eff is 3 or less gets no p-value. The test cannot separate a
drift that both series share from short-lived noise on top of it: it counts as correlation, which it is, and shows
nothing about spikes. The range is limited as well: with gradients clipped to a norm c, the 1-norm is at most c squared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft, special, stats

from analysis.schema import rows_of
from analysis.stats.intervals import CONFIDENCE, holm

Coefficient = Literal["pearson", "spearman"]
Floats = npt.NDArray[np.float64]

COEFFICIENTS: tuple[Coefficient, ...] = ("pearson", "spearman")
MEASURES = {
    "adam_var_l1": "1-norm",
    "adam_var_sqrt_l1": "1-norm of the root",
    "adam_var_max": "maximum",
    "adam_var_sqrt_max": "maximum of the root",
}
"""Columns of a training row by the statistic of Adam's second moment that they hold."""

MIN_POINTS = 10
_ALMOST_ONE = 1 - 1e-9
_LINE = ["role", "curriculum", "variant", "setting"]
_CELL = [*_LINE, "global_batch_size", "lr"]
CORRELATION_COLUMNS = (
    "level",
    "run_id",
    *_CELL,
    "seed",
    "measure",
    "coefficient",
    "points",
    "effective_points",
    "units",
    "of",
    "r",
    "low",
    "high",
    "p",
    "p_holm",
    "note",
)


class Correlation(NamedTuple):
    """A correlation of two series in order of time. Unknown values are NaN, and `note` gives the reason."""

    r: float = math.nan
    points: int = 0
    effective_points: float = math.nan
    low: float = math.nan
    """The interval, on Fisher's z with n_eff - 3."""
    high: float = math.nan
    p: float = math.nan
    note: str = ""


def correlate(x: npt.ArrayLike, y: npt.ArrayLike, coefficient: Coefficient = "pearson") -> Correlation:
    """Two series of equal length, over the points at which both are finite; these must be about evenly spaced."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    both = np.isfinite(a) & np.isfinite(b)
    return _correlate_each(a[both], b[both][None], coefficient)[0]


def effective_size(x: Floats, y: Floats) -> Floats:
    """n_eff of each row of `x` (m, n) with the same row of `y` (m, n); either may be a single row.

    Rows are finite and not constant.
    """
    n = x.shape[-1]
    lags = np.arange(1, n // 2 + 1)
    rho_x, rho_y = _autocorrelation(x), _autocorrelation(y)  # (m, n // 2)
    before_end = np.logical_and.accumulate((rho_x > 0) & (rho_y > 0), axis=-1)
    total = np.sum(rho_x * rho_y * (1 - lags / n) * before_end, axis=-1)
    return np.asarray(n / (1 + 2 * total))


def _autocorrelation(series: Floats) -> Floats:
    """Sample autocorrelations of each row of `series` (m, n) at lags 1 to n // 2, through the spectrum."""
    n = series.shape[-1]
    most = n // 2
    centred = series - series.mean(axis=-1, keepdims=True)
    size = fft.next_fast_len(n + most, real=True)
    power = np.abs(fft.rfft(centred, size, axis=-1)) ** 2
    products = fft.irfft(power, size, axis=-1)[..., : most + 1]  # (m, n // 2 + 1)
    return np.asarray(products[..., 1:] / products[..., :1] * (n / (n - np.arange(1, most + 1))))


def _correlate_each(x: Floats, ys: Floats, coefficient: Coefficient) -> list[Correlation]:
    """`x` (n,) with each row of `ys` (m, n), all finite."""
    n = x.size
    if n < MIN_POINTS:
        return [Correlation(points=n, note=f"{n} points are too few (at least {MIN_POINTS})")] * len(ys)
    if np.ptp(x) == 0:
        return [Correlation(points=n, note="the loss ratio is constant")] * len(ys)
    results = [Correlation(points=n, note="the variance is constant")] * len(ys)
    moving = np.flatnonzero(np.ptp(ys, axis=-1) > 0)
    r, effective, p = tested(x[None], ys[moving], coefficient)
    half = half_width(effective, coefficient)
    z = np.arctanh(np.clip(r, -_ALMOST_ONE, _ALMOST_ONE))
    for i, at in enumerate(moving):
        enough = effective[i] > 3
        note = "" if enough else f"{effective[i]:.1f} effective points are too few for a p-value"
        interval = (math.tanh(z[i] - half[i]), math.tanh(z[i] + half[i])) if enough else (math.nan, math.nan)
        p_value = float(p[i]) if enough else math.nan
        results[at] = Correlation(float(r[i]), n, float(effective[i]), *interval, p_value, note)
    return results


def tested(x: Floats, y: Floats, coefficient: Coefficient) -> tuple[Floats, Floats, Floats]:
    """(r, n_eff, p) of each row of `x` with the same row of `y`; Spearman's is Pearson's of the ranks."""
    if coefficient == "spearman":
        x, y = stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1)
    a, b = (part - part.mean(axis=-1, keepdims=True) for part in (x, y))
    r = np.sum(a * b, axis=-1) / np.sqrt(np.sum(a**2, axis=-1) * np.sum(b**2, axis=-1))
    effective = effective_size(x, y)
    return r, effective, p_value(r, effective)


def p_value(r: Floats, points: Floats | float) -> Floats:
    """Two-sided p-value of a correlation of `points` independent points: Student's t."""
    freedom = np.maximum(np.asarray(points) - 2, 1e-9)
    t = np.abs(r) * np.sqrt(freedom / np.maximum(1 - r**2, 1e-300))
    return np.asarray(2 * special.stdtr(freedom, -t))  # Student's distribution function


def half_width(points: Floats, coefficient: Coefficient) -> Floats:
    """Half width of the interval on Fisher's z; for ranks, with Fieller, Hartley & Pearson's (1957) factor 1.06."""
    variance = (1.06 if coefficient == "spearman" else 1.0) / np.maximum(points - 3, 1e-9)
    return np.asarray(special.ndtri((1 + CONFIDENCE) / 2) * np.sqrt(variance))


# --- over a sweep ----------------------------------------------------------------------------------------------------


def series_by_run(
    train: pd.DataFrame, measures: Sequence[str] = tuple(MEASURES), also: Sequence[str] = ()
) -> Iterator[tuple[str, Floats]]:
    """(run_id, values) of each run: its loss ratios, measures and the columns `also`, one row each, in order of time.

    Only steps with a finite loss ratio and a measure count: Adam's state is measured every n-th step.
    """
    names = ("loss_ratio", *measures, *also)
    columns = [train[c].to_numpy() if c in train else None for c in names]
    finite = [np.isfinite(c) for c in columns[1 : 1 + len(measures)] if c is not None]
    if columns[0] is None or not finite or not len(train):
        return
    both = np.isfinite(columns[0]) & np.logical_or.reduce(finite)
    rows = np.flatnonzero(both)
    codes, run_ids = pd.factorize(train["run_id"].iloc[rows])
    order = np.argsort(codes, kind="stable")  # usually sorted already
    rows, codes = rows[order], codes[order]
    values = np.stack([np.full(rows.size, np.nan) if c is None else c[rows] for c in columns])
    ends = np.searchsorted(codes, np.arange(len(run_ids) + 1))
    for run_id, start, stop in zip(run_ids, ends[:-1], ends[1:], strict=True):
        yield str(run_id), values[:, start:stop]


def correlations(runs: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """CORRELATION_COLUMNS: one row per measure and coefficient of every run, cell, curriculum and the sweep.

    Rows of several runs are never concatenated. A cell is the mean of its runs' Fisher z, with Student's t over the
    seeds; a curriculum, and the sweep, the mean of their cells' z with t over the cells, since runs of one cell are
    alike. A single run or cell keeps its own figures. p_holm is adjusted over all p-values of its level.
    """
    values = dict(series_by_run(train))
    rows: list[dict[str, Any]] = []
    for run in rows_of(runs[["run_id", *_CELL, "seed"]]):
        for (measure, coefficient), c in _run_correlations(values.get(str(run["run_id"]))).items():
            rows.append(
                {"level": "run", **run, "measure": measure, "coefficient": coefficient, **c._asdict()}
                | {"units": int(not math.isnan(c.r)), "of": 1}
            )
    table = pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))
    table["variant"] = table["variant"].fillna("").astype(str)
    cells = _pooled(table, _CELL, "cell")
    levels = [_pooled(cells, [], "sweep"), _pooled(cells, _LINE, "curriculum"), cells, table]
    filled = [_adjusted(level) for level in levels if len(level)]
    return pd.concat(filled, ignore_index=True) if filled else table


def _run_correlations(values: Floats | None) -> dict[tuple[str, Coefficient], Correlation]:
    """Each measure and coefficient of one run; `values` as from `series_by_run`."""
    names = list(MEASURES)
    if values is None:
        nothing = Correlation(note="no step has both a loss ratio and Adam's variance")
        return {(measure, coefficient): nothing for measure in names for coefficient in COEFFICIENTS}
    results: dict[tuple[str, Coefficient], Correlation] = {}
    whole = np.isfinite(values[1:])
    patterns = {row.tobytes(): row for row in whole}  # nearly always one: all measures come from the same steps
    for pattern in patterns.values():
        same = np.flatnonzero((whole == pattern).all(axis=1))
        for coefficient in COEFFICIENTS:
            each = _correlate_each(values[0, pattern], values[1:][same][:, pattern], coefficient)
            results |= {(names[i], coefficient): c for i, c in zip(same, each, strict=True)}
    return {(measure, coefficient): results[measure, coefficient] for measure in names for coefficient in COEFFICIENTS}


def _pooled(units: pd.DataFrame, keys: Sequence[str], level: str) -> pd.DataFrame:
    """The rows of one level, each the mean of the z of its units."""
    rows = []
    for _, group in units.groupby([*keys, "measure", "coefficient"], sort=False):
        first = group.iloc[0]
        defined = group[group["r"].notna()]
        row: dict[str, Any] = {k: first[k] for k in (*keys, "measure", "coefficient")}
        row |= {"level": level, "points": int(group["points"].sum()), "units": len(defined), "of": len(group)}
        notes = [n for n in dict.fromkeys(group["note"]) if n]
        row["note"] = "" if len(defined) == len(group) else "; ".join(notes[:2])
        if len(defined) == 1:
            row |= {k: defined.iloc[0][k] for k in ("r", "low", "high", "p", "effective_points")}
            row["note"] = "; ".join(dict.fromkeys(n for n in (row["note"], defined.iloc[0]["note"]) if n))
        elif len(defined):
            row |= dict(zip(("r", "low", "high", "p"), fisher_mean(defined["r"].tolist()), strict=True))
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))
    return table.astype(dict.fromkeys(("r", "low", "high", "p", "effective_points"), "float64"))


def fisher_mean(r: Sequence[float]) -> tuple[float, float, float, float]:
    """(r, low, high, p) of two or more correlations: the mean of arctanh(r), with Student's t over the units."""
    z = np.arctanh(np.clip(r, -_ALMOST_ONE, _ALMOST_ONE))
    mean, error = float(z.mean()), float(z.std(ddof=1) / math.sqrt(len(z)))
    if error == 0:
        return math.tanh(mean), math.nan, math.nan, math.nan
    half = float(special.stdtrit(len(z) - 1, (1 + CONFIDENCE) / 2)) * error
    p = float(2 * special.stdtr(len(z) - 1, -abs(mean) / error))
    return math.tanh(mean), math.tanh(mean - half), math.tanh(mean + half), p


def _adjusted(level: pd.DataFrame) -> pd.DataFrame:
    return level.assign(p_holm=holm(level["p"].astype("float64").tolist()))
