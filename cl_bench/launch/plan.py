"""The plan of a grid: which runs, how long each is, what it costs, and which of them are there already.

Imports neither torch nor deepspeed: a plan is made where a sweep is launched, often a login node.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml

from cl_bench import schedules
from cl_bench.config import DataConfig, LaunchConfig, RunConfig
from cl_bench.config.schema import ConfigError, to_dict
from cl_bench.data import cache, sources
from cl_bench.data.text import Progress, TextCorpus
from cl_bench.errors import UserError
from cl_bench.launch import estimate, memory, observe
from cl_bench.runs import identity, status
from cl_bench.runs.identity import short_float
from cl_bench.runs.paths import RunDir, SweepDir, manifest_runs, write_atomic

State = Literal["new", "done", "diverged", "running", "queued", "failed", "interrupted"]
Role = Literal["baseline", "curriculum"]


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a grid."""

    config: RunConfig
    """Resolved."""
    run_id: str
    curriculum: str
    """The curriculum's name; where the grid holds several of one name, with what tells them apart."""
    shape: str
    """The curriculum in words."""
    variant: str
    """What else differs within the grid, e.g. 'model.name=gpt2_345m'; usually empty."""
    state: State
    extent: schedules.Extent
    parameters: int
    flops: float
    hours: float
    memory: memory.Memory
    """Estimate for one rank's device."""

    @property
    def role(self) -> Role:
        """Whether others are compared with this run."""
        return "baseline" if self.config.is_baseline else "curriculum"

    @property
    def cell(self) -> str:
        """Name of the group of runs that differ in their seed alone: the sweep's own where it names its cells."""
        if self.config.cell:
            return self.config.cell
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.curriculum} b{self.config.global_batch_size} lr{short_float(self.config.optim.lr)}{variant}"

    @property
    def to_train(self) -> bool:
        """Whether a launch starts it."""
        return self.state in ("new", "failed", "interrupted")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole grid, checked."""

    launch: LaunchConfig
    runs: tuple[Planned, ...]
    asked: tuple[str, ...]
    """run_id of every job of the grid, in its order; a run that several jobs describe stands here several times."""
    texts: tuple[str, ...]
    """Each corpus of the grid in words: source and sizes."""
    hours_basis: str
    """Where the estimate of hours comes from."""

    @property
    def duplicates(self) -> int:
        """Jobs of the grid that describe a run which is in it already."""
        return len(self.asked) - len(self.runs)

    @property
    def hours(self) -> float:
        """Estimated hours until all missing runs are trained, `launch.jobs` at a time."""
        return sum(r.hours for r in self.runs if r.to_train) / min(self.launch.jobs, max(1, len(self.runs)))


class Corpora:
    """Checks and hashes each corpus of a grid once."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._known: dict[DataConfig, sources.Corpus] = {}
        self._missing: dict[DataConfig, sources.AssumedData] = {}
        self._progress = progress

    def get(self, config: DataConfig) -> sources.Corpus:
        """The corpus behind a data configuration. Raises ConfigError."""
        if config not in self._known:
            self._known[config] = sources.inspect(config, self._progress)
        return self._known[config]

    def without(self, config: DataConfig) -> sources.AssumedData:
        """What stands in for data that is not given, in a plan."""
        return self._missing.setdefault(config, sources.AssumedData(config))

    def in_words(self) -> tuple[str, ...]:
        """Source and sizes of each corpus."""
        return tuple(data.in_words() for data in (*self._known.values(), *self._missing.values()))


def build(configs: Sequence[RunConfig], launch: LaunchConfig, corpora: Corpora) -> Plan:
    """Resolve, check and price every run of a grid. Raises ConfigError before anything is written."""
    resolved: dict[str, tuple[RunConfig, RunConfig]] = {}
    ids = []
    for asked in configs:
        # A job may start in another directory, and a resumed one later.
        config = dataclasses.replace(asked, data=asked.data.absolute())
        text: sources.Corpus | sources.AssumedData
        if config.data.not_given:
            if not launch.dry_run:
                raise ConfigError(config.data.not_given)
            text = corpora.without(config.data)
        else:
            text = corpora.get(config.data)
            sources.check_length(text, config.seqlen)
        full = identity.resolve(config, vocab_size=text.vocab_size, fingerprint=text.fingerprint)
        schedules.LRSchedule.from_config(full)
        ids.append(identity.run_id(full))
        resolved.setdefault(ids[-1], (config, full))
    names = identity.curriculum_names([asked.curriculum for asked, _ in resolved.values()])
    variants = identity.variants([full for _, full in resolved.values()])
    rates = estimate.Rates(launch.outputs)
    found = states_of([RunDir(launch.outputs, run_id) for run_id in resolved])
    runs = []
    for (run_id, (asked, full)), variant, state in zip(resolved.items(), variants, found, strict=True):
        extent = schedules.extent(full)
        flops = estimate.training_flops(full, extent)
        runs.append(
            Planned(
                config=full,
                run_id=run_id,
                curriculum=asked.method.replace(asked.curriculum.name, names[asked.curriculum], 1),
                shape=schedules.describe(asked),
                variant=variant,
                state=state,
                extent=extent,
                parameters=full.model.n_parameters(),
                flops=flops,
                hours=rates.hours(full, flops),
                memory=memory.estimate(full),
            )
        )
    return Plan(launch, tuple(runs), tuple(ids), corpora.in_words(), rates.basis)


def state_of(run: RunDir) -> State:
    """Where one run stands. Raises UserError when that hangs on a queue that does not answer."""
    return states_of([run])[0]


def states_of(runs: Sequence[RunDir]) -> list[State]:
    """Where runs stand, for a launch. Raises UserError when that hangs on a queue that does not answer."""
    return [_state(seen) for seen in observe.observe(runs)]


def _state(seen: observe.Observed) -> State:
    if seen.unsure:
        raise UserError(
            f"{seen.run.run_id} was submitted to Slurm as job {seen.job_id}, and Slurm does not say whether it waits "
            f"({seen.unsure}); launch again when it does"
        )
    if seen.is_queued:
        return "queued"
    known: dict[status.State, State] = {
        "DONE": "done",
        "DIVERGED": "diverged",
        "RUNNING": "running",
        "FAILED": "failed",
        "PENDING": "new",
    }
    return known.get(seen.status.state, "interrupted")


def write_csv(plan: Plan) -> None:
    """`plan.csv`: one row a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "run_id",
            "cell",
            "role",
            "state",
            "steps",
            "tokens",
            "distinct_seqlens",
            "parameters",
            "flops",
            "hours",
        ]
    )
    for run in plan.runs:
        writer.writerow(
            [
                run.run_id,
                run.cell,
                run.role,
                run.state,
                run.extent.steps,
                run.extent.tokens,
                len(run.extent.lengths),
                run.parameters,
                f"{run.flops:.4g}",
                f"{run.hours:.4g}",
            ]
        )
    write_atomic(SweepDir(plan.launch.outputs, plan.launch.sweep.name).plan, out.getvalue())


def write_configs(plan: Plan) -> None:
    """Write the config.yaml of each run that is to be trained; a job reads nothing else.

    Written again only to go on with a run under other resources, tracking or checkpoint settings: the experiment is
    the folder's name.
    """
    for planned in plan.runs:
        run = RunDir(plan.launch.outputs, planned.run_id)
        if planned.to_train:
            write_atomic(run.config, yaml.safe_dump(to_dict(planned.config), sort_keys=False))


def write_manifest(plan: Plan) -> int:
    """Write the sweep's manifest: runs, cells, roles. Returns how many runs of an earlier grid it leaves out."""
    sweep = SweepDir(plan.launch.outputs, plan.launch.sweep.name)
    manifest = {
        "name": plan.launch.sweep.name,
        "question": plan.launch.sweep.question,
        "launched": time.time(),
        "runs": [
            {
                "run_id": r.run_id,
                "cell": r.cell,
                "role": r.role,
                "curriculum": r.curriculum,
                "shape": r.shape,
                "variant": r.variant,
                "global_batch_size": r.config.global_batch_size,
                "lr": r.config.optim.lr,
                "seed": r.config.seed,
            }
            for r in plan.runs
        ],
    }
    before: set[str] = set()
    if sweep.manifest.exists():
        with contextlib.suppress(UserError):  # a damaged manifest is replaced
            before = set(manifest_runs(sweep))
    write_atomic(sweep.manifest, json.dumps(manifest, indent=1))
    return len(before - {r.run_id for r in plan.runs})


def prepare_data(plan: Plan, corpora: Corpora, progress: Progress | None = None) -> None:
    """Tokenise every text that a missing run needs, before the first of them starts.

    Raises ConfigError when it turns out to hold fewer tokens than a block.
    """
    for run in (r for r in plan.runs if r.to_train):
        text = corpora.get(dataclasses.replace(run.config.data, fingerprint=None))
        if isinstance(text, TextCorpus):
            cache.prepare(text, plan.launch.outputs, progress)
            sources.check_length(sources.mixture(run.config.data, plan.launch.outputs), run.config.seqlen)


def check_writable(outputs: str) -> None:
    """Raise ConfigError when nothing can be written below `outputs`."""
    path = Path(outputs)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"outputs = {outputs}: cannot be made ({error.strerror}); choose another folder") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"outputs = {outputs}: not writable; choose another folder or mend its permissions")
