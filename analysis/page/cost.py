"""The page's section on clocks and cost: whether seconds are comparable, hours and money, tuning, throughput."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import figures
from analysis.cost.hours import ClockUnit, Cost
from analysis.figures import Figure
from analysis.page.columns import column_if_any, decimals_for, numbers, percent_column, texts, where_columns
from analysis.schema import method_names
from analysis.tables import Column, Table


@dataclass(frozen=True)
class Section:
    """Values of cost.html.jinja."""

    known: bool
    """Whether any run's hours are known: its number of ranks and its seconds."""
    timed: bool
    """Whether training seconds are recorded."""
    clocks: str
    hour_word: str
    tuned: bool
    """Whether any cell is charged for tuning."""
    price: float | None
    """Money per hour of a rank."""
    notes: tuple[str, ...]
    cells: Table
    runs: Table
    throughput: Table


def section(cost: Cost) -> Section:
    """The section's values."""
    return Section(
        known=_known(cost),
        timed=cost.timed,
        clocks=clocks_in_words(cost.runs),
        hour_word=cost.unit.hour_word,
        tuned=any(cell.tuning_rank_hours for cell in cost.cells),
        price=cost.price,
        notes=tuple(cost.notes),
        cells=cost_cells_table(cost),
        runs=cost_runs_table(cost),
        throughput=throughput_table(cost.throughput),
    )


def plots(cost: Cost, runs: pd.DataFrame) -> dict[str, Figure]:
    """The section's figures by the ids of their places in it; empty if no hours are known."""
    if not _known(cost):
        return {}
    styles = figures.run_styles(runs)
    colors, dashes = (dict(zip(styles[k], styles[v], strict=True)) for k, v in (("method", "color"), ("batch", "dash")))
    return {
        "hours": figures.hours_spent(cost.totals, cost.unit.word, cost.unit.per_hour, colors),
        "throughput": figures.throughput_by_length(cost.throughput, colors, dashes),
    }


def _known(cost: Cost) -> bool:
    return cost.runs.empty or bool(cost.runs["rank_hours"].notna().any())


def clocks_in_words(runs: pd.DataFrame) -> str:
    """The hardware of the runs: 'All runs: 1 rank on NVIDIA H100, bf16.', or how many runs on which."""
    trained = runs[runs["rank_hours"] != 0]  # NaN: trained on an unknown number of ranks
    if trained.empty:
        return "No run has started yet."
    clocks = trained[["world_size", "hardware", "precision"]].value_counts(sort=True)
    words = [_clock(*key) for key in clocks.index]
    if len(words) == 1:
        which = (
            f"All {len(trained)} runs" if len(trained) == len(runs) else f"The {len(trained)} runs that have started"
        )
        return f"{which if len(trained) > 1 else 'The run that has started'}: {words[0]}."
    counted = [f"{n} on {word}" for n, word in zip(clocks, words, strict=True)]
    return f"Runs by clock: {'; '.join(counted)}. Differences in seconds between them include those of the machines."


def _clock(ranks: int, hardware: str, precision: str) -> str:
    count = f"{ranks} rank{'s' * (ranks != 1)}" if ranks else "an unknown number of ranks"
    return f"{count} of {hardware or 'unknown hardware'}{', ' + precision if precision else ''}"


def cost_cells_table(cost: Cost) -> Table:
    """Hours to the target of each cell, and the hours saved, by the runs alone and with everything counted."""
    names = ("curriculum", "variant", "global_batch_size", "lr")
    places = {name: [getattr(c.cell, name) for c in cost.cells] for name in names}
    rows = pd.DataFrame({"named": [c.cell.label for c in cost.cells], **places})
    unit = cost.unit
    ours, theirs, lost, theirs_lost, tuned = (
        [getattr(c, k) for c in cost.cells]
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
        percent_column(f"{unit.hour_word}s saved, runs alone", (c.saving_alone for c in cost.cells)),
        percent_column("everything counted", (c.saving_counted for c in cost.cells)),
    ]
    if any((*lost, *theirs_lost)):
        columns += [
            _hours("rolled back", lost, unit, like=theirs_lost),
            _hours("rolled back, baseline", theirs_lost, unit, like=lost),
        ]
    if any(tuned):
        columns += [
            _hours("tuning", tuned, unit),
            Column("runs to pay it back", [_runs(c.break_even) for c in cost.cells], number=True),
        ]
    if cost.price is not None:
        alone, counted = (
            [None if (v := getattr(c, k)) is None else v * cost.price for c in cost.cells]
            for k in ("saved_rank_hours", "saved_rank_hours_counted")
        )
        decimals = decimals_for([*alone, *counted])
        columns += [
            Column("money saved a run, alone", numbers(alone, decimals, sign=True), number=True),
            Column("money, everything counted", numbers(counted, decimals, sign=True), number=True),
        ]
    columns += [
        Column("reached", [f"{c.reached} of {c.seeds}" for c in cost.cells], number=True),
        *column_if_any("unlike clocks", [c.unlike for c in cost.cells]),
    ]
    return Table("Hours to the target by cell, mean over seeds", columns, "No curriculum run to compare yet.")


def cost_runs_table(cost: Cost) -> Table:
    """Hours of every run, with evaluations and lost attempts apart; clocks if they differ."""
    runs, unit = cost.runs, cost.unit
    columns = [*where_columns(runs), _hours("training", runs["rank_hours"], unit)]
    if (runs["attempts"] > 1).any() or runs["lost_rank_hours"].any():
        columns += [
            Column("attempts", [str(n) if n else "–" for n in runs["attempts"]], number=True),
            _hours("rolled back", runs["lost_rank_hours"], unit),
        ]
    columns.append(_hours("evaluation", runs["eval_rank_hours"], unit))
    if cost.price is not None:
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
    """Tokens per second by curriculum and batch size, over lengths from one power of two to the next."""
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
    return Table("Tokens per second by sequence length (tokens)", columns, "Fewer than two training steps yet.")


def _hours(head: str, values: Iterable[Any], unit: ClockUnit, like: Iterable[Any] = ()) -> Column:
    """Rank-hours in the page's unit, at the precision that this column and the one `like` it need."""
    shown, other = ([None if v is None else float(v) * unit.per_hour for v in column] for column in (values, like))
    return Column(f"{head} ({unit.suffix})", numbers(shown, min(3, decimals_for([*shown, *other]))), number=True)


def _runs(break_even: float | None) -> str:
    if break_even is None:
        return "–"
    return f"{break_even:,.0f}" if math.isfinite(break_even) else "never"
