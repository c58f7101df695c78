"""Conversion of W&B runs, from the service or from files, to the tidy schema.

Runs of cl_bench (cl_bench/training/wandb_mirror.py) carry their whole configuration and are converted like their local
records: the attempts of a run become one curve, in which an attempt supersedes all rows after the step it restored.
Other runs are converted by the names of their metrics and config keys.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.readers import checks, naming, tidy
from analysis.readers.outputs import OwnRun, gather
from analysis.schema import NoRunsError, Runs
from cl_bench import config
from cl_bench.errors import UserError
from cl_bench.runs import identity, records, status
from cl_bench.runs.paths import ManifestEntry

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class WandbRun:
    """One W&B run."""

    id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, Any]
    """Plain nested values."""
    summary: Mapping[str, Any]
    state: status.State
    rows: Sequence[Row]
    """The logged history, one row per call; nested metrics under dotted names."""

    @property
    def label(self) -> str:
        """Name in messages."""
        return f"run '{self.id}'" + (f" ({self.name})" if self.name and self.name != self.id else "")


def combine(
    name: str,
    folder: Path,
    wandb_runs: Iterable[WandbRun],
    names: Mapping[str, str],
    notes: list[str],
    baseline: str = tidy.BASELINE,
) -> Runs:
    """The runs in the tidy schema; `names` maps our names to theirs, and if given, no run is taken for cl_bench's.

    `baseline` is the curriculum of the other tools' runs that others are compared with; cl_bench's know their own.

    Notes on what is left out are appended to `notes`, as iterating over `wandb_runs` may do too.
    Raises NoRunsError if there are no runs, UserError if all runs lack a required metric or config key.
    """
    if "run_id" in names:
        raise UserError("--map run_id: a W&B run has its own id; leave run_id out")
    ours: list[_Attempt] = []
    others: list[_Curve] = []
    for run in wandb_runs:
        if not names and "run_id" in run.config and isinstance(run.config.get("config"), Mapping):
            ours.append(_attempt(run))
        else:
            others.append(_curve(run, names))
    if not ours and not others:
        raise NoRunsError(f"{folder}: holds no W&B runs")
    if not ours:
        return _foreign(name, folder, others, names, notes, baseline)
    if baseline != tidy.BASELINE:
        raise UserError(f"{folder}: --baseline {baseline}: runs of cl_bench know their baseline; leave it out")
    if others:
        notes.append(f"{len(others)} W&B runs were not logged by cl_bench; left out (--map reads runs by column).")
    own = [_join(run_id, group, notes) for run_id, group in _by_run(ours).items()]
    return gather(name, "", folder, [run for run in own if run], notes, is_sweep=False)


# --- runs of cl_bench

_ABOUT = {
    "restored_step": 0,
    "world_size": 0,
    "host": "",
    "device": "",
    "hardware": "",
    "started": math.nan,
    "versions": {},
}


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """One attempt of a run of cl_bench."""

    run_id: str
    number: int
    wandb_id: str
    config: Mapping[str, Any]
    state: status.State
    train: pd.DataFrame
    evals: pd.DataFrame


def _attempt(run: WandbRun) -> _Attempt:
    number = int(run.config.get("attempt", 0))
    return _Attempt(
        str(run.config["run_id"]),
        number,
        run.id,
        run.config,
        tidy.state(run.summary["state"]) if run.summary.get("state") else run.state,
        _frame([r for r in run.rows if "loss" in r], "train", number),
        _frame([r for r in run.rows if "val_loss" in r], "eval", number),
    )


def _frame(rows: list[Row], kind: records.Kind, attempt: int) -> pd.DataFrame:
    columns = records.COLUMNS[kind]
    frame = pd.DataFrame([dict(r) for r in rows], columns=list(columns)).assign(attempt=attempt)
    for column, dtype in columns.items():  # the service writes NaN as a string
        numbers = pd.to_numeric(frame[column], errors="coerce").replace([math.inf, -math.inf], math.nan)
        frame[column] = numbers.fillna(0) if dtype == "int64" else numbers
    return frame.astype(columns)


def _by_run(attempts: list[_Attempt]) -> dict[str, list[_Attempt]]:
    runs: dict[str, list[_Attempt]] = {}
    for attempt in attempts:
        runs.setdefault(attempt.run_id, []).append(attempt)
    return runs


def _join(run_id: str, attempts: list[_Attempt], notes: list[str]) -> OwnRun | None:
    """The attempts of one run as one record; `notes` grows by what is left out."""
    newest: dict[int, _Attempt] = {}
    for attempt in sorted(attempts, key=lambda a: (float(a.config.get("started", 0)), len(a.train))):
        if attempt.number in newest:
            notes.append(
                f"{run_id}: attempt {attempt.number} was logged twice ({newest[attempt.number].wandb_id} and "
                f"{attempt.wandb_id}); the older one is left out."
            )
        newest[attempt.number] = attempt
    ordered = [newest[number] for number in sorted(newest)]
    last = ordered[-1]
    try:
        resolved = config.from_dict(last.config["config"])
    except UserError as error:
        notes.append(f"{run_id}: its config cannot be read ({str(error).splitlines()[0]}); left out.")
        return None
    facts = pd.DataFrame([_ABOUT | {**a.config} for a in ordered], columns=list(records.ATTEMPT_COLUMNS))
    record = records.Record(
        pd.concat([a.train for a in ordered], ignore_index=True),
        pd.concat([a.evals for a in ordered], ignore_index=True),
        facts.assign(versions=facts["versions"].map(json.dumps)).astype(records.ATTEMPT_COLUMNS),
        [],
    )
    steps = int(last.config.get("planned_steps", 0))
    entry = ManifestEntry(run_id, cell=last.config.get("cell", "") if resolved.cell else None)
    return OwnRun.from_record(resolved, record, last.state, steps, entry)


# --- other runs


@dataclasses.dataclass(frozen=True)
class _Curve:
    """Facts and curves of another tool's run, under our names."""

    label: str
    facts: dict[str, Any]
    keys: tuple[str, ...]
    """Keys of its config."""
    metrics: tuple[str, ...]
    """Keys of its history."""
    evals: pd.DataFrame
    train: pd.DataFrame


def _curve(run: WandbRun, names: Mapping[str, str]) -> _Curve:
    flat = identity.flatten(dict(run.config))
    about = {"id": run.id, "name": run.name, "group": run.group, "job_type": run.job_type, "state": run.state} | flat
    facts = {
        c: about[names.get(c, c)] for c in (*tidy.REQUIRED, *tidy.OPTIONAL) if about.get(names.get(c, c)) is not None
    }
    metrics = tuple(dict.fromkeys(key for row in run.rows for key in row))
    theirs = {c: names.get(c, c) for c in (*checks.EVALUATION, "val_ppl", *naming.TRAIN)}
    measure = "val_ppl" if "val_ppl" in names or theirs["val_loss"] not in metrics else "val_loss"
    evals = [r for r in run.rows if theirs[measure] in r]
    train = [r for r in run.rows if theirs["loss"] in r and theirs["consumed_tokens"] in r]
    columns = ["consumed_tokens", "train_seconds", measure]
    return _Curve(
        run.label,
        {"run_id": run.id, **facts},
        tuple(about),
        metrics,
        pd.DataFrame({c: [r.get(theirs[c]) for r in evals] for c in columns}),
        pd.DataFrame({c: [r.get(theirs[c]) for r in train] for c in naming.TRAIN if theirs[c] in metrics}),
    )


def _foreign(
    name: str, folder: Path, curves: list[_Curve], names: Mapping[str, str], notes: list[str], baseline: str
) -> Runs:
    for column in tidy.REQUIRED:
        if not any(column in c.facts for c in curves):
            keys = dict.fromkeys(k for c in curves for k in c.keys)
            raise checks.missing(f"{folder}: config of its {len(curves)} runs", column, keys, naming.remedy(column))
    metrics = dict.fromkeys(m for c in curves for m in c.metrics if not m.startswith("_"))
    if not any(len(c.evals) for c in curves):
        raise checks.missing(f"{folder}: history of its runs", "val_loss", metrics, naming.remedy("val_loss"))
    if not _is_logged(curves, "consumed_tokens"):
        remedy = naming.remedy("consumed_tokens")
        raise checks.missing(f"{folder}: evaluations of its runs", "consumed_tokens", metrics, remedy)
    if "train_seconds" in names and not _is_logged(curves, "train_seconds"):
        raise checks.missing(f"{folder}: evaluations of its runs", names["train_seconds"], metrics)
    whole = []
    for curve in curves:
        lacks = [c for c in tidy.REQUIRED if c not in curve.facts]
        if lacks:
            notes.append(f"{curve.label}: no {', '.join(lacks)} in its config; left out.")
        else:
            whole.append(curve)
    if not whole:
        raise NoRunsError(f"{folder}: no run has all of {', '.join(tidy.REQUIRED)} in its config")
    evals = [_checked(curve) for curve in whole if len(curve.evals)]
    train = [_steps(curve) for curve in whole if len(curve.train)]
    facts = pd.DataFrame([c.facts for c in whole])
    return tidy.tidy(
        name,
        folder,
        facts.assign(state=[_state(c) for c in whole]),
        pd.concat(evals, ignore_index=True) if evals else pd.DataFrame(),
        pd.concat(train, ignore_index=True) if train else None,
        notes,
        baseline=baseline,
    )


def _is_logged(curves: Sequence[_Curve], column: str) -> bool:
    """Whether any run has values of a column of evaluations."""
    return any(c.evals[column].notna().any() for c in curves if len(c.evals))


def _state(curve: _Curve) -> str:
    """The logged state, or DIVERGED if the last evaluation is not finite."""
    measure = curve.evals.columns[-1] if len(curve.evals) else None
    if measure and not np.isfinite(pd.to_numeric(curve.evals[measure], errors="coerce").iloc[-1]):
        return "DIVERGED"
    return str(curve.facts.get("state", "DONE"))


def _steps(curve: _Curve) -> pd.DataFrame:
    steps = checks.steps(curve.train, lambda row: f"{curve.label}, step {row + 1}")
    return pd.DataFrame(steps).assign(run_id=curve.facts["run_id"])


def _checked(curve: _Curve) -> pd.DataFrame:
    run_id, evals = str(curve.facts["run_id"]), curve.evals
    if evals["train_seconds"].isna().all():
        evals = evals.drop(columns="train_seconds")
    return checks.evaluations(
        evals.assign(run_id=run_id),
        lambda row: f"{curve.label}, evaluation {row + 1}",
        diverged={run_id} if _state(curve) == "DIVERGED" else (),
        remedy=naming.PERPLEXITY_REMEDY,
    )
