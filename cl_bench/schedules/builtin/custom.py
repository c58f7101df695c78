"""A schedule given as a function of the step, named by its dotted path."""

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
    """Progress of the scan for the first step at which the function returns the maximum."""

    next_step: int = 1
    last: int = 0
    peak: int | None = None


@register("custom")
@dataclasses.dataclass(frozen=True)
class Custom(LengthSchedule):
    """The function's length, until it has returned the maximum."""

    parameters = ("mode", "function", "function_args", "fingerprint")
    is_opaque = True
    max_difficulty: int
    path: str
    function: Callable[..., Any]
    function_args: str = "{}"
    """Keyword arguments as JSON, which is hashable whatever they are."""
    _progress: _Progress = dataclasses.field(default_factory=_Progress, compare=False, repr=False)

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """The curriculum unchanged, after a check that it names a function."""
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
        """The function's length, or the maximum if an earlier step had it."""
        # The scan resumes where the last call ended, so a training loop calls the function once per step.
        scan = self._progress
        while scan.peak is None and scan.next_step <= step:
            scan.last = self._call(scan.next_step)
            if scan.last >= self.max_difficulty:
                scan.peak = scan.next_step
            scan.next_step += 1
        if scan.peak is not None and step >= scan.peak:
            return self.max_difficulty
        return scan.last if step == scan.next_step - 1 else self._call(step)

    def _call(self, step: int) -> int:
        try:
            length = self.function(step, **json.loads(self.function_args))
        except ConfigError:
            raise
        except Exception as error:  # the user's code may raise anything
            problem = f"{type(error).__name__}: {error}"
            raise ConfigError(f"curriculum.function = {self.path}: at step {step} it raised {problem}") from error
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
