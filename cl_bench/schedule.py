"""Learning rate: linear warmup, then a cosine over *tokens*.

Decaying by step would confound a comparison of curricula, whose steps hold different numbers of tokens. The formula is
that of Megatron-DeepSpeed's token-based decay, min + (max - min) (1 + cos(pi (tok - W)/(D - W)))/2, with W the tokens
at the end of the warmup and D the decay tokens.
"""

from __future__ import annotations

import dataclasses
import math

from cl_bench import pacing
from cl_bench.config import RunConfig
from cl_bench.validation import ConfigError


@dataclasses.dataclass(frozen=True)
class LRSchedule:
    """Learning rate of a step, from the step's number and the tokens consumed before it."""

    lr: float
    min_lr: float
    decay_tokens: int
    warmup_tokens: int
    """Tokens at the end of the warmup (W)."""
    warmup_steps: int | None = None
    """When set, the warmup ramps by step rather than by tokens."""

    def at(self, step: int, consumed_tokens: int) -> float:
        """Learning rate of step `step` (from 1), which starts with `consumed_tokens` already consumed."""
        if self.warmup_steps is not None:
            if step <= self.warmup_steps:
                return self.lr * step / self.warmup_steps
        elif consumed_tokens < self.warmup_tokens:
            return self.lr * (consumed_tokens + 1) / (self.warmup_tokens + 1)  # + 1: the first step learns too
        if consumed_tokens >= self.decay_tokens:
            return self.min_lr
        progress = max(0, consumed_tokens - self.warmup_tokens) / (self.decay_tokens - self.warmup_tokens)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def of(config: RunConfig) -> LRSchedule:
    """The schedule of a run. Raises ConfigError when the warmup ends after the decay."""
    optim = config.optim
    decay = optim.decay_tokens or config.token_budget
    if optim.warmup_steps:
        warmup = pacing.tokens_after(config, optim.warmup_steps)
        name = f"optim.warmup_steps = {optim.warmup_steps}"
    else:
        warmup = optim.warmup_tokens or 0
        name = f"optim.warmup_tokens = {warmup}"
    if warmup >= decay:
        raise ConfigError(f"{name} ends at {warmup} tokens, not before the decay's end at {decay}; shorten the warmup")
    return LRSchedule(optim.lr, optim.min_lr, decay, warmup, optim.warmup_steps or None)
