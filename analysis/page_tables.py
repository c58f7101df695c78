"""The report's tables as HTML: numbers right-aligned at one precision down a column, units in the head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import figures
from analysis.cost import ClockUnit, Cost
from analysis.figures import TimeUnit


def cells_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Savings of each cell of the verdict, seeds put together."""
    rows = pd.DataFrame(cells, columns=["named", "curriculum", "variant", "global_batch_size", "lr"])
    columns = [
        *_where(rows, seed=False),
        _percents("tokens saved", (c["token_saving"] for c in cells)),
        _interval(cells, "token_saving"),
        _percents("time saved", (c["time_saving"] for c in cells)),
        _interval(cells, "time_saving"),
        _Column("reached", [f"{c['reached']} of {c['of']}" for c in cells], number=True),
        _perplexities("target ppl", (c["target_ppl"] for c in cells)),
        _percents("tokens saved against the best baseline", (c["vs_best_token_saving"] for c in cells)),
        *_notes(c["note"] for c in cells),
    ]
    return _table("Savings by cell, over seeds", columns, "No curriculum run has a baseline to be compared with yet.")


def savings_table(savings: pd.DataFrame, unit: TimeUnit) -> str:
    """Every curriculum run against its baselines."""
    columns = [
        *_where(savings),
        _perplexities("target ppl", savings["target_ppl"]),
        _tokens("tokens to target", savings["tokens_to_target"], over=savings["baseline_tokens"]),
        _tokens("baseline tokens", savings["baseline_tokens"]),
        _percents("tokens saved", savings["token_saving"]),
        _percents("at most", savings["token_saving_bound"]),
        _times("time to target", savings["seconds_to_target"], unit),
        _times("baseline time", savings["baseline_seconds"], unit),
        _percents("time saved", savings["time_saving"]),
        _perplexities("best baseline ppl", savings["vs_best_target_ppl"]),
        _percents("tokens saved against it", savings["vs_best_token_saving"]),
        _percents("time saved against it", savings["vs_best_time_saving"]),
        *_notes(savings["note"]),
        _Column("run", _texts(savings["run_id"])),
    ]
    return _table("Savings by run", columns, "No curriculum run to compare yet.")


def stability_table(stability: pd.DataFrame) -> str:
    """Loss ratios of each cell, seeds put together."""
    keys = ["named", "curriculum", "variant", "global_batch_size", "lr"]
    cells = (
        stability.assign(variant=stability["variant"].fillna(""))
        .groupby(keys, sort=False, as_index=False)
        .agg(
            runs=("run_id", "size"),
            diverged=("diverged", "sum"),
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
        _Column("max loss ratio", _numbers(cells["ratio"], 2), number=True),
        _Column("steps above 1.2", _numbers(cells["above_2"], 0), number=True),
        _Column("steps above 1.5", _numbers(cells["above_5"], 0), number=True),
        _Column("of steps", _numbers(cells["steps"], 0), number=True),
    ]
    return _table("Stability by cell, over seeds: largest ratio, summed steps", columns, "No training step yet.")


def stability_runs_table(stability: pd.DataFrame) -> str:
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
    return _table("Stability by run", columns, "No training step yet.")


def runs_table(runs: pd.DataFrame, unit: TimeUnit) -> str:
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
    return _table("Final values, tokens and training time of every run", columns, "No run yet.")


def cost_cells_table(found: Cost) -> str:
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
            _Column("everything counted", _numbers(counted, decimals, sign=True), number=True),
        ]
    columns += [
        _Column("reached", [f"{c['reached']} of {c['of']}" for c in found.cells], number=True),
        *_column_if_any("unlike clocks", [c["unlike"] for c in found.cells]),
    ]
    return _table("Hours to the target by cell, mean over seeds", columns, "No curriculum run to compare yet.")


def cost_runs_table(found: Cost) -> str:
    """What every run took, evaluations and lost attempts apart."""
    runs, unit = found.runs, found.unit
    columns = [
        *_where(runs),
        _Column("state", _states(runs["state"])),
        _Column("attempts", [str(n) if n else "–" for n in runs["attempts"]], number=True),
        _hours("training", runs["rank_hours"], unit),
        _hours("rolled back", runs["lost_rank_hours"], unit),
        _hours("evaluation", runs["eval_rank_hours"], unit),
    ]
    if found.price is not None:
        columns.append(_Column("money, all three", _numbers(runs["money"], _decimals(runs["money"])), number=True))
    columns += [
        _Column("ranks", [str(int(n)) if n > 0 else "–" for n in runs["world_size"].fillna(0)], number=True),
        _Column("precision", _texts(runs["precision"])),
        _Column("hardware", _texts(runs["hardware"])),
        _Column("run", _texts(runs["run_id"])),
    ]
    return _table("Hours by run", columns, "Nothing has been trained yet.")


def throughput_table(throughput: pd.DataFrame) -> str:
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
    return _table("Tokens a second at sequence lengths of so many tokens", columns, "No two training steps yet.")


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


class _Column(NamedTuple):
    """A table column: its head (with the unit), its cells as text, and whether they are numbers."""

    head: str
    cells: Sequence[str]
    number: bool = False


def _table(caption: str, columns: Sequence[_Column], empty: str) -> str:
    """An HTML table inside a region that scrolls sideways by itself; ``empty`` is said where there is no row."""
    columns = [c for c in columns if c.cells]
    if not columns:
        return f'<p class="nothing">{escape(empty)}</p>'
    css = [' class="n"' if c.number else "" for c in columns]
    head = "".join(f'<th scope="col"{k}>{escape(c.head)}</th>' for c, k in zip(columns, css, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(text)}</td>" for text, k in zip(row, css, strict=True)) + "</tr>\n"
        for row in zip(*(c.cells for c in columns), strict=True)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


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


def _interval(cells: Sequence[Mapping[str, Any]], name: str) -> _Column:
    lows = _numbers((c[f"{name}_low"] for c in cells), 1, 100, sign=True)
    highs = _numbers((c[f"{name}_high"] for c in cells), 1, 100, sign=True)
    spans = ["–" if "–" in (low, high) else f"{low} to {high}" for low, high in zip(lows, highs, strict=True)]
    return _Column("interval (%)", spans, number=True)
