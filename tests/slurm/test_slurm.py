"""Sweeps on a real Slurm, and everything that a cluster does to jobs: each ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_bench.cli import main
from cl_bench.cli import runs as commands
from cl_bench.errors import UserError
from cl_bench.launch import observe
from cl_bench.launch.slurm import submit as slurm_submit
from cl_bench.runs import lock, records, status, submission
from cl_bench.runs.paths import RunDir
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT, grid, restored, submit, until, until_over, until_step, use
from tests.training.test_engine import TOLERANCE, assert_identical, assert_same_curves, train

pytestmark = pytest.mark.timeout(400)
Environment = pytest.MonkeyPatch


@pytest.fixture
def slowly(cluster: Cluster, monkeypatch: Environment) -> Cluster:
    """Steps of 50 ms: 12 s for the whole run, enough to step in."""
    monkeypatch.setenv("TEST_STEP_S", "0.04")
    return cluster


def done_and_identical(run: RunDir, undisturbed: RunDir) -> None:
    """The run ended with the same rows and weights, bit for bit, and no row doubled or lost."""
    assert status.read(run).state == "DONE", status.read(run)
    assert records.read(run).train["step"].tolist() == records.read(undisturbed).train["step"].tolist()
    assert_identical(undisturbed, run)


# --- a time limit, hit twice: submitted first and looked at last, for limits are whole minutes ------------------------


@pytest.fixture(scope="module")
def limited(_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, text: Path) -> RunDir:
    outputs = tmp_path_factory.mktemp("limited")
    with pytest.MonkeyPatch.context() as patch:
        use(_cluster, patch, outputs)
        patch.setenv("TEST_STEP_S", "0.5")  # 98 s, of which one job has time for 45 s at most
        resources = {"time_min": 1, "partition": "high", "sbatch": {"nodelist": _cluster.nodes[1]}}
        return submit(outputs, grid(text, resources=resources))[0]


# --- the plain way ----------------------------------------------------------------------------------------------------


def test_an_array_of_four_with_one_failing(
    cluster: Cluster,
    limited: RunDir,
    undisturbed: RunDir,
    tmp_path: Path,
    text: Path,
    monkeypatch: Environment,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEST_FAILING_SEED", "3")
    runs = submit(tmp_path, grid(text, *({"seed": s} for s in (1, 2, 3, 4))))
    output = capfd.readouterr().out
    assert "submitted job" in output
    assert "cl-bench status" in output
    ids = [submission.read(run).job_id for run in runs]  # type: ignore[union-attr]
    assert [i.partition("_")[2] for i in ids] == ["0", "1", "2", "3"]
    until_over(*runs)
    assert [status.read(run).state for run in runs] == ["DONE", "DONE", "FAILED", "DONE"]
    done_and_identical(runs[0], undisturbed)
    error = status.read(runs[2]).error
    assert "Traceback" in error
    assert error.endswith("ValueError: a bad GPU")
    # Slurm knows it, too: the exit code is honest.
    until(lambda: cluster.run("sacct", "-n", "-X", "-P", "-j", ids[2], "-o", "State").strip() == "FAILED", "sacct", 20)
    # From another shell: the state, the log, and another try.
    assert main.main(["status", "t", "--outputs", str(tmp_path)]) == 0
    output = capfd.readouterr().out
    assert "3 done" in output
    assert f"failed: {runs[2].run_id}: ValueError: a bad GPU" in output
    assert main.main(["logs", runs[2].run_id, "--outputs", str(tmp_path)]) == 0
    assert "a bad GPU" in capfd.readouterr().out
    monkeypatch.delenv("TEST_FAILING_SEED")
    assert main.main(["retry", "--failed", "--outputs", str(tmp_path)]) == 0
    until_over(*runs)
    assert status.read(runs[2]).state == "DONE"
    assert all(len(restored(run)) == 1 for run in (runs[0], runs[1], runs[3]))


def test_two_nodes_of_two_tasks_equal_one_process(cluster: Cluster, tmp_path: Path, text: Path) -> None:
    # Without dropout, whose masks differ with the split over ranks, and short: the last digit grows with the steps.
    plain: dict[str, Any] = {"token_budget": 20_000, "model": {"dropout": 0.0}}
    (run,) = submit(tmp_path, grid(text, plain | {"resources": {"nodes": 2, "tasks_per_node": 2}}))
    until_over(run)
    assert status.read(run).state == "DONE", status.read(run)
    assert records.read(run).attempts["world_size"].tolist() == [4]
    nodes = cluster.run("sacct", "-n", "-X", "-P", "-j", status.read(run).job, "-o", "NNodes,NCPUS")
    assert nodes.strip() == "2|4"
    assert not list(run.logs.glob("rendezvous_*"))
    one, four = ({"resources": {"threads": 1, "tasks_per_node": ranks}} for ranks in (1, 4))
    assert_same_curves(train(tmp_path / "one", text, plain | one)[0], run, **TOLERANCE)
    assert_identical(train(tmp_path / "four", text, plain | four)[0], run)


def test_runs_of_one_sweep_have_resources_of_their_own(cluster: Cluster, tmp_path: Path, text: Path) -> None:
    gpu = {"gpus_per_node": 1, "accelerator": "cpu"}
    runs = submit(
        tmp_path, grid(text, {"resources": gpu}, {"seed": 2, "resources": gpu}, {"seed": 3}, token_budget=20_000)
    )
    arrays = [submission.read(run).job_id.partition("_")[0] for run in runs]  # type: ignore[union-attr]
    assert arrays[0] == arrays[1] != arrays[2]
    until_over(*runs)
    assert {status.read(run).state for run in runs} == {"DONE"}
    requested = cluster.run("sacct", "-n", "-X", "-P", "-j", f"{arrays[0]},{arrays[2]}", "-o", "JobIDRaw,ReqTRES")
    assert requested.count("gres/gpu=1") == 2


def test_arrays_are_cut_to_the_clusters_largest(
    cluster: Cluster, tmp_path: Path, text: Path, monkeypatch: Environment
) -> None:
    monkeypatch.setattr(slurm_submit, "_largest_array", lambda: 2)
    runs = submit(tmp_path, grid(text, *({"seed": s} for s in (1, 2, 3)), token_budget=10_000), array_parallelism=1)
    ids = [submission.read(run).job_id for run in runs]  # type: ignore[union-attr]
    assert ids[0].partition("_")[0] == ids[1].partition("_")[0] != ids[2]
    assert "_" not in ids[2]  # one alone is no array
    until_over(*runs)
    assert {status.read(run).state for run in runs} == {"DONE"}


# --- coming back ------------------------------------------------------------------------------------------------------


def test_requeued_in_the_middle_also_as_the_last_of_an_array(
    slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path
) -> None:
    first, last = submit(tmp_path, grid(text, {"seed": 2}, {}))
    until_step(first, 30)
    until_step(last, 60)
    slowly.run("scontrol", "requeue", status.read(last).job)
    until(lambda: status.read(last).state == "PREEMPTED", "saved")
    left = status.read(last).step
    until(lambda: observe.observe([last])[0].status.state == "PENDING", "back in the queue")
    until_over(first, last)
    assert restored(last) == [0, left]  # nothing was lost
    assert restored(first) == [0]  # and the others of the array went on
    assert status.read(last).restarts == 1
    done_and_identical(last, undisturbed)


@pytest.mark.parametrize("partition", ["low", "grace"])
def test_preempted_by_a_higher_partition(
    slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path, partition: str
) -> None:
    # low: SIGTERM alone. grace: the admin's early signal, then a while later SIGTERM.
    where = {"nodelist": slowly.nodes[0]}
    (run,) = submit(tmp_path, grid(text, resources={"partition": partition, "sbatch": where}))
    until_step(run, 60)
    command = ["sbatch", "-p", "high", "-w", slowly.nodes[0], "--exclusive", "--parsable", "-o", "/dev/null"]
    urgent = slowly.run(*command, "--wrap", "sleep 6").strip()
    until(lambda: status.read(run).state == "PREEMPTED", "saved", 60)
    left = status.read(run).step
    until(lambda: slowly.jobs().get(urgent) == "COMPLETED", "the urgent job is done")
    until_over(run)
    assert restored(run) == [0, left]
    done_and_identical(run, undisturbed)


def test_cancelled_then_launched_again(
    slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = submit(tmp_path, grid(text))
    until_step(run, 60)
    assert main.main(["cancel", "t", "--outputs", str(tmp_path)]) == 0
    assert "1 run cancelled" in capfd.readouterr().out
    until_over(run)
    seen = observe.observe([run])[0]
    assert seen.status.state == "PREEMPTED"
    left = seen.status.step
    assert main.main(["cancel", "t", "--outputs", str(tmp_path)]) == 0
    assert "nothing to cancel" in capfd.readouterr().out
    submit(tmp_path, grid(text))
    until_over(run)
    assert restored(run) == [0, left]
    done_and_identical(run, undisturbed)


def test_killed_without_notice(slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path) -> None:
    (run,) = submit(tmp_path, grid(text))
    until_step(run, 70)
    pid = lock.holder(run)
    assert pid
    os.kill(pid, signal.SIGKILL)
    until_over(run)
    seen = observe.observe([run])[0]
    assert seen.status.state == "LOST"
    until(lambda: "FAILED" in observe.observe([run])[0].why, "Slurm's word on it", 20)
    assert main.main(["retry", "--lost", "--outputs", str(tmp_path)]) == 0
    until_over(run)
    assert restored(run)[1] >= 60  # the last save
    done_and_identical(run, undisturbed)


def test_a_node_is_lost_and_its_job_starts_elsewhere(
    slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path, monkeypatch: Environment
) -> None:
    # Killing slurmd leaves the trainer alive: Slurm gives the node up, and the job starts on the other one beside it.
    monkeypatch.setenv("TEST_STEP_S", "0.2")
    lost = slowly.nodes[0]
    slowly.run("scontrol", "update", f"NodeName={slowly.nodes[1]}", "State=DRAIN", "Reason=test")
    (run,) = submit(tmp_path, grid(text))
    until_step(run, 5)
    assert status.read(run).node == lost
    slowly.run("scontrol", "update", f"NodeName={slowly.nodes[1]}", "State=RESUME")
    slowly.kill_node(lost)
    try:
        until(lambda: len(run.attempts()) == 2, "the second attempt")
        left = restored(run)[1]
        assert left > 5
        until_over(run)
        assert status.read(run).node == slowly.nodes[1]
        assert status.read(run).restarts == 1
        done_and_identical(run, undisturbed)
    finally:
        slowly.start_node(lost)
        until(lambda: "idle" in slowly.run("sinfo", "-h", "-N", "-n", lost, "-o", "%T"), "the node is back")


def test_the_controller_restarts_while_a_run_trains(
    slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path, monkeypatch: Environment
) -> None:
    monkeypatch.setenv("TEST_STEP_S", "0.1")
    (run,) = submit(tmp_path, grid(text))
    until_step(run, 20)
    slowly.stop_controller()
    try:
        # The job's own word is enough while it trains.
        assert observe.observe([run])[0].status.state == "RUNNING"
    finally:
        slowly.start_controller()
    until_over(run)
    assert restored(run) == [0]
    done_and_identical(run, undisturbed)


def test_restarts_are_capped_and_visible(slowly: Cluster, tmp_path: Path, text: Path) -> None:
    (run,) = submit(tmp_path, grid(text, resources={"max_restarts": 0}))
    until_step(run, 10)
    slowly.run("scontrol", "requeue", status.read(run).job)
    until_over(run)
    latest = status.read(run)
    assert latest.state == "FAILED"
    assert latest.restarts == 1
    assert "Slurm has restarted this job 1 times, and resources.max_restarts = 0" in latest.error


def test_notice_that_only_one_rank_got(slowly: Cluster, tmp_path: Path, text: Path) -> None:
    (run,) = submit(tmp_path, grid(text, resources={"tasks_per_node": 2}))
    until_step(run, 20)
    first = lock.holder(run)
    others = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _is_rank(p, run)]
    for pid in others:
        if pid != first:
            os.kill(pid, signal.SIGUSR2)
    until_over(run)
    assert status.read(run).state == "DONE", status.read(run)
    assert len(restored(run)) == 2


def _is_rank(process: Path, run: RunDir) -> bool:
    try:
        name = (process / "cmdline").read_text()
        return "submitit.core._submit" in name and "srun" not in name and str(run.outputs) in name
    except OSError:
        return False


def test_notice_before_anyone_listens(cluster: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path) -> None:
    (run,) = submit(tmp_path, grid(text))
    job = submission.read(run).job_id  # type: ignore[union-attr]
    until(lambda: any(_is_rank(p, run) for p in Path("/proc").glob("[0-9]*")), "the task has started")
    cluster.run("scancel", "--signal=USR2", job)
    until_over(run)
    assert cluster.run("sacct", "-n", "-X", "-P", "-D", "-j", job, "-o", "State").count("\n") >= 2  # it came back
    done_and_identical(run, undisturbed)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_two_launches_at_once_train_each_run_once(cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cl_bench.sweep", "-m", "sweeps=smoke", "hydra/launcher=slurm"]
    command += ["tracking=none", "wait=true", f"outputs={tmp_path}"]
    pair = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    output = [process.communicate(timeout=200)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], output
    assert sum("submitted job" in s for s in output) == 1
    assert sum("2 queued" in s or "2 running" in s for s in output) == 1, output
    runs = [RunDir.at(p) for p in (tmp_path / "runs").iterdir()]
    assert [restored(run) for run in runs] == [[0], [0]]
    assert all("fixed_linear at batch 8, LR 2e-3" in " ".join(s.split()) for s in output), output


def test_two_jobs_for_one_run_train_it_once(slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path) -> None:
    (run,) = submit(tmp_path, grid(text))
    first = submission.read(run)
    assert first
    run.submission.unlink()  # as if it had been submitted from a machine that does not see this folder
    until_step(run, 10)
    second = slowly.run("sbatch", "--parsable", str(Path(first.folder) / f"{first.job_id}_submission.sh")).strip()
    pickled = Path(first.folder) / f"{first.job_id}_submitted.pkl"
    (Path(first.folder) / f"{second}_submitted.pkl").write_bytes(pickled.read_bytes())
    until(lambda: slowly.jobs().get(second) == "COMPLETED", "the second job has left")
    assert status.read(run).state == "RUNNING"
    assert "in training by another process; nothing to do" in (run.logs / f"{second}_0_log.out").read_text()
    submission.write(run, first)
    until_over(run)
    assert restored(run) == [0]
    done_and_identical(run, undisturbed)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "refusal"),
    [
        ({"partition": "nope"}, ["invalid partition specified: nope", "change resources.partition"]),
        ({"nodes": 3, "tasks_per_node": 1}, ["3 nodes x 1 CPU rank", "would wait forever", "resources.nodes"]),
        ({"gpus_per_node": 8, "accelerator": "cpu"}, ["node configuration is not available", "gpus_per_node"]),
        ({"mem": "900G"}, ["node configuration is not available", "or mem"]),
        ({"constraint": "h100"}, ["Invalid feature specification", "resources.constraint"]),
        ({"sbatch": {"nosuch": 1}}, ["unrecognized option"]),
    ],
)
def test_a_refused_request_submits_nothing(
    cluster: Cluster, tmp_path: Path, text: Path, resources: dict[str, Any], refusal: list[str]
) -> None:
    before = set(cluster.jobs())
    good, bad = {}, {"seed": 2, "global_batch_size": 24, "resources": resources}
    with pytest.raises(UserError) as refused:
        submit(tmp_path, grid(text, good, bad))
    for words in (*refusal, "nothing was submitted"):
        assert words in str(refused.value)
    assert set(cluster.jobs()) == before
    assert not list(tmp_path.glob("runs/*/submission.json"))


@pytest.mark.parametrize("interrupted", [False, True])
def test_jobs_submitted_before_a_refusal_or_ctrl_c_are_cancelled(
    cluster: Cluster, tmp_path: Path, text: Path, monkeypatch: Environment, interrupted: bool
) -> None:
    before = {job for job, state in cluster.jobs().items() if state in ("PENDING", "RUNNING")}
    submit_array, calls = slurm_submit._submit_array, []

    def second_fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            if interrupted:
                os.kill(os.getpid(), signal.SIGINT)  # lands after the second array is queued
            else:
                raise RuntimeError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        return submit_array(*arguments)

    monkeypatch.setattr(slurm_submit, "_submit_array", second_fails)
    held = {"sbatch": {"hold": True}}
    with pytest.raises(KeyboardInterrupt if interrupted else UserError):
        submit(tmp_path, grid(text, {"resources": held}, {"seed": 2, "resources": held | {"time_min": 9}}))
    assert len(calls) == 2
    until(
        lambda: {job for job, state in cluster.jobs().items() if state in ("PENDING", "RUNNING")} == before,
        "nothing is queued",
        10,
    )
    assert not list(tmp_path.glob("runs/*/submission.json"))


def test_jobs_that_pend_forever_are_flagged(
    cluster: Cluster, tmp_path: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Possible when it was submitted, and then the partition changed.
    (run,) = submit(tmp_path, grid(text, resources={"time_min": 30, "sbatch": {"hold": True}}))
    seen = observe.observe([run])[0]
    assert seen.status.state == "PENDING"
    assert "JobHeldUser: held by its owner" in seen.why
    job = seen.job_id
    cluster.run("scontrol", "update", "PartitionName=debug", "MaxTime=1")
    try:
        cluster.run("scontrol", "release", job)
        until(lambda: "PartitionTimeLimit: will never start" in observe.observe([run])[0].why, "the reason", 30)
        assert main.main(["status", "--json", "--outputs", str(tmp_path)]) == 0
        row = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert row["never_starts"] is True
        assert "change resources.time_min" in row["why"]
    finally:
        cluster.run("scontrol", "update", "PartitionName=debug", "MaxTime=UNLIMITED")
        assert main.main(["cancel", run.run_id, "--outputs", str(tmp_path)]) == 0
    until_over(run)


def test_no_slurm_here(tmp_path: Path, text: Path, monkeypatch: Environment) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="no sbatch on this machine"):
        submit(tmp_path, grid(text))


def test_without_accounting(
    make_cluster: Callable[..., Cluster],
    undisturbed: RunDir,
    tmp_path: Path,
    text: Path,
    monkeypatch: Environment,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bare = make_cluster(accounting=False)
    use(bare, monkeypatch, tmp_path)
    monkeypatch.setenv("TEST_STEP_S", "0.06")
    (run,) = submit(tmp_path, grid(text))
    until_step(run, 70)
    pid = lock.holder(run)
    assert pid
    os.kill(pid, signal.SIGKILL)
    until_over(run)
    assert observe.observe([run])[0].status.state == "LOST"
    bare.stop_controller()
    assert main.main(["status", "--outputs", str(tmp_path)]) == 0
    assert "Slurm does not answer" in " ".join(capfd.readouterr().out.split())
    with pytest.raises(UserError, match="Slurm does not answer"):
        submit(tmp_path, grid(text))
    bare.start_controller()
    # Its nodes have not answered the new controller yet: what they could run is not known, and the job waits.
    assert main.main(["retry", run.run_id, "--outputs", str(tmp_path)]) == 0
    until_over(run)
    done_and_identical(run, undisturbed)


# --- several runs in one job ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_by_side", [False, True])
def test_packed_runs_do_not_take_each_other_down(
    cluster: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path, monkeypatch: Environment, side_by_side: bool
) -> None:
    monkeypatch.setenv("TEST_FAILING_SEED", "2")
    runs = submit(
        tmp_path, grid(text, *({"seed": s} for s in (2, 1, 3))), pack=3, side_by_side=side_by_side, snapshot=False
    )
    assert len({submission.read(run).job_id for run in runs}) == 1  # type: ignore[union-attr]
    until_over(*runs)
    assert [status.read(run).state for run in runs] == ["FAILED", "DONE", "DONE"]
    done_and_identical(runs[1], undisturbed)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_packed_runs_come_back_together(
    slowly: Cluster, undisturbed: RunDir, tmp_path: Path, text: Path, side_by_side: bool
) -> None:
    runs = submit(tmp_path, grid(text, {}, {"seed": 2}), pack=2, side_by_side=side_by_side)
    until_step(runs[0], 60)
    with pytest.raises(UserError, match="shares job"):
        commands.cancel_runs(commands.find(runs[0].run_id, str(tmp_path)))
    job = submission.read(runs[0]).job_id  # type: ignore[union-attr]
    slowly.run("scancel", "--signal=USR2", job)  # Slurm's notice
    until_over(*runs)
    assert len(restored(runs[0])) == 2
    assert status.read(runs[1]).state == "DONE"
    done_and_identical(runs[0], undisturbed)


# --- frozen at submission ---------------------------------------------------------------------------------------------


def test_editing_code_does_not_change_a_queued_job(
    cluster: Cluster, tmp_path: Path, text: Path, monkeypatch: Environment
) -> None:
    code = tmp_path / "mine"
    code.mkdir()
    (code / "my_pace.py").write_text("def pace(step): return 16 if step < 5 else 64\n")
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.setenv("PYTHONPATH", f"{code}{os.pathsep}{os.environ['PYTHONPATH']}")
    curriculum = {"name": "mine", "schedule": "custom", "function": "my_pace.pace"}
    configs = grid(text, curriculum=curriculum, token_budget=20_000, resources={"sbatch": {"hold": True}})
    (run,) = submit(tmp_path, configs)
    (code / "my_pace.py").write_text("raise RuntimeError('edited')\n")
    cluster.run("scontrol", "release", submission.read(run).job_id)  # type: ignore[union-attr]
    until_over(run)
    assert status.read(run).state == "DONE", status.read(run)
    assert records.read(run).train["seqlen"].tolist()[:6] == [16] * 4 + [64] * 2
    recorded = json.loads(run.code.read_text())
    assert recorded["packages"]["torch"]
    assert (Path(recorded["snapshot"]) / "my_pace.py").exists()


def test_a_job_submitted_from_inside_a_job_is_clean_of_it(
    cluster: Cluster, tmp_path: Path, text: Path, monkeypatch: Environment
) -> None:
    foreign = {"SLURM_JOB_ID": "99", "SLURM_NTASKS": "7", "SLURM_PROCID": "3", "SLURM_CPUS_PER_TASK": "3"}
    foreign |= {"SLURM_MEM_PER_NODE": "12", "SBATCH_PARTITION": "nope", "RANK": "5", "WORLD_SIZE": "9"}
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    (run,) = submit(tmp_path, grid(text, token_budget=10_000, resources={"partition": "debug"}))
    assert os.environ["SLURM_JOB_ID"] == "99"
    for name in foreign:
        monkeypatch.delenv(name)
    until_over(run)
    assert status.read(run).state == "DONE", status.read(run)
    assert records.read(run).attempts["world_size"].tolist() == [1]


# --- the time limit, after all else -----------------------------------------------------------------------------------


def test_a_time_limit_hit_twice(cluster: Cluster, limited: RunDir, undisturbed: RunDir) -> None:
    until_over(limited, seconds=350)
    steps = restored(limited)
    assert len(steps) >= 3, status.read(limited)
    assert steps == sorted(set(steps))  # each attempt got further
    rows = records.read(limited).train
    assert rows["attempt"].nunique() == len(steps)
    done_and_identical(limited, undisturbed)


def test_nothing_is_left_behind(cluster: Cluster) -> None:
    time.sleep(0.5)
    assert not [job for job, state in cluster.jobs().items() if state in ("RUNNING", "PENDING")]
