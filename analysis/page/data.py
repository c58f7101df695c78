"""Everything that a report's page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis import figures
from analysis.cost import hours
from analysis.figures import TimeUnit
from analysis.stats.stability import Instability


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows. Frames may have no rows, never missing columns."""

    title: str
    """Name of the sweep."""
    question: str
    """The question the sweep asks, one sentence."""
    generated: str
    """When the results were read, ISO 8601."""
    command: str
    """The shell command that makes this page again."""
    verdict: Mapping[str, Any]
    """analysis.verdict.headline.verdict() of the runs."""
    runs: pd.DataFrame
    """One row per run: run_id, cell, named (the cell's name if the sweep gave it one, else empty), role, curriculum,
    shape, variant, model, global_batch_size, lr, seed, state, token_budget, max_seqlen, consumed_tokens, train_seconds
    (s), final_loss (nats/token), final_ppl, best_ppl, tokens_per_second."""
    train: pd.DataFrame
    """One row per training step: run_id, step, consumed_tokens, seqlen, loss, train_seconds, loss_ratio, and optimizer
    statistics that the page does not draw."""
    evals: pd.DataFrame
    """One row an evaluation: run_id, step, consumed_tokens, train_seconds (s), val_loss (nats/token), val_ppl."""
    savings: pd.DataFrame
    """One row per curriculum run: run_id, named, baseline_run_id, best_baseline_run_id, curriculum, variant,
    global_batch_size, lr, seed, target_ppl, reached, tokens_to_target, seconds_to_target, baseline_tokens,
    baseline_seconds, token_saving, time_saving, token_saving_bound, vs_best_target_ppl, vs_best_reached,
    vs_best_token_saving, vs_best_time_saving (fractions, NaN where never reached), note."""
    targets: pd.DataFrame
    """One row per target and cell (analysis.stats.over_targets.TARGET_COLUMNS)."""
    stability: pd.DataFrame
    """One row per run: run_id, named, curriculum, variant, global_batch_size, lr, seed, state, diverged,
    max_loss_ratio and what else analysis.stats.stability.STABILITY_COLUMNS names."""
    frontier: pd.DataFrame
    """analysis.stats.boundary.all_boundaries() of the runs."""
    correlation: pd.DataFrame
    """analysis.stats.correlation.correlations() of the runs."""
    attempts: pd.DataFrame
    """One row an attempt: run_id, attempt, restored_step, world_size, device, started. May have no rows."""
    cost: hours.Cost
    """What the runs cost."""
    instability: Instability
    """How each run ended, and what that says about stability."""
    rules_sentence: str = ""
    """When a run counts as diverged or as not having learned."""
    unigram: Mapping[str, float] = field(default_factory=dict)
    """Unigram cross-entropy (nats per token) of the validation data of each run_id, where it is known."""
    ours: bool = True
    """Whether the curves come from cl_bench's own runs."""
    refresh_s: float | None = None
    """Seconds after which the page reloads, while a sweep runs."""

    @property
    def unit(self) -> TimeUnit:
        """Unit of training time, the same in every figure and table."""
        return figures.time_unit(float(self.runs["train_seconds"].max()) if len(self.runs) else math.nan)
