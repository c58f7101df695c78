"""Submission of a plan's missing runs to Slurm through submitit: one array per shape of resources, all or nothing.

Slurm checks every request (`sbatch --test-only`) before the first job is submitted; a refusal or interruption after
that cancels everything.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import submitit

from cl_bench.config.resources import ResourcesConfig
from cl_bench.config.schema import to_dict
from cl_bench.errors import UserError, plural
from cl_bench.launch import display, prepare
from cl_bench.launch.grid import Plan, Planned
from cl_bench.launch.slurm import packing, task
from cl_bench.launch.slurm.packing import JobRequest, describe
from cl_bench.launch.slurm.queue import ask
from cl_bench.launch.surroundings import environment, handling
from cl_bench.runs import submission
from cl_bench.runs.paths import RunDir, slurm_folder
from cl_bench.runs.submission import Submission

_DEFAULT_ARRAY_SIZE = 1001

# sbatch prefers these to the batch script; each is kept if the run leaves the option open.
_USER_DEFAULTS = {
    "SBATCH_PARTITION": "partition",
    "SBATCH_ACCOUNT": "account",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_TIMELIMIT": "time_min",
}
_KEPT = ("SLURM_CONF", "SBATCH_RESERVATION", "SBATCH_CLUSTERS")
_OF_ANOTHER_JOB = ("SLURM", "SRUN_", "SBATCH_", "SUBMITIT_", "PMI_", "PMIX_")
_OF_ANOTHER_TRAINING = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")

_REMEDIES = (
    ("contact", "try again when the cluster's controller answers"),
    ("account", "change resources.account; `sacctmgr show associations user=$USER` lists yours"),
    ("partition", "change resources.partition; `sinfo -s` lists the partitions"),
    ("qos", "change resources.qos; `sacctmgr show qos` lists them"),
    ("feature", "change resources.constraint; `sinfo -o '%N %f'` lists the features of nodes"),
    ("time limit", "change resources.time_min; `sinfo -s` shows each partition's limit"),
    (
        "node configuration|memory",
        "change resources.nodes, gpus_per_node, cpus_per_task or mem: no node has that, so it would wait forever; "
        "`sinfo -N -o '%N %c %m %G'` shows what nodes have",
    ),
)


def submit(planned: Plan) -> None:
    """Queue the missing runs of a plan, all or none, and record each run's job in its folder.

    Raises UserError with Slurm's message if it refuses.
    """
    jobs = packing.pack(planned)
    if not jobs:
        return
    variables = prepare.freeze_code(planned, snapshot=planned.launch.snapshot is not False)
    chunk = _largest_array() if len(jobs) > 1 else 1
    groups = [group[i : i + chunk] for group in packing.by_shape(jobs) for i in range(0, len(group), chunk)]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for group in groups:
        with _clean_environment(group[0].resources):
            _test(_executor(group, planned, variables, Path(tempfile.gettempdir())), group)
    submitted: list[tuple[JobRequest, str]] = []
    before = {run.run_id: submission.read(_folder(planned, run)) for job in jobs for run in job.runs}
    interrupted: list[int] = []
    # Signals wait until a queued job is recorded or withdrawn.
    with handling(lambda number, _: interrupted.append(number), signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        try:
            for number, group in enumerate(groups):
                name = f"{planned.launch.sweep.name}_{stamp}" + (f"_{number}" if number else "")
                folder = _new_folder(slurm_folder(planned.launch.outputs, name)).absolute()
                array = _submit_array(group, planned, variables, folder)
                submitted += array  # before anything else can fail
                _record(array, planned, folder)
                if interrupted:
                    raise KeyboardInterrupt
        except BaseException as error:
            _withdraw(planned, submitted, before)
            if interrupted or not isinstance(error, Exception):
                raise KeyboardInterrupt from None
            if isinstance(error, (OSError, UserError)):  # not a refusal: e.g. a full disk
                raise
            raise UserError(_refused(str(error), group)) from None
    _print_submitted(submitted)


def _submit_array(
    group: Sequence[JobRequest], planned: Plan, variables: dict[str, str], folder: Path
) -> list[tuple[JobRequest, str]]:
    """Queue jobs of one shape as an array; returns the jobs with their ids."""
    executor = _executor(group, planned, variables, folder)
    calls = [functools.partial(task.task, [_root(planned, run) for run in job.runs], job.side_by_side) for job in group]
    with _clean_environment(group[0].resources):
        ids = [str(j.job_id) for j in executor.submit_array(calls)]
    return list(zip(group, ids, strict=True))


def _record(array: Sequence[tuple[JobRequest, str]], planned: Plan, folder: Path) -> None:
    """Record each run's job in its folder."""
    for job, job_id in array:
        record = Submission(
            launcher="slurm",
            job_id=job_id,
            folder=str(folder),
            runs_in_job=len(job.runs),
            sweep=planned.launch.sweep.name,
            launch=to_dict(planned.launch),
            submitted=time.time(),
        )
        for run in job.runs:
            submission.write(_folder(planned, run), record)


def _withdraw(planned: Plan, submitted: Sequence[tuple[JobRequest, str]], before: dict[str, Submission | None]) -> None:
    """Cancel the submitted jobs after a refusal or interruption, and restore the runs' records."""
    arrays = sorted({job_id.partition("_")[0] for _, job_id in submitted})
    for run in (run for job, _ in submitted for run in job.runs):
        if (earlier := before[run.run_id]) is not None:
            submission.write(_folder(planned, run), earlier)
        else:
            _folder(planned, run).submission.unlink(missing_ok=True)
    if arrays:
        ask("scancel", *arrays)


def _folder(planned: Plan, run: Planned) -> RunDir:
    return RunDir(planned.launch.outputs, run.run_id)


def _root(planned: Plan, run: Planned) -> str:
    return str(_folder(planned, run).root.absolute())


def _new_folder(folder: Path) -> Path:
    """Create `folder`, or a numbered one if it exists: two sweeps may be submitted within a second."""
    for number in range(1000):
        candidate = folder.with_name(f"{folder.name}.{number}") if number else folder
        with contextlib.suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
    raise UserError(f"{folder}: cannot be created; clear {folder.parent}")


def _executor(
    group: Sequence[JobRequest], planned: Plan, variables: dict[str, str], folder: Path
) -> submitit.SlurmExecutor:
    """Executor for jobs of one shape."""
    parameters = packing.parameters(group[0])
    # After the user's lines: `module load` may set PYTHONPATH too.
    path = shlex.quote(variables["PYTHONPATH"])
    parameters["setup"] += [
        f"export PYTHONSAFEPATH={variables['PYTHONSAFEPATH']} PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"
    ]
    if parameters["cpus_per_task"]:
        # Since Slurm 22.05, srun does not inherit it from sbatch.
        parameters["setup"] += ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"]
    executor = submitit.SlurmExecutor(folder=folder)
    most = planned.launch.array_parallelism or len(group)
    name = re.sub(r"[^\w.+-]", "_", planned.launch.sweep.name)
    executor.update_parameters(**parameters, array_parallelism=most, job_name=f"clb_{name}")
    return executor


def _test(executor: submitit.SlurmExecutor, group: Sequence[JobRequest]) -> None:
    """Have Slurm check the batch script without queueing it. Raises UserError if the job could never start."""
    text = executor._make_submission_file_text("true", "test")
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write(text)
        script.flush()
        answer = ask("sbatch", "--test-only", script.name)
    # Other failures may be temporary (limits on running jobs) and are left to sbatch. An unavailable configuration is
    # also reported while nodes are down.
    message = answer.stderr.lower()
    never = any(word in message for word in ("invalid", "unrecognized", "not satisfied", "unable to contact"))
    if answer.returncode and (
        never or ("node configuration is not available" in message and _all_nodes_up(group[0].resources.partition))
    ):
        raise UserError(_refused(answer.stderr, group))


def _all_nodes_up(partition: str | None) -> bool:
    """Whether every node of a partition (None: the cluster's default) is available to jobs."""
    listing = ask("sinfo", "-h", "-N", "-o", "%P %T", *(["-p", partition] if partition else []))
    rows = [line.split() for line in listing.stdout.splitlines()]
    nodes = [state for name, state in rows if partition or name.endswith("*")]
    return bool(nodes) and all(state in ("idle", "mixed", "allocated", "completing") for state in nodes)


def _refused(text: str, group: Sequence[JobRequest]) -> str:
    """Slurm's message, the request it refuses, and the remedy."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"error|fail|invalid|allocation", line, re.I)]
    lines = [re.sub(r"^(sbatch: )?(error: )?", "", line) for line in lines if not line.startswith("Traceback")]
    unique = "; ".join(dict.fromkeys(lines)) or text.strip()
    remedy = next((r for pattern, r in _REMEDIES if re.search(pattern, unique, re.IGNORECASE)), "`man sbatch` explains")
    runs = plural(sum(len(job.runs) for job in group), "run")
    return f"Slurm refuses {runs} with {describe(group[0].resources)}: {unique}\n{remedy}; nothing was submitted"


def _largest_array() -> int:
    """The cluster's limit on jobs per array."""
    settings = ask("scontrol", "show", "config").stdout
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings, re.MULTILINE)
    return max(1, int(match[1]) if match else _DEFAULT_ARRAY_SIZE)


def _clean_environment(resources: ResourcesConfig) -> AbstractContextManager[None]:
    """An environment without the variables of an enclosing job or training, but with the user's defaults."""
    keep = {name for name, field in _USER_DEFAULTS.items() if getattr(resources, field) is None} | set(_KEPT)
    foreign = [n for n in os.environ if n.startswith(_OF_ANOTHER_JOB) or n in _OF_ANOTHER_TRAINING]
    return environment({}, hidden=[name for name in foreign if name not in keep])


def _print_submitted(submitted: Sequence[tuple[JobRequest, str]]) -> None:
    by_array: dict[str, list[JobRequest]] = {}
    for job, job_id in submitted:
        by_array.setdefault(job_id.partition("_")[0], []).append(job)
    for array, jobs in by_array.items():
        runs = plural(sum(len(job.runs) for job in jobs), "run")
        elements = f"_[0-{len(jobs) - 1}]" if len(jobs) > 1 else ""
        display.console.print(
            f"submitted job {array}{elements}: {runs}, {describe(jobs[0].resources)}",
            soft_wrap=True,
        )
