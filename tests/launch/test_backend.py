"""The registry of backends, and the recipe for a new one: a module, a preset, a test."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from cl_bench import launch, sweep
from cl_bench.cli import main
from cl_bench.errors import UserError
from cl_bench.launch import backend, display
from cl_bench.runs.paths import RunDir, all_runs

ROOT = Path(__file__).parents[2]

# A queue that never starts anything: what it holds is a folder of files named by run_id.
_MODULE = """
import dataclasses, pathlib, time
from cl_bench.config.schema import to_dict
from cl_bench.launch import observe
from cl_bench.launch.backend import QueuedJob
from cl_bench.runs import submission
from cl_bench.runs.paths import RunDir

QUEUE = pathlib.Path({queue!r})

class ToyBackend:
    label, detached = "Toy", True

    def check(self, plan): pass
    def requests(self, plan): return [f"{{len(plan.to_train)}} runs for the toy"]

    def submit(self, plan, *, terse):
        for run in plan.to_train:
            (QUEUE / run.run_id).touch()
            record = submission.Submission("toy", run.run_id, launch=to_dict(plan.launch), submitted=time.time())
            submission.write(RunDir(plan.launch.outputs, run.run_id), record)

    def observe(self, submissions):
        job = QueuedJob("HELD", is_waiting=True, reason="patience")
        jobs = {{s.job_id: job for s in submissions if (QUEUE / s.job_id).exists()}}
        return lambda seen: observe.with_job(seen, jobs.get(seen.job_id), queue=self.label)

    def cancel(self, runs):
        for seen in runs:
            (QUEUE / seen.job_id).unlink()
            submission.write(seen.run, dataclasses.replace(seen.submission, cancelled=True))
        return len(runs)

    def log(self, run, submission): return QUEUE / submission.job_id

BACKEND = ToyBackend()
"""
_PRESET = "_target_: hydra_plugins.cl_bench_launchers.GridLauncher\nbackend: toy\n"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a queue `toy` that is installed as a launcher."""
    folder = tmp_path / "queue"
    folder.mkdir()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "toy.py").write_text(_MODULE.format(queue=str(folder)))
    monkeypatch.setattr(launch, "__path__", [*launch.__path__, str(tmp_path / "modules")])
    monkeypatch.delitem(sys.modules, "cl_bench.launch.toy", raising=False)
    (tmp_path / "conf" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "conf" / "hydra" / "launcher" / "toy.yaml").write_text(_PRESET)
    monkeypatch.setattr(display.console, "width", 120)
    monkeypatch.setattr(sys, "argv", ["sweep"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return folder


def test_a_new_launcher_is_a_module_and_a_preset(
    queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "out"
    command = ["sweeps=smoke", "hydra/launcher=toy", f"hydra.searchpath=[file://{tmp_path / 'conf'}]"]
    command += [f"outputs={outputs}", "tracking=none"]
    assert sweep.main(["-m", *command]) == 0
    out = capsys.readouterr().out
    assert "2 runs for the toy" in out
    assert "state   cl-bench status" in out
    ids = [run.run_id for run in all_runs(outputs)]
    assert sorted(path.name for path in queue.iterdir()) == ids
    assert len(ids) == 2
    # A second launch leaves them to the queue; a single run needs no -m.
    assert sweep.main(["-m", *command]) == 0
    assert "2 queued" in capsys.readouterr().out
    assert sweep.main([*command, "seed=7"]) == 0
    assert len(all_runs(outputs)) == 3
    capsys.readouterr()
    # The commands on runs go through the backend of each run's submission.
    arguments = ["--outputs", str(outputs)]
    assert main.main(["status", "--json", *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["state"], row["queue"], row["why"]) for row in rows} == {("PENDING", "HELD", "patience")}
    (queue / ids[0]).write_text("hello from the toy")
    assert main.main(["logs", ids[0], *arguments]) == 0
    assert capsys.readouterr().out == "hello from the toy"
    assert main.main(["cancel", ids[0], *arguments]) == 0
    assert not (queue / ids[0]).exists()
    assert main.main(["status", ids[0], *arguments]) == 0
    assert "cancelled before it started" in " ".join(capsys.readouterr().out.split())
    assert main.main(["retry", ids[0], *arguments]) == 0
    assert (queue / ids[0]).exists()
    (queue / ids[1]).unlink()
    assert main.main(["status", ids[1], *arguments]) == 0
    assert "lost: " in (output := " ".join(capsys.readouterr().out.split())).lower()
    assert "its job is unknown to Toy; it never started" in output


def test_names_of_backends() -> None:
    assert {"local", "slurm"} <= set(backend.names())
    assert (backend.get("local").detached, backend.get("slurm").detached) == (False, True)
    for name in ("display", "nosuch", ""):  # the first is a module, but no backend
        with pytest.raises(UserError, match=rf"launcher = {name}: no such launcher; .*slurm"):
            backend.get(name)


def test_a_run_of_an_unknown_launcher_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tmp_path, "r")
    run.root.mkdir(parents=True)
    run.config.write_text("{}")
    run.submission.write_text('{"launcher": "pbs", "job_id": "1"}')
    assert main.main(["status", "--outputs", str(tmp_path)]) == 2
    assert "launcher = pbs: no such launcher" in capsys.readouterr().err


def test_a_preset_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep"])
    assert sweep.main(["sweeps=smoke", "hydra/launcher=basic", f"outputs={tmp_path}"]) == 2
    assert "hydra/launcher" in (error := capsys.readouterr().err)
    assert f"choose {' or '.join(backend.names())}" in error


def test_slurms_words_stay_in_its_package() -> None:
    words = re.compile(r"squeue|sbatch\b|scancel|scontrol|sacct|SLURM_|launcher [!=]= |launch\.slurm")
    allowed = {"config/resources.py"}  # resources.sbatch, a user's key
    sources = [p for p in (ROOT / "cl_bench").rglob("*.py") if "slurm" not in p.parts]
    offenders = {str(p.relative_to(ROOT / "cl_bench")) for p in sources if words.search(p.read_text())} - allowed
    assert not offenders
