"""What a launch leaves in a run's folder about the job that is to train it, so that another shell can find it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from cl_bench.runs.paths import RunDir, write_atomic


@dataclasses.dataclass(frozen=True)
class Submission:
    """What `submission.json` holds."""

    launcher: Literal["local", "slurm"]
    job_id: str
    """Slurm's id, with the index in its array; local: the process id of the launch."""
    folder: str = ""
    """Slurm: folder of the submission: batch script, and what was printed before training took over the output."""
    runs_in_job: int = 1
    """Slurm: runs that share the job."""
    sweep: str = ""
    """Sweep that was launched."""
    launch: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The launch's settings, for another one like it."""
    host: str = ""
    """local: machine of the launch."""
    process_started: str = ""
    """local: when that process began, in the kernel's ticks: process ids are used again."""
    cancelled: bool = False
    """Whether `cl-bench cancel` has taken it back."""
    submitted: float = 0.0
    """Unix time."""

    @property
    def batch_log(self) -> Path:
        """Slurm: what the batch script and the first task printed before training took over the output."""
        return Path(self.folder) / f"{self.job_id}_0_log.out"

    @property
    def launch_lives(self) -> bool:
        """Whether the launch of a local run is still there; so it is assumed of one on another machine."""
        return self.host != socket.gethostname() or _started(int(self.job_id)) == self.process_started


def by_this_process(sweep: str, launch: dict[str, Any]) -> Submission:
    """A local submission by the running process."""
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
    """When a process of this machine began; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def read(run: RunDir) -> Submission | None:
    """The run's newest submission; None where there is none or the file cannot be understood."""
    try:
        data = json.loads(run.submission.read_text())
        known = {f.name for f in dataclasses.fields(Submission)}
        return Submission(**{k: v for k, v in data.items() if k in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write(run: RunDir, submission: Submission) -> None:
    """Leave `submission` in the run's folder."""
    write_atomic(run.submission, json.dumps(dataclasses.asdict(submission)), durable=False)
