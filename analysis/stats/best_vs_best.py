"""Best against best: the grid's best baseline cell against its best curriculum cell.

Picking the best of many cells and measuring it on the same runs measures luck as well. So each seed's saving is that of
the cells that the *other* seeds picked (cross-fitting); with one seed this is impossible, and the result says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.schema import ROLES, Cell, Runs, cell_of, perplexity, rows_of
from analysis.stats.crossings import Curve, Method, curves
from analysis.stats.intervals import Estimate, Pair, estimate, pair_of, widened


@dataclasses.dataclass(frozen=True)
class Best:
    """The best curriculum cell against the best baseline cell of one setting."""

    baseline: Cell
    """The pick of most seeds."""
    curriculum: Cell
    picks: int
    """Distinct pairs of cells that were picked for some seed."""
    tokens: Estimate
    time: Estimate
    seeds: int
    crossfitted: bool
    """Whether each seed was measured on cells that other seeds picked."""
    target_ppl: float
    """The best baseline's final perplexity, geometric mean over seeds."""
    baseline_cells: int
    """Baseline cells to choose from."""
    curriculum_cells: int

    @property
    def chosen(self) -> bool:
        """Whether there was a choice."""
        return (self.baseline_cells, self.curriculum_cells) != (1, 1)


_Seeds = Mapping[int, Curve]


def best_against_best(runs: Runs, method: Method = "interpolate") -> list[Best]:
    """One result per setting with a finished baseline and a curriculum, over seeds that all cells share.

    A cell takes part if it has all of those seeds and, for baselines, they finished: a cell that lost a seed is not the
    best. The target of a seed is the final loss of its picked baseline.
    """
    by_run = curves(runs.evals)
    results = [_in_setting(table, by_run, method) for _, table in runs.runs.groupby("setting", sort=False)]
    return [best for best in results if best is not None]


def _in_setting(table: pd.DataFrame, by_run: Mapping[str, Curve], method: Method) -> Best | None:
    baselines, curricula = (_cells(table[table["role"] == role], by_run, finished=role == "baseline") for role in ROLES)
    if not baselines or not curricula:
        return None
    common = _seeds_in_common(baselines, curricula)
    baselines, curricula = ({c: s for c, s in g.items() if common <= set(s)} for g in (baselines, curricula))
    if not baselines or not curricula or not common:
        return None
    seeds = sorted(common)
    picks, tokens, seconds, targets = [], [], [], []
    for seed in seeds:
        others = [s for s in seeds if s != seed] or [seed]
        base = best_baseline(baselines, others)
        cl = best_curriculum(curricula, baselines[base], others, method)
        picks.append((base, cl))
        token_pair, time_pair, target = measure(curricula[cl][seed], baselines[base][seed], method)
        tokens.append(token_pair)
        seconds.append(time_pair)
        targets.append(target)
    (base, cl), _ = Counter(picks).most_common(1)[0]
    over_seeds = crossfitted if len(baselines) > 1 or len(curricula) > 1 else estimate
    return Best(
        baseline=base,
        curriculum=cl,
        picks=len(set(picks)),
        tokens=over_seeds(tokens),
        time=over_seeds(seconds),
        seeds=len(seeds),
        crossfitted=len(seeds) > 1,
        target_ppl=perplexity(float(np.mean(targets))),
        baseline_cells=len(baselines),
        curriculum_cells=len(curricula),
    )


def _seeds_in_common(baselines: Mapping[Cell, _Seeds], curricula: Mapping[Cell, _Seeds]) -> frozenset[int]:
    """The set of seeds that keeps the most cells, then the largest; cells that lack one of them drop out."""
    candidates = {frozenset(b) & frozenset(c) for b in baselines.values() for c in curricula.values()}

    def kept(seeds: frozenset[int]) -> tuple[bool, int, int]:
        counts = [sum(seeds <= set(s) for s in group.values()) for group in (baselines, curricula)]
        return bool(seeds) and min(counts) > 0, sum(counts), len(seeds)

    return max(sorted(candidates, key=sorted), key=kept)


def _cells(table: pd.DataFrame, by_run: Mapping[str, Curve], *, finished: bool) -> dict[Cell, dict[int, Curve]]:
    """The curves of each cell by seed; cells that lost a seed only if all did."""
    cells: dict[Cell, dict[int, Curve]] = {}
    lost: set[Cell] = set()
    for run in rows_of(table):
        cell = cell_of(run)
        if run["run_id"] in by_run and (run["state"] == "DONE" or not finished):
            cells.setdefault(cell, {})[int(run["seed"])] = by_run[str(run["run_id"])]
        else:
            lost.add(cell)
    whole = {c: s for c, s in cells.items() if c not in lost}
    return whole or cells


def crossfitted(pairs: Sequence[Pair]) -> Estimate:
    """The estimate over seeds that were each measured on the cells chosen by the others.

    The choices share seeds, so the logs are not independent: the standard error is Nadeau and Bengio's, of the
    corrected resampled t test ("Inference for the generalization error", Machine Learning 52, 2003): the spread times
    sqrt(1/n + 1/(n - 1)) instead of sqrt(1/n), with one seed measured and n - 1 choosing.
    """
    n, result = len(pairs), estimate(pairs)
    return widened(result, [p.log_ratio for p in pairs], math.sqrt(1 + n / (n - 1))) if n > 1 else result


def best_baseline(cells: Mapping[Cell, _Seeds], seeds: Sequence[int]) -> Cell:
    """The cell with the lowest mean final loss over `seeds`."""
    return min(cells, key=lambda c: float(np.mean([cells[c][s].final for s in seeds])))


def best_curriculum(cells: Mapping[Cell, _Seeds], baseline: _Seeds, seeds: Sequence[int], method: Method) -> Cell:
    """The cell of which the most seeds reach the baseline's final loss, then the one with the fewest tokens to it."""

    def cost(cell: Cell) -> tuple[int, float, float]:
        pairs = [measure(cells[cell][s], baseline[s], method)[0] for s in seeds]
        never = sum(p.censored != "" for p in pairs)
        ratio = float(np.mean([p.log_ratio if math.isfinite(p.log_ratio) else math.inf for p in pairs]))
        return never, ratio, float(np.mean([cells[cell][s].final for s in seeds]))  # ties: the nearest

    return min(cells, key=cost)


def measure(ours: Curve, theirs: Curve, method: Method) -> tuple[Pair, Pair, float]:
    """Pairs in tokens and seconds at the baseline's final loss, and that loss."""
    target = theirs.final
    a, b = ours.crossing(target, method), theirs.crossing(target, method)
    return pair_of(a, b), pair_of(a, b, "seconds"), target
