"""Evaluations and savings in clean seconds (analysis.stats.clock), with the recorded ones beside them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.schema import Runs, rows_of, stretches
from analysis.stats.clock import Clock, TimedPair, time_saving
from analysis.stats.crossings import Crossing, Curve
from analysis.stats.intervals import Estimate
from analysis.stats.pairs import Comparison


def clean_settings(runs: Runs, clock: Clock) -> frozenset[str]:
    """The settings of which every evaluated run has clean seconds that can be compared with a baseline's.

    In others all runs keep their recorded seconds: clean and recorded ones are never compared.
    """
    evaluated = set(runs.evals["run_id"].astype(str))
    rows = [row for row in rows_of(runs.runs) if str(row["run_id"]) in evaluated]
    recorded = {str(row["setting"]) for row in rows if clock.refusal(str(row["run_id"]), str(row["run_id"]))}
    return frozenset({str(row["setting"]) for row in rows} - recorded)


def with_clean_seconds(runs: Runs, clock: Clock) -> Runs:
    """The runs with clean seconds at the evaluations of `clean_settings`; the same object if there are none."""
    settings = clean_settings(runs, clock)
    clean = {str(row["run_id"]) for row in rows_of(runs.runs) if str(row["setting"]) in settings}
    if not clean or runs.evals.empty:
        return runs
    tokens = runs.evals["consumed_tokens"].to_numpy(dtype=float)
    seconds = runs.evals["train_seconds"].to_numpy(dtype=float).copy()
    for run_id, rows in stretches(runs.evals):
        if run_id in clean:
            seconds[rows] = clock.seconds_at(run_id, tokens[rows])
    return dataclasses.replace(runs, evals=runs.evals.assign(train_seconds=seconds))


def with_seconds_of(comparison: Comparison, run_id: str, by_run: Mapping[str, Curve]) -> Comparison:
    """The comparison with both runs' seconds read off other curves (by run_id) at the same tokens."""
    baseline_id = comparison.baseline_run_id
    if baseline_id is None or run_id not in by_run or baseline_id not in by_run:
        return comparison
    return dataclasses.replace(
        comparison,
        curriculum=_read_off(comparison.curriculum, by_run[run_id]),
        baseline=_read_off(comparison.baseline, by_run[baseline_id]),
    )


def _read_off(crossing: Crossing | None, curve: Curve) -> Crossing | None:
    if crossing is None:
        return None
    bound = crossing.seconds_bound if math.isnan(crossing.seconds_bound) else float(curve.seconds[-1])
    if crossing.tokens is None:
        return dataclasses.replace(crossing, seconds_bound=bound)
    seconds = float(np.interp(crossing.tokens, curve.tokens, curve.seconds))
    return dataclasses.replace(crossing, seconds=seconds, seconds_bound=bound)


def jackknifed(estimate: Estimate, clock: Clock, pairs: Sequence[tuple[int, str, Comparison]]) -> Estimate:
    """`estimate` of clean seconds with the jackknife's interval; itself if a pair is censored or has no clock.

    `pairs` holds seed, run_id and comparison of each pair of the estimate.
    """
    timed = []
    for seed, run_id, comparison in pairs:
        tokens, baseline_tokens = comparison.amounts("token")
        timed.append(TimedPair(seed, run_id, tokens, comparison.baseline_run_id or "", baseline_tokens))
    if estimate.point is None:
        return estimate
    result = time_saving(clock, timed)
    return estimate if result.point is None else result
