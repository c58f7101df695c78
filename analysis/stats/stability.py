"""Loss-ratio spikes and divergence of each run (arXiv 2108.06084, section 3)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analysis.schema import Runs, stretches
from analysis.stats.crossings import Floats

THRESHOLDS = {"steps_above_1_2": 1.2, "steps_above_1_5": 1.5}
STABILITY_COLUMNS = (
    "run_id",
    "named",
    "curriculum",
    "variant",
    "global_batch_size",
    "lr",
    "seed",
    "state",
    "diverged",
    "max_loss_ratio",
    *THRESHOLDS,
    "steps",
)


def stability(runs: Runs) -> pd.DataFrame:
    """One row per run (STABILITY_COLUMNS): the largest loss ratio, steps above each threshold, whether it diverged.

    A step's loss ratio is its training loss over the smallest training loss before it.
    """
    ratios = runs.train["loss_ratio"].to_numpy(dtype=float)
    measured = {run_id: _summary(ratios[rows]) for run_id, rows in stretches(runs.train)}
    columns = ["max_loss_ratio", *THRESHOLDS, "steps"]
    table = runs.runs.merge(
        pd.DataFrame.from_dict(measured, orient="index", columns=columns),
        left_on="run_id",
        right_index=True,
        how="left",
    )
    table["diverged"] = table["state"] == "DIVERGED"
    counts = [*THRESHOLDS, "steps"]
    table[counts] = table[counts].fillna(0).astype("int64")
    return table[list(STABILITY_COLUMNS)].reset_index(drop=True)


def _summary(ratios: Floats) -> list[float]:
    """The largest of one run's loss ratios, the steps above each threshold, and all steps; NaN ratios are ignored."""
    finite = ratios[~np.isnan(ratios)]
    return [
        float(finite.max()) if len(finite) else math.nan,
        *(int((finite > threshold).sum()) for threshold in THRESHOLDS.values()),
        len(ratios),
    ]
