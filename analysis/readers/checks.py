"""Validation of curves from other sources: the first value that cannot be used becomes a one-line error.

Every reader of such curves uses these checks. A `Place` names the row in the error: a line of a file, a step of a run.
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
"""Location of the row at a position of a frame: 'curves.csv, line 3'."""

EVALUATION = ("consumed_tokens", "train_seconds", "val_loss")
"""Columns of an evaluation: tokens, seconds of training, nats per token."""
REQUIRED = ("consumed_tokens", "val_loss")
"""Those without which there is no curve; without seconds there are no figures of time."""

WHOLE = 2**53
"""From here on a float cannot represent every integer."""

# An untrained model guesses uniformly: 10.8 nats for GPT-2's vocabulary, 12.5 for the largest in use. A curve that
# begins above 25, or never gets below 15, is not a loss in nats.
_MAX_FIRST_LOSS = 25.0
_MAX_LOWEST_LOSS = 15.0


def missing(where: object, column: str, columns: Iterable[object], remedy: str = "") -> UserError:
    """The error for a missing column: the existing columns, the nearest name, and the remedy."""
    names = [str(name) for name in columns]
    what = f"'{column}' (or val_ppl)" if column == "val_loss" else f"'{column}'"
    shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
    hint = did_you_mean(column, names)
    near = f"; {hint.partition('? ')[0]}?" if hint.startswith("did you mean") else ""
    return UserError(f"{where}: no column {what}; it has {shown or 'none'}{near}{remedy}")


def first_true(mask: npt.ArrayLike) -> int | None:
    """Position of the first true value; None without one."""
    rows = np.flatnonzero(mask)
    return int(rows[0]) if len(rows) else None


def numbers(table: pd.DataFrame, column: str, place: Place, exempt: npt.ArrayLike = False) -> pd.Series[float]:
    """A column as floats. Raises UserError for the first value that is not finite, outside the `exempt` rows."""
    values = _floats(table[column])
    if (row := first_true(~(np.isfinite(values.to_numpy()) | np.asarray(exempt)))) is not None:
        raise _not_a_number(table, column, row, place)
    return values


def _floats(values: pd.Series[Any]) -> pd.Series[float]:
    return pd.to_numeric(values, errors="coerce").astype(float)


def _not_a_number(table: pd.DataFrame, column: str, row: int, place: Place) -> UserError:
    value = table[column].iloc[row]
    problem = "is empty or nan" if pd.isna(value) or not str(value).strip() else f"holds '{value}'"
    return UserError(f"{place(row)}: column '{column}' {problem}; remove or correct the row")


def tokens(table: pd.DataFrame, place: Place) -> pd.Series[float]:
    """consumed_tokens as whole numbers from 0. Raises UserError for any other value."""
    values = numbers(table, "consumed_tokens", place)
    _check_from_zero(values, "consumed_tokens", place)
    if (row := first_true(values % 1 != 0)) is not None:
        raise UserError(f"{place(row)}: 'consumed_tokens' holds {values.iloc[row]:g}; give whole tokens, not millions")
    if (row := first_true(values >= WHOLE)) is not None:
        raise UserError(f"{place(row)}: 'consumed_tokens' holds {values.iloc[row]:g}; give a number below 2^53")
    return values


def _check_from_zero(values: pd.Series[float], column: str, place: Place) -> None:
    if (row := first_true(values < 0)) is not None:
        remedy = "it is at least 0" if column == "loss" else "it counts from 0"
        raise UserError(f"{place(row)}: '{column}' holds {values.iloc[row]:g}; {remedy}")


def steps(table: pd.DataFrame, place: Place) -> dict[str, pd.Series[float]]:
    """Columns of training steps as floats; columns other than tokens and seconds may hold gaps, which become NaN.

    A loss may be NaN or infinite. Raises UserError for text and for numbers that are impossible for a step.
    """
    result: dict[str, pd.Series[float]] = {}
    for column in map(str, table.columns):
        if column == "consumed_tokens":
            result[column] = tokens(table, place)
            continue
        values = result[column] = _floats(table[column])
        text = table[column].astype(str).str.strip().str.lower()
        if (row := first_true(values.isna() & table[column].notna() & ~text.isin(["", "nan"]))) is not None:
            raise _not_a_number(table, column, row, place)
        if column in ("step", "seqlen", "loss", "train_seconds"):
            _check_from_zero(values, column, place)
        if column == "train_seconds":
            result[column] = numbers(table, column, place)
        if column in ("step", "seqlen") and (row := first_true(values >= 2**31)) is not None:
            raise UserError(f"{place(row)}: '{column}' holds {values.iloc[row]:g}; its maximum is 2^31 - 1")
    return result


def losses(table: pd.DataFrame, place: Place, exempt: npt.ArrayLike = False, remedy: str = "") -> pd.Series[float]:
    """Validation losses in nats per token, from val_loss or else from val_ppl.

    Raises UserError for an impossible value and for perplexities given as losses.
    """
    if "val_loss" in table:
        values = numbers(table, "val_loss", place, exempt)
        if (row := first_true(values < 0)) is not None:
            raise UserError(
                f"{place(row)}: 'val_loss' holds {values.iloc[row]:g}; a loss in nats per token is at least 0"
            )
        _refuse_perplexities(table, values, place, remedy)
        _refuse_disagreement(table, values, place)
        return values
    ppl = numbers(table, "val_ppl", place, exempt)
    if (row := first_true(ppl < 1)) is not None:
        raise UserError(f"{place(row)}: column 'val_ppl' holds {ppl.iloc[row]:g}; a perplexity is at least 1")
    return ppl.map(np.log)


def _refuse_disagreement(table: pd.DataFrame, loss: pd.Series[float], place: Place) -> None:
    """A perplexity beside a loss must be exp(loss), to rounding."""
    if "val_ppl" not in table:
        return
    ppl = _floats(table["val_ppl"]).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.exp(loss.to_numpy())
        disagrees = np.isfinite(ppl) & np.isfinite(expected) & (np.abs(ppl - expected) > 0.01 * expected)
    if (row := first_true(disagrees)) is not None:
        raise UserError(
            f"{place(row)}: 'val_loss' holds {loss.iloc[row]:g}, perplexity {expected[row]:.5g}, and 'val_ppl' "
            f"{ppl[row]:.5g}; give the column that is right, without the other"
        )


def _refuse_perplexities(table: pd.DataFrame, loss: pd.Series[float], place: Place, remedy: str) -> None:
    remedy = remedy or "; rename it val_ppl"
    runs = table["run_id"] if "run_id" in table else pd.Series("", index=table.index)
    finite = np.isfinite(loss.to_numpy())
    curves = loss[finite].groupby(runs[finite], sort=False)
    first, lowest = curves.first(), curves.min()
    if (curve := first_true((first > _MAX_FIRST_LOSS) | (lowest > _MAX_LOWEST_LOSS))) is not None:
        row = int(np.flatnonzero((runs == first.index[curve]).to_numpy() & finite)[0])
        raise UserError(
            f"{place(row)}: 'val_loss' looks like a perplexity (the curve begins at {first.iloc[curve]:g} and "
            f"gets to {lowest.iloc[curve]:g}, too high for nats per token){remedy}"
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
    """Checked evaluations: EVALUATION as floats, and run_id if the table has it, in the table's order.

    `table` has consumed_tokens, val_loss or val_ppl, and train_seconds unless they are unknown (then NaN); runs may be
    interleaved, each in order of tokens. Only runs in `diverged` may hold losses that are not finite; `remedy` ends the
    message about perplexities. Raises UserError naming place, column and value for text, negative, decreasing and
    duplicate values.
    """
    exempt: npt.ArrayLike = False
    runs = table["run_id"].astype(str) if "run_id" in table else pd.Series("", index=table.index)
    if diverged:
        exempt = runs.isin(list(diverged)).to_numpy()
    unknown = pd.Series(np.nan, index=table.index)
    seconds = numbers(table, "train_seconds", place) if "train_seconds" in table else unknown
    columns = {"consumed_tokens": tokens(table, place), "train_seconds": seconds}
    _check_from_zero(seconds, "train_seconds", place)
    columns["val_loss"] = losses(table, place, exempt, remedy)
    curve = pd.DataFrame(columns)
    _check_order(curve, runs, place)
    return curve.assign(run_id=runs) if "run_id" in table else curve


def evaluation_sets(names: Sequence[str]) -> list[str]:
    """A note if runs were evaluated on different texts; `names` holds one name per run, "" if unknown."""
    counts = Counter(names)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{name or 'unknown'} ({n} run{'s' * (n > 1)})" for name, n in counts.items())
    return [f"The runs differ in their evaluation sets: {listed}. Runs of different sets are not compared."]


def _check_order(curve: pd.DataFrame, runs: pd.Series[str], place: Place) -> None:
    """Within each run tokens must increase and seconds must not decrease."""
    codes = pd.factorize(runs)[0]
    order = np.argsort(codes, kind="stable")
    same_run = np.diff(codes[order]) == 0
    for column in ("consumed_tokens", "train_seconds"):
        increments = np.diff(curve[column].to_numpy()[order])
        if (row := first_true((increments < 0) & same_run)) is not None:
            raise UserError(f"{place(order[row + 1])}: '{column}' goes backwards; sort or clean the curve")
        if column == "consumed_tokens" and (row := first_true((increments == 0) & same_run)) is not None:
            first, second = order[row], order[row + 1]
            raise UserError(
                f"{place(second)}: a second evaluation at {curve[column].iloc[second]:,.0f} tokens (the first is "
                f"{place(first)}); keep one"
            )
