"""How sequence length and batch size grow over a run: validated before anything is planned."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import annotated_types as at
from pydantic.dataclasses import dataclass

from cl_bench.config.schema import STRICT, NonNegativeFloat, Positive, PositiveFloat

Schedule = Literal["baseline", "fixed_linear", "fixed_root", "fixed_discrete", "adaptive", "custom"]
RISING = ("fixed_linear", "fixed_root", "adaptive")
DurationUnit = Literal["steps", "tokens", "baseline_fraction"]


@dataclass(frozen=True, config=STRICT)
class CurriculumConfig:
    """How the sequence length (DeepSpeed's "difficulty") grows with the step. Formulas: cl_bench/pacing.py."""

    name: str
    """Label in tables and figures."""
    schedule: Schedule
    """baseline trains at max_difficulty throughout."""
    min_difficulty: Positive = 8
    """Sequence length of the first step, in tokens."""
    max_difficulty: Positive | None = None
    """Sequence length at the end, in tokens; null: max_seqlen."""
    difficulty_step: Positive = 8
    """Lengths are multiples of this many tokens."""
    duration: NonNegativeFloat | None = None
    """When fixed_linear and fixed_root reach max_difficulty, in duration_unit."""
    duration_unit: DurationUnit = "baseline_fraction"
    """steps; tokens consumed; or a fraction of the steps the baseline takes for the same token budget."""
    root_degree: PositiveFloat = 1.0
    """fixed_root: 1 is linear, 2 a square root (faster at first), below 1 slower at first."""
    difficulty: tuple[Positive | None, ...] = ()
    """fixed_discrete: the lengths, in order; null: max_difficulty."""
    max_step: tuple[PositiveFloat, ...] = ()
    """fixed_discrete: where each length but the last ends (inclusive), in duration_unit."""
    signal: Literal["val_loss", "adam_var_max"] = "val_loss"
    """adaptive: what is watched: evaluations, or the gradient variance's largest element."""
    threshold: PositiveFloat = 0.02
    """adaptive: relative improvement (val_loss) or change (adam_var_max) below which an observation is calm."""
    patience: Positive = 1
    """adaptive: calm observations in a row after which the length grows."""
    growth: Annotated[float, at.Gt(1)] = 2.0
    """adaptive: factor by which it grows."""
    function: str | None = None
    """custom: dotted path of a function (step, **function_args) -> length; step starts at 1."""
    function_args: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    """custom: keyword arguments of the function."""
    fingerprint: str | None = None
    """custom: SHA-256 of the lengths the function returned; filled in when the run is planned."""
    mode: Literal["truncate", "reshape"] = "truncate"
    """truncate: train on the first tokens of each sequence (the paper); reshape: cut each into shorter ones."""

    def __post_init__(self) -> None:
        where = f"curriculum = {self.name}"
        if self.max_difficulty is not None and self.min_difficulty > self.max_difficulty:
            raise ValueError(
                f"curriculum.min_difficulty = {self.min_difficulty} is above curriculum.max_difficulty = "
                f"{self.max_difficulty}; a curriculum grows from the smaller to the larger"
            )
        if self.schedule in ("fixed_linear", "fixed_root"):
            if self.duration is None:
                raise ValueError(f"{where}: {self.schedule} needs curriculum.duration (in {self.duration_unit})")
            if self.duration == 0:
                raise ValueError(f"{where}: curriculum.duration = 0 is no curriculum; use curriculum=baseline")
        if self.schedule == "fixed_discrete":
            if len(self.difficulty) < 2 or len(self.max_step) != len(self.difficulty) - 1:
                raise ValueError(
                    f"{where}: fixed_discrete needs n >= 2 lengths in curriculum.difficulty and n - 1 ends in "
                    f"curriculum.max_step; got {len(self.difficulty)} and {len(self.max_step)}"
                )
            if list(self.max_step) != sorted(set(self.max_step)):
                raise ValueError(f"{where}: curriculum.max_step = {list(self.max_step)} must increase")
        if self.schedule == "custom" and not self.function:
            raise ValueError(f"{where}: custom needs curriculum.function=package.module.function")

    def label(self) -> str:
        """The shape in words, without its name: '8→256 over 40%' (of the baseline's steps)."""
        top = self.max_difficulty or "full"

        def amount(value: float) -> str:
            if self.duration_unit == "baseline_fraction":
                return f"{value:.0%}"
            billions = self.duration_unit == "tokens" and value >= 1e9
            return f"{value / 1e9:,.4g}B tokens" if billions else f"{value:,.0f} {self.duration_unit}"

        reshape = ", reshape" if self.mode == "reshape" else ""
        if self.schedule == "baseline":
            return "full length" if self.max_difficulty is None else f"length {top}"
        if self.schedule == "fixed_discrete":
            return (
                "→".join(str(d or top) for d in self.difficulty)
                + " at "
                + ", ".join(map(amount, self.max_step))
                + reshape
            )
        if self.schedule == "custom":
            return f"{self.function}{reshape}"
        if self.schedule == "adaptive":
            return f"{self.min_difficulty}→{top}, x{self.growth:g} when {self.signal} settles{reshape}"
        root = f", root {self.root_degree:g}" if self.schedule == "fixed_root" else ""
        coarse = f", multiples of {self.difficulty_step}" if self.difficulty_step != 8 else ""
        return f"{self.min_difficulty}→{top} over {amount(self.duration or 0)}{root}{coarse}{reshape}"


@dataclass(frozen=True, config=STRICT)
class BatchWarmupConfig:
    """How the batch grows to global_batch_size. Formula: cl_bench/batch.py."""

    start: Positive | None = None
    """Sequences of the first step; null: the batch does not grow."""
    increment: Positive = 16
    """Sequences added each time; divides global_batch_size - start."""
    duration: PositiveFloat | None = None
    """When the full batch is reached, in duration_unit."""
    duration_unit: Literal["samples", "tokens", "steps"] = "samples"
    """Consumed samples (Megatron's --rampup-batch-size), consumed tokens, or steps."""

    def __post_init__(self) -> None:
        if self.start is None and self.duration is not None:
            raise ValueError("batch_warmup.start is null: a batch warmup needs the batch it starts from")
        if self.start is not None and self.duration is None:
            raise ValueError(f"batch_warmup.duration is null: the batch would stay at {self.start}; say when it ends")
