"""What one asks of runs from another shell, another day: status, logs, cancel, retry. No daemon; the files say it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_bench.errors import UserError, did_you_mean
from cl_bench.launch import display, observe
from cl_bench.launch.observe import Observed
from cl_bench.launch.slurm import queue
from cl_bench.runs import lock, submission
from cl_bench.runs.paths import RunDir, SweepDir, all_runs, manifest_runs
from cl_bench.runs.status import FINISHED

_REFRESH_S = 2.0
_FOLLOW_S = 0.5


def find(name: str | None, outputs: str) -> list[RunDir]:
    """The runs that `name` means: a run or sweep by name or folder, an outputs folder, or (None) all in `outputs`.

    Raises UserError when there are none.
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
        raise UserError(f"{outputs}: holds no runs; name a folder with --outputs")
    known = [run.run_id for run in all_runs(outputs)] + [p.name for p in (Path(outputs) / "sweeps").glob("*")]
    hint = did_you_mean(path.name, known) if known else f"{outputs} holds no runs"
    raise UserError(f"{name}: neither a run nor a sweep; {hint}")


def find_one(name: str, outputs: str) -> RunDir:
    """The one run that `name` means. Raises UserError when there is none, or several."""
    runs = find(name, outputs)
    if len(runs) > 1:
        raise UserError(f"{name}: {len(runs)} runs; name one of them, e.g. {runs[0].run_id}")
    return runs[0]


# --- status -----------------------------------------------------------------------------------------------------------


def status(argv: Sequence[str]) -> int:
    """`cl-bench status`: where runs stand, once or until all are over."""
    parser = _parser("status", "State and progress of runs.")
    parser.add_argument("name", nargs="?", metavar="SWEEP|RUN", help="all runs when left out")
    parser.add_argument("--watch", action="store_true", help="refresh until no run is live; Ctrl-C leaves")
    parser.add_argument("--json", action="store_true", help="one JSON object a run")
    args = parser.parse_args(argv)
    runs = find(args.name, args.outputs)
    if args.json:
        for seen in observe.observe(runs):
            print(json.dumps(as_dict(seen)))
        return 0
    if not args.watch:
        display.console.print(display.status_table(observe.observe(runs)))
        return 0
    from rich.live import Live

    with Live(console=display.console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            observed = observe.observe(runs)
            live.update(display.status_table(observed, height=display.console.height), refresh=True)
            if not any(seen.is_live for seen in observed):
                return 0
            time.sleep(_REFRESH_S)


def as_dict(seen: Observed) -> dict[str, Any]:
    """One run's state for programs."""
    known = seen.status
    return {
        "run": seen.run.run_id,
        **{k: v for k, v in dataclasses.asdict(known).items() if k != "updated"},
        "eta_seconds": display.seconds_left(known),
        "job": seen.job_id or known.job,
        "queue": seen.job.state if seen.job else None,
        "never_starts": bool(seen.job and seen.job.never),
        "why": seen.why,
        "unsure": seen.unsure,
        "updated": known.updated,
    }


# --- logs -------------------------------------------------------------------------------------------------------------


def logs(argv: Sequence[str]) -> int:
    """`cl-bench logs`: what a run's rank 0 printed."""
    parser = _parser("logs", "What a run printed, the newest attempt.")
    parser.add_argument("name", metavar="RUN")
    parser.add_argument("-f", "--follow", action="store_true", help="go on printing until the run is over")
    parser.add_argument("-n", "--lines", type=int, default=0, help="only the last so many lines (default: all)")
    args = parser.parse_args(argv)
    run = find_one(args.name, args.outputs)
    log = log_of(run)
    while log is None and args.follow and observe.observe([run])[0].is_live:
        time.sleep(_FOLLOW_S)
        log = log_of(run)
    if log is None:
        raise UserError(f"{run.run_id}: has printed nothing yet; `cl-bench status {run.run_id}` says where it stands")
    over = not args.follow
    position = 0
    if args.lines > 0:
        lines = log.read_bytes().splitlines(keepends=True)
        position = sum(map(len, lines[: -args.lines]))
    while True:
        position += _print_from(log, position)
        if over:
            return 0
        over = not observe.observe([run])[0].is_live  # before the last look, not after it
        newer = log_of(run)
        if newer is not None and newer != log:  # training has taken over the output, or another attempt began
            _print_from(log, position)
            log, position = newer, 0
        time.sleep(0 if over else _FOLLOW_S)


def _print_from(log: Path, position: int) -> int:
    """Print what a file holds from `position` on; returns how many bytes that was."""
    with log.open("rb") as file:
        file.seek(position)
        text = file.read()
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()
    return len(text)


def log_of(run: RunDir) -> Path | None:
    """The newest log: the run's own, or, of a job that never came so far, what its batch script printed."""
    found = submission.read(run)
    own = run.log
    if found is None or found.launcher == "local":
        return own
    if own is not None and own.name.startswith(f"{found.job_id}_"):
        return own
    return found.batch_log if found.batch_log.exists() else own


# --- cancel -----------------------------------------------------------------------------------------------------------


def cancel(argv: Sequence[str]) -> int:
    """`cl-bench cancel`: take runs out of the queue; those in training save first."""
    parser = _parser("cancel", "Stop runs: they save and leave, or never start. `cl-bench retry` goes on with them.")
    parser.add_argument("name", metavar="SWEEP|RUN")
    args = parser.parse_args(argv)
    observed = observe.observe(find(args.name, args.outputs))
    on_slurm = [seen for seen in observed if seen.job is not None and not seen.job.over]
    count = _cancel_slurm(on_slurm) + _cancel_local([seen for seen in observed if not seen.job_id])
    unsure = {seen.unsure for seen in observed if seen.unsure}
    if unsure:
        raise UserError(f"Slurm does not answer ({unsure.pop()}): its jobs were not cancelled; try again later")
    print(f"{count} run{'s' * (count != 1)} cancelled" if count else "nothing to cancel: no run is live")
    return 0


def _cancel_slurm(observed: Sequence[Observed]) -> int:
    """scancel; a job that packs several runs goes only when all of them are meant."""
    jobs: dict[str, list[Observed]] = {}
    for seen in observed:
        jobs.setdefault(seen.job_id, []).append(seen)
    for job_id, members in jobs.items():
        shared = members[0].submission
        if shared is not None and len(members) < shared.runs_in_job:
            others = [r for r in all_runs(members[0].run.outputs) if r.run_id not in {m.run.run_id for m in members}]
            live = [s for s in observe.observe(others) if s.job_id == job_id and s.status.state not in FINISHED]
            if live:
                raise UserError(
                    f"{members[0].run.run_id} shares job {job_id} with {live[0].run.run_id}"
                    f"{f' and {len(live) - 1} more' if len(live) > 1 else ''}; cancel the sweep, or `scancel {job_id}`"
                )
    ids = sorted(jobs)
    for i in range(0, len(ids), 500):  # a command line has an end
        out = queue.ask("scancel", *ids[i : i + 500])
        if out.returncode:
            raise UserError(f"scancel: {out.stderr.strip() or out.returncode}")
    for seen in observed:
        if seen.submission is not None:
            submission.write(seen.run, dataclasses.replace(seen.submission, cancelled=True))
    return len(observed)


def _cancel_local(observed: Sequence[Observed]) -> int:
    """Mark runs as cancelled, which their launch heeds; where it is gone, tell the trainer itself."""
    count = 0
    for seen in observed:
        found = seen.submission
        if found is None or found.launcher != "local" or not seen.is_live:
            continue
        if found.host != socket.gethostname():
            raise UserError(f"{seen.run.run_id} was launched on {found.host}; cancel it there")
        submission.write(seen.run, dataclasses.replace(found, cancelled=True))
        if not found.launch_lives and (trainer := lock.holder(seen.run)):
            os.kill(trainer, signal.SIGTERM)
        count += 1
    return count


# --- retry ------------------------------------------------------------------------------------------------------------


def retry(argv: Sequence[str]) -> int:
    """`cl-bench retry`: launch again what failed, was lost or stopped, as it was launched before."""
    parser = _parser("retry", "Launch runs again that are neither finished nor live; they go on from their last save.")
    parser.add_argument("name", nargs="?", metavar="SWEEP|RUN", help="all runs when left out")
    parser.add_argument("--failed", action="store_true", help="only those that FAILED")
    parser.add_argument("--lost", action="store_true", help="only those that are LOST")
    args = parser.parse_args(argv)
    wanted = {state for state, asked in (("FAILED", args.failed), ("LOST", args.lost)) if asked}
    observed = observe.observe(find(args.name, args.outputs))
    unsure = [seen for seen in observed if seen.unsure]
    if unsure:
        raise UserError(f"{unsure[0].run.run_id}: Slurm does not answer ({unsure[0].unsure}); try again later")
    again = [
        seen
        for seen in observed
        if not seen.is_live and seen.status.state not in FINISHED and (not wanted or seen.status.state in wanted)
    ]
    never = [seen for seen in again if seen.submission is None]
    if never:
        others = f" and {len(never) - 1} more were" if len(never) > 1 else " was"
        its = "their" if len(never) > 1 else "its"
        print(f"{never[0].run.run_id}{others} never submitted; launch {its} sweep again")
    groups: dict[str, list[Observed]] = {}
    for seen in again:
        if (found := seen.submission) is not None:
            key = json.dumps([found.launcher, found.sweep, found.launch], sort_keys=True)
            groups.setdefault(key, []).append(seen)
    if not groups:
        print("nothing to retry")
    for key, members in groups.items():
        launcher, _, settings = json.loads(key)
        _launch_again(members, launcher, {**settings, "outputs": str(members[0].run.outputs), "wait": False})
    return 0


def _launch_again(members: Sequence[Observed], launcher: str, settings: dict[str, Any]) -> None:
    from cl_bench import config
    from cl_bench.launch import local, plan
    from cl_bench.launch.slurm import launcher as slurm
    from cl_bench.training import worker

    launch = config.launch_from_dict(settings)
    grid = [worker.load_config(seen.run) for seen in members]
    asked = plan.build(grid, launch, plan.Corpora()).asked
    for seen, run_id in zip(members, asked, strict=True):
        if run_id != seen.run.run_id:
            raise UserError(
                f"{seen.run.run_id}: would now be {run_id}: its text or its schedule's code changed since; put it "
                "back, or launch the sweep again to train the new experiment"
            )
    train = slurm.submit_grid if launcher == "slurm" else local.train_grid
    train(grid, launch, is_sweep=False)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"cl-bench {command}", description=description)
    parser.add_argument("--outputs", default="outputs", help="folder of runs and sweeps (default: outputs)")
    return parser
