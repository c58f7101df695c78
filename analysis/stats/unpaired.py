"""Comparison of two arms whose seeds do not pair: Welch's t on log amounts at a loss that every run reached."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis.schema import Cell, Row, Runs, cell_of, rows_of
from analysis.stats.crossings import Crossing, Curve, Floats, curves
from analysis.stats.intervals import Estimate, Interval, interval_from
from analysis.stats.level import SHARE, crossing_of
from analysis.stats.loss_difference import LossDifference, from_interval
from analysis.stats.outcome import Outcome
from analysis.stats.pairs import Baselines, budget, failures, mean_ranks
from analysis.stats.smoothing import clean_curves, loss_at


class ArmRun(NamedTuple):
    """One run of an arm that neither diverged nor stopped short."""

    clean: Curve
    """Its cleaned curve."""
    raw: Curve
    token_budget: float
    ranks: float
    finished: bool


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """The comparison of a cell's curriculum runs with its baselines, whatever their seeds."""

    target_loss: float
    """The lowest loss that every run of both arms had reached by 80% of the smallest budget, or the given target."""
    tokens: Estimate
    time: Estimate
    rank_hours: Estimate
    test: Estimate
    """Tokens, where every run arrived."""
    loss: LossDifference
    loss_at_seconds: LossDifference
    runs: tuple[int, int]
    """Curriculum runs and baselines that take part."""


def welch(ours: Floats, theirs: Floats) -> Interval:
    """Welch's interval and p-value of mean(ours) - mean(theirs), shapes (..., n_c) and (..., n_b); two runs or more.

    B. L. Welch, Biometrika 34 (1947), but with the degrees of freedom halfway between Satterthwaite's and Hsu's
    min(n) - 1, and Hsu's own if an arm has two runs: Welch's own errs too often (up to 10.7% at 5%) if the smaller
    arm is the one that spreads.
    """
    n_c, n_b = ours.shape[-1], theirs.shape[-1]
    v_c, v_b = ours.var(-1, ddof=1) / n_c, theirs.var(-1, ddof=1) / n_b
    least = min(n_c, n_b) - 1
    satterthwaite = (v_c + v_b) ** 2 / np.maximum(v_c**2 / (n_c - 1) + v_b**2 / (n_b - 1), 1e-300)
    df = np.ones_like(satterthwaite) if least == 1 else (satterthwaite + least) / 2
    return interval_from(ours.mean(-1) - theirs.mean(-1), np.sqrt(v_c + v_b), df)


def pairing_holds(curriculum_seeds: set[int], baseline_seeds: set[int]) -> bool:
    """Whether a cell is compared in pairs: every curriculum seed has its baseline, or few enough runs lack a partner.

    That is three pairs or more with at most a third of the runs left over.
    """
    pairs = len(curriculum_seeds & baseline_seeds)
    left_over = len(curriculum_seeds ^ baseline_seeds)
    whole = curriculum_seeds <= baseline_seeds
    return whole or (pairs >= 3 and 3 * left_over <= len(curriculum_seeds) + len(baseline_seeds))


def compare_arms(
    curricula: Sequence[ArmRun], baselines: Sequence[ArmRun], target_loss: float | None = None
) -> Unpaired | None:
    """Both arms at `target_loss`, or at the lowest loss that all runs had reached by 80% of the smallest budget.

    None with fewer than two runs in an arm. A run that is not that far yet is left out.
    """
    both = [*curricula, *baselines]
    if not both:
        return None
    end = SHARE * min(r.token_budget for r in both)
    ours, theirs = ([r for r in arm if r.clean.tokens[-1] >= end * (1 - 1e-9)] for arm in (curricula, baselines))
    if min(len(ours), len(theirs)) < 2:
        return None
    common = max(float(loss_at(r.clean.tokens, r.clean.loss, end)) for r in [*ours, *theirs])
    target = common if target_loss is None else target_loss
    at_target = [[crossing_of(r.clean, target) for r in arm] for arm in (ours, theirs)]
    at_common = [[crossing_of(r.clean, max(target, common)) for r in arm] for arm in (ours, theirs)]
    ranks = [[r.ranks for r in arm] for arm in (ours, theirs)]
    return Unpaired(
        target,
        _estimate(*(_tokens(arm) for arm in at_target)),
        _estimate(*(_seconds(arm) for arm in at_target)),
        _estimate(*(_seconds(arm) * np.array(n) for arm, n in zip(at_target, ranks, strict=True))),
        _estimate(*(_tokens(arm) for arm in at_common)),
        *_losses(ours, theirs),
        (len(ours), len(theirs)),
    )


def _tokens(arm: Sequence[Crossing]) -> Floats:
    return np.array([math.nan if c.tokens is None or c.from_start else c.tokens for c in arm])


def _seconds(arm: Sequence[Crossing]) -> Floats:
    return np.array([math.nan if c.seconds is None or c.from_start else c.seconds for c in arm])


def _estimate(ours: Floats, theirs: Floats) -> Estimate:
    """Of amounts, shape (runs,); without a point if any is NaN."""
    arrived, n = int(min(np.isfinite(ours).sum(), np.isfinite(theirs).sum())), min(len(ours), len(theirs))
    if not (np.all(ours > 0) and np.all(theirs > 0)):
        return Estimate(arrived=arrived, n=n)
    mean, low, high, p_value = (float(v) for v in welch(np.log(ours), np.log(theirs)))
    point, ends = -math.expm1(mean), (-math.expm1(high), -math.expm1(low))
    p = None if high - low <= 1e-12 else p_value
    return Estimate(point, *ends, p_value=p, method="welch", censored="", arrived=arrived, n=n)


def _losses(ours: Sequence[ArmRun], theirs: Sequence[ArmRun]) -> tuple[LossDifference, LossDifference]:
    """Difference of loss at equal tokens and at equal seconds, over finished runs."""
    arms = [[r.raw for r in arm if r.finished] for arm in (ours, theirs)]
    if min(map(len, arms)) < 2:
        return LossDifference(), LossDifference()
    results = []
    for axis in (0, 1):  # tokens, seconds
        end = min(float(c[axis][-1]) for arm in arms for c in arm)
        c, b = (np.array([float(np.interp(end, curve[axis], curve.loss)) for curve in arm]) for arm in arms)
        sound = end > 0 and np.isfinite(c).all() and np.isfinite(b).all()
        results.append(from_interval(welch(c, b), "welch", min(len(c), len(b))) if sound else LossDifference())
    return results[0], results[1]


def unpaired_cells(
    runs: Runs, target_ppl: float | None = None, outcome: Mapping[str, Outcome] | None = None
) -> dict[Cell, Unpaired]:
    """The comparison of whole arms for each cell whose seeds do not pair; runs that failed take no part."""
    by_run, failed, baselines = curves(runs.evals), failures(runs, outcome), Baselines(runs.runs)
    ranks = mean_ranks(runs.runs, runs.attempts)
    by_cell: dict[Cell, list[Row]] = {}
    for row in rows_of(runs.runs[runs.runs["role"] == "curriculum"]):
        by_cell.setdefault(cell_of(row), []).append(row)
    results = {}
    for cell, ours in by_cell.items():
        theirs = baselines.at_point(cell.setting, *cell.point)
        if pairing_holds({int(r["seed"]) for r in ours}, {int(r["seed"]) for r in theirs}):
            continue
        needed = {str(r["run_id"]): by_run[str(r["run_id"])] for r in (*ours, *theirs) if str(r["run_id"]) in by_run}
        clean = clean_curves(needed)
        arms = [
            [
                ArmRun(clean[i], by_run[i], budget(row, clean[i]), ranks[i], row["state"] == "DONE")
                for row in arm
                if (i := str(row["run_id"])) in clean and i not in failed
            ]
            for arm in (ours, theirs)
        ]
        result = compare_arms(arms[0], arms[1], None if target_ppl is None else math.log(target_ppl))
        if result is not None:
            results[cell] = result
    return results
