"""Collectives by which the ranks of a run agree on a loss and on flags."""

from __future__ import annotations

import signal

import torch
import torch.distributed as dist
from torch import Tensor

from cl_bench.training.process import Rank, StopRequest


def broadcast_flag(flag: bool, rank: Rank) -> bool:
    """Rank 0's `flag`, on every rank."""
    value = torch.tensor([int(flag)], device=rank.device)
    dist.broadcast(value, src=0)
    return bool(value.item())


def mean_loss_and_stop(loss: Tensor, stop: StopRequest, rank: Rank) -> tuple[float, bool]:
    """Mean loss over the ranks, and whether any rank was asked to stop, in one collective."""
    is_stopping, is_noticed = bool(stop.signals), signal.SIGUSR2 in stop.signals
    if rank.world_size == 1:
        return float(loss), is_stopping
    flags = torch.tensor([float(is_stopping), float(is_noticed)], device=loss.device)
    total = torch.cat([loss.reshape(1), flags])
    dist.all_reduce(total)
    if total[2] > 0:
        stop.signals.add(signal.SIGUSR2)  # a notice to one rank is a notice to the run
    return float(total[0]) / rank.world_size, bool(total[1] > 0)
