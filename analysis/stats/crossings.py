"""When a curve reaches a target: tokens and seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Method = Literal["interpolate", "first", "sustained"]
"""How a crossing is read off a curve of evaluations:

- interpolate: the first time that the line through the evaluations meets the target;
- first: the first evaluation at or below the target;
- sustained: as interpolate, but from where on no evaluation is above the target again.
"""
METHODS: tuple[Method, ...] = get_args(Method)

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Tokens and seconds to a target. Where it was never reached they are None, and the bounds say how far it got."""

    tokens: float | None
    seconds: float | None
    tokens_bound: float
    """Tokens of the last evaluation: what it took, or more than this."""
    seconds_bound: float
    """Seconds of the last evaluation."""
    from_start: bool = False
    """Whether the first evaluation was at the target already: it was reached then or before, nobody knows when."""

    @property
    def reached(self) -> bool:
        """Whether the curve got to the target."""
        return self.tokens is not None


def crossing(
    tokens: Sequence[float] | npt.ArrayLike,
    seconds: Sequence[float] | npt.ArrayLike,
    loss: Sequence[float] | npt.ArrayLike,
    target_loss: float,
    method: Method = "interpolate",
) -> Crossing:
    """When the loss is at or below `target_loss`, by `method`.

    `tokens` (non-decreasing), `seconds` and `loss` hold one value an evaluation. Between two evaluations the loss is a
    straight line over tokens, and seconds go in the same proportion. An evaluation that is not a number is never at
    the target. Raises ValueError for arrays of different length or without a value.
    """
    t, s, y = (np.asarray(a, dtype=float) for a in (tokens, seconds, loss))
    if not len(t) == len(s) == len(y) or not len(t):
        raise ValueError(f"tokens, seconds and loss must be equally long and not empty: {len(t)}, {len(s)}, {len(y)}")
    at_tokens, at_seconds = crossings(t, s, y, np.array([target_loss], dtype=float), method)
    bounds = float(t[-1]), float(s[-1])
    if np.isnan(at_tokens[0]):
        return Crossing(None, None, *bounds)
    return Crossing(float(at_tokens[0]), float(at_seconds[0]), *bounds, from_start=bool(at_tokens[0] == t[0]))


def crossings(
    tokens: Floats, seconds: Floats, loss: Floats, targets: Floats, method: Method = "interpolate"
) -> tuple[Floats, Floats]:
    """Tokens and seconds to each of `targets` (losses), NaN where one is never reached; as :func:`crossing`.

    `tokens`, `seconds` and `loss` have shape (evaluations,), `targets` and both results (targets,).
    """
    height = np.where(np.isnan(loss), np.inf, loss)
    # The highest loss from here on, or the lowest so far: both fall, so that the first place at or below a target is
    # found by bisection.
    highest_to_come, lowest = np.maximum.accumulate(height[::-1])[::-1], np.minimum.accumulate(height)
    envelope = highest_to_come if method == "sustained" else lowest
    at = np.searchsorted(-envelope, -targets, side="left")
    reached = at < len(loss)
    at = np.minimum(at, len(loss) - 1)
    before = np.maximum(at - 1, 0)
    share = np.ones(len(targets))
    if method != "first":
        sloped = (at > 0) & reached & np.isfinite(height[before])
        drop = np.subtract(height[before], height[at], out=np.zeros(len(targets)), where=sloped)
        np.divide(height[before] - targets, drop, out=share, where=drop > 0)
    at_tokens = tokens[before] + share * (tokens[at] - tokens[before])
    at_seconds = seconds[before] + share * (seconds[at] - seconds[before])
    return np.where(reached, at_tokens, np.nan), np.where(reached, at_seconds, np.nan)


def saving(curriculum: float | None, baseline: float | None) -> float | None:
    """1 - curriculum / baseline: the share saved, negative where it cost more; None where either never arrived."""
    if curriculum is None or baseline is None or baseline <= 0:
        return None
    return 1 - curriculum / baseline
