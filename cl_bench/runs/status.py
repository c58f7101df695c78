"""A run's state and progress, as written by the job itself."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any, Literal

from cl_bench.runs import lock
from cl_bench.runs.paths import RunDir, read_record, write_atomic

State = Literal["PENDING", "RUNNING", "DONE", "DIVERGED", "FAILED", "PREEMPTED", "LOST"]
"""LOST is never written: readers report it for a RUNNING run that no process is training."""
FINISHED = ("DONE", "DIVERGED")
"""States of a run with a result, which is not trained again."""
AT_WORK = ("PENDING", "RUNNING", "PREEMPTED")
"""States of a run that needs no intervention; FAILED and LOST runs must be retried."""


@dataclasses.dataclass(frozen=True)
class Status:
    """The contents of `status.json`."""

    state: State = "PENDING"
    attempt: int = 0
    step: int = 0
    steps: int = 0
    """Steps of the whole run, as planned."""
    consumed_tokens: int = 0
    token_budget: int = 0
    seqlen: int = 0
    lr: float | None = None
    loss: float | None = None
    val_loss: float | None = None
    val_ppl: float | None = None
    train_seconds: float = 0.0
    tokens_per_second: float | None = None
    error: str = ""
    """Why a run FAILED or DIVERGED."""
    job: str = ""
    """Slurm's id of the job that last wrote the status."""
    restarts: int = 0
    """Restarts of that job by Slurm."""
    node: str = ""
    """Machine of rank 0."""
    updated: float = 0.0
    """Unix time of the last write."""


def read(run: RunDir) -> Status:
    """The run's status; PENDING if its file is missing or unreadable."""
    return read_record(run.status, Status) or Status()


def current(run: RunDir) -> Status:
    """The run's status, from its folder alone: LOST if it is RUNNING and no process holds the lock."""
    status = read(run)
    if status.state == "RUNNING" and not lock.is_held(run):
        status = read(run)  # the run may just have ended
        return dataclasses.replace(status, state="LOST") if status.state == "RUNNING" else status
    return status


def write(run: RunDir, status: Status, *, durable: bool = True, **changes: Any) -> Status:
    """Write the status with `changes` applied; `durable=False` for a heartbeat that may be lost."""
    status = dataclasses.replace(status, **changes, updated=time.time())
    write_atomic(run.status, json.dumps(dataclasses.asdict(status)), durable=durable)
    return status
