"""Configuration of a launch: the sweep's name and question, and how its grid is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic.dataclasses import dataclass

from cl_bench.config import schema
from cl_bench.config.schema import STRICT, Positive


@dataclass(frozen=True, config=STRICT)
class SweepConfig:
    """The question that a grid answers."""

    name: str = "sweep"
    """Folder of the sweep below outputs/sweeps."""
    question: str = ""
    """One sentence, shown above the plan and on the report."""

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\\0") or self.name.startswith("."):
            raise ValueError(f"sweep.name = {self.name!r} must be a plain folder name")


@dataclass(frozen=True, config=STRICT)
class LaunchConfig:
    """How a grid is launched; not part of any run."""

    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    outputs: str = "outputs"
    """Folder of runs, sweeps and prepared data."""
    jobs: Positive = 1
    """Runs trained at once on this machine."""
    array_parallelism: Positive | None = None
    """Slurm: jobs of one array that run at once; null: no limit."""
    pack: Positive = 1
    """Slurm: small runs (of one rank) that share one job."""
    side_by_side: bool = False
    """Slurm: whether packed runs train at once, each with its own resources, or one after another."""
    snapshot: bool | None = None
    """Whether jobs run from a copy of the present code; null: on Slurm only."""
    wait: bool = False
    """Slurm: return when all runs have ended, with their final losses, rather than once they are queued."""
    dry_run: bool = False
    """Print and write the plan, train nothing."""


def launch_from_dict(data: Mapping[str, Any]) -> LaunchConfig:
    """Build a LaunchConfig from nested plain values. Raises ConfigError, one line per mistake."""
    return schema.build(LaunchConfig, data)
