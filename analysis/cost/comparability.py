"""Whether the seconds of two runs may be compared, and how fast each sequence length was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import stretches

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
    """What differs between the clocks of two rows of schema.RUN_COLUMNS, with both values; '' where nothing does.

    What neither says counts as equal. A run on mixed hardware is like no other: its seconds are a blend.
    """
    return "; ".join(words for _, words in _differences(run, baseline))


def _differences(run: Mapping[Any, Any], baseline: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """(column, words) of each difference."""
    found = []
    for column, _ in _DIFFERENCES:
        ours, theirs = (_known(row.get(column)) for row in (run, baseline))
        if ours != theirs or ours.startswith("mixed: "):
            ours, theirs = (_with_unit(column, v) for v in (ours, theirs))
            found.append(
                (column, f"on {ours} against {theirs}" if column == "hardware" else f"{ours} against {theirs}")
            )
    return found


def _with_unit(column: str, value: str) -> str:
    if not value:
        return f"unknown {column.replace('world_size', 'ranks')}"
    return f"{value} rank{'s' * (value != '1')}" if column == "world_size" else value


def _known(value: object) -> str:
    """A value as text, '' where a source does not say (world size 0, no text)."""
    return "" if value is None or value != value or value == 0 else str(value)


def warnings(runs: pd.DataFrame, savings: pd.DataFrame) -> list[str]:
    """For a verdict: which pairs of `savings` compare seconds of unlike runs, a sentence for each kind of difference.

    `runs` has schema.RUN_COLUMNS; `savings` run_id and baseline_run_id, and best_baseline_run_id where there is one. A
    run that has not trained yet has no seconds to compare.
    """
    trained = runs[runs["train_seconds"] > 0]
    rows: dict[str, Mapping[Any, Any]] = {str(row["run_id"]): row for row in trained.to_dict("records")}
    paired = _unlike_pairs(rows, savings, "baseline_run_id", "")
    if "best_baseline_run_id" not in savings:
        return paired
    # Pairs that are warned of already need no second warning.
    others = savings[savings["best_baseline_run_id"] != savings["baseline_run_id"]]
    return paired + _unlike_pairs(rows, others, "best_baseline_run_id", " with the best baseline")


def _unlike_pairs(rows: Mapping[str, Mapping[Any, Any]], savings: pd.DataFrame, column: str, which: str) -> list[str]:
    pairs = [
        (rows[run], rows[base])
        for run, base in zip(savings["run_id"], savings[column], strict=True)
        if isinstance(base, str) and run in rows and base in rows
    ]
    counts = dict.fromkeys((column for column, _ in _DIFFERENCES), 0)
    named: dict[str, dict[str, None]] = {column: {} for column in counts}
    for run, base in pairs:
        for what, words in _differences(run, base):
            counts[what] += 1
            named[what][f"{run['curriculum']} b{run['global_batch_size']} {words}"] = None
    found = []
    for what, words in _DIFFERENCES:
        if counts[what]:
            shown = list(named[what])
            more = f"; and {len(shown) - _MOST_NAMED} more" if len(shown) > _MOST_NAMED else ""
            found.append(
                f"Time is compared across {words} in {counts[what]} of {len(pairs)} pairs{which}: "
                f"{'; '.join(shown[:_MOST_NAMED])}{more}."
            )
    return found


def mean_ranks(runs: pd.DataFrame, attempts: pd.DataFrame) -> dict[str, float]:
    """Ranks of each run_id, a mean over the training seconds that were kept; NaN where a source does not say.

    `runs` and `attempts` as in schema.Runs. Sources that know no attempts have the run's world_size.
    """
    found = runs.set_index("run_id")["world_size"].astype("float64").replace(0.0, math.nan)
    if {"world_size", "trained_seconds", "lost_seconds"} <= set(attempts.columns):
        kept = (attempts["trained_seconds"] - attempts["lost_seconds"]).astype("float64")
        summed = pd.DataFrame({"kept": kept, "hours": kept * attempts["world_size"]}).groupby(attempts["run_id"]).sum()
        told = summed[summed["kept"] > 0]
        found.update(told["hours"] / told["kept"])
    return {str(run_id): float(ranks) for run_id, ranks in found.items()}


def throughput(runs: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Tokens a second at each sequence length, per curriculum, batch size and clock (THROUGHPUT_COLUMNS).

    Summed tokens over summed seconds of the steps at that length, over all runs; a step's seconds are the difference to
    the step before it. The first step after a start is left out: it warms up, and nothing tells when it began. Of a
    curve that holds every so many steps, only stretches of one length count.
    """
    keys = ["curriculum", "variant", "model", "hardware", "world_size", "global_batch_size"]
    place = {str(run_id): i for i, run_id in enumerate(runs["run_id"])}
    known = {"step", "consumed_tokens", "train_seconds", "seqlen"} <= set(train.columns)
    step, tokens, seconds, seqlen, attempt = (
        train[c].to_numpy() if c in train else np.zeros(len(train))
        for c in ("step", "consumed_tokens", "train_seconds", "seqlen", "attempt")
    )
    parts = []
    for run_id, rows in stretches(train) if known else ():
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
