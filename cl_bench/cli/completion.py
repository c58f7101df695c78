"""`cl-bench completion`, and the candidates for Hydra's overrides and names of runs."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from cl_bench.cli import presets
from cl_bench.cli.main import COMMANDS, COMPLETION_VARIABLE, PROGRAM
from cl_bench.errors import UserError

SHELLS = ("bash", "zsh", "fish")
_HELP = """Print the completion script of a shell.

SHELL defaults to the one in $SHELL. To install, add one line to the shell's
start-up file:

\b
~/.bashrc                    eval "$(cl-bench completion bash)"
~/.zshrc                     eval "$(cl-bench completion zsh)"
~/.config/fish/config.fish   cl-bench completion fish | source
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script of a shell."""
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UserError(f"$SHELL = {name or 'unset'}: no completion for it; choose one of {', '.join(SHELLS)}")
    shell_class = get_completion_class(name)
    assert shell_class is not None
    script = shell_class(COMMANDS, {}, PROGRAM, COMPLETION_VARIABLE).source()
    if name == "bash":  # no space after 'optim.lr='
        script = script.replace(
            "    return 0", "    [[ ${COMPREPLY[*]} == *= ]] && compopt -o nospace\n    return 0", 1
        )
    click.echo(script)


def overrides(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Keys of a run, its launch and (for `tune`) the search; after `GROUP=`, the choices of that group."""
    words = context.params.get("overrides") or ()
    # Bash breaks words at '=': 'sweeps=de' arrives as 'sweeps', '=' and 'de', and 'sweeps=' as 'sweeps' and ''.
    if words and words[-1] == "=":
        return _values(words[-2], incomplete)
    if words and words[-1] in presets.GROUPS and not incomplete:
        return _values(words[-1], "")
    group, equals, value = incomplete.partition("=")
    if equals:
        return [f"{group}={choice}" for choice in _values(group, value)]
    keys = presets.all_keys(tuning=context.info_name == "tune")
    return [f"{key}=" for key in sorted(set(keys)) if key.startswith(incomplete)]


def _values(group: str, value: str) -> list[str]:
    """Choices of a group that complete `value`, or the last one of a list: 'baseline,fixed_'."""
    earlier, comma, last = value.rpartition(",")
    return [f"{earlier}{comma}{choice}" for choice in presets.choices(group) if choice.startswith(last)]


def names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Sweeps and runs in the outputs folder."""
    outputs = Path(context.params.get("outputs") or "outputs")
    folders = (folder for kind in ("sweeps", "runs") for folder in sorted(outputs.glob(f"{kind}/*")))
    return [folder.name for folder in folders if folder.name.startswith(incomplete)]
