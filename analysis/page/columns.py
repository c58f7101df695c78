"""Columns of the report's tables: formats of numbers, notes and cell names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import TimeUnit
from analysis.schema import method_names
from analysis.tables import Column
from cl_bench.runs.identity import short_float

SIDES = {"at_most": "≤", "at_least": "≥"}
"""Signs of bounds."""


def column_if_any(head: str, cells: Sequence[str]) -> list[Column]:
    """The column, unless every cell is empty."""
    return [Column(head, cells)] if any(cells) else []


def where_columns(rows: pd.DataFrame, *, seed: bool = True) -> list[Column]:
    """The columns that name a row's run or cell."""
    names = [Column("cell", texts(rows["named"]))] if rows["named"].astype(bool).any() else []
    columns = [
        *names,
        Column("curriculum", method_names(rows)),
        Column("batch", [str(int(b)) for b in rows["global_batch_size"]], number=True),
        Column("LR", [short_float(float(lr)) for lr in rows["lr"]], number=True),
    ]
    return [*columns, Column("seed", [str(int(s)) for s in rows["seed"]], number=True)] if seed else columns


def note_columns(notes: Iterable[object]) -> list[Column]:
    """A column of notes, or nothing if all are empty."""
    written = texts(notes)
    return [Column("note", written)] if any(written) else []


def state_texts(states: Iterable[object]) -> list[str]:
    """States in words."""
    return ["× diverged" if state == "DIVERGED" else str(state).lower() for state in states]


def texts(values: Iterable[object]) -> list[str]:
    """Values as text; empty for None and NaN."""
    return ["" if v is None or v != v else str(v) for v in values]


def numbers(values: Iterable[Any], decimals: int, scale: float = 1.0, *, sign: bool = False) -> list[str]:
    """Numbers at one precision down the column; an en dash for None, NaN and infinity."""
    out = []
    for value in values:
        number = float(value) * scale if value is not None and not pd.isna(value) else math.nan
        text = f"{number:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
        out.append(text if math.isfinite(number) else "–")
    return out


def decimals_for(values: Iterable[Any]) -> int:
    """Decimals, at most 4, that give the smallest magnitude in a column 3 significant digits."""
    sizes = [abs(float(v)) for v in values if v is not None and not pd.isna(v) and math.isfinite(float(v)) and v != 0]
    return min(4, max(0, 2 - math.floor(math.log10(min(sizes))))) if sizes else 0


def perplexity_column(head: str, values: Iterable[Any]) -> Column:
    """Perplexities at one precision."""
    values = list(values)
    return Column(head, numbers(values, decimals_for(values)), number=True)


def token_column(head: str, values: pd.Series[Any], over: pd.Series[Any] | None = None) -> Column:
    """Tokens in K, M or B, chosen by the largest value of ``over`` (default: the column itself)."""
    largest = float(np.nanmax((over if over is not None else values).to_numpy(dtype=float), initial=0.0))
    suffix, scale = next(((s, 10.0**-p) for s, p in (("B", 9), ("M", 6), ("K", 3)) if largest >= 10**p), ("", 1.0))
    shown = f"{head} ({suffix})" if suffix else head
    return Column(shown, numbers(values, 3 if suffix else 0, scale), number=True)


def time_column(head: str, values: pd.Series[Any], unit: TimeUnit) -> Column:
    """Times in the page's unit."""
    largest = float(np.nanmax(values.to_numpy(dtype=float), initial=0.0)) / unit.seconds
    return Column(f"{head} ({unit.suffix})", numbers(values, 2 if largest < 100 else 1, 1 / unit.seconds), number=True)


def without_unknown_times(columns: Sequence[Column]) -> list[Column]:
    """The columns without those of training time that hold no value: seconds were not recorded, or nothing arrived."""
    return [c for c in columns if not (re.search(r"\btime\b", c.head) and set(c.cells) <= {"–"})]


def percent_column(head: str, values: Iterable[Any]) -> Column:
    """Shares in percent, with their sign."""
    return Column(f"{head} (%)", numbers(values, 1, 100, sign=True), number=True)


def saved_column(head: str, cells: Sequence[Mapping[str, Any]], name: str) -> Column:
    """Savings in percent; a bound if not every run arrived."""
    points = numbers((c[name] for c in cells), 1, 100, sign=True)
    bounds = numbers((c[f"{name}_bound"] for c in cells), 1, 100, sign=True)
    texts = [
        f"{SIDES[c['censored']]} {bound}" if point == "–" and bound != "–" and c["censored"] in SIDES else point
        for c, point, bound in zip(cells, points, bounds, strict=True)
    ]
    return Column(f"{head} (%)", texts, number=True)


def interval_column(what: str, cells: Sequence[Mapping[str, Any]], name: str) -> Column:
    """The 95% interval of a saving in `what`; one end if only a bound is known."""
    lows = numbers((c[f"{name}_low"] for c in cells), 1, 100, sign=True)
    highs = numbers((c[f"{name}_high"] for c in cells), 1, 100, sign=True)
    spans = [span(low, high) for low, high in zip(lows, highs, strict=True)]
    return Column(f"{what}, 95% interval (%)", spans, number=True)


def span(low: str, high: str) -> str:
    """An interval from its two ends as text; an en dash if both are."""
    if low == high == "–":
        return "–"
    if "–" in (low, high):
        return f"≤ {high}" if low == "–" else f"≥ {low}"
    return f"{low} to {high}"


def p_text(value: float | None) -> str:
    """A p-value to 3 decimals; an en dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
