"""The key of the figures, which is also their filter: a check box with a sample of each line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd

from analysis import figures

_SVG_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}


@dataclass(frozen=True)
class Sample:
    """Look of a piece of line."""

    color: str = "currentColor"
    dash: str = "solid"
    width: float = 2.2
    opacity: float = 1.0

    @property
    def dashes(self) -> str:
        """The dash as SVG writes it."""
        return _SVG_DASHES[self.dash]


@dataclass(frozen=True)
class Box:
    """A check box: a value of the group's field, its sample, and a note beside it."""

    value: str
    sample: Sample | None
    note: str


@dataclass(frozen=True)
class Group:
    """The check boxes of one field."""

    words: str
    field: str
    boxes: Sequence[Box]


def key(runs: pd.DataFrame) -> list[Group]:
    """Groups of check boxes for hue, dash and weight; a field of one value needs none, except the curriculum."""
    if runs.empty:
        return []
    styles = figures.run_styles(runs)
    shapes = dict(zip(styles["method"], runs["shape"].astype(str), strict=True))
    methods = styles.drop_duplicates("method").sort_values(
        "color", key=lambda c: c != figures.BASELINE_GREY, kind="stable"
    )
    by_batch = styles.drop_duplicates("batch").sort_values("batch")
    by_rate = styles.drop_duplicates("lr").sort_values("width")
    rate_samples = [Sample(width=w, opacity=o) for w, o in zip(by_rate["width"], by_rate["opacity"], strict=True)]
    groups = (
        _group("curriculum", "method", methods["method"], [Sample(color=c) for c in methods["color"]], shapes),
        _group("batch", "batch", by_batch["batch"].astype(str), [Sample(dash=dash) for dash in by_batch["dash"]]),
        _group("LR", "lr", by_rate["lr"], rate_samples),
        _group("seed", "seed", [str(s) for s in sorted(styles["seed"].unique().tolist())]),
    )
    return [group for group in groups if len(group.boxes) > 1 or group.field == "method"]


def _group(
    words: str,
    field: str,
    values: Iterable[str],
    samples: Sequence[Sample] = (),
    notes: Mapping[str, str] | None = None,
) -> Group:
    boxes = [Box(value, sample, (notes or {}).get(value, "")) for value, sample in zip_longest(values, samples)]
    return Group(words, field, boxes)
