"""The protocol of sequence-length schedules, and the registry that builds one from a run's configuration.

To add a built-in schedule, write a module in schedules/builtin that registers a subclass of LengthSchedule, its preset
in conf/curriculum, and its test; no other file names it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Self, TypeVar

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.errors import did_you_mean

State = dict[str, int | float | None]


class LengthSchedule(abc.ABC):
    """Sequence length of every step of a run, in tokens (DeepSpeed's "difficulty").

    Equal schedules compare equal and hash alike: plans of many runs share one walk over the token budget.
    """

    parameters: ClassVar[tuple[str, ...]]
    """Fields of CurriculumConfig that the schedule reads; the others are set to their defaults in a run's identity.
    Parameters without a field of their own go into `function_args`."""
    is_fixed: ClassVar[bool] = True
    """Whether all lengths are known before training."""
    is_opaque: ClassVar[bool] = False
    """Whether the configuration does not determine the lengths, so that the run's identity needs their fingerprint."""
    max_difficulty: int
    """Length at the end; once reached, the length stays there, as in DeepSpeed."""

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """The run's curriculum with its durations in steps. Raises ConfigError for unusable parameters."""
        return config.curriculum

    @classmethod
    @abc.abstractmethod
    def build(cls, config: RunConfig) -> Self:
        """The schedule of a run whose curriculum is resolved."""

    @classmethod
    @abc.abstractmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        """The schedule's parameters in a few words, for tables: '8→256 over 40%'."""

    @abc.abstractmethod
    def at(self, step: int, consumed_tokens: int) -> int:
        """Length of step `step` (from 1), given the tokens consumed before it."""

    # A schedule that follows the training also overrides these.

    def observe(self, signal: str, value: float | None) -> None:
        """Observe a measurement: the validation loss (val_loss) or the gradient variance (adam_var_max)."""
        return

    def state(self) -> State:
        """State needed to resume; saved with every checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, int | float | None]) -> None:
        """Restore a saved state."""
        return

    def planned(self) -> LengthSchedule:
        """The schedule to plan with; if it follows the training, its fastest possible course."""
        return self


_T = TypeVar("_T", bound=type[LengthSchedule])
_REGISTRY: dict[str, type[LengthSchedule]] = {}


def register(name: str) -> Callable[[_T], _T]:
    """Make a class the schedule that `curriculum.schedule = name` selects."""

    def decorate(cls: _T) -> _T:
        _REGISTRY[name] = cls
        return cls

    return decorate


def names() -> list[str]:
    """Names of all schedules."""
    return sorted(_REGISTRY)


def find(name: str) -> type[LengthSchedule]:
    """The schedule registered as `name`. Raises ConfigError listing the valid names."""
    if name not in _REGISTRY:
        raise ConfigError(f"curriculum.schedule = {name!r}: unknown schedule; {did_you_mean(name, _REGISTRY)}")
    return _REGISTRY[name]


def resolve(config: RunConfig) -> CurriculumConfig:
    """The run's curriculum with durations in steps, and with defaults in the fields that its schedule does not read.

    Raises ConfigError for parameters that the schedule cannot use.
    """
    schedule = find(config.curriculum.schedule)
    curriculum = schedule.resolve(config)
    return CurriculumConfig(
        name=curriculum.name,
        schedule=curriculum.schedule,
        max_difficulty=config.max_difficulty,
        duration_unit="steps",
        **{field: getattr(curriculum, field) for field in schedule.parameters},
    )


def build(config: RunConfig) -> LengthSchedule:
    """The sequence-length schedule of a run."""
    resolved = dataclasses.replace(config, curriculum=resolve(config))
    return find(config.curriculum.schedule).build(resolved)


def describe(config: RunConfig) -> str:
    """How length and batch grow, in a few words."""
    curriculum, warmup = config.curriculum, config.batch_warmup
    text = find(curriculum.schedule).describe(curriculum)
    if curriculum.mode == "reshape" and not curriculum.is_baseline:
        text += ", reshape"
    if warmup.start is None:
        return text
    grows = f"batch {warmup.start}→{config.global_batch_size} over {warmup.duration:,.0f} {warmup.duration_unit}"
    return grows if curriculum.is_baseline else f"{text}, {grows}"
