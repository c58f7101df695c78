"""Learning rate: linear warmup, then a cosine over *tokens* (or over steps, to show how that distorts a comparison).

Decaying by step would confound a comparison of curricula, whose steps hold different numbers of tokens. The formula is
that of Megatron-DeepSpeed's token-based decay, min + (max - min) (1 + cos(pi (tok - W)/(D - W)))/2, with W the tokens
at the end of the warmup and D the decay tokens.
"""

from __future__ import annotations

import dataclasses
import math

from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import length, walk


@dataclasses.dataclass(frozen=True)
class LRSchedule:
    """Learning rate as a function of the step and the tokens consumed before it."""

    lr: float
    min_lr: float
    decay_tokens: int
    warmup_tokens: int
    """Tokens at the end of the warmup (W)."""
    warmup_steps: int | None = None
    """If set, the warmup runs over steps rather than tokens."""
    decay_steps: int | None = None
    """If set, the cosine runs over steps, from the end of the warmup to this step."""

    @classmethod
    def from_config(cls, config: RunConfig) -> LRSchedule:
        """The schedule of a run. Raises ConfigError if the warmup ends after the decay."""
        optim = config.optim
        decay = optim.decay_tokens or config.token_budget
        if optim.warmup_steps:
            if not length.find(config.curriculum.schedule).is_fixed:
                raise ConfigError(
                    f"optim.warmup_steps = {optim.warmup_steps}: the tokens per step of curriculum.schedule = "
                    f"{config.curriculum.schedule} are unknown in advance; set optim.warmup_steps=null "
                    "optim.warmup_tokens=N"
                )
            warmup = walk.tokens_after(config, optim.warmup_steps)
            name = f"optim.warmup_steps = {optim.warmup_steps}"
        else:
            warmup = optim.warmup_tokens or 0
            name = f"optim.warmup_tokens = {warmup}"
        if warmup >= decay:
            raise ConfigError(
                f"{name} ends at {warmup} tokens, not before the decay's end at {decay}; shorten the warmup"
            )
        steps = decay_steps(config)
        if steps is not None and steps <= (optim.warmup_steps or 0):
            raise ConfigError(f"optim.decay_steps = {steps} ends before {name}; lengthen it")
        return cls(optim.lr, optim.min_lr, decay, warmup, optim.warmup_steps or None, steps)

    def at(self, step: int, consumed_tokens: int) -> float:
        """Learning rate of step `step` (from 1), given the tokens consumed before it."""
        if self.warmup_steps is not None:
            if step <= self.warmup_steps:
                return self.lr * step / self.warmup_steps
        elif consumed_tokens < self.warmup_tokens:
            return self.lr * (consumed_tokens + 1) / (self.warmup_tokens + 1)  # + 1: nonzero at the first step
        if self.decay_steps is not None:
            first = self.warmup_steps or 0
            progress = min(1.0, max(0, step - 1 - first) / (self.decay_steps - first))
        elif consumed_tokens >= self.decay_tokens:
            return self.min_lr
        else:
            progress = max(0, consumed_tokens - self.warmup_tokens) / (self.decay_tokens - self.warmup_tokens)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def decay_steps(config: RunConfig) -> int | None:
    """Step at which a decay over steps ends: the baseline's last unless given; None for a decay over tokens."""
    return (config.optim.decay_steps or config.baseline_steps) if config.optim.decay == "steps" else None
