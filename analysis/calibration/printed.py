"""Calibration of the printed saving, the loss difference, unpaired arms, best against best and power, over WORLDS."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from analysis.calibration.worlds import WORLDS, Sweeps, World, exact, simulate, truth
from analysis.stats.best_vs_best import folds, widening
from analysis.stats.crossings import Floats
from analysis.stats.intervals import SIGNIFICANCE, Interval, holm, t_interval
from analysis.stats.level import level_log_ratio
from analysis.stats.power import power
from analysis.stats.smoothing import cleaned
from analysis.stats.unpaired import welch

SEEDS = (3, 5, 10)
SPREADS = (0.06, 0.14, 0.28)
SAVINGS = (0.1, 0.3, -0.2)


@dataclasses.dataclass(frozen=True)
class PrintedRow:
    """The printed saving in one world at one spread; each field after the world has one value per entry of SEEDS."""

    world: World
    covered: tuple[float, ...]
    """Share of sweeps whose interval contains the true saving, over SAVINGS."""
    significant: tuple[float, ...]
    """Share of four times as many sweeps with a significant difference although the arms are equal."""
    power: tuple[float, ...]
    """Share of sweeps in which a saving of 10% is significant."""
    sweeps: int


def log_ratios(sweeps: Sweeps) -> Floats:
    """The log ratio of every pair, shape (sweeps, seeds), as the report computes it."""
    return level_log_ratio(
        sweeps.tokens[0],
        cleaned(sweeps.tokens[0], sweeps.loss[0]),
        sweeps.tokens[1],
        cleaned(sweeps.tokens[1], sweeps.loss[1]),
    )


def true_log_ratio(sweeps: Sweeps) -> Floats:
    """The true mean log ratio of each sweep, shape (sweeps,)."""
    if exact(sweeps.world):
        return np.full(len(sweeps.law), math.log1p(-sweeps.saving))
    return truth(sweeps, lambda x, ours, theirs: level_log_ratio(x, ours, x, theirs)[:, None])[:, 0]


def printed_row(name: str, spread: float, sweeps: int, rng_seed: int = 11) -> PrintedRow:
    """One row; the first 3, 5 and 10 seeds of the same sweeps."""
    world = dataclasses.replace(WORLDS[name], spread=spread)
    rng = np.random.default_rng([rng_seed, list(WORLDS).index(name), round(1000 * spread)])
    covered, power_10 = [], []
    for saving in SAVINGS:
        made = simulate(world, saving, max(SEEDS), sweeps, rng)
        ratios, true = log_ratios(made), true_log_ratio(made)
        intervals = [t_interval(ratios[:, :n]) for n in SEEDS]
        covered.append([_share((i.low <= true) & (true <= i.high)) for i in intervals])
        if saving == SAVINGS[0]:
            power_10 = [_share(i.p_value < SIGNIFICANCE) for i in intervals]
    nothing = np.concatenate([log_ratios(simulate(world, 0.0, max(SEEDS), sweeps, rng)) for _ in range(4)])
    errors = [_share(t_interval(nothing[:, :n]).p_value < SIGNIFICANCE) for n in SEEDS]
    means = np.mean(covered, axis=0)
    return PrintedRow(world, tuple(map(float, means)), tuple(errors), tuple(power_10), sweeps)


def _share(values: npt.NDArray[np.bool_]) -> float:
    return float(values.mean())


def family_error(name: str, spread: float, families: int, cells: int = 12, rng_seed: int = 12) -> tuple[float, ...]:
    """Share of sweeps of `cells` cells without any saving in which a cell is significant by Holm; one per SEEDS."""
    world = dataclasses.replace(WORLDS[name], spread=spread)
    rng = np.random.default_rng([rng_seed, list(WORLDS).index(name), round(1000 * spread)])
    wrong = np.zeros(len(SEEDS))
    for _ in range(0, families, 100):  # a hundred at a time: memory
        ratios = log_ratios(simulate(world, 0.0, max(SEEDS), 100 * cells, rng))
        for i, n in enumerate(SEEDS):
            p = t_interval(ratios[:, :n]).p_value.reshape(100, cells)
            wrong[i] += sum(min(holm(row.tolist())) < SIGNIFICANCE for row in p)
    return tuple(float(w) for w in wrong / (100 * math.ceil(families / 100)))


@dataclasses.dataclass(frozen=True)
class LossRow:
    """The loss difference in one world, one value per entry of SEEDS."""

    world: World
    covered: tuple[float, ...]
    """At a true saving of 30%."""
    significant: tuple[float, ...]
    """Where there is no difference."""


def loss_row(name: str, sweeps: int, rng_seed: int = 13) -> LossRow:
    """Difference of the last evaluations at equal tokens, spread 0.14."""
    world = dataclasses.replace(WORLDS[name], spread=0.14)
    rng = np.random.default_rng([rng_seed, list(WORLDS).index(name)])
    saved, nothing = (simulate(world, saving, max(SEEDS), sweeps, rng) for saving in (0.3, 0.0))
    true = truth(saved, lambda x, ours, theirs: (ours - theirs)[:, [-1]])[:, 0]
    ends = [made.loss[0][..., -1] - made.loss[1][..., -1] for made in (saved, nothing)]
    intervals = [t_interval(ends[0][:, :n]) for n in SEEDS]
    return LossRow(
        world,
        tuple(_share((i.low <= true) & (true <= i.high)) for i in intervals),
        tuple(_share(t_interval(ends[1][:, :n]).p_value < SIGNIFICANCE) for n in SEEDS),
    )


def welch_errors(ours: int, theirs: int, draws: int, rng_seed: int = 14) -> tuple[float, ...]:
    """Share of null cases that are significant with the first arm's spread 1, 3 and 1/3 times the second's."""
    rng = np.random.default_rng([rng_seed, ours, theirs])
    return tuple(
        _share(welch(rng.normal(0, ratio, (draws, ours)), rng.normal(0, 1, (draws, theirs))).p_value < SIGNIFICANCE)
        for ratio in (1.0, 3.0, 1 / 3)
    )


def best_errors(curricula: int, baselines: int, seeds: int, draws: int, rng_seed: int = 15) -> float:
    """Share of sweeps of equal cells in which best against best is significant, final losses normal."""
    rng = np.random.default_rng([rng_seed, curricula, baselines, seeds])
    c, b = (rng.normal(0, 1, (draws, cells, seeds)) for cells in (curricula, baselines))
    rows, values = np.arange(draws), np.empty((draws, seeds))
    for measured, choosing in folds(range(seeds)):
        ours, theirs = (losses[:, :, choosing].mean(-1).argmin(-1) for losses in (c, b))
        values[:, measured] = c[rows, ours][:, measured] - b[rows, theirs][:, measured]
    return _share(t_interval(values, widening(seeds)).p_value < SIGNIFICANCE)


@dataclasses.dataclass(frozen=True)
class PowerRow:
    """A true saving of 20% in one cell among `cells` that save nothing."""

    sd: float
    seeds: int
    cells: int
    predicted: float
    """By the noncentral t at 5% / cells."""
    simulated: float
    """Share of sweeps in which Holm's method finds the cell."""


def power_row(sd: float, seeds: int, cells: int, sweeps: int, rng_seed: int = 16) -> PowerRow:
    """One row, log ratios normal."""
    rng = np.random.default_rng([rng_seed, seeds, cells])
    ratios = rng.normal(0, sd, (sweeps, cells, seeds))
    ratios[:, 0] += math.log(0.8)
    interval: Interval = t_interval(ratios)
    found = sum(_first(row) and mean < 0 for row, mean in zip(interval.p_value, interval.mean[:, 0], strict=True))
    return PowerRow(sd, seeds, cells, power(math.log(0.8), sd, seeds, SIGNIFICANCE / cells), float(found) / sweeps)


def _first(p_values: Sequence[float] | Floats) -> bool:
    return holm(list(p_values))[0] < SIGNIFICANCE
