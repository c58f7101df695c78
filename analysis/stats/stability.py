"""Stability of each run: its outcome, its instability events, and the paper's loss ratio (arXiv 2108.06084)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.schema import Runs, stretches
from analysis.stats.crossings import Floats
from analysis.stats.events import EventRate, RunEvents, event_rates, run_events
from analysis.stats.joint_boundary import JointBoundary, joint_boundaries
from analysis.stats.lr_response import Response, responses, useful_runs
from analysis.stats.outcome import DEFAULT, Outcome, Rules, instability, outcomes

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
    "outcome",
    "reason",
    "unstable",
    "useful",
    "windows",
    "events",
    "events_at_length_change",
    "smallest_detectable_ratio",
    "skipped_steps",
    "spike_score_loss",
    "spike_score_grad_norm",
)


@dataclasses.dataclass(frozen=True)
class Instability:
    """What the records say about the stability of runs; every mapping is by run_id."""

    outcomes: Mapping[str, Outcome]
    unstable: Mapping[str, bool | None]
    """Whether a run diverged, or did not learn at too high a learning rate; None where that is undecided."""
    useful: Mapping[str, bool | None]
    """Whether a run ended within 2% of its method's best loss at its batch size; None where that is undecided."""
    events: Mapping[str, RunEvents]
    rates: tuple[EventRate, ...]
    """Events per run, one per setting and method."""
    responses: tuple[Response, ...]
    """Final loss over learning rate, one per method and batch size."""
    joint: tuple[JointBoundary, ...]
    """Stability over batch size and learning rate together, one per setting with a baseline."""


def judge_runs(runs: Runs, rules: Rules = DEFAULT) -> Instability:
    """Outcome, events and stability of every run, from its records."""
    judged = outcomes(runs, runs.unigram, rules)
    unstable = instability(runs.runs, judged)
    events = run_events(runs)
    made = responses(runs.runs, runs.evals, judged)
    return Instability(
        judged,
        unstable,
        useful_runs(runs.runs, made, judged),
        events,
        tuple(event_rates(runs.runs, events)),
        tuple(made),
        tuple(joint_boundaries(runs.runs, unstable)),
    )


def with_outcomes(runs: Runs, judged: Mapping[str, Outcome]) -> Runs:
    """Runs whose finished runs have the state DIVERGED where their outcome says so: training may not have noticed."""
    diverged = runs.runs["run_id"].map(lambda run_id: judged[str(run_id)].diverged).astype(bool)
    state = runs.runs["state"].mask(diverged & (runs.runs["state"] == "DONE"), "DIVERGED")
    return dataclasses.replace(runs, runs=runs.runs.assign(state=state))


def stability(runs: Runs, judged: Instability | None = None) -> pd.DataFrame:
    """One row per run (STABILITY_COLUMNS): outcome, loss ratios, instability events.

    A step's loss ratio is the paper's: its training loss over the smallest training loss before it. `events` is empty
    for runs too short to measure their noise.
    """
    judged = judged or judge_runs(runs)
    ratios = runs.train["loss_ratio"].to_numpy(dtype=float)
    measured = {run_id: _summary(ratios[rows]) for run_id, rows in stretches(runs.train)}
    columns = ["max_loss_ratio", *THRESHOLDS, "steps"]
    table = runs.runs.merge(
        pd.DataFrame.from_dict(measured, orient="index", columns=columns),
        left_on="run_id",
        right_index=True,
        how="left",
    ).reset_index(drop=True)
    ids = [str(run_id) for run_id in table["run_id"]]
    table["diverged"] = [judged.outcomes[i].diverged for i in ids]
    counts = [*THRESHOLDS, "steps"]
    table[counts] = table[counts].fillna(0).astype("int64")
    table["outcome"] = [judged.outcomes[i].kind for i in ids]
    table["reason"] = [judged.outcomes[i].reason for i in ids]
    for name, values in (("unstable", judged.unstable), ("useful", judged.useful)):
        table[name] = pd.array([values[i] for i in ids], dtype="boolean")
    return table.join(_events([judged.events[i] for i in ids]))[list(STABILITY_COLUMNS)]


def _events(events: list[RunEvents]) -> pd.DataFrame:
    """The columns of STABILITY_COLUMNS on events; counts are missing where noise could not be measured."""
    judged = [e if e.is_measured or e.events else None for e in events]
    return pd.DataFrame(
        {
            "windows": [e.windows for e in events],
            "events": pd.array([None if e is None else len(e.events) for e in judged], dtype="Int64"),
            "events_at_length_change": pd.array(
                [None if e is None else e.at_length_changes for e in judged], dtype="Int64"
            ),
            "smallest_detectable_ratio": [
                math.nan if e.smallest_detectable is None else e.smallest_detectable for e in events
            ],
            "skipped_steps": [e.skipped_steps for e in events],
            "spike_score_loss": [e.spike_score_loss for e in events],
            "spike_score_grad_norm": [e.spike_score_grad_norm for e in events],
        }
    )


def _summary(ratios: Floats) -> list[float]:
    """The largest of one run's loss ratios, the steps above each threshold, and all steps; NaN ratios are ignored."""
    finite = ratios[~np.isnan(ratios)]
    return [
        float(finite.max()) if len(finite) else math.nan,
        *(int((finite > threshold).sum()) for threshold in THRESHOLDS.values()),
        len(ratios),
    ]
