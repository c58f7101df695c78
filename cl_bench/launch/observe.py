"""State of runs as seen from outside: the job's own status file first, then its lock, then the backend's queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from cl_bench.launch import backend
from cl_bench.launch.backend import Observed, QueuedJob
from cl_bench.runs import lock, status, submission
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED
from cl_bench.runs.submission import Submission

NO_TRAINER = "no process trains it any more"


def observe(runs: Sequence[RunDir]) -> list[Observed]:
    """Each run as it stands now; a queue is asked once about all of its unfinished runs."""
    submissions = [submission.read(run) if status.read(run).state not in FINISHED else None for run in runs]
    by_launcher: dict[str, list[Submission]] = {}
    for record in filter(None, submissions):
        by_launcher.setdefault(record.launcher, []).append(record)
    answers = {launcher: backend.get(launcher).observe(members) for launcher, members in by_launcher.items()}
    return [
        _observe(run, record, answers[record.launcher] if record else _without_submission)
        for run, record in zip(runs, submissions, strict=True)
    ]


def _observe(run: RunDir, record: Submission | None, answer: Callable[[Observed], Observed]) -> Observed:
    """What the run's files show, read after the queue was asked: a job may end in between, but not un-end."""
    latest = status.read(run)
    held = latest.state not in FINISHED and lock.is_held(run)
    if not held:
        latest = status.read(run)  # it may have ended since
    seen = Observed(run, latest, record, held)
    if latest.state in FINISHED:
        return seen
    return answer(seen.stands("RUNNING") if held else seen)


def _without_submission(seen: Observed) -> Observed:
    return seen.stands("LOST", NO_TRAINER) if seen.status.state == "RUNNING" and not seen.held else seen


def with_job(seen: Observed, job: QueuedJob | None, *, queue: str, problem: str = "") -> Observed:
    """State of a submitted run given its job in a queue; None for a job that the queue has forgotten.

    `problem`: why the queue could not be asked.
    """
    record, latest = seen.submission, seen.status
    assert record is not None
    if problem and not seen.held:
        return dataclasses.replace(seen, unsure=problem)
    seen = dataclasses.replace(seen, job=job)
    began = latest.job == record.job_id
    if seen.held:
        return seen
    if job is not None and not job.is_over:
        return _in_live_job(seen, record, job, began)
    if began and latest.state != "RUNNING":
        return seen
    if not began and (record.cancelled or (job is not None and job.is_cancelled)):
        return seen.stands(latest.state, "cancelled before it began; `cl-bench retry` queues it again")
    why = job.reason if job else f"{queue} no longer knows its job"
    if not began:
        why += "; it never began" + (": see its log" if record.batch_log.exists() else "")
    return seen.stands("LOST", why)


def _in_live_job(seen: Observed, record: Submission, job: QueuedJob, began: bool) -> Observed:
    """A run that nobody holds, while its job waits or runs."""
    shared = record.runs_in_job > 1
    if began and seen.status.state == "FAILED" and shared:
        return seen  # its job goes on with the others, and does not come back to it
    if job.is_waiting:
        again = f"restart {seen.status.restarts + 1}; " if began else ""
        return seen.stands("PENDING", again + job.reason)
    if shared and not began:
        return seen.stands("PENDING", f"waits for its turn in job {record.job_id}")
    return seen.stands("RUNNING", "" if began else "starting")
