"""What changes how a step is computed, not what it computes: micro-batches, padding, recomputing, offload, compiling.

And what changes from step to step: a growing batch, a length that follows the loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_bench import schedules
from cl_bench.config import from_dict
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir
from tests.conftest import LINEAR, small
from tests.training.test_engine import TOLERANCE, assert_identical, assert_same_curves, train

pytestmark = pytest.mark.train

RAMP = {"start": 2, "increment": 2, "duration": 60, "duration_unit": "samples"}
ADAPTIVE = {"name": "a", "schedule": "adaptive", "min_difficulty": 8, "threshold": 0.5, "patience": 1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, text: Path) -> RunDir:
    """LINEAR on one rank in one micro-batch a step."""
    return train(tmp_path_factory.mktemp("plain"), text, {})[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch_tokens": 128},  # 8 sequences at length 16, 2 at 64
        {"micro_batch_size": 2},  # the plain way: as many micro-batches at every length
        {"micro_batch_tokens": 128, "deepspeed": {"zero_stage": 2}, "resources": {"tasks_per_node": 2}},
        {"deepspeed": {"length_buckets": 2}},
        {"deepspeed": {"zero_stage": 2, "offload_optimizer": True}, "micro_batch_tokens": 128},
        {"deepspeed": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True}},
    ],
    ids=["tokens", "sequences", "ranks", "buckets", "offload", "offload3"],
)
def test_the_same_losses_and_gradients(plain: RunDir, tmp_path: Path, text: Path, changes: dict[str, Any]) -> None:
    (run,) = train(tmp_path, text, changes)
    assert_same_curves(plain, run, **TOLERANCE)


def test_recomputing_activations_changes_no_bit(tmp_path: Path, text: Path) -> None:
    dropout = {"model": {"dropout": 0.1}}
    kept, recomputed = train(
        tmp_path, text, dropout, dropout | {"deepspeed": {"activation_checkpointing": True}}, token_budget=10_000
    )
    assert_identical(kept, recomputed)


def test_a_compiled_model_learns_the_same(tmp_path: Path, text: Path) -> None:
    eager, compiled = train(
        tmp_path,
        text,
        {},
        {"deepspeed": {"compile": True, "length_buckets": 2}},
        token_budget=6_000,
        telemetry={"adam_variance_interval": 5},
    )
    assert_same_curves(eager, compiled, rtol=2e-3, atol=1e-4)


def test_a_batch_warmup_trains_as_planned(tmp_path: Path, text: Path) -> None:
    one, two = train(tmp_path, text, {}, {"resources": {"tasks_per_node": 2}, "seed": 2}, batch_warmup=RAMP)
    record = records.read(one).train
    config = from_dict(small(data={"path": str(text)}, curriculum=LINEAR, batch_warmup=RAMP))
    extent = schedules.extent(config)
    assert (len(record), record["consumed_tokens"].iloc[-1]) == (extent.steps, extent.tokens)
    assert record["global_batch_size"].iloc[[0, 9, 10]].tolist() == [2, 2, 4]
    assert record["global_batch_size"].iloc[-1] == 8
    assert record["consumed_samples"].tolist() == record["global_batch_size"].cumsum().tolist()
    np.testing.assert_allclose(
        record["consumed_tokens"].diff().iloc[1:], (record["global_batch_size"] * record["seqlen"]).iloc[1:]
    )
    assert status.read(two).state == "DONE"


@pytest.mark.parametrize("signal", ["val_loss", "adam_var_max"])
def test_an_adaptive_run_stopped_and_resumed_is_the_same(tmp_path: Path, text: Path, signal: str) -> None:
    changes = {"curriculum": ADAPTIVE | {"signal": signal}, "checkpoint": {"interval_steps": 10, "keep": 50}}
    (whole,) = train(tmp_path / "whole", text, changes)
    (run,) = train(tmp_path / "stopped", text, changes)
    lengths = records.read(whole).train["seqlen"]
    assert sorted(lengths.unique()) == [8, 16, 32, 64]
    assert lengths.is_monotonic_increasing
    saves = sorted(run.checkpoints.glob("step_*"))
    # Go on from a save in the middle, as if everything after it had been lost.
    middle = next(s for s in saves if int(s.name.split("_")[1]) > 0 and lengths[int(s.name.split("_")[1])] < 64)
    (run.checkpoints / "latest").write_text(middle.name)
    status.write(run, status.read(run), state="PREEMPTED")
    train(tmp_path / "stopped", text, changes)
    assert records.read(run).attempts["restored_step"].tolist() == [0, int(middle.name.split("_")[1])]
    assert_identical(whole, run)
