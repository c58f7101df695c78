"""What every launch does before anything trains, and after everything has: check, plan, print, write; report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from cl_bench import config
from cl_bench.errors import UserError
from cl_bench.launch import display, plan
from cl_bench.launch.plan import Plan
from cl_bench.runs import provenance, status
from cl_bench.runs.paths import RunDir, SweepDir


class RunsFailed(Exception):
    """Some runs failed or were stopped; all others were trained."""


def prepare(
    configs: Sequence[config.RunConfig],
    launch: config.LaunchConfig,
    *,
    is_sweep: bool,
    print_plan: Callable[[Plan], None],
    check: Callable[[Plan], None],
    corpora: plan.Corpora | None = None,
) -> Plan:
    """Plan a grid and print it; unless `launch.dry_run`, let `check` refuse it and write what jobs read.

    `corpora` are those already checked. Only a sweep leaves a folder below outputs/sweeps; a single run must not
    replace the manifest of a grid.
    """
    plan.check_writable(launch.outputs)
    corpora = corpora or plan.Corpora(progress("checking"))
    planned = plan.build(configs, launch, corpora)
    print_plan(planned)
    if is_sweep:
        plan.write_csv(planned)
    if launch.dry_run:
        return planned
    check(planned)
    plan.write_configs(planned)
    left_out = plan.write_manifest(planned) if is_sweep else 0
    if left_out:
        display.console.print(
            f"of this sweep's earlier grid {left_out} run{'s are' if left_out > 1 else ' is'} not in this one; "
            f"what was trained stays in {launch.outputs}/runs"
        )
    plan.prepare_data(planned, corpora, progress("preparing"))
    return planned


def freeze_code(planned: Plan, *, snapshot: bool) -> dict[str, str]:
    """Record what the missing runs are launched with; returns the variables under which their jobs find the code."""
    runs = [r for r in planned.runs if r.to_train]
    if not runs:
        return {}
    functions = [r.config.curriculum.function for r in runs if r.config.curriculum.function]
    copy = provenance.take_snapshot(planned.launch.outputs, functions) if snapshot else None
    collected = provenance.collect()
    for planned_run in runs:
        provenance.write(RunDir(planned.launch.outputs, planned_run.run_id), collected, copy)
    return provenance.job_environment(copy)


def final_losses(planned: Plan) -> list[float | None]:
    """The final validation loss of every job of the grid, in its order; None for a run that is not finished."""
    known = [status.read(RunDir(planned.launch.outputs, run_id)) for run_id in planned.asked]
    return [k.val_loss if k.state in status.FINISHED else None for k in known]


def report(launch: config.LaunchConfig) -> None:
    """The verdict in a sentence, and where the page is."""
    from analysis import report  # pandas and scipy: not needed to launch

    folder = SweepDir(launch.outputs, launch.sweep.name).root
    try:
        written = report.write(folder)
    except UserError as error:
        display.console.print(f"no report: {error}", soft_wrap=True)
        return
    display.print_verdict(written.verdict)
    display.console.print(f"report  {written.path}", soft_wrap=True)
    display.console.print(f"again   python -m analysis report {folder}", soft_wrap=True)


def progress(verb: str) -> Any:
    """A line on a corpus large enough to wait for."""
    shown = [0.0]

    def show(done: int, total: int) -> None:
        if time.monotonic() - shown[0] > 1 and total > 1 << 28:
            shown[0] = time.monotonic()
            display.console.print(f"{verb} text: {done / total:.0%} of {display.si(total)}B", end="\r")

    return show
