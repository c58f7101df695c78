"""Where runs stand as their files and the queue tell it; locks, claims. No Slurm: its answers are given."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cl_bench.cli import main
from cl_bench.errors import UserError
from cl_bench.launch import observe, plan
from cl_bench.launch.slurm.queue import Queue, parse_job
from cl_bench.runs import lock, status, submission
from cl_bench.runs.paths import RunDir
from cl_bench.runs.submission import Submission

_SQUEUE = """#!/bin/sh
echo "squeue $*" >> {log}
cat {folder}/squeue.out 2>/dev/null
cat {folder}/squeue.err >&2 2>/dev/null && exit 1
exit 0
"""
_SACCT = """#!/bin/sh
cat {folder}/sacct.out 2>/dev/null || exit 1
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose squeue.out, squeue.err and sacct.out are what Slurm's commands say."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("squeue", _SQUEUE), ("sacct", _SACCT)):
        (folder / name).write_text(text.format(folder=folder, log=folder / "asked"))
        (folder / name).chmod(0o755 | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def run_of(tmp_path: Path, job_id: str = "7_0", *, began: bool = False, state: status.State = "PENDING") -> RunDir:
    """A run that was submitted as `job_id` and, if it `began`, wrote its state from that job."""
    run = RunDir(tmp_path, f"run_{job_id}")
    run.root.mkdir(parents=True)
    run.config.write_text("{}")
    submission.write(run, Submission(launcher="slurm", job_id=job_id, folder=str(tmp_path)))
    if began or state != "PENDING":
        status.write(run, status.Status(), state=state, job=job_id if began else "1")
    return run


@pytest.mark.parametrize(
    ("answer", "began", "written", "state", "why"),
    [
        ("7_0|PENDING|Resources|", False, "PENDING", "PENDING", "Resources: waits for free nodes"),
        ("7_0|PENDING|PartitionNodeLimit|", False, "PENDING", "PENDING", "will never start: requests more nodes"),
        (
            "7_0|PENDING|QOSMaxGRESPerJob|",
            False,
            "PENDING",
            "PENDING",
            "will never start: requests more than one job may have",
        ),
        ("7_0|PENDING|BeginTime|", True, "PREEMPTED", "PENDING", "restart 1; BeginTime: starts again in a moment"),
        ("7_0|RUNNING|None|n1", False, "PENDING", "RUNNING", "starting"),
        ("7_0|RUNNING|None|n1", True, "RUNNING", "RUNNING", ""),
        ("7_0|COMPLETING|None|n1", True, "PREEMPTED", "RUNNING", ""),
        ("7_0|CANCELLED|None|n1", True, "PREEMPTED", "PREEMPTED", ""),
        ("7_0|CANCELLED|None|", False, "PENDING", "PENDING", "cancelled before it started"),
        ("7_0|CANCELLED|None|", False, "PREEMPTED", "PREEMPTED", "cancelled before it started"),
        ("7_0|CANCELLED|None|n1", True, "RUNNING", "LOST", "it was cancelled"),
        ("7_0|FAILED|NonZeroExitCode|n1", True, "FAILED", "FAILED", ""),
        ("7_0|FAILED|NonZeroExitCode|n1", False, "PENDING", "LOST", "Slurm says FAILED; it never started"),
        ("7_0|OUT_OF_MEMORY|None|n1", True, "RUNNING", "LOST", "it exceeded its memory"),
        ("7_0|NODE_FAIL|None|n1", False, "FAILED", "LOST", "its node failed; it never started"),
        ("", True, "RUNNING", "LOST", "its job is unknown to Slurm"),
        ("", True, "DONE", "DONE", ""),
        ("7_1|RUNNING|None|n1", True, "RUNNING", "LOST", "its job is unknown to Slurm"),
        ("7|CANCELLED|None|", False, "PENDING", "PENDING", "cancelled before it started"),  # how Slurm lists elements
        ("7_0|PENDING|PartitionDown|", False, "PENDING", "PENDING", "PartitionDown: the partition is down"),
        ("7_0|PENDING|launch failed requeued held|", False, "PENDING", "PENDING", "held: its launch failed"),
    ],
)
def test_the_jobs_word_then_the_queues(
    slurm: Path, tmp_path: Path, answer: str, began: bool, written: status.State, state: str, why: str
) -> None:
    run = run_of(tmp_path, began=began, state=written)
    (slurm / "squeue.out").write_text(answer + "\n" if answer else "")
    (seen,) = observe.observe([run])
    assert seen.status.state == state
    assert why in seen.why
    assert bool(why) or not seen.why
    assert not seen.unsure


@pytest.mark.parametrize(
    ("answer", "began", "written", "state", "why", "live"),
    [
        ("7_0|RUNNING|None|n1", True, "FAILED", "FAILED", "", False),
        ("7_0|PENDING|Resources|", True, "FAILED", "FAILED", "", False),
        ("7_0|RUNNING|None|n1", False, "PENDING", "PENDING", "waits for its turn in job 7_0", True),
        ("7_0|RUNNING|None|n1", True, "RUNNING", "RUNNING", "", True),
        ("7_0|PENDING|Resources|", True, "PREEMPTED", "PENDING", "restart 1; Resources", True),
    ],
)
def test_runs_that_share_a_job(
    slurm: Path, tmp_path: Path, answer: str, began: bool, written: status.State, state: str, why: str, live: bool
) -> None:
    run = run_of(tmp_path, began=began, state=written)
    submission.write(run, Submission(launcher="slurm", job_id="7_0", folder=str(tmp_path), runs_in_job=3))
    (slurm / "squeue.out").write_text(answer + "\n")
    (seen,) = observe.observe([run])
    assert (seen.status.state, seen.is_live) == (state, live)
    assert why in seen.why


def test_the_users_own_filters_hide_no_job(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (slurm / "squeue").write_text('#!/bin/sh\n[ -n "$SQUEUE_PARTITION" ] || echo "7_0|PENDING|Resources|"\n')
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    assert observe.observe([run_of(tmp_path)])[0].is_queued


def test_sacct_is_queried_about_jobs_that_squeue_has_forgotten(slurm: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, began=True, state="RUNNING")
    (slurm / "squeue.err").write_text("slurm_load_jobs error: Invalid job id specified\n")
    (slurm / "sacct.out").write_text("7_0|TIMEOUT|n1\n7_1|COMPLETED|n2\n")
    (seen,) = observe.observe([run])
    assert seen.status.state == "LOST"
    assert "it reached its time limit before it could save" in seen.why
    (slurm / "sacct.out").write_text("7_0|RUNNING|n1\n")  # accounting lags
    assert "unknown to Slurm" in observe.observe([run])[0].why


def test_a_queue_that_does_not_answer_leaves_the_state_alone(
    slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, began=True, state="RUNNING")
    (slurm / "squeue.err").write_text("slurm_load_jobs error: Unable to contact slurm controller\n")
    (seen,) = observe.observe([run])
    assert seen.status.state == "RUNNING"
    assert "Unable to contact" in seen.unsure
    with pytest.raises(UserError, match=r"Slurm does not answer .*Unable to contact"):
        plan.state_of(run)
    for command in ("cancel", "retry"):
        assert main.main([command, run.run_id, "--outputs", str(tmp_path)]) == 2
        assert "Slurm does not answer" in capsys.readouterr().err


def test_the_queue_is_queried_once_about_unfinished_runs_only(slurm: Path, tmp_path: Path) -> None:
    runs = [run_of(tmp_path, f"7_{i}") for i in range(50)] + [run_of(tmp_path, "8", began=True, state="DONE")]
    (slurm / "squeue.out").write_text("".join(f"7_{i}|PENDING|Priority|\n" for i in range(50)))
    assert all(seen.is_queued for seen in observe.observe(runs[:-1]))
    assert len(observe.observe(runs)) == 51
    (query,) = set((slurm / "asked").read_text().splitlines())
    assert "-j 7 " in query
    assert not Queue([]).problem


def test_no_squeue_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert observe.observe([run_of(tmp_path)])[0].unsure == "no squeue on this machine"


def test_reasons_in_words() -> None:
    assert parse_job("PENDING", "(PartitionConfig)").never_starts
    assert parse_job("PENDING", "JobHeldUser").never_starts
    assert not parse_job("RUNNING", "PartitionConfig").never_starts
    assert parse_job("PENDING", "None").reason == ""
    assert parse_job("PENDING", "ReqNodeNotAvail, UnavailableNodes:n1").reason.startswith(
        "ReqNodeNotAvail: a node it needs"
    )
    assert parse_job("PENDING", "SomethingNew").reason == "SomethingNew"


# --- local runs -------------------------------------------------------------------------------------------------------


def test_a_local_run_whose_launch_is_gone(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    status.write(run, status.Status(), state="PENDING")
    ours = submission.by_this_process("s", {})
    submission.write(run, ours)
    assert ours.launch_lives
    (waiting,) = observe.observe([run])
    assert waiting.why == f"waits in process {os.getpid()}"
    assert waiting.is_live
    status.write(run, status.Status(), state="PENDING")
    assert observe.observe([run])[0].why == f"starts in process {os.getpid()}"
    status.write(run, status.Status(), state="FAILED")
    submission.write(run, submission.by_this_process("s", {}))
    assert observe.observe([run])[0].why == f"waits in process {os.getpid()}"
    submission.write(run, Submission(**{**ours.__dict__, "cancelled": True}))
    status.write(run, status.Status(), state="PENDING")
    assert "cancelled before it started" in observe.observe([run])[0].why
    gone = subprocess.Popen(["true"])
    gone.wait()
    submission.write(run, Submission(**{**ours.__dict__, "job_id": str(gone.pid)}))
    assert "its launch is over" in observe.observe([run])[0].why
    status.write(run, status.Status(), state="RUNNING")
    assert observe.observe([run])[0].status.state == "LOST"
    run.submission.write_text("{")
    assert submission.read(run) is None
    assert observe.observe([run])[0].status.state == "LOST"


# --- the lock ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def other_trainer(tmp_path: Path) -> Iterator[tuple[RunDir, subprocess.Popen[str]]]:
    run = RunDir(tmp_path, "r")
    code = (
        "import sys; from cl_bench.runs.lock import only_trainer; from cl_bench.runs.paths import RunDir\n"
        "with only_trainer(RunDir.at(sys.argv[1])): print(flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    yield run, process
    process.kill()
    process.wait()


def test_the_lock_names_its_holder_and_ends_with_it(other_trainer: tuple[RunDir, subprocess.Popen[str]]) -> None:
    run, process = other_trainer
    assert lock.holder(run) == process.pid
    with lock.only_trainer(run) as mine:
        assert not mine
    process.kill()
    with lock.only_trainer(run, wait_s=10) as mine:
        assert mine
    assert lock.holder(run) is None


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with (
        pytest.raises(UserError, match=r"no POSIX locks \(Function not implemented\).*-o flock"),
        lock.only_trainer(RunDir(tmp_path, "r")),
    ):
        pass


def test_a_claim_supersedes_earlier_starts_of_the_same_job(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "r")
    assert not lock.is_superseded(run, "7_0", 0)
    lock.claim(run, "7_0", 1)
    assert lock.is_superseded(run, "7_0", 0)
    assert not lock.is_superseded(run, "7_0", 1)
    assert not lock.is_superseded(run, "8", 0)  # another submission waits for the lock like any other
    run.claim.write_text("{")
    assert not lock.is_superseded(run, "7_0", 0)


# --- the commands -----------------------------------------------------------------------------------------------------


def test_status_as_table_and_json(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(tmp_path, "7_0", began=True, state="DONE")
    run_of(tmp_path, "7_1")
    run_of(tmp_path, "7_2")
    failed = run_of(tmp_path, "7_3")
    status.write(failed, status.Status(), state="FAILED", job="7_3", error="Traceback\nValueError: no")
    (slurm / "squeue.out").write_text(
        "7_1|PENDING|PartitionConfig|\n7_2|PENDING|PartitionConfig|\n7_3|FAILED|NonZeroExitCode|n1\n"
    )
    assert main.main(["status", "--outputs", str(tmp_path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "4 runs: 2 pending, 1 failed, 1 done" in output
    assert "pending: run_7_1 and 1 more: PartitionConfig: will never start" in output
    assert "failed: run_7_3: ValueError: no" in output
    assert main.main(["status", "--json", "--outputs", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [t["state"] for t in rows] == ["DONE", "PENDING", "PENDING", "FAILED"]
    assert rows[1]["never_starts"] is True
    assert rows[1]["queue"] == "PENDING"


def test_the_log_of_a_job_that_never_began(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path)
    assert main.main(["logs", run.run_id, "--outputs", str(tmp_path)]) == 2
    assert "has printed nothing yet" in capsys.readouterr().err
    (tmp_path / "7_0_0_log.out").write_text("module: command not found\nlast line\n")
    assert main.main(["logs", run.run_id, "-n", "1", "--outputs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "last line\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "nosuch"], "nosuch: neither a run nor a sweep; "),
        (["logs", "."], "2 runs; name one of them"),
        (["cancel", "--outputs", "nowhere", "x"], "nowhere contains no runs"),
        (["status", "--outputs", "nowhere"], "nowhere: contains no runs"),
        (["statsu"], "did you mean 'status'?"),
    ],
)
def test_names_that_mean_nothing(
    slurm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "outputs", "7_0")
    run_of(tmp_path / "outputs", "7_1")
    arguments = ["outputs" if a == "." else a for a in arguments]
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_do(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(tmp_path, began=True, state="DONE")
    assert main.main(["cancel", "run_7_0", "--outputs", str(tmp_path)]) == 0
    assert main.main(["retry", "--outputs", str(tmp_path)]) == 0
    never = RunDir(tmp_path, "never")
    never.root.mkdir(parents=True)
    never.config.write_text("{}")
    assert main.main(["retry", "never", "--outputs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["never was never submitted; launch its sweep again", "nothing to retry"]
    assert lines[:-2] == ["nothing to cancel: no run is live", "nothing to retry"]
