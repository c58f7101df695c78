"""Tree of the `cl-bench` commands; each is imported on demand."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem, shell_complete

from cl_bench import __version__
from cl_bench.commands import HELP_OPTIONS, CommandGroup, run

PROGRAM = "cl-bench"
COMPLETION_VARIABLE = "_CL_BENCH_COMPLETE"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Location of a command, and its line in the list of commands."""

    module: str
    attribute: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        command: click.Command = getattr(importlib.import_module(self.module), self.attribute)
        return command


SECTIONS: dict[str, dict[str, Entry]] = {
    "Train": {
        "sweep": Entry("cl_bench.cli.train", "sweep", "Train a grid of runs, or one run."),
        "tune": Entry("cl_bench.cli.train", "tune", "Find a curriculum's start length and T by short probes."),
    },
    "Watch": {
        "status": Entry("cl_bench.cli.runs", "status", "Show the state and progress of runs."),
        "logs": Entry("cl_bench.cli.runs", "logs", "Print the log of a run."),
        "cancel": Entry("cl_bench.cli.runs", "cancel", "Stop runs; those in training save first."),
        "retry": Entry("cl_bench.cli.runs", "retry", "Launch unfinished runs again from their last save."),
    },
    "Analyse": {
        "report": Entry("analysis.commands", "report", "Write the page, tables and verdict of a sweep."),
        "figures": Entry("analysis.commands", "figures", "Write the report's figures and tables for print."),
        "paper": Entry("analysis.commands", "paper", "Set a sweep beside the published cells and claims."),
        "compare": Entry("analysis.commands", "compare", "Compute the saving between two curves in files."),
    },
    "Data": {
        "prepare": Entry("cl_bench.cli.prepare", "prepare", "Encode texts of any size into tokens on disk."),
    },
    "Evaluate": {
        "eval": Entry("cl_bench.cli.evals", "evaluate", "Measure the zero-shot quality of a run's newest save."),
        "export": Entry("cl_bench.cli.evals", "export", "Write a run's newest save as a Hugging Face folder."),
    },
    "Shell": {
        "completion": Entry("cl_bench.cli.completion", "completion", "Print the completion script of a shell."),
    },
}


class LazyGroup(CommandGroup):
    """A group of commands in sections, imported on demand."""

    def __init__(self, sections: Mapping[str, Mapping[str, Entry]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.sections = sections
        self.entries = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the sections."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        return self.entries[cmd_name].load() if cmd_name in self.entries else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        for heading, section in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<10}", entry.summary) for name, entry in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Command names and options that begin with `incomplete`."""
        names = [
            CompletionItem(name, help=entry.summary)
            for name, entry in self.entries.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


COMMANDS = click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(
    LazyGroup(
        SECTIONS,
        name=PROGRAM,
        help="Measure what a curriculum saves in language-model training.\n\n"
        f"`{PROGRAM} COMMAND --help` explains a command.",
        context_settings=HELP_OPTIONS,
        options_metavar="",
        subcommand_metavar="COMMAND …",
    )
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(COMMANDS, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
    return run(COMMANDS, sys.argv[1:] if argv is None else argv, PROGRAM)
