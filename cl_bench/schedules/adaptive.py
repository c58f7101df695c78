"""Adaptive pacing: the sequence length rises when what is watched has settled.

The rule looks at nothing but numbers that every rank has and every resume restores, so a run is as repeatable as with a
fixed schedule: its state is part of the checkpoint. One observation is an evaluation (signal val_loss) or a measurement
of Adam's second moment (signal adam_var_max, the gradient variance's largest element). It counts as calm when it
improved on, or moved from, the one before by less than `threshold`, relatively; after `patience` calm ones in a row the
length grows by the factor `growth`, and counting starts anew.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from cl_bench.config import RunConfig

Signal = Literal["val_loss", "adam_var_max"]


@dataclasses.dataclass
class Pace:
    """Where the schedule stands: saved with every checkpoint."""

    length: int = 0
    """Sequence length in tokens."""
    last: float | None = None
    """The last value of the signal at this length."""
    calm: int = 0
    """Calm observations in a row."""


class Adaptive:
    """The rule of one run."""

    def __init__(self, config: RunConfig) -> None:
        cur = config.curriculum
        self.signal: Signal = cur.signal
        self.threshold = cur.threshold
        self.patience = cur.patience
        self.growth = cur.growth
        self.multiple = cur.difficulty_step
        self.low = -(-cur.min_difficulty // self.multiple) * self.multiple
        self.high = config.max_difficulty

    def first(self) -> Pace:
        """The pace of the first step."""
        return Pace(min(self.low, self.high))

    def longer(self, length: int) -> int:
        """The length after `length`: times `growth`, a multiple of difficulty_step, at most the full length."""
        grown = math.floor(length * self.growth / self.multiple) * self.multiple
        return min(self.high, max(grown, length + self.multiple))

    def observe(self, pace: Pace, signal: str, value: float | None) -> None:
        """Take one observation into account; others than the chosen signal change nothing."""
        if signal != self.signal or value is None or not math.isfinite(value) or pace.length >= self.high:
            return
        if pace.last is not None:
            change = (pace.last - value) / abs(pace.last) if pace.last else 0.0
            moved = change if signal == "val_loss" else abs(change)
            pace.calm = pace.calm + 1 if moved < self.threshold else 0
        pace.last = value
        if pace.calm >= self.patience:
            pace.length, pace.last, pace.calm = self.longer(pace.length), None, 0
