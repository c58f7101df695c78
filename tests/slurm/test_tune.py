"""A search whose probes are jobs of a real Slurm."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from analysis.page import tune as tune_page
from cl_bench.config import LaunchConfig
from cl_bench.config.tune import TuneConfig
from cl_bench.launch import prepare
from cl_bench.runs import submission
from cl_bench.runs.paths import TuneDir, all_runs
from cl_bench.tune import run as tune
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import grid


def test_probes_are_submitted_and_waited_for(
    cluster: Cluster, tmp_path: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = grid(text, token_budget=20_000)
    tuning = TuneConfig(name="t", starts=(8,), low=20, high=20, resolution=20, checks=0)
    tune.tune(
        run, LaunchConfig(outputs=str(tmp_path)), tuning, functools.partial(prepare.launch, "slurm"), tune_page.write
    )
    search = json.loads(TuneDir(tmp_path, "t").search.read_text())
    (probe,) = all_runs(tmp_path)
    assert [p["run_id"] for p in search["probes"]] == [probe.run_id]
    assert submission.read(probe).launcher == "slurm"  # type: ignore[union-attr]
    assert "probe 1  start 8, T 20" in capfd.readouterr().out
