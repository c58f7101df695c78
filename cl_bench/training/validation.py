"""Validation loss on fixed blocks at full length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

_LARGEST_EXPONENT = 700.0  # exp beyond this is not a double


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that does not fit."""
    return math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf


@torch.no_grad()
def validation_loss(
    engine: Any, blocks: np.ndarray, micro_batch: int, rank: int, world_size: int, device: str
) -> float:
    """Mean loss in nats per token over `blocks`, int64 (n, seqlen + 1), shared out over the ranks.

    Every rank runs the same number of forward passes (ZeRO 3 gathers weights in each), the last ones on blocks that
    another rank counts.
    """
    n = len(blocks)
    mine = np.arange(rank, math.ceil(n / world_size) * world_size, world_size)
    total = torch.zeros((), dtype=torch.float64)
    engine.module.eval()
    for start in range(0, len(mine), micro_batch):
        chosen = mine[start : start + micro_batch]
        tokens = torch.from_numpy(blocks[chosen % n]).to(device)
        logits = engine.module(tokens[:, :-1])  # (m, seqlen, V)
        losses = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        per_block = losses.view(len(chosen), -1).double().sum(1).cpu()
        total += per_block[torch.from_numpy(chosen < n)].sum()
    engine.module.train()
    if world_size > 1:
        total = total.to(device)
        dist.all_reduce(total)
    return total.item() / (n * (int(blocks.shape[1]) - 1))
