"""When a curve reaches a target: tokens and seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Method = Literal["interpolate", "first"]


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Tokens and seconds to a target. Where it was never reached they are None, and the bounds say how far it got."""

    tokens: float | None
    seconds: float | None
    tokens_bound: float
    """Tokens of the last evaluation: what it took, or more than this."""
    seconds_bound: float
    """Seconds of the last evaluation."""

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
    """First time the loss is at or below `target_loss`.

    `tokens` (non-decreasing), `seconds` and `loss` hold one value an evaluation. "first" takes that evaluation;
    "interpolate" goes back to where the straight line from the evaluation before it meets the target: loss over tokens,
    and seconds in the same proportion. An evaluation that is not a number is never at the target.
    """
    t, s, y = (np.asarray(a, dtype=float) for a in (tokens, seconds, loss))
    if not len(t) == len(s) == len(y) or not len(t):
        raise ValueError(f"tokens, seconds and loss must be equally long and not empty: {len(t)}, {len(s)}, {len(y)}")
    below = np.flatnonzero(y <= target_loss)
    if not len(below):
        return Crossing(None, None, float(t[-1]), float(s[-1]))
    i = int(below[0])
    share = 1.0
    if method == "interpolate" and i > 0 and np.isfinite(y[i - 1]):
        share = (y[i - 1] - target_loss) / (y[i - 1] - y[i])
    before = max(i - 1, 0)
    return Crossing(
        float(t[before] + share * (t[i] - t[before])),
        float(s[before] + share * (s[i] - s[before])),
        float(t[-1]),
        float(s[-1]),
    )


def saving(curriculum: float | None, baseline: float | None) -> float | None:
    """1 - curriculum / baseline: the share saved, negative where it cost more; None where either never arrived."""
    if curriculum is None or baseline is None or baseline <= 0:
        return None
    return 1 - curriculum / baseline
