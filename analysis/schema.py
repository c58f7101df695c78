"""The tidy schema: one form for curves from every source."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from cl_bench.config import Role, RunConfig
from cl_bench.errors import UserError
from cl_bench.runs.identity import short_float

ROLES: tuple[Role, ...] = ("baseline", "curriculum")

RUN_COLUMNS = (
    "run_id",
    "cell",
    "role",
    "curriculum",
    "shape",
    "variant",
    "setting",
    "model",
    "global_batch_size",
    "lr",
    "seed",
    "state",
    "token_budget",
    "max_seqlen",
    "consumed_tokens",
    "train_seconds",
    "final_loss",
    "final_ppl",
    "best_ppl",
    "tokens_per_second",
    "named",
    "last_step",
    "planned_steps",
    "hardware",
    "world_size",
    "precision",
)


Row = dict[str, Any]
"""One row of a frame, by column."""

TRAIN_COLUMNS = {
    "step": "int32",
    "consumed_tokens": "int64",
    "seqlen": "int32",
    "loss": "float64",
    "loss_ratio": "float64",
    "grad_norm": "float32",
    "adam_var_l1": "float32",
    "adam_var_max": "float32",
    "adam_var_sqrt_l1": "float32",
    "adam_var_sqrt_max": "float32",
    "train_seconds": "float64",
    "attempt": "int32",
    "loss_scale": "float32",
}
"""The analysed part of records.TRAIN_COLUMNS, in the narrowest sufficient types: a sweep has millions of rows."""


class NoRunsError(UserError):
    """A source without runs, or without a run that was evaluated."""


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a sweep or of an outputs folder, or curves of other origin."""

    name: str
    question: str
    folder: Path
    runs: pd.DataFrame
    """One row per run; RUN_COLUMNS."""
    train: pd.DataFrame
    """One row per step: run_id and TRAIN_COLUMNS, each run's rows contiguous and in order. Empty for a source that
    has evaluations only."""
    evals: pd.DataFrame
    """One row per evaluation: run_id and records.EVAL_COLUMNS."""
    attempts: pd.DataFrame
    """One row per attempt: run_id, records.ATTEMPT_COLUMNS and SPENT_COLUMNS. Empty for a source without attempts."""
    notes: tuple[str, ...] = ()
    """Defects tolerated while reading: torn lines, runs left out."""
    configs: Mapping[str, RunConfig] = dataclasses.field(default_factory=dict)
    """Resolved configuration of each run_id; empty for a source without configurations."""
    outputs: Path | None = None
    """The outputs folder that holds the runs; None for curves of other origin."""
    unigram: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Unigram cross-entropy (nats per token) of the validation data of each run_id; runs of unknown data have none."""

    def curve(self, run_id: str) -> pd.DataFrame:
        """A run's evaluations, in order of tokens."""
        return self.evals[self.evals["run_id"] == run_id].reset_index(drop=True)


def perplexity(loss: float) -> float:
    """exp(loss), or infinity if that overflows a float."""
    return math.exp(loss) if loss < 700 else (math.nan if math.isnan(loss) else math.inf)


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as dictionaries, much faster to loop over than `iterrows`."""
    return cast(list[Row], frame.to_dict("records"))


def stretches(frame: pd.DataFrame) -> Iterator[tuple[str, slice]]:
    """(run_id, rows) of each maximal block of consecutive rows of one run; usually one block per run."""
    if frame.empty:
        return
    ids = frame["run_id"].array
    ends = np.append(np.flatnonzero(np.asarray(ids[1:] != ids[:-1], dtype=bool)) + 1, len(ids))
    start = 0
    for end in ends.tolist():
        yield str(ids[start]), slice(start, end)
        start = end


def method_name(curriculum: str, variant: str) -> str:
    """Name of a method, which has one hue: the curriculum and, if a sweep varies something else, the variant."""
    return f"{curriculum} {variant}" if variant else curriculum


def method_names(rows: pd.DataFrame) -> list[str]:
    """`method_name` of each row of a frame with the columns curriculum and variant."""
    pairs = zip(rows["curriculum"].astype(str), rows["variant"].fillna("").astype(str), strict=True)
    return [method_name(curriculum, variant) for curriculum, variant in pairs]


CELL = ["curriculum", "variant", "setting", "global_batch_size", "lr"]
"""Columns that identify a cell."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A point of the grid: all that its runs share, everything but the seed."""

    curriculum: str
    """The curriculum's name; of a baseline, the baseline's."""
    variant: str
    """Further settings that the sweep varies; empty if none."""
    global_batch_size: int
    lr: float
    setting: str = ""
    """Hash of all other settings (cl_bench.runs.identity.setting)."""
    label: str = dataclasses.field(default="", compare=False)
    """The sweep's own name for the cell, if it has one."""

    @property
    def method(self) -> str:
        """Curriculum and variant; its cells share a hue."""
        return method_name(self.curriculum, self.variant)

    @property
    def point(self) -> tuple[int, float]:
        """Batch size and learning rate."""
        return self.global_batch_size, self.lr

    @property
    def place(self) -> str:
        """Batch size and learning rate as text: 'batch 16, LR 8e-3'."""
        return place_name(self.global_batch_size, self.lr)

    @property
    def name(self) -> str:
        """The cell in a sentence: 'fixed_linear at batch 16, LR 8e-3 (its label)'."""
        return f"{self.curriculum} at {self.place}" + (f" ({self.label})" if self.label else "")


def place_name(global_batch_size: int, lr: float) -> str:
    """'batch 16, LR 8e-3'."""
    return f"batch {int(global_batch_size)}, LR {short_float(float(lr))}"


def cell_of(run: Mapping[str, Any]) -> Cell:
    """The cell of a row of RUN_COLUMNS."""
    variant, label = ("" if v is None or v != v else str(v) for v in (run["variant"], run.get("named", "")))
    batch, lr = int(run["global_batch_size"]), float(run["lr"])
    return Cell(str(run["curriculum"]), variant, batch, lr, str(run["setting"]), label)
