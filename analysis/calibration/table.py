"""Tables of the calibration in docs/statistics.md: `python -m analysis.calibration.table [FILE]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from analysis.calibration.correlation import CorrelationRow, calibration
from analysis.calibration.simulate import READINGS, ROUGH, USUAL, BestOfEquals, Row, best_of_equals, coverage, family
from analysis.stats.intervals import BOOTSTRAP_FROM
from cl_bench.errors import EXIT_USER_ERROR, UserError
from cl_bench.runs.paths import write_atomic

_BEGIN, _END = "<!-- calibration: written by `make calibrate` -->", "<!-- end of the calibration -->"
_SEEDS = (3, 5, 10)
_FINAL, _GIVEN, _CELL_LOWEST, _COMMON = READINGS


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and write the tables between the marks of the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.calibration.table", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("docs/statistics.md"))
    parser.add_argument("--sweeps", type=int, default=2000, help="synthetic sweeps per row")
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


def tables(sweeps: int) -> str:
    """All tables as Markdown, on all cores."""
    began = time.monotonic()
    with ProcessPoolExecutor() as pool:

        def submit(work: Callable[..., Any], *args: Any, **named: Any) -> Future[Any]:
            return pool.submit(work, *args, **named)

        savings = [
            *(submit(coverage, reading, 0.3, n, sweeps) for reading in (_FINAL, _GIVEN, _CELL_LOWEST) for n in _SEEDS),
            submit(coverage, _FINAL, 0.3, BOOTSTRAP_FROM, sweeps // 4),
            *(submit(coverage, _FINAL, 0.3, n, sweeps, ROUGH) for n in _SEEDS),
            *(submit(coverage, _FINAL, 0.1, n, sweeps) for n in _SEEDS),
            *(submit(coverage, _CELL_LOWEST, 0.1, n, sweeps) for n in _SEEDS),
            *(submit(coverage, _COMMON, 0.1, n, sweeps) for n in _SEEDS),
            *(submit(coverage, _GIVEN, -0.2, n, sweeps) for n in _SEEDS),
            *(submit(coverage, _COMMON, -0.2, n, sweeps) for n in _SEEDS),
        ]
        nothing = [
            submit(coverage, reading, 0.0, n, sweeps)
            for reading in (_FINAL, _GIVEN, _CELL_LOWEST, _COMMON)
            for n in _SEEDS
        ]
        families = {n: submit(family, 12, n, sweeps) for n in _SEEDS}
        correlations = submit(calibration, sweeps)
        bests = [submit(best_of_equals, n, sweeps // 2, apart=c) for n in _SEEDS for c in (False, True)]
        parts = [
            f"**Coverage** ({sweeps:,} sweeps per row; {sweeps // 4:,} with {BOOTSTRAP_FROM} seeds).\n",
            _coverage_table(f.result() for f in savings),
            "\n**A baseline against a baseline**: nothing is saved, so every significant difference is an error.\n",
            _coverage_table(f.result() for f in nothing),
            f"\n**Twelve such cells at once** ({sweeps:,} sweeps): sweeps in which any cell is significant.\n",
            _table(
                ("seeds", "each cell at 5%", "Holm over the cells"),
                [(n, _share(f.result()[0]), _share(f.result()[1])) for n, f in families.items()],
            ),
            f"\n**Best against best**, 2 baseline and 8 curriculum cells that all save 30% ({sweeps // 2:,} sweeps).\n",
            _best_table(f.result() for f in bests),
            f"\n**Correlations of autocorrelated series** ({sweeps:,} pairs of AR(1) series per row).\n",
            _correlation_table(correlations.result()),
        ]
    print(f"simulated in {time.monotonic() - began:.0f} s")
    return "\n".join(parts)


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
