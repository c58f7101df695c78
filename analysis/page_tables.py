"""The report's tables: numbers right-aligned at one precision down a column, units in the head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import figures
from analysis.correlation import MEASURES
from analysis.cost import ClockUnit, Cost
from analysis.figures import TimeUnit
from analysis.frontier import Along, edge_words, multiple_words, plain_rows, proportion, select, short
from analysis.intervals import METHOD_WORDS
from analysis.tables import Column as _Column
from analysis.tables import Table
from analysis.verdict import DISAGREE, disagree

_SIDES = {"at_most": "≤", "at_least": "≥"}
_CALLED = {"saved": "saved", "cost": "cost more", "undecided": "undecided"}


def cells_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Savings of each cell of the verdict, seeds put together."""
    rows = pd.DataFrame(cells, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    hours_differ = any(c["gpu_hour_saving"] != c["time_saving"] for c in cells)
    columns = [
        *_where(rows, seed=False),
        _saved("tokens saved", cells, "token_saving"),
        _interval(cells, "token_saving"),
        _Column("called", [_CALLED.get(c["difference"] or "", "–") for c in cells]),
        _Column("p (Holm)", [_p(c["token_p_holm"]) for c in cells], number=True),
        _saved("time saved", cells, "time_saving"),
        _interval(cells, "time_saving"),
        *([_saved("GPU-hours saved", cells, "gpu_hour_saving")] if hours_differ else []),
        *([_interval(cells, "gpu_hour_saving")] if hours_differ else []),
        _Column("arrived", [f"{c['reached']} of {c['of']}" for c in cells], number=True),
        _perplexities("target ppl", (c["target_ppl"] for c in cells)),
        _percents("tokens saved against the best baseline", (c["vs_best_token_saving"] for c in cells)),
        *_notes(c["note"] for c in cells),
    ]
    methods = sorted({METHOD_WORDS[c["interval_method"]] for c in cells if c["interval_method"]})
    how = f"; intervals: {', '.join(methods)}" if methods else ""
    return Table(
        f"Savings by cell, over seeds{how}", columns, "No curriculum run has a baseline to be compared with yet."
    )


def deepest_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Savings of each cell at the deepest target that all its runs reached."""
    known = [c for c in cells if c["deepest"]]
    rows = pd.DataFrame(known, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    deepest = [c["deepest"] for c in known]
    columns = [
        *_where(rows, seed=False),
        _perplexities("deepest ppl", (d["target_ppl"] for d in deepest)),
        _percents("tokens saved", (d["token_saving"] for d in deepest)),
        _interval(deepest, "token_saving"),
        _percents("time saved", (d["time_saving"] for d in deepest)),
        _interval(deepest, "time_saving"),
        _Column("seeds", [str(d["n"]) for d in deepest], number=True),
    ]
    words = "At the deepest perplexity that all runs of a cell reached: nothing is censored here"
    return Table(words, columns, "No target that all runs of a cell reached.")


def crossings_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Each cell's token saving by how a crossing is read, and where that matters."""
    rows = pd.DataFrame(cells, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    columns = [
        *_where(rows, seed=False),
        _percents("first evaluation at the target", (c["token_saving_first"] for c in cells)),
        _percents("first crossing, interpolated", (c["token_saving_interpolate"] for c in cells)),
        _percents("last crossing, interpolated", (c["token_saving_sustained"] for c in cells)),
        _Column("", [f"differ by more than {DISAGREE * 100:.0f} points" if disagree(c) else "" for c in cells]),
    ]
    return Table("Tokens saved, by how a crossing is read", columns, "Nothing to compare yet.")


def savings_table(savings: pd.DataFrame, unit: TimeUnit) -> Table:
    """Every curriculum run against its baselines."""
    columns = [
        *_where(savings),
        _perplexities("target ppl", savings["target_ppl"]),
        _tokens("tokens to target", savings["tokens_to_target"], over=savings["baseline_tokens"]),
        _tokens("baseline tokens", savings["baseline_tokens"]),
        _percents("tokens saved", savings["token_saving"]),
        _Column(
            "bound (%)",
            [
                "–" if c not in _SIDES else f"{_SIDES[c]} {n}"
                for c, n in zip(
                    savings["censored"], _numbers(savings["token_saving_bound"], 1, 100, sign=True), strict=True
                )
            ],
            number=True,
        ),
        _times("time to target", savings["seconds_to_target"], unit),
        _times("baseline time", savings["baseline_seconds"], unit),
        _percents("time saved", savings["time_saving"]),
        _perplexities("best baseline ppl", savings["vs_best_target_ppl"]),
        _percents("tokens saved against it", savings["vs_best_token_saving"]),
        _percents("time saved against it", savings["vs_best_time_saving"]),
        *_notes(savings["note"]),
        _Column("run", _texts(savings["run_id"])),
    ]
    return Table("Savings by run", columns, "No curriculum run to compare yet.")


def stability_table(stability: pd.DataFrame) -> Table:
    """Loss ratios of each cell, seeds put together."""
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
        *_where(cells, seed=False),
        _Column("runs", _numbers(cells["runs"], 0), number=True),
        _Column("diverged", [f"× {int(d)}" if d else "0" for d in cells["diverged"]], number=True),
        _Column("diverged, 95% interval (%)", _shares(cells["diverged"], cells["finished"]), number=True),
        _Column("max loss ratio", _numbers(cells["ratio"], 2), number=True),
        _Column("steps above 1.2", _numbers(cells["above_2"], 0), number=True),
        _Column("steps above 1.5", _numbers(cells["above_5"], 0), number=True),
        _Column("of steps", _numbers(cells["steps"], 0), number=True),
    ]
    return Table("Stability by cell, over seeds: largest ratio, summed steps", columns, "No training step yet.")


def stability_runs_table(stability: pd.DataFrame) -> Table:
    """Loss ratios of every run."""
    columns = [
        *_where(stability),
        _Column("state", _states(stability["state"])),
        _Column("max loss ratio", _numbers(stability["max_loss_ratio"], 2), number=True),
        _Column("steps above 1.2", _numbers(stability["steps_above_1_2"], 0), number=True),
        _Column("steps above 1.5", _numbers(stability["steps_above_1_5"], 0), number=True),
        _Column("of steps", _numbers(stability["steps"], 0), number=True),
        _Column("run", _texts(stability["run_id"])),
    ]
    return Table("Stability by run", columns, "No training step yet.")


def frontier_table(table: pd.DataFrame, along: Along) -> Table:
    """Where stability ends along learning rates or batches, by both criteria; `table` as from frontiers()."""
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
        _Column(at, [short(r["at"]) for r in rows], number=True),
        _Column("curriculum", figures.method_names(pd.DataFrame(rows))),
        _Column(f"largest {what} without divergence", [edge_words(r) for r in rows], number=True),
        _Column("multiple of the baseline's", [_times_words(r) for r in rows], number=True),
        _Column("ratio of the edges", [_between(r) for r in rows], number=True),
        _Column(f"largest {what} without a loss ratio above {allowed}", [edge_words(r) for r in calm], number=True),
        _Column("multiple of the baseline's", [_times_words(r) for r in calm], number=True),
        _Column(f"{what} tested", [r["tested"].replace(" ", ", ") for r in rows], number=True),
        _Column("seeds", [str(r["seeds"]) for r in rows], number=True),
        *_notes(notes),
    ]
    return Table(f"Largest {what} stable on every seed, by {at}", columns, "No run yet.")


def _times_words(row: Mapping[str, Any]) -> str:
    return multiple_words(row["multiple"], row["multiple_relation"]) or "–"


def _between(row: Mapping[str, Any]) -> str:
    """What the grid's spacing allows for the ratio of the true edges."""
    above, below = row["multiple_above"], row["multiple_below"]
    if above is not None and below is not None:
        return f"{above:.3g}x to {below:.3g}x"
    if above is not None:
        return f"above {above:.3g}x"
    return f"below {below:.3g}x" if below is not None else "–"


def _shares(counts: Iterable[int], of: Iterable[int]) -> list[str]:
    intervals = [proportion(int(k), int(n))[1:] for k, n in zip(counts, of, strict=True)]
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
        _Column("curriculum", names),
        _Column("Adam's variance", [MEASURES[m] for m in p["measure"]]),
        _Column("Pearson", _numbers(p["r"], 2, sign=True), number=True),
        _Column("95% interval", _spans(p), number=True),
        _Column("p, adjusted", _p_values(p["p_holm"]), number=True),
        _Column("Spearman", _numbers(s["r"], 2, sign=True), number=True),
        _Column("95% interval", _spans(s), number=True),
        _Column("p, adjusted", _p_values(s["p_holm"]), number=True),
        _Column("cells", [f"{u} of {o}" for u, o in zip(p["units"], p["of"], strict=True)], number=True),
        _Column("points", _numbers(p["points"], 0), number=True),
    ]
    return Table("Correlation of a step's loss ratio with Adam's variance", columns, "No run yet.")


def _names(rows: pd.DataFrame) -> list[str]:
    return figures.method_names(rows.assign(curriculum=rows["curriculum"].fillna("")))


def _spans(rows: pd.DataFrame) -> list[str]:
    lows, highs = _numbers(rows["low"], 2, sign=True), _numbers(rows["high"], 2, sign=True)
    return ["–" if "–" in (a, b) else f"{a} to {b}" for a, b in zip(lows, highs, strict=True)]


def _p_values(values: Iterable[float]) -> list[str]:
    return ["–" if math.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}") for p in values]


def runs_table(runs: pd.DataFrame, unit: TimeUnit) -> Table:
    """Every run: final values, tokens, time."""
    columns = [
        *_where(runs),
        *([_Column("model", _texts(runs["model"]))] if runs["model"].nunique() > 1 else []),
        _Column("state", _states(runs["state"])),
        _perplexities("final ppl", runs["final_ppl"]),
        _perplexities("best ppl", runs["best_ppl"]),
        _tokens("tokens", runs["consumed_tokens"], over=runs["token_budget"]),
        _tokens("budget", runs["token_budget"]),
        _times("time", runs["train_seconds"], unit),
        _Column("tok/s", _numbers(runs["tokens_per_second"], 0), number=True),
        _Column("lengths", _texts(runs["shape"])),
        _Column("run", _texts(runs["run_id"])),
    ]
    return Table("Final values, tokens and training time of every run", columns, "No run yet.")


def cost_cells_table(found: Cost) -> Table:
    """Hours to the target of each cell, what they saved, and what is left of that once everything is counted."""
    rows = pd.DataFrame(found.cells, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    unit = found.unit
    ours, theirs, lost, theirs_lost, tuned = (
        [c[k] for c in found.cells]
        for k in (
            "rank_hours_to_target",
            "baseline_rank_hours_to_target",
            "lost_rank_hours",
            "baseline_lost_rank_hours",
            "tuning_rank_hours",
        )
    )
    columns = [
        *_where(rows, seed=False),
        _hours("to target", ours, unit, like=theirs),
        _hours("baseline", theirs, unit, like=ours),
        _percents(f"{unit.hour_word}s saved, runs alone", (c["saving_alone"] for c in found.cells)),
        _percents("everything counted", (c["saving_counted"] for c in found.cells)),
    ]
    if any((*lost, *theirs_lost)):
        columns += [
            _hours("rolled back", lost, unit, like=theirs_lost),
            _hours("rolled back, baseline", theirs_lost, unit, like=lost),
        ]
    if any(tuned):
        columns += [
            _hours("tuning", tuned, unit),
            _Column("runs to pay it back", [_runs(c["break_even"]) for c in found.cells], number=True),
        ]
    if found.price is not None:
        alone, counted = (
            [None if c[k] is None else c[k] * found.price for c in found.cells]
            for k in ("saved_rank_hours", "saved_rank_hours_counted")
        )
        decimals = _decimals([*alone, *counted])
        columns += [
            _Column("money saved a run, alone", _numbers(alone, decimals, sign=True), number=True),
            _Column("money, everything counted", _numbers(counted, decimals, sign=True), number=True),
        ]
    columns += [
        _Column("reached", [f"{c['reached']} of {c['of']}" for c in found.cells], number=True),
        *_column_if_any("unlike clocks", [c["unlike"] for c in found.cells]),
    ]
    return Table("Hours to the target by cell, mean over seeds", columns, "No curriculum run to compare yet.")


def cost_runs_table(found: Cost) -> Table:
    """What every run took, evaluations and lost attempts apart; clocks where they differ."""
    runs, unit = found.runs, found.unit
    columns = [*_where(runs), _hours("training", runs["rank_hours"], unit)]
    if (runs["attempts"] > 1).any() or runs["lost_rank_hours"].any():
        columns += [
            _Column("attempts", [str(n) if n else "–" for n in runs["attempts"]], number=True),
            _hours("rolled back", runs["lost_rank_hours"], unit),
        ]
    columns.append(_hours("evaluation", runs["eval_rank_hours"], unit))
    if found.price is not None:
        columns.append(_Column("money, in all", _numbers(runs["money"], _decimals(runs["money"])), number=True))
    clocks = {
        "world_size": _Column(
            "ranks", [str(int(n)) if n > 0 else "–" for n in runs["world_size"].fillna(0)], number=True
        ),
        "precision": _Column("precision", _texts(runs["precision"])),
        "hardware": _Column("hardware", _texts(runs["hardware"])),
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
        _Column("curriculum", figures.method_names(where)),
        *(_Column(k, _texts(where[k])) for k in ("model", "hardware") if where[k].nunique() > 1),
        *([_Column("ranks", _texts(where["world_size"]), number=True)] if where["world_size"].nunique() > 1 else []),
        _Column("batch", [str(int(b)) for b in where["global_batch_size"]], number=True),
    ]
    for start in sorted(speeds.columns):
        inside = rows.loc[rows["floor"] == start, "seqlen"]
        low, high = int(inside.min()), int(inside.max())
        head = str(low) if low == high else f"{low}–{high}"
        columns.append(_Column(head, _numbers(speeds[start], 0), number=True))
    return Table("Tokens a second at sequence lengths of so many tokens", columns, "No two training steps yet.")


def _hours(head: str, values: Iterable[Any], unit: ClockUnit, like: Iterable[Any] = ()) -> _Column:
    """Rank-hours in the page's unit, at the precision that this column and the one `like` it need."""
    shown, other = ([None if v is None else float(v) * unit.per_hour for v in column] for column in (values, like))
    return _Column(f"{head} ({unit.suffix})", _numbers(shown, min(3, _decimals([*shown, *other]))), number=True)


def _runs(break_even: float | None) -> str:
    if break_even is None:
        return "–"
    return f"{break_even:,.0f}" if math.isfinite(break_even) else "never"


def _column_if_any(head: str, cells: Sequence[str]) -> list[_Column]:
    return [_Column(head, cells)] if any(cells) else []


def _where(rows: pd.DataFrame, *, seed: bool = True) -> list[_Column]:
    """The columns that say which run or cell a row is about."""
    names = [_Column("cell", _texts(rows["named"]))] if rows["named"].astype(bool).any() else []
    columns = [
        *names,
        _Column("curriculum", figures.method_names(rows)),
        _Column("batch", [str(int(b)) for b in rows["global_batch_size"]], number=True),
        _Column("LR", [figures.format_lr(float(lr)) for lr in rows["lr"]], number=True),
    ]
    return [*columns, _Column("seed", [str(int(s)) for s in rows["seed"]], number=True)] if seed else columns


def _notes(notes: Iterable[object]) -> list[_Column]:
    texts = _texts(notes)
    return [_Column("note", texts)] if any(texts) else []


def _states(states: Iterable[object]) -> list[str]:
    return ["× diverged" if state == "DIVERGED" else str(state).lower() for state in states]


def _texts(values: Iterable[object]) -> list[str]:
    return ["" if v is None or v != v else str(v) for v in values]


def _numbers(values: Iterable[Any], decimals: int, scale: float = 1.0, *, sign: bool = False) -> list[str]:
    """Numbers at one precision down the column; an en dash where there is none."""
    out = []
    for value in values:
        number = float(value) * scale if value is not None and not pd.isna(value) else math.nan
        text = f"{number:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
        out.append(text if math.isfinite(number) else "–")
    return out


def _decimals(values: Iterable[Any]) -> int:
    """Decimals, 4 at most, that give the smallest magnitude in a column 3 significant digits."""
    sizes = [abs(float(v)) for v in values if v is not None and not pd.isna(v) and math.isfinite(float(v)) and v != 0]
    return min(4, max(0, 2 - math.floor(math.log10(min(sizes))))) if sizes else 0


def _perplexities(head: str, values: Iterable[Any]) -> _Column:
    values = list(values)
    return _Column(head, _numbers(values, _decimals(values)), number=True)


def _tokens(head: str, values: pd.Series[Any], over: pd.Series[Any] | None = None) -> _Column:
    """Tokens in K, M or B, chosen by the largest value of ``over`` (default: the column itself)."""
    largest = float(np.nanmax((over if over is not None else values).to_numpy(dtype=float), initial=0.0))
    suffix, scale = next(((s, 10.0**-p) for s, p in (("B", 9), ("M", 6), ("K", 3)) if largest >= 10**p), ("", 1.0))
    shown = f"{head} ({suffix})" if suffix else head
    return _Column(shown, _numbers(values, 3 if suffix else 0, scale), number=True)


def _times(head: str, values: pd.Series[Any], unit: TimeUnit) -> _Column:
    largest = float(np.nanmax(values.to_numpy(dtype=float), initial=0.0)) / unit.seconds
    return _Column(
        f"{head} ({unit.suffix})", _numbers(values, 2 if largest < 100 else 1, 1 / unit.seconds), number=True
    )


def _percents(head: str, values: Iterable[Any]) -> _Column:
    return _Column(f"{head} (%)", _numbers(values, 1, 100, sign=True), number=True)


def _saved(head: str, cells: Sequence[Mapping[str, Any]], name: str) -> _Column:
    """Savings in percent; a bound where not every run arrived."""
    points = _numbers((c[name] for c in cells), 1, 100, sign=True)
    bounds = _numbers((c[f"{name}_bound"] for c in cells), 1, 100, sign=True)
    texts = [
        f"{_SIDES[c['censored']]} {bound}" if point == "–" and bound != "–" and c["censored"] in _SIDES else point
        for c, point, bound in zip(cells, points, bounds, strict=True)
    ]
    return _Column(f"{head} (%)", texts, number=True)


def _interval(cells: Sequence[Mapping[str, Any]], name: str) -> _Column:
    lows = _numbers((c[f"{name}_low"] for c in cells), 1, 100, sign=True)
    highs = _numbers((c[f"{name}_high"] for c in cells), 1, 100, sign=True)
    spans = [_span(low, high) for low, high in zip(lows, highs, strict=True)]
    return _Column("95% interval (%)", spans, number=True)


def _span(low: str, high: str) -> str:
    if low == high == "–":
        return "–"
    if "–" in (low, high):
        return f"≤ {high}" if low == "–" else f"≥ {low}"
    return f"{low} to {high}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
