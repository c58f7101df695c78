"""Command groups, and the call of one of their commands by a command line."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cl_bench.errors import UserError, did_you_mean, exit_code_of

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class CommandGroup(click.Group):
    """A group that keeps the order of its commands and lists them if a command is unknown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of definition."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Look up the command that `args` begins with. Raises UserError for an unknown one."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            raise UserError(f"{args[0]}: no such command; {did_you_mean(args[0], names, limit=len(names))}")
        return super().resolve_command(ctx, args)


def run(group: click.Group, argv: Sequence[str], program: str) -> int:
    """Run the command line `argv` of `program`; returns the exit code. Without arguments, print the help."""

    def command() -> int:
        # Instead of click's main(), whose exit codes for interruptions and closed pipes differ.
        try:
            with group.make_context(program, list(argv) or ["--help"]) as context:
                return int(group.invoke(context) or 0)
        except click.exceptions.Exit as done:
            return done.exit_code
        except click.UsageError as error:
            raise UserError(_in_one_line(error, program)) from None

    return exit_code_of(command)


def _in_one_line(error: click.UsageError, program: str) -> str:
    """A usage error as one line that ends with the remedy."""
    help_command = f"`{error.ctx.command_path if error.ctx else program} --help`"
    if isinstance(error, click.NoSuchOption) and error.ctx:
        valid = [name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts]
        hint = did_you_mean(error.option_name, [name for name in valid if name.startswith("--")])
        return f"{error.option_name}: no such option; {hint} (see {help_command})"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; see {help_command}"
