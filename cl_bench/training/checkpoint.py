"""Checkpoints of a run: DeepSpeed's shards, and one small dataclass with everything else."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cl_bench.config import RunConfig
from cl_bench.errors import UserError
from cl_bench.runs.paths import RunDir, write_atomic
from cl_bench.training.engine import Engine
from cl_bench.training.process import Rank

log = logging.getLogger(__name__)

_LATEST = "latest"


@dataclasses.dataclass
class TrainState:
    """State of the loop between steps, besides the weights and Adam's state.

    No random state: initial weights, data order and dropout are functions of (seed, step, rank).
    """

    step: int = 0
    consumed_tokens: int = 0
    consumed_samples: int = 0
    train_seconds: float = 0.0
    loss: float = math.nan
    """Loss of the last step."""
    min_loss: float = math.inf
    steps_above: int = 0
    """Consecutive steps with a loss ratio above divergence.loss_ratio."""
    schedule: dict[str, int | float | None] = dataclasses.field(default_factory=dict)
    """State of the sequence-length schedule; empty for a fixed one."""

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> TrainState:
        """The state in a checkpoint; version 0.1 called the schedule's state `pace`."""
        schedule = saved.get("schedule") or saved.get("pace") or {}
        names = {field.name for field in dataclasses.fields(cls)} - {"schedule"}
        return cls(**{name: value for name, value in saved.items() if name in names}, schedule=schedule)


class Checkpointer:
    """Saves a run at intervals, and restores it."""

    def __init__(self, config: RunConfig, run: RunDir, engine: Engine, rank: Rank) -> None:
        self._interval = config.checkpoint.interval_steps
        self._keep = config.checkpoint.keep
        self._run, self._engine, self._rank = run, engine, rank

    def is_due(self, step: int) -> bool:
        """Whether the run is saved after step `step`."""
        return bool(self._interval) and step % self._interval == 0

    def save(self, state: TrainState) -> None:
        """Save on all ranks together: `latest` is updated once every shard is on disk, then old ones are removed."""
        folder = self._run.checkpoints
        tag = f"step_{state.step:09d}"
        self._engine.save(folder, tag, dataclasses.asdict(state))
        dist.barrier()
        if self._rank.rank == 0:
            _flush_to_disk(folder / tag)
            write_atomic(folder / _LATEST, tag)
            # Checkpoints beyond this step are incomplete, left by a killed attempt.
            kept = [save.name for save in sorted(folder.glob("step_*")) if save.name <= tag][-self._keep :]
            for save in folder.glob("step_*"):
                if save.name not in kept:
                    shutil.rmtree(save, ignore_errors=True)
        dist.barrier()

    def restore(self) -> TrainState:
        """Load the newest complete checkpoint into the engine, if there is one.

        Raises UserError if ZeRO partitioned it over another number of ranks.
        """
        folder, world_size = newest(self._run), self._rank.world_size
        if folder is None:
            return TrainState()
        if not folder.is_dir():
            log.warning("%s is missing: training starts anew", folder)
            return TrainState()
        partitions = len(list(folder.glob("*_optim_states.pt")))
        if partitions not in (0, world_size):
            raise UserError(
                f"{folder}: saved by {partitions} ranks, whose optimizer states {world_size} ranks cannot load; resume "
                f"with resources for {partitions} (nodes x gpus_per_node or tasks_per_node), or delete {folder.parent} "
                "to start anew"
            )
        return TrainState.from_saved(self._engine.load(folder.parent, folder.name))


def newest(run: RunDir) -> Path | None:
    """The folder of the newest complete checkpoint, which may have been deleted since; None before the first."""
    latest = run.checkpoints / _LATEST
    return run.checkpoints / latest.read_text().strip() if latest.exists() else None


def _flush_to_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
