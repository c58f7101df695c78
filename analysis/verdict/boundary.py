"""Stability boundaries in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.schema import method_name
from analysis.stats.boundary import Criterion, plain_rows, select, short
from analysis.stats.joint_boundary import JointBoundary, MethodStability, PlaceStability

_STRICTER: dict[Criterion, str] = {
    "no_events": "without an instability event",
    "useful": "within 2% of the method's best loss",
}
"""Criteria to fall back on where every run is stable."""
_MOST_CURRICULA = 3
_MOST_BATCHES = 2


def boundary_sentence(table: pd.DataFrame) -> str:
    """The boundaries in a sentence, from `all_boundaries`: the setting and batch sizes with the most multiples."""
    rows = select(table)
    if rows.empty:
        return ""
    if rows["unstable_runs"].sum():
        return "Largest stable LR " + _at_batches(rows)
    count = int(rows["runs"].sum())
    waiting = int(rows["unfinished"].sum())
    reached = f"None of {count} runs" if count > 1 else "The one run has not"
    text = f"{reached} diverged" + (f" so far ({waiting} not finished)" if waiting else "")
    if slow := int(rows["did_not_learn"].sum()):
        return f"{text}, but {slow} did not learn, at no learning rate above the best one."
    text += (
        "; the stability boundary is not reached yet" if waiting else ": the stability boundary lies beyond this grid"
    )
    for criterion, words in _STRICTER.items():
        stricter = select(table, criterion=criterion)
        if stricter["kind"].isin(["exact", "below"]).any():
            return f"{text}. Largest LR {words} {_at_batches(stricter)}"
    return f"{text}."


def _at_batches(rows: pd.DataFrame) -> str:
    """'at batch 64: baseline 2e-3, fixed_linear at least 8e-3 (4x or more).', and what the table adds."""
    rows = rows.assign(comparable=rows["multiple"].notna())
    by_setting = rows.groupby("setting", sort=False)["comparable"].agg(["sum", "size"])
    own = rows[rows["setting"] == max(by_setting.index, key=lambda s: tuple(by_setting.loc[s]))]
    counts = own.groupby("at")["comparable"].sum()
    # Two batch sizes if both have a multiple: showing one would be a choice.
    best = sorted(counts.index, key=lambda b: (counts[b], b), reverse=True)[:_MOST_BATCHES]
    shown = sorted(b for b in best if counts[b] or b == best[0])
    text = "; ".join(f"at batch {int(b)}: {_line_words(own[own['at'] == b])}" for b in shown) + "."
    more = []
    distinct = own[own["role"] != "baseline"][["curriculum", "variant"]].drop_duplicates()
    if (n := len(distinct) - _MOST_CURRICULA) > 0:
        more.append(f"{n} more curricul{'a' if n > 1 else 'um'}")
    if (n := own["at"].nunique() - len(shown)) > 0:
        more.append(f"{n} more batch size{'s' * (n > 1)}")
    if (n := rows["setting"].nunique() - 1) > 0:
        more.append(f"{n} more setting{'s' * (n > 1)}")
    listed = f"{', '.join(more[:-1])} and {more[-1]}" if len(more) > 1 else "".join(more)
    return f"{text} The table has {listed}." if more else text


def _line_words(here: pd.DataFrame) -> str:
    base, curricula = here[here["role"] == "baseline"][:1], here[here["role"] != "baseline"]
    return ", ".join(_words(row) for row in plain_rows(pd.concat([base, curricula[:_MOST_CURRICULA]])))


def _words(row: dict[str, Any]) -> str:
    name = method_name(row["curriculum"], row["variant"])
    times = multiple_words(row["multiple"], row["multiple_relation"])
    return f"{name} {boundary_words(row)}" + (f" ({times})" if times else "")


def boundary_words(row: Mapping[str, Any]) -> str:
    """'8e-3', 'at least 8e-3', 'below 2e-3' or 'undecided', and whether a smaller value is unstable."""
    largest, beyond = row["largest_stable"], row["unstable_from"]
    if row["kind"] == "undecided":
        return "undecided"
    if row["kind"] == "below":
        return f"below {short(beyond)}"
    hole = " (not at every value below)" if " although " in row["note"] else ""
    return f"{'at least ' if row['kind'] == 'at_least' else ''}{short(largest)}{hole}"


def multiple_words(value: float | None, relation: str) -> str:
    """'4x', '4x or more', 'more than 4x'; empty without a multiple."""
    if value is None or math.isnan(value):
        return ""
    times = f"{value:.3g}x"
    after = {"at least": " or more", "at most": " or less"}
    return f"{relation} {times}" if relation in ("more than", "less than") else times + after.get(relation, "")


def joint_sentences(joint: Sequence[JointBoundary]) -> list[str]:
    """One sentence per method and setting: how far it stayed stable where the baseline did not, or at all."""
    return [
        text
        for boundary in joint
        for method in boundary.methods
        if method.role != "baseline" and (text := _joint_sentence(method))
    ]


def _joint_sentence(method: MethodStability) -> str:
    name = method_name(method.curriculum, method.variant)
    if method.contrast is not None and method.baseline_at_contrast is not None:
        base = method.baseline_at_contrast
        text = f"{name} stayed stable at {_where(method.contrast)}"
        return f"{text}, where the baseline did not on {base.unstable} of {base.seeds}."
    if method.largest is None:
        return ""
    text = f"{name} stayed stable at {_where(method.largest)}"
    there = method.baseline_there
    if there is None:
        return f"{text}; no baseline was trained there."
    return f"{text}, and so did the baseline." if there.all_stable else f"{text}; the baseline there is undecided."


def _where(place: PlaceStability) -> str:
    return f"{multiples(place)} on {seeds(place.stable, place.seeds)}"


def seeds(count: int, total: int) -> str:
    """'3 of 3 seeds', or 'its one seed'."""
    return f"{count} of {total} seeds" if total > 1 else "its one seed"


def multiples(place: PlaceStability) -> str:
    """'8x the batch and 4x the learning rate' of the reference cell."""
    parts = [
        f"{value:.3g}x the {what}"
        for value, what in ((place.batch_multiple, "batch"), (place.lr_multiple, "learning rate"))
        if abs(value - 1) > 1e-9
    ]
    return " and ".join(parts) or "the reference batch and learning rate"
