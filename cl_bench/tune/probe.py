"""Probes: beginnings of a run under the schedules of the whole run, and the judgement of their perplexity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from cl_bench import schedules
from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.config.tune import DEFAULT_STARTS, TuneConfig

_TUNABLE = ("fixed_linear", "fixed_root")
_DEFAULT_VALUES = 20


@dataclasses.dataclass(frozen=True)
class Space:
    """The values to search."""

    starts: tuple[int, ...]
    """Lengths in tokens, shortest first."""
    durations: tuple[int, ...]
    """Values of T in steps, shortest first."""


def space(run: RunConfig, tuning: TuneConfig) -> Space:
    """The start lengths and values of T to choose from. Raises ConfigError for a run that cannot be tuned."""
    cur = run.curriculum
    if cur.schedule not in ("baseline", *_TUNABLE):
        raise ConfigError(
            f"curriculum.schedule = {cur.schedule}: has no start length and T to search; choose "
            "curriculum=fixed_linear or fixed_root"
        )
    starts = tuning.starts or tuple(s for s in DEFAULT_STARTS if s < run.max_difficulty and not s % cur.difficulty_step)
    for start in starts:
        if start >= run.max_difficulty:
            raise ConfigError(
                f"tune.starts = {start} is not below the final length, {run.max_difficulty} tokens; leave it out"
            )
        if start % cur.difficulty_step:
            raise ConfigError(
                f"tune.starts = {start} is not a multiple of curriculum.difficulty_step = {cur.difficulty_step}; "
                "change one of them"
            )
    if not starts:
        raise ConfigError(
            f"tune.starts = []: none of 8, 16, 32, 64 is below the final length ({run.max_difficulty} tokens) and "
            f"a multiple of curriculum.difficulty_step = {cur.difficulty_step}; set some"
        )
    high = tuning.high or run.baseline_steps
    step = tuning.resolution or max(1, high // _DEFAULT_VALUES)
    low = tuning.low or step
    durations = tuple(range(-(-low // step) * step, high + 1, step))
    if not durations:
        raise ConfigError(
            f"tune.resolution = {step}: no multiple of it lies between T = {low} and {high} (tune.low, tune.high); "
            "lower it or widen them"
        )
    values = Space(starts, durations)
    _check_size(run, tuning, values)
    return values


def _check_size(run: RunConfig, tuning: TuneConfig, values: Space) -> None:
    """Raise ConfigError if a probe would be as long as the run, or too short to be judged."""
    longest = candidate(run, tuning, values.starts[-1], values.durations[0])  # in tokens; its steps are the largest
    tokens = _warmup_tokens(longest, tuning.warmups)
    if tokens >= run.token_budget:
        raise ConfigError(
            f"tune.warmups = {tuning.warmups:g}: a probe would consume {tokens:,} tokens, and the run itself ends at "
            f"{run.token_budget:,}; lower it, or shorten the LR warmup (optim.warmup_tokens, warmup_steps)"
        )
    first = dataclasses.replace(whole(longest), token_budget=max(1, beginning(longest)))
    steps = schedules.extent(first).steps
    if steps <= tuning.skip:
        raise ConfigError(
            f"tune.skip = {tuning.skip}: the LR warmup has {steps} steps with start {values.starts[-1]} and T "
            f"{values.durations[0]}, and as many evaluations at most; lower it, or lengthen the warmup"
        )


def candidate(run: RunConfig, tuning: TuneConfig, start: int, duration: int) -> RunConfig:
    """The whole run with a curriculum from `start` over `duration` steps; a baseline's becomes linear."""
    curriculum = dataclasses.replace(
        run.curriculum,
        name=tuning.name,
        schedule="fixed_linear" if run.curriculum.schedule == "baseline" else run.curriculum.schedule,
        min_difficulty=start,
        duration=float(duration),
        duration_unit="steps",
    )
    return dataclasses.replace(run, curriculum=curriculum)


def whole(run: RunConfig) -> RunConfig:
    """The run with explicit ends of its schedules, so that another token budget does not move them."""
    optim = dataclasses.replace(
        run.optim,
        decay_tokens=run.optim.decay_tokens or run.token_budget,
        decay_steps=schedules.decay_steps(run),
    )
    return dataclasses.replace(run, optim=optim)


def probe(run: RunConfig, tuning: TuneConfig, start: int, duration: int) -> RunConfig:
    """The first `warmups` LR warmups of a candidate: its lengths, learning rates and batches, step by step."""
    full = candidate(run, tuning, start, duration)
    tokens = _warmup_tokens(full, tuning.warmups)
    interval = max(1, tokens // tuning.evaluations)
    if run.evaluation.interval_tokens is not None:
        interval = min(interval, run.evaluation.interval_tokens)
    return dataclasses.replace(
        whole(full),
        token_budget=tokens,
        evaluation=dataclasses.replace(run.evaluation, interval_tokens=interval),
        cell=f"{tuning.name}: start {start}, T {duration}",
    )


def beginning(run: RunConfig) -> int:
    """Tokens of the first LR warmup of a candidate or its probe."""
    return _warmup_tokens(run, 1)


def _warmup_tokens(run: RunConfig, times: float) -> int:
    """Tokens consumed in `times` LR warmups."""
    optim = run.optim
    if optim.warmup_steps:
        return schedules.tokens_after(run, math.ceil(times * optim.warmup_steps))
    if optim.warmup_tokens:
        return math.ceil(times * optim.warmup_tokens)
    raise ConfigError(
        "optim.warmup_steps and optim.warmup_tokens are unset or 0, and probes are measured in LR warmups; set one"
    )


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Judgement of a probe's validation perplexity."""

    steady: bool
    begins_steady: bool
    worst_ratio: float
    """Largest perplexity over the best before it; inf if it was not finite."""
    worst_tokens: int
    """Consumed tokens at that evaluation."""
    diverged: bool

    def describe(self) -> str:
        """'steady, at most 1.05x its best', or the problem."""
        if self.diverged:
            return "diverged"
        if math.isinf(self.worst_ratio):
            return f"perplexity not finite at {self.worst_tokens:,} tokens"
        if self.steady:
            return f"steady, at most {self.worst_ratio:.3g}x its best"
        when = "later" if self.begins_steady else "at the beginning"
        return f"fluctuates {when}, {self.worst_ratio:.3g}x its best at {self.worst_tokens:,} tokens"


def judge(
    tokens: Sequence[int], ppl: Sequence[float], *, tuning: TuneConfig, beginning: int, diverged: bool
) -> Judgement:
    """Judge whether perplexity stayed within `threshold` times its best so far, throughout and at the beginning.

    The first evaluation, of the untrained model, and the next `skip` are not judged but count towards the best.
    """
    worst, worst_tokens = 0.0, 0
    steady = begins_steady = True
    best = math.inf
    for number, (at, value) in enumerate(zip(tokens, ppl, strict=True)):
        if number > tuning.skip or not math.isfinite(value):
            ratio = value / best if math.isfinite(value) else math.inf
            if ratio > worst:
                worst, worst_tokens = ratio, at
            if ratio > tuning.threshold:
                steady = False
                begins_steady = begins_steady and at > beginning
        best = min(best, value) if math.isfinite(value) else best
    if diverged:
        steady = False
        begins_steady = begins_steady and bool(tokens) and tokens[-1] > beginning
    return Judgement(steady, begins_steady, worst, worst_tokens, diverged)
