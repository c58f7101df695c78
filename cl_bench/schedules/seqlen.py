"""Pacing: step -> sequence length, and what follows from it: tokens per step, steps to a token budget.

Steps count from 1. The formulas are those of DeepSpeed's CurriculumScheduler (deepspeed/runtime/data_pipeline/
curriculum_scheduler.py): once max_difficulty is reached the length stays there, whatever the schedule says later.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import math
from collections.abc import Callable
from typing import Any

from cl_bench.config import CurriculumConfig, RunConfig, Schedule
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import adaptive, batch_size


@dataclasses.dataclass(frozen=True)
class Pacing:
    """A resolved schedule: every duration in steps. Build one with `of(config)`."""

    schedule: Schedule
    min_difficulty: int
    max_difficulty: int
    difficulty_step: int = 8
    total_curriculum_step: int = 0
    root_degree: float = 1.0
    difficulty: tuple[int, ...] = ()
    max_step: tuple[int, ...] = ()
    function: str | None = None
    function_args: str = "{}"
    """Keyword arguments as JSON, so that a Pacing can be hashed whatever they are."""

    def seqlen(self, step: int) -> int:
        """Length in tokens of step `step` (from 1). An adaptive schedule has none: see adaptive.py."""
        if self.schedule == "baseline":
            return self.max_difficulty
        if self.schedule in ("fixed_linear", "fixed_root"):
            return self._root(step)
        reached = _step_of_maximum(self, step)
        return self.max_difficulty if reached is not None and step >= reached else self._raw(step)

    def _root(self, step: int) -> int:
        # d = floor((t/T)^(1/r) (max - min) + min), rounded down to a multiple, but not below the first one >= min
        low, high, multiple = self.min_difficulty, self.max_difficulty, self.difficulty_step
        try:
            share: float = (step / self.total_curriculum_step) ** (1.0 / self.root_degree)
        except OverflowError:  # a small degree, far beyond the end
            return high
        length = math.floor(share * (high - low) + low)
        length -= length % multiple
        return min(max(length, -(-low // multiple) * multiple), high)

    def _raw(self, step: int) -> int:
        if self.schedule == "fixed_discrete":
            stage = next((i for i, last in enumerate(self.max_step) if step <= last), -1)
            return self.difficulty[stage]
        try:
            length = _load(self.function or "")(step, **json.loads(self.function_args))
        except ConfigError:
            raise
        except Exception as error:  # a user's code: whatever it raises, say where
            raised = f"{type(error).__name__}: {error}"
            raise ConfigError(f"curriculum.function = {self.function}: at step {step} it raised {raised}") from error
        if not isinstance(length, int) or not 1 <= length <= self.max_difficulty:
            raise ConfigError(
                f"curriculum.function = {self.function}: returned {length!r} at step {step}; it must return an int "
                f"from 1 to max_difficulty = {self.max_difficulty}"
            )
        return length


@functools.lru_cache(maxsize=256)
def _first_maximum(pacing: Pacing) -> list[int]:
    """[next step to look at, step where the maximum was first seen or 0], advanced by _step_of_maximum."""
    return [1, 0]


def _step_of_maximum(pacing: Pacing, step: int) -> int | None:
    """First step up to `step` at which a discrete or custom schedule reaches its maximum.

    The scan goes on where the last call ended, so a training loop pays one evaluation a step.
    """
    seen = _first_maximum(pacing)
    while not seen[1] and seen[0] <= step:
        if pacing._raw(seen[0]) >= pacing.max_difficulty:
            seen[1] = seen[0]
        seen[0] += 1
    return seen[1] if seen[1] and seen[1] <= step else None


@functools.lru_cache(maxsize=32)
def _load(dotted: str) -> Callable[..., Any]:
    """The function behind 'package.module.function'. Raises ConfigError naming what is missing."""
    module, _, name = dotted.rpartition(".")
    if not module:
        raise ConfigError(f"curriculum.function = {dotted!r}: write it as package.module.function")
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"curriculum.function = {dotted}: {error}; is it on PYTHONPATH?") from None
    except AttributeError:
        raise ConfigError(f"curriculum.function = {dotted}: module {module} has no {name!r}") from None
    if not callable(function):
        raise ConfigError(f"curriculum.function = {dotted}: {name!r} is not a function")
    return function  # type: ignore[no-any-return]


def of(config: RunConfig) -> Pacing:
    """The pacing of a run, its durations turned into steps."""
    cur = in_steps(config)
    return Pacing(
        schedule=cur.schedule,
        min_difficulty=cur.min_difficulty,
        max_difficulty=config.max_difficulty,
        difficulty_step=cur.difficulty_step,
        total_curriculum_step=int(cur.duration or 0),
        root_degree=cur.root_degree,
        difficulty=tuple(d or config.max_difficulty for d in cur.difficulty),
        max_step=tuple(int(s) for s in cur.max_step),
        function=cur.function,
        function_args=json.dumps(cur.function_args, sort_keys=True),
    )


def in_steps(config: RunConfig) -> CurriculumConfig:
    """The run's curriculum with durations in steps and fields that its schedule does not use at their defaults."""
    cur, top = config.curriculum, config.max_difficulty
    used: dict[str, Any] = {"name": cur.name, "schedule": cur.schedule, "max_difficulty": top}
    if cur.schedule != "baseline":
        used["mode"] = cur.mode
    if cur.schedule in ("fixed_linear", "fixed_root"):
        degree = cur.root_degree if cur.schedule == "fixed_root" else 1.0
        # The mean length of a root schedule over t in (0, T] is min + (max - min) r/(r+1): half way for r = 1.
        mean = cur.min_difficulty + (top - cur.min_difficulty) * degree / (degree + 1)
        steps = _steps(config, cur.duration or 0, mean)
        if steps < 1:
            raise ConfigError(
                f"curriculum.duration = {cur.duration:g} {cur.duration_unit} is less than one step of this run "
                f"(batch {config.global_batch_size}, {config.baseline_steps} baseline steps); lengthen it"
            )
        used |= {
            "min_difficulty": cur.min_difficulty,
            "difficulty_step": cur.difficulty_step,
            "duration": float(steps),
            "root_degree": degree,
        }
    if cur.schedule == "fixed_discrete":
        ends: list[int] = []
        start, in_tokens = 0.0, cur.duration_unit == "tokens"
        lengths = tuple(d or top for d in cur.difficulty)
        for length, end in zip(lengths, cur.max_step, strict=False):
            # Token boundaries add up stage by stage: a stage's steps hold that stage's tokens.
            before = ends[-1] if ends and in_tokens else 0
            ends.append(before + _steps(config, end - start if in_tokens else end, length))
            start = end
        if ends[0] < 1 or ends != sorted(set(ends)):
            raise ConfigError(
                f"curriculum.max_step = {list(cur.max_step)} {cur.duration_unit} leaves a stage without a step "
                f"(ends at steps {ends}); lengthen the stages"
            )
        used |= {"difficulty": lengths, "max_step": tuple(float(e) for e in ends)}
    if cur.schedule == "adaptive":
        names = ("min_difficulty", "difficulty_step", "signal", "threshold", "patience", "growth")
        used |= {name: getattr(cur, name) for name in names}
    if cur.schedule == "custom":
        used |= {"function": cur.function, "function_args": cur.function_args, "fingerprint": cur.fingerprint}
    return CurriculumConfig(duration_unit="steps", **used)


def _steps(config: RunConfig, amount: float, mean_length: float) -> int:
    """`amount` of curriculum.duration_unit in whole steps, where a step holds `mean_length` tokens a sequence."""
    unit = config.curriculum.duration_unit
    if unit == "steps":
        return int(amount)
    if unit == "baseline_fraction":
        return int(amount * config.baseline_steps)
    length = config.seqlen if config.curriculum.mode == "reshape" else mean_length
    return int(amount / (config.global_batch_size * length))


def tokens_per_step(config: RunConfig, seqlen: int, sequences: int) -> int:
    """Tokens that a step consumes: reshape drops none of its sequences' tokens, truncate keeps `seqlen` of each."""
    return sequences * (config.seqlen if config.curriculum.mode == "reshape" else seqlen)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How long a run is."""

    steps: int
    """Steps until consumed_tokens >= token_budget."""
    tokens: int
    """consumed_tokens after the last step."""
    lengths: tuple[tuple[int, int], ...]
    """(length, steps at that length), in the order of first use."""
    sequences: tuple[tuple[int, int], ...]
    """(length, sequences trained at that length), in the same order."""
    is_least: bool = False
    """Whether the run may take more steps: an adaptive one is planned as if it never had to wait."""
    last_batch: int = 0
    """Sequences of the last step."""


@functools.lru_cache(maxsize=4096)
def _extent(pacing: Pacing, sizes: batch_size.BatchSize, fixed: int, budget: int) -> Extent:
    """Walk the steps below the full length and batch, then close with one division.

    A sequence consumes `fixed` tokens, or its length where that is 0.
    """
    steps: dict[int, int] = {}
    sequences: dict[int, int] = {}
    step = samples = tokens = size = 0
    while tokens < budget:
        length = pacing.seqlen(step + 1)
        size = sizes.at(step + 1, samples, tokens)
        per_step = size * (fixed or length)
        settled = length >= pacing.max_difficulty and size == sizes.full
        n = -(-(budget - tokens) // per_step) if settled else 1
        steps[length] = steps.get(length, 0) + n
        sequences[length] = sequences.get(length, 0) + n * size
        step, samples, tokens = step + n, samples + n * size, tokens + n * per_step
    return Extent(step, tokens, tuple(steps.items()), tuple(sequences.items()), last_batch=size)


def extent(config: RunConfig) -> Extent:
    """Steps, tokens and lengths of a whole run; of an adaptive one the least it can take."""
    if config.curriculum.schedule == "adaptive":
        return _least(config)
    return _extent(of(config), batch_size.of(config), _fixed(config), config.token_budget)


def _least(config: RunConfig) -> Extent:
    """An adaptive run whose length grows as often as it is looked at, which evaluations allow."""
    rule, sizes = adaptive.Adaptive(config), batch_size.of(config)
    interval, length = config.eval_interval_tokens, adaptive.Adaptive(config).first().length
    steps: dict[int, int] = {}
    sequences: dict[int, int] = {}
    step = samples = tokens = size = 0
    while tokens < config.token_budget:
        step += 1
        size = sizes.at(step, samples, tokens)
        consumed = tokens_per_step(config, length, size)
        steps[length] = steps.get(length, 0) + 1
        sequences[length] = sequences.get(length, 0) + size
        looked = config.curriculum.signal != "val_loss" or (tokens + consumed) // interval > tokens // interval
        samples, tokens = samples + size, tokens + consumed
        length = rule.longer(length) if looked and length < rule.high else length
    return Extent(step, tokens, tuple(steps.items()), tuple(sequences.items()), is_least=True, last_batch=size)


def check_batch_warmup(config: RunConfig) -> None:
    """Raise ConfigError when the run is over before its batch warmup is."""
    last, warmup = extent(config).last_batch, config.batch_warmup
    if last < config.global_batch_size:
        raise ConfigError(
            f"batch_warmup.duration = {warmup.duration:g} {warmup.duration_unit}: the run ends at token_budget = "
            f"{config.token_budget:,} with a batch of {last}, and never reaches global_batch_size = "
            f"{config.global_batch_size}; shorten the warmup, or lengthen the run"
        )


def _fixed(config: RunConfig) -> int:
    return config.seqlen if config.curriculum.mode == "reshape" else 0


@functools.lru_cache(maxsize=4096)
def _tokens_after(pacing: Pacing, sizes: batch_size.BatchSize, fixed: int, steps: int) -> int:
    samples = tokens = 0
    for step in range(1, steps + 1):
        size = sizes.at(step, samples, tokens)
        samples, tokens = samples + size, tokens + size * (fixed or pacing.seqlen(step))
    return tokens


def tokens_after(config: RunConfig, steps: int) -> int:
    """consumed_tokens after the first `steps` steps."""
    return _tokens_after(of(config), batch_size.of(config), _fixed(config), steps)


def buckets(config: RunConfig) -> dict[int, int]:
    """Length -> length it is padded to, where deepspeed.length_buckets bounds how many reach the device.

    The distinct lengths are split into so many groups of equally many; each is padded to its group's longest.
    """
    most = config.deepspeed.length_buckets
    lengths = sorted({length for length, _ in extent(config).lengths} | {config.max_difficulty})
    if most is None or most >= len(lengths):
        return {length: length for length in lengths}
    last_of = [-(-(group + 1) * len(lengths) // most) - 1 for group in range(most)]
    ends = [lengths[i] for i in last_of]
    return {length: next(end for end in ends if end >= length) for length in lengths}


def tokens_on_device(config: RunConfig, seqlen: int, padded: int) -> int:
    """Tokens, padding included, that a block takes in a step of `seqlen` whose sequences are padded to `padded`."""
    pieces = -(-config.seqlen // seqlen) if config.curriculum.mode == "reshape" else 1
    return pieces * padded


def most_shapes(config: RunConfig) -> int:
    """Upper bound of the distinct (sequences, length) of a training run's forward passes."""
    padded, warmup = buckets(config), config.batch_warmup
    # Truncated blocks come in as many rows at every length of a bucket; reshaped ones in more rows the shorter it is.
    lengths = len(padded) if config.curriculum.mode == "reshape" else len(set(padded.values()))
    sizes = 1 if warmup.start is None else (config.global_batch_size - warmup.start) // warmup.increment + 1
    return lengths * sizes


def custom_fingerprint(config: RunConfig) -> str | None:
    """SHA-256 of the lengths of a custom schedule up to the token budget, None for the others.

    A function's name says nothing of what it does: with its body edited, the same name is another experiment.
    """
    if config.curriculum.schedule != "custom":
        return None
    pace, sizes = of(config), batch_size.of(config)
    tokens = samples = step = 0
    digest = hashlib.sha256()
    while tokens < config.token_budget:
        step += 1
        length = pace.seqlen(step)
        size = sizes.at(step, samples, tokens)
        samples, tokens = samples + size, tokens + tokens_per_step(config, length, size)
        digest.update(f"{length} ".encode())
    return digest.hexdigest()[:16]
