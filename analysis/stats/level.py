"""The printed saving of a pair: at the lowest loss that both runs had reached by 80% of their budget.

At the baseline's final loss a pair has a ratio only if the curriculum arrives, so an interval there is a selection; and
where a cosine schedule has flattened, small differences in loss are large ones in tokens. At 80% of the budget nothing
is censored, whichever run is ahead, and intervals and tests hold what they claim (docs/statistics.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.stats.crossings import Crossing, Curve, Floats
from analysis.stats.smoothing import loss_at, tokens_at

SHARE = 0.8
"""Share of the smaller token budget after which the run that is behind sets the target."""


class Readings(NamedTuple):
    """Target loss of each pair, and the tokens that each of its runs needed to it; shape (...)."""

    target: Floats
    curriculum: Floats
    baseline: Floats


def level_readings(tokens_c: Floats, loss_c: Floats, tokens_b: Floats, loss_b: Floats, end: float) -> Readings:
    """Each pair at the loss that its run behind had after `end` tokens.

    `loss_c` (..., E_c) and `loss_b` (..., E_b) are cleaned curves at `tokens_c` (E_c,) and `tokens_b` (E_b,). The run
    behind is read at exactly `end`, the other earlier: nothing is censored, and the arms are treated alike.
    """
    ours, theirs = loss_at(tokens_c, loss_c, end), loss_at(tokens_b, loss_b, end)
    behind = np.maximum(ours, theirs)
    c = np.where(ours >= theirs, end, tokens_at(tokens_c, loss_c, behind))
    b = np.where(theirs >= ours, end, tokens_at(tokens_b, loss_b, behind))
    return Readings(behind, c, b)


def level_log_ratio(tokens_c: Floats, loss_c: Floats, tokens_b: Floats, loss_b: Floats, share: float = SHARE) -> Floats:
    """Log ratio of tokens of each pair, shape (...), at `share` of the smaller budget; as :func:`level_readings`."""
    end = share * min(float(tokens_c[-1]), float(tokens_b[-1]))
    readings = level_readings(tokens_c, loss_c, tokens_b, loss_b, end)
    result: Floats = np.log(readings.curriculum / readings.baseline)
    return result


def level_pair(curriculum: Curve, baseline: Curve, end: float) -> tuple[float, Crossing, Crossing] | None:
    """Target loss and both crossings of one pair of cleaned curves; None if either has no evaluation so far out."""
    if min(curriculum.tokens[-1], baseline.tokens[-1]) < end * (1 - 1e-9):
        return None
    target, c, b = level_readings(curriculum.tokens, curriculum.loss, baseline.tokens, baseline.loss, end)
    return float(target), crossing_at(curriculum, float(c)), crossing_at(baseline, float(b))


def crossing_at(curve: Curve, tokens: float) -> Crossing:
    """The crossing at `tokens` (NaN: never) of a cleaned curve; its seconds are read at the same place."""
    bounds = float(curve.tokens[-1]), float(curve.seconds[-1])
    if np.isnan(tokens):
        return Crossing(None, None, *bounds)
    seconds = float(np.interp(tokens, curve.tokens, curve.seconds))
    return Crossing(tokens, seconds, *bounds, from_start=tokens <= curve.tokens[0])


def crossing_of(curve: Curve, target_loss: float) -> Crossing:
    """The crossing of a target by a cleaned curve."""
    return crossing_at(curve, float(tokens_at(curve.tokens, curve.loss, np.array(target_loss))))
