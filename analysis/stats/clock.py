"""Training seconds by a clock that a busy machine does not fool.

The log of a run's median seconds per step at a shape (batch, length, hardware, ranks, precision) is a shape effect plus
a run effect. The shape effects, pooled over all runs, are the clock: a run's clean seconds are the sum, over its steps,
of the clock of each step's shape. What a busy machine did to one run is in that run's effect and in no clean seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.schema import Runs
from analysis.stats.crossings import Curve
from analysis.stats.intervals import CONFIDENCE, Estimate
from analysis.stats.step_times import UNKNOWN_SHAPE, Floats, RunSteps, StepTimes, step_times

TOLERANCE = 0.1
"""Relative difference in step time at equal shapes from which a run is named."""
NO_STEPS = "no training steps are recorded"
NO_LENGTH_IN_COMMON = "no length in common with a baseline at equal batch size, hardware, ranks and precision"
_PASSES = 100
_SMALLEST_RESIDUAL = 1e-6  # log seconds: below it the absolute value is smoothed


class OddRun(NamedTuple):
    """A run whose step time at equal shapes differs from the other runs'."""

    run_id: str
    ratio: float
    """Its step time over theirs: 1.5 is 50% slower."""


class TimedPair(NamedTuple):
    """A curriculum run and its baseline, and the tokens at which each reached a target."""

    seed: int
    run_id: str
    tokens: float
    baseline_run_id: str
    baseline_tokens: float


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """Seconds per step of each shape, and the clean seconds of each run."""

    times: StepTimes
    log_seconds: Floats
    """Log seconds per step of each shape of `times`, NaN where no run measured it."""
    effects: Mapping[str, float]
    """Log of how much slower than the clock each run was, by run_id; 0 in the median over runs that share shapes."""
    groups: Mapping[str, int]
    """run_id -> number of its group: runs connected by shapes in common. Between groups effects are not separable."""
    _curves: dict[str, tuple[Floats, Floats]] = dataclasses.field(default_factory=dict, repr=False)
    """Computed so far: (tokens, clean seconds) of a run_id, from 0."""
    _without: dict[int, Clock] = dataclasses.field(default_factory=dict, repr=False)
    """Computed so far: the clock without a seed."""

    def seconds_at(self, run_id: str, tokens: npt.ArrayLike) -> Floats:
        """Clean seconds after `tokens` of training (any shape); NaN for a run without a clock.

        Within a step, and beyond the last one, seconds are linear in tokens.
        """
        at = np.asarray(tokens, dtype=float)
        if run_id not in self.effects:
            return np.full(at.shape, np.nan)
        if run_id not in self._curves:
            run = next(r for r in self.times.runs if r.run_id == run_id)
            self._curves[run_id] = np.append(0.0, run.tokens), np.append(0.0, np.cumsum(self._durations(run)))
        x, y = self._curves[run_id]
        pace = (y[-1] - y[-2]) / (x[-1] - x[-2])
        result: Floats = np.interp(at, x, y) + np.maximum(at - x[-1], 0) * pace
        return result

    def _durations(self, run: RunSteps) -> Floats:
        """Clean seconds of each row; a row without a clock has its own seconds, freed of the run's effect."""
        own = run.seconds * math.exp(-self.effects[run.run_id])
        known = run.shapes != UNKNOWN_SHAPE
        pooled = np.full(len(own), np.nan)
        pooled[known] = run.steps[known] * np.exp(self.log_seconds[run.shapes[known]])
        return np.where(np.isnan(pooled), own, pooled)

    def clean(self, run_id: str, curve: Curve) -> Curve:
        """A run's evaluations with clean seconds; the curve itself for a run without a clock."""
        return curve._replace(seconds=self.seconds_at(run_id, curve.tokens)) if run_id in self.effects else curve

    def refusal(self, run_id: str, baseline_run_id: str) -> str:
        """Why the clean seconds of two runs cannot be compared; empty if they can.

        A curriculum run that shares shapes with no baseline, directly or through other runs, has an effect that cannot
        be told from its shapes'.
        """
        if run_id not in self.groups or baseline_run_id not in self.groups:
            return NO_STEPS
        anchored = {self.groups[r.run_id] for r in self.times.runs if r.is_baseline and r.run_id in self.groups}
        return "" if self.groups[run_id] in anchored else NO_LENGTH_IN_COMMON

    def without(self, seed: int) -> Clock:
        """The clock of all runs but those of one seed."""
        if seed not in self._without:
            others = tuple(run for run in self.times.runs if run.seed != seed)
            self._without[seed] = fit(StepTimes(self.times.shapes, others))
        return self._without[seed]

    def odd_runs(self) -> tuple[OddRun, ...]:
        """Runs whose step time at equal shapes is more than TOLERANCE away from the others', the farthest first.

        Of two runs that share shapes with no other run, the slower one.
        """
        members: dict[int, list[str]] = {}
        for run_id, group in self.groups.items():
            members.setdefault(group, []).append(run_id)
        result = []
        for names in members.values():
            values = [self.effects[name] for name in names]
            usual = min(values) if len(values) == 2 else float(np.median(values))
            result += [OddRun(name, math.exp(v - usual)) for name, v in zip(names, values, strict=True)]
        odd = [r for r in result if abs(r.ratio - 1) > TOLERANCE]
        return tuple(sorted(odd, key=lambda r: -abs(math.log(r.ratio))))


def clock_of(runs: Runs) -> Clock:
    """The clock of a sweep's runs; runs without training steps have none."""
    return fit(step_times(runs))


def fit(times: StepTimes) -> Clock:
    """The two-way fit of shape and run effects, in each group of runs that are connected by shapes in common."""
    log_seconds = np.full(len(times.shapes), np.nan)
    effects: dict[str, float] = {}
    groups: dict[str, int] = {}
    for number, runs in enumerate(_connected(times)):
        shapes = np.unique(np.concatenate([run.measured.shapes for run in runs]))
        y, weight = np.zeros((2, len(runs), len(shapes)))
        for i, run in enumerate(runs):
            at = np.searchsorted(shapes, run.measured.shapes)
            y[i, at], weight[i, at] = np.log(run.measured.seconds), np.sqrt(run.measured.steps)
        log_seconds[shapes], run_effects = two_way(y, weight)
        effects |= {run.run_id: float(e) for run, e in zip(runs, run_effects, strict=True)}
        groups |= {run.run_id: number for run in runs}
    return Clock(times, log_seconds, effects, groups)


def _connected(times: StepTimes) -> list[list[RunSteps]]:
    """The runs that measured a shape, grouped by shapes in common, directly or through other runs."""
    runs = [run for run in times.runs if len(run.measured.shapes)]
    if not runs:
        return []
    at = np.concatenate([np.full(len(run.measured.shapes), i) for i, run in enumerate(runs)])
    shapes = len(runs) + np.concatenate([run.measured.shapes for run in runs])
    nodes = len(runs) + len(times.shapes)
    edges = coo_array((np.ones(len(at)), (at, shapes)), shape=(nodes, nodes))
    labels = connected_components(edges, directed=False)[1][: len(runs)]
    return [[run for run, own in zip(runs, labels, strict=True) if own == label] for label in np.unique(labels)]


def two_way(y: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """(shape effects (m,), run effects (r,)) with the least weighted sum of |y - shape - run|; median run effect 0.

    `y` (r, m): log seconds per step; `weight` (r, m): 0 where a run has no step of a shape. Every run must be connected
    to every other by shapes in common. Least absolute deviations by reweighted least squares (P. Holland and R. Welsch,
    Communications in Statistics A6, 1977), solved for all effects at once: alternating medians (Tukey's median polish)
    stop short where a run has many shapes of its own, and lay a slow machine on those.
    """
    w = weight
    shape, run = np.zeros(y.shape[1]), np.zeros(len(y))
    for _ in range(_PASSES):
        before = shape
        share = w / w.sum(axis=0)
        # Shapes eliminated: (diag(sum_m w) - w share^T) run = sum_m w (y - mean of y at the shape); run 0 fixed at 0.
        system = np.diag(w.sum(axis=1)) - w @ share.T
        right = (w * (y - (share * y).sum(axis=0))).sum(axis=1)
        run = np.append(0.0, np.linalg.solve(system[1:, 1:], right[1:]))
        run = run - np.median(run)
        shape = (share * (y - run[:, None])).sum(axis=0)
        if np.abs(shape - before).max() < 1e-9:
            break
        residual = np.abs(y - shape - run[:, None])
        w = weight / np.maximum(residual, _SMALLEST_RESIDUAL)
    return shape, run


def time_saving(clock: Clock, pairs: Sequence[TimedPair]) -> Estimate:
    """The saving in clean seconds over seeds: point, delete-one-seed jackknife interval and p of no difference.

    The seeds share a clock, so their log ratios are not independent: the clock is fitted again without each seed (Efron
    and Stein, Annals of Statistics 9, 1981), and t has n - 1 degrees of freedom. Without a value if the pair list is
    empty, a tokens is NaN or a pair's clean seconds cannot be compared (`Clock.refusal`).
    """
    n = len(pairs)
    logs = [_log_ratio(clock, pair) for pair in pairs]
    arrived = sum(math.isfinite(v) for v in logs)
    if not n or arrived < n:
        return Estimate(arrived=arrived, n=n)
    mean = float(np.mean(logs))
    seeds = list(dict.fromkeys(pair.seed for pair in pairs))
    left_out = np.array([_mean_without(clock, pairs, seed) for seed in seeds] if len(seeds) > 1 else [])
    if len(left_out) < 2 or not np.isfinite(left_out).all():
        return Estimate(-math.expm1(mean), censored="", arrived=n, n=n)
    k = len(left_out)
    error = math.sqrt((k - 1) / k * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(special.stdtrit(k - 1, (1 + CONFIDENCE) / 2)) * error
    p_value = float(2 * special.stdtr(k - 1, -abs(mean / error))) if error > 1e-12 else None
    return Estimate(
        point=-math.expm1(mean),
        low=-math.expm1(mean + half),
        high=-math.expm1(mean - half),
        p_value=p_value,
        method="jackknife",
        censored="",
        arrived=n,
        n=n,
    )


def _mean_without(clock: Clock, pairs: Sequence[TimedPair], seed: int) -> float:
    other = clock.without(seed)
    return float(np.mean([_log_ratio(other, pair) for pair in pairs if pair.seed != seed]))


def _log_ratio(clock: Clock, pair: TimedPair) -> float:
    """Log ratio of clean seconds; NaN if the two cannot be compared."""
    if clock.refusal(pair.run_id, pair.baseline_run_id):
        return math.nan
    ours = float(clock.seconds_at(pair.run_id, pair.tokens))
    theirs = float(clock.seconds_at(pair.baseline_run_id, pair.baseline_tokens))
    return math.log(ours / theirs) if ours > 0 and theirs > 0 else math.nan


def notes(clock: Clock, runs: pd.DataFrame) -> tuple[str, ...]:
    """Sentences about the clock: runs that were slower or faster, and runs that keep their own seconds.

    `runs` has schema.RUN_COLUMNS.
    """
    result = []
    odd = clock.odd_runs()
    if odd:
        names = [f"{r.run_id} ({abs(r.ratio - 1):.0%} {'slower' if r.ratio > 1 else 'faster'})" for r in odd[:3]]
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        several = len(odd) > 1
        result.append(
            f"{len(odd)} run{'s differ' if several else ' differs'} by more than {TOLERANCE:.0%} in step time at equal "
            f"batch size, length and hardware: {', '.join(names)}{more}. The clock leaves these differences out; raw "
            "seconds contain them."
        )
    trained = runs[runs["train_seconds"] > 0]
    without = [str(r) for r in trained["run_id"] if str(r) not in clock.groups]
    if without:
        whose = "" if len(without) == len(trained) else f" of {len(without)} of {len(trained)} runs"
        result.append(f"No training steps{whose} are recorded: times are as recorded, slow machines included.")
    curricula = trained.loc[trained["role"] == "curriculum", "run_id"].astype(str)
    apart = [r for r in curricula if clock.refusal(r, r) == NO_LENGTH_IN_COMMON]
    if apart:
        more = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
        result.append(f"Times are as recorded, slow machines included: {apart[0]}{more} has {NO_LENGTH_IN_COMMON}.")
    return tuple(result)
