"""`python -m analysis report` and `figures`: which curves to read, and where what they say is written."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from analysis.readers import naming
from analysis.readers.outputs import load_runs
from analysis.schema import Runs
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir

# Option -> the options that go with it.
_SOURCES: dict[str, tuple[str, ...]] = {
    "folder": (),
    "table": ("map",),
    "wandb_dir": ("map",),
    "wandb": ("map", "filter"),
    "tensorboard": ("runs",),
}

_FILTER_EXAMPLE = 'write it as in --filter \'{"tags": "tiny"}\''


@dataclasses.dataclass(frozen=True)
class Source:
    """Curves to report on."""

    runs: Runs
    out: Path
    """Folder of the report."""
    command: str
    """The shell command that reads the same again, without a target."""
    outputs: Path | None = None
    """The outputs folder that they come from; None for curves from elsewhere."""


def of_folder(folder: str | Path) -> Source:
    """A sweep's folder, or an outputs folder; the report goes into it."""
    sweep = SweepDir.at(folder)
    outputs = sweep.outputs if sweep.manifest.exists() else sweep.root
    return Source(load_runs(folder), sweep.root, f"python -m analysis report {shlex.quote(str(folder))}", outputs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say where curves are."""
    parser.add_argument("folder", type=Path, nargs="?", help="outputs/sweeps/NAME, or outputs for all runs")
    parser.add_argument("--table", type=Path, metavar="FILE", help="instead: curves in a .csv or .parquet file")
    parser.add_argument("--wandb-dir", type=Path, metavar="FOLDER", help="instead: W&B's offline runs below a folder")
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT", help="instead: a W&B project, online")
    parser.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="instead: TensorBoard events of Megatron")
    parser.add_argument("--map", metavar="OURS=THEIRS,…", help="names of columns and keys that are not ours")
    parser.add_argument("--filter", metavar="JSON", help='W&B runs to read, as its Api takes it: \'{"tags": "a"}\'')
    parser.add_argument("--runs", type=Path, metavar="FILE", help="what events do not say: run, curriculum, seed, …")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder to write into (default: the sweep's folder; NAME_report beside any other source)",
    )


def read(args: argparse.Namespace) -> Source:
    """The curves that the command line names. Raises UserError for none, several, or options that do not belong."""
    kind = _kind(args)
    where = getattr(args, kind)
    into = _out(args.out)
    out = ["--out", str(into)] if into else []
    if kind == "folder":
        found = of_folder(where)
        command = " ".join((found.command, *map(shlex.quote, out)))
        return dataclasses.replace(found, out=into or found.out, command=command)
    shown = [f"--{kind.replace('_', '-')}", str(where)]
    for option in _SOURCES[kind]:
        if (value := getattr(args, option)) is not None:
            shown += [f"--{option}", str(value)]
    command = f"python -m analysis report {shlex.join([*shown, *out])}"
    return Source(_load(kind, where, args), into or _beside(kind, where), command)


def _out(given: str | Path | None) -> Path | None:
    """The folder of --out. Raises UserError for a path that can be none."""
    if given is None:
        return None
    if not str(given).strip():
        raise UserError("--out: an empty path; give a folder to write into, or leave it out")
    path = Path(given)
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path}: is a file; give a folder")
    return path


def _kind(args: argparse.Namespace) -> str:
    given = [kind for kind in _SOURCES if getattr(args, kind) is not None]
    options = ", ".join(f"--{kind.replace('_', '-')}" for kind in _SOURCES if kind != "folder")
    if len(given) != 1:
        what = "no curves named" if not given else f"{' and '.join(given)} are both given"
        raise UserError(f"{args.command}: {what}; give one of outputs/sweeps/NAME, {options}")
    for option in ("map", "filter", "runs"):
        if getattr(args, option) is not None and option not in _SOURCES[given[0]]:
            owners = ", ".join(f"--{k.replace('_', '-')}" for k, own in _SOURCES.items() if option in own)
            raise UserError(f"--{option}: goes with {owners} only")
    return given[0]


def _load(kind: str, where: Any, args: argparse.Namespace) -> Runs:
    # Each reader is imported where it is asked for: one page does not pay for another's libraries.
    if kind == "table":
        from analysis.readers.table import load_table

        return load_table(where, naming.parse(args.map))
    if kind == "wandb_dir":
        from analysis.readers.wandb_offline import load_wandb_dir

        return load_wandb_dir(where, naming.parse(args.map))
    if kind == "wandb":
        from analysis.readers.wandb_online import load_wandb

        return load_wandb(where, _filters(args.filter), naming.parse(args.map))
    from analysis.readers.tensorboard import load_tensorboard

    return load_tensorboard(where, args.runs)


def _filters(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(f"--filter {text}: not JSON ({error}); {_FILTER_EXAMPLE}") from None
    if not isinstance(found, dict):
        raise UserError(f"--filter {text}: not an object; {_FILTER_EXAMPLE}")
    return found


def _beside(kind: str, where: Any) -> Path:
    """Where the report goes unless it is said."""
    if kind == "wandb":
        return Path(f"{str(where).rpartition('/')[2]}_report")
    path = Path(where).resolve()
    return path.parent / f"{path.stem if kind == 'table' else path.name}_report"
