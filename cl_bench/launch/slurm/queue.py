"""State of jobs in Slurm: from squeue while it lists them, then from sacct if accounting is enabled."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from cl_bench.errors import UserError
from cl_bench.launch.backend import QueuedJob

_TIMEOUT_S = 120
_OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
_OVER |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "SUSPENDED"}

# Causes that end a job from outside, and remedies.
_ENDS = {
    "OUT_OF_MEMORY": "it exceeded its memory; raise resources.mem",
    "TIMEOUT": "it reached its time limit before it could save; raise resources.notice_s or time_min",
    "NODE_FAIL": "its node failed",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "preempted by another job",
}
# Reasons why a pending job will never start: pattern, meaning, and what to change.
_NEVER = (
    ("PartitionNodeLimit", "requests more nodes, or more per node, than the partition has", "resources.nodes"),
    ("PartitionConfig", "requests what no node of the partition has", "resources.tasks_per_node, gpus_per_node or mem"),
    ("PartitionTimeLimit", "requests more time than the partition allows", "resources.time_min"),
    ("BadConstraints", "no node has the requested features", "resources.constraint"),
    (
        r"(QOS|Assoc).*(PerJob|MaxWall|PerNode|MinCpu|MinGRES).*",
        "requests more than one job may have",
        "the resources or qos",
    ),
    ("InvalidAccount|AccountNotAllowed", "this account may not run here", "resources.account"),
    ("InvalidQOS|QOSNotAllowed", "this quality of service may not run here", "resources.qos"),
    ("DependencyNeverSatisfied", "waits for a job that failed", "resources.sbatch.dependency"),
)
_HELD = {
    "JobHeldUser": "held by its owner; `scontrol release` releases it",
    "JobHeldAdmin": "held by an administrator",
    "launch failed requeued held": "held: its launch failed; see the node's log, then `scontrol release`",
    "JobHoldMaxRequeue": "held: its launch failed several times; see the node's log, then `scontrol release`",
}
_PLAIN = {
    "Resources": "waits for free nodes",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "Priority": "jobs of higher priority come first",
    "BeginTime": "starts again in a moment",
    "JobArrayTaskLimit": "the array is at its limit of simultaneous jobs (array_parallelism)",
    "None": "",
    "Dependency": "waits for another job",
    "ReqNodeNotAvail": "a node it needs is down or reserved",
}


def parse_job(state: str, reason: str = "") -> QueuedJob:
    """A job from Slurm's names of its state and of the reason why it waits."""
    reason = _plain(reason)
    waits, over = state in _WAITING, state in _OVER
    obstacle = next(((text, remedy) for pattern, text, remedy in _NEVER if re.fullmatch(pattern, reason)), None)
    if over:
        text = _ENDS.get(state, f"Slurm says {state}")
    elif obstacle:
        text = f"{reason}: will never start: {obstacle[0]}; cancel it and change {obstacle[1]}"
    else:
        meaning = _HELD.get(reason) or _PLAIN.get(reason, "")
        text = "" if reason == "None" else ": ".join(filter(None, [reason, meaning]))
    never_starts = waits and (obstacle is not None or reason in _HELD)
    return QueuedJob(state, waits, over, state == "CANCELLED", never_starts, text)


def _plain(reason: str) -> str:
    """'ReqNodeNotAvail, UnavailableNodes:n1' -> 'ReqNodeNotAvail'; a sentence stays whole."""
    text = reason.strip("()")
    first = text.partition(",")[0]
    return text if " " in first else first


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands, whatever its exit code. Raises UserError if it is missing or does not answer.

    Its environment lacks the user's filters (SQUEUE_PARTITION, SCANCEL_USER, …), which would hide jobs.
    """
    hiding = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SLURM_")
    environment = {k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith(hiding)}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment)
    except FileNotFoundError:
        raise UserError(f"no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not answer within {_TIMEOUT_S} s") from None


class Queue:
    """Slurm's view of some jobs at one moment."""

    def __init__(self, job_ids: Iterable[str]) -> None:
        self.problem = ""
        """Why Slurm did not answer; all jobs are then unknown."""
        self._jobs: dict[str, QueuedJob] = {}
        self._arrays: dict[str, QueuedJob] = {}
        """Whole arrays: Slurm does not list elements that were cancelled before they started."""
        ids = set(job_ids)
        if not ids:
            return
        arrays = sorted({j.partition("_")[0] for j in ids})
        try:
            out = ask("squeue", "-h", "-r", "-t", "all", "-j", ",".join(arrays), "-o", "%i|%T|%r|%N")
        except UserError as error:
            self.problem = str(error)
            return
        # The error for a single forgotten job; among several, squeue omits the forgotten ones.
        if out.returncode and "Invalid job id" not in out.stderr:
            self.problem = (out.stderr.strip().splitlines() or [f"squeue ended with {out.returncode}"])[-1]
            return
        for line in out.stdout.splitlines():
            job_id, _, rest = line.partition("|")
            job = parse_job(*rest.split("|", 2)[:2])
            if job_id in ids:
                self._jobs[job_id] = job
            elif job.is_over and "_[" not in job_id and "_" not in job_id:
                self._arrays[job_id] = job
        self._ask_accounting(ids - {j for j, job in self._jobs.items() if not job.is_over})

    def _ask_accounting(self, job_ids: set[str]) -> None:
        """Query sacct, if accounting is enabled, for the end of jobs that squeue has forgotten."""
        forgotten = job_ids - self._jobs.keys()
        if not forgotten:
            return
        arrays = sorted({j.partition("_")[0] for j in forgotten})
        try:
            out = ask("sacct", "-n", "-P", "-X", "-j", ",".join(arrays), "-o", "JobID,State,NodeList")
        except UserError:
            return
        for line in out.stdout.splitlines() if out.returncode == 0 else ():
            job_id, state, _ = line.split("|", 2)
            # 'CANCELLED by 1000'. Accounting lags: a running job would be listed by squeue.
            word = state.split()[0] if state else ""
            if word in _OVER and job_id in forgotten:
                self._jobs[job_id] = parse_job(word)
            elif word in _OVER and "_" not in job_id.replace("_[", ""):
                self._arrays[job_id.partition("_")[0]] = parse_job(word)

    def get(self, job_id: str) -> QueuedJob | None:
        """State of a job; None if Slurm has forgotten it or did not answer (`problem`)."""
        return self._jobs.get(job_id) or self._arrays.get(job_id.partition("_")[0])
