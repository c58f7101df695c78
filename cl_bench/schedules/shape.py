"""Shape of a step, decided here for data, engine and records alike."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from cl_bench.config import RunConfig
from cl_bench.schedules import length
from cl_bench.schedules.batch_size import BatchSize
from cl_bench.schedules.walk import extent, tokens_per_step


@dataclasses.dataclass(frozen=True)
class StepShape:
    """Shape of a step, decided before it runs."""

    seqlen: int
    """Tokens per sequence."""
    padded_seqlen: int
    """Tokens per sequence on the device, padding included."""
    mode: Literal["truncate", "reshape"]
    """How full sequences are cut to seqlen."""
    global_batch_size: int
    """Sequences, over all ranks, before they are cut."""
    micro_batch_size: int
    """Sequences per rank in one forward pass, before they are cut."""
    grad_accum_steps: int
    """Forward passes per rank."""
    tokens: int
    """Tokens consumed, over all ranks."""


class StepShapes:
    """The shapes of a run's steps on `world_size` ranks."""

    def __init__(self, config: RunConfig, world_size: int = 1) -> None:
        self.config = config
        self.world_size = world_size
        self.lengths = length.build(config)
        self._batches = BatchSize.from_config(config)
        self._padded = buckets(config)
        self._decide = functools.cache(self._shape)

    def at(self, step: int, consumed_samples: int, consumed_tokens: int) -> StepShape:
        """Shape of step `step` (from 1), given the samples and tokens consumed before it."""
        batch = self._batches.at(step, consumed_samples, consumed_tokens)
        return self._decide(self.lengths.at(step, consumed_tokens), batch)

    def _shape(self, seqlen: int, batch: int) -> StepShape:
        config = self.config
        padded = self._padded.get(seqlen, seqlen)
        pieces = -(-config.seqlen // seqlen) if config.curriculum.mode == "reshape" else 1
        micro_batch = config.micro_batch(self.world_size, batch, pieces * padded)
        return StepShape(
            seqlen=seqlen,
            padded_seqlen=padded,
            mode=config.curriculum.mode,
            global_batch_size=batch,
            micro_batch_size=micro_batch,
            grad_accum_steps=batch // (micro_batch * self.world_size),
            tokens=tokens_per_step(config, seqlen, batch),
        )


def buckets(config: RunConfig) -> dict[int, int]:
    """Length -> padded length; deepspeed.length_buckets bounds the number of distinct padded lengths.

    The distinct lengths are split into as many groups of equal size; each is padded to its group's longest.
    """
    n_buckets = config.deepspeed.length_buckets
    lengths = sorted({seqlen for seqlen, _ in extent(config).lengths} | {config.max_difficulty})
    if n_buckets is None or n_buckets >= len(lengths):
        return {seqlen: seqlen for seqlen in lengths}
    ends = [lengths[-(-(group + 1) * len(lengths) // n_buckets) - 1] for group in range(n_buckets)]
    return {seqlen: next(end for end in ends if end >= seqlen) for seqlen in lengths}


def max_shapes(config: RunConfig) -> int:
    """Upper bound on the number of distinct (sequences, length) of a run's training passes."""
    padded, warmup = buckets(config), config.batch_warmup
    # Within a bucket, truncated sequences keep their number of rows; reshaped ones have more rows at shorter lengths.
    lengths = len(padded) if config.curriculum.mode == "reshape" else len(set(padded.values()))
    sizes = 1 if warmup.start is None else (config.global_batch_size - warmup.start) // warmup.increment + 1
    return lengths * sizes
