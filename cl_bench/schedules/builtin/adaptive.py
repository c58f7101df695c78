"""Adaptive schedule: the length grows when the validation loss or the gradient variance has settled.

The rule uses only numbers that every rank has and every resume restores, so a run is as reproducible as with a
fixed schedule. An observation is an evaluation (signal val_loss) or a measurement of Adam's second moment (signal
adam_var_max, the gradient variance's largest element). It is calm if the relative improvement (val_loss)
or change (adam_var_max) since the previous one is below `threshold`. After `patience` consecutive calm observations the
length grows by the factor `growth`, and the count restarts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import durations
from cl_bench.schedules.length import LengthSchedule, State, register


@dataclasses.dataclass
class Pace:
    """The schedule's state, saved with every checkpoint."""

    length: int
    """Sequence length in tokens."""
    last: float | None = None
    """The last value of the signal at this length."""
    calm: int = 0
    """Consecutive calm observations."""


@register("adaptive")
@dataclasses.dataclass(unsafe_hash=True)
class Adaptive(LengthSchedule):
    """The rule and its state in one run; comparison and hash cover the rule's parameters only, which do not change."""

    parameters = ("mode", "min_difficulty", "difficulty_step", "signal", "threshold", "patience", "growth")
    is_fixed = False
    min_difficulty: int
    max_difficulty: int
    difficulty_step: int
    signal: str
    threshold: float
    patience: int
    growth: float
    eval_interval_tokens: int
    pace: Pace = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        first = durations.first_multiple(self.min_difficulty, self.difficulty_step)
        self.pace = Pace(min(first, self.max_difficulty))

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """The curriculum unchanged, after a check that it starts below its end and that its signal is measured."""
        durations.check_start(config)
        if config.curriculum.signal == "adam_var_max" and not config.telemetry.adam_variance_interval:
            raise ConfigError(
                "curriculum.signal = adam_var_max is never measured with telemetry.adam_variance_interval = 0, so the "
                "length would never grow; raise the interval, e.g. to 10, or set curriculum.signal=val_loss"
            )
        return config.curriculum

    @classmethod
    def build(cls, config: RunConfig) -> Adaptive:
        """The run's schedule at its first step."""
        cur = config.curriculum
        return cls(
            min_difficulty=cur.min_difficulty,
            max_difficulty=config.max_difficulty,
            difficulty_step=cur.difficulty_step,
            signal=cur.signal,
            threshold=cur.threshold,
            patience=cur.patience,
            growth=cur.growth,
            eval_interval_tokens=config.eval_interval_tokens,
        )

    @classmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        """'8→256, x2 when val_loss settles'."""
        lengths = f"{curriculum.min_difficulty}→{curriculum.max_difficulty or 'full'}"
        return f"{lengths}, x{curriculum.growth:g} when {curriculum.signal} settles"

    def at(self, step: int, consumed_tokens: int) -> int:
        """The current length."""
        return self.pace.length

    def observe(self, signal: str, value: float | None) -> None:
        """Observe a measurement; only the chosen signal counts."""
        pace = self.pace
        if signal != self.signal or value is None or not math.isfinite(value) or pace.length >= self.max_difficulty:
            return
        if pace.last is not None:
            change = (pace.last - value) / abs(pace.last) if pace.last else 0.0
            moved = change if signal == "val_loss" else abs(change)
            pace.calm = pace.calm + 1 if moved < self.threshold else 0
        pace.last = value
        if pace.calm >= self.patience:
            self.grow()

    def grow(self) -> None:
        """Advance the length: times `growth`, a multiple of difficulty_step, at most the full length."""
        length = self.pace.length
        grown = math.floor(length * self.growth / self.difficulty_step) * self.difficulty_step
        self.pace = Pace(min(self.max_difficulty, max(grown, length + self.difficulty_step)))

    def state(self) -> State:
        """The pace."""
        return dataclasses.asdict(self.pace)

    def load_state(self, state: Mapping[str, int | float | None]) -> None:
        """Restore a saved pace."""
        if state:
            self.pace = Pace(int(state["length"] or 0), state["last"], int(state["calm"] or 0))

    def planned(self) -> LengthSchedule:
        """The schedule of the fewest steps: the length grows at every observation."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        return _Fastest(**settings)


class _Fastest(Adaptive):
    """An adaptive schedule whose length grows at every observation. Steps must be queried in order."""

    _evaluations = 0

    def at(self, step: int, consumed_tokens: int) -> int:
        """The length of the next step."""
        evaluations = consumed_tokens // self.eval_interval_tokens
        is_observed = self.signal != "val_loss" or evaluations > self._evaluations
        if step > 1 and is_observed and self.pace.length < self.max_difficulty:
            self.grow()
        self._evaluations = evaluations
        return self.pace.length
