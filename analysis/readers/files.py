"""Tables in CSV and Parquet files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from analysis.readers.checks import Place
from cl_bench.errors import UserError


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a .parquet file, or in any other file as CSV with a header.

    Raises UserError for a missing file, one that is not a table, and a duplicate column.
    """
    is_parquet = Path(path).suffix == ".parquet"
    try:
        if is_parquet:
            table: pd.DataFrame = pq.read_table(path).to_pandas()
        else:
            # Arrow's reader refuses a row of the wrong width; pandas shifts or cuts it.
            arrow_table = csv.read_csv(path, parse_options=csv.ParseOptions(ignore_empty_lines=False))
            if any(pa.types.is_binary(kind) for kind in arrow_table.schema.types):
                raise UserError(f"{path}: not UTF-8; save it as UTF-8")
            table = arrow_table.to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
    except (OSError, pa.ArrowInvalid) as error:
        kind = "Parquet" if is_parquet else "CSV"
        raise UserError(f"{path}: not a {kind} file ({' '.join(str(error).split())})") from None
    if table.columns.duplicated().any():
        raise UserError(f"{path}: column '{table.columns[table.columns.duplicated()][0]}' appears twice")
    return table


def place_in(path: str | Path) -> Place:
    """Location of a row of `read_table(path)`: its line in a CSV file (the header is line 1), its row in Parquet."""
    if Path(path).suffix == ".parquet":
        return lambda row: f"{path}, row {row}"
    return lambda row: f"{path}, line {row + 2}"
