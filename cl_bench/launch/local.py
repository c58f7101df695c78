"""The local backend: trains runs on this machine through submitit."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from rich.live import Live
from rich.text import Text

from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError, to_dict
from cl_bench.errors import RunsFailed, UserError, plural
from cl_bench.launch import backend, display, observe, plan, prepare
from cl_bench.launch.backend import Backend, Observed
from cl_bench.launch.grid import Plan, Planned
from cl_bench.launch.surroundings import environment, handling
from cl_bench.runs import lock, status, submission
from cl_bench.runs.paths import RunDir
from cl_bench.runs.submission import Submission
from cl_bench.training import worker

_POLL_S = 0.25
_EXIT_S = 120.0
_CANCEL_POLL_S = 1.0
_FOREVER_MIN = 60 * 24 * 365
_LOG_LINES = 8


class LocalBackend:
    """Trains runs on this machine, `jobs` at a time, in processes that the launch supervises."""

    label = "the launch"
    detached = False

    def check(self, plan: Plan) -> None:
        """Raise ConfigError for what this machine cannot train."""
        gpus = len(_gpus())
        for run in plan.to_train:
            _check_run(run.config, gpus)

    def requests(self, plan: Plan) -> Sequence[str]:
        """No requests: there is no queue."""
        return ()

    def submit(self, plan: Plan, *, terse: bool) -> None:
        """Train the missing runs, as `LocalQueue.run`."""
        LocalQueue(plan, terse=terse).run()

    def observe(self, submissions: Sequence[Submission]) -> Callable[[Observed], Observed]:
        """No query: a run's files and the process of its launch suffice."""
        return _with_launch

    def cancel(self, runs: Sequence[Observed]) -> int:
        """Mark runs as cancelled for their launch; if it is gone, signal the trainer itself."""
        live = [(seen, seen.submission) for seen in runs if seen.is_live and seen.submission is not None]
        for seen, record in live:
            if record.host != socket.gethostname():
                raise UserError(f"{seen.run.run_id} was launched on {record.host}; cancel it there")
            submission.write(seen.run, dataclasses.replace(record, cancelled=True))
            if not record.launch_lives and (trainer := lock.holder(seen.run)):
                os.kill(trainer, signal.SIGTERM)
        return len(live)

    def log(self, run: RunDir, submission: Submission) -> Path | None:
        """Log of the run."""
        return run.log


def _with_launch(seen: Observed) -> Observed:
    """State of a run, given whether its launch is alive."""
    record, latest = seen.submission, seen.status
    if seen.held or record is None:
        return seen
    if record.launch_lives and not record.cancelled and latest.updated < record.submitted:
        return seen.in_state("PENDING", f"waits in process {record.job_id}", in_launch=True)
    if latest.state == "RUNNING":
        return seen.in_state("LOST", observe.NO_TRAINER)
    if latest.state != "PENDING":
        return seen
    if record.cancelled:
        return seen.in_state("PENDING", "cancelled before it started; `cl-bench retry` starts it")
    if record.launch_lives:  # it is just starting the run
        return seen.in_state("PENDING", f"starts in process {record.job_id}", in_launch=True)
    return seen.in_state("PENDING", "its launch is over; `cl-bench retry` starts it")


def _check_run(run: RunConfig, gpus: int) -> None:
    """Raise ConfigError if this machine, with `gpus` GPUs, cannot train the run."""
    resources = run.resources
    if resources.nodes > 1:
        raise ConfigError(
            f"resources.nodes = {resources.nodes}: this machine is one node; use {_clusters()} or resources.nodes=1"
        )
    if resources.accelerator == "cpu":
        return
    if resources.gpus_per_node > gpus:
        raise ConfigError(
            f"resources.gpus_per_node = {resources.gpus_per_node}: this machine has {gpus}; lower it, or use "
            f"{_clusters()}"
        )
    if gpus and resources.ranks_per_node > gpus:
        raise ConfigError(
            f"resources.tasks_per_node = {resources.ranks_per_node} is more than the {plural(gpus, 'GPU')} of this "
            "machine; lower it, or set resources.accelerator=cpu"
        )
    if not gpus and resources.accelerator == "cuda":
        raise ConfigError("resources.accelerator = cuda: this machine has no GPU; use auto or cpu")
    if not gpus and run.deepspeed.precision == "fp16":
        raise ConfigError("deepspeed.precision = fp16 needs a GPU, and this machine has none; use bf16 or fp32")


def _clusters() -> str:
    """The launchers for more than one machine."""
    return " or ".join(f"hydra/launcher={name}" for name in backend.names() if backend.get(name).detached)


def _gpus() -> list[int]:
    """Indices of the GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, else all of the machine.

    Raises ConfigError if CUDA_VISIBLE_DEVICES holds something else.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(range(len(list(Path("/dev").glob("nvidia[0-9]*")))))
    try:
        return [int(n) for n in visible.split(",") if n.strip()]
    except ValueError:
        raise ConfigError(f"CUDA_VISIBLE_DEVICES = {visible}: give the GPUs' numbers, e.g. 0,1") from None


@dataclasses.dataclass
class _Running:
    """A run in training."""

    number: int
    planned: Planned
    run: RunDir
    job: Any
    rendezvous: Path
    """File through which its ranks find each other."""
    cancelled: bool = False
    """Whether `cl-bench cancel` has been passed on to it."""


class LocalQueue:
    """Starts the missing runs of a plan, `jobs` at a time, and follows their status files."""

    def __init__(self, planned: Plan, *, terse: bool = False) -> None:
        self.plan = planned
        self.terse = terse
        self.outputs = planned.launch.outputs
        numbers = {run.run_id: n for n, run in enumerate(planned.runs, 1)}
        self.waiting = [(numbers[run.run_id], run) for run in planned.to_train]
        self.running: list[_Running] = []
        self.ended: list[tuple[Planned, status.Status]] = []
        self.started = time.monotonic()
        self._cancels_checked = 0.0
        self.variables = prepare.freeze_code(planned, snapshot=bool(planned.launch.snapshot))

    def run(self) -> None:
        """Train everything. Raises RunsFailed at the end, KeyboardInterrupt after the runs have saved."""
        for planned in self.plan.runs:
            if planned.state in ("running", "queued"):
                self._print_elsewhere(planned)
        if not self.waiting:
            return
        ours = submission.by_this_process(self.plan.launch.sweep.name, to_dict(self.plan.launch))
        for _, planned in self.waiting:
            submission.write(RunDir(self.outputs, planned.run_id), ours)
        live = Live(Text(), console=display.console, transient=True, auto_refresh=False)
        with handling(_interrupt, signal.SIGTERM), live:
            try:
                while self.waiting or self.running:
                    self._start()
                    self._pass_on_cancels()
                    self._collect()
                    live.update(self._lines(), refresh=display.console.is_terminal)
                    time.sleep(_POLL_S)
            except KeyboardInterrupt:
                live.update(Text("interrupted: the runs in training save and exit"), refresh=True)
                self._stop()
                raise
        self._summary()

    def _print_elsewhere(self, planned: Planned) -> None:
        verb = "is queued in" if planned.state == "queued" else "is being trained by"
        display.console.print(f"{planned.run_id} {verb} another launch", soft_wrap=True)

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.plan.launch.jobs:
            number, planned = self.waiting.pop(0)
            run = RunDir(self.outputs, planned.run_id)
            if (record := submission.read(run)) is not None and record.cancelled:
                display.console.print(f"{planned.run_id} was cancelled", soft_wrap=True)
                continue
            # Another launch may have started it since the plan was made.
            if plan.state_of(run) in ("done", "diverged", "running", "queued"):
                self._print_elsewhere(planned)
                continue
            run.logs.mkdir(parents=True, exist_ok=True)
            rendezvous = run.logs / f"rendezvous_{time.time_ns()}"
            self.running.append(_Running(number, planned, run, self._submit(planned, run, rendezvous), rendezvous))

    def _submit(self, planned: Planned, run: RunDir, rendezvous: Path) -> Any:
        ranks = planned.config.resources.ranks
        status.write(run, status.read(run), state="PENDING", error="")
        executor = submitit.LocalExecutor(folder=run.logs)
        gpus = _gpus() if planned.config.resources.accelerator != "cpu" else []
        slots = {r.job.slot for r in self.running}
        slot = next(s for s in range(len(slots) + 1) if s not in slots)
        visible = [gpus[(slot * ranks + r) % len(gpus)] for r in range(ranks)] if gpus else []
        executor.update_parameters(
            tasks_per_node=ranks,
            timeout_min=_FOREVER_MIN,
            gpus_per_node=len(visible),
            visible_gpus=visible,
            stderr_to_stdout=True,
        )
        cores = len(os.sched_getaffinity(0))
        threads = max(1, cores // (ranks * min(self.plan.launch.jobs, len(self.plan.runs))))
        # A terminal's Ctrl-C reaches all processes; only this one may react, so that runs can save.
        with handling(signal.SIG_IGN, signal.SIGINT), environment(self.variables):
            submitted = executor.submit(worker.task, str(run.root.absolute()), str(rendezvous.absolute()), threads)
        submitted.slot = slot
        return submitted

    def _collect(self) -> None:
        for running in [r for r in self.running if r.job.done()]:
            self.running.remove(running)
            running.rendezvous.unlink(missing_ok=True)
            state = status.read(running.run)
            if lock.is_held(running.run):  # another launch was faster, and our process has exited
                self._print_elsewhere(running.planned)
                continue
            if state.state in ("PENDING", "RUNNING"):
                state = status.write(running.run, state, state="FAILED", error=_died(running))
            self.ended.append((running.planned, state))
            if not self.terse:
                display.console.print(
                    display.result_line(running.number, len(self.plan.runs), running.planned, state), soft_wrap=True
                )

    def _pass_on_cancels(self) -> None:
        """Signal the runs that `cl-bench cancel` has marked; they save and exit."""
        if time.monotonic() - self._cancels_checked < _CANCEL_POLL_S:
            return
        self._cancels_checked = time.monotonic()
        for running in self.running:
            record = submission.read(running.run)
            if record is not None and record.cancelled and not running.cancelled:
                running.cancelled = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(running.job.job_id), signal.SIGTERM)

    def _lines(self) -> Text:
        width = display.console.width
        total = len(self.plan.runs)
        lines = [display.progress_line(r.number, total, r.planned, status.read(r.run), width) for r in self.running]
        return Text("\n").join(lines)

    def _stop(self) -> None:
        for running in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(running.job.job_id), signal.SIGTERM)  # submitit's controller forwards it to every rank
        deadline = time.monotonic() + _EXIT_S
        while self.running and time.monotonic() < deadline:
            self._collect()
            time.sleep(_POLL_S)

    def _summary(self) -> None:
        failed = [(planned, state) for planned, state in self.ended if state.state in ("FAILED", "PREEMPTED")]
        counts = Counter({"DONE": 0, "FAILED": 0})
        counts.update(sorted(state.state for _, state in self.ended))
        if not self.terse:
            outcome = ", ".join(f"{n} {state.lower()}" for state, n in counts.items())
            display.console.print(f"{outcome} in {display.clock(time.monotonic() - self.started)}")
        for planned, state in failed:
            verb = "failed " if state.state == "FAILED" else "stopped"
            display.console.print(f"{verb} {planned.run_id}: {_last_line(state.error)}", soft_wrap=True)
            log = RunDir(self.outputs, planned.run_id).log
            if log:
                display.console.print(f"  log   {log}", soft_wrap=True)
        if failed:
            raise RunsFailed(f"{len(failed)} of {len(self.ended)} runs did not finish; launch again to resume them")


def _last_line(error: str) -> str:
    return ([*error.strip().splitlines()] or ["no reason given"])[-1]


def _died(running: _Running) -> str:
    """Error of a process that recorded none: the end of its log."""
    log = running.run.log
    tail = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:] if log else []
    return "\n".join([*tail, "the process ended without recording an error: killed, or out of memory?"])


def _interrupt(_: int, __: FrameType | None) -> None:
    """Make a signal act like Ctrl-C: the runs in training save first."""
    raise KeyboardInterrupt


BACKEND: Backend = LocalBackend()
