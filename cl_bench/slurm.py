"""Training a grid on a Slurm cluster: one array for each shape of resources, queued through submitit.

Everything is checked with Slurm (`sbatch --test-only`) before the first job is submitted, and taken back if a later
submission is refused: a grid is queued as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import submitit

from cl_bench import config, display, launch, lock, plan, slurm_job, slurm_jobs, states, status, submission
from cl_bench.errors import EXIT_INTERRUPTED, UserError
from cl_bench.launch import RunsFailed
from cl_bench.paths import RunDir, SweepDir, slurm_folder, submit_lock
from cl_bench.plan import Plan, Planned
from cl_bench.resources import ResourcesConfig
from cl_bench.slurm_jobs import Job, in_words
from cl_bench.slurm_queue import environment
from cl_bench.submission import Submission
from cl_bench.validation import to_dict

_COMMAND_TIMEOUT_S = 120
_WAIT_POLL_S = 3.0
_DEFAULT_ARRAY_SIZE = 1001

# sbatch reads these, too, and prefers them to the batch script; each stays where the run leaves the option open.
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
        "change resources.nodes, gpus_per_node, cpus_per_task or mem: no node has that, and it would wait for ever; "
        "`sinfo -N -o '%N %c %m %G'` shows what nodes have",
    ),
)


def submit_grid(
    configs: Sequence[config.RunConfig],
    settings: config.LaunchConfig,
    *,
    is_sweep: bool = True,
    corpora: plan.Corpora | None = None,
    terse: bool = False,
) -> list[float | None]:
    """Plan, print (not when `terse`), and unless `settings.dry_run` submit what is missing of a grid.

    Returns the final loss of each of `configs`; None for those that are not over, as most are unless `settings.wait`.
    Raises UserError before anything is submitted, RunsFailed (with `wait`) when all is over.
    """
    plan.check_writable(settings.outputs)
    # Of two launches at once the second waits, and finds queued what the first has submitted.
    with contextlib.nullcontext() if settings.dry_run else lock.alone(submit_lock(settings.outputs), _say_waiting):
        planned = launch.prepare(
            configs,
            settings,
            is_sweep=is_sweep,
            print_plan=display.print_nothing if terse else _print_plan,
            check=_check_machine,
            corpora=corpora,
        )
        if settings.dry_run:
            return [None] * len(configs)
        submit(planned)
    if not settings.wait:
        _print_next(planned, is_sweep)
        return launch.final_losses(planned)
    try:
        _wait(planned)
    except KeyboardInterrupt:
        _print_next(planned, is_sweep)
        display.console.print("no longer waiting; the jobs go on")
        raise SystemExit(EXIT_INTERRUPTED) from None
    if is_sweep:
        launch.report(settings)
    _raise_for_failures(planned)
    return launch.final_losses(planned)


def _say_waiting() -> None:
    display.console.print("another launch is submitting into the same outputs; waiting for it")


def _check_machine(planned: Plan) -> None:
    """Raise UserError for what no job could train, and where there is no Slurm."""
    runs = [r.config for r in planned.runs if r.to_train]
    if runs and not shutil.which("sbatch"):
        raise UserError("hydra/launcher=slurm: there is no sbatch on this machine; log in to the cluster, or use local")
    for run in runs:
        if run.resources.gpus_per_node == 0 or run.resources.accelerator == "cpu":
            if run.resources.accelerator == "cuda":
                raise UserError("resources.accelerator = cuda: give resources.gpus_per_node, 0 are asked for")
            if run.deepspeed.precision == "fp16":
                raise UserError("deepspeed.precision = fp16 needs a GPU; give resources.gpus_per_node")


def _print_plan(planned: Plan) -> None:
    display.print_plan(planned, queued=True)
    jobs = slurm_jobs.of(planned)
    for shape in dict.fromkeys(slurm_jobs.shape(job) for job in jobs):
        alike = [job for job in jobs if slurm_jobs.shape(job) == shape]
        runs = sum(len(job.runs) for job in alike)
        packed = f" in {len(alike)} jobs" if runs > len(alike) else ""
        display.console.print(
            f"{runs} run{'s' * (runs > 1)}{packed} with {in_words(alike[0].resources)}", soft_wrap=True
        )


# --- submission -------------------------------------------------------------------------------------------------------


def submit(planned: Plan) -> None:
    """Queue what is missing of a plan, all of it or nothing, and leave in each run's folder which job it is.

    Raises UserError with Slurm's own words when it refuses.
    """
    jobs = slurm_jobs.of(planned)
    if not jobs:
        return
    variables = launch.freeze_code(planned, snapshot=planned.launch.snapshot is not False)
    groups = [
        [job for job in jobs if slurm_jobs.shape(job) == shape] for shape in dict.fromkeys(map(slurm_jobs.shape, jobs))
    ]
    chunk = _largest_array() if len(jobs) > 1 else 1
    groups = [group[i : i + chunk] for group in groups for i in range(0, len(group), chunk)]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for group in groups:
        with _clean_environment(group[0].resources):
            _ask_first(_executor(group, planned, variables, Path(tempfile.gettempdir())), group)
    submitted: list[tuple[Job, str]] = []
    with _uninterrupted() as interrupted:
        try:
            for number, group in enumerate(groups):
                name = f"{planned.launch.sweep.name}_{stamp}" + (f"_{number}" if number else "")
                submitted += _submit_array(group, planned, variables, name)
                if interrupted:
                    raise KeyboardInterrupt
        except BaseException as error:
            _take_back(planned, submitted)
            if interrupted or not isinstance(error, Exception):
                raise KeyboardInterrupt from None
            raise UserError(_refused(str(error), group)) from None
    _print_submitted(submitted)


def _submit_array(group: Sequence[Job], planned: Plan, variables: dict[str, str], name: str) -> list[tuple[Job, str]]:
    """Queue jobs of one shape as an array, and leave in each run's folder which job it is; the jobs with their ids."""
    folder = _new_folder(slurm_folder(planned.launch.outputs, name)).absolute()
    executor = _executor(group, planned, variables, folder)
    calls = [
        functools.partial(slurm_job.task, [_root(planned, run) for run in job.runs], job.side_by_side) for job in group
    ]
    with _clean_environment(group[0].resources):
        ids = [str(j.job_id) for j in executor.submit_array(calls)]
    for job, job_id in zip(group, ids, strict=True):
        for run in job.runs:
            submission.write(
                RunDir(planned.launch.outputs, run.run_id),
                Submission(
                    launcher="slurm",
                    job_id=job_id,
                    folder=str(folder),
                    runs_in_job=len(job.runs),
                    sweep=planned.launch.sweep.name,
                    launch=to_dict(planned.launch),
                    submitted=time.time(),
                ),
            )
    return list(zip(group, ids, strict=True))


def _take_back(planned: Plan, submitted: Sequence[tuple[Job, str]]) -> None:
    """Cancel what was submitted before the rest was refused or interrupted."""
    arrays = sorted({job_id.partition("_")[0] for _, job_id in submitted})
    if arrays:
        subprocess.run(["scancel", *arrays], capture_output=True, timeout=_COMMAND_TIMEOUT_S, env=environment())
    for job, _ in submitted:
        for run in job.runs:
            RunDir(planned.launch.outputs, run.run_id).submission.unlink(missing_ok=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[list[int]]:
    """Ctrl-C and a lost terminal only leave their mark: a job that was queued must be written down, or taken back."""
    marks: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _: marks.append(n)) for number in signals}
    try:
        yield marks
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _root(planned: Plan, run: Planned) -> str:
    return str(RunDir(planned.launch.outputs, run.run_id).root.absolute())


def _new_folder(folder: Path) -> Path:
    """`folder`, or beside it one that is not there yet: two sweeps may be submitted within one second."""
    for number in range(1000):
        candidate = folder.with_name(f"{folder.name}.{number}") if number else folder
        with contextlib.suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
    raise UserError(f"{folder}: cannot be made; clear {folder.parent}")


def _executor(group: Sequence[Job], planned: Plan, variables: dict[str, str], folder: Path) -> submitit.SlurmExecutor:
    """submitit's executor for jobs of one shape."""
    wanted = slurm_jobs.parameters(group[0])
    # After the user's own lines: `module load` may set PYTHONPATH as well.
    path = shlex.quote(variables["PYTHONPATH"])
    wanted["setup"] += [
        f"export PYTHONSAFEPATH={variables['PYTHONSAFEPATH']} PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"
    ]
    if wanted["cpus_per_task"]:
        # Since 22.05 srun does not take it over from sbatch.
        wanted["setup"] += ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"]
    executor = submitit.SlurmExecutor(folder=folder)
    most = planned.launch.array_parallelism or len(group)
    name = re.sub(r"[^\w.+-]", "_", planned.launch.sweep.name)
    executor.update_parameters(**wanted, array_parallelism=most, job_name=f"clb_{name}")
    return executor


def _ask_first(executor: submitit.SlurmExecutor, group: Sequence[Job]) -> None:
    """Have Slurm judge the batch script without queueing it. Raises UserError when it could never start."""
    text = executor._make_submission_file_text("true", "test")
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write(text)
        script.flush()
        command = ["sbatch", "--test-only", script.name]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise UserError(f"sbatch did not answer within {_COMMAND_TIMEOUT_S} s; nothing was submitted") from None
    # Other failures may pass (limits of running jobs): sbatch itself decides. So may a configuration that is not
    # available: Slurm says so, too, while nodes are down, and queues the job.
    said = answer.stderr.lower()
    never = any(word in said for word in ("invalid", "unrecognized", "not satisfied", "unable to contact"))
    if answer.returncode and (
        never or ("node configuration is not available" in said and _all_nodes_up(group[0].resources.partition))
    ):
        raise UserError(_refused(answer.stderr, group))


def _all_nodes_up(partition: str | None) -> bool:
    """Whether every node of a partition (of the cluster's default, when None) can be given to jobs."""
    command = ["sinfo", "-h", "-N", "-o", "%P %T", *(["-p", partition] if partition else [])]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return False
    rows = [line.split() for line in said.stdout.splitlines()]
    nodes = [state for name, state in rows if partition or name.endswith("*")]
    return bool(nodes) and all(state in ("idle", "mixed", "allocated", "completing") for state in nodes)


def _refused(words: str, group: Sequence[Job]) -> str:
    """Slurm's message, on what, and the remedy."""
    said = [line.strip() for line in words.splitlines() if re.search(r"error|fail|invalid|allocation", line, re.I)]
    said = [re.sub(r"^(sbatch: )?(error: )?", "", line) for line in said if not line.startswith("Traceback")]
    unique = "; ".join(dict.fromkeys(said)) or words.strip()
    remedy = next((r for pattern, r in _REMEDIES if re.search(pattern, unique, re.IGNORECASE)), "`man sbatch` explains")
    runs = sum(len(job.runs) for job in group)
    return (
        f"Slurm refuses {runs} run{'s' * (runs > 1)} with {in_words(group[0].resources)}: {unique}\n"
        f"{remedy}; nothing was submitted"
    )


def _largest_array() -> int:
    """Elements that one array may have on this cluster."""
    try:
        said = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)
    return max(1, int(found[1]) if found else _DEFAULT_ARRAY_SIZE)


@contextlib.contextmanager
def _clean_environment(resources: ResourcesConfig) -> Iterator[None]:
    """Without the variables of a job or training that this process may be part of; the user's own defaults stay."""
    before = os.environ.copy()
    keep = {name for name, field in _USER_DEFAULTS.items() if getattr(resources, field) is None} | set(_KEPT)
    for name in before:
        if name not in keep and (name.startswith(_OF_ANOTHER_JOB) or name in _OF_ANOTHER_TRAINING):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# --- what is said afterwards ------------------------------------------------------------------------------------------


def _print_submitted(submitted: Sequence[tuple[Job, str]]) -> None:
    by_array: dict[str, list[Job]] = {}
    for job, job_id in submitted:
        by_array.setdefault(job_id.partition("_")[0], []).append(job)
    for array, jobs in by_array.items():
        runs = sum(len(job.runs) for job in jobs)
        elements = f"_[0-{len(jobs) - 1}]" if len(jobs) > 1 else ""
        display.console.print(
            f"submitted job {array}{elements}: {runs} run{'s' * (runs > 1)}, {in_words(jobs[0].resources)}",
            soft_wrap=True,
        )


def _print_next(planned: Plan, is_sweep: bool) -> None:
    """What to type next."""
    outputs = planned.launch.outputs
    if is_sweep:
        folder = shlex.quote(str(SweepDir(outputs, planned.launch.sweep.name).root))
        display.console.print(
            f"state   cl-bench status {folder}   (--watch; also: logs, cancel, retry)", soft_wrap=True
        )
        display.console.print(f"report  cl-bench report {folder}   (at any time)", soft_wrap=True)
    else:
        what = planned.runs[0].run_id if len(planned.runs) == 1 else ""
        command = f"cl-bench status {what} --outputs {shlex.quote(outputs)}".replace("  ", " ")
        display.console.print(f"state   {command}   (--watch; also: logs, cancel, retry)", soft_wrap=True)


def _wait(planned: Plan) -> None:
    """Stay until no run of the plan is live, saying which ended."""
    by_id = {r.run_id: (number, r) for number, r in enumerate(planned.runs, 1)}
    waiting = [RunDir(planned.launch.outputs, r.run_id) for r in planned.runs if r.state not in ("done", "diverged")]
    quiet: dict[str, int] = {}
    told: dict[str, str] = {}
    while waiting:
        for seen in states.observe(waiting):
            if seen.job is not None and seen.job.never and told.get(seen.run.run_id) != seen.why:
                told[seen.run.run_id] = seen.why
                display.console.print(f"{seen.run.run_id} waits: {seen.why}", soft_wrap=True)
            # Twice: a job that has left may not have come back to the queue yet, and squeue lags.
            quiet[seen.run.run_id] = 0 if seen.is_live or seen.unsure else quiet.get(seen.run.run_id, 0) + 1
            if seen.status.state in status.FINISHED or quiet[seen.run.run_id] > 1:
                number, run = by_id[seen.run.run_id]
                waiting = [w for w in waiting if w.run_id != seen.run.run_id]
                display.console.print(display.result_line(number, len(planned.runs), run, seen.status), soft_wrap=True)
        if waiting:
            time.sleep(_WAIT_POLL_S)


def _raise_for_failures(planned: Plan) -> None:
    runs = [RunDir(planned.launch.outputs, r.run_id) for r in planned.runs]
    failed = [seen for seen in states.observe(runs) if seen.status.state not in status.FINISHED]
    if failed:
        raise RunsFailed(f"{len(failed)} of {len(runs)} runs did not finish; `cl-bench status` says why")
