"""Configuration of `cl-bench tune`: what it searches, and its criterion."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import annotated_types as at
from pydantic.dataclasses import dataclass

from cl_bench.config import schema as config_schema
from cl_bench.config.schema import STRICT, NonNegative, Positive

DEFAULT_STARTS = (8, 16, 32, 64)


@dataclass(frozen=True, config=STRICT)
class TuneConfig:
    """A search for the shortest start length and then the longest T that keep the validation perplexity steady."""

    name: str = "tuned"
    """Folder of the search below outputs/tune, and name of the resulting curriculum."""
    starts: tuple[int, ...] = ()
    """Start lengths to try, in tokens, shortest first; empty: those of 8, 16, 32, 64 that fit the run."""
    low: int | None = None
    """Shortest T to consider, in steps; null: the resolution."""
    high: int | None = None
    """Longest T to consider, in steps; null: the steps of a full-length run of the same token budget."""
    resolution: int | None = None
    """T is a multiple of this number of steps; null: a twentieth of `high`."""
    threshold: Annotated[float, at.Gt(1)] = 1.3
    """A probe fluctuates if its validation perplexity exceeds its best so far by this factor."""
    warmups: Annotated[float, at.Ge(1)] = 3
    """Length of a probe, in LR warmups of the run; the first of them is its beginning."""
    evaluations: Positive = 30
    """Evaluations of a probe, spread evenly over its tokens (more if the run's own interval is finer);
    fluctuations between two of them go unnoticed."""
    skip: NonNegative = 1
    """Evaluations ignored at the start, besides the one before training."""
    checks: NonNegative = 1
    """Probes after the search, each in the middle of the widest untested range of T: the search assumes that every T
    below a steady one is steady."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", self.name, re.ASCII):
            raise ValueError(f"tune.name = {self.name!r} names a folder and a preset; use letters, digits, _, - and .")
        for name in ("low", "high", "resolution"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"tune.{name} = {value}: a curriculum lasts at least one step; raise it "
                    "(no curriculum at all is curriculum=baseline, and needs no tuning)"
                )
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"tune.low = {self.low} is above tune.high = {self.high}; swap them")
        if list(self.starts) != sorted(set(self.starts)) or any(s < 1 for s in self.starts):
            raise ValueError(
                f"tune.starts = {list(self.starts)}: must be lengths above 0 that increase, as in [8,16,32]"
            )
        first = int(self.evaluations / self.warmups)
        if first <= self.skip:
            raise ValueError(
                f"tune.evaluations = {self.evaluations}: {first} of them fall within the first of {self.warmups:g} LR "
                f"warmups, and the first {self.skip} are ignored (tune.skip); raise it"
            )


@dataclass(frozen=True, config=STRICT)
class _Section:
    """Makes messages name the key as typed: tune.threshold, not threshold."""

    tune: TuneConfig


def from_dict(data: Mapping[str, Any]) -> TuneConfig:
    """Build a TuneConfig from plain values. Raises ConfigError, one line per mistake."""
    return config_schema.build(_Section, {"tune": dict(data) if isinstance(data, Mapping) else data}).tune


def field_names() -> list[str]:
    """Every key as it is typed."""
    return config_schema.field_names(_Section)


def schema() -> dict[str, Any]:
    """Every key with its default, for Hydra."""
    return config_schema.schema(_Section)
