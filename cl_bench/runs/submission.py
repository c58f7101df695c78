"""Record of a run's submission: which job or process is to train it, so that another shell can find it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from cl_bench.runs.paths import RunDir, write_atomic


@dataclasses.dataclass(frozen=True)
class Submission:
    """Contents of `submission.json`."""

    launcher: str
    """Name of the backend."""
    job_id: str
    """The queue's id, with the index in a job array; without a queue the process id of the launch."""
    folder: str = ""
    """Queue: folder of the submission, with the batch script and what was printed before training began."""
    runs_in_job: int = 1
    """Queue: runs that share the job."""
    sweep: str = ""
    """Sweep that was launched."""
    launch: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The launch's settings, to repeat it."""
    host: str = ""
    """Without a queue: machine of the launch."""
    process_started: str = ""
    """Without a queue: when that process began, in the kernel's ticks, since process ids are reused."""
    cancelled: bool = False
    """Whether `cl-bench cancel` has cancelled it."""
    submitted: float = 0.0
    """Unix time."""

    @property
    def batch_log(self) -> Path:
        """Queue: what the batch script and the first task printed before training redirected the output."""
        return Path(self.folder) / f"{self.job_id}_0_log.out"

    @property
    def launch_lives(self) -> bool:
        """Whether the process of the launch still lives; assumed of a process on another machine."""
        return self.host != socket.gethostname() or _started(int(self.job_id)) == self.process_started


def by_this_process(sweep: str, launch: dict[str, Any]) -> Submission:
    """Submission whose runs this process trains."""
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
    """When a process of this machine began; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def read(run: RunDir) -> Submission | None:
    """The run's newest submission; None without a readable record."""
    try:
        data = json.loads(run.submission.read_text())
        names = {f.name for f in dataclasses.fields(Submission)}
        return Submission(**{k: v for k, v in data.items() if k in names})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write(run: RunDir, submission: Submission) -> None:
    """Write `submission` into the run's folder."""
    write_atomic(run.submission, json.dumps(dataclasses.asdict(submission)), durable=False)
