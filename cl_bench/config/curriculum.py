"""Configuration of how sequence length and batch size grow over a run."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import annotated_types as at
from pydantic.dataclasses import dataclass

from cl_bench.config.schema import STRICT, NonNegativeFloat, Positive, PositiveFloat

DurationUnit = Literal["steps", "tokens", "baseline_fraction"]


@dataclass(frozen=True, config=STRICT)
class CurriculumConfig:
    """How the sequence length (DeepSpeed's "difficulty") grows. Formulas and checks: cl_bench/schedules/builtin."""

    name: str
    """Label in tables and figures."""
    schedule: str
    """A schedule registered in cl_bench.schedules, which checks its parameters; baseline trains at the full length."""
    min_difficulty: Positive = 8
    """Sequence length of the first step, in tokens."""
    max_difficulty: Positive | None = None
    """Sequence length at the end, in tokens; null: max_seqlen."""
    difficulty_step: Positive = 8
    """Lengths are multiples of this many tokens."""
    duration: NonNegativeFloat | None = None
    """fixed_linear, fixed_root: end of the curriculum, where max_difficulty is reached, in duration_unit."""
    duration_unit: DurationUnit = "baseline_fraction"
    """steps; tokens consumed; or a fraction of the steps the baseline takes for the same token budget."""
    root_degree: PositiveFloat = 1.0
    """fixed_root: 1 is linear, 2 a square root (faster at first), below 1 slower at first."""
    difficulty: tuple[Positive | None, ...] = ()
    """fixed_discrete: the lengths, in order; null: max_difficulty."""
    max_step: tuple[PositiveFloat, ...] = ()
    """fixed_discrete: end (inclusive) of each length but the last, in duration_unit."""
    signal: Literal["val_loss", "adam_var_max"] = "val_loss"
    """adaptive: the measurement it follows: validation loss, or the gradient variance's largest element."""
    threshold: PositiveFloat = 0.02
    """adaptive: relative improvement (val_loss) or change (adam_var_max) below which an observation is calm."""
    patience: Positive = 1
    """adaptive: consecutive calm observations after which the length grows."""
    growth: Annotated[float, at.Gt(1)] = 2.0
    """adaptive: growth factor of the length."""
    function: str | None = None
    """custom: dotted path of a function (step, **function_args) -> length; step starts at 1."""
    function_args: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    """custom: keyword arguments of the function; any other schedule: parameters that have no key of their own."""
    fingerprint: str | None = None
    """custom: SHA-256 of the lengths the function returned; filled in when the run is planned."""
    mode: Literal["truncate", "reshape"] = "truncate"
    """truncate: train on the first tokens of each sequence (the paper); reshape: cut each into shorter ones."""

    @property
    def is_baseline(self) -> bool:
        """Whether the length is the full one from the first step."""
        return self.schedule == "baseline"


@dataclass(frozen=True, config=STRICT)
class BatchWarmupConfig:
    """How the batch grows to global_batch_size. Formula: cl_bench/schedules/batch_size.py."""

    start: Positive | None = None
    """Sequences of the first step; null: the batch does not grow."""
    increment: Positive = 16
    """Sequences added per increment; divides global_batch_size - start."""
    duration: PositiveFloat | None = None
    """End of the warmup, in duration_unit."""
    duration_unit: Literal["samples", "tokens", "steps"] = "samples"
    """Consumed samples (Megatron's --rampup-batch-size), consumed tokens, or steps."""

    def __post_init__(self) -> None:
        if self.start is None and self.duration is not None:
            raise ValueError("batch_warmup.start is null: a batch warmup needs a start batch; set it")
        if self.start is not None and self.duration is None:
            raise ValueError(f"batch_warmup.duration is null: the batch would stay at {self.start}; set it")
