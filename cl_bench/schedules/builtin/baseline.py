"""The baseline: full length from the first step."""

from __future__ import annotations

import dataclasses

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.schedules.length import LengthSchedule, register


@register("baseline")
@dataclasses.dataclass(frozen=True)
class Baseline(LengthSchedule):
    """A constant length."""

    parameters = ()
    max_difficulty: int

    @classmethod
    def resolve(cls, config: RunConfig) -> CurriculumConfig:
        """The curriculum unchanged, after a check that its length is the full one."""
        if config.max_difficulty < config.seqlen:
            raise ConfigError(
                f"curriculum.max_difficulty = {config.max_difficulty}: the baseline trains at the full length "
                f"(max_seqlen = {config.seqlen}); shorten max_seqlen instead"
            )
        return config.curriculum

    @classmethod
    def build(cls, config: RunConfig) -> Baseline:
        """The run's full length."""
        return cls(config.max_difficulty)

    @classmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        """'full length', or the length in tokens."""
        return "full length" if curriculum.max_difficulty is None else f"length {curriculum.max_difficulty}"

    def at(self, step: int, consumed_tokens: int) -> int:
        """The full length."""
        return self.max_difficulty
