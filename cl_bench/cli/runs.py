"""`cl-bench status`, `logs`, `cancel` and `retry`, which need no daemon: run folders suffice."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.live import Live

from cl_bench import config
from cl_bench.cli import completion
from cl_bench.errors import UserError, did_you_mean, plural
from cl_bench.launch import backend, display, observe, plan, prepare
from cl_bench.launch.backend import Observed
from cl_bench.runs import identity, submission
from cl_bench.runs.paths import RunDir, SweepDir, all_runs, manifest_runs
from cl_bench.runs.status import FINISHED

_REFRESH_S = 2.0
_FOLLOW_S = 0.5

outputs_option = click.option(
    "--outputs",
    metavar="FOLDER",
    type=click.Path(),
    default="outputs",
    help="folder of runs and sweeps (default: outputs)",
)
_optional_name = click.argument("name", metavar="[SWEEP|RUN]", required=False, shell_complete=completion.names)


def find(name: str | None, outputs: str) -> list[RunDir]:
    """The runs of `name`: a run or sweep by name or folder, an outputs folder, or (None) all of `outputs`.

    Raises UserError for an unknown name or an empty folder.
    """
    path = Path(name) if name is not None else Path(outputs)
    candidates = [path] if name is None else [path, Path(outputs) / "sweeps" / path, Path(outputs) / "runs" / path]
    for folder in candidates:
        sweep = SweepDir.at(folder)
        if sweep.manifest.exists():
            return [RunDir(sweep.outputs, run_id) for run_id in manifest_runs(sweep)]
        if RunDir.at(folder).config.exists():
            return [RunDir.at(folder.resolve())]
        if runs := all_runs(folder):
            return runs
    if name is None:
        raise UserError(f"{outputs}: contains no runs; name a folder with --outputs")
    names = [run.run_id for run in all_runs(outputs)] + [p.name for p in (Path(outputs) / "sweeps").glob("*")]
    hint = did_you_mean(path.name, names) if names else f"{outputs} contains no runs"
    raise UserError(f"{name}: neither a run nor a sweep; {hint}")


def find_one(name: str, outputs: str) -> RunDir:
    """The run of `name`. Raises UserError unless there is exactly one."""
    runs = find(name, outputs)
    if len(runs) > 1:
        raise UserError(f"{name}: {len(runs)} runs; name one of them, e.g. {runs[0].run_id}")
    return runs[0]


# --- status -----------------------------------------------------------------------------------------------------------


@click.command()
@_optional_name
@outputs_option
@click.option("--watch", is_flag=True, help="refresh until no run is live; Ctrl-C exits")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per run")
def status(name: str | None, outputs: str, watch: bool, as_json: bool) -> None:
    """Show the state and progress of runs."""
    show_status(find(name, outputs), watch=watch, as_json=as_json)


def show_status(runs: Sequence[RunDir], *, watch: bool, as_json: bool) -> None:
    """Print the states of runs; `watch`: until no run is live."""
    observed = observe.observe(runs)
    if as_json:
        for seen in observed:
            print(json.dumps(as_dict(seen)))
        return
    if not watch:
        display.console.print(display.status_table(observed))
        return
    with Live(console=display.console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(display.status_table(observed, height=display.console.height), refresh=True)
            if not any(seen.is_live for seen in observed):
                return
            time.sleep(_REFRESH_S)
            observed = observe.observe(runs)


def as_dict(seen: Observed) -> dict[str, Any]:
    """State of a run as printed by --json."""
    latest = seen.status
    return {
        "run": seen.run.run_id,
        **{k: v for k, v in dataclasses.asdict(latest).items() if k != "updated"},
        "eta_seconds": display.seconds_left(latest),
        "job": seen.job_id or latest.job,
        "queue": seen.job.state if seen.job else None,
        "never_starts": bool(seen.job and seen.job.never_starts),
        "why": seen.why,
        "unsure": seen.unsure,
        "updated": latest.updated,
    }


# --- logs -------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="RUN", shell_complete=completion.names)
@outputs_option
@click.option("-f", "--follow", is_flag=True, help="continue until the run is over")
@click.option("-n", "--lines", type=int, default=0, metavar="N", help="print only the last N lines (default: all)")
def logs(name: str, outputs: str, follow: bool, lines: int) -> None:
    """Print the log of a run.

    The log is the output of rank 0 in the latest attempt.
    """
    print_log(find_one(name, outputs), follow=follow, lines=lines)


def print_log(run: RunDir, *, follow: bool, lines: int = 0) -> None:
    """Print a run's log, or its last `lines`; `follow`: until the run is over. Raises UserError without a log."""
    log = newest_log(run)
    while log is None and follow and observe.observe([run])[0].is_live:
        time.sleep(_FOLLOW_S)
        log = newest_log(run)
    if log is None:
        raise UserError(f"{run.run_id}: has printed nothing yet; `cl-bench status {run.run_id}` shows its state")
    over = not follow
    position = 0
    if lines > 0:
        position = sum(map(len, log.read_bytes().splitlines(keepends=True)[:-lines]))
    while True:
        position += _print_from(log, position)
        if over:
            return
        over = not observe.observe([run])[0].is_live  # before the last read
        newer = newest_log(run)
        if newer is not None and newer != log:  # training redirects the output; so does each attempt
            _print_from(log, position)
            log, position = newer, 0
        time.sleep(0 if over else _FOLLOW_S)


def _print_from(log: Path, position: int) -> int:
    """Print a file from byte `position` on; returns the number of bytes."""
    with log.open("rb") as file:
        file.seek(position)
        text = file.read()
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()
    return len(text)


def newest_log(run: RunDir) -> Path | None:
    """Latest log of a run; None before its first output."""
    record = submission.read(run)
    return run.log if record is None else backend.get(record.launcher).log(run, record)


# --- cancel -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="SWEEP|RUN", shell_complete=completion.names)
@outputs_option
def cancel(name: str, outputs: str) -> None:
    """Stop runs; those in training save first.

    Queued runs never start. `cl-bench retry` resumes them.
    """
    count = cancel_runs(find(name, outputs))
    print(f"{plural(count, 'run')} cancelled" if count else "nothing to cancel: no run is live")


def cancel_runs(runs: Sequence[RunDir]) -> int:
    """Cancel the live ones of `runs` through their backends; returns their number. Raises UserError."""
    submitted: dict[str, list[Observed]] = {}
    for seen in observe.observe(runs):
        if seen.submission is not None:
            submitted.setdefault(seen.submission.launcher, []).append(seen)
    count = sum(backend.get(launcher).cancel(members) for launcher, members in submitted.items())
    for seen in (seen for members in submitted.values() for seen in members if seen.unsure):
        raise UserError(f"{seen.queue} does not answer ({seen.unsure}): its jobs were not cancelled; try again later")
    return count


# --- retry ------------------------------------------------------------------------------------------------------------


@click.command()
@_optional_name
@outputs_option
@click.option("--failed", is_flag=True, help="only those that FAILED")
@click.option("--lost", is_flag=True, help="only those that are LOST")
def retry(name: str | None, outputs: str, failed: bool, lost: bool) -> None:
    """Launch unfinished runs again from their last save.

    Runs that are neither finished nor live are launched as before.
    """
    retry_runs(find(name, outputs), failed=failed, lost=lost)


def retry_runs(runs: Sequence[RunDir], *, failed: bool = False, lost: bool = False) -> None:
    """Relaunch the runs that are neither finished nor live; `failed`, `lost`: only those in that state."""
    chosen = {state for state, flag in (("FAILED", failed), ("LOST", lost)) if flag}
    observed = observe.observe(runs)
    for seen in observed:
        if seen.unsure:
            raise UserError(f"{seen.run.run_id}: {seen.queue} does not answer ({seen.unsure}); try again later")
    launches: dict[str, list[RunDir]] = {}
    never_submitted = []
    for seen in observed:
        state = seen.status.state
        if seen.is_live or state in FINISHED or (chosen and state not in chosen):
            continue
        if (record := seen.submission) is None:
            never_submitted.append(seen.run.run_id)
            continue
        key = json.dumps([record.launcher, record.launch], sort_keys=True)
        launches.setdefault(key, []).append(seen.run)
    if never_submitted:
        others = f" and {len(never_submitted) - 1} more were" if len(never_submitted) > 1 else " was"
        its = "their" if len(never_submitted) > 1 else "its"
        print(f"{never_submitted[0]}{others} never submitted; launch {its} sweep again")
    if not launches:
        print("nothing to retry")
    for key, members in launches.items():
        launcher, settings = json.loads(key)
        _launch_again(members, launcher, {**settings, "outputs": str(members[0].outputs), "wait": False})


def _launch_again(runs: Sequence[RunDir], launcher: str, settings: dict[str, Any]) -> None:
    launch = config.launch_from_dict(settings)
    grid = [identity.load_config(run) for run in runs]
    run_ids = plan.build(grid, launch, plan.Corpora()).run_ids
    for run, run_id in zip(runs, run_ids, strict=True):
        if run_id != run.run_id:
            raise UserError(
                f"{run.run_id}: would now be {run_id}: its text or its schedule's code has changed; restore it, or "
                "launch the sweep again to train the new experiment"
            )
    prepare.launch(launcher, grid, launch, is_sweep=False)
