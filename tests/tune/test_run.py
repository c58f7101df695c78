"""A real search, interrupted and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir, TuneDir, all_runs

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]


def test_a_search_killed_midway_resumes(tmp_path: Path) -> None:
    arguments = [
        "tune.name=t",
        "tune.starts=[8]",
        "tune.low=20",
        "tune.high=60",
        "tune.resolution=20",
        "tune.warmups=2",
    ]
    run = ["sweeps=smoke", "tracking=none", "optim.warmup_tokens=4000", "evaluation.n_blocks=8", f"outputs={tmp_path}"]
    command = [sys.executable, "-m", "cl_bench", "tune", *run, *arguments, "resources.threads=1"]
    first = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100"},
    )
    folder = TuneDir(tmp_path, "t")

    def second_probe() -> RunDir | None:
        """The probe in training once one is over."""
        if not folder.search.exists():
            return None
        runs = [run for run in all_runs(tmp_path) if status.read(run).state == "RUNNING" and status.read(run).step]
        return runs[0] if runs else None

    deadline = time.monotonic() + 120
    while not (interrupted := second_probe()):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 130, out + err
    assert "the same command resumes" in out
    half = json.loads(folder.search.read_text())
    assert half["outcome"] is None
    assert len(half["probes"]) == 1
    done = RunDir(tmp_path, half["probes"][0]["run_id"])
    trained = done.table("train").stat().st_mtime_ns

    second = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=200)
    assert second.returncode in (0, 1), second.stderr  # 1: no T is steady
    assert second.stderr == ""
    search = json.loads(folder.search.read_text())
    assert search["probes"][0] == half["probes"][0]
    assert done.table("train").stat().st_mtime_ns == trained
    assert len(records.read(done).attempts) == 1
    assert records.read(interrupted).train["step"].is_unique
    assert search["outcome"]["duration"] in (None, 20, 40, 60)
    assert search["cost"]["tokens"] == sum(status.read(run).consumed_tokens for run in all_runs(tmp_path))
    assert folder.preset.exists() == (second.returncode == 0)
    assert "page " in second.stdout
    assert all(len(probe["words"]) > 5 for probe in search["probes"])
