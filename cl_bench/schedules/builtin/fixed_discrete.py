"""DeepSpeed's discrete schedule: a list of lengths, and the step at which each but the last ends."""

from __future__ import annotations

import bisect
import dataclasses

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import durations
from cl_bench.schedules.length import LengthSchedule, register


@register("fixed_discrete")
@dataclasses.dataclass(frozen=True)
class FixedDiscrete(LengthSchedule):
    """Stages of constant length."""

    parameters = ("mode", "difficulty", "max_step")
    max_difficulty: int
    difficulty: tuple[int, ...]
    max_step: tuple[int, ...]
    """Last step of each stage but the last."""

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """The curriculum with lengths in tokens and ends in steps."""
        cur = config.curriculum
        _check(config)
        lengths = tuple(d or config.max_difficulty for d in cur.difficulty)
        ends: list[int] = []
        start, in_tokens = 0.0, cur.duration_unit == "tokens"
        for length, end in zip(lengths, cur.max_step, strict=False):
            # Token boundaries add up stage by stage: a stage's steps hold that stage's tokens.
            before = ends[-1] if ends and in_tokens else 0
            ends.append(before + durations.in_steps(config, end - start if in_tokens else end, length))
            start = end
        if ends[0] < 1 or ends != sorted(set(ends)):
            raise ConfigError(
                f"curriculum.max_step = {list(cur.max_step)} {cur.duration_unit} leaves a stage without a step "
                f"(ends at steps {ends}); lengthen the stages"
            )
        max_step = tuple(float(end) for end in ends)
        return dataclasses.replace(cur, difficulty=lengths, max_step=max_step, duration_unit="steps")

    @classmethod
    def build(cls, config: RunConfig) -> FixedDiscrete:
        """The run's schedule."""
        cur = config.curriculum
        lengths = tuple(d or config.max_difficulty for d in cur.difficulty)
        return cls(config.max_difficulty, lengths, tuple(int(s) for s in cur.max_step))

    @classmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        """'16→32→full at 20%, 40%' of the baseline's steps."""
        lengths = "→".join(str(d or curriculum.max_difficulty or "full") for d in curriculum.difficulty)
        return f"{lengths} at " + ", ".join(durations.label(curriculum, end) for end in curriculum.max_step)

    def at(self, step: int, consumed_tokens: int) -> int:
        """The stage's length; the maximum from the first stage that has it."""
        stage = bisect.bisect_left(self.max_step, step)
        has_peaked = max(self.difficulty[: stage + 1]) >= self.max_difficulty
        return self.max_difficulty if has_peaked else self.difficulty[stage]


def _check(config: RunConfig) -> None:
    cur, where = config.curriculum, f"curriculum = {config.curriculum.name}"
    if len(cur.difficulty) < 2 or len(cur.max_step) != len(cur.difficulty) - 1:
        raise ConfigError(
            f"{where}: fixed_discrete needs n >= 2 lengths in curriculum.difficulty and n - 1 ends in "
            f"curriculum.max_step; got {len(cur.difficulty)} and {len(cur.max_step)}"
        )
    if list(cur.max_step) != sorted(set(cur.max_step)):
        raise ConfigError(f"{where}: curriculum.max_step = {list(cur.max_step)} must increase")
    durations.check_length(config, "difficulty", max(d or 0 for d in cur.difficulty))
