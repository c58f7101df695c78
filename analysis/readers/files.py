"""Tables in files: CSV and Parquet, through Arrow."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from analysis.readers.checks import Place
from cl_bench.errors import UserError


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a .parquet file, or in any other file as CSV with a head.

    Raises UserError where there is no such file, it is no table, or a column's name stands there twice.
    """
    is_parquet = Path(path).suffix == ".parquet"
    try:
        if is_parquet:
            table: pd.DataFrame = pq.read_table(path).to_pandas()
        else:
            # Arrow's reader refuses a row of the wrong width, where pandas shifts or cuts it.
            read = csv.read_csv(path, parse_options=csv.ParseOptions(ignore_empty_lines=False))
            if any(pa.types.is_binary(kind) for kind in read.schema.types):
                raise UserError(f"{path}: not UTF-8; save it as UTF-8")
            table = read.to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
    except (OSError, pa.ArrowInvalid) as error:
        kind = "Parquet" if is_parquet else "CSV"
        raise UserError(f"{path}: not a {kind} file ({' '.join(str(error).split())})") from None
    if table.columns.duplicated().any():
        raise UserError(f"{path}: column '{table.columns[table.columns.duplicated()][0]}' stands there twice")
    return table


def place_in(path: str | Path) -> Place:
    """Where a row of that table is: the line of a CSV file (its head is the first), the row of a Parquet file."""
    if Path(path).suffix == ".parquet":
        return lambda row: f"{path}, row {row}"
    return lambda row: f"{path}, line {row + 2}"
