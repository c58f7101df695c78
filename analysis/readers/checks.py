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

WHOLE = 2**53
"""From here on a float no longer holds every whole number."""

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
    found = _floats(table[column])
    bad = np.flatnonzero(~(np.isfinite(found.to_numpy()) | np.asarray(besides)))
    if len(bad):
        raise _no_number(table, column, bad[0], place)
    return found


def _floats(values: pd.Series[Any]) -> pd.Series[float]:
    return pd.to_numeric(values, errors="coerce").astype(float)


def _no_number(table: pd.DataFrame, column: str, row: int, place: Place) -> UserError:
    value = table[column].iloc[row]
    what = "is empty or nan" if pd.isna(value) or not str(value).strip() else f"holds '{value}'"
    return UserError(f"{place(row)}: column '{column}' {what}; remove or mend the row")


def tokens(table: pd.DataFrame, place: Place) -> pd.Series[float]:
    """consumed_tokens as whole numbers from 0. Raises UserError for a value that is none."""
    found = numbers(table, "consumed_tokens", place)
    _from_zero(found, "consumed_tokens", place)
    broken = np.flatnonzero(found.to_numpy() % 1 != 0)
    if len(broken):
        value = found.iloc[broken[0]]
        raise UserError(f"{place(broken[0])}: 'consumed_tokens' holds {value:g}; give whole tokens, not millions")
    many = np.flatnonzero(found.to_numpy() >= WHOLE)
    if len(many):
        value = found.iloc[many[0]]
        raise UserError(f"{place(many[0])}: 'consumed_tokens' holds {value:g}; give a number below 2^53")
    return found


def _from_zero(found: pd.Series[float], column: str, place: Place) -> None:
    low = np.flatnonzero(found.to_numpy() < 0)
    if len(low):
        remedy = "it is at least 0" if column == "loss" else "it counts from 0"
        raise UserError(f"{place(low[0])}: '{column}' holds {found.iloc[low[0]]:g}; {remedy}")


def steps(table: pd.DataFrame, place: Place) -> dict[str, pd.Series[float]]:
    """Columns of training steps as floats: where something other than tokens and seconds was not logged, NaN.

    A loss may be NaN or infinite. Raises UserError for a value that is no number, and for what cannot be a step.
    """
    found: dict[str, pd.Series[float]] = {}
    for column in map(str, table.columns):
        if column == "consumed_tokens":
            found[column] = tokens(table, place)
            continue
        found[column] = _floats(table[column])
        text = table[column].astype(str).str.strip().str.lower()
        bad = np.flatnonzero(found[column].isna() & table[column].notna() & ~text.isin(["", "nan"]))
        if len(bad):
            raise _no_number(table, column, bad[0], place)
        if column in ("step", "seqlen", "loss", "train_seconds"):
            _from_zero(found[column], column, place)
        if column == "train_seconds":
            found[column] = numbers(table, column, place)
        if column in ("step", "seqlen"):
            far = np.flatnonzero(found[column] >= 2**31)
            if len(far):
                raise UserError(
                    f"{place(far[0])}: '{column}' holds {found[column].iloc[far[0]]:g}; it ends at 2^31 - 1"
                )
    return found


def losses(table: pd.DataFrame, place: Place, besides: npt.ArrayLike = False, remedy: str = "") -> pd.Series[float]:
    """Validation losses in nats a token, from val_loss or else from val_ppl.

    Raises UserError for a value that is none, and where a perplexity is given as a loss.
    """
    if "val_loss" in table:
        found = numbers(table, "val_loss", place, besides)
        low = np.flatnonzero(found.to_numpy() < 0)
        if len(low):
            raise UserError(
                f"{place(low[0])}: 'val_loss' holds {found.iloc[low[0]]:g}; a loss in nats a token is at least 0"
            )
        _refuse_perplexities(table, found, place, remedy)
        _refuse_disagreement(table, found, place)
        return found
    ppl = numbers(table, "val_ppl", place, besides)
    low = np.flatnonzero(ppl.to_numpy() < 1)
    if len(low):
        raise UserError(f"{place(low[0])}: column 'val_ppl' holds {ppl.iloc[low[0]]:g}; a perplexity is at least 1")
    return ppl.map(np.log)


def _refuse_disagreement(table: pd.DataFrame, loss: pd.Series[float], place: Place) -> None:
    """A perplexity beside a loss must be of the same evaluation: exp(loss), give or take how they were rounded."""
    if "val_ppl" not in table:
        return
    ppl = _floats(table["val_ppl"]).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.exp(loss.to_numpy())
        other = np.flatnonzero(np.isfinite(ppl) & np.isfinite(means) & (np.abs(ppl - means) > 0.01 * means))
    if len(other):
        row = other[0]
        raise UserError(
            f"{place(row)}: 'val_loss' holds {loss.iloc[row]:g}, perplexity {means[row]:.5g}, and 'val_ppl' "
            f"{ppl[row]:.5g}; give the column that is right, without the other"
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
    found = {"consumed_tokens": tokens(table, place), "train_seconds": numbers(table, "train_seconds", place)}
    _from_zero(found["train_seconds"], "train_seconds", place)
    found["val_loss"] = losses(table, place, besides, remedy)
    curve = pd.DataFrame(found)
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
