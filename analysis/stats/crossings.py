"""Crossing of a target loss by a validation curve: tokens and seconds to the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

Method = Literal["interpolate", "first", "sustained"]
"""How to determine the crossing from the evaluations:

- interpolate: the first point at which the line through the evaluations meets the target;
- first: the first evaluation at or below the target;
- sustained: as interpolate, but the last such point, after which no evaluation is above the target.
"""
METHODS: tuple[Method, ...] = get_args(Method)

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Tokens and seconds to a target; None if it was never reached, and then the bounds say how far the run got."""

    tokens: float | None
    seconds: float | None
    tokens_bound: float
    """Tokens of the last evaluation: a lower bound if the target was never reached."""
    seconds_bound: float
    """Seconds of the last evaluation."""
    from_start: bool = False
    """Whether the first evaluation was already at the target, which was therefore reached then or earlier."""

    @property
    def reached(self) -> bool:
        """Whether the curve reached the target."""
        return self.tokens is not None


def crossing(
    tokens: Sequence[float] | npt.ArrayLike,
    seconds: Sequence[float] | npt.ArrayLike,
    loss: Sequence[float] | npt.ArrayLike,
    target_loss: float,
    method: Method = "interpolate",
) -> Crossing:
    """The point at which the loss reaches `target_loss`, by `method`.

    `tokens` (non-decreasing), `seconds` and `loss` hold one value per evaluation. Between two evaluations the loss is
    linear in tokens, and so are the seconds. A NaN loss is above every target. Raises ValueError if the arrays are
    empty or differ in length.
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
    """Tokens and seconds to each of `targets` (losses), NaN if never reached; see :func:`crossing`.

    `tokens`, `seconds` and `loss` have shape (evaluations,), `targets` and both results (targets,).
    """
    height = np.where(np.isnan(loss), np.inf, loss)
    # The highest loss from here on and the lowest so far are both non-increasing, so bisection finds the first
    # evaluation at or below a target.
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
    """1 - curriculum / baseline: the share saved, negative for a cost; None if either never reached the target."""
    if curriculum is None or baseline is None or baseline <= 0:
        return None
    return 1 - curriculum / baseline


class Curve(NamedTuple):
    """A run's evaluations in order of tokens, each array of shape (evaluations,)."""

    tokens: Floats
    seconds: Floats
    """Of training steps only."""
    loss: Floats
    """Nats per token; NaN if it was not finite."""

    def crossing(self, target_loss: float, method: Method) -> Crossing:
        """The crossing of one target."""
        return crossing(self.tokens, self.seconds, self.loss, target_loss, method)

    def crossings(self, targets: Floats, method: Method) -> tuple[Floats, Floats]:
        """Tokens and seconds to each target, NaN if never reached."""
        return crossings(self.tokens, self.seconds, self.loss, targets, method)

    def lowest(self, method: Method) -> float:
        """The lowest target that the curve reaches by `method`; infinite if no loss is finite."""
        if method == "sustained":  # staying at or below a loss means ending there
            return self.final
        finite = self.loss[np.isfinite(self.loss)]
        return float(finite.min()) if len(finite) else np.inf

    @property
    def start(self) -> float:
        """Loss of the first evaluation; any target above it was reached before evaluations began."""
        return float(self.loss[0])

    @property
    def final(self) -> float:
        """Loss of the last evaluation, infinite if it is not finite."""
        return float(self.loss[-1]) if np.isfinite(self.loss[-1]) else np.inf


def curves(evals: pd.DataFrame) -> dict[str, Curve]:
    """The curve of each run_id that has an evaluation. `evals` as in analysis.schema; runs may be interleaved."""
    if evals.empty:
        return {}
    codes, names = pd.factorize(evals["run_id"])
    order = np.argsort(codes, kind="stable")
    columns = [evals[c].to_numpy(dtype=float)[order] for c in ("consumed_tokens", "train_seconds", "val_loss")]
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    parts = zip(*(np.split(column, ends) for column in columns), strict=True)
    return {str(name): Curve(*part) for name, part in zip(names, parts, strict=True)}
