"""Batch size over a run: constant, or warmed up as Megatron-LM's `--rampup-batch-size` does it.

From `start` the batch grows by `increment` in equal parts of the warmup, counted in samples (Megatron), tokens or
steps; after it the batch is the run's global_batch_size. Source: Megatron-LM's num_microbatches_calculator.py.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from cl_bench.config import RunConfig


@dataclasses.dataclass(frozen=True)
class BatchSize:
    """Sequences of a step. Build one with `of(config)`."""

    full: int
    start: int = 0
    increment: int = 1
    duration: float = 0.0
    """Length of the warmup in `unit`; 0: none."""
    unit: Literal["samples", "tokens", "steps"] = "samples"

    def at(self, step: int, consumed_samples: int, consumed_tokens: int) -> int:
        """Batch of step `step` (from 1), which starts with so many samples and tokens already consumed."""
        position = {"samples": consumed_samples, "tokens": consumed_tokens, "steps": step - 1}[self.unit]
        if not self.duration or position > self.duration:
            return self.full
        part = self.duration / ((self.full - self.start) // self.increment)
        return min(self.full, self.start + int(position / part) * self.increment)


def of(config: RunConfig) -> BatchSize:
    """The batch size of a run."""
    warmup = config.batch_warmup
    if warmup.start is None:
        return BatchSize(config.global_batch_size)
    return BatchSize(
        config.global_batch_size, warmup.start, warmup.increment, float(warmup.duration or 0), warmup.duration_unit
    )
