"""Launch of a grid on any backend: plan, print, check, write the jobs' files, submit, wait."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence

from cl_bench import config
from cl_bench.data import text
from cl_bench.errors import RunsFailed, plural
from cl_bench.launch import backend, display, observe, plan
from cl_bench.launch.backend import Backend
from cl_bench.launch.grid import Plan
from cl_bench.runs import lock, provenance, status
from cl_bench.runs.paths import RunDir, SweepDir, submit_lock

_WAIT_POLL_S = 3.0
_PROGRESS_FROM_BYTES = 1 << 28


def launch(
    launcher: str,
    configs: Sequence[config.RunConfig],
    settings: config.LaunchConfig,
    *,
    is_sweep: bool = True,
    report: Callable[[config.LaunchConfig], object] | None = None,
    prospect: Callable[[Plan], Sequence[str]] | None = None,
    corpora: plan.Corpora | None = None,
    terse: bool = False,
) -> list[float | None]:
    """Plan a grid, print the plan (unless `terse`) and, unless `settings.dry_run`, train the missing runs.

    Returns the final loss of each of `configs`; None for an unfinished run: all in a dry run, most if runs are queued
    without `settings.wait`. `prospect` gives lines to print below the plan; `report` is called when all runs have
    ended. `corpora`: already checked ones. Raises UserError before anything starts, RunsFailed after everything has
    ended.
    """
    where = backend.get(launcher)
    plan.check_writable(settings.outputs)
    try:
        # Of two simultaneous launches the second waits, and then sees the runs of the first as queued.
        exclusive = where.detached and not settings.dry_run
        with lock.alone(submit_lock(settings.outputs), _print_waiting) if exclusive else contextlib.nullcontext():
            planned = _prepare(where, configs, settings, is_sweep, corpora, terse, prospect)
            if settings.dry_run:
                return [None] * len(configs)
            where.submit(planned, terse=terse)
        if where.detached and not settings.wait:
            _print_next(planned, is_sweep)
            return final_losses(planned)
        if where.detached:
            _wait(planned, is_sweep)
    except RunsFailed:
        if report is not None:
            report(settings)
        raise
    if report is not None:
        report(settings)
    return final_losses(planned)


def _print_waiting() -> None:
    display.console.print("another launch is submitting into the same outputs; waiting for it")


def _prepare(
    where: Backend,
    configs: Sequence[config.RunConfig],
    settings: config.LaunchConfig,
    is_sweep: bool,
    corpora: plan.Corpora | None,
    terse: bool,
    prospect: Callable[[Plan], Sequence[str]] | None,
) -> Plan:
    """Plan and print a grid; unless `dry_run`, have the backend check it and write the files that jobs read.

    Only a sweep gets a folder in outputs/sweeps: a single run must not replace the manifest of a grid.
    """
    corpora = corpora or plan.Corpora(progress("checking"))
    planned = plan.build(configs, settings, corpora)
    if not terse:
        display.print_plan(planned, queued=where.detached)
        for line in (*where.requests(planned), *(prospect(planned) if prospect is not None else ())):
            display.console.print(line, soft_wrap=True)
    if is_sweep:
        plan.write_csv(planned)
    if settings.dry_run:
        return planned
    where.check(planned)
    plan.write_configs(planned)
    dropped = plan.write_manifest(planned) if is_sweep else 0
    if dropped:
        display.console.print(
            f"{plural(dropped, 'run')} of this sweep's earlier grid {'are' if dropped > 1 else 'is'} not in this one; "
            f"trained runs stay in {settings.outputs}/runs"
        )
    plan.prepare_data(planned, corpora, progress("preparing"))
    return planned


def freeze_code(planned: Plan, *, snapshot: bool) -> dict[str, str]:
    """Record the code of the missing runs; returns the environment variables by which their jobs find it."""
    runs = planned.to_train
    if not runs:
        return {}
    functions = [r.config.curriculum.function for r in runs if r.config.curriculum.function]
    copy = provenance.take_snapshot(planned.launch.outputs, functions) if snapshot else None
    collected = provenance.collect()
    for run in runs:
        provenance.write(RunDir(planned.launch.outputs, run.run_id), collected, copy)
    return provenance.job_environment(copy)


def final_losses(planned: Plan) -> list[float | None]:
    """Final validation loss of every job of the grid, in grid order; None for a run that is not finished."""
    statuses = [status.read(RunDir(planned.launch.outputs, run_id)) for run_id in planned.run_ids]
    return [latest.val_loss if latest.state in status.FINISHED else None for latest in statuses]


def progress(verb: str) -> text.Progress:
    """A progress line for large corpora."""
    shown = 0.0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 1 and total > _PROGRESS_FROM_BYTES:
            shown = time.monotonic()
            display.console.print(f"{verb} text: {done / total:.0%} of {display.si(total)}B", end="\r")

    return show


# --- after the submission ---------------------------------------------------------------------------------------------


def _print_next(planned: Plan, is_sweep: bool) -> None:
    """Print the commands that follow."""
    outputs = planned.launch.outputs
    lines = []
    if is_sweep:
        folder = shlex.quote(str(SweepDir(outputs, planned.launch.sweep.name).root))
        lines = [f"state   cl-bench status {folder}", f"report  cl-bench report {folder}   (at any time)"]
    else:
        run_id = f" {planned.runs[0].run_id}" if len(planned.runs) == 1 else ""
        lines = [f"state   cl-bench status{run_id} --outputs {shlex.quote(outputs)}"]
    lines[0] += "   (--watch; also: logs, cancel, retry)"
    for line in lines:
        display.console.print(line, soft_wrap=True)


def _wait(planned: Plan, is_sweep: bool) -> None:
    """Wait until no run of the plan is live, printing each that ends. Raises RunsFailed; Ctrl-C keeps the jobs."""
    try:
        _wait_for_runs(planned)
    except KeyboardInterrupt:
        _print_next(planned, is_sweep)
        raise KeyboardInterrupt("no longer waiting; the jobs continue") from None
    runs = [RunDir(planned.launch.outputs, run.run_id) for run in planned.runs]
    failed = [seen for seen in observe.observe(runs) if seen.status.state not in status.FINISHED]
    if failed:
        raise RunsFailed(f"{len(failed)} of {len(runs)} runs did not finish; `cl-bench status` says why")


def _wait_for_runs(planned: Plan) -> None:
    numbered = {run.run_id: (number, run) for number, run in enumerate(planned.runs, 1)}
    waiting = [RunDir(planned.launch.outputs, r.run_id) for r in planned.runs if r.state not in ("done", "diverged")]
    quiet_polls: dict[str, int] = {}
    reasons: dict[str, str] = {}
    while waiting:
        for seen in observe.observe(waiting):
            run_id = seen.run.run_id
            if seen.job is not None and seen.job.never_starts and reasons.get(run_id) != seen.why:
                reasons[run_id] = seen.why
                display.console.print(f"{run_id} waits: {seen.why}", soft_wrap=True)
            # Twice: a requeued job may be missing from the queue for a moment, and queues lag.
            quiet_polls[run_id] = 0 if seen.is_live or seen.unsure else quiet_polls.get(run_id, 0) + 1
            if seen.status.state in status.FINISHED or quiet_polls[run_id] > 1:
                number, run = numbered[run_id]
                waiting = [w for w in waiting if w.run_id != run_id]
                display.console.print(display.result_line(number, len(planned.runs), run, seen.status), soft_wrap=True)
        if waiting:
            time.sleep(_WAIT_POLL_S)
