"""A schedule given as a function of the step, by its dotted path."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from typing import Any

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules.length import LengthSchedule, register


@dataclasses.dataclass
class _Progress:
    """How far the function has been evaluated, and the first step at which it returned the maximum."""

    next_step: int = 1
    last: int = 0
    peak: int | None = None


@register("custom")
@dataclasses.dataclass(frozen=True)
class Custom(LengthSchedule):
    """The length that a function returns, until it has returned the maximum."""

    parameters = ("mode", "function", "function_args", "fingerprint")
    is_opaque = True
    max_difficulty: int
    path: str
    function: Callable[..., Any]
    function_args: str = "{}"
    """Keyword arguments as JSON, which hashes whatever they are."""
    _progress: _Progress = dataclasses.field(default_factory=_Progress, compare=False, repr=False)

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """Checked: a function is named."""
        if not config.curriculum.function:
            raise ConfigError(
                f"curriculum = {config.curriculum.name}: custom needs curriculum.function=package.module.function"
            )
        return config.curriculum

    @classmethod
    def build(cls, config: RunConfig) -> Custom:
        """The run's schedule. Raises ConfigError if the function cannot be imported."""
        path = config.curriculum.function or ""
        arguments = json.dumps(config.curriculum.function_args, sort_keys=True)
        return cls(config.max_difficulty, path, load(path), arguments)

    @classmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        """The function's path."""
        return str(curriculum.function)

    def at(self, step: int, consumed_tokens: int) -> int:
        """The function's length, or the maximum once an earlier step had it."""
        # The scan for the maximum goes on where the last call ended, so a training loop calls the function once a step.
        seen = self._progress
        while seen.peak is None and seen.next_step <= step:
            seen.last = self._call(seen.next_step)
            if seen.last >= self.max_difficulty:
                seen.peak = seen.next_step
            seen.next_step += 1
        if seen.peak is not None and step >= seen.peak:
            return self.max_difficulty
        return seen.last if step == seen.next_step - 1 else self._call(step)

    def _call(self, step: int) -> int:
        try:
            length = self.function(step, **json.loads(self.function_args))
        except ConfigError:
            raise
        except Exception as error:  # a user's code: whatever it raises, say where
            raised = f"{type(error).__name__}: {error}"
            raise ConfigError(f"curriculum.function = {self.path}: at step {step} it raised {raised}") from error
        if not isinstance(length, int) or not 1 <= length <= self.max_difficulty:
            raise ConfigError(
                f"curriculum.function = {self.path}: returned {length!r} at step {step}; it must return an int "
                f"from 1 to max_difficulty = {self.max_difficulty}"
            )
        return length


def load(dotted: str) -> Callable[..., Any]:
    """The function behind 'package.module.function'. Raises ConfigError naming what is missing."""
    module, _, name = dotted.rpartition(".")
    if not module:
        raise ConfigError(f"curriculum.function = {dotted!r}: write it as package.module.function")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"curriculum.function = {dotted}: {error}; is it on PYTHONPATH?") from None
    except AttributeError:
        raise ConfigError(f"curriculum.function = {dotted}: module {module} has no {name!r}") from None
    if not callable(function):
        raise ConfigError(f"curriculum.function = {dotted}: {name!r} is not a function")
    return function
