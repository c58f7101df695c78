"""What is measured at a step besides its loss: loss ratio, gradient norm, Adam's second moment, divergence."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist

from cl_bench.config import DivergenceConfig
from cl_bench.training import engine as ds_config

ADAM_VARIANCE = ("adam_var_l1", "adam_var_max", "adam_var_sqrt_l1", "adam_var_sqrt_max")


def loss_ratio(loss: float, min_loss: float) -> float | None:
    """A step's loss over the smallest of all earlier ones (arXiv 2108.06084, section 3); None for the first step."""
    return loss / min_loss if math.isfinite(min_loss) else None


def steps_above(config: DivergenceConfig, ratio: float | None, so_far: int) -> int:
    """Consecutive steps above the loss-ratio threshold, this one included."""
    return so_far + 1 if ratio is not None and ratio > config.loss_ratio else 0


def divergence(config: DivergenceConfig, loss: float, above: int) -> str | None:
    """Why the run is over, or None."""
    if not math.isfinite(loss):
        return f"the training loss is {loss}"
    if above >= config.steps:
        return f"the loss stayed above {config.loss_ratio:g} times its minimum for {above} steps"
    return None


def clip_gradients(engine: Any, limit: float) -> float:
    """Global L2 norm of the gradients, scaled down to `limit` in place (0: not scaled)."""
    norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), limit or math.inf)
    return float(norm)


def adam_variance(engine: Any, world_size: int, partitioned: bool) -> dict[str, float]:
    """L1 norm and maximum of Adam's second-moment state and of its square root, over all partitions.

    The entries are non-negative, so the L1 norm is their sum; padding of a partition is zero and does not count.
    """
    moments = [s["exp_avg_sq"] for s in ds_config.base_optimizer(engine).state.values() if "exp_avg_sq" in s]
    if not moments:  # the first step was skipped (fp16 overflow)
        return {}
    plain = torch.stack(torch._foreach_norm(moments, 1)).sum()
    rooted = torch.stack([m.sqrt().sum() for m in moments]).sum()  # one copy of one tensor at a time
    sums = torch.stack([plain, rooted])
    largest = torch.stack(torch._foreach_norm(moments, math.inf)).max()
    if partitioned and world_size > 1:
        dist.all_reduce(sums, op=dist.ReduceOp.SUM)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    total, total_sqrt, top = float(sums[0]), float(sums[1]), float(largest)
    return dict(zip(ADAM_VARIANCE, (total, top, total_sqrt, math.sqrt(top)), strict=True))
