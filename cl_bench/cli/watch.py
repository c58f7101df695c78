"""`cl-bench status`, `logs`, `cancel` and `retry`."""

from __future__ import annotations

import click

from cl_bench.cli import completion, runs

_OUTPUTS = click.option(
    "--outputs",
    metavar="FOLDER",
    type=click.Path(),
    default="outputs",
    help="folder of runs and sweeps (default: outputs)",
)
_OPTIONAL_NAME = click.argument("name", metavar="[SWEEP|RUN]", required=False, shell_complete=completion.names)


def _arguments(name: str | None, outputs: str, **flags: bool) -> list[str]:
    return [
        *([name] if name is not None else []),
        "--outputs",
        outputs,
        *(f"--{key}" for key, on in flags.items() if on),
    ]


@click.command()
@_OPTIONAL_NAME
@_OUTPUTS
@click.option("--watch", is_flag=True, help="refresh until no run is live; Ctrl-C leaves")
@click.option("--json", is_flag=True, help="print one JSON object per run")
def status(name: str | None, outputs: str, watch: bool, json: bool) -> int:
    """Show the state and progress of runs."""
    return runs.status(_arguments(name, outputs, watch=watch, json=json))


@click.command()
@click.argument("name", metavar="RUN", shell_complete=completion.names)
@_OUTPUTS
@click.option("-f", "--follow", is_flag=True, help="go on printing until the run is over")
@click.option("-n", "--lines", type=int, default=0, metavar="N", help="print only the last N lines (default: all)")
def logs(name: str, outputs: str, follow: bool, lines: int) -> int:
    """Print the log of a run.

    It is the output of rank 0 in the newest attempt.
    """
    return runs.logs([*_arguments(name, outputs, follow=follow), f"--lines={lines}"])


@click.command()
@click.argument("name", metavar="SWEEP|RUN", shell_complete=completion.names)
@_OUTPUTS
def cancel(name: str, outputs: str) -> int:
    """Stop runs; those in training save first.

    Queued runs never start. `cl-bench retry` goes on with them.
    """
    return runs.cancel(_arguments(name, outputs))


@click.command()
@_OPTIONAL_NAME
@_OUTPUTS
@click.option("--failed", is_flag=True, help="only those that FAILED")
@click.option("--lost", is_flag=True, help="only those that are LOST")
def retry(name: str | None, outputs: str, failed: bool, lost: bool) -> int:
    """Launch unfinished runs again from their last save.

    These are the runs that are neither finished nor live, launched as before.
    """
    return runs.retry(_arguments(name, outputs, failed=failed, lost=lost))
