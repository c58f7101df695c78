"""What runs cost in rank-hours (one rank is one GPU, or one CPU process), and what is saved once everything is counted.

Two figures a comparison: the runs alone, and with the attempts that were rolled back and the tuning of the curriculum.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.cost import comparability, tuning
from analysis.cost.tuning import Charges
from analysis.schema import method_names
from analysis.stats.savings import CELL
from analysis.words import percent
from cl_bench.errors import UserError
from cl_bench.runs.identity import short_float
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
    """How rank-hours are shown, and how many of the unit an hour has."""

    word: str
    suffix: str
    """Its short form, for heads of tables; it does not break."""
    per_hour: float
    hour_word: str
    """The word for an hour, which a price is given for."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a sweep cost."""

    runs: pd.DataFrame
    """One row a run (RUN_COST_COLUMNS); savings are shares, NaN where there is none."""
    cells: list[dict[str, Any]]
    """One dict a cell of the grid, seeds put together: see `cells`."""
    totals: pd.DataFrame
    """One row a method: method, role, training, evaluation, lost, tuning (rank-hours)."""
    throughput: pd.DataFrame
    """clocks.THROUGHPUT_COLUMNS."""
    unit: ClockUnit
    price: float | None
    """Money per rank-hour; None where none was given."""
    notes: tuple[str, ...]
    """What was counted, and what was not."""


def check_price(price: float | None) -> None:
    """Raise UserError for a price that is none."""
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"--price {price:g}: must be a finite price per rank-hour, 0 or more")


def cost(
    runs: pd.DataFrame,
    train: pd.DataFrame,
    attempts: pd.DataFrame,
    savings: pd.DataFrame,
    charges: Charges | None = None,
    price: float | None = None,
) -> Cost:
    """All of the above. `runs`, `train` and `attempts` as in schema.Runs, `savings` as from savings.savings."""
    check_price(price)
    charges = charges or Charges()
    table = run_costs(runs, attempts, savings, charges, price)
    return Cost(
        table,
        cells(table),
        _totals(table, charges),
        comparability.throughput(runs, train),
        _unit(table, attempts),
        price,
        tuple(_notes(table, attempts, charges)),
    )


def run_costs(
    runs: pd.DataFrame,
    attempts: pd.DataFrame,
    savings: pd.DataFrame,
    charges: Charges,
    price: float | None = None,
) -> pd.DataFrame:
    """One row a run (RUN_COST_COLUMNS).

    `rank_hours` is training that was kept: each attempt's seconds times its ranks. `lost_rank_hours` was trained and
    rolled back; `eval_rank_hours` are evaluations of all attempts; `tuning_rank_hours` is the whole search for the
    run's curriculum. A saving compares what was kept up to the target; `saving_counted` adds to either side all that it
    lost, and to the curriculum's the whole of its tuning. Where a run's attempts had several numbers of ranks, its
    hours up to the target are taken at their mean.
    """
    table = runs.merge(_by_run(attempts), how="left", left_on="run_id", right_index=True)
    unknown = table["attempts"].isna()
    ranks = table["world_size"].where(table["world_size"] > 0).astype("float64")
    trained = (table["train_seconds"] * ranks / 3600).where(table["train_seconds"] > 0, 0.0)
    table["rank_hours"] = table["rank_hours"].where(~unknown, trained)
    counts = ["attempts", "lost_rank_hours", "eval_rank_hours"]
    table[counts] = table[counts].fillna(0.0)
    table["attempts"] = table["attempts"].astype("int64")
    table["tuning_rank_hours"] = [tuning.hours(charges.by_run.get(str(r), ())) for r in table["run_id"]]
    spent = table["rank_hours"] + table["lost_rank_hours"] + table["eval_rank_hours"]
    table["money"] = spent * (math.nan if price is None else price)
    return _compare(table, savings)[list(RUN_COST_COLUMNS)]


def _by_run(attempts: pd.DataFrame) -> pd.DataFrame:
    """Hours and number of attempts by run_id; sources that know no attempts give none."""
    names = {"rank_hours": "trained_seconds", "lost_rank_hours": "lost_seconds", "eval_rank_hours": "eval_seconds"}
    if not {"world_size", *names.values()} <= set(attempts.columns):
        return pd.DataFrame(columns=["attempts", *names], index=pd.Index([], name="run_id"), dtype="float64")
    hours = attempts[list(names.values())].astype("float64").mul(attempts["world_size"] / 3600, axis=0)
    hours.columns = pd.Index(names)
    hours["rank_hours"] -= hours["lost_rank_hours"]
    return hours.assign(attempts=1.0).groupby(attempts["run_id"]).sum()


def _compare(table: pd.DataFrame, savings: pd.DataFrame) -> pd.DataFrame:
    rows = {str(row["run_id"]): row for row in table.to_dict("records")}
    found: dict[str, dict[str, Any]] = {}
    for pair in savings.to_dict("records"):
        run, base = rows.get(str(pair["run_id"])), rows.get(str(pair["baseline_run_id"]))
        if run is None or base is None:
            continue
        ours, theirs = pair["rank_hours_to_target"], pair["baseline_rank_hours"]
        ours_all = ours + run["lost_rank_hours"] + run["tuning_rank_hours"]
        theirs_all = theirs + base["lost_rank_hours"]
        found[str(run["run_id"])] = {
            "baseline_run_id": base["run_id"],
            "rank_hours_to_target": ours,
            "baseline_rank_hours_to_target": theirs,
            "saving_alone": 1 - ours / theirs if theirs > 0 else math.nan,
            "saving_counted": 1 - ours_all / theirs_all if theirs_all > 0 else math.nan,
            "unlike": comparability.unlike(run, base) if run["train_seconds"] and base["train_seconds"] else "",
        }
    columns = list(RUN_COST_COLUMNS[RUN_COST_COLUMNS.index("baseline_run_id") :])
    compared = pd.DataFrame.from_dict(found, orient="index", columns=columns)
    joined = table.merge(compared, how="left", left_on="run_id", right_index=True)
    numbers = columns[1:-1]
    joined[numbers] = joined[numbers].astype("float64")
    joined[["baseline_run_id", "unlike"]] = joined[["baseline_run_id", "unlike"]].astype(object).fillna("")
    return joined


def cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The cells of the grid from the rows of `run_costs`, seeds put together; None where there is nothing to say.

    Savings are 1 minus the geometric mean of the seeds' ratios, and only given when every seed reached the target.
    `saved_rank_hours` are those of one run, mean over seeds. `break_even` is the number of runs that pay for the tuning
    by what each saves, lost hours counted on both sides: infinite where they save nothing, None where nothing was
    tuned.
    """
    by_id = table.set_index("run_id")
    result = []
    for key, group in table[table["role"] == "curriculum"].groupby(CELL, sort=False, dropna=False):
        whole = bool(group["saving_alone"].notna().all())
        base = by_id.reindex(group["baseline_run_id"])
        ours, theirs = group["rank_hours_to_target"].mean(), group["baseline_rank_hours_to_target"].mean()
        tuned = float(group["tuning_rank_hours"].max())
        alone = float(theirs - ours)
        saved = alone + float(base["lost_rank_hours"].mean() - group["lost_rank_hours"].mean())
        result.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "named": ", ".join(dict.fromkeys(str(n) for n in group["named"] if n)),
                "reached": int(group["saving_alone"].notna().sum()),
                "of": len(group),
                "rank_hours_to_target": float(ours) if whole else None,
                "baseline_rank_hours_to_target": float(theirs) if whole else None,
                "saved_rank_hours": alone if whole else None,
                "saved_rank_hours_counted": saved - tuned if whole else None,
                "saving_alone": _geometric(group["saving_alone"]) if whole else None,
                "saving_counted": _geometric(group["saving_counted"]) if whole else None,
                "lost_rank_hours": float(group["lost_rank_hours"].sum()),
                "baseline_lost_rank_hours": float(base["lost_rank_hours"].sum()),
                "tuning_rank_hours": tuned,
                "break_even": _break_even(tuned, saved) if whole and tuned > 0 else None,
                "unlike": "; ".join(dict.fromkeys(u for u in group["unlike"] if u)),
            }
        )
    return result


def _geometric(savings: pd.Series[float]) -> float:
    return 1 - math.exp(float(np.log1p(-savings.to_numpy()).mean()))


def _break_even(tuned: float, saved: float) -> float:
    return float(math.ceil(tuned / saved - 1e-9)) if saved > 0 else math.inf


def _totals(table: pd.DataFrame, charges: Charges) -> pd.DataFrame:
    """Where the hours of each method went; a run that failed and was not taken up again is lost as a whole."""
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
    """Which runs ended without a result."""
    return ~table["state"].isin((*FINISHED, *AT_WORK))


def _unit(table: pd.DataFrame, attempts: pd.DataFrame) -> ClockUnit:
    """GPU-hours where every attempt ran on a GPU, else rank-hours; minutes where no run took half an hour."""
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
        notes.append("Where these curves come from, attempts are not known: nothing lost can be counted.")
    if failed := int(_failed(table).sum()):
        several = failed > 1
        notes.append(
            f"{failed} run{'s' * several} failed or {'were' if several else 'was'} lost and not taken up again: all "
            "that was trained there counts as lost."
        )
    return notes


def caveats(found: Cost) -> list[str]:
    """For a verdict: how far the second figure falls below the first, at worst, where anybody would see it."""
    fell = [
        c for c in found.cells if c["saving_alone"] is not None and c["saving_alone"] - c["saving_counted"] >= 0.005
    ]
    if not fell:
        return []
    worst = max(fell, key=lambda c: float(c["saving_alone"] - c["saving_counted"]))
    hours, named = found.unit.hour_word + "s", f" ({worst['named']})" if worst["named"] else ""
    text = (
        f"With rolled-back attempts and tuning counted, {worst['curriculum']} at batch {worst['global_batch_size']}, "
        f"LR {short_float(worst['lr'])}{named} saved {percent(worst['saving_counted'])} of the {hours}, "
        f"not {percent(worst['saving_alone'])}"
    )
    if worst["break_even"] is not None:
        runs = worst["break_even"]
        again = f"paid back after {runs:,.0f} run{'s' * (runs != 1)}" if math.isfinite(runs) else "never paid back"
        text += f"; its tuning is {again}"
    more = len(fell) - 1
    return [text + (f"; {more} more cell{'s' * (more > 1)} in the table of costs." if more else ".")]


def plain(found: Cost) -> dict[str, Any]:
    """Cells, price and notes as JSON can hold them; tuning that is never paid back has no number of runs."""
    finite = [c | {"break_even": None} if c["break_even"] == math.inf else c for c in found.cells]
    return {"price_per_rank_hour": found.price, "cells": finite, "notes": list(found.notes)}
