"""Assignment of a plan's missing runs to Slurm jobs, and the resources that each job requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from cl_bench.config.resources import MEMORY, ResourcesConfig
from cl_bench.errors import plural
from cl_bench.launch.grid import Plan, Planned

_LEAST_NOTICE_S = 15


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A job before its submission, and the runs that share it."""

    runs: tuple[Planned, ...]
    side_by_side: bool

    @property
    def resources(self) -> ResourcesConfig:
        """Resources of each of its runs, which are the same."""
        return self.runs[0].config.resources


def pack(plan: Plan) -> list[JobRequest]:
    """The missing runs as jobs, in the order of `plan.to_train`: small ones of one shape, `launch.pack` per job."""
    settings = plan.launch
    small = [r for r in plan.to_train if settings.pack > 1 and r.config.resources.ranks == 1]
    jobs = [JobRequest((run,), False) for run in plan.to_train if run not in small]
    for alike in by_shape([JobRequest((run,), False) for run in small]):
        runs = [job.runs[0] for job in alike]
        packs = [tuple(runs[i : i + settings.pack]) for i in range(0, len(runs), settings.pack)]
        jobs += [JobRequest(pack, settings.side_by_side and len(pack) > 1) for pack in packs]
    return jobs


def by_shape(jobs: Sequence[JobRequest]) -> list[list[JobRequest]]:
    """Jobs grouped by equal requests, one array per group, in order of first occurrence."""
    groups: dict[str, list[JobRequest]] = {}
    for job in jobs:
        groups.setdefault(repr(sorted(parameters(job).items())), []).append(job)
    return list(groups.values())


def parameters(job: JobRequest) -> dict[str, Any]:
    """A job's parameters for submitit. Runs side by side have separate shares of tasks, GPUs and memory."""
    resources = job.resources
    shares = len(job.runs) if job.side_by_side else 1
    tasks = resources.ranks_per_node * shares
    notice = resources.notice_s
    if resources.time_min:
        # Slurm checks time limits about every 30 s and gives notice up to a minute early: in a short job, before the
        # first step.
        notice = max(_LEAST_NOTICE_S, min(notice, resources.time_min * 60 // 4))
    extra: dict[str, Any] = {"requeue": True}
    if resources.mem:
        extra["mem"] = _times(resources.mem, shares)
    if resources.gpu_type and resources.gpus_per_node:
        extra["gpus-per-node"] = f"{resources.gpu_type}:{resources.gpus_per_node * shares}"
    options = {name.lstrip("-").replace("_", "-"): value for name, value in resources.sbatch.items()}
    extra |= {name: value for name, value in options.items() if value is not None and value is not False}
    srun_args = ["--kill-on-bad-exit=1"] if len(job.runs) == 1 else ["--kill-on-bad-exit=0", "--wait=0"]
    return {
        "nodes": resources.nodes,
        "ntasks_per_node": tasks,
        "gpus_per_node": None if resources.gpu_type else resources.gpus_per_node * shares or None,
        "cpus_per_task": resources.cpus_per_task,
        "time": resources.time_min,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "signal_delay_s": notice,
        "setup": list(resources.setup),
        "teardown": _teardown(resources.max_restarts),
        "srun_args": srun_args,
        "additional_parameters": extra,
        "stderr_to_stdout": True,
        "wckey": None,
    }


def _teardown(max_restarts: int) -> list[str]:
    """Shell lines after training: requeue if Slurm's notice (USR2) ended a task without a handler (140)."""
    job = "$SLURM_JOB_ID"
    element = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    return [
        "code=$?",
        f'if [ "$code" -eq 140 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_restarts} ]; then',
        f'  if [ -n "$SLURM_ARRAY_TASK_ID" ]; then scontrol requeue "{element}"; else scontrol requeue "{job}"; fi',
        "fi",
        'exit "$code"',
    ]


def _times(memory: str, shares: int) -> str:
    """'16G', 4 -> '64G'."""
    match = MEMORY.fullmatch(memory)
    assert match is not None  # checked when the configuration was built
    return f"{int(match[1]) * shares}{match[2]}"


def describe(resources: ResourcesConfig) -> str:
    """Resources of a run, e.g. '2 nodes x 8 GPUs, partition gpu, 240 min per job'."""
    gpus, ranks = resources.gpus_per_node, resources.ranks_per_node
    parts = [f"{plural(resources.nodes, 'node')} x {plural(gpus, 'GPU') if gpus else plural(ranks, 'CPU rank')}"]
    parts += [f"partition {resources.partition}"] if resources.partition else []
    parts += [f"{resources.time_min} min per job"] if resources.time_min else []
    return ", ".join(parts)
