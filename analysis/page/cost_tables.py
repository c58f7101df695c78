"""The report's tables of hours, money and throughput."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.cost.hours import ClockUnit, Cost
from analysis.page.columns import (
    column_if_any,
    decimals_for,
    numbers,
    percent_column,
    texts,
    where_columns,
)
from analysis.schema import method_names
from analysis.tables import Column, Table


def cost_cells_table(found: Cost) -> Table:
    """Hours to the target of each cell, what they saved, and what is left of that once everything is counted."""
    names = ("curriculum", "variant", "global_batch_size", "lr")
    columns_of = {name: [getattr(c.cell, name) for c in found.cells] for name in names}
    rows = pd.DataFrame({"named": [c.cell.label for c in found.cells], **columns_of})
    unit = found.unit
    ours, theirs, lost, theirs_lost, tuned = (
        [getattr(c, k) for c in found.cells]
        for k in (
            "rank_hours_to_target",
            "baseline_rank_hours_to_target",
            "lost_rank_hours",
            "baseline_lost_rank_hours",
            "tuning_rank_hours",
        )
    )
    columns = [
        *where_columns(rows, seed=False),
        _hours("to target", ours, unit, like=theirs),
        _hours("baseline", theirs, unit, like=ours),
        percent_column(f"{unit.hour_word}s saved, runs alone", (c.saving_alone for c in found.cells)),
        percent_column("everything counted", (c.saving_counted for c in found.cells)),
    ]
    if any((*lost, *theirs_lost)):
        columns += [
            _hours("rolled back", lost, unit, like=theirs_lost),
            _hours("rolled back, baseline", theirs_lost, unit, like=lost),
        ]
    if any(tuned):
        columns += [
            _hours("tuning", tuned, unit),
            Column("runs to pay it back", [_runs(c.break_even) for c in found.cells], number=True),
        ]
    if found.price is not None:
        alone, counted = (
            [None if (v := getattr(c, k)) is None else v * found.price for c in found.cells]
            for k in ("saved_rank_hours", "saved_rank_hours_counted")
        )
        decimals = decimals_for([*alone, *counted])
        columns += [
            Column("money saved a run, alone", numbers(alone, decimals, sign=True), number=True),
            Column("money, everything counted", numbers(counted, decimals, sign=True), number=True),
        ]
    columns += [
        Column("reached", [f"{c.reached} of {c.seeds}" for c in found.cells], number=True),
        *column_if_any("unlike clocks", [c.unlike for c in found.cells]),
    ]
    return Table("Hours to the target by cell, mean over seeds", columns, "No curriculum run to compare yet.")


def cost_runs_table(found: Cost) -> Table:
    """What every run took, evaluations and lost attempts apart; clocks where they differ."""
    runs, unit = found.runs, found.unit
    columns = [*where_columns(runs), _hours("training", runs["rank_hours"], unit)]
    if (runs["attempts"] > 1).any() or runs["lost_rank_hours"].any():
        columns += [
            Column("attempts", [str(n) if n else "–" for n in runs["attempts"]], number=True),
            _hours("rolled back", runs["lost_rank_hours"], unit),
        ]
    columns.append(_hours("evaluation", runs["eval_rank_hours"], unit))
    if found.price is not None:
        columns.append(Column("money, in all", numbers(runs["money"], decimals_for(runs["money"])), number=True))
    clocks = {
        "world_size": Column(
            "ranks", [str(int(n)) if n > 0 else "–" for n in runs["world_size"].fillna(0)], number=True
        ),
        "precision": Column("precision", texts(runs["precision"])),
        "hardware": Column("hardware", texts(runs["hardware"])),
    }
    columns += [column for name, column in clocks.items() if runs[name].nunique() > 1]
    return Table("Hours by run", columns, "Nothing has been trained yet.")


def throughput_table(throughput: pd.DataFrame) -> Table:
    """Tokens a second by curriculum and batch size, the lengths from one power of two to the next put together."""
    keys = ["curriculum", "variant", "model", "hardware", "world_size", "global_batch_size"]
    floor = 2 ** np.floor(np.log2(throughput["seqlen"].to_numpy(dtype=float, na_value=1.0))).astype(int)
    rows = throughput.assign(floor=floor)
    summed = rows.groupby([*keys, "floor"], sort=False, dropna=False)[["tokens", "seconds"]].sum()
    speeds = (summed["tokens"].astype(float) / summed["seconds"].astype(float)).unstack("floor")
    speeds = speeds.reindex(list(dict.fromkeys(rows.set_index(keys).index)))
    where = speeds.index.to_frame(index=False)
    columns = [
        Column("curriculum", method_names(where)),
        *(Column(k, texts(where[k])) for k in ("model", "hardware") if where[k].nunique() > 1),
        *([Column("ranks", texts(where["world_size"]), number=True)] if where["world_size"].nunique() > 1 else []),
        Column("batch", [str(int(b)) for b in where["global_batch_size"]], number=True),
    ]
    for start in sorted(speeds.columns):
        inside = rows.loc[rows["floor"] == start, "seqlen"]
        low, high = int(inside.min()), int(inside.max())
        head = str(low) if low == high else f"{low}–{high}"
        columns.append(Column(head, numbers(speeds[start], 0), number=True))
    return Table("Tokens a second at sequence lengths of so many tokens", columns, "No two training steps yet.")


def _hours(head: str, values: Iterable[Any], unit: ClockUnit, like: Iterable[Any] = ()) -> Column:
    """Rank-hours in the page's unit, at the precision that this column and the one `like` it need."""
    shown, other = ([None if v is None else float(v) * unit.per_hour for v in column] for column in (values, like))
    return Column(f"{head} ({unit.suffix})", numbers(shown, min(3, decimals_for([*shown, *other]))), number=True)


def _runs(break_even: float | None) -> str:
    if break_even is None:
        return "–"
    return f"{break_even:,.0f}" if math.isfinite(break_even) else "never"
