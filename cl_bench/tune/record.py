"""Files of a search: its record, and the resulting curriculum as a preset and as a sweep."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError, to_dict
from cl_bench.config.tune import TuneConfig
from cl_bench.runs import identity, search_record
from cl_bench.runs.paths import TuneDir, write_atomic
from cl_bench.runs.search_record import Cost, Outcome, Probe, SearchRecord
from cl_bench.tune.probe import Space

_NOT_IN_SWEEP = ("curriculum", "cell", "resources", "tracking", "checkpoint")


class Search:
    """The record of one search, rewritten after every probe."""

    def __init__(self, folder: TuneDir, settings: Mapping[str, Any], run_tokens: int, run_flops: float) -> None:
        """Raises UserError if the folder holds a damaged record, or a search with other settings."""
        self.folder = folder
        self.probes: dict[str, Probe] = {}
        self._record = SearchRecord(folder.name, settings, run_tokens, run_flops)
        self._earlier = self._read_earlier()

    def _read_earlier(self) -> dict[str, Probe]:
        """Probes of an interrupted launch of this search, kept on record until this launch reaches them."""
        if not self.folder.search.exists():
            return {}
        earlier = search_record.read(self.folder)
        before, now = earlier.settings, self._record.settings
        key = next((k for k in {**before, **now} if before.get(k) != now.get(k)), None)
        if key is not None:
            raise ConfigError(
                f"tune.name = {self.folder.name}: {self.folder.search} belongs to a search with other settings ({key}: "
                f"{before.get(key)}, now {now.get(key)}); choose another tune.name; finished probes are reused"
            )
        return {probe.run_id: probe for probe in earlier.probes}

    @property
    def run_tokens(self) -> int:
        """Token budget of one whole run at full length."""
        return self._record.run_tokens

    @property
    def cost(self) -> Cost:
        """Cost of the probes of this launch."""
        return self._record.cost_of(tuple(self.probes.values()))

    def add(self, probe: Probe) -> None:
        """Record a probe."""
        self.probes[probe.run_id] = probe
        self._earlier.pop(probe.run_id, None)
        self.write()

    def write(self, outcome: Outcome | None = None) -> None:
        """Write the record; without an outcome the search is unfinished."""
        probes = (*self.probes.values(), *self._earlier.values())
        record = dataclasses.replace(self._record, probes=probes, outcome=outcome, cost=self.cost)
        search_record.write(self.folder, record)


def settings(candidate: RunConfig, tuning: TuneConfig, space: Space) -> dict[str, Any]:
    """All settings that determine a search, flat, as JSON values.

    `candidate`: any of its whole runs, resolved.
    """
    run = identity.flatten(identity.identity(candidate))
    run = {k: v for k, v in run.items() if k not in ("curriculum.min_difficulty", "curriculum.duration")}
    how = {f"tune.{k}": v for k, v in to_dict(tuning).items() if k not in ("name", "low", "high", "resolution")}
    flat = run | how | {"tune.starts": list(space.starts), "T": list(space.durations)}
    plain: dict[str, Any] = json.loads(json.dumps(flat))
    return plain


def overrides(run: RunConfig) -> list[str]:
    """The curriculum of a run as command-line overrides."""
    values = _preset(run)
    del values["name"], values["schedule"]
    return [f"curriculum={run.curriculum.schedule}", *(f"curriculum.{key}={value}" for key, value in values.items())]


def write_presets(folder: TuneDir, run: RunConfig, sentences: Sequence[str]) -> None:
    """Write the curriculum of `run` as a preset and as a sweep against the baseline."""
    lr = identity.short_float(run.optim.lr)
    setting = f"{run.model.name}, batch {run.global_batch_size}, LR {lr}, {run.token_budget:,} tokens, seed {run.seed}"
    head = _comment(f"{' '.join(sentences)} Found by `cl-bench tune` for {setting}.")
    write_atomic(folder.preset, head + yaml.safe_dump(_preset(run), sort_keys=False))
    absolute = dataclasses.replace(run, data=run.data.absolute())
    common = {k: v for k, v in to_dict(absolute).items() if k not in _NOT_IN_SWEEP}
    common["data"].pop("fingerprint")
    question = "does the tuned curriculum save tokens?"
    cells = {"baseline": ["curriculum=baseline"], folder.name: overrides(run)}
    sweep = {"sweep": {"name": folder.name, "question": question}, **common, "hydra": {"sweeper": {"cells": cells}}}
    write_atomic(folder.sweep, head + yaml.safe_dump(sweep, sort_keys=False))


def _comment(text: str) -> str:
    return textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ", break_long_words=False) + "\n"


def _preset(run: RunConfig) -> dict[str, Any]:
    cur = run.curriculum
    values = {
        "name": cur.name,
        "schedule": cur.schedule,
        "min_difficulty": cur.min_difficulty,
        "max_difficulty": cur.max_difficulty,
        "difficulty_step": cur.difficulty_step,
        "duration": int(cur.duration or 0),
        "duration_unit": cur.duration_unit,
        "root_degree": cur.root_degree if cur.schedule == "fixed_root" else None,
        "mode": None if cur.mode == "truncate" else cur.mode,
    }
    return {key: value for key, value in values.items() if value is not None}
