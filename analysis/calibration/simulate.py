"""Coverage of the intervals on synthetic sweeps with known savings, through the code that reads real ones.

A run's loss is a power law of its tokens with the final drop of a cosine schedule; a curriculum's is the same curve at
tokens / (1 - saving). Seeds differ in pace and in level, part of it shared by the two runs of a seed; evaluations add
autocorrelated noise. `make calibrate` writes the results into docs/statistics.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal

from analysis.schema import Cell
from analysis.stats.best_vs_best import GridRun, best_baseline, best_curriculum, crossfitted, folds, measure
from analysis.stats.censored import censored_estimate
from analysis.stats.crossings import Curve, Floats
from analysis.stats.intervals import SIGNIFICANCE, Estimate, Pair, estimate, holm, pair_of
from analysis.stats.level import SHARE, level_pair
from analysis.stats.over_targets import target_losses
from analysis.stats.pairs import Comparison, Printed, common_log_ratio
from analysis.stats.smoothing import clean_curves

BUDGET = 1e9
"""Tokens of a run."""


@dataclasses.dataclass(frozen=True)
class World:
    """Variation between the runs of a synthetic sweep, and their evaluations."""

    evaluations: int = 40
    pace_sd: float = 0.04
    """Of the log of a run's tokens to any loss, between seeds."""
    level_sd: float = 0.004
    """Of a run's loss (nats), between seeds."""
    shared_sd: float = 0.02
    """Of the loss that both runs of a seed share (nats)."""
    noise_sd: float = 0.003
    """Of an evaluation (nats): the scatter of the tiny model's curves on Shakespeare around a smooth line."""
    autocorrelation: float = 0.7
    """Of neighbouring evaluations' noise."""


USUAL = World()


@dataclasses.dataclass(frozen=True)
class Row:
    """Results of many sweeps of one kind."""

    reading: str
    """The target: a key of READINGS."""
    world: World
    saving: float
    """The true one."""
    seeds: int
    sweeps: int
    with_interval: float
    """Share of sweeps whose cell has an interval; in the others a run is censored, and there is a bound."""
    covered: float | None
    """Share of those intervals that contain the true saving."""
    held: float
    """Share of all sweeps whose interval or bound contains it."""
    significant: float
    """Share of all sweeps with a significant difference at 5%."""


def true_loss(tokens: Floats) -> Floats:
    """Nats per token after `tokens`: a power law, with the final drop of a cosine schedule."""
    share = np.maximum(tokens / BUDGET, 1e-9)
    fall = 0.25 * (1 - np.cos(np.pi * np.minimum(share, 1))) / 2
    loss: Floats = 2.2 + 0.55 * (share + 2e-3) ** -0.3 - fall
    return loss


def simulate(world: World, saving: float, seeds: int, rng: np.random.Generator) -> list[tuple[Curve, Curve]]:
    """(curriculum, baseline) of each seed."""
    tokens = np.linspace(0, BUDGET, world.evaluations + 1)
    phi = world.autocorrelation
    fresh = rng.normal(0, world.noise_sd, (seeds, 2, len(tokens)))
    fresh[:, :, 1:] *= math.sqrt(1 - phi**2)  # AR(1) with the same variance from the first evaluation on
    noise = signal.lfilter([1.0], [1.0, -phi], fresh)
    pace = np.exp(rng.normal(0, world.pace_sd, (seeds, 2, 1)))
    level = rng.normal(0, world.level_sd, (seeds, 2, 1)) + rng.normal(0, world.shared_sd, (seeds, 1, 1))
    stretch = np.array([1 - saving, 1.0])[:, None]
    loss = true_loss(tokens / (stretch * pace)) + level + noise
    seconds = tokens / 1e5
    return [(Curve(tokens, seconds, ours), Curve(tokens, seconds, theirs)) for ours, theirs in loss]


Pairs = Sequence[tuple[Curve, Curve]]


def at_final(pairs: Pairs) -> Estimate:
    """The report's default: each seed at its baseline's final loss."""
    return estimate([measure(ours, theirs, "interpolate")[0] for ours, theirs in pairs])


def at_final_by_likelihood(pairs: Pairs) -> Estimate:
    """As `at_final`; if seeds are bounds, with both ends of the interval by a censored likelihood."""
    return censored_estimate([measure(ours, theirs, "interpolate")[0] for ours, theirs in pairs])


def at_lowest_common(pairs: Pairs) -> Estimate:
    """The basis of the test of significance: each seed at the lowest common loss of its two runs."""
    return estimate([Pair.exact(common_log_ratio(ours, theirs, theirs.final, "interpolate")) for ours, theirs in pairs])


def at_given(pairs: Pairs, target_loss: float | None = None) -> Estimate:
    """All seeds at one target chosen beforehand; by default the true baseline's loss at 80% of its budget."""
    target = float(true_loss(np.array([0.8 * BUDGET]))[0]) if target_loss is None else target_loss
    crossings = [[curve.crossing(target, "interpolate") for curve in pair] for pair in pairs]
    return estimate([pair_of(ours, theirs) for ours, theirs in crossings])


def at_cell_lowest(pairs: Pairs) -> Estimate:
    """All seeds at the lowest loss that every run of the cell reached."""
    return at_given(pairs, float(target_losses(pairs)[-1]))


READINGS: dict[str, Callable[[Pairs], Estimate]] = {
    "the baseline's final loss": at_final,
    "the same, censored likelihood": at_final_by_likelihood,
    "a loss named beforehand": at_given,
    "the lowest loss of all runs": at_cell_lowest,
    "the lowest common loss of each seed": at_lowest_common,
}


def coverage(reading: str, saving: float, seeds: int, sweeps: int, world: World = USUAL, rng_seed: int = 1) -> Row:
    """How often the interval of a cell contains its true saving, and how often the difference is significant."""
    rng = np.random.default_rng([rng_seed, seeds])
    estimates = [READINGS[reading](simulate(world, saving, seeds, rng)) for _ in range(sweeps)]
    spans = [e.span for e in estimates if e.span]
    covered = sum(low <= saving <= high for low, high in spans)
    held = covered + sum(_bound_holds(e, saving) for e in estimates if not e.span)
    significant = sum(e.p_value is not None and e.p_value < SIGNIFICANCE for e in estimates)
    share = covered / len(spans) if spans else None
    return Row(reading, world, saving, seeds, sweeps, len(spans) / sweeps, share, held / sweeps, significant / sweeps)


def _bound_holds(estimate: Estimate, saving: float) -> bool:
    if estimate.bound is None:
        return False
    if estimate.censored == "at_most":
        return saving <= (estimate.bound if estimate.high is None else estimate.high)
    return saving >= (estimate.bound if estimate.low is None else estimate.low)


def family(cells: int, seeds: int, sweeps: int, rng_seed: int = 2) -> tuple[float, float]:
    """Share of sweeps of `cells` cells without savings in which any is significant: uncorrected, and by Holm."""
    rng = np.random.default_rng([rng_seed, seeds, cells])
    plain = corrected = 0
    for _ in range(sweeps):
        values = [at_lowest_common(simulate(USUAL, 0.0, seeds, rng)).p_value for _ in range(cells)]
        p = [1.0 if v is None else v for v in values]
        plain += any(v < SIGNIFICANCE for v in p)
        corrected += any(v < SIGNIFICANCE for v in holm(p))
    return plain / sweeps, corrected / sweeps


@dataclasses.dataclass(frozen=True)
class BestOfEquals:
    """Results of best against best on cells that are all equal."""

    seeds: int
    sweeps: int
    crossfitted: bool
    mean: float
    """Mean estimate; the truth is EQUAL_SAVING."""
    covered: float
    """Share of the sweeps' intervals that contain the truth."""


EQUAL_SAVING = 0.3


def best_of_equals(seeds: int, sweeps: int, *, apart: bool, rng_seed: int = 3) -> BestOfEquals:
    """Best against best among 2 baseline cells and 8 curriculum cells that all save EQUAL_SAVING.

    Any excess over it is the luck of the choice, made on the other seeds (`apart`) or on all of them.
    """
    rng = np.random.default_rng([rng_seed, seeds])
    points, covered = [], []
    for _ in range(sweeps):
        grid = [_cleaned(simulate(USUAL, EQUAL_SAVING, seeds, rng)) for _ in range(8)]
        curricula = {Cell("c", "", i, 1.0): {s: p[0] for s, p in enumerate(pairs)} for i, pairs in enumerate(grid)}
        baselines = {Cell("b", "", i, 1.0): {s: p[1] for s, p in enumerate(pairs)} for i, pairs in enumerate(grid[:2])}
        whole = list(range(seeds))
        measured = []
        for own, choosing in folds(whole) if apart else [(whole, whole)]:
            base = best_baseline(baselines, choosing)
            cl = best_curriculum(curricula, baselines[base], choosing, _read)
            measured += [_read(curricula[cl][s], baselines[base][s]).at_target.pair("token") for s in own]
        result = crossfitted(measured) if apart else estimate(measured)
        points.append(result.point if result.point is not None else result.bound or 0.0)
        if result.span:
            covered.append(result.span[0] <= EQUAL_SAVING <= result.span[1])
    return BestOfEquals(seeds, sweeps, apart, float(np.mean(points)), float(np.mean(covered)))


def _cleaned(pairs: Pairs) -> list[tuple[GridRun, GridRun]]:
    """The pairs with cleaned curves."""
    clean = clean_curves({f"{seed}{arm}": curve for seed, pair in enumerate(pairs) for arm, curve in enumerate(pair)})
    return [(GridRun({}, clean[f"{seed}0"]), GridRun({}, clean[f"{seed}1"])) for seed in range(len(pairs))]


def _read(ours: GridRun, theirs: GridRun) -> Printed:
    """The printed saving of a pair."""
    reading = level_pair(ours.curve, theirs.curve, SHARE * BUDGET)
    assert reading is not None
    comparison = Comparison("", *reading)
    return Printed(comparison, comparison, comparison.pair("token").log_ratio)
