"""Protocol of the backends that train a planned grid, and their registry.

A backend is a module NAME of cl_bench.launch, or a package with a module NAME/launcher, that defines `BACKEND`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cl_bench import launch
from cl_bench.errors import UserError, did_you_mean
from cl_bench.launch.grid import Plan
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import State, Status
from cl_bench.runs.submission import Submission


@dataclasses.dataclass(frozen=True)
class QueuedJob:
    """A queue's view of one job."""

    state: str
    """The queue's own word, e.g. PENDING."""
    is_waiting: bool = False
    """Whether it has yet to start, for the first time or again."""
    is_over: bool = False
    """Whether it has ended for good; a job that is neither waiting nor over is running."""
    is_cancelled: bool = False
    """Whether it ended by cancellation."""
    never_starts: bool = False
    """Whether it waits for something that cannot happen."""
    reason: str = ""
    """Why it waits, or how it ended, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """The current state of a run."""

    run: RunDir
    status: Status
    """Last status that the job wrote, with its state corrected by lock and queue."""
    submission: Submission | None = None
    held: bool = False
    """Whether a process holds its lock, that is, trains it."""
    job: QueuedJob | None = None
    """Its job in the backend's queue, if the backend has one."""
    why: str = ""
    """Why it waits, or how it ended."""
    unsure: str = ""
    """Why the queue did not answer; the state is then that of the status file."""
    in_launch: bool = False
    """Whether a live launch is going to train it."""

    @property
    def is_queued(self) -> bool:
        """Whether a queued job is going to train it."""
        return self.job is not None and not self.job.is_over and self.status.state == "PENDING"

    @property
    def is_live(self) -> bool:
        """Whether it is training, or a queued job or a launch is going to train it."""
        return self.status.state == "RUNNING" or self.is_queued or self.in_launch

    @property
    def job_id(self) -> str:
        """Id of its latest job in a queue; empty for a run without one."""
        return self.submission.job_id if self.submission and get(self.submission.launcher).detached else ""

    @property
    def queue(self) -> str:
        """Name of the queue that holds its job; empty for a run that was never submitted."""
        return get(self.submission.launcher).label if self.submission else ""

    def in_state(self, state: State, why: str = "", *, in_launch: bool = False) -> Observed:
        """The same run in another state."""
        latest = self.status if self.status.state == state else dataclasses.replace(self.status, state=state)
        return dataclasses.replace(self, status=latest, why=why, in_launch=in_launch)


class Backend(Protocol):
    """A place where runs train: this machine, a cluster."""

    @property
    def label(self) -> str:
        """Name in messages, e.g. Slurm."""

    @property
    def detached(self) -> bool:
        """Whether submitted runs outlive the process that submitted them."""

    def check(self, plan: Plan) -> None:
        """Raise UserError for a run that this backend cannot train; called before anything is written."""

    def requests(self, plan: Plan) -> Sequence[str]:
        """Resources to request for the missing runs, one line per kind; printed below the plan."""

    def submit(self, plan: Plan, *, terse: bool) -> None:
        """Queue the missing runs, all or none, and record the submission in each run's folder.

        A backend that is not `detached` returns when the runs have ended, and raises RunsFailed if some did not
        finish. `terse`: print only progress and failures. Raises UserError if the queue refuses.
        """

    def observe(self, submissions: Sequence[Submission]) -> Callable[[Observed], Observed]:
        """Query the queue once about the jobs of unfinished runs.

        Returns a function that completes a run's state, read from its files after the query, by the queue's answer.
        """

    def cancel(self, runs: Sequence[Observed]) -> int:
        """Cancel the live runs among `runs`; returns their number. Raises UserError."""

    def log(self, run: RunDir, submission: Submission) -> Path | None:
        """Latest log of a run."""


def get(name: str) -> Backend:
    """The backend `name`. Raises UserError with the valid names for an unknown one."""
    module = _modules(tuple(launch.__path__)).get(name)
    backend: Backend | None = getattr(importlib.import_module(module), "BACKEND", None) if module else None
    if backend is not None:
        return backend
    raise UserError(f"launcher = {name}: no such launcher; {did_you_mean(name, names())}")


def names() -> list[str]:
    """Names of all backends."""
    modules = _modules(tuple(launch.__path__))
    return [name for name, module in modules.items() if hasattr(importlib.import_module(module), "BACKEND")]


@functools.cache
def _modules(path: tuple[str, ...]) -> dict[str, str]:
    """Name -> module that may define a backend."""
    return {
        entry.name: f"{launch.__name__}.{entry.name}" + (".launcher" if entry.ispkg else "")
        for entry in pkgutil.iter_modules(path)
    }
