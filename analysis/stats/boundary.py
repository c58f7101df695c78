"""Stability boundary: the largest learning rate and the largest batch size that are stable on every seed.

What counts against a run depends on the criterion (Criterion), of which a report has four:

- *stable*: it did not diverge, nor fail to learn at too high a learning rate (analysis.stats.outcome). That is the
  published claim ("8x batch and 4x LR stay stable where the baseline diverges", arXiv 2108.06084);
- *no_events*: and it had no instability event (analysis.stats.events);
- *useful*: it ended within 2% of its method's best loss at its batch size (analysis.stats.lr_response);
- *loss_ratio*, the paper's own measure: stable, and no training loss exceeds SPIKE_RATIO times the smallest before it.

A cell of the grid is stable if all of its seeds are, unstable if one is unstable, and otherwise undecided: a seed that
still runs, failed, or has no loss ratio shows nothing. A grid bounds the boundary by what it tested: if the largest
value is stable the boundary is "at least" that, if the smallest is unstable, "below" it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

import pandas as pd
from scipy import stats

from analysis.stats.intervals import CONFIDENCE
from cl_bench.runs.identity import short_float

SPIKE_RATIO = 1.2
"""The loss ratio above which the paper counts a step as a spike."""

Along = Literal["lr", "global_batch_size"]
Criterion = Literal["stable", "loss_ratio", "no_events", "useful"]
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
    "unstable_runs",
    "did_not_learn",
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
    "criterion",
    "unstable_runs",
    "did_not_learn",
)
_COUNTS = ("runs", "diverged", "unfinished", "unstable_runs", "did_not_learn")
_NAMES: dict[Along, str] = {"lr": "LR", "global_batch_size": "batch"}


class Boundary(NamedTuple):
    """The stability boundary along one line of tested values."""

    kind: Kind
    """exact: every larger tested value is unstable. at_least: no larger one was tested, or one is undecided. below: no
    tested value is stable. undecided: none is stable, and not all are decided."""
    largest: float | None = None
    """The largest value stable on every seed."""
    unstable_from: float | None = None
    """The smallest unstable value above it (of all, if none is stable)."""
    stable_up_to: float | None = None
    """The largest value that is stable together with every smaller one; below `largest` if the results are not
    monotone."""
    note: str = ""


class Multiple(NamedTuple):
    """One boundary as a multiple of another."""

    relation: Literal["", "at least", "at most", "more than", "less than"] = ""
    value: float | None = None
    """Ratio of the two largest stable values of the grid; None if neither side is known."""
    above: float | None = None
    """The true boundaries lie between tested values: their ratio is above this, by the grid's spacing."""
    below: float | None = None


def cell_stability(
    runs: pd.DataFrame, stability: pd.DataFrame, criterion: Criterion = "stable", max_loss_ratio: float = SPIKE_RATIO
) -> pd.DataFrame:
    """One row per cell (CELL_COLUMNS): status by the criterion, and the share of its finished seeds that diverged.

    `runs` has one row per run (run_id, role, curriculum, variant, setting, global_batch_size, lr, state), `stability`
    as from analysis.stats.stability. The share has the exact (Clopper-Pearson) interval, whose coverage is never below
    its level: 0 of 3 is 0 to 71%. Unfinished runs are not in the share.
    """
    measured = stability[["run_id", "diverged", "max_loss_ratio", "outcome", "unstable", "useful", "events"]]
    table = runs[["run_id", *_LINE, "global_batch_size", "lr", "state"]].merge(measured, on="run_id")
    table["variant"] = table["variant"].fillna("").astype(str)
    table["diverged"] = table["diverged"].astype(bool)
    table["unfinished"] = ~table["diverged"] & (table["state"] != "DONE")
    failed, unknown = _against_criterion(table, criterion, max_loss_ratio)
    rows = table.assign(
        failed=failed,
        unknown=unknown,
        is_unstable=table["unstable"].fillna(False).astype(bool),
        did_not_learn=table["outcome"] == "did not learn",
    ).groupby([*_LINE, "global_batch_size", "lr"], sort=False, as_index=False)
    cells = rows.agg(
        runs=("run_id", "size"),
        diverged=("diverged", "sum"),
        unfinished=("unfinished", "sum"),
        max_loss_ratio=("max_loss_ratio", "max"),
        failed=("failed", "any"),
        unknown=("unknown", "any"),
        unstable_runs=("is_unstable", "sum"),
        did_not_learn=("did_not_learn", "sum"),
    )
    cells["status"] = [_status(u, k) for u, k in zip(cells["failed"], cells["unknown"], strict=True)]
    finished = cells["runs"] - cells["unfinished"]
    shares = [proportion(int(k), int(n)) for k, n in zip(cells["diverged"], finished, strict=True)]
    for i, column in enumerate(("diverged_share", "diverged_low", "diverged_high")):
        cells[column] = pd.Series([s[i] for s in shares], index=cells.index, dtype="float64")
    return cells[list(CELL_COLUMNS)]


def _against_criterion(table: pd.DataFrame, criterion: Criterion, max_loss_ratio: float) -> tuple[Any, Any]:
    """(fails the criterion, shows nothing about it) per run."""
    if criterion == "useful":
        useful = table["useful"].astype("boolean")
        return ~useful.fillna(True).astype(bool), useful.isna()
    unstable = table["unstable"].astype("boolean")
    failed, unknown = unstable.fillna(False).astype(bool), unstable.isna()
    if criterion == "loss_ratio":
        return failed | (table["max_loss_ratio"] > max_loss_ratio), unknown | table["max_loss_ratio"].isna()
    if criterion == "no_events":
        return failed | (table["events"].fillna(0) > 0).astype(bool), unknown | table["events"].isna()
    return failed, unknown


@functools.cache
def proportion(count: int, of: int) -> tuple[float, float, float]:
    """(share, low, high) with the exact interval; NaN if nothing was counted."""
    if of == 0:
        return math.nan, math.nan, math.nan
    interval = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return count / of, float(interval.low), float(interval.high)


def _status(unstable: bool, unknown: bool) -> Status:
    if unstable:
        return "unstable"
    return "undecided" if unknown else "stable"


def boundary(
    values: Sequence[float], statuses: Sequence[Status], name: str = "LR", ended: Collection[float] = ()
) -> Boundary:
    """The stability boundary along ascending `values`, one status each; at those in `ended` no run is unfinished."""
    tested = list(zip(values, statuses, strict=True))
    stable, unstable, undecided = ([v for v, s in tested if s == status] for status in get_args(Status))
    if not stable:
        if not tested or undecided:
            return Boundary("undecided", None, min(unstable, default=None), None, _waiting(undecided, ended))
        return Boundary("below", None, min(unstable), None, f"no smaller {name} tested")
    largest = max(stable)
    above, below = [v for v in unstable if v > largest], [v for v in unstable if v < largest]
    first_other = min((*unstable, *undecided), default=math.inf)
    notes = [
        f"no larger {name} tested" if largest == max(values) else "",
        f"unstable at {_list(below)} although {short(largest)} is stable" if below else "",
        _waiting(undecided, ended),
    ]
    exact = bool(above) and not any(v > largest for v in undecided)
    return Boundary(
        "exact" if exact else "at_least",
        largest,
        min(above, default=None),
        max((v for v in stable if v < first_other), default=None),
        "; ".join(n for n in notes if n),
    )


def multiple(ours: Boundary, baseline: Boundary) -> Multiple:
    """`ours` as a multiple of the baseline's boundary, in steps of the grid, and the bounds by the grid's spacing."""
    above = _ratio(ours.largest, baseline.unstable_from)
    below = _ratio(ours.unstable_from, baseline.largest)
    value = _ratio(ours.largest, baseline.largest)
    match ours.kind, baseline.kind:
        case "exact", "exact":
            return Multiple("", value, above, below)
        case "at_least", "exact":
            return Multiple("at least", value, above, below)
        case "exact", "at_least":
            return Multiple("at most", value, above, below)
    if ours.largest is not None and baseline.kind == "below":
        return Multiple("more than", above, above, below)
    if ours.kind == "below" and baseline.largest is not None:
        return Multiple("less than", below, above, below)
    return Multiple("", None, above, below)


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or under is None else over / under


def boundaries(
    runs: pd.DataFrame,
    stability: pd.DataFrame,
    along: Along = "lr",
    criterion: Criterion = "stable",
    max_loss_ratio: float = SPIKE_RATIO,
) -> pd.DataFrame:
    """The stability boundaries along learning rates (or batch sizes): FRONTIER_COLUMNS.

    One row per curriculum, variant and setting and each value (`at`) of the other axis. `multiple` compares with the
    baseline of the same setting at the same `at`; it is empty if both boundaries lie beyond what was tested.
    `multiple_above` and `multiple_below` bound the ratio of the true boundaries, which lie between two tested values:
    on a grid of 2e-3 and 8e-3, a baseline stable at the first only and a curriculum stable at both give "at least 4x"
    in steps of the grid, and more than 1x for certain.
    """
    cells = cell_stability(runs, stability, criterion, max_loss_ratio)
    allowed = max_loss_ratio if criterion == "loss_ratio" else None
    fixed = "global_batch_size" if along == "lr" else "lr"
    baselines: dict[tuple[str, float], tuple[Boundary, int]] = {}
    rows: list[dict[str, Any]] = []
    ordered = cells.assign(rank=cells["role"] != "baseline").sort_values([fixed, "rank", along], kind="stable")
    for key, line in ordered.groupby([*_LINE, fixed], sort=False):
        role, _, _, setting, at = cast(tuple[str, str, str, str, float], key)
        values = [float(v) for v in line[along]]
        ended = {float(v) for v in line.loc[line["unfinished"] == 0, along]}
        own, seeds = boundary(values, line["status"].tolist(), _NAMES[along], ended), int(line["runs"].min())
        row: dict[str, Any] = dict(zip(_LINE, line[_LINE].iloc[0], strict=True))
        row |= {"along": along, "at": float(at), "max_loss_ratio_allowed": allowed, "kind": own.kind}
        row |= {"largest_stable": own.largest, "unstable_from": own.unstable_from, "stable_up_to": own.stable_up_to}
        row |= {"tested": " ".join(short(v) for v in values), "seeds": seeds}
        row |= {name: int(line[name].sum()) for name in _COUNTS} | {"criterion": criterion}
        if role == "baseline":
            baselines.setdefault((setting, at), (own, seeds))
            row |= {"multiple_relation": "", "note": own.note}
        else:
            row |= _against(own, seeds, baselines.get((setting, at)))
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(FRONTIER_COLUMNS))
    numbers = ["at", "max_loss_ratio_allowed", "largest_stable", "unstable_from", "stable_up_to"]
    numbers += ["baseline_largest_stable", "multiple", "multiple_above", "multiple_below"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _against(own: Boundary, seeds: int, baseline: tuple[Boundary, int] | None) -> dict[str, Any]:
    """The columns that compare a curriculum's boundary with the baseline's (and its seeds)."""
    if baseline is None:
        return {"multiple_relation": "", "note": "; ".join(n for n in (own.note, "no baseline to compare with") if n)}
    base, base_seeds = baseline
    times = multiple(own, base)
    notes = [own.note]
    if own.kind == "at_least" and base.kind == "at_least":
        notes.append("nor is the baseline's edge reached")
    if seeds < base_seeds:
        notes.append(f"fewer seeds than the baseline's {base_seeds}")
    return {
        "baseline_kind": base.kind,
        "baseline_largest_stable": base.largest,
        "multiple_relation": times.relation,
        "multiple": times.value,
        "multiple_above": times.above,
        "multiple_below": times.below,
        "note": "; ".join(n for n in notes if n),
    }


def all_boundaries(runs: pd.DataFrame, stability: pd.DataFrame, spike_ratio: float = SPIKE_RATIO) -> pd.DataFrame:
    """The boundaries along both axes by all criteria, as in frontier.csv: the oldest two criteria first."""
    order: tuple[tuple[Criterion, ...], ...] = (("stable", "loss_ratio"), ("no_events", "useful"))
    tables = [
        boundaries(runs, stability, axis, criterion, spike_ratio)
        for criteria in order
        for axis in get_args(Along)
        for criterion in criteria
    ]
    return pd.concat(tables, ignore_index=True) if len(runs) else tables[0]


def select(table: pd.DataFrame, along: Along = "lr", criterion: Criterion = "stable") -> pd.DataFrame:
    """The rows of `all_boundaries` along one axis by one criterion."""
    return table[(table["along"] == along) & (table["criterion"] == criterion)]


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: None for missing values."""
    whole = {"seeds", *_COUNTS}
    return [
        {str(k): None if v is None or v != v else (int(v) if k in whole else v) for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def short(value: float) -> str:
    """A learning rate in short form (8e-3), a batch size as a whole number."""
    return str(int(value)) if value >= 1 and float(value).is_integer() else short_float(value)


def _list(values: Sequence[float]) -> str:
    return " and ".join(short(v) for v in sorted(values))


def _waiting(values: Sequence[float], ended: Collection[float] = ()) -> str:
    open_ = [v for v in values if v not in ended]
    silent = [v for v in values if v in ended]
    parts = [f"{_list(open_)} not decided yet"] if open_ else []
    return "; ".join([*parts, f"{_list(silent)} undecided"] if silent else parts)
