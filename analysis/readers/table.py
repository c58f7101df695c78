"""Any table of training curves, one row an evaluation (or a training step) -> the tidy schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.readers import checks, naming, tidy
from analysis.readers.files import place_in, read_table
from analysis.schema import NoRunsError, Runs
from cl_bench.errors import UserError


def load_table(path: str | Path, names: Mapping[str, str] | None = None) -> Runs:
    """Runs in a CSV or Parquet file; `names` gives theirs for ours where they differ.

    Columns: run_id; tidy.REQUIRED, one value a run; consumed_tokens (counted from 0), train_seconds (of training only),
    val_loss (nats a token) or val_ppl. Also any of tidy.OPTIONAL, and those of a training step: where there is a column
    `loss`, rows that hold one are steps, and rows that hold no val_loss are no evaluations. Without a state a run
    counts as done. Raises UserError naming line, column and value that cannot be used.
    """
    path = Path(path)
    table = read_table(path)
    table = naming.renamed(table, names or {}, path)
    for column in ("run_id", *tidy.REQUIRED, *checks.EVALUATION):
        if column not in table and not (column == "val_loss" and "val_ppl" in table):
            raise checks.missing(path, column, table.columns, naming.remedy(column))
    if table.empty:
        raise NoRunsError(f"{path}: holds no rows; give at least one evaluation")
    place = place_in(path)
    unnamed = np.flatnonzero(table["run_id"].isna() | (table["run_id"].astype(str) == ""))
    if len(unnamed):
        raise UserError(f"{place(unnamed[0])}: no run_id; name the run that the row belongs to")
    table["run_id"] = table["run_id"].astype(str)
    facts = _facts(table, place)
    evals, train = _evaluations(table, facts, place), _steps(table, place)
    return tidy.tidy(path.stem, path, facts, evals, train)


def _facts(table: pd.DataFrame, place: checks.Place) -> pd.DataFrame:
    """One row a run. Raises UserError where a run's rows do not agree."""
    columns = [c for c in (*tidy.REQUIRED, *tidy.OPTIONAL) if c in table]
    codes, _ = pd.factorize(table["run_id"])
    first = np.flatnonzero(~pd.Series(codes).duplicated().to_numpy())
    facts = table.iloc[first][["run_id", *columns]]
    for column in columns:
        values = pd.factorize(table[column], use_na_sentinel=False)[0]
        other = np.flatnonzero(values != values[first][codes])
        if len(other):
            row = int(other[0])
            raise UserError(
                f"{place(row)}: run '{table['run_id'].iloc[row]}' has {column} '{table[column].iloc[row]}', and "
                f"'{facts[column].iloc[codes[row]]}' before; it is one value for the whole run"
            )
    return facts.reset_index(drop=True)


def _evaluations(table: pd.DataFrame, facts: pd.DataFrame, place: checks.Place) -> pd.DataFrame:
    diverged: set[str] = set()
    if "state" in facts:
        states = facts["state"].dropna()
        diverged = {
            str(r)
            for r, s in zip(facts.loc[states.index, "run_id"], states, strict=True)
            if tidy.state(s) == "DIVERGED"
        }
    measure = "val_loss" if "val_loss" in table else "val_ppl"
    rows = np.arange(len(table))
    if "loss" in table:
        rows = np.flatnonzero(table[measure].notna() | table["loss"].isna())
    given = table.iloc[rows].reset_index(drop=True)
    at = _at(place, rows)
    evals = checks.evaluations(given, at, diverged=diverged, remedy=naming.PERPLEXITY_REMEDY)
    return evals.assign(**checks.steps(given[["step"]], at)) if "step" in given else evals


def _at(place: checks.Place, rows: npt.NDArray[np.intp]) -> checks.Place:
    """The place of a row of a selection."""
    return lambda row: place(int(rows[row]))


def _steps(table: pd.DataFrame, place: checks.Place) -> pd.DataFrame | None:
    if "loss" not in table:
        return None
    rows = np.flatnonzero(table["loss"].notna())
    given = table.iloc[rows]
    steps = checks.steps(given[[c for c in naming.TRAIN if c in given]], _at(place, rows))
    return pd.DataFrame({"run_id": given["run_id"], **steps}).reset_index(drop=True)
