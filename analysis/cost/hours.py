"""Cost of runs in rank-hours (one rank is one GPU, or one CPU process), and the saving once everything is counted.

Each comparison has two figures: the runs alone, and with rolled-back training and the tuning of the curriculum.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis.cost import comparability, tuning
from analysis.cost.tuning import Charges
from analysis.schema import Cell, Row, cell_of, method_names, rows_of
from analysis.stats.intervals import estimate_savings
from analysis.stats.savings import RunSaving
from cl_bench.errors import UserError
from cl_bench.runs.status import AT_WORK, FINISHED

RUN_COST_COLUMNS = (
    "run_id",
    "named",
    "role",
    "curriculum",
    "variant",
    "setting",
    "global_batch_size",
    "lr",
    "seed",
    "state",
    "hardware",
    "world_size",
    "precision",
    "attempts",
    "rank_hours",
    "lost_rank_hours",
    "eval_rank_hours",
    "tuning_rank_hours",
    "money",
    "baseline_run_id",
    "rank_hours_to_target",
    "baseline_rank_hours_to_target",
    "saving_alone",
    "saving_counted",
    "unlike",
)


class ClockUnit(NamedTuple):
    """The unit in which rank-hours are shown."""

    word: str
    suffix: str
    """Short form for heads of tables; it does not break."""
    per_hour: float
    """Units per hour."""
    hour_word: str
    """Name of an hour, the unit of a price."""


@dataclasses.dataclass(frozen=True)
class CellCost:
    """The cost of a curriculum's cell beside its baselines', seeds combined.

    Savings are 1 minus the geometric mean of the seeds' ratios; they and the hours to the target are None unless every
    seed reached the target.
    """

    cell: Cell
    reached: int
    seeds: int
    rank_hours_to_target: float | None
    """Of one run, mean over seeds; so are the next three."""
    baseline_rank_hours_to_target: float | None
    saved_rank_hours: float | None
    saved_rank_hours_counted: float | None
    """After rolled-back training on both sides and the whole tuning."""
    saving_alone: float | None
    saving_counted: float | None
    lost_rank_hours: float
    """Rolled back, summed over seeds."""
    baseline_lost_rank_hours: float
    tuning_rank_hours: float
    break_even: float | None
    """Runs whose savings, rolled-back hours counted on both sides, pay for the tuning: infinite if they save nothing,
    None without tuning."""
    unlike: str
    """Differences in timing conditions."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a sweep."""

    runs: pd.DataFrame
    """One row per run (RUN_COST_COLUMNS); savings are shares, NaN if unknown."""
    cells: tuple[CellCost, ...]
    totals: pd.DataFrame
    """One row per method: method, role, training, evaluation, lost, tuning (rank-hours)."""
    throughput: pd.DataFrame
    """comparability.THROUGHPUT_COLUMNS."""
    unit: ClockUnit
    price: float | None
    """Money per rank-hour, if given."""
    notes: tuple[str, ...]
    """What was counted and what was not."""
    timed: bool = True
    """Whether any run's training seconds are known."""


def check_price(price: float | None) -> None:
    """Raise UserError for an invalid price."""
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"--price {price:g}: must be a finite price per rank-hour, 0 or more")


def cost(
    runs: pd.DataFrame,
    train: pd.DataFrame,
    attempts: pd.DataFrame,
    savings: Sequence[RunSaving],
    charges: Charges | None = None,
    price: float | None = None,
) -> Cost:
    """The cost of a sweep. `runs`, `train` and `attempts` as in schema.Runs."""
    check_price(price)
    charges = charges or Charges()
    table = run_costs(runs, attempts, savings, charges, price)
    return Cost(
        table,
        cell_costs(table),
        _totals(table, charges),
        comparability.throughput(runs, train),
        _unit(table, attempts),
        price,
        tuple(_notes(table, attempts, charges)),
        timed=table.empty or bool(runs["train_seconds"].notna().any()),
    )


def run_costs(
    runs: pd.DataFrame,
    attempts: pd.DataFrame,
    savings: Sequence[RunSaving],
    charges: Charges,
    price: float | None = None,
) -> pd.DataFrame:
    """One row per run (RUN_COST_COLUMNS).

    `rank_hours` is training that was kept: each attempt's seconds times its ranks. `lost_rank_hours` was rolled back;
    `eval_rank_hours` are the evaluations of all attempts; `tuning_rank_hours` is the whole search for the run's
    curriculum. A saving compares training kept up to the target; `saving_counted` adds to either side all that it lost,
    and to the curriculum's the whole of its tuning. If a run's attempts had different numbers of ranks, its hours to
    the target use their mean.
    """
    table = runs.merge(_by_run(attempts), how="left", left_on="run_id", right_index=True)
    unknown = table["attempts"].isna()
    ranks = table["world_size"].where(table["world_size"] > 0).astype("float64")
    trained = (table["train_seconds"] * ranks / 3600).where(table["train_seconds"] != 0, 0.0)
    table["rank_hours"] = table["rank_hours"].where(~unknown, trained)
    counts = ["attempts", "lost_rank_hours", "eval_rank_hours"]
    table[counts] = table[counts].fillna(0.0)
    table["attempts"] = table["attempts"].astype("int64")
    table["tuning_rank_hours"] = [tuning.hours(charges.by_run.get(str(r), ())) for r in table["run_id"]]
    spent = table["rank_hours"] + table["lost_rank_hours"] + table["eval_rank_hours"]
    table["money"] = spent * (math.nan if price is None else price)
    return _compare(table, savings)[list(RUN_COST_COLUMNS)]


def _by_run(attempts: pd.DataFrame) -> pd.DataFrame:
    """Hours and number of attempts by run_id; empty if the source records no attempts."""
    names = {"rank_hours": "trained_seconds", "lost_rank_hours": "lost_seconds", "eval_rank_hours": "eval_seconds"}
    if not {"world_size", *names.values()} <= set(attempts.columns):
        return pd.DataFrame(columns=["attempts", *names], index=pd.Index([], name="run_id"), dtype="float64")
    hours = attempts[list(names.values())].astype("float64").mul(attempts["world_size"] / 3600, axis=0)
    hours.columns = pd.Index(names)
    hours["rank_hours"] -= hours["lost_rank_hours"]
    return hours.assign(attempts=1.0).groupby(attempts["run_id"]).sum()


def _compare(table: pd.DataFrame, savings: Sequence[RunSaving]) -> pd.DataFrame:
    rows = {str(row["run_id"]): row for row in rows_of(table)}
    compared: dict[str, Row] = {}
    for saving in savings:
        run, base = rows.get(saving.run_id), rows.get(saving.paired.baseline_run_id or "")
        if run is None or base is None:
            continue
        ours, theirs = saving.paired.amounts("rank_hour")
        ours_all = ours + run["lost_rank_hours"] + run["tuning_rank_hours"]
        theirs_all = theirs + base["lost_rank_hours"]
        compared[saving.run_id] = {
            "baseline_run_id": base["run_id"],
            "rank_hours_to_target": ours,
            "baseline_rank_hours_to_target": theirs,
            "saving_alone": 1 - ours / theirs if theirs > 0 else math.nan,
            "saving_counted": 1 - ours_all / theirs_all if theirs_all > 0 else math.nan,
            "unlike": comparability.unlike(run, base) if run["train_seconds"] and base["train_seconds"] else "",
        }
    columns = list(RUN_COST_COLUMNS[RUN_COST_COLUMNS.index("baseline_run_id") :])
    joined = table.merge(
        pd.DataFrame.from_dict(compared, orient="index", columns=columns),
        how="left",
        left_on="run_id",
        right_index=True,
    )
    numbers = columns[1:-1]
    joined[numbers] = joined[numbers].astype("float64")
    joined[["baseline_run_id", "unlike"]] = joined[["baseline_run_id", "unlike"]].astype(object).fillna("")
    return joined


def cell_costs(table: pd.DataFrame) -> tuple[CellCost, ...]:
    """The cells of the grid from the rows of `run_costs`."""
    by_id = table.set_index("run_id")
    groups: dict[Cell, list[Row]] = {}
    for run in rows_of(table[table["role"] == "curriculum"]):
        groups.setdefault(cell_of(run), []).append(run)
    return tuple(_cell_cost(cell, pd.DataFrame(runs), by_id) for cell, runs in groups.items())


def _cell_cost(cell: Cell, group: pd.DataFrame, by_id: pd.DataFrame) -> CellCost:
    reached = group["saving_alone"].notna()
    whole = bool(reached.all())
    base = by_id.reindex(group["baseline_run_id"])
    ours, theirs = float(group["rank_hours_to_target"].mean()), float(group["baseline_rank_hours_to_target"].mean())
    tuned = float(group["tuning_rank_hours"].max())
    saved = theirs - ours + float(base["lost_rank_hours"].mean() - group["lost_rank_hours"].mean())
    labels = dict.fromkeys(str(n) for n in group["named"] if n)
    return CellCost(
        cell=dataclasses.replace(cell, label=", ".join(labels)),
        reached=int(reached.sum()),
        seeds=len(group),
        rank_hours_to_target=ours if whole else None,
        baseline_rank_hours_to_target=theirs if whole else None,
        saved_rank_hours=theirs - ours if whole else None,
        saved_rank_hours_counted=saved - tuned if whole else None,
        saving_alone=estimate_savings(group["saving_alone"]).point,
        saving_counted=estimate_savings(group["saving_counted"]).point,
        lost_rank_hours=float(group["lost_rank_hours"].sum()),
        baseline_lost_rank_hours=float(base["lost_rank_hours"].sum()),
        tuning_rank_hours=tuned,
        break_even=_break_even(tuned, saved) if whole and tuned > 0 else None,
        unlike="; ".join(dict.fromkeys(u for u in group["unlike"] if u)),
    )


def _break_even(tuned: float, saved: float) -> float:
    return float(math.ceil(tuned / saved - 1e-9)) if saved > 0 else math.inf


def _totals(table: pd.DataFrame, charges: Charges) -> pd.DataFrame:
    """The hours of each method by use; all training of a run that failed and was not resumed counts as lost."""
    rows = []
    for method, group in table.assign(method=method_names(table)).groupby("method", sort=False):
        failed = _failed(group)
        searches = {s.name: s for r in group["run_id"] for s in charges.by_run.get(str(r), ())}
        rows.append(
            {
                "method": method,
                "role": group["role"].iloc[0],
                "training": group.loc[~failed, "rank_hours"].sum(),
                "evaluation": group["eval_rank_hours"].sum(),
                "lost": group["lost_rank_hours"].sum() + group.loc[failed, "rank_hours"].sum(),
                "tuning": tuning.hours(searches.values()),
            }
        )
    return pd.DataFrame(rows, columns=["method", "role", "training", "evaluation", "lost", "tuning"])


def _failed(table: pd.DataFrame) -> pd.Series[bool]:
    """Runs that ended without a result."""
    return ~table["state"].isin((*FINISHED, *AT_WORK))


def _unit(table: pd.DataFrame, attempts: pd.DataFrame) -> ClockUnit:
    """GPU-hours if every attempt ran on a GPU, else rank-hours; minutes if no run took half an hour."""
    on_gpus = (
        len(attempts) > 0 and "device" in attempts and bool(attempts["device"].astype(str).str.startswith("cuda").all())
    )
    what = "GPU" if on_gpus else "rank"
    longest = table["rank_hours"].max()
    word, suffix, per_hour = ("minutes", "min", 60.0) if longest < 0.5 else ("hours", "h", 1.0)
    return ClockUnit(f"{what}-{word}", f"{what}\N{NON-BREAKING HYPHEN}{suffix}", per_hour, f"{what}-hour")


def _notes(table: pd.DataFrame, attempts: pd.DataFrame, charges: Charges) -> list[str]:
    notes = list(charges.notes)
    again = table[table["attempts"] > 1]
    if len(again):
        lost = int((table["lost_rank_hours"] > 0).sum())
        some = f"{lost} of them rolled back and trained again" if lost else "none of them had to train anything again"
        notes.append(f"{len(again)} of {len(table)} runs took more than one attempt; {some}.")
    elif len(attempts) or table.empty:
        notes.append("Every run took one attempt.")
    else:
        notes.append("The source of these curves records no attempts: lost training cannot be counted.")
    if failed := int(_failed(table).sum()):
        several = failed > 1
        notes.append(
            f"{failed} run{'s' * several} failed or {'were' if several else 'was'} lost and not taken up again: all "
            "that was trained there counts as lost."
        )
    return notes
