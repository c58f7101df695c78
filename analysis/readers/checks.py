"""What curves must be like before anything is computed from them; one clear line where they are not.

Every reader of curves that others made comes through here. A row is named through a `Place`, so that the line says
where the reader found it: a line of a file, a step of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cl_bench.errors import UserError, did_you_mean

Place = Callable[[int], str]
"""Where the row at a position of a frame came from: 'curves.csv, line 3'."""

EVALUATION = ("consumed_tokens", "train_seconds", "val_loss")
"""What an evaluation must say: tokens, seconds of training, nats a token."""

# An untrained model guesses uniformly: 10.8 nats for GPT-2's vocabulary, 12.5 for the largest in use. A curve that
# begins above 25, or never gets below 15, is not a loss in nats.
_NO_FIRST_LOSS = 25.0
_NO_LOWEST_LOSS = 15.0


def missing(where: object, column: str, has: Iterable[object], remedy: str = "") -> UserError:
    """The error for a column that is not there: what there is instead, the nearest name, and the remedy."""
    names = [str(name) for name in has]
    what = f"'{column}' (or val_ppl)" if column == "val_loss" else f"'{column}'"
    shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
    hint = did_you_mean(column, names)
    near = f"; {hint.partition('? ')[0]}?" if hint.startswith("did you mean") else ""
    return UserError(f"{where}: no column {what}; it has {shown or 'none'}{near}{remedy}")


def numbers(table: pd.DataFrame, column: str, place: Place, besides: npt.ArrayLike = False) -> pd.Series[float]:
    """A column as floats. Raises UserError for the first value that is not finite, unless `besides` allows that row."""
    found = pd.to_numeric(table[column], errors="coerce").astype(float)
    bad = np.flatnonzero(~(np.isfinite(found.to_numpy()) | np.asarray(besides)))
    if len(bad):
        value = table[column].iloc[bad[0]]
        what = "is empty" if value is None or value is pd.NA or value == "" else f"holds '{value}'"
        raise UserError(f"{place(bad[0])}: column '{column}' {what}; remove or mend the row")
    return found


def losses(table: pd.DataFrame, place: Place, besides: npt.ArrayLike = False, remedy: str = "") -> pd.Series[float]:
    """Validation losses in nats a token, from val_loss or else from val_ppl.

    Raises UserError for a value that is none, and where a perplexity is given as a loss.
    """
    if "val_loss" in table:
        found = numbers(table, "val_loss", place, besides)
        _refuse_perplexities(table, found, place, remedy)
        low = np.flatnonzero(found.to_numpy() < 0)
        if len(low):
            raise UserError(f"{place(low[0])}: column 'val_loss' holds {found.iloc[low[0]]:g}; a loss is at least 0")
        _refuse_another_perplexity(table, found, place)
        return found
    ppl = numbers(table, "val_ppl", place, besides)
    low = np.flatnonzero(ppl.to_numpy() < 1)
    if len(low):
        raise UserError(f"{place(low[0])}: column 'val_ppl' holds {ppl.iloc[low[0]]:g}; a perplexity is at least 1")
    return ppl.map(np.log)


def _refuse_another_perplexity(table: pd.DataFrame, loss: pd.Series[float], place: Place) -> None:
    """Raises UserError where a column val_ppl beside the losses is not exp(val_loss)."""
    if "val_ppl" not in table:
        return
    given = pd.to_numeric(table["val_ppl"], errors="coerce").to_numpy(dtype=float)
    with np.errstate(over="ignore"):
        expected = np.exp(loss.to_numpy())
    known = np.isfinite(given) & np.isfinite(expected)
    off = np.flatnonzero(known & (np.abs(given - expected) > 0.01 * expected))
    if len(off):
        at = off[0]
        raise UserError(
            f"{place(at)}: val_ppl is {given[at]:g} where exp(val_loss) is {expected[at]:g}; give one of the columns"
        )


def _refuse_perplexities(table: pd.DataFrame, loss: pd.Series[float], place: Place, remedy: str) -> None:
    remedy = remedy or "; rename it val_ppl"
    runs = table["run_id"] if "run_id" in table else pd.Series("", index=table.index)
    finite = np.isfinite(loss.to_numpy())
    curves = loss[finite].groupby(runs[finite], sort=False)
    begins, lowest = curves.first(), curves.min()
    high = np.flatnonzero((begins > _NO_FIRST_LOSS) | (lowest > _NO_LOWEST_LOSS))
    if len(high):
        first = int(np.flatnonzero((runs == begins.index[high[0]]).to_numpy() & finite)[0])
        raise UserError(
            f"{place(first)}: 'val_loss' looks like a perplexity (the curve begins at {begins.iloc[high[0]]:g} and "
            f"gets to {lowest.iloc[high[0]]:g}, too high for nats a token){remedy}"
        )
    values = loss[finite].to_numpy()
    for column in table.columns.difference([*EVALUATION, "run_id"], sort=False):
        if len(values) < 2 or not pd.api.types.is_float_dtype(table[column]):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            exponential = np.exp(table[column].to_numpy(dtype=float)[finite])
        if np.allclose(exponential, values, rtol=1e-3, atol=0) and np.ptp(values) > 0:
            raise UserError(f"{place(0)}: 'val_loss' is exp('{column}'), so it looks like a perplexity{remedy}")


def evaluations(table: pd.DataFrame, place: Place, *, diverged: Collection[str] = (), remedy: str = "") -> pd.DataFrame:
    """Checked evaluations: run_id (where the table has it) and EVALUATION as floats, in the table's order.

    `table` has consumed_tokens, train_seconds, and val_loss or val_ppl; runs may lie mixed, each in order of tokens.
    Only a run in `diverged` may hold losses that are not finite; `remedy` ends the line on perplexities. Raises
    UserError naming place, column and value for what cannot be used: no number, below zero, backwards, doubled.
    """
    besides: Any = False
    runs = table["run_id"].astype(str) if "run_id" in table else pd.Series("", index=table.index)
    if diverged:
        besides = runs.isin(list(diverged)).to_numpy()
    found = {c: numbers(table, c, place) for c in ("consumed_tokens", "train_seconds")}
    found["val_loss"] = losses(table, place, besides, remedy)
    curve = pd.DataFrame(found)
    for column in ("consumed_tokens", "train_seconds"):
        low = np.flatnonzero(curve[column].to_numpy() < 0)
        if len(low):
            raise UserError(f"{place(low[0])}: '{column}' holds {curve[column].iloc[low[0]]:g}; it counts from 0")
    _in_order(curve, runs, place)
    return curve.assign(run_id=runs) if "run_id" in table else curve


def evaluation_sets(names: Sequence[str]) -> list[str]:
    """What to say where runs were evaluated on different texts; one name a run, "" where it is not known."""
    counts = Counter(names)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{name or 'unknown'} ({n} run{'s' * (n > 1)})" for name, n in counts.items())
    return [f"The runs differ in their evaluation sets: {listed}. Runs of different sets are not compared."]


def _in_order(curve: pd.DataFrame, runs: pd.Series[str], place: Place) -> None:
    """Within each run tokens rise and seconds do not fall."""
    codes = pd.factorize(runs)[0]
    order = np.argsort(codes, kind="stable")
    same = np.diff(codes[order]) == 0
    for column in ("consumed_tokens", "train_seconds"):
        step = np.diff(curve[column].to_numpy()[order])
        back = np.flatnonzero((step < 0) & same)
        if len(back):
            raise UserError(f"{place(order[back[0] + 1])}: '{column}' goes backwards; sort or clean the curve")
        again = np.flatnonzero((step == 0) & same) if column == "consumed_tokens" else back
        if len(again):
            first, second = order[again[0]], order[again[0] + 1]
            raise UserError(
                f"{place(second)}: a second evaluation at {curve[column].iloc[second]:,.0f} tokens (the first is "
                f"{place(first)}); keep one"
            )
