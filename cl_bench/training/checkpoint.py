"""Saving and restoring a run: DeepSpeed's shards, and one small dataclass with everything else."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cl_bench.errors import UserError
from cl_bench.runs.paths import RunDir, write_atomic
from cl_bench.schedules.adaptive import Pace

log = logging.getLogger(__name__)

_LATEST = "latest"


@dataclasses.dataclass
class TrainState:
    """All that the loop remembers between steps, besides weights and Adam's state.

    No random state: initial weights, data order and dropout are functions of (seed, step, rank).
    """

    step: int = 0
    consumed_tokens: int = 0
    consumed_samples: int = 0
    train_seconds: float = 0.0
    min_loss: float = math.inf
    steps_above: int = 0
    pace: Pace = dataclasses.field(default_factory=Pace)
    """Where an adaptive schedule stands."""


def save(engine: Any, state: TrainState, run: RunDir, rank: int, keep: int) -> None:
    """Save on all ranks together. `latest` moves on only when every shard is on disk; then old saves are removed."""
    tag = f"step_{state.step:09d}"
    engine.save_checkpoint(
        str(run.checkpoints), tag=tag, client_state={"state": dataclasses.asdict(state)}, save_latest=False
    )
    dist.barrier()
    if rank == 0:
        _flush_to_disk(run.checkpoints / tag)
        write_atomic(run.checkpoints / _LATEST, tag)
        saves = sorted(run.checkpoints.glob("step_*"))
        whole = [s for s in saves if s.name <= tag]  # beyond this step lies only what a killed save left half done
        for old in [s for s in saves if s not in whole[-keep:]]:
            shutil.rmtree(old, ignore_errors=True)
    dist.barrier()


def newest(run: RunDir) -> Path | None:
    """The folder of the newest whole save (it may have been deleted since); None before the first."""
    latest = run.checkpoints / _LATEST
    return run.checkpoints / latest.read_text().strip() if latest.exists() else None


def restore(engine: Any, run: RunDir, world_size: int) -> TrainState:
    """Load the newest whole save into the engine, or start anew.

    Raises UserError when it was saved by another number of ranks and ZeRO partitioned it.
    """
    folder = newest(run)
    if folder is None:
        return TrainState()
    if not folder.is_dir():
        log.warning("%s is gone: training starts anew", folder)
        return TrainState()
    partitions = len(list(folder.glob("*_optim_states.pt")))
    if partitions not in (0, world_size):
        raise UserError(
            f"{folder}: saved by {partitions} ranks, whose optimizer states {world_size} cannot take over; go on with "
            f"resources for {partitions} (nodes x gpus_per_node or tasks_per_node), or delete {run.checkpoints} to "
            "start anew"
        )
    _, client_state = engine.load_checkpoint(str(run.checkpoints), tag=folder.name)
    saved = client_state["state"]
    return TrainState(**{**saved, "pace": Pace(**saved["pace"])})


def _flush_to_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
