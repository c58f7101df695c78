"""What submitit runs inside each task of a job."""

from __future__ import annotations

import submitit

from cl_bench import train


def task(root: str, store: str, threads: int | None) -> None:
    """Train the run in folder `root` as this task's rank, then end the process; the status file holds the result."""
    place = submitit.JobEnvironment()
    rank = train.Rank(place.global_rank, place.num_tasks, place.local_rank)
    train.leave(train.run_job(root, rank, store, threads))
