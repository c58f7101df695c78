"""Proof that the intervals are right: synthetic sweeps whose saving is known, through the code that reads real ones.

A run's loss is a power law of its tokens with the cosine schedule's last fall, a curriculum's the same curve at
tokens / (1 - saving). Runs differ as seeds make them: in pace and in level, part of it shared by the two runs of a
seed; evaluations add noise that is autocorrelated. `python -m analysis.calibrate` writes docs/statistics.md's tables.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from analysis.best import Cell, best_baseline, best_curriculum, measure
from analysis.curves import Curve
from analysis.intervals import Estimate, Pair, estimate, pair
from analysis.multiple import holm
from analysis.over_targets import at_targets
from analysis.targets import Floats, Method

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


@dataclasses.dataclass(frozen=True)
class Row:
    """What came out of many sweeps of one kind."""

    what: str
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
    # Every evaluation's noise: AR(1) with the stationary variance from the first one on.
    fresh = rng.normal(0, world.noise_sd, (seeds, 2, len(tokens)))
    phi = world.autocorrelation
    noise = fresh.copy()
    for i in range(1, len(tokens)):
        noise[:, :, i] = phi * noise[:, :, i - 1] + math.sqrt(1 - phi**2) * fresh[:, :, i]
    pace = np.exp(rng.normal(0, world.pace_sd, (seeds, 2)))
    level = rng.normal(0, world.level_sd, (seeds, 2)) + rng.normal(0, world.shared_sd, (seeds, 1))
    stretch = np.array([1 - saving, 1.0])
    seconds = tokens / 1e5
    pairs = []
    for s in range(seeds):
        both = [
            Curve(tokens, seconds, true_loss(tokens / (stretch[r] * pace[s, r])) + level[s, r] + noise[s, r])
            for r in (0, 1)
        ]
        pairs.append((both[0], both[1]))
    return pairs


def at_final(pairs: Sequence[tuple[Curve, Curve]], method: Method = "interpolate") -> Estimate:
    """The report's default: each seed at what its baseline finally reached."""
    return estimate([measure(ours, theirs, method)[0] for ours, theirs in pairs])


def at_given(pairs: Sequence[tuple[Curve, Curve]], target_loss: float, method: Method = "interpolate") -> Estimate:
    """All seeds at one target that was given beforehand."""
    found: list[Pair] = []
    for ours, theirs in pairs:
        a, b = ours.crossing(target_loss, method), theirs.crossing(target_loss, method)
        found.append(pair(a.tokens or math.nan, b.tokens or math.nan, a.tokens_bound, b.tokens_bound))
    return estimate(found)


def at_deepest(pairs: Sequence[tuple[Curve, Curve]], method: Method = "interpolate") -> Estimate:
    """All seeds at the deepest target that every run of the cell reached."""
    last = at_targets(pairs, method)[-1].loss
    return at_given(pairs, last, method)


Reading = Callable[[Sequence[tuple[Curve, Curve]]], Estimate]


def coverage(
    what: str, reading: Reading, saving: float, seeds: int, sweeps: int, world: World | None = None, rng_seed: int = 1
) -> Row:
    """How often the interval of a cell holds its true saving, and how often it is called a difference."""
    rng = np.random.default_rng([rng_seed, seeds])
    world = world or World()
    found = [reading(simulate(world, saving, seeds, rng)) for _ in range(sweeps)]
    given = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    covered = sum(low <= saving <= high for low, high in given)
    held = covered + sum(_bound_holds(e, saving) for e in found)
    called = sum(e.p_value is not None and e.p_value < 0.05 for e in found)
    share = covered / len(given) if given else None
    return Row(what, seeds, sweeps, len(given) / sweeps, share, held / sweeps, called / sweeps)


def _bound_holds(found: Estimate, saving: float) -> bool:
    if found.bound is None:
        return found.censored == "unbounded"  # says nothing
    if found.censored == "at_most":
        return saving <= (found.bound if found.high is None else found.high)
    return saving >= (found.bound if found.low is None else found.low)


def family(cells: int, seeds: int, sweeps: int, *, corrected: bool, rng_seed: int = 2) -> float:
    """Share of sweeps of `cells` cells without any saving in which at least one is called a difference."""
    rng = np.random.default_rng([rng_seed, seeds, cells])
    target = float(true_loss(np.array([0.8 * BUDGET]))[0])
    wrong = 0
    for _ in range(sweeps):
        found = [at_given(simulate(World(), 0.0, seeds, rng), target).p_value for _ in range(cells)]
        p = [math.nan if v is None else v for v in found]
        wrong += any(v < 0.05 for v in (holm(p) if corrected else p))
    return wrong / sweeps


def best_of_equals(seeds: int, sweeps: int, *, crossfitted: bool, rng_seed: int = 3) -> tuple[float, float]:
    """(mean saving, share called a saving) of best against best where 2 baselines and 8 curricula cells are equal.

    All curricula save 30%, so the true answer is 30%: what is above it is the luck of the choice. A call is an
    interval that lies wholly above 30%.
    """
    rng = np.random.default_rng([rng_seed, seeds])
    points, called = [], 0
    for _ in range(sweeps):
        curricula, baselines = {}, {}
        for i in range(8):
            pairs = simulate(World(), 0.3, seeds, rng)
            curricula[Cell("c", "", i, 1.0)] = {s: p[0] for s, p in enumerate(pairs)}
            if i < 2:
                baselines[Cell("b", "", i, 1.0)] = {s: p[1] for s, p in enumerate(pairs)}
        logs = []
        for seed in range(seeds):
            others = [s for s in range(seeds) if s != seed] if crossfitted else list(range(seeds))
            base = best_baseline(baselines, others)
            cl = best_curriculum(curricula, baselines[base], others, "interpolate")
            logs.append(measure(curricula[cl][seed], baselines[base][seed], "interpolate")[0])
        found = estimate(logs)
        points.append(found.point if found.point is not None else found.bound or 0.0)
        called += found.low is not None and found.low > 0.3
    return float(np.mean(points)), called / sweeps
