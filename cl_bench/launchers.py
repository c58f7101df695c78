"""Hydra plugins: a sweeper that leaves checking to the launcher, and the launcher for this machine.

A launcher gets every job's overrides of a grid in one call. It composes and validates the whole grid, plans it, and only
then starts what is missing, through submitit.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import glob
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.live import Live
from rich.text import Text

from cl_bench import config, display, job, plan, status
from cl_bench.errors import UserError
from cl_bench.paths import RunDir
from cl_bench.plan import Plan, Planned

_POLL_S = 0.25
_LEAVE_S = 120.0
_FOREVER_MIN = 60 * 24 * 365
_LOG_LINES = 8
_LAUNCH_KEYS = [f.name for f in dataclasses.fields(config.LaunchConfig)]


class RunsFailed(Exception):
    """Some runs failed; all others were trained."""


class GridSweeper(Sweeper):
    """Every combination of the values given, in one call to the launcher.

    Hydra's own grid sweeper composes each job just to see whether it can; our launcher composes and checks them all.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the grid of `hydra.sweeper.params`, which `arguments` override or extend."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{k}={v}" for k, v in self.params.items()), *arguments])
        jobs = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
        return self.launcher.launch(jobs, initial_job_idx=0)


def compose_grid(loader: Any, master: DictConfig, jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Plain configs of all jobs, equal to what Hydra composes one by one.

    Hydra takes 45 ms a job. Jobs that choose the same presets differ in values only, so each combination of presets is
    composed once and the values are set in copies.
    """
    parser = OverridesParser.create(config_loader=loader)
    groups = set(master.hydra.runtime.choices)

    @functools.cache
    def parse(text: str) -> Override:
        return parser.parse_overrides([text])[0]

    @functools.cache
    def sets_a_value(text: str) -> bool:
        override = parse(text)
        return override.type == OverrideType.CHANGE and not (
            override.is_hydra_override() or override.key_or_group in groups
        )

    @functools.cache
    def compose(presets: tuple[str, ...]) -> DictConfig:
        composed = loader.load_sweep_config(master, list(presets))
        return OmegaConf.masked_copy(composed, [k for k in composed if k != "hydra"])

    grid = []
    for overrides in jobs:
        values = [o for o in overrides if sets_a_value(o)]
        composed = copy.deepcopy(compose(tuple(o for o in overrides if o not in values)))
        OmegaConf.set_struct(composed, True)
        for text in values:
            try:
                OmegaConf.update(composed, parse(text).key_or_group, parse(text).value(), merge=True)
            except Exception:
                loader.load_sweep_config(master, list(overrides))  # raises Hydra's own error
                raise
        plain = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(plain, dict)
        grid.append({str(k): v for k, v in plain.items()})
    return grid


def split(composed: dict[str, Any]) -> tuple[config.RunConfig, config.LaunchConfig]:
    """A composed config as a run's and the launch's. Raises ConfigError."""
    composed = {k: v for k, v in composed.items() if k not in ("hydra", "sweeps")}
    launch = {k: composed.pop(k) for k in _LAUNCH_KEYS if k in composed}
    return config.from_dict(composed), config.launch_from_dict(launch)


class LocalLauncher(Launcher):
    """Trains a grid on this machine, `jobs` runs at a time, each in processes of its own."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra. The task function is not used: a job reads its run's folder."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train what is missing of the grid; each job's return value is its run's final validation loss.

        Raises ConfigError before anything trains, RunsFailed after everything else has.
        """
        grid = [split(c) for c in compose_grid(self.hydra_context.config_loader, self.config, job_overrides)]
        losses = train_grid([run for run, _ in grid], grid[0][1])
        return [_returned(loss) for loss in losses]


def _returned(loss: float | None) -> JobReturn:
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = loss
    return result


def train_grid(configs: Sequence[config.RunConfig], launch: config.LaunchConfig) -> list[float | None]:
    """Plan, print, and unless `launch.dry_run` train what is missing. Returns final losses in the order of the runs."""
    plan.check_writable(launch.outputs)
    corpora = plan.Corpora(_progress("checking"))
    planned = plan.build(configs, launch, corpora)
    display.print_plan(planned)
    plan.write_csv(planned)
    if launch.dry_run:
        return [None] * len(configs)
    left_out = plan.write_manifest(planned)
    if left_out:
        display.console.print(
            f"{left_out} runs of this sweep's earlier grid are not in this one; they stay in {launch.outputs}/runs"
        )
    plan.prepare_data(planned, corpora, _progress("preparing"))
    LocalQueue(planned).run()
    return [status.read(RunDir(launch.outputs, r.run_id)).val_loss for r in planned.runs]


def _progress(verb: str) -> Any:
    """A line on a corpus large enough to wait for."""
    shown = [0.0]

    def show(done: int, total: int) -> None:
        if time.monotonic() - shown[0] > 1 and total > 1 << 28:
            shown[0] = time.monotonic()
            display.console.print(f"{verb} text: {done / total:.0%} of {display.si(total)}B", end="\r")

    return show


@dataclasses.dataclass
class _Running:
    """A submitted run."""

    number: int
    planned: Planned
    run: RunDir
    job: Any


class LocalQueue:
    """Starts the missing runs of a plan, `jobs` at a time, and watches their status files."""

    def __init__(self, planned: Plan) -> None:
        self.plan = planned
        self.outputs = planned.launch.outputs
        self.waiting = [(n, r) for n, r in enumerate(planned.runs, 1) if r.to_train]
        self.running: list[_Running] = []
        self.ended: list[tuple[Planned, status.Status]] = []
        self.started = time.monotonic()

    def run(self) -> None:
        """Train everything. Raises RunsFailed at the end, KeyboardInterrupt after the runs have saved."""
        elsewhere = [r for r in self.plan.runs if r.state == "running"]
        for run in elsewhere:
            display.console.print(f"{run.run_id} is being trained by another process; left to it")
        if not self.waiting:
            return
        with _interruptible(), Live(Text(), console=display.console, transient=True, auto_refresh=False) as live:
            try:
                while self.waiting or self.running:
                    self._start()
                    self._collect()
                    live.update(self._lines(), refresh=display.console.is_terminal)
                    time.sleep(_POLL_S)
            except KeyboardInterrupt:
                live.update(Text("interrupted: the runs in training save and leave"), refresh=True)
                self._stop()
                raise
        self._summary()

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.plan.launch.jobs:
            number, planned = self.waiting.pop(0)
            run = RunDir(self.outputs, planned.run_id)
            self.running.append(_Running(number, planned, run, self._submit(planned, run)))

    def _submit(self, planned: Planned, run: RunDir) -> Any:
        ranks = planned.config.resources.tasks_per_node
        run.logs.mkdir(parents=True, exist_ok=True)
        status.write(run, status.read(run), state="PENDING", error="")
        executor = submitit.LocalExecutor(folder=run.logs)
        gpus = len(glob.glob("/dev/nvidia[0-9]*")) if planned.config.resources.accelerator != "cpu" else 0
        slots = {r.job.slot for r in self.running}
        slot = next(s for s in range(len(slots) + 1) if s not in slots)
        visible = [(slot * ranks + r) % gpus for r in range(ranks)] if gpus else []
        executor.update_parameters(
            tasks_per_node=ranks, timeout_min=_FOREVER_MIN, gpus_per_node=len(visible), visible_gpus=visible,
            stderr_to_stdout=True,
        )  # fmt: skip
        cores = len(os.sched_getaffinity(0))
        threads = max(1, cores // (ranks * min(self.plan.launch.jobs, len(self.plan.runs))))
        store = run.logs / f"store_{time.time_ns()}"
        # A terminal's Ctrl-C reaches every process at once; only this one may act on it, so that runs can save first.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            submitted = executor.submit(job.task, str(run.root.absolute()), str(store.absolute()), threads)
        finally:
            signal.signal(signal.SIGINT, before)
        submitted.slot = slot
        return submitted

    def _collect(self) -> None:
        for running in [r for r in self.running if r.job.done()]:
            self.running.remove(running)
            state = status.read(running.run)
            if state.state in ("PENDING", "RUNNING"):
                state = status.write(running.run, state, state="FAILED", error=_died(running))
            self.ended.append((running.planned, state))
            display.console.print(
                display.result_line(running.number, len(self.plan.runs), running.planned, state), soft_wrap=True
            )

    def _lines(self) -> Text:
        width = display.console.width
        total = len(self.plan.runs)
        lines = [
            display.progress_line(r.number, total, r.planned, status.read(r.run), width) for r in self.running
        ]
        return Text("\n").join(lines)

    def _stop(self) -> None:
        for running in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(running.job.job_id), signal.SIGTERM)  # submitit's controller hands it to every rank
        deadline = time.monotonic() + _LEAVE_S
        while self.running and time.monotonic() < deadline:
            self._collect()
            time.sleep(_POLL_S)

    def _summary(self) -> None:
        failed = [(planned, state) for planned, state in self.ended if state.state == "FAILED"]
        counts = {s: sum(state.state == s for _, state in self.ended) for s in ("DONE", "FAILED")}
        counts |= {
            s: n for s in ("DIVERGED", "PREEMPTED") if (n := sum(state.state == s for _, state in self.ended))
        }
        words = ", ".join(f"{n} {s.lower()}" for s, n in counts.items())
        display.console.print(f"{words} in {display.clock(time.monotonic() - self.started)}")
        for planned, state in failed:
            display.console.print(f"failed  {planned.run_id}: {_last_line(state.error)}", soft_wrap=True)
            log = newest_log(RunDir(self.outputs, planned.run_id))
            if log:
                display.console.print(f"  log   {log}", soft_wrap=True)
        if failed:
            raise RunsFailed(f"{len(failed)} of {len(self.ended)} runs failed; launch again to retry them")


def _last_line(error: str) -> str:
    return error.strip().splitlines()[-1] if error.strip() else "no reason given"


def newest_log(run: RunDir) -> Path | None:
    """What rank 0 printed in the newest attempt."""
    return max(run.logs.glob("*_0_log.out"), key=lambda p: p.stat().st_mtime, default=None)


def _died(running: _Running) -> str:
    """What can be said of a process that ended without writing why."""
    log = newest_log(running.run)
    tail = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:] if log else []
    return "\n".join([*tail, "the process ended without saying why: killed, or out of memory?"])


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does: the runs in training save first."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def train_composed(composed: DictConfig) -> None:
    """Train the one run of a composed config (a launch without -m). Raises as train_grid and UserError."""
    plain = OmegaConf.to_container(composed, resolve=True)
    if not isinstance(plain, dict):
        raise UserError("the configuration is not a group of keys")
    run, launch = split({str(k): v for k, v in plain.items()})
    train_grid([run], launch)
