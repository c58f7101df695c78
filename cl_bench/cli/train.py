"""`cl-bench sweep` and `cl-bench tune`: their help; arguments are passed to Hydra unchanged."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import click

from cl_bench.cli import completion, presets
from cl_bench.config import tune as tune_config
from cl_bench.errors import UserError

_SWEEP_HELP = """Train a grid of runs, or one run.

\b
sweep -m sweeps=demo                    every run of a sweep's grid
sweep -m sweeps=demo dry_run=true       its plan and cost; trains nothing
sweep -m seed=1,2 optim.lr=1e-3,2e-3    a grid of your own
sweep sweeps=demo seed=2                one run

KEY=VALUE overrides a value, GROUP=NAME chooses a preset. With -m, several
values separated by commas make a grid. Finished runs are not trained again;
interrupted ones resume from their last save.

\b
Sweeps (those of ./sweeps included):
{sweeps}
Groups:
{groups}

\b
sweep sweeps=demo --cfg job    prints every key with its value
sweep --hydra-help             lists Hydra's own options
"""
_TUNE_HELP = """Find a curriculum's start length and T by short probes.

The run is described as for `cl-bench sweep` without -m. The search finds the
shortest start length that is steady at the very beginning, then the longest T
at which the validation perplexity does not fluctuate. After an interruption
the same command resumes; dry_run=true prints the cost.

\b
Keys besides a run's own:
{keys}
"""
_PASS_THROUGH = {"ignore_unknown_options": True}
_ARGUMENTS = click.argument(
    "overrides", metavar="[KEY=VALUE …]", nargs=-1, type=click.UNPROCESSED, shell_complete=completion.overrides
)


def _listed(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(names), 76, initial_indent="  ", subsequent_indent="  ")


def _tune_keys() -> str:
    defaults = tune_config.schema()["tune"].items()
    return "\n".join(f"  tune.{key}={'null' if value is None else value}" for key, value in defaults)


@click.command(
    help=_SWEEP_HELP.format(sweeps=_listed(presets.choices("sweeps")), groups=_listed(presets.GROUPS)),
    context_settings=_PASS_THROUGH,
    options_metavar="[-m]",
)
@_ARGUMENTS
def sweep(overrides: tuple[str, ...]) -> int:
    """Train a grid of runs, or one run."""
    from cl_bench.cli.sweep import train  # Hydra and the planner take a second, which help and completion avoid

    return train(overrides)


@click.command(help=_TUNE_HELP.format(keys=_tune_keys()), context_settings=_PASS_THROUGH, options_metavar="")
@_ARGUMENTS
def tune(overrides: tuple[str, ...]) -> int:
    """Find a curriculum's start length and T by short probes."""
    from cl_bench.cli.sweep import tune  # as above

    if {"-m", "--multirun"} & set(overrides):
        raise UserError("-m makes a grid, and tune takes one run; leave it out and give every key one value")
    return tune(overrides)
