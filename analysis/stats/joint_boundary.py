"""Stability over batch size and learning rate together: how far each method stays stable, in multiples of a reference.

The claim of arXiv 2108.06084 is joint ("8x batch and 4x learning rate stay stable where the baseline diverges"), and a
grid that moves both together has no line along either axis to read it from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import pandas as pd
from scipy import stats

Place = tuple[int, float]
"""Batch size and learning rate."""


@dataclasses.dataclass(frozen=True)
class PlaceStability:
    """The runs of one method at one batch size and learning rate."""

    global_batch_size: int
    lr: float
    batch_multiple: float
    """Batch size over the reference cell's."""
    lr_multiple: float
    """Learning rate over the reference cell's."""
    stable: int
    unstable: int
    undecided: int

    @property
    def seeds(self) -> int:
        """All runs here."""
        return self.stable + self.unstable + self.undecided

    @property
    def at(self) -> Place:
        """Batch size and learning rate."""
        return self.global_batch_size, self.lr

    @property
    def all_stable(self) -> bool:
        """Whether every seed was stable."""
        return self.stable == self.seeds > 0


@dataclasses.dataclass(frozen=True)
class MethodStability:
    """One method over all places of the grid, beside the baseline."""

    role: str
    curriculum: str
    variant: str
    places: tuple[PlaceStability, ...]
    """In order of batch size and learning rate."""
    largest: PlaceStability | None
    """The place stable on all seeds with the largest product of multiples, the larger batch winning a tie; None if
    none is stable."""
    baseline_there: PlaceStability | None
    """The baseline at `largest`; None if it was not trained there."""
    contrast: PlaceStability | None
    """The largest place stable on all seeds at which a seed of the baseline was unstable; None without one."""
    baseline_at_contrast: PlaceStability | None
    """The baseline at `contrast`."""
    only_method_stable: int
    """Pairs of equal batch, learning rate and seed in which the baseline was unstable and this method was not."""
    only_baseline_stable: int
    """The reverse."""
    p_value: float | None
    """Exact McNemar test of the two counts (binomial, two-sided); None without discordant pairs."""


@dataclasses.dataclass(frozen=True)
class JointBoundary:
    """Stability of all methods of one setting over batch size and learning rate."""

    setting: str
    reference: Place
    """The baseline's cell of the smallest batch size and, there, the smallest learning rate."""
    methods: tuple[MethodStability, ...]
    """The baseline first."""


def joint_boundaries(runs: pd.DataFrame, unstable: Mapping[str, bool | None]) -> list[JointBoundary]:
    """One answer per setting that has a baseline (columns of Runs.runs); `unstable` is None where undecided."""
    table = runs.assign(
        unstable=pd.Series([unstable[str(r)] for r in runs["run_id"]], runs.index, dtype=object),
        variant=runs["variant"].fillna("").astype(str),
    )
    return [
        made
        for setting, group in table.groupby("setting", sort=False)
        if (made := _of_setting(str(setting), group)) is not None
    ]


def _of_setting(setting: str, table: pd.DataFrame) -> JointBoundary | None:
    baseline = table[table["role"] == "baseline"]
    if baseline.empty:
        return None
    first = baseline.sort_values(["global_batch_size", "lr"]).iloc[0]
    reference = int(first["global_batch_size"]), float(first["lr"])
    lines = sorted(
        table.groupby(["role", "curriculum", "variant"], sort=False),
        key=lambda line: cast(tuple[str, str, str], line[0])[0] != "baseline",
    )
    base_places = {p.at: p for p in _places(baseline, reference)}
    methods = []
    for key, rows in lines:
        role, curriculum, variant = (str(part) for part in cast(tuple[str, str, str], key))
        places = _places(rows, reference)
        largest, there = _largest(places, base_places)
        failed = {at: p for at, p in base_places.items() if p.unstable}
        contrast, baseline_at_contrast = _largest([p for p in places if p.at in failed], failed)
        wins, losses = _discordant(rows, baseline) if role != "baseline" else (0, 0)
        p_value = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None
        line = (role, curriculum, variant, places, largest, there, contrast, baseline_at_contrast)
        methods.append(MethodStability(*line, wins, losses, p_value))
    return JointBoundary(setting, reference, tuple(methods))


def _largest(
    places: Sequence[PlaceStability], baseline: Mapping[Place, PlaceStability]
) -> tuple[PlaceStability | None, PlaceStability | None]:
    """The largest place that is stable on all seeds, and the baseline there."""
    largest = max(
        (p for p in places if p.all_stable),
        key=lambda p: (round(p.batch_multiple * p.lr_multiple, 9), p.batch_multiple),
        default=None,
    )
    return largest, baseline.get(largest.at) if largest else None


def _places(rows: pd.DataFrame, reference: Place) -> tuple[PlaceStability, ...]:
    places = []
    for key, cell in rows.groupby(["global_batch_size", "lr"]):
        batch, lr = cast(Place, key)
        states = cell["unstable"].tolist()
        counts = (sum(s is value for s in states) for value in (False, True, None))
        places.append(PlaceStability(int(batch), float(lr), batch / reference[0], lr / reference[1], *counts))
    return tuple(places)


def _discordant(ours: pd.DataFrame, baseline: pd.DataFrame) -> tuple[int, int]:
    """Pairs of equal batch, learning rate and seed in which only our run, and only the baseline's, was stable."""
    keys = ["global_batch_size", "lr", "seed"]
    pairs = ours[[*keys, "unstable"]].merge(baseline[[*keys, "unstable"]], on=keys, suffixes=("", "_baseline"))
    both = [
        (bool(a), bool(b))
        for a, b in zip(pairs["unstable"], pairs["unstable_baseline"], strict=True)
        if a is not None and b is not None and a == a and b == b
    ]
    return sum(b and not a for a, b in both), sum(a and not b for a, b in both)
