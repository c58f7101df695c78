"""Runs with clocks, attempts and searches, whose cost is known by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import load_runs
from analysis.cost import hours
from analysis.cost.hours import Cost
from analysis.cost.tuning import Charges
from analysis.schema import Runs
from analysis.stats.savings import run_savings
from cl_bench.config import RunConfig
from cl_bench.config.tune import TuneConfig
from cl_bench.runs import records
from cl_bench.runs.paths import RunDir, TuneDir, write_atomic
from cl_bench.tune import record
from cl_bench.tune.probe import Space
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def add_attempt(
    run: RunDir, number: int, restored: int, steps: Sequence[int], seconds: Sequence[float] = (), **row: Any
) -> None:
    """A further attempt of a run made by make_run, whose steps take 1 s and 100 tokens."""
    writer = records.RecordWriter(run, number)
    start = {"restored_step": restored, "world_size": 1, "host": "h", "device": "cpu", "started": 0.0, "versions": {}}
    writer.write("attempt", start | row)
    for step, second in zip(steps, seconds or steps, strict=True):
        values = {"step": step, "consumed_tokens": step * 100, "consumed_samples": step, "seqlen": 64}
        writer.write("train", values | {"global_batch_size": 8, "lr": 1.0, "loss": 1.0, "train_seconds": float(second)})
    writer.close()


def cost_of(runs: Runs, charges: Charges | None = None, price: float | None = None) -> Cost:
    return hours.cost(runs.runs, runs.train, runs.attempts, run_savings(runs), charges, price)


def pair_by_hand(outputs: Path) -> Runs:
    """A pair on unlike ranks: the baseline straight through on 1 rank, the curriculum on 2 ranks in three attempts.

    The baseline is at loss 2 after 40 s, the curriculum after 25 s (2,500 tokens). It trained steps 1 to 10, 1 s each,
    went back to 4, failed at once, and trained 5 to 30. Each of its three evaluations took 0.5 s.
    """
    base = make_run(outputs, [5, 4, 3, 2.5, 2], train_losses=[2.0] * 40, curriculum=BASELINE)
    run = make_run(
        outputs,
        [5, 2.5, 1.5],
        tokens=[0, 2000, 3000],
        seconds=[0.0, 20.0, 30.0],
        train_losses=[2.0] * 10,
        curriculum=LINEAR,
    )
    rows = [json.loads(line) for line in run.attempt(0).read_text().splitlines()]
    changed = {"attempt": {"world_size": 2}, "eval": {"eval_seconds": 0.5}, "train": {}}
    run.attempt(0).write_text("".join(json.dumps(row | changed[row["kind"]]) + "\n" for row in rows))
    add_attempt(run, 1, 4, [], world_size=2)
    add_attempt(run, 2, 4, range(5, 31), world_size=2)
    return load_runs(make_sweep(outputs, [base, run]))


ASKED = TuneConfig(name="mine", starts=(8, 16), low=10, high=40, resolution=2)


def make_search(
    outputs: Path, config: RunConfig, name: str = "mine", duration: int | None = 16, start: int = 8
) -> None:
    """A search on `config` with two probes of 10 s, of which one was recorded on 2 ranks and one is gone."""
    probe = make_run(outputs, [5, 4], train_losses=[2.0] * 10, curriculum=LINEAR, token_budget=4_000)
    rows = [json.loads(line) for line in probe.attempt(0).read_text().splitlines()]
    changed = {"attempt": {"world_size": 2}, "eval": {"eval_seconds": 1.0}, "train": {}}
    probe.attempt(0).write_text("".join(json.dumps(row | changed[row["kind"]]) + "\n" for row in rows))
    probes = [
        {"run_id": probe.run_id, "train_seconds": 10.0, "eval_seconds": 2.0},
        {"run_id": "gone", "train_seconds": 10.0, "eval_seconds": 6.0},
    ]
    settings = record.settings(config, ASKED, Space((8, 16), (10, 12)))
    outcome = {"start": start, "duration": duration} if duration else None
    plain = {"name": name, "settings": settings, "probes": probes, "outcome": outcome}
    write_atomic(TuneDir(outputs, name).search, json.dumps(plain))


TUNING_HOURS = (2 * (10 + 2) + 16) / 3600


def tuned_sweep(outputs: Path) -> Path:
    """Baseline at loss 2 after 40 s, curriculum (resolved: 8 to 64 over 16 steps) after 25 s, two seeds each."""
    made = []
    for seed in (1, 2):
        made.append(make_run(outputs, [5, 4, 3, 2.5, 2], train_losses=[2.0] * 40, curriculum=BASELINE, seed=seed))
        made.append(make_run(outputs, [5, 3, 2.5, 1.5], train_losses=[2.0] * 30, curriculum=LINEAR, seed=seed))
    return make_sweep(outputs, made)
