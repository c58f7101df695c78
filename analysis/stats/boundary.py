"""How far the edge of stability lies: the largest learning rate stable on every seed, and the largest batch.

A run is *stable* when it finished without diverging. That is what the published claim is about ("8x batch and 4x LR
stay stable where the baseline diverges", arXiv 2108.06084), and what ends a run here
(cl_bench.training.telemetry.divergence).
The paper's other measure, spikes, is the stricter criterion: given `max_loss_ratio`, a run must also never have had a
training loss above that many times the smallest before it. A report shows both, the second at SPIKE_RATIO.

A cell of the grid is stable when all of its seeds are, unstable as soon as one is not, and otherwise undecided: a seed
that still runs, failed, or has no loss ratio to judge by proves nothing. What a grid can say is bounded by what it
tested: where the largest value is stable the edge is "at least" that, where the smallest is unstable, "below" it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import pandas as pd
from scipy import stats

from analysis.words import CONFIDENCE
from cl_bench.runs.identity import short_float

SPIKE_RATIO = 1.2
"""The loss ratio from which the paper counts a step as a spike."""

Along = Literal["lr", "global_batch_size"]
Status = Literal["stable", "unstable", "undecided"]
Kind = Literal["exact", "at_least", "below", "undecided"]

_LINE = ["role", "curriculum", "variant", "setting"]
CELL_COLUMNS = (
    *_LINE,
    "global_batch_size",
    "lr",
    "runs",
    "diverged",
    "unfinished",
    "diverged_share",
    "diverged_low",
    "diverged_high",
    "max_loss_ratio",
    "status",
)
FRONTIER_COLUMNS = (
    *_LINE,
    "along",
    "at",
    "max_loss_ratio_allowed",
    "kind",
    "largest_stable",
    "unstable_from",
    "stable_up_to",
    "tested",
    "seeds",
    "runs",
    "diverged",
    "unfinished",
    "baseline_kind",
    "baseline_largest_stable",
    "multiple_relation",
    "multiple",
    "multiple_above",
    "multiple_below",
    "note",
)
_MOST_CURRICULA = 3
_MOST_BATCHES = 2
_NAMES: dict[Along, str] = {"lr": "LR", "global_batch_size": "batch"}


class Edge(NamedTuple):
    """Where stability ends along one line of tested values."""

    kind: Kind
    """exact: every larger tested value is unstable. at_least: no larger one was tested, or one is undecided. below: no
    tested value is stable. undecided: none is stable, and not all are known."""
    largest: float | None = None
    """The largest value stable on every seed."""
    unstable_from: float | None = None
    """The smallest unstable value above it (of all, where none is stable)."""
    stable_up_to: float | None = None
    """The largest value that is stable together with every smaller one: less than `largest` where there is a hole."""
    note: str = ""


class Multiple(NamedTuple):
    """One edge as a multiple of another."""

    relation: Literal["", "at least", "at most", "more than", "less than"] = ""
    value: float | None = None
    """Ratio of the two largest stable values of the grid; None where neither bound says anything."""
    above: float | None = None
    """The edges themselves lie between tested values: their ratio is above this, which the grid's spacing decides."""
    below: float | None = None


def cell_stability(runs: pd.DataFrame, stability: pd.DataFrame, max_loss_ratio: float | None = None) -> pd.DataFrame:
    """One row a cell (CELL_COLUMNS): status by the criterion, and the share of its finished seeds that diverged.

    `runs` has one row a run (run_id, role, curriculum, variant, setting, global_batch_size, lr, state), `stability` its
    run_id, diverged and max_loss_ratio. The share comes with the exact (Clopper-Pearson) 95% interval, which never
    covers less than it says: 0 of 3 is 0 to 71%. Unfinished runs are not in the share.
    """
    measured = stability[["run_id", "diverged", "max_loss_ratio"]]
    table = runs[["run_id", *_LINE, "global_batch_size", "lr", "state"]].merge(measured, on="run_id")
    table["variant"] = table["variant"].fillna("").astype(str)
    table["diverged"] = table["diverged"].astype(bool)
    table["unfinished"] = ~table["diverged"] & (table["state"] != "DONE")
    unstable, unknown = table["diverged"], table["unfinished"]
    if max_loss_ratio is not None:
        unstable = unstable | (table["max_loss_ratio"] > max_loss_ratio)
        unknown = unknown | table["max_loss_ratio"].isna()
    rows = table.assign(unstable=unstable, unknown=unknown).groupby(
        [*_LINE, "global_batch_size", "lr"], sort=False, as_index=False
    )
    cells = rows.agg(
        runs=("run_id", "size"),
        diverged=("diverged", "sum"),
        unfinished=("unfinished", "sum"),
        max_loss_ratio=("max_loss_ratio", "max"),
        unstable=("unstable", "any"),
        unknown=("unknown", "any"),
    )
    cells["status"] = [_status(u, k) for u, k in zip(cells["unstable"], cells["unknown"], strict=True)]
    finished = cells["runs"] - cells["unfinished"]
    shares = [proportion(int(k), int(n)) for k, n in zip(cells["diverged"], finished, strict=True)]
    for i, column in enumerate(("diverged_share", "diverged_low", "diverged_high")):
        cells[column] = pd.Series([s[i] for s in shares], index=cells.index, dtype="float64")
    return cells[list(CELL_COLUMNS)]


@functools.cache
def proportion(count: int, of: int) -> tuple[float, float, float]:
    """(share, low, high) with the exact 95% interval; NaN where nothing was counted."""
    if of == 0:
        return math.nan, math.nan, math.nan
    interval = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return count / of, float(interval.low), float(interval.high)


def _status(unstable: bool, unknown: bool) -> Status:
    if unstable:
        return "unstable"
    return "undecided" if unknown else "stable"


def edge(values: Sequence[float], statuses: Sequence[Status], name: str = "LR") -> Edge:
    """Where stability ends along ascending `values`, one status each."""
    tested = list(zip(values, statuses, strict=True))
    stable = [v for v, s in tested if s == "stable"]
    unstable = [v for v, s in tested if s == "unstable"]
    open_values = [v for v, s in tested if s == "undecided"]
    if not stable:
        if not tested or open_values:
            return Edge("undecided", None, min(unstable, default=None), None, _waiting(open_values))
        return Edge("below", None, min(unstable), None, f"no smaller {name} tested")
    largest = max(stable)
    above = [v for v in unstable if v > largest]
    holes = [v for v in unstable if v < largest]
    broken = min((v for v, s in tested if s != "stable"), default=math.inf)
    notes = []
    if not any(v > largest for v in values):
        notes.append(f"no larger {name} tested")
    if holes:
        notes.append(f"unstable at {_listed(holes)} although {short(largest)} is stable")
    notes.append(_waiting(open_values))
    exact = bool(above) and not any(v > largest for v in open_values)
    return Edge(
        "exact" if exact else "at_least",
        largest,
        min(above, default=None),
        max((v for v in stable if v < broken), default=None),
        "; ".join(n for n in notes if n),
    )


def multiple(ours: Edge, baseline: Edge) -> Multiple:
    """`ours` as a multiple of the baseline's edge, in steps of the grid, and what the grid's spacing allows."""
    above = _ratio(ours.largest, baseline.unstable_from)
    below = _ratio(ours.unstable_from, baseline.largest)
    value = _ratio(ours.largest, baseline.largest)
    if ours.kind == "exact" and baseline.kind == "exact":
        return Multiple("", value, above, below)
    if ours.kind == "at_least" and baseline.kind == "exact":
        return Multiple("at least", value, above, below)
    if ours.kind == "exact" and baseline.kind == "at_least":
        return Multiple("at most", value, above, below)
    if ours.largest is not None and baseline.kind == "below":
        return Multiple("more than", above, above, below)
    if ours.kind == "below" and baseline.largest is not None:
        return Multiple("less than", below, above, below)
    return Multiple("", None, above, below)


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or under is None else over / under


def frontier(
    runs: pd.DataFrame, stability: pd.DataFrame, along: Along = "lr", max_loss_ratio: float | None = None
) -> pd.DataFrame:
    """The edge of stability along learning rates (or batch sizes): FRONTIER_COLUMNS.

    One row for each curriculum, variant and setting and each value (`at`) of the other axis. `multiple` sets it against
    the baseline of the same setting at the same `at`; it is empty where both edges lie beyond what was tested.
    `multiple_above` and `multiple_below` bound the ratio of the true edges, which lie somewhere between two tested
    values: a grid of 2e-3 and 8e-3 with the baseline stable at the first only, a curriculum at both, says "at least 4x"
    in steps of the grid, and more than 1x for certain.
    """
    cells = cell_stability(runs, stability, max_loss_ratio)
    fixed = "global_batch_size" if along == "lr" else "lr"
    bases: dict[tuple[Any, ...], tuple[Edge, int]] = {}
    rows: list[dict[str, Any]] = []
    ordered = cells.assign(rank=cells["role"] != "baseline").sort_values([fixed, "rank", along], kind="stable")
    for key, line in ordered.groupby([*_LINE, fixed], sort=False):
        role, _, _, setting, at = cast(tuple[str, str, str, str, float], key)
        values = [float(v) for v in line[along]]
        own = edge(values, line["status"].tolist(), _NAMES[along])
        row: dict[str, Any] = dict.fromkeys(FRONTIER_COLUMNS)
        row |= dict(zip(_LINE, line[_LINE].iloc[0], strict=True))
        row |= {"along": along, "at": float(at), "max_loss_ratio_allowed": max_loss_ratio, "kind": own.kind}
        row |= {"largest_stable": own.largest, "unstable_from": own.unstable_from, "stable_up_to": own.stable_up_to}
        row |= {"tested": " ".join(short(v) for v in values), "seeds": int(line["runs"].min())}
        row |= {name: int(line[name].sum()) for name in ("runs", "diverged", "unfinished")}
        row |= {"multiple_relation": "", "note": own.note}
        if role == "baseline":
            bases.setdefault((setting, at), (own, row["seeds"]))
        elif (setting, at) in bases:
            base, seeds = bases[setting, at]
            times = multiple(own, base)
            row |= {"baseline_kind": base.kind, "baseline_largest_stable": base.largest}
            row |= {"multiple_relation": times.relation, "multiple": times.value}
            row |= {"multiple_above": times.above, "multiple_below": times.below}
            if own.kind == "at_least" and base.kind == "at_least":
                row["note"] += "; nor is the baseline's edge reached"
            if row["seeds"] < seeds:
                row["note"] += f"{'; ' * bool(row['note'])}fewer seeds than the baseline's {seeds}"
        else:
            row["note"] = "; ".join(n for n in (own.note, "no baseline to compare with") if n)
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(FRONTIER_COLUMNS))
    numbers = ["at", "max_loss_ratio_allowed", "largest_stable", "unstable_from", "stable_up_to"]
    numbers += ["baseline_largest_stable", "multiple", "multiple_above", "multiple_below"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def frontiers(runs: pd.DataFrame, stability: pd.DataFrame, spike_ratio: float = SPIKE_RATIO) -> pd.DataFrame:
    """:func:`frontier` along both axes and by both criteria: what a report writes."""
    along: tuple[Along, ...] = ("lr", "global_batch_size")
    made = [frontier(runs, stability, axis, ratio) for axis in along for ratio in (None, spike_ratio)]
    return pd.concat(made, ignore_index=True) if len(runs) else made[0]


def select(table: pd.DataFrame, along: Along = "lr", *, spikes: bool = False) -> pd.DataFrame:
    """The rows of :func:`frontiers` along one axis, by one criterion: not diverged, or (`spikes`) no spike either."""
    return table[(table["along"] == along) & (table["max_loss_ratio_allowed"].notna() == spikes)]


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: None for what is not there."""
    whole = {"seeds", "runs", "diverged", "unfinished"}
    return [
        {str(k): None if v is None or v != v else (int(v) if k in whole else v) for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def short(value: float) -> str:
    """A learning rate as people write it (8e-3), a batch as a whole number."""
    return str(int(value)) if value >= 1 and float(value).is_integer() else short_float(value)


def _listed(values: Sequence[float]) -> str:
    return " and ".join(short(v) for v in sorted(values))


def _waiting(values: Sequence[float]) -> str:
    return f"{_listed(values)} not decided yet" if values else ""
