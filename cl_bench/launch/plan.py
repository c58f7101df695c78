"""Planning of a grid: its runs, their lengths and costs, and which of them are trained already.

Imports neither torch nor deepspeed, to be fast on login nodes.
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

import yaml

from cl_bench import schedules
from cl_bench.config import DataConfig, LaunchConfig, RunConfig
from cl_bench.config.schema import ConfigError, to_dict
from cl_bench.data import cache, sources, unigram
from cl_bench.data.text import Progress, TextCorpus
from cl_bench.errors import UserError
from cl_bench.launch import estimate, observe
from cl_bench.launch.backend import Observed
from cl_bench.launch.grid import Plan, Planned, State
from cl_bench.runs import identity, status
from cl_bench.runs.paths import RunDir, SweepDir, manifest_runs, write_atomic


class Corpora:
    """Checks and hashes each corpus of a grid once."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._corpora: dict[DataConfig, sources.Corpus] = {}
        self._missing: dict[DataConfig, sources.AssumedData] = {}
        self._progress = progress

    def get(self, config: DataConfig) -> sources.Corpus:
        """The corpus behind a data configuration. Raises ConfigError."""
        if config not in self._corpora:
            self._corpora[config] = sources.inspect(config, self._progress)
        return self._corpora[config]

    def without(self, config: DataConfig) -> sources.AssumedData:
        """Placeholder for missing data in a dry run's plan."""
        return self._missing.setdefault(config, sources.AssumedData(config))

    def describe(self) -> tuple[str, ...]:
        """Source and sizes of each corpus."""
        return tuple(data.describe() for data in (*self._corpora.values(), *self._missing.values()))


def build(configs: Sequence[RunConfig], launch: LaunchConfig, corpora: Corpora) -> Plan:
    """Resolve, check and estimate every run of a grid. Raises ConfigError before anything is written."""
    resolved: dict[str, tuple[RunConfig, RunConfig]] = {}
    ids = []
    # Absolute paths: a job may start in another directory, or resume later.
    for config in (dataclasses.replace(c, data=c.data.absolute()) for c in configs):
        text: sources.Corpus | sources.AssumedData
        if config.data.problem:
            if not launch.dry_run:
                raise ConfigError(config.data.problem)
            text = corpora.without(config.data)
        else:
            text = corpora.get(config.data)
            sources.check_length(text, config.seqlen)
        full = identity.resolve(config, vocab_size=text.vocab_size, fingerprint=text.fingerprint)
        schedules.LRSchedule.from_config(full)
        ids.append(identity.run_id(full))
        resolved.setdefault(ids[-1], (config, full))
    names = identity.curriculum_names([config.curriculum for config, _ in resolved.values()])
    variants = identity.variants([full for _, full in resolved.values()])
    rates = estimate.Rates(launch.outputs)
    states = states_of([RunDir(launch.outputs, run_id) for run_id in resolved])
    runs = []
    for (run_id, (config, full)), variant, state in zip(resolved.items(), variants, states, strict=True):
        extent = schedules.extent(full)
        flops = estimate.training_flops(full, extent)
        runs.append(
            Planned(
                config=full,
                run_id=run_id,
                curriculum=config.method.replace(config.curriculum.name, names[config.curriculum], 1),
                shape=schedules.describe(config),
                variant=variant,
                state=state,
                extent=extent,
                parameters=full.model.n_parameters(),
                flops=flops,
                hours=rates.hours(full, flops),
                memory=estimate.memory(full),
            )
        )
    return Plan(launch, tuple(runs), tuple(ids), corpora.describe(), rates.basis)


def state_of(run: RunDir) -> State:
    """State of a run for a launch. Raises UserError if it depends on a queue that does not answer."""
    return states_of([run])[0]


def states_of(runs: Sequence[RunDir]) -> list[State]:
    """States of runs for a launch; raises as `state_of`."""
    return [_state(seen) for seen in observe.observe(runs)]


def _state(seen: Observed) -> State:
    if seen.unsure:
        raise UserError(
            f"{seen.run.run_id} was submitted to {seen.queue} as job {seen.job_id}, and {seen.queue} does not answer "
            f"({seen.unsure}); launch again later"
        )
    if seen.is_queued:
        return "queued"
    states: dict[status.State, State] = {
        "DONE": "done",
        "DIVERGED": "diverged",
        "RUNNING": "running",
        "FAILED": "failed",
        "PENDING": "new",
    }
    return states.get(seen.status.state, "interrupted")


def write_csv(plan: Plan) -> None:
    """Write `plan.csv`: one row per run."""
    rows = [
        {
            "run_id": run.run_id,
            "cell": run.cell,
            "role": run.config.role,
            "state": run.state,
            "steps": run.extent.steps,
            "tokens": run.extent.tokens,
            "distinct_seqlens": len(run.extent.lengths),
            "parameters": run.parameters,
            "flops": f"{run.flops:.4g}",
            "hours": f"{run.hours:.4g}",
        }
        for run in plan.runs
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(SweepDir(plan.launch.outputs, plan.launch.sweep.name).plan, out.getvalue())


def write_configs(plan: Plan) -> None:
    """Write config.yaml of each missing run; a job reads nothing else.

    Rewriting an existing file can only change resources, tracking or checkpoint settings: the folder's name identifies
    the experiment.
    """
    for planned in plan.to_train:
        run = RunDir(plan.launch.outputs, planned.run_id)
        write_atomic(run.config, yaml.safe_dump(to_dict(planned.config), sort_keys=False))


def write_manifest(plan: Plan) -> int:
    """Write the sweep's manifest: runs, cells, roles. Returns the number of earlier runs that it drops."""
    sweep = SweepDir(plan.launch.outputs, plan.launch.sweep.name)
    manifest = {
        "name": plan.launch.sweep.name,
        "question": plan.launch.sweep.question,
        "launched": time.time(),
        "runs": [
            {
                "run_id": r.run_id,
                "cell": r.cell,
                "role": r.config.role,
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
    """Tokenize every text that a missing run needs, before the first of them starts, and measure its unigram level.

    Raises ConfigError for a text with fewer tokens than one block.
    """
    outputs = plan.launch.outputs
    measured: set[str] = set()
    for data, seqlen in dict.fromkeys((run.config.data, run.config.seqlen) for run in plan.to_train):
        corpus = corpora.get(dataclasses.replace(data, fingerprint=None))
        if isinstance(corpus, TextCorpus):
            cache.prepare(corpus, outputs, progress)
            mixture = sources.mixture(data, outputs)
            sources.check_length(mixture, seqlen)
        else:
            mixture = corpus.mixture
        fingerprint = str(data.fingerprint)
        if fingerprint not in measured:
            measured.add(fingerprint)
            unigram.ensure(mixture, outputs, fingerprint)


def check_writable(outputs: str) -> None:
    """Raise ConfigError if `outputs` is not writable."""
    path = Path(outputs)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"outputs = {outputs}: cannot be created ({error.strerror}); choose another folder") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"outputs = {outputs}: not writable; choose another folder or fix its permissions")
