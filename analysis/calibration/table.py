"""Tables of the calibration in docs/statistics.md: `python -m analysis.calibration.table [FILE]`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from analysis.calibration import printed
from analysis.calibration.correlation import CorrelationRow, calibration
from analysis.calibration.simulate import READINGS, USUAL, BestOfEquals, Row, best_of_equals, coverage
from analysis.calibration.worlds import WORLDS
from analysis.stats.intervals import BOOTSTRAP_FROM
from cl_bench.errors import EXIT_USER_ERROR, UserError
from cl_bench.runs.paths import write_atomic

_BEGIN, _END = "<!-- calibration: written by `make calibrate` -->", "<!-- end of the calibration -->"
_SEEDS = (3, 5, 10)
_FINAL, _LIKELIHOOD, _COMMON = (
    "the baseline's final loss",
    "the same, censored likelihood",
    "the lowest common loss of each seed",
)
assert {_FINAL, _LIKELIHOOD, _COMMON} <= set(READINGS)
_FAMILY_SPREADS = (0.06, 0.14)
_ARMS = ((3, 3), (3, 5), (3, 10), (5, 10), (10, 10), (2, 5))
_GRIDS = ((8, 8), (8, 2), (20, 5))
_POWERS = ((0.06, 3, 1), (0.06, 5, 10), (0.14, 5, 1), (0.14, 10, 12))
_COVERAGE, _SINGLE_BOUND, _FAMILY_BOUND = (0.93, 0.97), 0.055, 0.06


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and write the tables between the marks of the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.calibration.table", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("docs/statistics.md"))
    parser.add_argument("--sweeps", type=int, default=1600, help="synthetic sweeps per row")
    args = parser.parse_args(argv)
    try:
        before, after = _around(args.file)
        write_atomic(args.file, f"{before}{_BEGIN}\n\n{tables(args.sweeps)}\n{_END}{after}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    print(f"written  {args.file}")
    return 0


def _around(file: Path) -> tuple[str, str]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give the file that holds the tables") from None
    if text.count(_BEGIN) != 1 or text.count(_END) != 1 or text.index(_BEGIN) > text.index(_END):
        raise UserError(f"{file}: needs the marks '{_BEGIN}' and '{_END}' around the tables, once each; add them")
    return text.split(_BEGIN)[0], text.split(_END)[1]


class _Pool:
    """Work on all cores; a future per row of a table."""

    def __init__(self, pool: ProcessPoolExecutor, sweeps: int) -> None:
        self.submit: Callable[..., Future[Any]] = pool.submit
        self.sweeps = sweeps


def tables(sweeps: int) -> str:
    """All tables as Markdown, on all cores; what lies beyond the bounds is named in its row."""
    began = time.monotonic()
    with ProcessPoolExecutor() as executor:
        pool = _Pool(executor, sweeps)
        # All work is submitted before the first result is waited for.
        parts = [part(pool) for part in (_printed, _families, _losses, _arms, _best, _powers, _targets, _correlations)]
        text = "\n".join(line for part in parts for line in part())
    print(f"simulated in {time.monotonic() - began:.0f} s")
    return text


_Lines = Callable[[], list[str]]
"""The lines of a part of the page, once its work is done."""


def _printed(pool: _Pool) -> _Lines:
    half = max(pool.sweeps // 2, 1)
    rows = [pool.submit(printed.printed_row, world, sd, half) for world in WORLDS for sd in printed.SPREADS]
    return lambda: [
        f"**The printed saving.** Covers: true savings of 10%, 30% and −20% together ({3 * half:,} sweeps each);\n"
        f"significant where nothing is saved ({4 * half:,} sweeps); a saving of 10% significant ({half:,}).\n"
        "With 3 / 5 / 10 seeds, in percent. Bounds: coverage 93 to 97%, errors up to 5.5%, and two standard errors of\n"
        "the simulation.\n",
        _printed_table(f.result() for f in rows),
    ]


def _families(pool: _Pool) -> _Lines:
    half = max(pool.sweeps // 2, 1)
    points = [(world, sd) for world in WORLDS for sd in _FAMILY_SPREADS]
    rows = {point: pool.submit(printed.family_error, *point, half) for point in points}
    return lambda: [
        f"\n**Twelve cells that save nothing** ({half:,} families): any is significant by Holm. Bound: 6%.\n",
        _table(
            ("world", "spread", "3 seeds", "5 seeds", "10 seeds", "beyond the bounds"),
            [
                (world, sd, *map(_share, f.result()), _beyond((), f.result(), _FAMILY_BOUND, half))
                for (world, sd), f in rows.items()
            ],
        ),
    ]


def _losses(pool: _Pool) -> _Lines:
    n = pool.sweeps
    rows = [pool.submit(printed.loss_row, world, n) for world in WORLDS]
    return lambda: [
        f"\n**Difference of final loss at equal tokens**, spread 0.14 ({n:,} sweeps), 3 / 5 / 10 seeds, in percent.\n",
        _table(
            ("world", "covers at a saving of 30%", "significant where there is none", "beyond the bounds"),
            [
                (
                    r.world.name,
                    _shares(r.covered),
                    _shares(r.significant),
                    _beyond(r.covered, r.significant, _SINGLE_BOUND, n),
                )
                for r in (f.result() for f in rows)
            ],
        ),
    ]


def _arms(pool: _Pool) -> _Lines:
    draws = 20 * pool.sweeps
    rows = {arms: pool.submit(printed.welch_errors, *arms, draws) for arms in _ARMS}
    return lambda: [
        f"\n**Unpaired arms** ({draws:,} draws): significant at 5% where there is nothing, by the spread of\n"
        "the first arm over the second's.\n",
        _table(
            ("runs", "1", "3", "1/3", "beyond the bounds"),
            [
                (f"{a} and {b}", *map(_share, f.result()), _beyond((), f.result(), _SINGLE_BOUND, draws))
                for (a, b), f in rows.items()
            ],
        ),
    ]


def _best(pool: _Pool) -> _Lines:
    draws, few = 3 * pool.sweeps, max(pool.sweeps // 4, 1)
    seeds = (3, 4, 6, 10, 20)
    rows = {grid: [pool.submit(printed.best_errors, *grid, n, draws) for n in seeds] for grid in _GRIDS}
    bests = [pool.submit(best_of_equals, n, few, apart=c) for n in _SEEDS for c in (False, True)]
    return lambda: [
        f"\n**Best against best of equal cells** ({draws:,} sweeps): significant at 5%.\n",
        _table(
            ("curriculum and baseline cells", *(f"{n} seeds" for n in seeds), "beyond the bounds"),
            [
                (f"{a} and {b}", *map(_share, errors), _beyond((), errors, _SINGLE_BOUND, draws))
                for (a, b), errors in ((grid, [f.result() for f in futures]) for grid, futures in rows.items())
            ],
        ),
        f"\n**Best against best**, 2 baseline and 8 curriculum cells that all save 30% ({few:,} sweeps).\n",
        _best_table(f.result() for f in bests),
    ]


def _powers(pool: _Pool) -> _Lines:
    rows = [pool.submit(printed.power_row, *point, pool.sweeps) for point in _POWERS]
    return lambda: [
        f"\n**Power**: a saving of 20% in one of several cells, the others equal ({pool.sweeps:,} sweeps).\n",
        _table(
            ("spread", "seeds", "cells", "predicted", "simulated by Holm"),
            [(r.sd, r.seeds, r.cells, _share(r.predicted), _share(r.simulated)) for r in (f.result() for f in rows)],
        ),
    ]


def _targets(pool: _Pool) -> _Lines:
    half, tenth = max(pool.sweeps // 2, 1), max(pool.sweeps // 10, 1)
    rows = [
        *(pool.submit(coverage, _FINAL, saving, n, half) for saving in (0.3, 0.1, 0.0) for n in _SEEDS),
        *(pool.submit(coverage, _LIKELIHOOD, saving, n, tenth) for saving in (0.1, 0.0) for n in _SEEDS),
        pool.submit(coverage, _FINAL, 0.3, BOOTSTRAP_FROM, tenth),
        *(pool.submit(coverage, _COMMON, saving, n, half) for saving in (0.1, 0.0, -0.2) for n in _SEEDS),
    ]
    return lambda: [
        "\n**Other targets**, the generator's world, raw first crossings: descriptions, which carry no test.\n"
        f"{half:,} sweeps per row, {tenth:,} for the likelihood and with {BOOTSTRAP_FROM} seeds.\n",
        _coverage_table(f.result() for f in rows),
    ]


def _correlations(pool: _Pool) -> _Lines:
    rows = pool.submit(calibration, pool.sweeps)
    return lambda: [
        f"\n**Correlations of autocorrelated series** ({pool.sweeps:,} pairs of AR(1) series per row).\n",
        _correlation_table(rows.result()),
    ]


def _printed_table(rows: Iterable[printed.PrintedRow]) -> str:
    return _table(
        ("world", "spread", "covers", "significant where nothing is saved", "10% significant", "beyond the bounds"),
        [
            (
                r.world.name,
                r.world.spread,
                _shares(r.covered),
                _shares(r.significant),
                _shares(r.power),
                _beyond(r.covered, r.significant, _SINGLE_BOUND, r.sweeps),
            )
            for r in rows
        ],
    )


def _shares(values: Iterable[float]) -> str:
    return " / ".join(f"{100 * v:.1f}" for v in values)


def _beyond(covered: Iterable[float], errors: Iterable[float], bound: float, sweeps: int) -> str:
    """The values outside the bounds, with two standard errors of the simulation; empty if none is."""
    low, high = (_COVERAGE[i] + (-2, 2)[i] * math.sqrt(0.05 * 0.95 / sweeps) for i in (0, 1))
    allowed = bound + 2 * math.sqrt(0.05 * 0.95 / sweeps)
    outside = [f"covers {_share(v)}" for v in covered if not low <= v <= high]
    return ", ".join(outside + [f"errs {_share(v)}" for v in errors if v > allowed])


def _coverage_table(rows: Iterable[Row]) -> str:
    return _table(
        ("target", "true saving", "seeds", "have an interval", "it covers", "interval or bound holds", "significant"),
        [
            (
                f"{r.reading}{' (rough evaluations)' if r.world != USUAL else ''}",
                f"{100 * r.saving:.0f}%".replace("-", "−"),
                r.seeds,
                _share(r.with_interval),
                "–" if r.covered is None else _share(r.covered),
                _share(r.held),
                _share(r.significant),
            )
            for r in rows
        ],
    )


def _best_table(rows: Iterable[BestOfEquals]) -> str:
    return _table(
        ("seeds", "cells chosen on", "mean saving", "interval covers 30%"),
        [
            (c.seeds, "the other seeds" if c.crossfitted else "the same seeds", _share(c.mean), _share(c.covered))
            for c in rows
        ],
    )


def _correlation_table(rows: Iterable[CorrelationRow]) -> str:
    return _table(
        ("true r", "φ", "points", "coefficient", "p < 0.05", "the usual test", "interval covers", "effective points"),
        [
            (
                f"{r.true_r:g}",
                f"{r.phi:g}",
                f"{r.points:,}",
                r.coefficient,
                _share(r.share),
                _share(r.naive_share),
                _share(r.covered),
                f"{r.effective_points:.0f}",
            )
            for r in rows
        ],
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
