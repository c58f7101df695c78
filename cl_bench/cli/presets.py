"""The presets that a command line can name."""

from __future__ import annotations

from pathlib import Path

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


def sweep_files() -> dict[str, Path]:
    """Sweeps by name: those that come with cl_bench, and those of a sweeps/ folder in the working directory."""
    folders = (config_root() / "sweeps", Path.cwd() / "sweeps")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def choices(group: str) -> list[str]:
    """Names of a group's presets; none for what is not a group."""
    if group not in GROUPS:
        return []
    if group == "sweeps":
        return sorted(sweep_files())
    return sorted(path.stem for path in (config_root() / "conf" / group).glob("*.yaml"))
