"""The report's tables: numbers right-aligned at one precision down a column, units in the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from analysis.stats.correlation import MEASURES
from analysis.stats.crossings import METHODS
from analysis.stats.intervals import METHOD_WORDS
from analysis.tables import Column, Table
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
    finite = [p for p in points if p is not None]
    return bool(finite) and (len(finite) < len(points) or max(finite) - min(finite) > DISAGREE)


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
