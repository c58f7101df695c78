"""A planned grid: its runs with their states and costs."""

from __future__ import annotations

import dataclasses
from typing import Literal

from cl_bench.config import LaunchConfig, RunConfig
from cl_bench.launch.estimate import Memory
from cl_bench.runs import identity
from cl_bench.runs.identity import short_float
from cl_bench.schedules import Extent

State = Literal["new", "done", "diverged", "running", "queued", "failed", "interrupted"]


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a grid."""

    config: RunConfig
    """Resolved."""
    run_id: str
    curriculum: str
    """Name of the curriculum, with the parameters that distinguish it from others of that name in the grid."""
    shape: str
    """Description of the curriculum."""
    variant: str
    """Other settings that differ within the grid, e.g. 'model.name=gpt2_345m'; usually empty."""
    state: State
    extent: Extent
    parameters: int
    flops: float
    hours: float
    memory: Memory
    """Estimate for one rank's device."""

    @property
    def cell(self) -> str:
        """Name of the group of runs that differ only in their seed: the sweep's own, if it names its cells."""
        if self.config.cell:
            return self.config.cell
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.curriculum} b{self.config.global_batch_size} lr{short_float(self.config.optim.lr)}{variant}"

    @property
    def to_train(self) -> bool:
        """Whether a launch starts it."""
        return self.state in ("new", "failed", "interrupted")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A validated grid."""

    launch: LaunchConfig
    runs: tuple[Planned, ...]
    run_ids: tuple[str, ...]
    """run_id of every job of the grid, in grid order; duplicates included."""
    texts: tuple[str, ...]
    """Description of each corpus: source and sizes."""
    hours_basis: str
    """Basis of the estimated hours."""

    @property
    def to_train(self) -> tuple[Planned, ...]:
        """The runs that a launch starts, in the order in which it starts them.

        Runs that differ only in curriculum (and batch warmup) are neighbours, otherwise it is the grid's order: if the
        machine becomes slower during a sweep, it does so for baselines and curricula alike.
        """
        groups: dict[tuple[str, int, float, int], list[Planned]] = {}
        for run in self.runs:
            config = run.config
            place = identity.setting(config), config.global_batch_size, config.optim.lr, config.seed
            groups.setdefault(place, []).append(run)
        return tuple(run for group in groups.values() for run in group if run.to_train)

    @property
    def duplicates(self) -> int:
        """Number of jobs that repeat a run of the grid."""
        return len(self.run_ids) - len(self.runs)

    @property
    def hours(self) -> float:
        """Estimated hours until all missing runs are trained, `launch.jobs` at a time."""
        return sum(r.hours for r in self.to_train) / min(self.launch.jobs, max(1, len(self.runs)))
