"""Curves named on the command line: the registry of readers, and what a report needs to know of its source."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

from analysis.readers import outputs, table, tensorboard, wandb_offline, wandb_online
from analysis.readers.reader import Option, Reader
from analysis.schema import Runs
from cl_bench.errors import UserError

READERS: tuple[Reader, ...] = (outputs, table, wandb_offline, wandb_online, tensorboard)
"""Every reader, in the order of the help; a new one is a module and an entry here."""
OUT = Option("out", "DIR", "folder to write into (default: the sweep's folder; NAME_report beside any other source)")


@dataclasses.dataclass(frozen=True)
class Source:
    """Curves to report on."""

    runs: Runs
    out: Path
    """Folder of the report."""
    command: str
    """The shell command that reads the same curves again, without a target."""

    @property
    def outputs(self) -> Path | None:
        """The outputs folder that holds the runs; None for curves of other origin."""
        return self.runs.outputs


def of_folder(folder: str | Path) -> Source:
    """The runs of a sweep's folder or of an outputs folder, which also receives the report."""
    return read_values({outputs.OPTION.key: str(folder)})


def options() -> tuple[Option, ...]:
    """The options that name a source of curves or modify how it is read, and --out."""
    modifiers = dict.fromkeys(option for reader in READERS for option in reader.MODIFIERS)
    return (*(reader.OPTION for reader in READERS), *modifiers, OUT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `options()` to argparse."""
    for option in options():
        if option.is_positional:
            parser.add_argument(option.name, nargs="?", help=option.help)
        else:
            parser.add_argument(option.flag, metavar=option.metavar, help=option.help)


def read(args: argparse.Namespace) -> Source:
    """`read_values` of parsed arguments."""
    return read_values(vars(args))


def read_values(values: Mapping[str, object]) -> Source:
    """The curves that option values, by key, name; values of other options are ignored.

    Raises UserError unless exactly one source is named, and for a modifier that its reader does not accept.
    """
    given = {option.key: str(values[option.key]) for option in options() if values.get(option.key) is not None}
    reader = _reader(given)
    location = given[reader.OPTION.key]
    arguments = [location] if reader.OPTION.is_positional else [reader.OPTION.flag, location]
    modifiers = {option.key: given[option.key] for option in reader.MODIFIERS if option.key in given}
    for option in reader.MODIFIERS:
        if option.key in given:
            arguments += [option.flag, given[option.key]]
    out = _out(given.get(OUT.key))
    if out:
        arguments += [OUT.flag, str(out)]
    command = f"python -m analysis report {shlex.join(arguments)}"
    return Source(reader.load(location, modifiers), out or reader.report_folder(location), command)


def _reader(given: Mapping[str, str]) -> Reader:
    """The reader whose option was given."""
    named = [reader for reader in READERS if reader.OPTION.key in given]
    if len(named) != 1:
        problem = f"{' and '.join(r.OPTION.flag for r in named)} are both given" if named else "no curves are named"
        raise UserError(f"{problem}; give one of {', '.join(reader.OPTION.flag for reader in READERS)}")
    for option in dict.fromkeys(option for reader in READERS for option in reader.MODIFIERS):
        if option.key in given and option not in named[0].MODIFIERS:
            owners = ", ".join(reader.OPTION.flag for reader in READERS if option in reader.MODIFIERS)
            raise UserError(f"{option.flag}: goes with {owners} only")
    return named[0]


def _out(value: str | None) -> Path | None:
    """The folder of --out. Raises UserError for an empty path and for a file."""
    if value is None:
        return None
    if not value.strip():
        raise UserError("--out: an empty path; give a folder to write into, or leave it out")
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path}: is a file; give a folder")
    return path
