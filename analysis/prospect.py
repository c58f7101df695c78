"""Power of a sweep before it is trained: what its tests could detect, by the spread of earlier runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from analysis.readers.outputs import load_finished
from analysis.stats.power import DEFAULT_SD, pooled_sd, seeds_needed, smallest_saving
from analysis.stats.savings import cell_savings, run_savings


@dataclasses.dataclass(frozen=True)
class Spread:
    """Standard deviation of a pair's log ratio of tokens."""

    sd: float
    pairs: int
    """Earlier pairs of curriculum and baseline that it comes from; 0: DEFAULT_SD is assumed."""


def spread(outputs: Path, settings: Collection[str]) -> Spread:
    """The spread of finished runs of some settings (cl_bench.runs.identity.setting) in an outputs folder."""
    runs = load_finished(outputs, settings)
    cells = [c.log_ratios for c in cell_savings(run_savings(runs))] if runs is not None else []
    several = [logs for logs in cells if len(logs) > 1]
    sd = pooled_sd(several)
    return Spread(sd, sum(map(len, several))) if sd is not None and sd > 1e-9 else Spread(DEFAULT_SD, 0)


def in_words(measured: Spread, seeds: int, cells: int) -> list[str]:
    """Two lines for a terminal of 80 columns: the smallest saving, and the seeds that 10% and 20% would need."""
    many = f"{cells} cells, " if cells > 1 else ""
    if seeds < 2:
        first = "1 seed: no difference can be significant, and none has an interval"
    else:
        least = smallest_saving(measured.sd, seeds, cells)
        first = f"{many}{seeds} seeds: savings from {_percent(least)} up are significant (80% power)"
    ten, twenty = (_count(seeds_needed(s, measured.sd, cells)) for s in (0.1, 0.2))
    source = f"{measured.pairs} earlier pairs" if measured.pairs else "assumed"
    return [first, f"10% needs {ten} seeds, 20% {twenty} (sd of log ratios {measured.sd:.2g}, {source})"]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _count(seeds: int | None) -> str:
    return "over 1,000" if seeds is None else str(seeds)
