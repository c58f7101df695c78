"""DeepSpeed's linear and root schedules.

Formula: deepspeed/runtime/data_pipeline/curriculum_scheduler.py, __fixed_root_get_difficulty.
"""

from __future__ import annotations

import dataclasses
import math

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import durations
from cl_bench.schedules.length import LengthSchedule, register


@register("fixed_root")
@dataclasses.dataclass(frozen=True)
class FixedRoot(LengthSchedule):
    """The length grows with a root of the step: floor((t/T)^(1/r) (max - min) + min), rounded down to a multiple."""

    parameters = ("mode", "min_difficulty", "difficulty_step", "duration", "root_degree")
    min_difficulty: int
    max_difficulty: int
    difficulty_step: int
    total_curriculum_step: int
    """T: the step at which max_difficulty is reached."""
    root_degree: float = 1.0

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """The curriculum with its duration in steps."""
        cur = config.curriculum
        durations.check_start(config)
        if cur.duration is None:
            raise ConfigError(
                f"curriculum = {cur.name}: {cur.schedule} needs curriculum.duration (in {cur.duration_unit})"
            )
        if cur.duration == 0:
            raise ConfigError(
                f"curriculum = {cur.name}: curriculum.duration = 0 leaves no curriculum; use curriculum=baseline"
            )
        # The mean length of a root schedule over t in (0, T] is min + (max - min) r/(r+1): half way for r = 1.
        degree = cls._degree(cur)
        mean = cur.min_difficulty + (config.max_difficulty - cur.min_difficulty) * degree / (degree + 1)
        steps = durations.in_steps(config, cur.duration, mean)
        if steps < 1:
            raise ConfigError(
                f"curriculum.duration = {cur.duration:g} {cur.duration_unit} is less than one step of this run "
                f"(batch {config.global_batch_size}, {config.baseline_steps} baseline steps); lengthen it"
            )
        return dataclasses.replace(cur, duration=float(steps), duration_unit="steps", root_degree=degree)

    @classmethod
    def build(cls, config: RunConfig) -> FixedRoot:
        """The run's schedule."""
        cur = config.curriculum
        steps = int(cur.duration or 0)
        return cls(cur.min_difficulty, config.max_difficulty, cur.difficulty_step, steps, cls._degree(cur))

    @classmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        """'8→256 over 40%' of the baseline's steps."""
        degree, step = cls._degree(curriculum), curriculum.difficulty_step
        root = f", root {degree:g}" if degree != 1 or cls is FixedRoot else ""
        coarse = f", multiples of {step}" if step != 8 else ""
        duration = durations.label(curriculum, curriculum.duration or 0)
        return f"{curriculum.min_difficulty}→{curriculum.max_difficulty or 'full'} over {duration}{root}{coarse}"

    @classmethod
    def _degree(cls, curriculum: CurriculumConfig) -> float:
        return curriculum.root_degree

    def at(self, step: int, consumed_tokens: int) -> int:
        """The formula's length, but at least the first multiple of difficulty_step from min_difficulty on."""
        low, high, multiple = self.min_difficulty, self.max_difficulty, self.difficulty_step
        try:
            share: float = (step / self.total_curriculum_step) ** (1.0 / self.root_degree)
        except OverflowError:  # a small degree, far past the end
            return high
        length = math.floor(share * (high - low) + low)
        length -= length % multiple
        return min(max(length, durations.first_multiple(low, multiple)), high)


@register("fixed_linear")
class FixedLinear(FixedRoot):
    """A root schedule of degree 1."""

    @classmethod
    def _degree(cls, curriculum: CurriculumConfig) -> float:
        return 1.0
