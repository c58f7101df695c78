"""Best against best: the grid's best baseline cell against its best curriculum cell.

Picking the best of many cells and measuring it on the same runs measures luck as well. So cells are chosen on other
seeds than those they are measured on (cross-fitting): from four seeds on in two folds, each measured on the cells that
the other one chose, below that each seed on the cells that all others chose. Leave-one-out with many seeds chooses
nearly the same cell each time, whose luck is then measured n times over. With one seed none of it is possible, and the
result says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.schema import ROLES, Cell, Row, Runs, cell_of, perplexity, rows_of
from analysis.stats.crossings import Curve, Method, curves
from analysis.stats.intervals import NO_ESTIMATE, Estimate, Pair, estimate, pair_of, widened
from analysis.stats.loss_difference import NO_DIFFERENCE, LossDifference, difference_at_end, loss_difference
from analysis.stats.outcome import Outcome
from analysis.stats.pairs import Printed, failures, printed
from analysis.stats.smoothing import clean_curves

TWO_FOLDS_FROM = 4
"""Seeds from which on cells are chosen on one half of the seeds and measured on the other."""


@dataclasses.dataclass(frozen=True)
class Best:
    """The best curriculum cell against the best baseline cell of one setting."""

    baseline: Cell
    """The pick of most seeds."""
    curriculum: Cell
    picks: int
    """Distinct pairs of cells that were picked for some seed."""
    tokens: Estimate
    """At the best baseline's final loss, or at the given target."""
    time: Estimate
    seeds: int
    crossfitted: bool
    """Whether each seed was measured on cells that other seeds picked."""
    target_ppl: float
    """The best baseline's final perplexity, geometric mean over seeds, or the given target."""
    baseline_cells: int
    """Baseline cells to choose from."""
    curriculum_cells: int
    printed: Estimate = NO_ESTIMATE
    """Tokens at the loss that both runs of a seed had reached by 80% of their budget, or at the given target."""
    printed_time: Estimate = NO_ESTIMATE
    printed_ppl: float | None = None
    """Perplexity of the printed target, geometric mean over seeds."""
    loss: LossDifference = NO_DIFFERENCE
    """Final validation loss at equal tokens."""
    loss_at_seconds: LossDifference = NO_DIFFERENCE
    recorded_time: Estimate = NO_ESTIMATE
    """`printed_time` in seconds as recorded."""
    diverged: int = 0
    """Runs of the chosen curriculum cell that failed; above 0 only if every curriculum cell has such a run."""
    baseline_diverged: int = 0
    left_out: tuple[int, ...] = ()
    """Seeds of the grid that take no part, since a chosen cell lacks them."""

    @property
    def chosen(self) -> bool:
        """Whether there was a choice."""
        return (self.baseline_cells, self.curriculum_cells) != (1, 1)


class GridRun(NamedTuple):
    """A run of the grid: its row of Runs.runs and its curve."""

    row: Row
    curve: Curve


_Seeds = Mapping[int, GridRun]
_Read = Callable[[GridRun, GridRun], Printed]
"""A curriculum run against a baseline on cleaned curves."""


def best_against_best(
    runs: Runs,
    method: Method = "interpolate",
    target_ppl: float | None = None,
    outcome: Mapping[str, Outcome] | None = None,
) -> list[Best]:
    """One result per setting with a finished baseline and a curriculum, over seeds that all cells share.

    A cell takes part if it has all of those seeds, none of its runs failed (analysis.stats.pairs.failures) and, for
    baselines, they finished: a cell that lost a seed is not the best. The target of a seed is the final loss of its
    picked baseline unless `target_ppl` is given.
    """
    by_run, failed = curves(runs.evals), failures(runs, outcome)
    clean, target = clean_curves(by_run), None if target_ppl is None else math.log(target_ppl)
    readings: dict[tuple[str, str], Printed] = {}

    def read(ours: GridRun, theirs: GridRun) -> Printed:
        key = str(ours.row["run_id"]), str(theirs.row["run_id"])
        if key not in readings:
            readings[key] = printed(ours.row, theirs.row, clean, target, ())
        return readings[key]

    results = []
    for _, table in runs.runs.groupby("setting", sort=False):
        cells = [_cells(table[table["role"] == role], by_run, failed, finished=role == "baseline") for role in ROLES]
        best = _in_setting(cells[0], cells[1], read, method, target)
        if best is not None:
            results.append(_with_failures(best, table, failed))
    return results


def _in_setting(
    baselines: Mapping[Cell, _Seeds],
    curricula: Mapping[Cell, _Seeds],
    read: _Read,
    method: Method,
    target_loss: float | None,
) -> tuple[Best, list[int]] | None:
    """The result, and the seeds that took part."""
    if not baselines or not curricula:
        return None
    common = _seeds_in_common(baselines, curricula)
    baselines, curricula = ({c: s for c, s in g.items() if common <= set(s)} for g in (baselines, curricula))
    if not baselines or not curricula or not common:
        return None
    seeds = sorted(common)
    picks = {}
    for measured, choosing in folds(seeds):
        base = best_baseline(baselines, choosing)
        cl = best_curriculum(curricula, baselines[base], choosing, read)
        picks.update(dict.fromkeys(measured, (base, cl)))
    pairs = [(curricula[cl][seed], baselines[base][seed]) for seed, (base, cl) in picks.items()]
    (base, cl), _ = Counter(picks.values()).most_common(1)[0]
    choice = len(baselines) > 1 or len(curricula) > 1
    over_seeds = crossfitted if choice else estimate
    tokens, seconds, targets = zip(*(measure(o.curve, t.curve, method, target_loss) for o, t in pairs), strict=True)
    printed_pairs = [read(*pair).at_target for pair in pairs]
    losses = [c.target_loss for c in printed_pairs if not math.isnan(c.target_loss)]
    ends = [
        [difference_at_end(o.curve, t.curve, axis) if o.row["state"] == "DONE" else math.nan for o, t in pairs]
        for axis in ("tokens", "seconds")
    ]
    factor = widening(len(seeds)) if choice else 1.0
    best = Best(
        baseline=base,
        curriculum=cl,
        picks=len(set(picks.values())),
        tokens=over_seeds(tokens),
        time=over_seeds(seconds),
        seeds=len(seeds),
        crossfitted=len(seeds) > 1,
        target_ppl=perplexity(float(np.mean(targets))),
        baseline_cells=len(baselines),
        curriculum_cells=len(curricula),
        printed=over_seeds([c.pair("token") for c in printed_pairs]),
        printed_time=over_seeds([c.pair("time") for c in printed_pairs]),
        printed_ppl=perplexity(float(np.mean(losses))) if losses else None,
        loss=loss_difference(ends[0], factor),
        loss_at_seconds=loss_difference(ends[1], factor),
    )
    return best, seeds


def _with_failures(result: tuple[Best, list[int]], table: pd.DataFrame, failed: Collection[str]) -> Best:
    """The result with the failed runs of its cells and the seeds that are left out."""
    best, seeds = result
    counts = Counter(cell_of(run) for run in rows_of(table) if run["run_id"] in failed)
    return dataclasses.replace(
        best,
        diverged=counts[best.curriculum],
        baseline_diverged=counts[best.baseline],
        left_out=tuple(sorted({int(s) for s in table["seed"]} - set(seeds))),
    )


def folds(seeds: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """(measured, choosing) seeds of each fold: two halves from TWO_FOLDS_FROM seeds on, else one seed at a time."""
    n = len(seeds)
    groups = [list(seeds[i::2]) for i in (0, 1)] if n >= TWO_FOLDS_FROM else [[seed] for seed in seeds]
    return [(group, [s for s in seeds if s not in group] or group) for group in groups]


def widening(n: int) -> float:
    """Factor of the standard error of a mean over `n` seeds that were measured on cells chosen by others.

    In two folds the choices rest on halves, and the variance is that of one half's mean. One seed at a time, the
    choices share seeds; the factor is Nadeau and Bengio's, of the corrected resampled t test ("Inference for the
    generalization error", Machine Learning 52, 2003): sqrt(1/n + 1/(n - 1)) instead of sqrt(1/n).
    """
    if n < 2:
        return 1.0
    return math.sqrt(2) if n >= TWO_FOLDS_FROM else math.sqrt(1 + n / (n - 1))


def crossfitted(pairs: Sequence[Pair]) -> Estimate:
    """The estimate over seeds that were each measured on the cells chosen by others; its interval is widened."""
    n, result = len(pairs), estimate(pairs)
    return widened(result, [p.log_ratio for p in pairs], widening(n)) if n > 1 else result


def _seeds_in_common(baselines: Mapping[Cell, _Seeds], curricula: Mapping[Cell, _Seeds]) -> frozenset[int]:
    """The set of seeds that keeps the most cells, then the largest; cells that lack one of them drop out."""
    candidates = {frozenset(b) & frozenset(c) for b in baselines.values() for c in curricula.values()}

    def kept(seeds: frozenset[int]) -> tuple[bool, int, int]:
        counts = [sum(seeds <= set(s) for s in group.values()) for group in (baselines, curricula)]
        return bool(seeds) and min(counts) > 0, sum(counts), len(seeds)

    return max(sorted(candidates, key=sorted), key=kept)


def _cells(
    table: pd.DataFrame, by_run: Mapping[str, Curve], failed: Collection[str], *, finished: bool
) -> dict[Cell, dict[int, GridRun]]:
    """The runs of each cell by seed, without failed ones; cells that lost a seed only if all did."""
    cells: dict[Cell, dict[int, GridRun]] = {}
    lost: set[Cell] = set()
    for run in rows_of(table):
        cell, run_id = cell_of(run), str(run["run_id"])
        if run_id in by_run and run_id not in failed and (run["state"] == "DONE" or not finished):
            cells.setdefault(cell, {})[int(run["seed"])] = GridRun(run, by_run[run_id])
        else:
            lost.add(cell)
    whole = {c: s for c, s in cells.items() if c not in lost}
    return whole or cells


def best_baseline(cells: Mapping[Cell, _Seeds], seeds: Sequence[int]) -> Cell:
    """The cell with the lowest mean final loss over `seeds`."""
    return min(cells, key=lambda c: float(np.mean([cells[c][s].curve.final for s in seeds])))


def best_curriculum(cells: Mapping[Cell, _Seeds], baseline: _Seeds, seeds: Sequence[int], read: _Read) -> Cell:
    """The cell with the fewest tokens to the printed target over `seeds`, then the one with the lowest final loss.

    Curves with too few evaluations to be cleaned are compared at the baseline's final loss; the more seeds reach it,
    the better.
    """

    def log_ratio(ours: GridRun, theirs: GridRun) -> float:
        ratio = read(ours, theirs).log_ratio
        if math.isfinite(ratio):
            return ratio
        pair = measure(ours.curve, theirs.curve, "interpolate")[0]
        return math.inf if pair.censored else pair.log_ratio

    def cost(cell: Cell) -> tuple[int, float, float]:
        ratios = [log_ratio(cells[cell][s], baseline[s]) for s in seeds]
        never = sum(math.isinf(r) for r in ratios)
        return never, float(np.mean(ratios)), float(np.mean([cells[cell][s].curve.final for s in seeds]))

    return min(cells, key=cost)


def measure(ours: Curve, theirs: Curve, method: Method, target_loss: float | None = None) -> tuple[Pair, Pair, float]:
    """Pairs in tokens and seconds at `target_loss`, by default the baseline's final loss, and that loss."""
    target = theirs.final if target_loss is None else target_loss
    a, b = ours.crossing(target, method), theirs.crossing(target, method)
    return pair_of(a, b), pair_of(a, b, "seconds"), target
