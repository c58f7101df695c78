"""`python -m analysis`: reports on curves, figures for print, the published claims, two curves compared."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from pathlib import Path

from analysis import compare as curves
from analysis import figures, print_figures, report, watch
from analysis.answer import Options
from analysis.paper import compare, tables
from analysis.readers import source
from analysis.stats.crossings import METHODS
from analysis.stats.outcome import parse_rules
from analysis.words import printable
from cl_bench.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from cl_bench.runs.paths import SweepDir

_WIDTH = 100


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="What a sweep says, and curves from elsewhere.")
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("report", help="the page, tables and verdict of a sweep, or of curves from elsewhere")
    source.add_arguments(page)
    _add_options(page)
    page.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=watch.DEFAULT_S,
        metavar="SECONDS",
        help=f"write the report again every SECONDS (default: {watch.DEFAULT_S}) while runs train; "
        "the page reloads itself",
    )
    printed = commands.add_parser(
        "figures", help="the page's figures (PDF or SVG) and tables (LaTeX, Markdown) for print"
    )
    source.add_arguments(printed)
    printed.add_argument("--format", choices=print_figures.FORMATS, default="pdf", help="of the figures (default: pdf)")
    printed.add_argument(
        "--width", choices=list(figures.INCHES), default="one", help="columns of a paper (default: one)"
    )
    _add_options(printed)
    beside = commands.add_parser("paper", help="a sweep beside the published cells and claims of arXiv 2108.06084")
    beside.add_argument("folder", type=Path, help="outputs/sweeps/NAME")
    beside.add_argument("--json", action="store_true", help="print JSON")
    two = commands.add_parser("compare", help="the saving between two curves in CSV files")
    two.add_argument("baseline", type=Path, help="columns consumed_tokens, train_seconds, val_loss (or val_ppl)")
    two.add_argument("curriculum", type=Path, help="the same columns")
    two.add_argument("--target", type=float, required=True, metavar="LOSS", help="target loss in nats a token")
    two.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """What a report may be asked to do otherwise than by default."""
    parser.add_argument("--target", type=float, metavar="PPL", help="target perplexity (default: the baseline's final)")
    parser.add_argument(
        "--crossing",
        choices=METHODS,
        default="interpolate",
        help="interpolate (default): the first crossing; first: the first evaluation at or below the target; "
        "sustained: the last crossing",
    )
    parser.add_argument(
        "--price", type=float, metavar="MONEY", help="money per rank-hour (a GPU-hour where a rank is a GPU)"
    )
    parser.add_argument(
        "--tuning",
        default="",
        metavar="NAME[,NAME]",
        help="count these searches of outputs/tune even if no run uses what they found",
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="when a run diverged or did not learn; NAME=off switches a rule off: non-finite, ratio (2), ratio-share "
        "(0.02 of the budget), early (0.1 of the budget), unigram (0.05 nats); can be repeated",
    )


def _options(args: argparse.Namespace) -> Options:
    searches = tuple(name for name in args.tuning.split(",") if name)
    rules = parse_rules(args.rule)
    return Options(args.target, args.crossing, args.price, searches, rules=rules)


def _report(args: argparse.Namespace) -> report.Report:
    if args.watch is None:
        return report.write_source(source.read(args), _options(args))
    watch.check_interval(args.watch)
    if args.folder is None:
        raise UserError(
            "--watch: goes with outputs/sweeps/NAME or outputs only, where runs tell whether they are at work"
        )
    return watch.watch(lambda: source.read(args), _options(args), args.watch, lambda line: print(line, flush=True))


def main(argv: list[str] | None = None, prog: str = "python -m analysis") -> int:
    """Run the command line, called `prog` in its help; returns the exit code, 2 for the user's mistakes."""
    args = _parser(prog).parse_args(argv)
    try:
        if args.command == "report":
            written = _report(args)
            for words in (written.verdict["sentence"], written.verdict["best_sentence"]):
                print(textwrap.fill(words, _WIDTH), end="\n" if words else "")
            for caveat in written.verdict["caveats"]:
                print(textwrap.fill(caveat, _WIDTH))
            print(f"report  {written.path}")
        elif args.command == "figures":
            curves_read = source.read(args)
            into = Path(args.out) if args.out else SweepDir.at(curves_read.out).figures
            made = print_figures.write(report.answer_of(curves_read, _options(args)), into, args.format, args.width)
            print(f"{len(made.figures)} figures, {len(made.tables)} tables in LaTeX and Markdown  {made.folder}")
        elif args.command == "paper":
            _paper(args.folder, as_json=args.json)
        else:
            if not math.isfinite(args.target):
                raise UserError(f"--target {args.target}: must be a finite loss in nats a token")
            result = curves.compare(curves.read_curve(args.baseline), curves.read_curve(args.curriculum), args.target)
            print(json.dumps(result, indent=1) if args.json else curves.in_words(result))
    except UserError as error:
        # Not splitlines(), which takes some control characters for ends of lines.
        print("\n".join(f"error: {printable(line)}" for line in str(error).split("\n")), file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:  # how one stops watching
        return EXIT_INTERRUPTED
    return 0


def _paper(folder: Path, *, as_json: bool) -> None:
    comparison = compare.write(folder)
    if as_json:
        print(json.dumps(comparison.plain(), indent=1, allow_nan=False))
        return
    from rich.console import Console

    tables.show(comparison, Console(highlight=False, markup=False))
    print(f"\npaper  {SweepDir.at(folder).paper}")


if __name__ == "__main__":
    sys.exit(main())
