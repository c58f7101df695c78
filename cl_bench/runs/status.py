"""A run's state, as the job itself wrote it: the truth about what happened."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any, Literal

from cl_bench.runs import lock
from cl_bench.runs.paths import RunDir, write_atomic

State = Literal["PENDING", "RUNNING", "DONE", "DIVERGED", "FAILED", "PREEMPTED", "LOST"]
"""LOST is never written: it is what a reader says of RUNNING where nobody trains the run any more (states.py)."""
FINISHED = ("DONE", "DIVERGED")
"""States of a run that has its result and is not trained again."""
AT_WORK = ("PENDING", "RUNNING", "PREEMPTED")
"""States in which a run is still to get further by itself; FAILED and LOST ones wait for somebody to retry them."""


@dataclasses.dataclass(frozen=True)
class Status:
    """What `status.json` holds."""

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
    """Slurm's id of the job that wrote this."""
    restarts: int = 0
    """Times that Slurm had started that job again."""
    node: str = ""
    """Machine of rank 0."""
    updated: float = 0.0
    """Unix time of the last write."""


def read(run: RunDir) -> Status:
    """The run's status; PENDING where there is none yet or the file cannot be understood."""
    try:
        data = json.loads(run.status.read_text())
        known = {f.name for f in dataclasses.fields(Status)}
        return Status(**{k: v for k, v in data.items() if k in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return Status()


def current(run: RunDir) -> Status:
    """The run's status as its folder tells it: LOST when it says RUNNING and nobody trains it. No queue is asked."""
    found = read(run)
    if found.state == "RUNNING" and not lock.is_held(run):
        found = read(run)  # it may just have ended
        return dataclasses.replace(found, state="LOST") if found.state == "RUNNING" else found
    return found


def write(run: RunDir, status: Status, *, durable: bool = True, **changes: Any) -> Status:
    """Write the status with `changes` applied; `durable=False` for a heartbeat that may be lost."""
    status = dataclasses.replace(status, **changes, updated=time.time())
    write_atomic(run.status, json.dumps(dataclasses.asdict(status)), durable=durable)
    return status
