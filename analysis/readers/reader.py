"""The `Reader` protocol: a source of curves that the command line can name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from analysis.schema import Runs


@dataclasses.dataclass(frozen=True)
class Option:
    """A command-line option that takes one value, as plain data for any parser."""

    name: str
    """As typed, without dashes: 'wandb-dir'."""
    metavar: str
    help: str
    is_positional: bool = False

    @property
    def key(self) -> str:
        """Name of the parsed value: 'wandb_dir'."""
        return self.name.replace("-", "_")

    @property
    def flag(self) -> str:
        """As typed in a command: '--wandb-dir', or the metavar of a positional argument."""
        return self.metavar if self.is_positional else f"--{self.name}"


class Reader(Protocol):
    """A source of curves. A module that defines these names is a reader."""

    OPTION: Option
    """The option that names a location to read."""
    MODIFIERS: tuple[Option, ...]
    """Further options that it accepts."""

    def load(self, location: str, modifiers: Mapping[str, str]) -> Runs:
        """The curves at `location`; `modifiers` holds the values of those of MODIFIERS that were given, by key.

        Raises NoRunsError for a location without runs, UserError for curves that cannot be used.
        """

    def report_folder(self, location: str) -> Path:
        """Folder of the report unless --out names another."""


def folder_beside(location: str | Path, name: str = "") -> Path:
    """The folder NAME_report beside a file or folder; `name` defaults to the location's own."""
    path = Path(location).resolve()
    return path.parent / f"{name or path.name}_report"
