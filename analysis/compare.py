"""The saving between any two curves, from CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from analysis.savings import round_up
from analysis.targets import Crossing, crossing, saving
from analysis.verdict import amount
from cl_bench.errors import UserError


def read_curve(path: str | Path) -> pd.DataFrame:
    """A CSV file as columns consumed_tokens, train_seconds, val_loss (from val_ppl where that is given instead).

    Raises UserError naming the column, row and value that cannot be used.
    """
    try:
        # Arrow's reader refuses a row of the wrong width, where pandas shifts or cuts it.
        table: pd.DataFrame = csv.read_csv(path, parse_options=csv.ParseOptions(ignore_empty_lines=False)).to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not a CSV file ({' '.join(str(error).split())})") from None
    if table.columns.duplicated().any():
        raise UserError(f"{path}: column '{table.columns[table.columns.duplicated()][0]}' stands there twice")
    if "val_loss" not in table and "val_ppl" in table:
        ppl = _numbers(table, "val_ppl", path)
        if (ppl <= 0).any():
            raise UserError(f"{path}: column 'val_ppl' holds {ppl.min():g}; a perplexity is positive")
        table["val_loss"] = np.log(ppl)
    for column in ("consumed_tokens", "train_seconds", "val_loss"):
        if column not in table:
            hint = " (or val_ppl)" if column == "val_loss" else ""
            raise UserError(f"{path}: no column '{column}'{hint}; it has {', '.join(map(str, table.columns))}")
    curve = pd.DataFrame({c: _numbers(table, c, path) for c in ("consumed_tokens", "train_seconds", "val_loss")})
    if curve.empty:
        raise UserError(f"{path}: holds no evaluation; give at least one row")
    for column in ("consumed_tokens", "train_seconds"):
        if (curve[column] < 0).any():
            raise UserError(f"{path}: '{column}' holds {curve[column].min():g}; it counts from 0")
        back = np.flatnonzero(np.diff(curve[column]) < 0)
        if len(back):
            raise UserError(f"{path}, line {back[0] + 3}: '{column}' goes backwards; sort or clean the file")
    return curve


def _numbers(table: pd.DataFrame, column: str, path: str | Path) -> pd.Series[float]:
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        value = table[column].iloc[bad[0]]
        raise UserError(f"{path}, line {bad[0] + 2}: column '{column}' holds '{value}'; remove or mend the row")
    return numbers


def compare(baseline: pd.DataFrame, curriculum: pd.DataFrame, target_loss: float) -> dict[str, Any]:
    """Tokens and seconds to `target_loss` (nats a token) of two curves, and what the second saved.

    Savings are shares, None where the curriculum never arrived; `token_saving_bound` is then what it saved at most.
    Raises UserError when the baseline never reaches the target.
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
        "target_ppl": float(np.exp(target_loss)),
        "method": "linear interpolation of loss over tokens between the two evaluations around the target",
        "reached": ours.reached,
        "baseline_tokens_to_target": theirs.tokens,
        "baseline_seconds_to_target": theirs.seconds,
        "tokens_to_target": ours.tokens,
        "seconds_to_target": ours.seconds,
        "token_saving": saving(ours.tokens, theirs.tokens),
        "time_saving": saving(ours.seconds, theirs.seconds),
        "token_saving_bound": 1 - ours.tokens_bound / theirs.tokens if never and theirs.tokens else None,
    }


def _crossing(curve: pd.DataFrame, target_loss: float) -> Crossing:
    return crossing(
        curve["consumed_tokens"].to_numpy(),
        curve["train_seconds"].to_numpy(),
        curve["val_loss"].to_numpy(),
        target_loss,
    )


def in_words(result: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    target = f"loss {result['target_loss']:g} (perplexity {result['target_ppl']:.4g})"
    base = (
        f"baseline    {result['baseline_tokens_to_target']:,.0f} tokens  {result['baseline_seconds_to_target']:,.1f} s"
    )
    if not result["reached"]:
        bound = result["token_saving_bound"]
        least = f"; it saved at most {bound:.0%} of the tokens" if bound is not None else ""
        return f"To {target}:\n{base}\ncurriculum  never reached it{least}"
    ours = f"curriculum  {result['tokens_to_target']:,.0f} tokens  {result['seconds_to_target']:,.1f} s"
    saved = [
        amount(result[f"{key}_saving"], what)
        for key, what in (("token", "tokens"), ("time", "time"))
        if result[f"{key}_saving"] is not None
    ]
    words = f"\nThe curriculum needed {' and '.join(saved)}." if saved else "\nThe baseline is there from the start."
    return f"To {target}:\n{base}\n{ours}{words}"
