"""Batch size over a run: constant, or warmed up as by Megatron-LM's `--rampup-batch-size`.

The batch grows from `start` to the run's global_batch_size by `increment` after each of equal parts of the warmup,
which are counted in samples (Megatron), tokens or steps. Source: Megatron-LM's num_microbatches_calculator.py.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from cl_bench.config import RunConfig


@dataclasses.dataclass(frozen=True)
class BatchSize:
    """Sequences per step."""

    full: int
    start: int = 0
    increment: int = 1
    duration: float = 0.0
    """Length of the warmup in `unit`; 0: no warmup."""
    unit: Literal["samples", "tokens", "steps"] = "samples"

    @classmethod
    def from_config(cls, config: RunConfig) -> BatchSize:
        """The batch size of a run."""
        warmup, full = config.batch_warmup, config.global_batch_size
        if warmup.start is None:
            return cls(full)
        return cls(full, warmup.start, warmup.increment, float(warmup.duration or 0), warmup.duration_unit)

    def at(self, step: int, consumed_samples: int, consumed_tokens: int) -> int:
        """Batch of step `step` (from 1), given the samples and tokens consumed before it."""
        if not self.duration:
            return self.full
        position = {"samples": consumed_samples, "tokens": consumed_tokens, "steps": step - 1}[self.unit]
        if position > self.duration:
            return self.full
        part = self.duration / ((self.full - self.start) // self.increment)
        return min(self.full, self.start + int(position / part) * self.increment)
