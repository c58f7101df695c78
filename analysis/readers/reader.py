"""Registry entries of readers: a source of curves that the command line can name, and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from analysis.schema import Runs


@dataclasses.dataclass(frozen=True)
class Option:
    """A command-line option with one value, as plain data for any parser."""

    name: str
    """As typed, without dashes: 'wandb-dir'."""
    metavar: str
    help: str
    is_positional: bool = False
    parse: Callable[[str], object] = str
    """Converts the value. Raises UserError for an invalid one."""

    @property
    def key(self) -> str:
        """Name of the parsed value: 'wandb_dir'."""
        return self.name.replace("-", "_")

    @property
    def flag(self) -> str:
        """As typed in a command: '--wandb-dir', or the metavar of a positional argument."""
        return self.metavar if self.is_positional else f"--{self.name}"


def folder_beside(location: str | Path, name: str = "") -> Path:
    """The folder NAME_report beside a file or folder; `name` defaults to the location's own."""
    path = Path(location).resolve()
    return path.parent / f"{name or path.name}_report"


@dataclasses.dataclass(frozen=True)
class Reader:
    """A source of curves."""

    option: Option
    """Names the location to read."""
    load: Callable[..., Runs]
    """The curves at a location; takes the modifiers as keyword arguments. Raises NoRunsError and UserError."""
    modifiers: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    """Keyword argument of `load` -> the option that sets it."""
    report_folder: Callable[[str], Path] = folder_beside
    """Folder of the report on a location unless --out names another."""
