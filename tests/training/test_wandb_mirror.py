"""The W&B mirror never holds up training: no key, its process killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from cl_bench.runs.paths import RunDir
from cl_bench.training.wandb_mirror import Mirror
from tests.conftest import run_config

pytestmark = pytest.mark.train


def wait_for_core(before: set[int]) -> psutil.Process:
    """wandb's own process, started for this mirror."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in psutil.Process().children(recursive=True):
            if child.pid not in before and "wandb-core" in " ".join(child.cmdline()):
                return child
        time.sleep(0.05)
    raise AssertionError("wandb-core never started")


def test_a_killed_mirror_costs_the_trainer_nothing(tmp_path: Path) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    run = RunDir(tmp_path, "run")
    mirror = Mirror(run_config(tracking={"mode": "wandb_offline"}), run, {"attempt": 0})
    mirror.log({"step": 1, "consumed_tokens": 1})
    core = wait_for_core(before)
    deadline = time.monotonic() + 30
    while not list(run.wandb.glob("offline-run-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(core.pid, signal.SIGKILL)
    slowest = 0.0
    for step in range(2000):
        started = time.perf_counter()
        mirror.log({"step": step, "consumed_tokens": step})
        slowest = max(slowest, time.perf_counter() - started)
    started = time.perf_counter()
    mirror.finish("DONE")
    assert slowest < 1.0  # a put on a queue; anything that waited for the dead process would take far longer
    assert time.perf_counter() - started < 40


def test_without_a_key_the_online_mirror_goes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    run = RunDir(tmp_path, "run")
    mirror = Mirror(run_config(tracking={"mode": "wandb_online"}), run, {"attempt": 0})
    mirror.log({"step": 1, "consumed_tokens": 1})
    mirror.finish("DONE")
    assert list(run.wandb.glob("offline-run-*/run-*.wandb"))
