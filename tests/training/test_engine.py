"""Identities on the real engine: ranks, ZeRO stages, accumulation, resumes; divergence; real signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_bench import config, schedules
from cl_bench.config import LaunchConfig, SweepConfig
from cl_bench.config.schema import ConfigError
from cl_bench.errors import RunsFailed
from cl_bench.launch import plan, prepare
from cl_bench.runs import identity, records, status
from cl_bench.runs.paths import RunDir
from cl_bench.training import hardware
from tests.conftest import LINEAR, small

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]
# Sums over ranks or partitions are added in another order: float32 has 7 digits, 40 steps of Adam amplify the last one.
TOLERANCE = {"rtol": 2e-4, "atol": 1e-6}


def train(outputs: Path, text: Path, *variants: dict[str, Any], **common: Any) -> list[RunDir]:
    """Train variants of SMALL one after another, each in processes of its own."""
    common = {"curriculum": LINEAR, **common}
    configs = [config.from_dict(small(data={"path": str(text)}, **{**common, **v})) for v in variants]
    launch = LaunchConfig(sweep=SweepConfig(name="t"), outputs=str(outputs))
    prepare.launch("local", configs, launch)
    return [RunDir(outputs, r.run_id) for r in plan.build(configs, launch, plan.Corpora()).runs]


def weights(run: RunDir) -> dict[str, Any]:
    """The last checkpoint's weights (ZeRO 0 … 2 keep them whole)."""
    import torch

    tag = (run.checkpoints / "latest").read_text()
    return torch.load(run.checkpoints / tag / "mp_rank_00_model_states.pt", weights_only=False)["module"]


def assert_same_curves(one: RunDir, other: RunDir, **tolerance: float) -> None:
    """Losses, gradient norms, lengths and evaluations agree, row by row."""
    a, b = records.read(one), records.read(other)
    assert a.train["seqlen"].tolist() == b.train["seqlen"].tolist()
    assert a.train["consumed_tokens"].tolist() == b.train["consumed_tokens"].tolist()
    for column in ("lr", "loss", "loss_ratio", "grad_norm", "adam_var_l1", "adam_var_max", "adam_var_sqrt_l1"):
        np.testing.assert_allclose(a.train[column], b.train[column], **tolerance, err_msg=column)
    np.testing.assert_allclose(a.evals["val_loss"], b.evals["val_loss"], **tolerance)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory, text: Path) -> RunDir:
    return train(tmp_path_factory.mktemp("one"), text, {})[0]


def test_a_run_trains_as_planned(one_rank: RunDir, text: Path) -> None:
    cfg = config.from_dict(small(data={"path": str(text)}, curriculum=LINEAR))
    extent = schedules.extent(cfg)
    record = records.read(one_rank)
    assert len(record.train) == extent.steps == record.train["step"].iloc[-1]
    assert record.train["consumed_tokens"].iloc[-1] == extent.tokens
    assert dict(record.train["seqlen"].value_counts()) == dict(extent.lengths)
    assert record.train["loss"].iloc[-1] < 0.7 * record.train["loss"].iloc[0]
    assert status.read(one_rank).state == "DONE"
    # evaluations: at the start, wherever a multiple of 2,000 tokens is crossed, and at the end
    tokens = record.train["consumed_tokens"].to_numpy()
    crossed = tokens[np.diff(tokens // 2000, prepend=0) > 0]
    assert record.evals["consumed_tokens"].tolist() == [0, *crossed] + (
        [tokens[-1]] if crossed[-1] != tokens[-1] else []
    )
    np.testing.assert_allclose(np.exp(record.evals["val_loss"]), record.evals["val_ppl"])
    assert record.train["train_seconds"].is_monotonic_increasing
    ratio = record.train["loss"] / record.train["loss"].cummin().shift()
    np.testing.assert_allclose(record.train["loss_ratio"], ratio)
    assert record.train["adam_var_l1"].notna().sum() == extent.steps // 10
    (attempt,) = record.attempts.to_dict("records")
    assert re.fullmatch(r"\S.*, \d+ threads?", attempt["hardware"])
    assert attempt["hardware"].startswith(hardware.cpu_model())
    assert attempt["trained_seconds"] == record.train["train_seconds"].iloc[-1]


def test_two_ranks_equal_one(one_rank: RunDir, tmp_path: Path, text: Path) -> None:
    (two,) = train(tmp_path, text, {"resources": {"tasks_per_node": 2}})
    assert records.read(two).attempts["world_size"].tolist() == [2]
    assert_same_curves(one_rank, two, **TOLERANCE)


def test_zero_stages_are_equal_on_two_ranks(one_rank: RunDir, tmp_path: Path, text: Path) -> None:
    stages = train(
        tmp_path, text, *({"deepspeed": {"zero_stage": z}} for z in (1, 2, 3)), resources={"tasks_per_node": 2}
    )
    for run in stages:
        assert_same_curves(one_rank, run, **TOLERANCE)


def test_zero_one_on_one_rank_and_accumulation(one_rank: RunDir, tmp_path: Path, text: Path) -> None:
    for run in train(tmp_path, text, {"deepspeed": {"zero_stage": 1}}, {"micro_batch_size": 2}):
        assert_same_curves(one_rank, run, **TOLERANCE)


def test_the_same_run_twice_is_the_same_bit_for_bit(one_rank: RunDir, tmp_path: Path, text: Path) -> None:
    (again,) = train(tmp_path, text, {"checkpoint": {"interval_steps": 7, "keep": 1}})
    assert_identical(one_rank, again)
    assert len(list(again.checkpoints.glob("step_*"))) == 1


def assert_identical(one: RunDir, other: RunDir) -> None:
    """Every row and every weight, bit for bit, except what was measured with a clock."""
    clocks = ["train_seconds", "tokens_per_second", "eval_seconds", "attempt"]
    a, b = records.read(one), records.read(other)
    for mine, theirs in ((a.train, b.train), (a.evals, b.evals)):
        pd.testing.assert_frame_equal(
            mine.drop(columns=clocks, errors="ignore"), theirs.drop(columns=clocks, errors="ignore"), check_exact=True
        )
    w, v = weights(one), weights(other)
    assert w.keys() == v.keys()
    assert all((w[name] == v[name]).all() for name in w)


def test_reshape_and_custom_and_dropout_train(tmp_path: Path, text: Path) -> None:
    runs = train(
        tmp_path,
        text,
        {"curriculum": LINEAR | {"mode": "reshape"}},
        {"curriculum": {"name": "c", "schedule": "custom", "function": "tests.schedules.test_seqlen.sawtooth"}},
        {"curriculum": {"name": "d", "schedule": "fixed_discrete", "difficulty": [24, None], "max_step": [0.5]}},
        {"model": {"dropout": 0.1}},
    )
    reshaped = records.read(runs[0]).train
    assert len(reshaped) == 40  # no token is dropped: as many steps as the baseline
    assert (reshaped["consumed_tokens"].diff().dropna() == 8 * 64).all()
    assert reshaped["seqlen"].iloc[0] == 8
    assert set(records.read(runs[2]).train["seqlen"]) == {24, 64}
    for run in runs:
        assert status.read(run).state == "DONE"
        assert records.read(run).train["loss"].notna().all()


def test_divergence_is_a_result(tmp_path: Path, text: Path) -> None:
    # A threshold just above 1 is crossed by noise; a huge learning rate without clipping reaches non-finite losses.
    slow, wild = train(
        tmp_path,
        text,
        {"divergence": {"loss_ratio": 1.0001, "steps": 2}},
        {"optim": {"lr": 1e30, "grad_clip": 0}},
        curriculum={"name": "baseline", "schedule": "baseline"},
    )
    first, second = status.read(slow), status.read(wild)
    assert first.state == second.state == "DIVERGED"
    assert "above 1.0001 times its minimum for 2 steps" in first.error
    assert "the training loss is" in second.error
    assert first.step < first.steps
    assert len(records.read(slow).evals) >= 2
    assert records.read(wild).train["loss"].isna().iloc[-1]


def test_bf16_trains(tmp_path: Path, text: Path) -> None:
    (run,) = train(tmp_path, text, {"deepspeed": {"precision": "bf16", "zero_stage": 1}})
    record = records.read(run).train
    assert record["loss"].iloc[-1] < 0.8 * record["loss"].iloc[0]
    assert {str(w.dtype) for w in weights(run).values()} == {"torch.bfloat16"}


def test_a_lost_status_file_costs_no_row(tmp_path: Path, text: Path) -> None:
    (run,) = train(tmp_path, text, {})
    before = records.read(run)
    run.status.unlink()
    train(tmp_path, text, {})
    after = records.read(run)
    assert status.read(run).state == "DONE"
    pd.testing.assert_frame_equal(before.train, after.train)
    pd.testing.assert_frame_equal(before.evals, after.evals)


def test_a_checkpoint_of_other_ranks_or_a_missing_one_can_be_remedied(tmp_path: Path, text: Path) -> None:
    sharded = {"deepspeed": {"zero_stage": 1}}
    (run,) = train(tmp_path, text, sharded, resources={"tasks_per_node": 2})
    status.write(run, status.read(run), state="PREEMPTED")
    with pytest.raises(RunsFailed):
        train(tmp_path, text, sharded)
    assert "saved by 2 ranks" in status.read(run).error
    for saved in run.checkpoints.glob("step_*"):
        shutil.rmtree(saved)
    train(tmp_path, text, sharded)
    assert status.read(run).state == "DONE"
    assert records.read(run).train["step"].is_unique


def test_an_edited_configuration_is_refused(tmp_path: Path, text: Path) -> None:
    (run,) = train(tmp_path, text, {})
    run.config.write_text(run.config.read_text().replace("lr: 0.002", "lr: 0.004"))
    with pytest.raises(ConfigError, match="is never edited"):
        identity.load_config(run)


# --- interruptions ----------------------------------------------------------------------------------------------------

LONG = {"token_budget": 250_000, "checkpoint": {"interval_steps": 20, "keep": 1}, "model": {"dropout": 0.1}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, text: Path) -> RunDir:
    return train(tmp_path_factory.mktemp("whole"), text, LONG)[0]


@pytest.fixture
def launched(tmp_path: Path, text: Path) -> Iterator[tuple[subprocess.Popen[str], RunDir]]:
    """The undisturbed run's twin, launched in another process and in the middle of its training."""
    code = (
        "import sys; from pathlib import Path; from tests.training.test_engine import train, LONG\n"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), LONG)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(text)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background jobs
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = list((tmp_path / "runs").glob("*"))
        if found and status.read(RunDir.at(found[0])).step >= 60:
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    run = RunDir.at(found[0])
    assert status.read(run).state == "RUNNING"
    yield process, run
    process.kill()


def trainers(run: RunDir) -> list[int]:
    """Process ids of the run's trainers (not of submitit's controller above them)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "submitit.core._submit" in words and str(run.root) in " ".join(words):
            found.append(int(folder.name))
    return found


def finish(run: RunDir, text: Path) -> None:
    (again,) = train(run.outputs, text, LONG)
    assert again.root == run.root
    assert status.read(run).state == "DONE"


def test_interrupted_and_resumed_equals_uninterrupted(
    launched: tuple[subprocess.Popen[str], RunDir], undisturbed: RunDir, text: Path
) -> None:
    process, run = launched
    process.send_signal(signal.SIGINT)  # Ctrl-C: the run saves and leaves
    output = process.communicate(timeout=60)[0]
    left = status.read(run)
    assert left.state == "PREEMPTED", output
    assert plan.state_of(run) == "interrupted"
    finish(run, text)
    attempts = records.read(run).attempts
    assert attempts["restored_step"].tolist() == [0, left.step]  # nothing was lost
    assert_identical(undisturbed, run)


def kill(process: subprocess.Popen[str], run: RunDir) -> str:
    """SIGKILL the trainer; returns what the launch said."""
    (pid,) = trainers(run)
    os.kill(pid, signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert status.read(run).state == "FAILED"
    return output


def test_killed_and_resumed_equals_uninterrupted(
    launched: tuple[subprocess.Popen[str], RunDir], undisturbed: RunDir, text: Path
) -> None:
    process, run = launched
    assert "the process ended without recording an error" in kill(process, run)
    with run.attempt(0).open("ab") as file:
        file.write(b'{"kind": "train", "step": 9')  # and its last write was torn
    finish(run, text)
    record = records.read(run)
    restored = int(record.attempts["restored_step"].iloc[1])
    assert restored % 20 == 0
    assert restored >= 60 - 20
    assert_identical(undisturbed, run)


def test_a_half_written_checkpoint_is_ignored(
    launched: tuple[subprocess.Popen[str], RunDir], undisturbed: RunDir, text: Path
) -> None:
    kill(*launched)
    run = launched[1]
    torn = run.checkpoints / "step_000000999"
    torn.mkdir()
    (torn / "mp_rank_00_model_states.pt").write_bytes(b"half")
    finish(run, text)
    assert_identical(undisturbed, run)
    assert len(list(run.checkpoints.glob("step_*"))) == 1


def test_a_rank_that_cannot_start_stops_the_others(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rank 1 fails before it meets rank 0, which would wait half an hour for it.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('SUBMITIT_LOCAL_GLOBALID') == '1':\n"
        "    from cl_bench.training import worker as job\n"
        "    def broken(*_): raise RuntimeError('no GPU left')\n"
        "    job._prepare = broken\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    with pytest.raises(RunsFailed):
        train(tmp_path / "out", text, {"resources": {"tasks_per_node": 2}})
    (run,) = (RunDir.at(p) for p in (tmp_path / "out" / "runs").glob("*"))
    assert status.read(run).state == "FAILED"
    assert "rank 1 could not start: RuntimeError: no GPU left" in status.read(run).error
