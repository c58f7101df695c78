"""State of runs, observed from outside: by the job's status file first, then its lock, then the backend's queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from cl_bench.launch import backend
from cl_bench.launch.backend import Observed, QueuedJob
from cl_bench.runs import lock, status, submission
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED
from cl_bench.runs.submission import Submission

NO_TRAINER = "no process trains it any longer"


def observe(runs: Sequence[RunDir]) -> list[Observed]:
    """Current state of each run, with one query per queue."""
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
    """State of a run from its files, read after the queue: in between a job may end, but not come back."""
    latest = status.read(run)
    held = latest.state not in FINISHED and lock.is_held(run)
    if not held:
        latest = status.read(run)  # it may have ended since
    seen = Observed(run, latest, record, held)
    if latest.state in FINISHED:
        return seen
    return answer(seen.in_state("RUNNING") if held else seen)


def _without_submission(seen: Observed) -> Observed:
    return seen.in_state("LOST", NO_TRAINER) if seen.status.state == "RUNNING" and not seen.held else seen


def with_job(seen: Observed, job: QueuedJob | None, *, queue: str, problem: str = "") -> Observed:
    """State of a submitted run given its job in a queue; None for a job unknown to the queue.

    `problem`: why the queue did not answer.
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
        return seen.in_state(latest.state, "cancelled before it started; `cl-bench retry` queues it again")
    why = job.reason if job else f"its job is unknown to {queue}"
    if not began:
        why += "; it never started" + ("; see its log" if record.batch_log.exists() else "")
    return seen.in_state("LOST", why)


def _in_live_job(seen: Observed, record: Submission, job: QueuedJob, began: bool) -> Observed:
    """State of a run that no process holds while its job waits or runs."""
    shared = record.runs_in_job > 1
    if began and seen.status.state == "FAILED" and shared:
        return seen  # its job continues with the others and does not return to it
    if job.is_waiting:
        again = f"restart {seen.status.restarts + 1}; " if began else ""
        return seen.in_state("PENDING", again + job.reason)
    if shared and not began:
        return seen.in_state("PENDING", f"waits for its turn in job {record.job_id}")
    return seen.in_state("RUNNING", "" if began else "starting")
