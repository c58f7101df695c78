"""Results of a group of runs that differ only in their seed: steps, perplexity, stability, zero-shot, savings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.schema import Runs, perplexity, rows_of
from analysis.stats.crossings import saving
from analysis.stats.intervals import Estimate, estimate_savings
from analysis.stats.pairs import compare_runs
from cl_bench.errors import UserError
from cl_bench.runs import zeroshot_record
from cl_bench.runs.paths import RunDir, SweepDir
from cl_bench.runs.zeroshot_record import METRICS as ZEROSHOT
from cl_bench.runs.zeroshot_record import Result


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one cell."""

    name: str
    rows: pd.DataFrame
    """Of Runs.runs, one per seed."""

    @property
    def seeds(self) -> list[int]:
        """In ascending order."""
        return sorted(int(s) for s in self.rows["seed"])

    @property
    def setting(self) -> str:
        """The hash that comparable runs share (identity.setting)."""
        return str(self.rows["setting"].iloc[0])

    def of_seed(self, seed: int) -> pd.Series[Any] | None:
        """The run with this seed."""
        rows = self.rows[self.rows["seed"] == seed]
        return rows.iloc[0] if len(rows) else None


@dataclasses.dataclass(frozen=True)
class Saved:
    """Savings of a group against a baseline; None if not measured, with the reason."""

    tokens: Estimate | None = None
    time: Estimate | None = None
    why_not: str = ""
    at_least: bool = False
    """Whether the true saving may be larger, since only a few saves were evaluated."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The end of one run."""

    run_id: str
    seed: int
    state: str
    step: int
    planned_steps: int | None
    last_ppl: float | None


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """A task's metric over the finished runs, at their last step."""

    metric: str
    mean: float
    lowest: float
    highest: float
    seeds: int
    of: int
    """Finished runs."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The settings of a group."""

    batch: int
    lr: float
    shape: str
    precision: str
    parameters: int
    token_budget: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """The results of a group of runs."""

    cell: str
    runs: tuple[RunResult, ...]
    final_ppl: float | None
    """Geometric mean over the finished seeds; None if none finished."""
    final_ppl_lowest: float | None
    final_ppl_highest: float | None
    final_ppl_seeds: int
    diverged: int
    max_loss_ratio: float | None
    steps_above_1_2: int
    steps_above_1_5: int
    steps: int
    zeroshot: Mapping[str, ZeroShot | None]
    """By task."""
    configuration: Configuration
    saved: Saved | None = None
    """Against the small baseline, if there is one."""
    against: str = ""
    """The name of that baseline."""


def groups(runs: Runs) -> list[Group]:
    """The sweep's cells, in its order. A name that several share is extended by their settings."""
    keys = ["cell", "variant", "curriculum", "global_batch_size", "lr", "setting"]
    parts = [rows for _, rows in runs.runs.groupby(keys, sort=False, dropna=False)]
    names = [str(rows["cell"].iloc[0]) for rows in parts]
    result = []
    for name, rows in zip(names, parts, strict=True):
        first = rows.iloc[0]
        if names.count(name) > 1:
            details = (first["variant"], f"b{first['global_batch_size']}", f"lr{first['lr']:g}", first["curriculum"])
            name = f"{name} ({', '.join(str(d) for d in details if d)})"
        result.append(Group(name, rows))
    return result


def measure(runs: Runs, group: Group, stability: pd.DataFrame, configuration: Configuration) -> Measured:
    """The results of the group's runs, and figures over its finished seeds."""
    rows, stable = group.rows, stability[stability["run_id"].isin(group.rows["run_id"])]
    finals = rows.loc[rows["state"] == "DONE", "final_loss"].to_numpy(dtype=float)
    finals = finals[np.isfinite(finals)]
    top = float(stable["max_loss_ratio"].max())
    return Measured(
        cell=group.name,
        runs=tuple(
            RunResult(
                str(r["run_id"]),
                int(r["seed"]),
                str(r["state"]),
                int(r["last_step"]),
                int(r["planned_steps"]) or None,
                float(r["final_ppl"]) if math.isfinite(r["final_ppl"]) else None,
            )
            for r in rows_of(rows.sort_values("seed"))
        ),
        final_ppl=_exp(finals.mean()) if len(finals) else None,
        final_ppl_lowest=_exp(finals.min()) if len(finals) else None,
        final_ppl_highest=_exp(finals.max()) if len(finals) else None,
        final_ppl_seeds=len(finals),
        diverged=int(stable["diverged"].sum()),
        max_loss_ratio=top if math.isfinite(top) else None,
        steps_above_1_2=int(stable["steps_above_1_2"].sum()),
        steps_above_1_5=int(stable["steps_above_1_5"].sum()),
        steps=int(stable["steps"].sum()),
        zeroshot={task: _zeroshot_over_seeds(runs, group, task) for task in ZEROSHOT},
        configuration=configuration,
    )


def _exp(loss: float) -> float | None:
    value = perplexity(loss)
    return value if math.isfinite(value) else None


# --- savings ----------------------------------------------------------------------------------------------------------


def saved_at_validation(runs: Runs, group: Group, baseline: Group) -> Saved:
    """Savings against the baseline of the same seed, at its final validation perplexity."""
    tokens, seconds = [], []
    for seed in group.seeds:
        ours, theirs = group.of_seed(seed), baseline.of_seed(seed)
        if ours is None or theirs is None:
            return Saved(why_not=f"{baseline.name} has no seed {seed}")
        pair = compare_runs(runs, str(ours["run_id"]), str(theirs["run_id"]))
        if not pair.reached:
            note = pair.note.replace(str(ours["state"]), str(ours["state"]).lower())
            note = note.replace(str(theirs["state"]), str(theirs["state"]).lower())
            return Saved(why_not=_in_words(note, group, baseline, seed))
        tokens.append(pair.plain_saving("token"))
        seconds.append(pair.plain_saving("time"))
    return Saved(_estimate(tokens), _estimate(seconds), why_not=_nothing(tokens, seconds))


def _in_words(note: str, group: Group, baseline: Group, seed: int) -> str:
    """A comparison's note with the cells' names for 'the baseline' and 'the run'."""
    of_seed = f" (seed {seed})" if len(group.seeds) > 1 else ""
    if note.startswith("the baseline"):
        return note.replace("the baseline", baseline.name, 1) + of_seed
    return f"{group.name}: {note or 'no figure'}{of_seed}"


def _nothing(*figures: Sequence[float]) -> str:
    return "" if all(math.isfinite(f) for values in figures for f in values) else "no training time recorded"


def _estimate(savings: Sequence[float]) -> Estimate | None:
    estimate = estimate_savings(savings)
    return None if estimate.point is None else estimate


# --- zero-shot --------------------------------------------------------------------------------------------------------


def zeroshot(runs: Runs, run_id: str) -> dict[str, list[Result]]:
    """A run's zero-shot results per task, by step; empty for a run without any, and for a damaged file."""
    try:
        results = zeroshot_record.read(RunDir(SweepDir.at(runs.folder).outputs, run_id))
    except (OSError, UserError):
        results = []
    valid = sorted((r for r in results if math.isfinite(r.value) and r.step >= 0), key=lambda r: r.step)
    return {task: [r for r in valid if r.task == task] for task in ZEROSHOT}


def _zeroshot_over_seeds(runs: Runs, group: Group, task: str) -> ZeroShot | None:
    """Lowest and highest of the finished runs' results at their last step, if all have the same measurement."""
    done = group.rows[group.rows["state"] == "DONE"]
    last = [e for _, r in done.iterrows() if (e := _at_end(runs, r, task)) is not None]
    if not last or len({e.measurement for e in last}) > 1:
        return None
    values = [e.value for e in last]
    return ZeroShot(ZEROSHOT[task], float(np.mean(values)), min(values), max(values), len(values), len(done))


def _at_end(runs: Runs, row: pd.Series[Any], task: str) -> Result | None:
    """The newest result of a run's last step."""
    at_end = [e for e in zeroshot(runs, str(row["run_id"]))[task] if e.step == int(row["last_step"])]
    return at_end[-1] if at_end else None


def saved_at_zeroshot(runs: Runs, group: Group, baseline: Group) -> Saved:
    """Savings up to the first evaluated save that is as good as the finished baseline of its seed in both tasks."""
    tokens, seconds = [], []
    for seed in group.seeds:
        ours, theirs = group.of_seed(seed), baseline.of_seed(seed)
        if ours is None or theirs is None:
            return Saved(why_not=f"{baseline.name} has no seed {seed}")
        if theirs["state"] != "DONE":
            return Saved(
                why_not=f"{baseline.name} {'diverged' if theirs['state'] == 'DIVERGED' else 'is not finished'}"
            )
        goals = {task: _at_end(runs, theirs, task) for task in ZEROSHOT}
        missing = [task for task, goal in goals.items() if goal is None]
        if missing:
            return Saved(why_not=f"the end of {baseline.name} has no zero-shot result of {' and '.join(missing)}")
        step = _first_as_good(zeroshot(runs, str(ours["run_id"])), {t: g for t, g in goals.items() if g is not None})
        if step is None:
            return Saved(why_not=f"no evaluated save of {group.name} is as good as {baseline.name} in both tasks")
        train = runs.train[(runs.train["run_id"] == ours["run_id"]) & (runs.train["step"] == step)]
        if train.empty:
            return Saved(why_not=f"{group.name} has no record of its evaluated step {step}")
        tokens.append(saving(float(train["consumed_tokens"].iloc[-1]), float(theirs["consumed_tokens"])))
        seconds.append(saving(float(train["train_seconds"].iloc[-1]), float(theirs["train_seconds"])))
    measured = [[math.nan if s is None else s for s in values] for values in (tokens, seconds)]
    return Saved(_estimate(measured[0]), _estimate(measured[1]), why_not=_nothing(*measured), at_least=True)


def _first_as_good(ours: dict[str, list[Result]], goals: dict[str, Result]) -> int | None:
    """The first step at which every task's result, measured as the goal was, is at least as good."""
    good = []
    for task, goal in goals.items():
        alike = [e for e in ours[task] if e.measurement == goal.measurement]
        sign = -1 if ZEROSHOT[task] == "word_ppl" else 1
        good.append({e.step for e in alike if sign * e.value >= sign * goal.value})
    return min(set.intersection(*good), default=None)
