"""Where runs stand, for whoever looks from outside: the job's own word first, then its lock, then the queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cl_bench.launch.slurm.queue import Job, Queue
from cl_bench.runs import lock, status, submission
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED, Status
from cl_bench.runs.submission import Submission

_ENDED = {
    "OUT_OF_MEMORY": "it took more memory than it was given; raise resources.mem",
    "TIMEOUT": "its time limit came before it could save; raise resources.notice_s or time_min",
    "NODE_FAIL": "its node failed",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "another job took its place",
}


@dataclasses.dataclass(frozen=True)
class Observed:
    """One run as it stands now."""

    run: RunDir
    status: Status
    """What the job wrote last, with the state as it is known now."""
    submission: Submission | None
    job: Job | None
    """Slurm's view."""
    why: str
    """Why it waits, or what is known of its end."""
    unsure: str = ""
    """Why its state could not be made out; the state is then the file's own."""
    in_launch: bool = False
    """Whether a launch on this or another machine is going to train it."""

    @property
    def is_queued(self) -> bool:
        """Whether a Slurm job is to train it."""
        return self.job is not None and not self.job.over and self.status.state == "PENDING"

    @property
    def is_live(self) -> bool:
        """Whether it is being trained, or something is going to."""
        return self.status.state == "RUNNING" or self.is_queued or self.in_launch

    @property
    def job_id(self) -> str:
        """Slurm's id of its newest job; empty for a local run."""
        found = self.submission
        return found.job_id if found is not None and found.launcher == "slurm" else ""


def observe(runs: Sequence[RunDir]) -> list[Observed]:
    """Each run as it stands now; Slurm is asked once for all of them, and only where it is needed."""
    statuses = [status.read(run) for run in runs]
    submissions = [
        submission.read(run) if known.state not in FINISHED else None for run, known in zip(runs, statuses, strict=True)
    ]
    queue = Queue(s.job_id for s in submissions if s is not None and s.launcher == "slurm")
    return [_observe(run, known, sub, queue) for run, known, sub in zip(runs, statuses, submissions, strict=True)]


def _observe(run: RunDir, known: Status, sub: Submission | None, queue: Queue) -> Observed:
    if known.state in FINISHED:
        return Observed(run, known, sub, None, "")
    held = lock.is_held(run)
    if not held:
        known = status.read(run)  # it may have ended since
        if known.state in FINISHED:
            return Observed(run, known, sub, None, "")
    if sub is None or sub.launcher == "local":
        return _observe_local(run, known, sub, held)
    job = queue.get(sub.job_id)
    if held:
        return Observed(run, _as(known, "RUNNING"), sub, job, "")
    if queue.problem:
        return Observed(run, known, sub, None, "", unsure=queue.problem)
    began = known.job == sub.job_id
    if job is not None and not job.over:
        return Observed(run, *_in_its_job(known, sub, job, began))
    word = job.state if job else ""
    if began and known.state != "RUNNING":
        return Observed(run, known, sub, job, "")
    if not began and (word == "CANCELLED" or sub.cancelled):
        return Observed(run, known, sub, job, "cancelled before it began; `cl-bench retry` queues it again")
    ended = _ENDED.get(word, f"Slurm says {word}" if word else "Slurm no longer knows its job")
    if not began:
        ended += "; it never began" + (": see its log" if sub.batch_log.exists() else "")
    return Observed(run, _as(known, "LOST"), sub, job, ended)


def _in_its_job(known: Status, sub: Submission, job: Job, began: bool) -> tuple[Status, Submission, Job, str]:
    """A run that nobody holds, while its job waits or runs."""
    if began and known.state == "FAILED" and sub.runs_in_job > 1:
        return known, sub, job, ""  # its job goes on with others, and does not come back to it
    if job.waits:
        again = f"restart {known.restarts + 1}; " if began else ""
        return _as(known, "PENDING"), sub, job, again + job.why
    if sub.runs_in_job > 1 and not began:
        return _as(known, "PENDING"), sub, job, f"waits for its turn in job {sub.job_id}"
    return _as(known, "RUNNING"), sub, job, "" if began else "starting"


def _observe_local(run: RunDir, known: Status, sub: Submission | None, held: bool) -> Observed:
    if held:
        return Observed(run, _as(known, "RUNNING"), sub, None, "")
    if sub is not None and sub.launch_lives and not sub.cancelled and known.updated < sub.submitted:
        return Observed(run, _as(known, "PENDING"), sub, None, f"waits in process {sub.job_id}", in_launch=True)
    if known.state == "RUNNING":
        return Observed(run, _as(known, "LOST"), sub, None, "no process trains it any more")
    if known.state != "PENDING" or sub is None:
        return Observed(run, known, sub, None, "")
    if sub.cancelled:
        return Observed(run, known, sub, None, "cancelled before it began; `cl-bench retry` starts it")
    if sub.launch_lives:  # it has just taken the run up
        return Observed(run, known, sub, None, f"starts in process {sub.job_id}", in_launch=True)
    return Observed(run, known, sub, None, "its launch is over; `cl-bench retry` starts it")


def _as(known: Status, state: status.State) -> Status:
    return known if known.state == state else dataclasses.replace(known, state=state)
