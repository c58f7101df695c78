"""Hydra plugins: a sweeper that expands a grid, and a launcher that hands the grid to a backend.

The launcher receives the overrides of all jobs in one call, and composes and validates the whole grid before anything
is planned or started.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cl_bench import config, schedules
from cl_bench.config import tune as tune_config
from cl_bench.errors import UserError, did_you_mean
from cl_bench.launch import backend, display, prepare
from cl_bench.launch.grid import Plan
from cl_bench.runs import identity
from cl_bench.runs.paths import SweepDir, TuneDir
from cl_bench.tune import run as tune

_LAUNCH_KEYS = [f.name for f in dataclasses.fields(config.LaunchConfig)]


class GridSweeper(Sweeper):
    """Passes every combination of values, in every named cell of the sweep, to the launcher in one call.

    Unlike Hydra's sweeper it does not compose each job to check it: the launcher composes and validates all of them.
    """

    def __init__(self, params: dict[str, Any] | None = None, cells: dict[str, Any] | None = None) -> None:
        self.params = params or {}
        self.cells = {name: [str(o) for o in overrides or ()] for name, overrides in (cells or {}).items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.loader = hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the grid of `hydra.sweeper.params`, overridden and extended by `arguments`."""
        parser = OverridesParser.create(config_loader=self.loader)
        overrides = parser.parse_overrides([*(f"{k}={_values(v)}" for k, v in self.params.items()), *arguments])
        jobs = [list(job) for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]]
        return self.launcher.launch(self._in_cells(jobs), initial_job_idx=0)

    def _in_cells(self, jobs: list[list[str]]) -> list[list[str]]:
        """Every job in every named cell; a job's values override the cell's. `cell=a,b` selects cells."""
        if not self.cells:
            return jobs
        grid = []
        for job in jobs:
            overrides = {o.partition("=")[0].lstrip("+~"): o for o in job}
            cell = overrides.pop("cell", "cell=").partition("=")[2]
            if cell and cell not in self.cells:
                raise UserError(f"cell = {cell}: no such cell in this sweep; {did_you_mean(cell, self.cells)}")
            for name in [cell] if cell else self.cells:
                rest = [o for o in self.cells[name] if o.partition("=")[0].lstrip("+~") not in overrides]
                grid.append([f"cell={name}", *rest, *overrides.values()])
        # Cell by cell, in the order of the sweep's file.
        order = list(self.cells)
        return sorted(grid, key=lambda job: order.index(job[0].partition("=")[2]))


def _values(value: Any) -> str:
    """The values of one axis in Hydra's grammar, from 'a,b', a YAML list of values, or a single value."""
    return ",".join(map(_as_override, value)) if _is_list(value) else _as_override(value)


def _as_override(value: Any) -> str:
    """One value in Hydra's grammar; a list within an axis is one value."""
    if _is_list(value):
        return "[" + ",".join(map(_as_override, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def compose_grid(loader: Any, master: DictConfig, jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Plain configs of all jobs, equal to those that Hydra composes one by one.

    Hydra takes 45 ms per job. Jobs with the same presets differ only in values, so each combination of presets is
    composed once, and the values are set in copies.
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
    """Split a composed config into the run's and the launch's. Raises ConfigError."""
    composed = {k: v for k, v in composed.items() if k not in ("hydra", "sweeps")}
    settings = {k: composed.pop(k) for k in _LAUNCH_KEYS if k in composed}
    run = config.from_dict(composed)
    schedules.check(run)  # not when planning: probes of `cl-bench tune` are beginnings of runs
    return run, config.launch_from_dict(settings)


class GridLauncher(Launcher):
    """Hands a grid to a backend: this machine or a cluster."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra. Jobs read their run's folder instead of calling the task function."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the missing runs of the grid; each job's return value is its run's final validation loss.

        It is None for a queued run. Raises UserError before anything starts, RunsFailed after everything has ended.
        """
        grid = [split(c) for c in compose_grid(self.hydra_context.config_loader, self.config, job_overrides)]
        if not grid:
            raise UserError("the grid has no runs: an axis has no values")
        settings = grid[0][1]
        if any(other != settings for _, other in grid):
            names = ", ".join(k for k in _LAUNCH_KEYS if k != "sweep")
            raise UserError(f"{names}, sweep.* and sweeps take one value, not a grid; launch them separately")
        runs = [run for run, _ in grid]
        losses = prepare.launch(self.backend, runs, settings, report=write_report, prospect=power_lines)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=loss) for loss in losses]


def power_lines(plan: Plan) -> list[str]:
    """What the tests of a planned sweep can detect, in two lines; none without a baseline and a curriculum."""
    seeds: dict[tuple[str, str, int, float], set[int]] = {}
    baselines: dict[tuple[str, int, float], set[int]] = {}
    for run in plan.runs:
        full = run.config
        point = identity.setting(full), full.global_batch_size, full.optim.lr
        if full.is_baseline:
            baselines.setdefault(point, set()).add(full.seed)
        else:
            seeds.setdefault((run.curriculum, *point), set()).add(full.seed)
    pairs = [len(own & baselines[cell[1:]]) for cell, own in seeds.items() if cell[1:] in baselines]
    pairs = sorted(n for n in pairs if n)
    if not pairs:
        return []
    from analysis import prospect  # scipy: not needed to plan a sweep without a comparison

    spread = prospect.spread(Path(plan.launch.outputs), {cell[1] for cell in seeds})
    return prospect.in_words(spread, pairs[len(pairs) // 2], len(pairs))


def write_report(settings: config.LaunchConfig) -> None:
    """Write the sweep's report and print its verdict and path."""
    from analysis import report  # pandas and scipy: not needed to launch

    folder = SweepDir(settings.outputs, settings.sweep.name).root
    try:
        written = report.write(folder)
    except UserError as error:
        display.console.print(f"no report: {error}", soft_wrap=True)
        return
    display.print_verdict(written.verdict)
    display.console.print(f"report  {written.path}", soft_wrap=True)
    display.console.print(f"again   cl-bench report {shlex.quote(str(folder))}", soft_wrap=True)


def write_tuning_page(folder: TuneDir) -> Path:
    """Write the page of a search; returns its path."""
    from analysis.page import tune as page  # pandas: not needed to launch

    return page.write(folder)


def backend_name(launcher: DictConfig) -> str:
    """The backend that a `hydra/launcher` preset names. Raises UserError for a preset of another kind."""
    name = launcher.get("backend")
    if name is None:
        raise UserError(f"hydra/launcher: {launcher._target_} trains no grids; choose {' or '.join(backend.names())}")
    return str(name)


def train_composed(composed: DictConfig, launcher: str) -> bool:
    """Train the run of a composed config (a launch without -m) on a backend. Raises as prepare.launch."""
    run, settings = split(_plain(composed))
    loss = prepare.launch(launcher, [run], settings, is_sweep=False)[0]
    if loss is not None:
        display.console.print(f"validation loss {loss:.4f}, perplexity {math.exp(loss):.4g}")
    return True


def tune_composed(composed: DictConfig, launcher: str) -> bool:
    """Tune the curriculum of a composed config's run; returns whether one was found. Raises as prepare.launch."""
    plain = _plain(composed)
    tuning = tune_config.from_dict(plain.pop("tune"))
    run, settings = split(plain)
    return tune.tune(run, settings, tuning, functools.partial(prepare.launch, launcher), write_tuning_page)


def _plain(composed: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(composed, resolve=True)
    if not isinstance(plain, dict):
        raise UserError("the configuration is not a group of keys")
    return {str(k): v for k, v in plain.items()}
