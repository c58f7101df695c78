"""Slurm requests of a run, the snapshot of the code that it runs from, and the rendezvous of its ranks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cl_bench.config import LaunchConfig, SweepConfig, from_dict
from cl_bench.errors import UserError
from cl_bench.launch import plan
from cl_bench.launch.grid import Plan
from cl_bench.launch.slurm import packing, submit
from cl_bench.runs import provenance, submission
from cl_bench.runs.paths import RunDir
from cl_bench.runs.submission import Submission
from cl_bench.training import rendezvous
from tests.conftest import small


def planned(tmp_path: Path, text: Path, *resources: dict[str, Any], **settings: Any) -> Plan:
    launch = LaunchConfig(sweep=SweepConfig(name="t"), outputs=str(tmp_path), **settings)
    grid = [small(data={"path": str(text)}, seed=s, resources=r) for s, r in enumerate(resources)]
    return plan.build([from_dict(g) for g in grid], launch, plan.Corpora())


def test_sbatch_options_of_a_run(tmp_path: Path, text: Path) -> None:
    resources = {"nodes": 2, "gpus_per_node": 4, "cpus_per_task": 8, "mem": "64G", "time_min": 240, "qos": "long"}
    more = {
        "partition": "gpu",
        "account": "lab",
        "constraint": "a100",
        "sbatch": {"exclusive": True, "mail_type": None},
    }
    (job,) = packing.pack(planned(tmp_path, text, resources | more | {"setup": ["module load cuda"]}))
    options = packing.parameters(job)
    names = ("nodes", "ntasks_per_node", "gpus_per_node", "cpus_per_task", "time", "partition", "account", "qos")
    assert [options[n] for n in names] == [2, 4, 4, 8, 240, "gpu", "lab", "long"]
    assert options["constraint"] == "a100"
    assert options["additional_parameters"] == {"requeue": True, "mem": "64G", "exclusive": True}
    assert options["setup"] == ["module load cuda"]
    assert options["srun_args"] == ["--kill-on-bad-exit=1"]
    assert options["signal_delay_s"] == 90


def test_a_type_of_gpu_and_switches(tmp_path: Path, text: Path) -> None:
    resources = {"gpus_per_node": 2, "gpu_type": "a100", "sbatch": {"exclusive": False, "mail_type": None}}
    (job,) = packing.pack(planned(tmp_path, text, resources))
    options = packing.parameters(job)
    assert options["gpus_per_node"] is None
    assert options["additional_parameters"] == {"requeue": True, "gpus-per-node": "a100:2"}
    assert options["ntasks_per_node"] == 2


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("sbatch: error: Invalid account or account/partition combination specified", "change resources.account"),
        ("slurm_load_partitions: error: Unable to contact slurm controller", "try again when the cluster's controller"),
        ("sbatch: error: Invalid --exclusive specification", "`man sbatch` explains"),
    ],
)
def test_remedies(tmp_path: Path, text: Path, said: str, remedy: str) -> None:
    assert remedy in submit._refused(said, packing.pack(planned(tmp_path, text, {})))


@pytest.mark.parametrize(("minutes", "notice"), [(None, 90), (240, 90), (4, 60), (2, 30), (1, 15)])
def test_short_jobs_get_no_notice_before_their_first_step(
    tmp_path: Path, text: Path, minutes: int | None, notice: int
) -> None:
    (job,) = packing.pack(planned(tmp_path, text, {"time_min": minutes}))
    assert packing.parameters(job)["signal_delay_s"] == notice


def test_small_runs_share_jobs(tmp_path: Path, text: Path) -> None:
    gpu = {"gpus_per_node": 1, "mem": "4G"}
    grid = planned(tmp_path, text, *[gpu] * 5, {"tasks_per_node": 2}, pack=2, side_by_side=True)
    jobs = packing.pack(grid)
    assert [len(job.runs) for job in jobs] == [1, 2, 2, 1]  # the run of two ranks has a job of its own
    options = [packing.parameters(job) for job in jobs]
    assert [a["ntasks_per_node"] for a in options] == [2, 2, 2, 1]
    assert [a["gpus_per_node"] for a in options] == [None, 2, 2, 1]
    assert [a["additional_parameters"].get("mem") for a in options] == [None, "8G", "8G", "4G"]
    assert "--kill-on-bad-exit=0" in options[1]["srun_args"]
    in_turn = packing.pack(planned(tmp_path, text, *[gpu] * 4, pack=4))
    assert [packing.parameters(job)["gpus_per_node"] for job in in_turn] == [1]


@pytest.mark.parametrize("problem", [RuntimeError("sbatch: error: no"), OSError(28, "No space left on device")])
def test_queued_runs_are_recorded_whatever_fails_next(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    grid = planned(tmp_path, text, {}, {"time_min": 9})
    first, second = (RunDir(tmp_path, run.run_id) for run in grid.runs)
    earlier = Submission(launcher="slurm", job_id="3")
    submission.write(first, earlier)
    commands: list[tuple[str, ...]] = []

    def ask(*command: str) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    def fail(*_: Any) -> None:
        raise problem

    monkeypatch.setattr(submit, "ask", ask)
    monkeypatch.setattr(submit, "_executor", lambda *_: None)
    monkeypatch.setattr(submit, "_test", lambda *_: None)
    monkeypatch.setattr(submit, "_submit_array", lambda group, *_: [(job, "7") for job in group])
    monkeypatch.setattr(submit, "_record", fail)  # sbatch succeeded, then the disk is full
    with pytest.raises(OSError if isinstance(problem, OSError) else UserError):
        submit.submit(grid)
    assert ("scancel", "7") in commands
    assert submission.read(first) == earlier
    assert submission.read(second) is None


# --- the snapshot of the code -----------------------------------------------------------------------------------------


def test_a_job_imports_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    (mine / "paces").mkdir(parents=True)
    (mine / "paces" / "__init__.py").write_text("")
    (mine / "paces" / "slow.py").write_text("def pace(step): return 8\n")
    monkeypatch.syspath_prepend(str(mine))
    copy = provenance.take_snapshot(tmp_path / "out", ["paces.slow.pace", "numpy.abs"])
    assert provenance.take_snapshot(tmp_path / "out", ["paces.slow.pace"]) == copy
    assert (copy / "paces" / "slow.py").exists()
    assert not (copy / "numpy").exists()
    environment = {"PATH": "/usr/bin", **provenance.job_environment(copy)}
    code = "import cl_bench.training.loop, paces; print(cl_bench.__file__); print(paces.__file__)"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(copy / "cl_bench" / "__init__.py"), str(copy / "paces" / "__init__.py")]
    (mine / "paces" / "slow.py").write_text("def pace(step): return 16\n")
    assert provenance.take_snapshot(tmp_path / "out", ["paces.slow.pace"]) != copy


def test_a_namespace_package_and_a_path_that_pythonpath_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "pace.py").write_text("def pace(step): return 8\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    copy = provenance.take_snapshot(tmp_path / "out", ["bare.pace.pace"])
    assert (copy / "bare" / "pace.py").exists()
    with pytest.raises(UserError, match="its path contains ':'"):
        provenance.take_snapshot(tmp_path / "a:b")


def test_commit_and_snapshot_of_a_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    assert provenance.commit_of(run) is None
    provenance.write(run, provenance.collect() | {"commit": "abc", "dirty": True}, None)
    assert provenance.commit_of(run) == "abc+"
    assert json.loads(run.code.read_text())["packages"]["submitit"]


# --- the meeting ------------------------------------------------------------------------------------------------------


def meet(path: Path, failing: dict[int, str], size: int = 3) -> list[str]:
    """What each rank gets to know; a failing one says its reason instead of coming."""
    said = [""] * size
    meetings = [rendezvous.Rendezvous(rank, size, path) for rank in range(size)]  # rank 0's holds the store

    def come(rank: int) -> None:
        meeting = meetings[rank]
        try:
            if rank in failing:
                meeting.fail(failing[rank])
            else:
                meeting.wait_for_all()
                said[rank] = "met"
        except RuntimeError as error:
            said[rank] = str(error)

    ranks = [threading.Thread(target=come, args=(rank,)) for rank in range(size)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(30)
    return said


def test_ranks_meet_and_leave_no_file(tmp_path: Path) -> None:
    assert meet(tmp_path / "meeting", {}) == ["met"] * 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", [0, 1])
def test_a_rank_that_cannot_start_tells_the_others(tmp_path: Path, broken: int) -> None:
    said = meet(tmp_path / "meeting", {broken: "no GPU left"})
    assert {said[rank] for rank in range(3) if rank != broken} == {f"rank {broken} could not start: no GPU left"}


def test_a_single_rank_needs_no_rendezvous(tmp_path: Path) -> None:
    meeting = rendezvous.Rendezvous(0, 1, tmp_path / "meeting")
    meeting.fail("nobody hears")
    assert meeting.wait_for_all() is not None
    assert not list(tmp_path.iterdir())
