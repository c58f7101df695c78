"""The commands `report`, `figures`, `paper` and `compare`, of `cl-bench` and of `python -m analysis`."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from analysis import compare as curves
from analysis import print_figures, watch
from analysis import report as reports
from analysis.answer import Options
from analysis.figures import INCHES, Width
from analysis.paper import compare as published
from analysis.paper import tables
from analysis.print_figures import FORMATS, Format
from analysis.readers import source
from analysis.stats.crossings import METHODS, Method
from analysis.stats.outcome import parse_rules
from cl_bench.commands import HELP_OPTIONS, CommandGroup
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir

_WIDTH = 100
_PATHS = ("FILE", "FOLDER", "DIR")


@click.group(cls=CommandGroup, context_settings=HELP_OPTIONS, options_metavar="", subcommand_metavar="COMMAND …")
def analysis() -> None:
    """Analyse sweeps, and curves from elsewhere."""


def _source_parameters() -> list[click.Parameter]:
    """The parameters that name the curves to read."""
    return [
        click.Argument([option.key], metavar="[FOLDER]", required=False, type=click.Path())
        if option.is_positional
        else click.Option(
            [option.flag],
            metavar=option.metavar,
            help=option.help,
            type=click.Path() if option.metavar in _PATHS else None,
        )
        for option in source.options()
    ]


class _CommandOnCurves(click.Command):
    """A command with the parameters of every registered reader."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The readers' parameters, then the command's own."""
        return [*_source_parameters(), *super().get_params(ctx)]


_ANSWER_PARAMETERS: list[click.Parameter] = [
    click.Option(["--target"], type=float, metavar="PPL", help="target perplexity (default: the baseline's final)"),
    click.Option(
        ["--crossing"],
        type=click.Choice(METHODS),
        default="interpolate",
        help="interpolate (default): the first crossing; first: the first evaluation at or below the target; "
        "sustained: the last crossing",
    ),
    click.Option(
        ["--price"], type=float, metavar="MONEY", help="price of a rank-hour (a GPU-hour when a rank is a GPU)"
    ),
    click.Option(
        ["--tuning"],
        default="",
        metavar="NAME[,NAME]",
        help="count these searches of outputs/tune even if no run uses their result",
    ),
    click.Option(
        ["--rule", "rules"],
        multiple=True,
        metavar="NAME=VALUE",
        help="change when a run counts as diverged or as not having learned, or switch a rule off (NAME=off): "
        "non-finite (on), ratio (2), ratio-share (0.02 of the budget), early (0.1 of the budget), unigram (0.05 nats)",
    ),
]


def _options(target: float | None, crossing: Method, price: float | None, tuning: str, rules: Sequence[str]) -> Options:
    searches = tuple(name for name in tuning.split(",") if name)
    return Options(target, crossing, price, searches, rules=parse_rules(rules))


@analysis.command(cls=_CommandOnCurves, params=list(_ANSWER_PARAMETERS))
@click.option(
    "--watch",
    "every_s",
    type=float,
    is_flag=False,
    flag_value=watch.DEFAULT_S,
    metavar="[SECONDS]",
    help=f"rewrite the report every SECONDS (default: {watch.DEFAULT_S}) while runs train; the page reloads itself",
)
def report(
    target: float | None,
    crossing: Method,
    price: float | None,
    tuning: str,
    rules: tuple[str, ...],
    every_s: float | None,
    **where: str | None,
) -> None:
    """Write the page, tables and verdict of a sweep.

    FOLDER is outputs/sweeps/NAME, or outputs for all of its runs. An option
    names curves from elsewhere instead.
    """
    options = _options(target, crossing, price, tuning, rules)
    if every_s is None:
        written = reports.write_source(source.read_values(where), options)
    else:
        watch.check_interval(every_s)
        if where["folder"] is None:
            raise UserError(
                "--watch: goes with outputs/sweeps/NAME or outputs only, whose runs record whether they are live"
            )
        written = watch.watch(lambda: source.read_values(where), options, every_s, click.echo)
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    for words in (*written.verdict["headline"], *written.verdict["caveats"]):
        click.echo(textwrap.fill(words, width))
    click.echo(f"report  {written.path}")


@analysis.command(cls=_CommandOnCurves, params=list(_ANSWER_PARAMETERS))
@click.option("--format", "form", type=click.Choice(FORMATS), default="pdf", help="of the figures (default: pdf)")
@click.option("--width", type=click.Choice(list(INCHES)), default="one", help="columns of a paper (default: one)")
def figures(
    target: float | None,
    crossing: Method,
    price: float | None,
    tuning: str,
    rules: tuple[str, ...],
    form: Format,
    width: Width,
    **where: str | None,
) -> None:
    """Write the report's figures and tables for print.

    Figures are PDF or SVG, tables LaTeX and Markdown, in the folder `figures`
    beside the report.
    """
    curves_read = source.read_values(where)
    answer = reports.answer_of(curves_read, _options(target, crossing, price, tuning, rules))
    folder = Path(where["out"]) if where["out"] else SweepDir.at(curves_read.out).figures
    made = print_figures.write(answer, folder, form, width)
    click.echo(f"{len(made.figures)} figures, {len(made.tables)} tables in LaTeX and Markdown  {made.folder}")


@analysis.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def paper(folder: Path, as_json: bool) -> None:
    """Set a sweep beside the published cells and claims.

    FOLDER is outputs/sweeps/NAME; the published ones are those of arXiv 2108.06084.
    """
    comparison = published.write(folder)
    if as_json:
        click.echo(json.dumps(comparison.plain(), indent=1, allow_nan=False))
        return
    tables.show(comparison, Console(highlight=False, markup=False))
    click.echo(f"\npaper  {SweepDir.at(folder).paper}")


@analysis.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("curriculum", type=click.Path(path_type=Path))
@click.option("--target", type=float, required=True, metavar="LOSS", help="target loss in nats per token")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def compare(baseline: Path, curriculum: Path, target: float, as_json: bool) -> None:
    """Compute the saving between two curves in files.

    BASELINE and CURRICULUM are CSV or Parquet files with the columns
    consumed_tokens, val_loss (or val_ppl) and, for time, train_seconds.
    """
    if not math.isfinite(target):
        raise UserError(f"--target {target}: must be a finite loss in nats per token")
    result = curves.compare(curves.read_curve(baseline), curves.read_curve(curriculum), target)
    click.echo(json.dumps(result, indent=1) if as_json else curves.in_words(result))
