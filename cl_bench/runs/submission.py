"""Record of a run's submission: the job or process that is to train it, for use from any shell."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from cl_bench.runs.paths import RunDir, read_record, write_atomic


@dataclasses.dataclass(frozen=True)
class Submission:
    """Contents of `submission.json`."""

    launcher: str
    """Name of the backend."""
    job_id: str
    """The queue's id, with the index in a job array; without a queue, the launch's process id."""
    folder: str = ""
    """Queue: folder of the submission, with the batch script and the output before training began."""
    runs_in_job: int = 1
    """Queue: runs that share the job."""
    sweep: str = ""
    """Sweep that was launched."""
    launch: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The launch's settings, for a retry."""
    host: str = ""
    """Without a queue: machine of the launch."""
    process_started: str = ""
    """Without a queue: start time of that process in kernel ticks, since process ids are reused."""
    cancelled: bool = False
    """Whether `cl-bench cancel` has cancelled it."""
    submitted: float = 0.0
    """Unix time."""

    @property
    def batch_log(self) -> Path:
        """Queue: output of the batch script and the first task before training redirected it."""
        return Path(self.folder) / f"{self.job_id}_0_log.out"

    @property
    def launch_lives(self) -> bool:
        """Whether the launch's process is alive; assumed for a process on another machine."""
        return self.host != socket.gethostname() or _started(int(self.job_id)) == self.process_started


def by_this_process(sweep: str, launch: dict[str, Any]) -> Submission:
    """A submission whose runs this process trains."""
    pid = os.getpid()
    return Submission(
        launcher="local",
        job_id=str(pid),
        sweep=sweep,
        launch=launch,
        host=socket.gethostname(),
        process_started=_started(pid),
        submitted=time.time(),
    )


def _started(pid: int) -> str:
    """Start time of a process of this machine, in kernel ticks; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def read(run: RunDir) -> Submission | None:
    """The run's newest submission; None without a readable record."""
    return read_record(run.submission, Submission)


def write(run: RunDir, submission: Submission) -> None:
    """Write `submission` into the run's folder."""
    write_atomic(run.submission, json.dumps(dataclasses.asdict(submission)), durable=False)
