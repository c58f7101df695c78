"""Training a grid on a Slurm cluster: plan, queue what is missing, say what to type next, or wait for the end."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import time
from collections.abc import Sequence

from cl_bench import config
from cl_bench.errors import EXIT_INTERRUPTED, UserError
from cl_bench.launch import display, observe, plan, prepare
from cl_bench.launch.plan import Plan
from cl_bench.launch.prepare import RunsFailed
from cl_bench.launch.slurm import packing, submit
from cl_bench.launch.slurm.packing import in_words
from cl_bench.runs import lock, status
from cl_bench.runs.paths import RunDir, SweepDir, submit_lock

_WAIT_POLL_S = 3.0


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
        planned = prepare.prepare(
            configs,
            settings,
            is_sweep=is_sweep,
            print_plan=display.print_nothing if terse else _print_plan,
            check=_check_machine,
            corpora=corpora,
        )
        if settings.dry_run:
            return [None] * len(configs)
        submit.submit(planned)
    if not settings.wait:
        _print_next(planned, is_sweep)
        return prepare.final_losses(planned)
    try:
        _wait(planned)
    except KeyboardInterrupt:
        _print_next(planned, is_sweep)
        display.console.print("no longer waiting; the jobs go on")
        raise SystemExit(EXIT_INTERRUPTED) from None
    if is_sweep:
        prepare.report(settings)
    _raise_for_failures(planned)
    return prepare.final_losses(planned)


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
    for alike in packing.by_shape(packing.of(planned)):
        runs = sum(len(job.runs) for job in alike)
        packed = f" in {len(alike)} jobs" if runs > len(alike) else ""
        display.console.print(
            f"{runs} run{'s' * (runs > 1)}{packed} with {in_words(alike[0].resources)}", soft_wrap=True
        )


# --- what is said afterwards ------------------------------------------------------------------------------------------


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
        for seen in observe.observe(waiting):
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
    failed = [seen for seen in observe.observe(runs) if seen.status.state not in status.FINISHED]
    if failed:
        raise RunsFailed(f"{len(failed)} of {len(runs)} runs did not finish; `cl-bench status` says why")
