"""Proof that the intervals are right: synthetic sweeps whose saving is known, through the code that reads real ones.

A run's loss is a power law of its tokens with the cosine schedule's last fall, a curriculum's the same curve at
tokens / (1 - saving). Runs differ as seeds make them: in pace and in level, part of it shared by the two runs of a
seed; evaluations add noise that is autocorrelated. `make calibrate` puts what comes out into docs/statistics.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal

from analysis.schema import Cell
from analysis.stats.best_vs_best import best_baseline, best_curriculum, crossfitted, measure
from analysis.stats.crossings import Curve, Floats
from analysis.stats.intervals import Estimate, Pair, estimate, holm, pair_of
from analysis.stats.over_targets import target_losses
from analysis.stats.pairs import common_log_ratio

BUDGET = 1e9
"""Tokens of a run."""


@dataclasses.dataclass(frozen=True)
class World:
    """How much the runs of a synthetic sweep differ, and how often they are looked at."""

    evaluations: int = 40
    pace_sd: float = 0.04
    """Of the log of a run's tokens to any loss, between seeds."""
    level_sd: float = 0.004
    """Of a run's loss (nats), between seeds."""
    shared_sd: float = 0.02
    """Of the loss that both runs of a seed share (nats)."""
    noise_sd: float = 0.003
    """Of an evaluation (nats): what the tiny model's curves on Shakespeare scatter around a smooth line."""
    autocorrelation: float = 0.7
    """Of neighbouring evaluations' noise."""


USUAL = World()
ROUGH = World(noise_sd=0.01, autocorrelation=0.9)
"""Evaluations that wander three times as far, and for longer."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What came out of many sweeps of one kind."""

    reading: str
    """Which target: a key of READINGS."""
    world: World
    saving: float
    """The true one."""
    seeds: int
    sweeps: int
    with_interval: float
    """Share of sweeps whose cell has an interval; in the others a run never arrived, and there is a bound."""
    covered: float | None
    """Of these, the share whose interval holds the true saving."""
    held: float
    """Share of all sweeps whose interval or bound holds it."""
    called: float
    """Share of all sweeps in which a difference was called at 5%."""


def true_loss(tokens: Floats) -> Floats:
    """Nats a token after so many tokens: a power law, and the fall that a cosine schedule brings at the end."""
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
    """The report's default: each seed at what its baseline finally reached."""
    return estimate([measure(ours, theirs, "interpolate")[0] for ours, theirs in pairs])


def at_both(pairs: Pairs) -> Estimate:
    """What differences are called on: each seed as far as both of its runs got."""
    return estimate([Pair.exact(common_log_ratio(ours, theirs, theirs.final, "interpolate")) for ours, theirs in pairs])


def at_given(pairs: Pairs, target_loss: float | None = None) -> Estimate:
    """All seeds at one target named beforehand; by default what the true baseline has reached at 80% of its budget."""
    target = float(true_loss(np.array([0.8 * BUDGET]))[0]) if target_loss is None else target_loss
    found: list[Pair] = []
    for ours, theirs in pairs:
        a, b = ours.crossing(target, "interpolate"), theirs.crossing(target, "interpolate")
        found.append(pair_of(a, b))
    return estimate(found)


def at_deepest(pairs: Pairs) -> Estimate:
    """All seeds at the deepest target that every run of the cell reached."""
    return at_given(pairs, float(target_losses(pairs)[-1]))


READINGS: dict[str, Callable[[Pairs], Estimate]] = {
    "the baseline's final loss": at_final,
    "a loss named beforehand": at_given,
    "the deepest common loss": at_deepest,
    "as far as both runs of a seed got": at_both,
}


def coverage(reading: str, saving: float, seeds: int, sweeps: int, world: World = USUAL, rng_seed: int = 1) -> Row:
    """How often the interval of a cell holds its true saving, and how often it is called a difference."""
    rng = np.random.default_rng([rng_seed, seeds])
    found = [READINGS[reading](simulate(world, saving, seeds, rng)) for _ in range(sweeps)]
    given = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    covered = sum(low <= saving <= high for low, high in given)
    held = covered + sum(_bound_holds(e, saving) for e in found)
    called = sum(e.p_value is not None and e.p_value < 0.05 for e in found)
    share = covered / len(given) if given else None
    return Row(reading, world, saving, seeds, sweeps, len(given) / sweeps, share, held / sweeps, called / sweeps)


def _bound_holds(found: Estimate, saving: float) -> bool:
    if found.bound is None:  # says nothing
        return False
    if found.censored == "at_most":
        return saving <= (found.bound if found.high is None else found.high)
    return saving >= (found.bound if found.low is None else found.low)


def family(cells: int, seeds: int, sweeps: int, rng_seed: int = 2) -> tuple[float, float]:
    """Share of sweeps of `cells` cells without any saving in which one or more is called: uncorrected, and by Holm."""
    rng = np.random.default_rng([rng_seed, seeds, cells])
    plain = corrected = 0
    for _ in range(sweeps):
        found = [at_both(simulate(USUAL, 0.0, seeds, rng)).p_value for _ in range(cells)]
        p = [1.0 if v is None else v for v in found]
        plain += any(v < 0.05 for v in p)
        corrected += any(v < 0.05 for v in holm(p))
    return plain / sweeps, corrected / sweeps


@dataclasses.dataclass(frozen=True)
class Champions:
    """What best against best made of cells that are all equal."""

    seeds: int
    sweeps: int
    crossfitted: bool
    mean: float
    """Mean saving found, where the truth is EQUAL_SAVING."""
    covered: float
    """Share of the sweeps' intervals that hold the truth."""


EQUAL_SAVING = 0.3


def best_of_equals(seeds: int, sweeps: int, *, apart: bool, rng_seed: int = 3) -> Champions:
    """Best against best among 2 baseline cells and 8 curriculum cells that all save EQUAL_SAVING.

    What is found above it is the luck of the choice: chosen on the other seeds (`apart`), or on all of them.
    """
    rng = np.random.default_rng([rng_seed, seeds])
    points, covered = [], []
    for _ in range(sweeps):
        made = [simulate(USUAL, EQUAL_SAVING, seeds, rng) for _ in range(8)]
        curricula = {Cell("c", "", i, 1.0): {s: p[0] for s, p in enumerate(pairs)} for i, pairs in enumerate(made)}
        baselines = {Cell("b", "", i, 1.0): {s: p[1] for s, p in enumerate(pairs)} for i, pairs in enumerate(made[:2])}
        logs = []
        for seed in range(seeds):
            others = [s for s in range(seeds) if s != seed] if apart else list(range(seeds))
            base = best_baseline(baselines, others)
            cl = best_curriculum(curricula, baselines[base], others, "interpolate")
            logs.append(measure(curricula[cl][seed], baselines[base][seed], "interpolate")[0])
        found = crossfitted(logs) if apart else estimate(logs)
        points.append(found.point if found.point is not None else found.bound or 0.0)
        if found.low is not None and found.high is not None:
            covered.append(found.low <= EQUAL_SAVING <= found.high)
    return Champions(seeds, sweeps, apart, float(np.mean(points)), float(np.mean(covered)))
