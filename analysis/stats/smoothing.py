"""Cleaned validation curves, from which the printed saving is read, and the noise of evaluations.

Reading the first crossing off raw evaluations favours the run whose evaluations scatter more, or are more frequent: its
lowest of many noisy values is lower. A cleaned curve has its spikes cut and never rises, so a target has one crossing,
in the middle of where the noisy curve meets it first and last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from analysis.stats.crossings import Curve, Floats

BANDWIDTH = 0.25
"""Half width of the smoother's window, in log tokens: about a quarter more or fewer than the tokens in question."""
FEWEST_EVALUATIONS = 3
"""Evaluations above 0 tokens that a curve must have to be cleaned."""
_LEAST = 4
"""Evaluations in a window, where they are sparse."""
_ROBUST_PASSES = 3
FEWEST_FOR_NOISE = 8
"""Evaluations from which on a run's noise, and so its spikes, can be estimated."""
_DESPIKE_SDS = 4.0
_MOST = 500
"""Evaluations of one curve; of more, neighbours are averaged: the smoother's memory grows with their square."""
_SD_PER_MAD = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""


def _weights(x: Floats) -> Floats:
    """Tricube weights, shape (smoothed, observed); every window holds _LEAST evaluations or more."""
    gap = np.abs(x[:, None] - x[None, :])
    nearest = np.sort(gap, axis=1)[:, min(_LEAST, len(x)) - 1] * 1.05
    half = np.maximum(BANDWIDTH, nearest)[:, None]
    weights: Floats = np.clip(1 - (gap / half) ** 3, 0, None) ** 3
    return weights


def smooth(tokens: Floats, loss: Floats) -> Floats:
    """Curves smoothed by robust local lines over log tokens (lowess: Cleveland, JASA 74, 1979).

    `tokens` (evaluations,), rising and above 0; `loss` (..., evaluations), finite. A spike loses its weight by Tukey's
    bisquare at six times the median absolute residual.
    """
    x = np.log(tokens) - math.log(tokens[-1])
    base = _weights(x)
    moments = [(base * x[None, :] ** k).T for k in range(3)]  # (observed, smoothed)
    y = loss.reshape(-1, len(x))
    trust = np.ones_like(y)
    fit = y
    for step in range(_ROBUST_PASSES + 1):
        s0, s1, s2 = (trust @ m for m in moments)
        t0, t1 = (trust * y) @ moments[0], (trust * y) @ moments[1]
        det = s0 * s2 - s1**2
        sound = det > 1e-9 * np.maximum(s0 * s2, 1e-300)
        slope = np.where(sound, (s0 * t1 - s1 * t0) / np.where(sound, det, 1), 0.0)
        middle = np.where(s0 > 1e-9, (t0 - slope * s1) / np.maximum(s0, 1e-300), y)
        fit = middle + slope * x
        if step == _ROBUST_PASSES:
            break
        residual = y - fit
        scale = 6 * np.median(np.abs(residual), axis=1, keepdims=True)
        trust = np.clip(1 - (residual / np.maximum(scale, 1e-12)) ** 2, 0, None) ** 2
        trust = np.maximum(trust, 1e-6)  # a window of nothing but outliers still has a line
    return fit.reshape(loss.shape)


def evaluation_noise(tokens: Floats, loss: Floats) -> Floats:
    """Standard deviation of each run's evaluations around its own smooth line (nats), shape (...).

    Shapes as in :func:`smooth`. 1.4826 times the median absolute residual. Autocorrelated noise is understated, in both
    arms alike if they are evaluated alike.
    """
    noise: Floats = _SD_PER_MAD * np.median(np.abs(loss - smooth(tokens, loss)), axis=-1)
    return noise


def despiked(tokens: Floats, loss: Floats) -> Floats:
    """Curves with spikes cut to the smooth line plus four standard deviations of the run's own evaluation noise.

    Shapes as in :func:`smooth`. Everything else stays as it was evaluated: the smoother's own values would bias
    crossings by 0.7% of the tokens, because a local line cuts the corner of a cosine schedule's last fall. Curves with
    fewer than eight evaluations are left alone: what is a spike there cannot be told from the curve's own bend.
    """
    if len(tokens) < FEWEST_FOR_NOISE:
        return loss
    line = smooth(tokens, loss)
    noise = _SD_PER_MAD * np.median(np.abs(loss - line), axis=-1, keepdims=True)
    # To rounding, a curve without noise has no spikes.
    result: Floats = np.minimum(loss, line + np.maximum(_DESPIKE_SDS * noise, 1e-12))
    return result


def falling(loss: Floats) -> Floats:
    """The closest curves (least squares) that never rise, shape (..., evaluations): isotonic regression, min-max."""
    y = loss.reshape(-1, loss.shape[-1])
    n = y.shape[1]
    sums = np.concatenate([np.zeros((len(y), 1)), np.cumsum(y, axis=1)], axis=1)
    result = np.full_like(y, np.inf)
    for j in range(n):  # blocks that begin at j
        means = (sums[:, j + 1 :] - sums[:, [j]]) / np.arange(1, n - j + 1)
        highest = np.maximum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        result[:, j:] = np.minimum(result[:, j:], highest)
    return result.reshape(loss.shape)


def cleaned(tokens: Floats, loss: Floats) -> Floats:
    """Curves despiked and never rising; shapes as in :func:`smooth`."""
    return falling(despiked(tokens, loss))


def tokens_at(tokens: Floats, loss: Floats, target: Floats) -> Floats:
    """Tokens at which each never rising curve (..., evaluations) first is at its target (...); NaN: never.

    Between evaluations the loss is linear in log tokens. A curve that begins at or below its target gives the tokens
    of its first evaluation.
    """
    log_t = np.log(tokens)
    there = loss <= target[..., None]
    at = there.argmax(axis=-1)
    before = np.maximum(at - 1, 0)
    high, low = (np.take_along_axis(loss, i[..., None], -1)[..., 0] for i in (before, at))
    drop = high - low
    share = np.where(drop > 0, (high - target) / np.where(drop > 0, drop, 1), 1.0)
    reading = np.exp(log_t[before] + np.clip(share, 0, 1) * (log_t[at] - log_t[before]))
    return np.where(there.any(axis=-1), reading, np.nan)


def loss_at(tokens: Floats, loss: Floats, where: float) -> Floats:
    """Loss of each curve (..., evaluations) after `where` tokens, linear in log tokens; at the ends, the end's."""
    log_t, x = np.log(tokens), math.log(where)
    i = int(np.clip(np.searchsorted(log_t, x), 1, len(log_t) - 1))
    share = np.clip((x - log_t[i - 1]) / (log_t[i] - log_t[i - 1]), 0, 1)
    result: Floats = loss[..., i - 1] + share * (loss[..., i] - loss[..., i - 1])
    return result


def reading_noise(curve: Curve, where: float) -> float:
    """Evaluation noise at `where` tokens as an error of log tokens: the noise over the cleaned curve's slope there.

    `curve` is one of :func:`usable`. 0.25 means a quarter of the tokens; large where a curve is flat for its noise.
    """
    clean = cleaned(curve.tokens, curve.loss)
    fall = loss_at(curve.tokens, clean, where / 1.5) - loss_at(curve.tokens, clean, where)
    slope = max(float(fall) / math.log(1.5), 1e-12)
    return float(evaluation_noise(curve.tokens, curve.loss)) / slope


def usable(curve: Curve) -> Curve | None:
    """The finite evaluations above 0 tokens, at rising tokens; None if there are fewer than three."""
    keep = np.isfinite(curve.loss) & (curve.tokens > 0)
    keep[:-1] &= np.diff(curve.tokens) > 0  # of several evaluations at one place the last
    part = Curve(*(values[keep] for values in curve))
    if len(part.tokens) < FEWEST_EVALUATIONS:
        return None
    if len(part.tokens) <= _MOST:
        return part
    starts = np.linspace(0, len(part.tokens), _MOST, endpoint=False).astype(np.intp)
    counts = np.diff(np.append(starts, len(part.tokens)))
    return Curve(*(np.add.reduceat(values, starts) / counts for values in part))


def clean_curves(by_run: Mapping[str, Curve]) -> dict[str, Curve]:
    """The usable evaluations of each run_id with their losses cleaned; without the runs that have too few."""
    parts = {run_id: part for run_id, curve in by_run.items() if (part := usable(curve)) is not None}
    grids: dict[bytes, list[str]] = {}  # runs of a sweep share their grid: smoothed together they cost one
    for run_id, part in parts.items():
        grids.setdefault(part.tokens.tobytes(), []).append(run_id)
    losses: dict[str, Floats] = {}
    for run_ids in grids.values():
        stacked = np.array([parts[i].loss for i in run_ids])
        losses.update(zip(run_ids, cleaned(parts[run_ids[0]].tokens, stacked), strict=True))
    return {run_id: part._replace(loss=losses[run_id]) for run_id, part in parts.items()}
