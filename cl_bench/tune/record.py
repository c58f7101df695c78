"""What a search leaves behind: its probes and outcome as JSON, and what it found as a preset and as a sweep."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError, to_dict
from cl_bench.config.tune import TuneConfig
from cl_bench.runs import identity
from cl_bench.runs.paths import TuneDir, write_atomic
from cl_bench.tune.probe import Judged, Space
from cl_bench.tune.search import Found, Purpose

_NOT_OF_THE_RUN = ("curriculum", "cell", "resources", "tracking", "checkpoint")


@dataclasses.dataclass(frozen=True)
class Probe:
    """One probe as it is recorded."""

    purpose: Purpose
    """Which part of the search asked for it."""
    start: int
    duration: int
    """T in steps."""
    run_id: str
    judged: Judged
    beginning_tokens: int
    """Where the very beginning ends, in consumed tokens."""
    tokens: int
    train_seconds: float
    """Seconds of training steps."""
    eval_seconds: float
    flops: float

    @property
    def begins_steady(self) -> bool:
        """Whether the perplexity was steady at the very beginning."""
        return self.judged.begins_steady

    @property
    def steady(self) -> bool:
        """Whether it was steady throughout."""
        return self.judged.steady


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the probes of a search took, and what a whole run at full length takes."""

    probes: int
    tokens: int
    train_seconds: float
    eval_seconds: float
    share_of_tokens: float
    share_of_flops: float


class Search:
    """The record of one search, written again after every probe."""

    def __init__(self, folder: TuneDir, settings: dict[str, Any], run_tokens: int, run_flops: float) -> None:
        """Raises ConfigError where the folder holds a search with other settings."""
        self.folder = folder
        self.settings = settings
        self.run_tokens, self.run_flops = run_tokens, run_flops
        self.probes: dict[str, Probe] = {}
        self._earlier = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        """Probes of an earlier, interrupted launch of this search; they stay on record until it is as far again."""
        if not self.folder.search.exists():
            return {}
        where = f"tune.name = {self.folder.name}: {self.folder.search}"
        try:
            known = json.loads(self.folder.search.read_text())
            before: dict[str, Any] = known["settings"]
            probes: dict[str, dict[str, Any]] = {p["run_id"]: p for p in known["probes"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where} is damaged ({error}); delete it: its probes are not trained again") from None
        differs = next((k for k in {**before, **self.settings} if before.get(k) != self.settings.get(k)), None)
        if differs is not None:
            raise ConfigError(
                f"{where} is of a search with other settings ({differs}: {before.get(differs)}, now "
                f"{self.settings.get(differs)}); choose another tune.name; no probe is trained twice"
            )
        return probes

    def add(self, probe: Probe) -> None:
        """Record a probe."""
        self.probes[probe.run_id] = probe
        self._earlier.pop(probe.run_id, None)
        self.write(None)

    def cost(self) -> Cost:
        """What the probes took."""
        probes = self.probes.values()
        tokens, flops = sum(p.tokens for p in probes), sum(p.flops for p in probes)
        return Cost(
            probes=len(probes),
            tokens=tokens,
            train_seconds=sum(p.train_seconds for p in probes),
            eval_seconds=sum(p.eval_seconds for p in probes),
            share_of_tokens=tokens / self.run_tokens,
            share_of_flops=flops / self.run_flops,
        )

    def write(self, found: Found | None, words: Sequence[str] = ()) -> None:
        """Write the record; without `found` the search goes on."""
        plain = {
            "name": self.folder.name,
            "settings": self.settings,
            "run": {"tokens": self.run_tokens, "flops": self.run_flops},
            "probes": [_plain(p) for p in self.probes.values()] + list(self._earlier.values()),
            "cost": dataclasses.asdict(self.cost()),
            "outcome": dataclasses.asdict(found) | {"words": list(words)} if found else None,
        }
        write_atomic(self.folder.search, json.dumps(plain, indent=1, allow_nan=False))


def _plain(probe: Probe) -> dict[str, Any]:
    plain = dataclasses.asdict(probe)
    judged: dict[str, Any] = plain.pop("judged")
    if math.isinf(judged["worst_ratio"]):
        judged["worst_ratio"] = None  # JSON has no infinity
    return plain | judged | {"words": probe.judged.in_words()}


def settings(candidate: RunConfig, asked: TuneConfig, space: Space) -> dict[str, Any]:
    """All that decides how a search goes, flat; `candidate` is any one of its whole runs, resolved."""
    run = identity.flatten(identity.identity(candidate))
    run = {k: v for k, v in run.items() if k not in ("curriculum.min_difficulty", "curriculum.duration")}
    how = {f"tune.{k}": v for k, v in to_dict(asked).items() if k not in ("name", "low", "high", "resolution")}
    return run | how | {"tune.starts": list(space.starts), "T": list(space.durations)}


def overrides(found: RunConfig) -> list[str]:
    """The curriculum of a run as overrides on the command line."""
    cur = found.curriculum
    values = _preset(found)
    del values["name"], values["schedule"]
    return [f"curriculum={cur.schedule}", *(f"curriculum.{key}={value}" for key, value in values.items())]


def write_presets(folder: TuneDir, found: RunConfig, words: Sequence[str]) -> None:
    """Write the curriculum of `found` as a preset, and as a sweep that compares it with the baseline."""
    head = _comment(f"{' '.join(words)} Found by `cl-bench tune` for {_in_words(found)}.")
    write_atomic(folder.preset, head + yaml.safe_dump(_preset(found), sort_keys=False))
    from_anywhere = dataclasses.replace(found, data=found.data.absolute())
    run = {k: v for k, v in to_dict(from_anywhere).items() if k not in _NOT_OF_THE_RUN}
    run["data"].pop("fingerprint")
    question = "does the tuned curriculum save tokens?"
    cells = {"baseline": ["curriculum=baseline"], folder.name: overrides(found)}
    sweep = {"sweep": {"name": folder.name, "question": question}, **run, "hydra": {"sweeper": {"cells": cells}}}
    write_atomic(folder.sweep, head + yaml.safe_dump(sweep, sort_keys=False))


def _comment(words: str) -> str:
    return textwrap.fill(words, 110, initial_indent="# ", subsequent_indent="# ", break_long_words=False) + "\n"


def _preset(found: RunConfig) -> dict[str, Any]:
    cur = found.curriculum
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


def _in_words(run: RunConfig) -> str:
    lr = identity.short_float(run.optim.lr)
    return f"{run.model.name}, batch {run.global_batch_size}, LR {lr}, {run.token_budget:,} tokens, seed {run.seed}"
