"""Comparison of two curves from files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.readers import checks
from analysis.readers.files import place_in, read_table
from analysis.schema import perplexity
from analysis.stats.crossings import Crossing, crossing, saving
from analysis.stats.savings import round_up
from analysis.words import amount, percent
from cl_bench.errors import UserError


def read_curve(path: str | Path) -> pd.DataFrame:
    """A CSV or Parquet file as columns consumed_tokens, train_seconds (NaN if absent) and val_loss (or from val_ppl).

    Raises UserError that names the invalid column, row and value.
    """
    table = read_table(path)
    for column in checks.REQUIRED:
        if column not in table and not (column == "val_loss" and "val_ppl" in table):
            raise checks.missing(path, column, table.columns)
    if table.empty:
        raise UserError(f"{path}: holds no evaluation; give at least one row")
    if "run_id" in table and (runs := table["run_id"].nunique()) > 1:
        raise UserError(f"{path}: holds {runs} runs; give one run's curve")
    return checks.evaluations(table.drop(columns="run_id", errors="ignore"), place_in(path))


def compare(baseline: pd.DataFrame, curriculum: pd.DataFrame, target_loss: float) -> dict[str, Any]:
    """Tokens and seconds to `target_loss` (nats per token) of two curves, and the saving of the second.

    Savings are shares, None if the curriculum never reached the target; `token_saving_bound` is then an upper bound.
    Seconds and their saving are None without train_seconds.
    Raises UserError if the baseline never reaches the target.
    """
    ours, theirs = _crossing(curriculum, target_loss), _crossing(baseline, target_loss)
    if not theirs.reached:
        raise UserError(
            f"target {target_loss:g}: the baseline never reached it (its lowest val_loss is "
            f"{round_up(float(baseline['val_loss'].min())):g}); choose that or a higher loss"
        )
    never = not ours.reached and theirs.tokens
    return {
        "target_loss": target_loss,
        "target_ppl": perplexity(target_loss),
        "method": "linear interpolation of loss over tokens between the two evaluations around the target",
        "reached": ours.reached,
        "baseline_tokens_to_target": theirs.tokens,
        "baseline_seconds_to_target": _finite(theirs.seconds),
        "tokens_to_target": ours.tokens,
        "seconds_to_target": _finite(ours.seconds),
        "token_saving": saving(ours.tokens, theirs.tokens),
        "time_saving": saving(_finite(ours.seconds), _finite(theirs.seconds)),
        "token_saving_bound": 1 - ours.tokens_bound / theirs.tokens if never and theirs.tokens else None,
    }


def _crossing(curve: pd.DataFrame, target_loss: float) -> Crossing:
    return crossing(
        curve["consumed_tokens"].to_numpy(),
        curve["train_seconds"].to_numpy(),
        curve["val_loss"].to_numpy(),
        target_loss,
    )


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isnan(seconds) else seconds


def _needed(tokens: float, seconds: float | None) -> str:
    return f"{tokens:,.0f} tokens" + (f"  {seconds:,.1f} s" if seconds is not None else "")


def in_words(result: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    target = f"loss {result['target_loss']:g} (perplexity {result['target_ppl']:.4g})"
    base = f"baseline    {_needed(result['baseline_tokens_to_target'], result['baseline_seconds_to_target'])}"
    if not result["reached"]:
        bound = result["token_saving_bound"]
        least = f"; it saved at most {percent(bound)} of the tokens" if bound is not None else ""
        return f"To {target}:\n{base}\ncurriculum  never reached it{least}"
    ours = f"curriculum  {_needed(result['tokens_to_target'], result['seconds_to_target'])}"
    saved = [
        amount(result[f"{key}_saving"], what)
        for key, what in (("token", "tokens"), ("time", "time"))
        if result[f"{key}_saving"] is not None
    ]
    words = f"\nThe curriculum needed {' and '.join(saved)}." if saved else "\nThe baseline is there from the start."
    return f"To {target}:\n{base}\n{ours}{words}"
