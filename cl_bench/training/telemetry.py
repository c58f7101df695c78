"""Measurements of a step besides its loss: loss ratio, divergence, Adam's second moment."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from cl_bench.config import DivergenceConfig, RunConfig
from cl_bench.training.engine import Engine
from cl_bench.training.process import Rank

ADAM_VARIANCE = ("adam_var_l1", "adam_var_max", "adam_var_sqrt_l1", "adam_var_sqrt_max")


def loss_ratio(loss: float, min_loss: float) -> float | None:
    """A step's loss over the smallest of all earlier ones (arXiv 2108.06084, section 3); None for the first step."""
    return loss / min_loss if math.isfinite(min_loss) else None


def steps_above(config: DivergenceConfig, ratio: float | None, so_far: int) -> int:
    """Consecutive steps above the loss-ratio threshold, including this one."""
    return so_far + 1 if ratio is not None and ratio > config.loss_ratio else 0


def divergence(config: DivergenceConfig, loss: float, above: int) -> str | None:
    """Why the run is over, or None."""
    if not math.isfinite(loss):
        return f"the training loss is {loss}"
    if above >= config.steps:
        return f"the loss stayed above {config.loss_ratio:g} times its minimum for {above} steps"
    return None


class Telemetry:
    """Measures Adam's second moment every telemetry.adam_variance_interval steps."""

    def __init__(self, config: RunConfig, engine: Engine, rank: Rank) -> None:
        self._interval = config.telemetry.adam_variance_interval
        self._engine = engine
        self._is_partitioned = config.deepspeed.zero_stage > 0 and rank.world_size > 1

    def adam_variance_if_due(self, step: int) -> dict[str, int | float | None]:
        """The measurement of step `step`; empty if it is not due, or before the first update (fp16 overflow)."""
        if not self._interval or step % self._interval:
            return {}
        moments = self._engine.adam_second_moments()
        return {**adam_variance(moments, self._is_partitioned)} if moments else {}


def adam_variance(moments: list[Tensor], is_partitioned: bool) -> dict[str, float]:
    """L1 norm and maximum of Adam's second-moment state and of its square root, over all partitions.

    The entries are non-negative, so the L1 norm is their sum; padding of a partition is zero and does not count.
    """
    plain = torch.stack(torch._foreach_norm(moments, 1)).sum()
    rooted = torch.stack([m.sqrt().sum() for m in moments]).sum()  # one copy of one tensor at a time
    sums = torch.stack([plain, rooted])
    largest = torch.stack(torch._foreach_norm(moments, math.inf)).max()
    if is_partitioned:
        dist.all_reduce(sums, op=dist.ReduceOp.SUM)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    total, total_sqrt, top = float(sums[0]), float(sums[1]), float(largest)
    return dict(zip(ADAM_VARIANCE, (total, top, total_sqrt, math.sqrt(top)), strict=True))
