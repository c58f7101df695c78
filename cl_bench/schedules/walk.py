"""A run's steps over its token budget: their number, lengths and tokens."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import length
from cl_bench.schedules.batch_size import BatchSize
from cl_bench.schedules.length import LengthSchedule


class Stretch(NamedTuple):
    """Consecutive steps of one length and one batch."""

    steps: int
    seqlen: int
    batch: int
    """Sequences per step."""
    tokens: int
    """Tokens per step."""


def walk(config: RunConfig, *, tokens: int | None = None, steps: int | None = None) -> Iterator[Stretch]:
    """The steps of a run until `tokens` are consumed or `steps` are done; by default the whole run."""
    if tokens is None and steps is None:
        tokens = config.token_budget
    return _walk(length.build(config), BatchSize.from_config(config), _fixed(config), tokens, steps)


def _walk(
    lengths: LengthSchedule, batches: BatchSize, fixed: int, tokens: int | None, steps: int | None
) -> Iterator[Stretch]:
    """One stretch per step; once length and batch are final, a single last one, computed by division.

    A sequence consumes `fixed` tokens, or its length if that is 0.
    """
    lengths = lengths.planned()
    token_limit, step_limit = math.inf if tokens is None else tokens, math.inf if steps is None else steps
    step = consumed_samples = consumed_tokens = 0
    while consumed_tokens < token_limit and step < step_limit:
        seqlen = lengths.at(step + 1, consumed_tokens)
        batch = batches.at(step + 1, consumed_samples, consumed_tokens)
        per_step = batch * (fixed or seqlen)
        n = 1
        if seqlen >= lengths.max_difficulty and batch == batches.full:
            by_tokens = math.inf if tokens is None else -(-(tokens - consumed_tokens) // per_step)
            n = int(min(by_tokens, step_limit - step))
        yield Stretch(n, seqlen, batch, per_step)
        step, consumed_samples, consumed_tokens = step + n, consumed_samples + n * batch, consumed_tokens + n * per_step


@dataclasses.dataclass(frozen=True)
class Extent:
    """Length of a run in steps and tokens."""

    steps: int
    """Steps until consumed_tokens >= token_budget."""
    tokens: int
    """consumed_tokens after the last step."""
    lengths: tuple[tuple[int, int], ...]
    """(length, steps at that length), in the order of first use."""
    sequences: tuple[tuple[int, int], ...]
    """(length, sequences trained at that length), in the same order."""
    is_lower_bound: bool = False
    """Whether the run may take more steps: an adaptive length need not grow at every observation."""
    last_batch: int = 0
    """Sequences of the last step."""


def extent(config: RunConfig) -> Extent:
    """Steps, tokens and lengths of a whole run; for an adaptive one, the fewest possible steps."""
    return _extent(length.build(config), BatchSize.from_config(config), _fixed(config), config.token_budget, None)


def tokens_after(config: RunConfig, steps: int) -> int:
    """consumed_tokens after the first `steps` steps, even beyond the token budget."""
    return _extent(length.build(config), BatchSize.from_config(config), _fixed(config), None, steps).tokens


@functools.lru_cache(maxsize=4096)
def _extent(
    lengths: LengthSchedule, batches: BatchSize, fixed: int, token_limit: int | None, step_limit: int | None
) -> Extent:
    steps: dict[int, int] = {}
    sequences: dict[int, int] = {}
    tokens = batch = 0
    for n, seqlen, batch, per_step in _walk(lengths, batches, fixed, token_limit, step_limit):
        steps[seqlen] = steps.get(seqlen, 0) + n
        sequences[seqlen] = sequences.get(seqlen, 0) + n * batch
        tokens += n * per_step
    return Extent(
        steps=sum(steps.values()),
        tokens=tokens,
        lengths=tuple(steps.items()),
        sequences=tuple(sequences.items()),
        is_lower_bound=not lengths.is_fixed,
        last_batch=batch,
    )


def tokens_per_step(config: RunConfig, seqlen: int, sequences: int) -> int:
    """Tokens that `sequences` consume at length `seqlen`: `seqlen` per sequence, or all of it in mode reshape."""
    return sequences * (_fixed(config) or seqlen)


def _fixed(config: RunConfig) -> int:
    return config.seqlen if config.curriculum.mode == "reshape" else 0


def fingerprint(config: RunConfig) -> str | None:
    """SHA-256 of the lengths of a custom schedule up to the token budget; None for other schedules.

    A function's name does not determine what it returns: an edited function is another experiment.
    """
    if not length.find(config.curriculum.schedule).is_opaque:
        return None
    digest = hashlib.sha256()
    for stretch in walk(config):
        digest.update(f"{stretch.seqlen} ".encode() * stretch.steps)
    return digest.hexdigest()[:16]


def check_fingerprint(config: RunConfig) -> None:
    """Raise ConfigError if a custom schedule no longer returns the lengths that its resolved run was planned with."""
    if fingerprint(config) != config.curriculum.fingerprint:
        raise ConfigError(
            f"curriculum.function = {config.curriculum.function}: returns different lengths than when the "
            "run was planned; launch again to train it as a new run"
        )


def check(config: RunConfig) -> None:
    """Raise ConfigError if the curriculum's parameters cannot be used or the run ends before its batch warmup does."""
    last, warmup = extent(config).last_batch, config.batch_warmup
    if last < config.global_batch_size:
        raise ConfigError(
            f"batch_warmup.duration = {warmup.duration:g} {warmup.duration_unit}: the run ends at token_budget = "
            f"{config.token_budget:,} with a batch of {last} and never reaches global_batch_size = "
            f"{config.global_batch_size}; shorten the warmup, or lengthen the run"
        )
