"""Best against best: the grid's best baseline against its best curriculum, as the paper claims its saving.

Whoever picks the best of many cells and measures it on the same runs measures luck, too. So each seed's saving is that
of the cells which the *other* seeds picked (cross-fitting); with one seed this cannot be done, and the answer says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.schema import Runs, rows_of
from analysis.stats.crossings import Method
from analysis.stats.curves import Curve, curves
from analysis.stats.intervals import Estimate, Pair, estimate, pair_of, widened


class Cell(NamedTuple):
    """A batch size and learning rate under a curriculum; for baselines `curriculum` is their own name."""

    curriculum: str
    variant: str
    global_batch_size: int
    lr: float


@dataclasses.dataclass(frozen=True)
class Best:
    """The best curriculum cell against the best baseline cell of one setting."""

    baseline: Cell
    """What most seeds' picks agree on."""
    curriculum: Cell
    picks: int
    """Different pairs of cells that were picked for one seed or another."""
    tokens: Estimate
    seconds: Estimate
    seeds: int
    crossfitted: bool
    """Whether each seed was measured on cells that other seeds picked."""
    target_ppl: float
    """What the best baseline finally reached, a geometric mean over the seeds."""
    candidates: tuple[int, int]
    """Baseline and curriculum cells to choose from."""


_Seeds = Mapping[int, Curve]


def best_against_best(runs: Runs, method: Method = "interpolate") -> list[Best]:
    """One answer for each setting that has a finished baseline and a curriculum, over seeds that all cells share.

    A cell takes part if every one of those seeds is in it and, for baselines, finished: a cell that lost a seed is not
    the best. The target of a seed is what its picked baseline finally reached.
    """
    known = curves(runs.evals)
    found = [_of_setting(table, known, method) for _, table in runs.runs.groupby("setting", sort=False)]
    return [b for b in found if b is not None]


def _of_setting(table: pd.DataFrame, known: Mapping[str, Curve], method: Method) -> Best | None:
    baselines, curricula = (
        _cells(table[table["role"] == role], known, finished=role == "baseline") for role in ("baseline", "curriculum")
    )
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
    chosen = len(baselines) > 1 or len(curricula) > 1
    return Best(
        base,
        cl,
        len(set(picks)),
        crossfitted(tokens) if chosen else estimate(tokens),
        crossfitted(seconds) if chosen else estimate(seconds),
        len(seeds),
        len(seeds) > 1,
        math.exp(float(np.mean(targets))),
        (len(baselines), len(curricula)),
    )


def _seeds_in_common(baselines: Mapping[Cell, _Seeds], curricula: Mapping[Cell, _Seeds]) -> frozenset[int]:
    """The seeds that keep the most cells, and of these the most seeds; a cell without one of them is passed over."""
    tried = {frozenset(b) & frozenset(c) for b in baselines.values() for c in curricula.values()}

    def kept(seeds: frozenset[int]) -> tuple[bool, int, int]:
        of_role = [sum(seeds <= set(s) for s in group.values()) for group in (baselines, curricula)]
        return bool(seeds) and min(of_role) > 0, sum(of_role), len(seeds)

    return max(sorted(tried, key=sorted), key=kept)


def _cells(table: pd.DataFrame, known: Mapping[str, Curve], *, finished: bool) -> dict[Cell, dict[int, Curve]]:
    found: dict[Cell, dict[int, Curve]] = {}
    lost: set[Cell] = set()
    for run in rows_of(table):
        cell = Cell(str(run["curriculum"]), str(run["variant"]), int(run["global_batch_size"]), float(run["lr"]))
        if run["run_id"] in known and (run["state"] == "DONE" or not finished):
            found.setdefault(cell, {})[int(run["seed"])] = known[str(run["run_id"])]
        else:
            lost.add(cell)
    whole = {c: s for c, s in found.items() if c not in lost}
    return whole or found


def crossfitted(pairs: Sequence[Pair]) -> Estimate:
    """The estimate over seeds that were each measured on cells which the others chose.

    The choices share seeds, so the logs are not independent: the standard error is Nadeau and Bengio's, of the
    corrected resampled t test ("Inference for the generalization error", Machine Learning 52, 2003): the spread times
    sqrt(1/n + 1/(n - 1)) instead of sqrt(1/n), with one seed measured and n - 1 choosing.
    """
    n = len(pairs)
    found = estimate(pairs)
    return widened(found, [p.log_ratio for p in pairs], math.sqrt(1 + n / (n - 1))) if n > 1 else found


def best_baseline(cells: Mapping[Cell, _Seeds], seeds: Sequence[int]) -> Cell:
    """The cell that ends at the lowest mean loss over `seeds`."""
    return min(cells, key=lambda c: float(np.mean([_final(cells[c][s]) for s in seeds])))


def best_curriculum(cells: Mapping[Cell, _Seeds], baseline: _Seeds, seeds: Sequence[int], method: Method) -> Cell:
    """The cell with the most seeds that reach the baseline's final loss, and of these the fewest tokens to it."""

    def cost(cell: Cell) -> tuple[int, float, float]:
        pairs = [measure(cells[cell][s], baseline[s], method)[0] for s in seeds]
        never = sum(p.censored != "" for p in pairs)
        ratio = float(np.mean([p.log_ratio if math.isfinite(p.log_ratio) else math.inf for p in pairs]))
        return never, ratio, float(np.mean([_final(cells[cell][s]) for s in seeds]))  # of those that tie, the nearest

    return min(cells, key=cost)


def _final(curve: Curve) -> float:
    return float(curve.loss[-1]) if math.isfinite(curve.loss[-1]) else math.inf


def measure(ours: Curve, theirs: Curve, method: Method) -> tuple[Pair, Pair, float]:
    """Pairs in tokens and seconds at what the baseline finally reached, and that loss."""
    target = _final(theirs)
    a, b = ours.crossing(target, method), theirs.crossing(target, method)
    return pair_of(a, b), pair_of(a, b, "seconds"), target


def plain(best: Best) -> dict[str, Any]:
    """As values that JSON can hold."""
    return {
        "baseline": best.baseline._asdict(),
        "curriculum": best.curriculum._asdict(),
        "picks": best.picks,
        "seeds": best.seeds,
        "crossfitted": best.crossfitted,
        "target_ppl": best.target_ppl,
        "baseline_cells": best.candidates[0],
        "curriculum_cells": best.candidates[1],
        **{
            f"{name}_{key}": getattr(e, key)
            for name, e in (("token_saving", best.tokens), ("time_saving", best.seconds))
            for key in ("point", "low", "high", "p_value", "method", "bound", "censored", "arrived")
        },
    }
