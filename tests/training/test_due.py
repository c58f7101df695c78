"""When evaluations and saves are due, the saved state, and what a recorder leaves behind: no engine needed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cl_bench.config import RunConfig
from cl_bench.data import batches
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir
from cl_bench.training.checkpoint import Checkpointer, TrainState
from cl_bench.training.process import Rank
from cl_bench.training.recorder import Recorder, Row
from cl_bench.training.validation import Evaluator
from tests.conftest import resolved, run_config

NOTHING: Any = SimpleNamespace()


@pytest.fixture
def config() -> RunConfig:
    return resolved()


def test_evaluations_are_due_on_a_grid_of_tokens_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "validation_blocks", lambda *_: np.zeros((1, 65), np.int64))
    evaluator = Evaluator(run_config(), NOTHING, NOTHING, Rank())  # every 2,000 tokens of 20,000
    due = [tokens for tokens in range(512, 20_481, 512) if evaluator.is_due(tokens, 512)]
    assert due == [2048, 4096, 6144, 8192, 10240, 12288, 14336, 16384, 18432, 20480]
    assert evaluator.is_due(20_001, 1)  # beyond the budget, without crossing


@pytest.mark.parametrize(("interval", "due"), [(0, []), (5, [5, 10]), (20, [])])
def test_saves_are_due_at_intervals(interval: int, due: list[int], tmp_path: Path) -> None:
    config = run_config(checkpoint={"interval_steps": interval})
    checkpointer = Checkpointer(config, RunDir(tmp_path, "r"), NOTHING, Rank())
    assert [step for step in range(1, 13) if checkpointer.is_due(step)] == due


def test_a_saved_state_is_restored_also_from_version_0_1() -> None:
    state = TrainState(step=3, consumed_tokens=5, min_loss=2.0, schedule={"length": 16, "last": 2.5, "calm": 1})
    assert TrainState.from_saved(dataclasses.asdict(dataclasses.replace(state, loss=2.0))) == dataclasses.replace(
        state, loss=2.0
    )
    old = {"step": 3, "consumed_tokens": 5, "consumed_samples": 0, "train_seconds": 0.0, "min_loss": 2.0}
    read = TrainState.from_saved(old | {"steps_above": 0, "pace": {"length": 16, "last": 2.5, "calm": 1}})
    assert dataclasses.replace(read, loss=0.0) == dataclasses.replace(state, loss=0.0)


def row(step: int, loss: float) -> Row:
    return {
        "step": step,
        "consumed_tokens": 512 * step,
        "consumed_samples": 8 * step,
        "seqlen": 64,
        "global_batch_size": 8,
        "lr": 1e-3,
        "loss": loss,
        "train_seconds": 1.0 * step,
        "tokens_per_second": 512.0,
    }


def test_a_recorder_leaves_rows_and_a_status(config: RunConfig, tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    run.root.mkdir(parents=True)
    state = TrainState()
    with Recorder(config, run, Rank(node="n1", job="7"), state) as recorder:
        begun = status.read(run)
        assert (begun.state, begun.steps, begun.node, begun.job) == ("RUNNING", 40, "n1", "7")
        recorder.train(row(1, 5.0))
        assert status.read(run).loss == 5.0  # the first step's heartbeat
        recorder.evaluation({"step": 1, "consumed_tokens": 512, "val_loss": math.inf, "val_ppl": math.inf})
        state.step, state.consumed_tokens = 1, 512
        recorder.finish("PREEMPTED", "asked to stop", state)
    ended = status.read(run)
    assert (ended.state, ended.error, ended.step, ended.val_loss) == ("PREEMPTED", "asked to stop", 1, None)
    assert records.read(run).train["loss"].tolist() == [5.0]


def test_a_recorder_whose_attempt_fails_keeps_its_rows(config: RunConfig, tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    run.root.mkdir(parents=True)
    for _ in range(2):
        recorder = Recorder(config, run, Rank(), TrainState())
        recorder.train(row(1, 5.0))
        recorder.__exit__(ValueError, ValueError("broken"), None)
    assert [path.name for path in run.attempts()] == [path.name for path in (run.attempt(0), run.attempt(1))]
    assert [json.loads(line)["kind"] for line in run.attempt(1).read_text().splitlines()] == ["attempt", "train"]
    assert status.read(run).state == "RUNNING"  # the job around it writes why it failed


def test_an_adaptive_run_reports_its_steps_at_the_current_length(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    run.root.mkdir(parents=True)
    curriculum = {"name": "a", "schedule": "adaptive"}
    with Recorder(resolved(curriculum=curriculum), run, Rank(), TrainState()) as recorder:
        recorder.train(row(1, 5.0) | {"consumed_tokens": 64, "seqlen": 8})
    # 20,000 - 64 tokens are left, in steps of 8 x 8: 312 after the first.
    assert status.read(run).steps == 313


def test_other_ranks_record_nothing(config: RunConfig, tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    with Recorder(config, run, Rank(rank=1, world_size=2), TrainState()) as recorder:
        recorder.train(row(1, 5.0))
        recorder.finish("DONE", "", TrainState())
    assert not run.root.exists()
