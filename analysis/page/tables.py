"""The report's tables: numbers right-aligned at one precision down a column, units in the head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.figures import TimeUnit
from analysis.page.columns import (
    SIDES,
    interval_column,
    note_columns,
    numbers,
    p_text,
    percent_column,
    perplexity_column,
    saved_column,
    span,
    state_texts,
    texts,
    time_column,
    token_column,
    where_columns,
    without_unknown_times,
)
from analysis.schema import method_names
from analysis.stats.boundary import Along, plain_rows, proportion, select, short
from analysis.stats.correlation import MEASURES
from analysis.stats.crossings import METHODS
from analysis.stats.intervals import METHOD_WORDS
from analysis.tables import Column, Table
from analysis.verdict.boundary import boundary_words, multiple_words
from analysis.verdict.caveats import DISAGREE

_DIFFERENCES = {"saved": "saved", "cost": "cost more", "undecided": "not significant"}


def cells_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Savings of each cell of the verdict, over seeds."""
    rows = pd.DataFrame(cells, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    hours_differ = any(c["rank_hour_saving"] not in (None, c["time_saving"]) for c in cells)
    columns = [
        *where_columns(rows, seed=False),
        saved_column("tokens saved", cells, "token_saving"),
        interval_column("tokens", cells, "token_saving"),
        Column("difference", [_DIFFERENCES.get(c["difference"] or "", "–") for c in cells]),
        Column("p (Holm)", [p_text(c["token_p_holm"]) for c in cells], number=True),
        saved_column("time saved", cells, "time_saving"),
        interval_column("time", cells, "time_saving"),
        *([saved_column("rank-hours saved", cells, "rank_hour_saving")] if hours_differ else []),
        *([interval_column("rank-hours", cells, "rank_hour_saving")] if hours_differ else []),
        Column("arrived", [f"{c['reached']} of {c['of']}" for c in cells], number=True),
        perplexity_column("target ppl", (c["target_ppl"] for c in cells)),
        percent_column("tokens saved against the best baseline", (c["vs_best_token_saving"] for c in cells)),
        *note_columns(c["note"] for c in cells),
    ]
    methods = sorted({METHOD_WORDS[c["interval_method"]] for c in cells if c["interval_method"]})
    how = f"; intervals: {', '.join(methods)}" if methods else ""
    return Table(
        f"Savings by cell, over seeds{how}",
        without_unknown_times(columns),
        "No curriculum run has a baseline to be compared with yet.",
    )


def deepest_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Savings of each cell at the deepest target that all its runs reached."""
    compared = [c for c in cells if c["deepest"]]
    rows = pd.DataFrame(compared, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    deepest = [c["deepest"] for c in compared]
    columns = [
        *where_columns(rows, seed=False),
        perplexity_column("deepest ppl", (d["target_ppl"] for d in deepest)),
        percent_column("tokens saved there", (d["token_saving"] for d in deepest)),
        interval_column("tokens", deepest, "token_saving"),
        percent_column("time saved", (d["time_saving"] for d in deepest)),
        interval_column("time", deepest, "time_saving"),
        Column("seeds", [str(d["n"]) for d in deepest], number=True),
        percent_column("tokens saved at each seed's lowest common loss", (c["both_saving"] for c in compared)),
        interval_column("lowest common loss", compared, "both_saving"),
    ]
    words = "Savings without censoring: at the deepest perplexity that all runs of a cell reached, and seed by seed"
    return Table(words, without_unknown_times(columns), "No target was reached by all runs of a cell.")


def crossings_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Each cell's token saving by each reading of a crossing, with a mark where they differ."""
    rows = pd.DataFrame(cells, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    columns = [
        *where_columns(rows, seed=False),
        percent_column("first evaluation at the target", (c["token_saving_first"] for c in cells)),
        percent_column("first crossing, interpolated", (c["token_saving_interpolate"] for c in cells)),
        percent_column("last crossing, interpolated", (c["token_saving_sustained"] for c in cells)),
        Column("", [f"differ by more than {DISAGREE * 100:.0f} points" if _disagree(c) else "" for c in cells]),
    ]
    return Table("Tokens saved, by how a crossing is read", columns, "Nothing to compare yet.")


def _disagree(cell: Mapping[str, Any]) -> bool:
    points = [cell[f"token_saving_{m}"] for m in METHODS]
    known = [p for p in points if p is not None]
    return bool(known) and (len(known) < len(points) or max(known) - min(known) > DISAGREE)


def savings_table(savings: pd.DataFrame, unit: TimeUnit) -> Table:
    """Every curriculum run against its baselines."""
    columns = [
        *where_columns(savings),
        perplexity_column("target ppl", savings["target_ppl"]),
        token_column("tokens to target", savings["tokens_to_target"], over=savings["baseline_tokens"]),
        token_column("baseline tokens", savings["baseline_tokens"]),
        percent_column("tokens saved", savings["token_saving"]),
        Column(
            "bound (%)",
            [
                "–" if c not in SIDES else f"{SIDES[c]} {n}"
                for c, n in zip(
                    savings["censored"], numbers(savings["token_saving_bound"], 1, 100, sign=True), strict=True
                )
            ],
            number=True,
        ),
        time_column("time to target", savings["seconds_to_target"], unit),
        time_column("baseline time", savings["baseline_seconds"], unit),
        percent_column("time saved", savings["time_saving"]),
        perplexity_column("best baseline ppl", savings["vs_best_target_ppl"]),
        percent_column("tokens saved against it", savings["vs_best_token_saving"]),
        percent_column("time saved against it", savings["vs_best_time_saving"]),
        *note_columns(savings["note"]),
        Column("run", texts(savings["run_id"])),
    ]
    return Table("Savings by run", without_unknown_times(columns), "No curriculum run to compare yet.")


def stability_table(stability: pd.DataFrame) -> Table:
    """Loss ratios of each cell, over seeds."""
    keys = ["named", "curriculum", "variant", "global_batch_size", "lr"]
    finished = stability["diverged"].astype(bool) | (stability["state"] == "DONE")
    cells = (
        stability.assign(variant=stability["variant"].fillna(""), finished=finished)
        .groupby(keys, sort=False, as_index=False)
        .agg(
            runs=("run_id", "size"),
            diverged=("diverged", "sum"),
            finished=("finished", "sum"),
            ratio=("max_loss_ratio", "max"),
            above_2=("steps_above_1_2", "sum"),
            above_5=("steps_above_1_5", "sum"),
            steps=("steps", "sum"),
        )
    )
    columns = [
        *where_columns(cells, seed=False),
        Column("runs", numbers(cells["runs"], 0), number=True),
        Column("diverged", [f"× {int(d)}" if d else "0" for d in cells["diverged"]], number=True),
        Column("diverged, 95% interval (%)", _shares(cells["diverged"], cells["finished"]), number=True),
        Column("max loss ratio", numbers(cells["ratio"], 2), number=True),
        Column("steps above 1.2", numbers(cells["above_2"], 0), number=True),
        Column("steps above 1.5", numbers(cells["above_5"], 0), number=True),
        Column("of steps", numbers(cells["steps"], 0), number=True),
    ]
    return Table("Stability by cell, over seeds: largest ratio, summed steps", columns, "No training step yet.")


def stability_runs_table(stability: pd.DataFrame) -> Table:
    """Loss ratios of every run."""
    columns = [
        *where_columns(stability),
        Column("state", state_texts(stability["state"])),
        Column("max loss ratio", numbers(stability["max_loss_ratio"], 2), number=True),
        Column("steps above 1.2", numbers(stability["steps_above_1_2"], 0), number=True),
        Column("steps above 1.5", numbers(stability["steps_above_1_5"], 0), number=True),
        Column("of steps", numbers(stability["steps"], 0), number=True),
        Column("run", texts(stability["run_id"])),
    ]
    return Table("Stability by run", columns, "No training step yet.")


def frontier_table(table: pd.DataFrame, along: Along) -> Table:
    """The stability boundary along learning rates or batches, by both criteria; `table` as from all_boundaries()."""
    rows, calm = (plain_rows(select(table, along, spikes=spikes)) for spikes in (False, True))
    if not rows:
        return Table("Stability frontier", [], "No cell to judge yet.")
    what, at = ("LR", "batch") if along == "lr" else ("batch", "LR")
    allowed = next((f"{r['max_loss_ratio_allowed']:g}" for r in calm), "")
    notes = [
        "; ".join(
            n
            for n in (r["note"], f"not finished: {r['unfinished']} of {r['runs']} runs" if r["unfinished"] else "")
            if n
        )
        for r in rows
    ]
    columns = [
        Column(at, [short(r["at"]) for r in rows], number=True),
        Column("curriculum", method_names(pd.DataFrame(rows))),
        Column(f"largest {what} without divergence", [boundary_words(r) for r in rows], number=True),
        Column("multiple of the baseline's", [_times_words(r) for r in rows], number=True),
        Column("ratio of the boundaries", [_between(r) for r in rows], number=True),
        Column(f"largest {what} without a loss ratio above {allowed}", [boundary_words(r) for r in calm], number=True),
        Column("multiple of the baseline's", [_times_words(r) for r in calm], number=True),
        Column(f"{what} tested", [r["tested"].replace(" ", ", ") for r in rows], number=True),
        Column("seeds", [str(r["seeds"]) for r in rows], number=True),
        *note_columns(notes),
    ]
    return Table(f"Largest {what} stable on every seed, by {at}", columns, "No run yet.")


def _times_words(row: Mapping[str, Any]) -> str:
    return multiple_words(row["multiple"], row["multiple_relation"]) or "–"


def _between(row: Mapping[str, Any]) -> str:
    """The range that the grid's spacing allows for the ratio of the true boundaries."""
    above, below = row["multiple_above"], row["multiple_below"]
    if above is not None and below is not None:
        return f"{above:.3g}x to {below:.3g}x"
    if above is not None:
        return f"above {above:.3g}x"
    return f"below {below:.3g}x" if below is not None else "–"


def _shares(counts: Iterable[int], totals: Iterable[int]) -> list[str]:
    intervals = [proportion(int(k), int(n))[1:] for k, n in zip(counts, totals, strict=True)]
    return ["–" if math.isnan(low) else f"{100 * low:.0f} to {100 * high:.0f}" for low, high in intervals]


def correlation_table(table: pd.DataFrame) -> Table:
    """Correlations of each curriculum and of all runs, by measure; `table` as from correlations()."""
    rows = table[table["level"].isin(["curriculum", "sweep"]) & table["r"].notna()]
    if rows.empty:
        why = dict.fromkeys(str(n) for n in table["note"] if n)
        return Table("Correlations", [], f"No correlation to show: {next(iter(why), 'nothing was measured yet')}.")
    # the sweep's rows last
    rows = rows.assign(last=rows["level"] == "sweep").sort_values("last", kind="stable")
    p, s = (rows[rows["coefficient"] == c].reset_index(drop=True) for c in ("pearson", "spearman"))
    names = [n if level == "curriculum" else "all" for n, level in zip(_names(p), p["level"], strict=True)]
    columns = [
        Column("curriculum", names),
        Column("Adam's variance", [MEASURES[m] for m in p["measure"]]),
        Column("Pearson", numbers(p["r"], 2, sign=True), number=True),
        Column("95% interval", _spans(p), number=True),
        Column("p, adjusted", [p_text(v) for v in p["p_holm"]], number=True),
        Column("Spearman", numbers(s["r"], 2, sign=True), number=True),
        Column("95% interval", _spans(s), number=True),
        Column("p, adjusted", [p_text(v) for v in s["p_holm"]], number=True),
        Column("cells", [f"{u} of {o}" for u, o in zip(p["units"], p["of"], strict=True)], number=True),
        Column("points", numbers(p["points"], 0), number=True),
    ]
    return Table("Correlation of a step's loss ratio with Adam's variance", columns, "No run yet.")


def _names(rows: pd.DataFrame) -> list[str]:
    return method_names(rows.assign(curriculum=rows["curriculum"].fillna("")))


def _spans(rows: pd.DataFrame) -> list[str]:
    lows, highs = numbers(rows["low"], 2, sign=True), numbers(rows["high"], 2, sign=True)
    return [span(low, high) for low, high in zip(lows, highs, strict=True)]


def runs_table(runs: pd.DataFrame, unit: TimeUnit) -> Table:
    """Every run: final values, tokens, time."""
    columns = [
        *where_columns(runs),
        *([Column("model", texts(runs["model"]))] if runs["model"].nunique() > 1 else []),
        Column("state", state_texts(runs["state"])),
        perplexity_column("final ppl", runs["final_ppl"]),
        perplexity_column("best ppl", runs["best_ppl"]),
        token_column("tokens", runs["consumed_tokens"], over=runs["token_budget"]),
        token_column("budget", runs["token_budget"]),
        time_column("time", runs["train_seconds"], unit),
        Column("tok/s", numbers(runs["tokens_per_second"], 0), number=True),
        Column("lengths", texts(runs["shape"])),
        Column("run", texts(runs["run_id"])),
    ]
    return Table("Final values, tokens and training time of every run", without_unknown_times(columns), "No run yet.")
