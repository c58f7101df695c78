"""Records of an attempt: metric rows, their W&B mirror, and the run's status with heartbeat and planned steps."""

from __future__ import annotations

import dataclasses
import logging
import math
import platform
import socket
import time
from importlib.metadata import version

from cl_bench import __version__, schedules
from cl_bench.config import RunConfig
from cl_bench.runs import provenance, records, status
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED
from cl_bench.training import hardware
from cl_bench.training.checkpoint import TrainState
from cl_bench.training.process import Rank
from cl_bench.training.wandb_mirror import Mirror

log = logging.getLogger("cl_bench")

Row = dict[str, int | float | None]

_HEARTBEAT_S = 0.5
_HEARTBEAT_FIELDS = ("step", "consumed_tokens", "seqlen", "lr", "loss", "train_seconds", "tokens_per_second")


class Recorder:
    """Rank 0's records of an attempt, from start to end; other ranks only log."""

    def __init__(self, config: RunConfig, run: RunDir, rank: Rank, state: TrainState) -> None:
        extent = schedules.extent(config)
        self._config, self._run = config, run
        self._steps = extent.steps
        self._is_lower_bound = extent.is_lower_bound
        self._heartbeat = 0.0
        self._writer: records.RecordWriter | None = None
        if rank.rank == 0:
            self._begin(rank, state)
        log.info("starts at step %d of %d", state.step, self._steps)

    def _begin(self, rank: Rank, state: TrainState) -> None:
        """Open the attempt's record, its mirror and the run's status."""
        run, attempt = self._run, records.next_attempt(self._run)
        node = rank.node or socket.gethostname()
        row = {
            "restored_step": state.step,
            "world_size": rank.world_size,
            "host": node,
            "device": rank.device,
            "started": time.time(),
            "versions": _versions(run),
            "hardware": hardware.name(rank.device),
        }
        self._writer = records.RecordWriter(run, attempt)
        self._writer.write("attempt", row)
        self._mirror = Mirror(self._config, run, {"attempt": attempt, "planned_steps": self._steps, **row})
        self._status = status.write(
            run,
            status.read(run),
            state="RUNNING",
            attempt=attempt,
            steps=self._steps,
            error="",
            job=rank.job,
            restarts=rank.restarts,
            node=node,
            token_budget=self._config.token_budget,
            step=state.step,
            consumed_tokens=state.consumed_tokens,
        )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        """Make the rows durable."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def train(self, row: Row) -> None:
        """Record a step."""
        if self._writer:
            self._write("train", row)
            if time.monotonic() - self._heartbeat >= _HEARTBEAT_S:
                self._heartbeat = time.monotonic()
                self._beat(row)

    def evaluation(self, row: Row) -> None:
        """Record an evaluation."""
        if self._writer:
            self._write("eval", row)
            self._status = dataclasses.replace(
                self._status, val_loss=_finite(row["val_loss"]), val_ppl=_finite(row["val_ppl"])
            )

    def _write(self, kind: records.Kind, row: Row) -> None:
        assert self._writer
        self._writer.write(kind, row)
        self._mirror.log({**row, "attempt": self._writer.attempt})

    def _beat(self, row: Row) -> None:
        """Update the status file with the run's progress."""
        if self._is_lower_bound:  # an adaptive run: assume that the length stays
            left = max(0, self._config.token_budget - int(row["consumed_tokens"] or 0))
            per_step = int(row["seqlen"] or 0) * int(row["global_batch_size"] or 0)
            self._steps = int(row["step"] or 0) + math.ceil(left / max(1, per_step))
        changes = {name: _finite(row[name]) for name in _HEARTBEAT_FIELDS}
        self._status = status.write(self._run, self._status, durable=False, steps=self._steps, **changes)

    def finish(self, outcome: status.State, reason: str, state: TrainState) -> None:
        """Close the record, flush the mirror, and write the attempt's outcome."""
        log.info("%s at step %d%s", outcome, state.step, f": {reason}" if reason else "")
        if not self._writer:
            return
        self.__exit__()
        self._mirror.finish(outcome)
        if outcome in FINISHED:
            records.compact(self._run)
        status.write(
            self._run,
            self._status,
            state=outcome,
            error=reason,
            step=state.step,
            consumed_tokens=state.consumed_tokens,
            train_seconds=state.train_seconds,
        )


def _finite(value: float | None) -> float | None:
    """None for a number that JSON cannot hold."""
    return value if value is None or math.isfinite(value) else None


def _versions(run: RunDir) -> dict[str, str]:
    names = ("torch", "deepspeed", "numpy")
    versions = {"cl_bench": __version__, "python": platform.python_version(), **{n: version(n) for n in names}}
    return versions | {"commit": commit} if (commit := provenance.commit_of(run)) else versions
