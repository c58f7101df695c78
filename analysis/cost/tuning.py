"""Cost of tuning (`cl-bench tune`), and the runs that it is charged to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.schema import Runs
from cl_bench.config import RunConfig
from cl_bench.errors import UserError
from cl_bench.runs import identity, records
from cl_bench.runs.paths import RunDir, TuneDir

# Differences allowed within a setting (identity.setting), and the values that a search determines.
_FREE = ("global_batch_size", "seed", "optim.lr", "curriculum.min_difficulty", "curriculum.duration")


@dataclasses.dataclass(frozen=True)
class Search:
    """One search: its result, its settings, and the rank-hours of each probe."""

    name: str
    start: int | None
    """Start length found, in tokens."""
    duration: int | None
    """T found, in steps; None if the search is unfinished or found none."""
    settings: Mapping[str, Any]
    probe_hours: Mapping[str, float]
    """Rank-hours by the probe's run_id: training, rolled back or not, and the evaluations that it was judged on."""

    def matches(self, config: RunConfig) -> bool:
        """Whether a run uses the curriculum that this search found: same start and T, in the same setting."""
        curriculum = config.curriculum
        if self.duration is None or (curriculum.min_difficulty, curriculum.duration) != (self.start, self.duration):
            return False
        run = json.loads(json.dumps(identity.flatten(identity.identity(config))))
        # Keys that only one side has belong to another version of the tool.
        compared = [k for k in run if k in self.settings and k not in _FREE and not k.startswith("batch_warmup.")]
        return all(run[k] == self.settings[k] for k in compared)


@dataclasses.dataclass(frozen=True)
class Charges:
    """The searches that each run is charged for, with notes for the reader."""

    by_run: Mapping[str, tuple[Search, ...]] = dataclasses.field(default_factory=dict)
    """run_id -> searches."""
    notes: tuple[str, ...] = ()


def hours(searches: Iterable[Search]) -> float:
    """Rank-hours of some searches; a probe that several of them share was trained once."""
    probes: dict[str, float] = {}
    for search in searches:
        probes |= search.probe_hours
    return sum(probes.values())


def charges(runs: Runs, outputs: Path, named: Sequence[str] = ()) -> Charges:
    """Charge the searches of an outputs folder to the curriculum runs that use their results.

    A search that the user names is always charged: to the runs that use its result, else to all curriculum runs of its
    schedule, else to all curriculum runs. Raises UserError if a named search is missing or damaged.
    """
    curricula = [str(r) for r in runs.runs.loc[runs.runs["role"] == "curriculum", "run_id"]]
    by_run: dict[str, list[Search]] = {}
    notes: list[str] = []
    unused: list[str] = []
    _check_names(outputs, named)
    for name in _names(outputs):
        try:
            search = _read(TuneDir(outputs, name))
        except UserError as error:
            if name in named:
                raise
            notes.append(str(error))
            continue
        users = [r for r in curricula if r in runs.configs and search.matches(runs.configs[r])]
        if name in named:
            users = users or _same_schedule(runs, curricula, search) or curricula
        elif not users:
            unused.append(name)
        for run_id in users:
            by_run.setdefault(run_id, []).append(search)
        if users:
            methods = dict.fromkeys(runs.runs.set_index("run_id").loc[users, "curriculum"].astype(str))
            notes.append(f"Tuning {name}: {len(search.probe_hours)} probes, charged to {', '.join(methods)}.")
    if unused and curricula:
        notes.append(
            f"Not counted: {'the searches' if len(unused) > 1 else 'the search'} {', '.join(unused)}, because no run "
            "here has the start length, T and setting that came out; --tuning NAME counts one all the same."
        )
    return Charges({run_id: tuple(searches) for run_id, searches in by_run.items()}, tuple(notes))


def _names(outputs: Path) -> list[str]:
    return sorted(p.parent.name for p in (outputs / "tune").glob("*/search.json"))


def _check_names(outputs: Path, named: Sequence[str]) -> None:
    existing = _names(outputs)
    for name in named:
        if name not in existing:
            listed = ", ".join(existing) or "none"
            raise UserError(f"--tuning {name}: not a search in {outputs / 'tune'}; existing: {listed}")


def _same_schedule(runs: Runs, curricula: Sequence[str], search: Search) -> list[str]:
    schedule = search.settings.get("curriculum.schedule")
    return [r for r in curricula if r in runs.configs and runs.configs[r].curriculum.schedule == schedule]


def _read(folder: TuneDir) -> Search:
    try:
        plain = json.loads(folder.search.read_text(encoding="utf-8"))
        outcome = plain["outcome"] or {}
        probes = {str(p["run_id"]): _probe_hours(folder.outputs, p) for p in plain["probes"]}
        return Search(folder.name, outcome.get("start"), outcome.get("duration"), dict(plain["settings"]), probes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder.search}: not the record of a search ({type(error).__name__}: {error}); tune again to rewrite it"
        ) from None


def _probe_hours(outputs: Path, probe: Mapping[str, Any]) -> float:
    """From the probe's own record; if that is gone, from the search's, on one rank."""
    attempts = records.read(RunDir(outputs, str(probe["run_id"]))).attempts
    if len(attempts):
        seconds = (attempts["trained_seconds"] + attempts["eval_seconds"]) * attempts["world_size"]
        return float(seconds.sum()) / 3600
    return (float(probe["train_seconds"]) + float(probe["eval_seconds"])) / 3600
