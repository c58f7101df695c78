"""Synthetic worlds: many sweeps at once, with a known saving, under different laws of loss, spread and noise.

Arrays: S sweeps, n seeds, two arms (curriculum, baseline), E evaluations. Tokens are shares of the budget (1 is all of
it), losses nats a token. A world's truth is exact where runs differ in pace only (then the log ratio of tokens is the
same at every target); elsewhere it is the mean over many noise-free seeds of the same law, read off a dense grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import signal

from analysis.stats.crossings import Floats


@dataclasses.dataclass(frozen=True)
class World:
    """One way in which sweeps come about."""

    name: str
    law: Literal["power", "generator", "cosine"] = "power"
    """power: E + R (x + x0)^-alpha, alpha in 0.1..0.6; generator: that of calibration.simulate; cosine: power, and a
    cosine's fall of 0.1..0.4 nats at the end, tied to tokens (the same for both arms whatever their pace)."""
    spread: float = 0.06
    """Sd of the log ratio curriculum / baseline of a seed's pair."""
    shared: float = 0.0
    """Sd of the log pace (and a fifth of it in nats of the level) that both runs of a seed share."""
    level_share: float = 0.0
    """Share of the pair's variance that comes from the level of the loss, not from pace (truth by Monte Carlo)."""
    noise: tuple[float, float] = (0.003, 0.003)
    """Sd of an evaluation (nats), curriculum and baseline."""
    phi: float = 0.7
    """Autocorrelation of an arm's neighbouring evaluations (at 40 a budget; rescaled on other grids)."""
    evals: tuple[int, int] = (40, 40)
    plateau: bool = False
    """A stall of 8-16% of a run's tokens in which it makes a tenth of the progress, at 30-75% of the (own) way."""
    spikes: float = 0.0
    """Mean number of loss spikes a run (height 0.05-0.6 nats, fading over about 2.5% of the budget)."""
    drift: float = 0.0
    """The curriculum's exponent is (1 + U(-drift, drift)) times the baseline's: the saving depends on the target."""
    laws: int = 50
    """Different laws among the sweeps."""


@dataclasses.dataclass(frozen=True)
class Laws:
    """K random laws; each field has shape (K,)."""

    floor: Floats
    reducible: Floats
    alpha: Floats
    alpha_c: Floats
    fall: Floats
    stall_at: Floats
    stall_for: Floats


def draw_laws(world: World, k: int, rng: np.random.Generator) -> Laws:
    """`k` random laws of a world."""
    alpha = rng.uniform(0.1, 0.6, k)
    return Laws(
        rng.uniform(1.5, 3.0, k),
        rng.uniform(0.3, 1.2, k),
        alpha,
        alpha * (1 + rng.uniform(-world.drift, world.drift, k)),
        rng.uniform(0.1, 0.4, k) if world.law == "cosine" else np.zeros(k),
        rng.uniform(0.3, 0.75, k),
        rng.uniform(0.08, 0.16, k) if world.plateau else np.zeros(k),
    )


def _progress(own: Floats, at: Floats, width: Floats) -> Floats:
    """Tokens of progress after `own` tokens: in the stall only a tenth of them count."""
    lost = 0.9 * np.clip(own - at, 0, width)
    return own - lost


def true_loss(world: World, laws: Laws, x: Floats, log_pace: Floats, arm: int) -> Floats:
    """Noise-free loss after share x of the budget of runs whose tokens to any loss are exp(log_pace) times the law's.

    Shapes broadcast: laws' fields are given as (..., 1) by the caller.
    """
    own = x / np.exp(log_pace)
    loss: Floats
    if world.law == "generator":
        share = np.maximum(own, 1e-9)
        loss = 2.2 + 0.55 * (share + 2e-3) ** -0.3 - 0.125 * (1 - np.cos(np.pi * np.minimum(share, 1)))
        return loss
    alpha = laws.alpha_c if arm == 0 else laws.alpha
    if world.plateau:
        own = _progress(own, laws.stall_at, laws.stall_for)
    x0 = (8.0 / laws.reducible) ** (-1 / alpha)
    loss = laws.floor + laws.reducible * (own + x0) ** -alpha
    loss = loss - laws.fall * 0.5 * (1 - np.cos(np.pi * np.minimum(x, 1)))
    return loss


def _slope(world: World, laws: Laws) -> Floats:
    """-dL/dlog x at 80% of the budget: turns a spread in log tokens into one in nats."""
    if world.law == "generator":
        return np.full_like(laws.alpha, 0.35)
    slope: Floats = laws.reducible * laws.alpha * 0.8**-laws.alpha
    return slope


def _runs(
    world: World, laws: Laws, shape: tuple[int, ...], saving: float, rng: np.random.Generator
) -> tuple[list[Floats], list[Floats]]:
    """log pace and level of both arms, each `shape`; laws' fields have shape (shape[0], 1)."""
    own = world.spread / np.sqrt(2)
    pace_part, level_part = np.sqrt(1 - world.level_share), np.sqrt(world.level_share)
    shared = rng.normal(0, 1, shape)
    paces, levels = [], []
    for arm in (0, 1):
        step = np.log1p(-saving) if arm == 0 else 0.0
        paces.append(step + world.shared * shared + rng.normal(0, own * pace_part, shape))
        levels.append(0.2 * world.shared * shared + rng.normal(0, 1, shape) * own * level_part * _slope(world, laws))
    return paces, levels


def _take(laws: Laws, index: npt.NDArray[np.intp], ndim: int) -> Laws:
    tail = (1,) * ndim
    return Laws(*(getattr(laws, f.name)[index].reshape(-1, *tail) for f in dataclasses.fields(laws)))


def ar1(shape: tuple[int, ...], phi: float, rng: np.random.Generator) -> Floats:
    """Stationary AR(1) noise of variance 1 along the last axis."""
    fresh = rng.normal(0, 1, shape)
    fresh[..., 1:] *= np.sqrt(1 - phi**2)
    noise: Floats = signal.lfilter([1.0], [1.0, -phi], fresh)
    return noise


@dataclasses.dataclass(frozen=True)
class Sweeps:
    """tokens[arm]: (E_arm,), loss[arm]: (S, n, E_arm), law: (S,) index into `laws`."""

    tokens: tuple[Floats, Floats]
    loss: tuple[Floats, Floats]
    law: npt.NDArray[np.intp]
    laws: Laws
    world: World
    saving: float


def simulate(world: World, saving: float, seeds: int, sweeps: int, rng: np.random.Generator) -> Sweeps:
    """Curves of `sweeps` sweeps of one cell each; evaluations at equal steps of tokens, the first after 1/E."""
    laws = draw_laws(world, world.laws, rng)
    law = np.arange(sweeps) % world.laws
    paces, levels = _runs(world, _take(laws, law, 1), (sweeps, seeds), saving, rng)
    of_sweep = _take(laws, law, 2)
    tokens, losses = [], []
    for arm in (0, 1):
        x: Floats = np.arange(1, world.evals[arm] + 1) / world.evals[arm]
        loss = true_loss(world, of_sweep, x, paces[arm][..., None], arm) + levels[arm][..., None]
        phi = world.phi ** (40 / world.evals[arm])
        loss = loss + world.noise[arm] * ar1(loss.shape, phi, rng)
        if world.spikes:
            loss += _spikes(x, loss.shape, world.spikes, rng)
        tokens.append(x)
        losses.append(loss)
    return Sweeps((tokens[0], tokens[1]), (losses[0], losses[1]), law, laws, world, saving)


def _spikes(x: Floats, shape: tuple[int, ...], mean: float, rng: np.random.Generator) -> Floats:
    bumps = np.zeros(shape)
    for _ in range(4):  # up to four a run, each there with a quarter of the mean
        at = rng.uniform(0.05, 1.0, (*shape[:2], 1))
        height = np.exp(rng.uniform(np.log(0.05), np.log(0.6), (*shape[:2], 1)))
        there = rng.random((*shape[:2], 1)) < mean / 4
        bumps += there * height * (x >= at) * np.exp(-np.maximum(x - at, 0) / 0.025)
    return bumps


def exact(world: World) -> bool:
    """Whether the log ratio is log(1 - saving) at every target."""
    return world.level_share == 0 and world.law != "cosine" and world.drift == 0


def truth(
    s: Sweeps, functional: Callable[[Floats, Floats, Floats], Floats], pairs: int = 1000, seed: int = 99
) -> Floats:
    """(S, m): the mean of `functional(x, curriculum, baseline)` over noise-free seeds of each sweep's law.

    `functional` gets x (points,) and losses (pairs, points) and gives (pairs, m): m estimands at once.
    """
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.geomspace(0.004, 0.2, 100, endpoint=False), np.linspace(0.2, 1, 400)])
    means = []
    for k in range(s.world.laws):
        one = _take(s.laws, np.array([k]), 1)
        paces, levels = _runs(s.world, one, (1, pairs), s.saving, rng)
        curves = [
            true_loss(s.world, one, x, p[0][:, None], arm) + lv[0][:, None]
            for arm, (p, lv) in enumerate(zip(paces, levels, strict=True))
        ]
        means.append(functional(x, curves[0], curves[1]).mean(axis=0))
    return np.array(means)[s.law]


WORLDS: dict[str, World] = {
    w.name: w
    for w in (
        World("generator", law="generator"),
        World("power laws, shared seeds", shared=0.15),
        World("power laws, level and pace", level_share=0.5, shared=0.15),
        World("cosine tied to tokens", law="cosine", shared=0.1),
        World("plateaus and spikes", plateau=True, spikes=1.0, shared=0.1),
        World("curriculum's noise 4 times, white", noise=(0.012, 0.003), phi=0.0),
        World("80 and 20 evaluations, noise 4 times", evals=(80, 20), noise=(0.012, 0.003)),
    )
}
