"""Column names of other sources: `--map ours=theirs,…`."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.readers import checks, tidy
from analysis.readers.reader import Option
from cl_bench.errors import UserError, did_you_mean
from cl_bench.runs import records

TRAIN = tuple(c for c in records.TRAIN_COLUMNS if c not in ("lr", "global_batch_size", "attempt"))
"""Columns of a training step. Learning rate and batch size are facts of the whole run."""
COLUMNS = tuple(dict.fromkeys(("run_id", *tidy.REQUIRED, *checks.EVALUATION, "val_ppl", *tidy.OPTIONAL, *TRAIN)))
"""Every name that --map accepts."""


def parse(text: str) -> dict[str, str]:
    """'val_loss=eval/loss,lr=config.lr' as {our name: theirs}. Raises UserError for an unknown name."""
    names: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (p.strip() for p in part.partition("="))
        if not part.strip():
            continue
        if not equals or not ours or not theirs:
            raise UserError(f"--map {part}: give ours=theirs, as in --map val_loss=eval/loss,lr=learning_rate")
        if ours not in COLUMNS:
            raise UserError(f"--map {part}: '{ours}' is not one of our columns; {did_you_mean(ours, COLUMNS)}")
        names[ours] = theirs
    return names


def renamed(table: pd.DataFrame, names: Mapping[str, str], where: object) -> pd.DataFrame:
    """`table` under our names; one of its columns may serve as several of ours."""
    for theirs in names.values():
        if theirs not in table:
            raise checks.missing(where, theirs, table.columns)
    ours = {name: table[theirs] for name, theirs in names.items()}
    return table.drop(columns=[*names.values()]).drop(columns=[*names], errors="ignore").assign(**ours)


def remedy(column: str) -> str:
    """The end of a message about a missing column."""
    return f"; name yours: --map {column}=THEIRS"


PERPLEXITY_REMEDY = "; map it as what it is: --map val_ppl=THEIRS"
MAP = Option("map", "OURS=THEIRS,…", "column names, keys or tags that differ from ours", parse=parse)
BASELINE = Option(
    "baseline", "VALUE", f"curriculum of the runs that others are compared with (default: {tidy.BASELINE})"
)
