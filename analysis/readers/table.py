"""Reader of tables of curves, one row per evaluation or training step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.readers import checks, naming, tidy
from analysis.readers.files import place_in, read_table
from analysis.readers.reader import Option, Reader, folder_beside
from analysis.schema import NoRunsError, Runs
from cl_bench.errors import UserError


def load_table(path: str | Path, names: Mapping[str, str] | None = None, baseline: str = tidy.BASELINE) -> Runs:
    """Runs in a CSV or Parquet file; `names` maps our column names to the file's.

    Columns: run_id; tidy.REQUIRED, one value per run; consumed_tokens (from 0), val_loss (nats per token) or val_ppl.
    Optional: train_seconds (training only), tidy.OPTIONAL, and the columns of a training step. `baseline` is the
    curriculum of the runs that others are compared with. If there is a column
    `loss`, rows with a loss are training steps and rows with a val_loss evaluations. A run without a state counts as
    DONE. Raises UserError naming the line, column and value that cannot be used.
    """
    path = Path(path)
    table = read_table(path)
    table = naming.renamed(table, names or {}, path)
    for column in ("run_id", *tidy.REQUIRED, *checks.REQUIRED):
        if column not in table and not (column == "val_loss" and "val_ppl" in table):
            raise checks.missing(path, column, table.columns, naming.remedy(column))
    if table.empty:
        raise NoRunsError(f"{path}: holds no rows; give at least one evaluation")
    place = place_in(path)
    if (row := checks.first_true(table["run_id"].isna() | (table["run_id"].astype(str) == ""))) is not None:
        raise UserError(f"{place(row)}: no run_id; name the row's run")
    table["run_id"] = table["run_id"].astype(str)
    facts = _facts(table, place)
    evals, train = _evaluations(table, facts, place), _steps(table, place)
    return tidy.tidy(path.stem, path, facts, evals, train, baseline=baseline)


def _facts(table: pd.DataFrame, place: checks.Place) -> pd.DataFrame:
    """One row per run. Raises UserError if a run's rows disagree."""
    columns = [c for c in (*tidy.REQUIRED, *tidy.OPTIONAL) if c in table]
    codes, _ = pd.factorize(table["run_id"])
    first = np.flatnonzero(~pd.Series(codes).duplicated().to_numpy())
    facts = table.iloc[first][["run_id", *columns]]
    for column in columns:
        values = pd.factorize(table[column], use_na_sentinel=False)[0]
        if (row := checks.first_true(values != values[first][codes])) is not None:
            peak = " (of a scheduled learning rate, its peak)" if column == "lr" else ""
            raise UserError(
                f"{place(row)}: run '{table['run_id'].iloc[row]}' has {column} '{table[column].iloc[row]}', and "
                f"'{facts[column].iloc[codes[row]]}' before; it is one value for the whole run{peak}"
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
    evaluations = table.iloc[rows].reset_index(drop=True)
    at = _at(place, rows)
    evals = checks.evaluations(evaluations, at, diverged=diverged, remedy=naming.PERPLEXITY_REMEDY)
    return evals.assign(**checks.steps(evaluations[["step"]], at)) if "step" in evaluations else evals


def _at(place: checks.Place, rows: npt.NDArray[np.intp]) -> checks.Place:
    """Location of a row of the selection `rows`."""
    return lambda row: place(int(rows[row]))


def _steps(table: pd.DataFrame, place: checks.Place) -> pd.DataFrame | None:
    if "loss" not in table:
        return None
    rows = np.flatnonzero(table["loss"].notna())
    train = table.iloc[rows]
    steps = checks.steps(train[[c for c in naming.TRAIN if c in train]], _at(place, rows))
    return pd.DataFrame({"run_id": train["run_id"], **steps}).reset_index(drop=True)


READER = Reader(
    Option("table", "FILE", "instead: curves in a .csv or .parquet file"),
    load_table,
    {"names": naming.MAP, "baseline": naming.BASELINE},
    lambda location: folder_beside(location, Path(location).stem),
)
