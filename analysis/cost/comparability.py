"""Timing comparability of runs, and throughput by sequence length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import Row, rows_of, stretches
from analysis.stats.savings import RunSaving

_MOST_NAMED = 3
_DIFFERENCES = (("hardware", "hardware"), ("world_size", "world sizes"), ("precision", "precisions"))
THROUGHPUT_COLUMNS = (
    "curriculum",
    "variant",
    "model",
    "hardware",
    "world_size",
    "global_batch_size",
    "seqlen",
    "steps",
    "tokens",
    "seconds",
    "tokens_per_second",
)


def unlike(run: Mapping[Any, Any], baseline: Mapping[Any, Any]) -> str:
    """The differences in timing conditions between two rows of schema.RUN_COLUMNS, with both values; '' if none.

    Two unknown values count as equal. A run on mixed hardware is comparable with no other: its seconds are a blend.
    """
    return "; ".join(words for _, words in _differences(run, baseline))


def _differences(run: Mapping[Any, Any], baseline: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """(column, words) of each difference."""
    differences = []
    for column, _ in _DIFFERENCES:
        ours, theirs = (_text(row.get(column)) for row in (run, baseline))
        if ours != theirs or ours.startswith("mixed: "):
            ours, theirs = (_with_unit(column, v) for v in (ours, theirs))
            on = "on " if column == "hardware" else ""
            differences.append((column, f"{on}{ours} against {theirs}"))
    return differences


def _with_unit(column: str, value: str) -> str:
    if not value:
        return f"unknown {column.replace('world_size', 'ranks')}"
    return f"{value} rank{'s' * (value != '1')}" if column == "world_size" else value


def _text(value: object) -> str:
    """A value as text, '' if unknown (world size 0, no text)."""
    return "" if value is None or value != value or value == 0 else str(value)


def warnings(runs: pd.DataFrame, savings: Sequence[RunSaving]) -> list[str]:
    """One sentence per kind of difference in timing conditions within pairs whose seconds are compared.

    `runs` has schema.RUN_COLUMNS. A run that has not trained yet has no seconds to compare.
    """
    trained = {str(row["run_id"]): row for row in rows_of(runs[runs["train_seconds"] > 0])}
    paired = [(s.run_id, s.paired.baseline_run_id) for s in savings]
    # Pairs that the first sentences name need no second warning.
    best = [(s.run_id, s.best.baseline_run_id) for s in savings if s.best.baseline_run_id != s.paired.baseline_run_id]
    return _unlike_pairs(trained, paired, "") + _unlike_pairs(trained, best, " with the best baseline")


def _unlike_pairs(rows: Mapping[str, Row], ids: Iterable[tuple[str, str | None]], which: str) -> list[str]:
    pairs = [(rows[run], rows[base]) for run, base in ids if base is not None and run in rows and base in rows]
    examples: dict[str, list[str]] = {column: [] for column, _ in _DIFFERENCES}
    for run, base in pairs:
        for column, words in _differences(run, base):
            examples[column].append(f"{run['curriculum']} b{run['global_batch_size']} {words}")
    sentences = []
    for column, words in _DIFFERENCES:
        if examples[column]:
            distinct = list(dict.fromkeys(examples[column]))
            more = f"; and {len(distinct) - _MOST_NAMED} more" if len(distinct) > _MOST_NAMED else ""
            sentences.append(
                f"Time is compared across {words} in {len(examples[column])} of {len(pairs)} pairs{which}: "
                f"{'; '.join(distinct[:_MOST_NAMED])}{more}."
            )
    return sentences


def throughput(runs: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Tokens per second at each sequence length, by curriculum, batch size, hardware and world size.

    Tokens over seconds of all steps at that length, summed over runs (THROUGHPUT_COLUMNS); a step's seconds are the
    difference to the previous step. The first step after a start is left out: it warms up, and its beginning is not
    recorded. In a curve that records every n-th step, only stretches of one length count.
    """
    keys = ["curriculum", "variant", "model", "hardware", "world_size", "global_batch_size"]
    place = {str(run_id): i for i, run_id in enumerate(runs["run_id"])}
    complete = {"step", "consumed_tokens", "train_seconds", "seqlen"} <= set(train.columns)
    step, tokens, seconds, seqlen, attempt = (
        train[c].to_numpy() if c in train else np.zeros(len(train))
        for c in ("step", "consumed_tokens", "train_seconds", "seqlen", "attempt")
    )
    parts = []
    for run_id, rows in stretches(train) if complete else ():
        if run_id in place:
            summed = _by_length(step[rows], tokens[rows], seconds[rows], seqlen[rows], attempt[rows])
            parts.append(summed.assign(run=place[run_id]))
    if not parts:
        return pd.DataFrame(columns=list(THROUGHPUT_COLUMNS))
    summed = pd.concat(parts, ignore_index=True)
    whose = runs[keys].iloc[summed.pop("run").to_numpy()].reset_index(drop=True)
    table = (
        pd.concat([whose, summed], axis=1)
        .groupby([*keys, "seqlen"], sort=False, dropna=False, as_index=False)
        .sum()
        .sort_values([*keys, "seqlen"], kind="stable", ignore_index=True, key=_order(runs))
    )
    table["tokens_per_second"] = table["tokens"] / table["seconds"]
    return table[list(THROUGHPUT_COLUMNS)]


def _order(runs: pd.DataFrame) -> Any:
    """Curricula in the order of the runs, everything else by value."""
    first = {name: i for i, name in enumerate(dict.fromkeys(runs["curriculum"]))}
    return lambda column: column.map(first) if column.name == "curriculum" else column


def _by_length(
    step: npt.NDArray[Any],
    tokens: npt.NDArray[Any],
    seconds: npt.NDArray[Any],
    seqlen: npt.NDArray[Any],
    attempt: npt.NDArray[Any],
) -> pd.DataFrame:
    """Steps, tokens and seconds at each length, of one run's rows in order."""
    took, moved, steps = np.diff(seconds), np.diff(tokens), np.diff(step)
    usable = np.isfinite(took) & (took > 0) & (moved > 0) & np.isfinite(seqlen[1:]) & (seqlen[1:] > 0)
    usable &= ((steps == 1) | (seqlen[1:] == seqlen[:-1])) & (attempt[1:] == attempt[:-1])
    lengths, at = np.unique(seqlen[1:][usable].astype(np.int64), return_inverse=True)
    summed = {"steps": steps, "tokens": moved, "seconds": took}
    sums = {name: np.bincount(at, values[usable], len(lengths)) for name, values in summed.items()}
    return pd.DataFrame({"seqlen": lengths, **sums})
