"""Validation loss on fixed blocks at full length."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from cl_bench.config import RunConfig
from cl_bench.data import batches
from cl_bench.data.spans import Mixture
from cl_bench.training.engine import Engine
from cl_bench.training.process import Rank

_LARGEST_EXPONENT = 700.0  # exp of more is not a double


def perplexity(loss: float) -> float:
    """exp(loss), infinite if that does not fit a double."""
    return math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf


class Evaluator:
    """Evaluates a run on the same blocks, at full length, after every interval of tokens."""

    def __init__(self, config: RunConfig, corpus: Mixture, engine: Engine, rank: Rank) -> None:
        self._interval = config.eval_interval_tokens
        self._token_budget = config.token_budget
        self._blocks = batches.validation_blocks(corpus, config.seqlen, config.evaluation.n_blocks)
        self._micro_batch = config.micro_batch(rank.world_size)
        self._engine, self._rank = engine, rank

    def is_due(self, consumed_tokens: int, step_tokens: int) -> bool:
        """Whether the last step, of `step_tokens`, crossed the grid of evaluation.interval_tokens or ended the run."""
        crossed = consumed_tokens // self._interval > (consumed_tokens - step_tokens) // self._interval
        return crossed or consumed_tokens >= self._token_budget

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss in nats per token; the blocks, int64 (n, seqlen + 1), are distributed over the ranks.

        Every rank runs the same number of forward passes (ZeRO 3 gathers weights in each), if need be on blocks that
        another rank counts.
        """
        blocks, model, rank = self._blocks, self._engine.module, self._rank
        n = len(blocks)
        own = np.arange(rank.rank, math.ceil(n / rank.world_size) * rank.world_size, rank.world_size)
        total = torch.zeros((), dtype=torch.float64)
        model.eval()
        for start in range(0, len(own), self._micro_batch):
            indices = own[start : start + self._micro_batch]
            tokens = torch.from_numpy(blocks[indices % n]).to(rank.device)
            logits = model(tokens[:, :-1])  # (m, seqlen, V)
            losses = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
            per_block = losses.view(len(indices), -1).double().sum(1).cpu()
            total += per_block[torch.from_numpy(indices < n)].sum()
        model.train()
        if rank.world_size > 1:
            total = total.to(rank.device)
            dist.all_reduce(total)
        return total.item() / (n * (int(blocks.shape[1]) - 1))
