"""Task of a Slurm job: its rank, its log, its runs, and their requeueing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from cl_bench.errors import UserError
from cl_bench.runs import identity, lock, status
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED
from cl_bench.training import worker
from cl_bench.training.process import Rank, StopRequest

_POLL_S = 0.2
_SCONTROL_TIMEOUT_S = 60
_CLAIM_POLL_S = 1.0
_GIVE_WAY_S = 60.0
"""Time in which a superseded trainer must save; less than its successor waits for the lock."""


def task(roots: Sequence[str], side_by_side: bool) -> None:
    """Train the runs in the folders `roots`, then end the process; the entry point of each task of a job.

    A single run is trained by all tasks together. Several are packed small runs: one per task if side by side, else one
    after another in child processes.
    """
    if len(roots) == 1:
        worker.leave(train_one(roots[0], place()))
    if side_by_side:
        here = place()
        mine = roots[here.rank]
        worker.leave(
            0 if _is_over(RunDir.at(mine), here) else train_one(mine, dataclasses.replace(here, rank=0, world_size=1))
        )
    worker.leave(train_in_turn(roots))


def place() -> Rank:
    """Rank of this task, from Slurm's environment variables."""
    env = os.environ
    return Rank(
        rank=int(env.get("SLURM_PROCID", 0)),
        world_size=int(env.get("SLURM_NTASKS", 1)),
        local_rank=int(env.get("SLURM_LOCALID", 0)),
        nodes=int(env.get("SLURM_JOB_NUM_NODES", 1)),
        node=env.get("SLURMD_NODENAME", ""),
        job=job_id(),
        restarts=int(env.get("SLURM_RESTART_COUNT", 0)),
    )


def job_id() -> str:
    """Id of this job; ARRAY_INDEX in an array.

    Not SLURM_JOB_ID: that of an array's last element is the array's, and requeueing it requeues all elements.
    """
    env = os.environ
    if "SLURM_ARRAY_TASK_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]


def threads() -> int:
    """Number of CPU threads of this task: its share of the job's cores on this node."""
    env = os.environ
    if "SLURM_CPUS_PER_TASK" in env:
        return int(env["SLURM_CPUS_PER_TASK"])
    tasks = int(env.get("SLURM_NTASKS", 1)) // int(env.get("SLURM_JOB_NUM_NODES", 1)) or 1
    share = int(env.get("SLURM_CPUS_ON_NODE", 1)) // tasks
    return max(1, min(share, len(os.sched_getaffinity(0))))


def train_one(root: str, here: Rank) -> int:
    """Train one run as this task's rank; on Slurm's notice, save and requeue. Returns the exit code."""
    run = RunDir.at(root)
    with StopRequest() as stop:
        code = _train(run, here, stop)
        noticed = signal.SIGUSR2 in stop.signals and _left_unfinished(run, here)
        if here.rank == 0 and (noticed or code == worker.EXIT_LOCK_HELD):
            _requeue([run], here)
    return code


def _train(run: RunDir, here: Rank, stop: StopRequest) -> int:
    _log_into(run, here)
    if here.rank == 0:
        threading.Thread(target=_give_way, args=(run, here, stop), daemon=True).start()
    rendezvous = run.logs / f"rendezvous_{here.job}_{here.restarts}"
    return worker.run_job(str(run.root), here, str(rendezvous), stop, threads())


def _give_way(run: RunDir, here: Rank, stop: StopRequest) -> None:
    """Once Slurm has restarted this job elsewhere, save at the end of the step; exit without a save if stuck."""
    while not lock.is_superseded(run, here.job, here.restarts):
        time.sleep(_CLAIM_POLL_S)
    stop.signals.add(signal.SIGTERM)
    time.sleep(_GIVE_WAY_S)
    print(f"Slurm has restarted job {here.job}, and this process is stuck: it exits without a save", flush=True)
    worker.leave(worker.EXIT_FAILED)


def train_in_turn(roots: Sequence[str]) -> int:
    """Train packed runs one after another, despite failures. Returns the largest exit code."""
    here, worst = place(), 0
    with StopRequest() as stop:
        for root in roots:
            if _is_over(RunDir.at(root), here):
                continue
            if stop.signals:
                break
            worst = max(worst, _train_in_a_process(root, stop))
        left = [run for run in map(RunDir.at, roots) if status.read(run).state not in (*FINISHED, "FAILED")]
        if signal.SIGUSR2 in stop.signals and left:
            _requeue(left, here)
    return worst


def _train_in_a_process(root: str, stop: StopRequest) -> int:
    child = subprocess.Popen([sys.executable, "-m", "cl_bench.launch.slurm.task", root])
    forwarded = False
    while child.poll() is None:
        if stop.signals and not forwarded:
            # Slurm may also have signalled the child; a second signal is harmless.
            child.send_signal(signal.SIGTERM)
            forwarded = True
        time.sleep(_POLL_S)
    return abs(int(child.returncode))


def _is_over(run: RunDir, here: Rank) -> bool:
    """Whether a packed run has finished, or failed in an earlier start of this job."""
    latest = status.read(run)
    return latest.state in FINISHED or (latest.state == "FAILED" and latest.job == here.job)


def _left_unfinished(run: RunDir, here: Rank) -> bool:
    latest = status.read(run)
    return (
        latest.state == "PREEMPTED" and latest.job == here.job and not lock.is_superseded(run, here.job, here.restarts)
    )


def _requeue(runs: Sequence[RunDir], here: Rank) -> None:
    """Requeue this job; runs that have restarted too often fail instead."""
    most = min(identity.load_config(run).resources.max_restarts for run in runs)
    if here.restarts >= most:
        for run in runs:
            latest = status.read(run)
            if latest.job == here.job:  # not one that still waits in a pack
                error = (
                    f"not requeued: Slurm has restarted this job {here.restarts} times, and resources.max_restarts = "
                    f"{most}; `cl-bench retry` resumes from the last save"
                )
                status.write(run, latest, state="FAILED", error=error, restarts=here.restarts)
        return
    print(f"requeueing: scontrol requeue {here.job}", flush=True)
    try:
        subprocess.run(["scontrol", "requeue", here.job], check=True, timeout=_SCONTROL_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        # Runs side by side all request it; Slurm refuses every request after the first.
        print(f"not requeued: {error}", flush=True)


def _log_into(run: RunDir, here: Rank) -> None:
    """Redirect the output of this process into the run's folder."""
    run.logs.mkdir(parents=True, exist_ok=True)
    log = os.open(run.logs / f"{here.job}_{here.rank}_log.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def main() -> None:
    """Train one packed run: `python -m cl_bench.launch.slurm.task RUN_FOLDER`."""
    if len(sys.argv) != 2:
        raise UserError("give the folder of one run")
    here = place()
    run = RunDir.at(sys.argv[1])
    with StopRequest() as stop:
        code = _train(run, here, stop)
    worker.leave(code)


if __name__ == "__main__":
    main()
