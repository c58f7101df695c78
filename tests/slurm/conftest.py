"""One cluster for all tests of this folder, and what they submit to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cl_bench import config
from cl_bench.config import LaunchConfig, SweepConfig
from cl_bench.launch import observe, plan, prepare
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir
from tests.conftest import LINEAR, small
from tests.slurm import cluster as clusters
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]
# 196 steps with dropout and a save every 20; one thread, so that sums are added in the same order everywhere.
RUN: dict[str, Any] = {
    "token_budget": 100_000,
    "curriculum": LINEAR,
    "model": {"dropout": 0.1},
    "checkpoint": {"interval_steps": 20, "keep": 1},
    "resources": {"threads": 1},
}
_SLOWED = """
import os, time
if os.environ.get("SLURM_JOB_ID"):
    from cl_bench.schedules import StepShapes  # decided once per step, and imported without torch
    at = StepShapes.at
    def slowed(self, step, *consumed):
        time.sleep(float(os.environ.get("TEST_STEP_S", 0)))
        if os.environ.get("TEST_FAILING_SEED") == str(self.config.seed) and step == 6:
            raise ValueError("a bad GPU")
        return at(self, step, *consumed)
    StepShapes.at = slowed
"""


@pytest.fixture(scope="session")
def make_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    """Brings clusters up; takes them down at the end."""
    if problem := clusters.missing():
        if os.environ.get("CI"):
            pytest.fail(f"the Slurm tests must run here: {problem}")
        pytest.skip(f"no Slurm tests: {problem}")
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        made.append(Cluster(tmp_path_factory.mktemp("slurm"), **options))
        made[-1].up()
        return made[-1]

    yield make
    for cluster in made:
        cluster.down()


@pytest.fixture(scope="session")
def _cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster()


@pytest.fixture
def cluster(_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    """The cluster, and an environment in which Slurm's commands mean it and steps can be slowed down."""
    use(_cluster, monkeypatch, tmp_path)
    return _cluster


def use(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `cluster` the one that Slurm's commands talk to."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.env[name])
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(_SLOWED)
    monkeypatch.setenv("PYTHONPATH", f"{folder / 'site'}{os.pathsep}{ROOT}")


def grid(text: Path, *variants: dict[str, Any], **common: Any) -> list[config.RunConfig]:
    """Variants of RUN."""
    return [config.from_dict(_merged(text, common | v)) for v in variants or ({},)]


def _merged(text: Path, changes: dict[str, Any]) -> dict[str, Any]:
    changes = {**changes, "resources": RUN["resources"] | changes.get("resources", {})}
    return small(data={"path": str(text)}, **{**RUN, **changes})


def submit(outputs: Path, configs: list[config.RunConfig], **settings: Any) -> list[RunDir]:
    """Queue the runs; their folders."""
    launch = LaunchConfig(sweep=SweepConfig(name="t"), outputs=str(outputs), **settings)
    prepare.launch("slurm", configs, launch)
    return folders(outputs, configs)


def folders(outputs: Path, configs: list[config.RunConfig]) -> list[RunDir]:
    """Where the runs are."""
    launch = LaunchConfig(sweep=SweepConfig(name="t"), outputs=str(outputs))
    return [RunDir(outputs, r.run_id) for r in plan.build(configs, launch, plan.Corpora()).runs]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, text: Path) -> RunDir:
    """RUN, trained on this machine without any Slurm."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    configs = grid(text)
    prepare.launch("local", configs, LaunchConfig(sweep=SweepConfig(name="t"), outputs=str(outputs)))
    return folders(outputs, configs)[0]


def until(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    """Wait for `condition`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(0.1)


def until_step(run: RunDir, step: int) -> None:
    """Wait until the run is in training at or past a step."""
    until(lambda: status.read(run).state == "RUNNING" and status.read(run).step >= step, f"step {step}")


def until_over(*runs: RunDir, seconds: float = 200) -> None:
    """Wait until no run is live: twice, because a job that leaves may come back."""
    quiet = 0
    deadline = time.monotonic() + seconds
    while quiet < 3:
        observed = observe.observe(runs)
        quiet = 0 if any(seen.is_live for seen in observed) else quiet + 1
        assert time.monotonic() < deadline, [(seen.status.state, seen.why, seen.job) for seen in observed]
        time.sleep(0.3)


def restored(run: RunDir) -> list[int]:
    """The step at which each attempt began."""
    return [int(step) for step in records.read(run).attempts["restored_step"]]
