"""Keys and presets that a command line can name."""

from __future__ import annotations

from pathlib import Path

from cl_bench.config import LaunchConfig, RunConfig
from cl_bench.config import tune as tune_config
from cl_bench.config.schema import field_names
from cl_bench.runs.paths import config_root

GROUPS = (
    "model",
    "data",
    "curriculum",
    "optim",
    "batch_warmup",
    "deepspeed",
    "tracking",
    "hydra/launcher",
    "sweeps",
)


def all_keys(*, tuning: bool) -> list[str]:
    """Keys and groups that can be overridden; `tuning`: also those of `cl-bench tune`."""
    keys = [*field_names(RunConfig), *field_names(LaunchConfig), *GROUPS]
    return keys + tune_config.field_names() if tuning else keys


def sweep_files() -> dict[str, Path]:
    """Sweeps by name: those of cl_bench, and those of a sweeps/ folder in the working directory."""
    folders = (config_root() / "sweeps", Path.cwd() / "sweeps")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def choices(group: str) -> list[str]:
    """Names of a group's presets; empty for an unknown group."""
    if group not in GROUPS:
        return []
    if group == "sweeps":
        return sorted(sweep_files())
    return sorted(path.stem for path in (config_root() / "conf" / group).glob("*.yaml"))
