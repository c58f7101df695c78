"""Protocol of the backends that carry out a planned grid, and the registry that finds one by name.

A backend is a module NAME of cl_bench.launch, or a package with a module NAME/launcher, that has an object `BACKEND`.
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
    """Whether it has ended for good; neither waiting nor over: it runs."""
    is_cancelled: bool = False
    """Whether it ended because somebody cancelled it."""
    never_starts: bool = False
    """Whether it waits for something that will not happen."""
    reason: str = ""
    """Why it waits, or how it ended, and what would help."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """One run as it stands now."""

    run: RunDir
    status: Status
    """What the job wrote last, with the state corrected by lock and queue."""
    submission: Submission | None = None
    held: bool = False
    """Whether a process holds its lock, and thus trains it."""
    job: QueuedJob | None = None
    """Its job in the backend's queue, if the backend has one."""
    why: str = ""
    """Why it waits, or how it ended."""
    unsure: str = ""
    """Why the queue could not be asked; the state is then that of the status file."""
    in_launch: bool = False
    """Whether a running launch is going to train it."""

    @property
    def is_queued(self) -> bool:
        """Whether a queued job is going to train it."""
        return self.job is not None and not self.job.is_over and self.status.state == "PENDING"

    @property
    def is_live(self) -> bool:
        """Whether it is in training, or a job or launch is going to train it."""
        return self.status.state == "RUNNING" or self.is_queued or self.in_launch

    @property
    def job_id(self) -> str:
        """Id of its newest job in a queue; empty for a run without one."""
        return self.submission.job_id if self.submission and get(self.submission.launcher).detached else ""

    @property
    def queue(self) -> str:
        """Name of the queue that holds its job; empty for a run that was never submitted."""
        return get(self.submission.launcher).label if self.submission else ""

    def stands(self, state: State, why: str = "", *, in_launch: bool = False) -> Observed:
        """The same run in another state."""
        latest = self.status if self.status.state == state else dataclasses.replace(self.status, state=state)
        return dataclasses.replace(self, status=latest, why=why, in_launch=in_launch)


class Backend(Protocol):
    """Where runs train: on this machine, on a cluster."""

    @property
    def label(self) -> str:
        """Name as messages spell it, e.g. Slurm."""

    @property
    def detached(self) -> bool:
        """Whether submitted runs live on in a queue, without the process that submitted them."""

    def check(self, plan: Plan) -> None:
        """Raise UserError for what this backend cannot train, before anything is written."""

    def requests(self, plan: Plan) -> Sequence[str]:
        """What would be requested for the missing runs, one line per kind of request; printed below the plan."""

    def submit(self, plan: Plan, *, terse: bool) -> None:
        """Queue the missing runs, all or none, and record the submission in each run's folder.

        A backend that is not `detached` trains them and returns when they have ended; it raises RunsFailed if some
        did not finish. `terse`: print only what is in training and what failed. Raises UserError for a refusal.
        """

    def observe(self, submissions: Sequence[Submission]) -> Callable[[Observed], Observed]:
        """Ask once about the jobs of unfinished runs.

        The result is called with what a run's files show, read after the queue was asked; it completes that with the
        queue's answer.
        """

    def cancel(self, runs: Sequence[Observed]) -> int:
        """Cancel the live ones of this backend's runs; returns how many. Raises UserError."""

    def log(self, run: RunDir, submission: Submission) -> Path | None:
        """The newest log of a run."""


def get(name: str) -> Backend:
    """The backend of that name. Raises UserError, with the valid names, for an unknown one."""
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
    """By name, the module where its backend would be."""
    return {
        entry.name: f"{launch.__name__}.{entry.name}" + (".launcher" if entry.ispkg else "")
        for entry in pkgutil.iter_modules(path)
    }
