"""Curves named on the command line: the registry of readers, and what a report needs to know of its source."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

from analysis.readers import outputs, table, tensorboard, wandb_offline, wandb_online
from analysis.readers.reader import Option, Reader
from analysis.schema import Runs
from cl_bench.errors import UserError

READERS = (outputs.READER, table.READER, wandb_offline.READER, wandb_online.READER, tensorboard.READER)
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
    return read_values({outputs.READER.option.key: str(folder)})


def options() -> tuple[Option, ...]:
    """The options that name a source of curves or modify how it is read, and --out."""
    return (*(reader.option for reader in READERS), *_modifiers(), OUT)


def _modifiers() -> dict[Option, list[Reader]]:
    """Every modifier, and the readers that accept it."""
    owners: dict[Option, list[Reader]] = {}
    for reader in READERS:
        for option in reader.modifiers.values():
            owners.setdefault(option, []).append(reader)
    return owners


def read_values(values: Mapping[str, object]) -> Source:
    """The curves that option values, by key, name; values of other options are ignored.

    Raises UserError unless exactly one source is named, and for a modifier that its reader does not accept.
    """
    texts = {option: str(values[option.key]) for option in options() if values.get(option.key) is not None}
    reader = _reader(texts)
    location = texts[reader.option]
    out = _out(texts.get(OUT))
    keywords = {name: option.parse(texts[option]) for name, option in reader.modifiers.items() if option in texts}
    arguments = [location] if reader.option.is_positional else [reader.option.flag, location]
    for option in reader.modifiers.values():
        if option in texts:
            arguments += [option.flag, texts[option]]
    if out:
        arguments += [OUT.flag, str(out)]
    command = f"cl-bench report {shlex.join(arguments)}"
    return Source(reader.load(location, **keywords), out or reader.report_folder(location), command)


def _reader(texts: Mapping[Option, str]) -> Reader:
    """The reader whose option has a value."""
    readers = [reader for reader in READERS if reader.option in texts]
    if len(readers) != 1:
        problem = f"{' and '.join(r.option.flag for r in readers)} are both given" if readers else "no curves are named"
        raise UserError(f"{problem}; give one of {', '.join(reader.option.flag for reader in READERS)}")
    for option, owners in _modifiers().items():
        if option in texts and readers[0] not in owners:
            raise UserError(f"{option.flag}: goes with {', '.join(reader.option.flag for reader in owners)} only")
    return readers[0]


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
