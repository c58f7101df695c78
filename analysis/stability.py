"""How close each run came to the edge: loss-ratio spikes and divergence (arXiv 2108.06084, section 3)."""

from __future__ import annotations

import pandas as pd

from analysis.schema import Runs

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
    """One row a run (STABILITY_COLUMNS): the largest loss ratio, steps above each threshold, whether it diverged.

    A step's loss ratio is its training loss over the smallest training loss before it.
    """
    ratios = runs.train.groupby("run_id", sort=False)["loss_ratio"]
    measured = pd.DataFrame({"max_loss_ratio": ratios.max(), "steps": ratios.size()})
    for column, threshold in THRESHOLDS.items():
        measured[column] = (runs.train["loss_ratio"] > threshold).groupby(runs.train["run_id"], sort=False).sum()
    table = runs.runs.merge(measured, left_on="run_id", right_index=True, how="left")
    table["diverged"] = table["state"] == "DIVERGED"
    counts = [*THRESHOLDS, "steps"]
    table[counts] = table[counts].fillna(0).astype("int64")
    return table[list(STABILITY_COLUMNS)].reset_index(drop=True)
