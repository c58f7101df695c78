"""State of jobs in Slurm: from squeue while it remembers them, then from sacct if accounting is on."""

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

# How jobs end that do not end by themselves, and what would help.
_ENDS = {
    "OUT_OF_MEMORY": "it took more memory than it was given; raise resources.mem",
    "TIMEOUT": "its time limit came before it could save; raise resources.notice_s or time_min",
    "NODE_FAIL": "its node failed",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "another job took its place",
}
# Reasons for which a pending job never starts as it stands: a pattern, what it means, and what to change.
_NEVER = (
    ("PartitionNodeLimit", "asks for more nodes, or more on each, than the partition has", "resources.nodes"),
    ("PartitionConfig", "asks for what no node of the partition has", "resources.tasks_per_node, gpus_per_node or mem"),
    ("PartitionTimeLimit", "asks for more time than the partition allows", "resources.time_min"),
    ("BadConstraints", "no node has the features asked for", "resources.constraint"),
    (r"(QOS|Assoc).*(PerJob|MaxWall|PerNode|MinCpu|MinGRES).*", "more than one job may have", "the resources or qos"),
    ("InvalidAccount|AccountNotAllowed", "this account may not run here", "resources.account"),
    ("InvalidQOS|QOSNotAllowed", "this quality of service may not run here", "resources.qos"),
    ("DependencyNeverSatisfied", "waits for a job that failed", "resources.sbatch.dependency"),
)
_HELD = {
    "JobHeldUser": "held by its owner; `scontrol release` lets it go",
    "JobHeldAdmin": "held by an administrator",
    "launch failed requeued held": "held: it could not be launched; see the node's log, then `scontrol release`",
    "JobHoldMaxRequeue": "held: it could not be launched several times; see the node's log, then `scontrol release`",
}
_PLAIN = {
    "Resources": "waits for free nodes",
    "PartitionDown": "the partition is closed for now",
    "PartitionInactive": "the partition is closed for now",
    "Priority": "others are before it",
    "BeginTime": "starts again in a moment",
    "JobArrayTaskLimit": "the array runs as many at a time as it may (array_parallelism)",
    "None": "",
    "Dependency": "waits for another job",
    "ReqNodeNotAvail": "a node it needs is down or reserved",
}


def parse_job(state: str, reason: str = "") -> QueuedJob:
    """A job with Slurm's word for its state, and for the reason why it waits."""
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
    """'ReqNodeNotAvail, UnavailableNodes:n1' -> 'ReqNodeNotAvail'; a whole sentence stays one."""
    text = reason.strip("()")
    first = text.partition(",")[0]
    return text if " " in first else first


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands, whatever it returns. Raises UserError if it is missing or does not answer.

    The user's own filters (SQUEUE_PARTITION, SCANCEL_USER, …) are removed from its environment: they would hide jobs.
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
    """Slurm's view of the jobs with the given ids at one moment."""

    def __init__(self, job_ids: Iterable[str]) -> None:
        self.problem = ""
        """Why Slurm could not be asked; no job is known then."""
        self._jobs: dict[str, QueuedJob] = {}
        self._arrays: dict[str, QueuedJob] = {}
        """Arrays as a whole: elements that were cancelled before they began are not listed one by one."""
        ids = set(job_ids)
        if not ids:
            return
        arrays = sorted({j.partition("_")[0] for j in ids})
        try:
            out = ask("squeue", "-h", "-r", "-t", "all", "-j", ",".join(arrays), "-o", "%i|%T|%r|%N")
        except UserError as error:
            self.problem = str(error)
            return
        # The error for a single forgotten job; of several jobs squeue just leaves out the forgotten ones.
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
        """Ask sacct how jobs ended that squeue has forgotten; without accounting it does not know."""
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
            # 'CANCELLED by 1000'. Accounting lags: what it still calls running, squeue would list.
            word = state.split()[0] if state else ""
            if word in _OVER and job_id in forgotten:
                self._jobs[job_id] = parse_job(word)
            elif word in _OVER and "_" not in job_id.replace("_[", ""):
                self._arrays[job_id.partition("_")[0]] = parse_job(word)

    def get(self, job_id: str) -> QueuedJob | None:
        """A job's state; None if Slurm has forgotten the job, or could not be asked (`problem`)."""
        return self._jobs.get(job_id) or self._arrays.get(job_id.partition("_")[0])
