"""TensorBoard events as Megatron-DeepSpeed writes them (megatron/training.py) -> the tidy schema.

Each scalar is written three times: over iterations, "… vs samples" and "… vs tokens", whose step is its tokens.
The arguments of the run are written as texts when an attempt begins, at the iteration it restored; so an attempt
supersedes its predecessors as in our own records. Seconds are iteration-time x iterations: Megatron's clock does not
stop for evaluation, and where it was not logged the events' own times have to do.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.readers import checks, naming, tb_events, tidy
from analysis.readers.files import read_table
from analysis.readers.tb_events import Events, Series
from analysis.schema import NoRunsError, Runs
from cl_bench.errors import UserError, did_you_mean
from cl_bench.runs import records

TRAIN_LOSS = "lm-loss-training/lm loss"
VAL_LOSS = "lm-loss-validation/lm loss validation"
ITERATION_TIME = "iteration-time/iteration-time"
OVER_TOKENS = " vs tokens"
# Tag -> column of a training step; of two tags for a column the first that is there.
_STEP_TAGS = {
    "learning-rate/learning-rate": "lr",
    "batch-size/batch-size": "global_batch_size",
    "seqlen/actual_seq_length": "seqlen",
    "seqlen/curriculum_seqlen": "seqlen",
    "grad-norm/grad-norm": "grad_norm",
    "loss-scale/loss-scale": "loss_scale",
    "optimizer/variance_l1": "adam_var_l1",
    "optimizer/variance_abs_max": "adam_var_max",
    "optimizer/variance_sqrt_l1": "adam_var_sqrt_l1",
    "optimizer/variance_sqrt_abs_max": "adam_var_sqrt_max",
}
# Argument of Megatron -> what it says of a run.
_ARGUMENTS = {
    "seed": "seed",
    "lr": "lr",
    "global_batch_size": "global_batch_size",
    "seq_length": "max_seqlen",
    "train_tokens": "token_budget",
    "world_size": "world_size",
}
_CURRICULUM_FLAGS = ("curriculum_learning_legacy", "curriculum_learning", "data_efficiency_curriculum_learning")
_EVALUATION_ARGUMENTS = ("data_path", "valid_data_path", "split", "eval_iters", "seq_length")


@dataclasses.dataclass(frozen=True)
class _Curve:
    """One run's folder, its attempts joined."""

    facts: dict[str, Any]
    train: pd.DataFrame
    evals: pd.DataFrame
    notes: list[str]


def load_tensorboard(folder: str | Path, runs_file: str | Path | None = None) -> Runs:
    """Every folder below `folder` that holds event files is a run, named by its path.

    What a run is comes from the arguments that Megatron wrote beside the scalars; a table `runs_file` (CSV or Parquet,
    column `run` and any of curriculum, global_batch_size, lr, seed, state, setting, …) has the last word. Raises
    NoRunsError where there are no event files, UserError for what is missing or damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NoRunsError(f"{root}: no such folder")
    folders = sorted({path.parent for path in root.rglob("*tfevents*") if path.is_file()})
    if not folders:
        raise NoRunsError(f"{root}: no event files (*tfevents*) below it; give the folder of --tensorboard-dir")
    names = {path: path.relative_to(root).as_posix() if path != root else root.resolve().name for path in folders}
    told = _told(runs_file, list(names.values()))
    curves = [_read_run(path, name, told.get(name, {})) for path, name in names.items()]
    facts = [c.facts for c in curves]
    for column in tidy.REQUIRED:
        lacking = [str(f["run_id"]) for f in facts if f.get(column) is None]
        if lacking:
            raise UserError(
                f"{root}: the events of run '{lacking[0]}' do not say its {column}; give it in a table with the "
                f"columns run, {column}: --runs FILE"
            )
    evals = [c.evals for c in curves if len(c.evals)]
    if not evals:
        tags = dict.fromkeys(t for path in folders for f in _files(path) for t in tb_events.read(f).scalars)
        raise checks.missing(f"{root}: tags of its {len(folders)} runs", VAL_LOSS + OVER_TOKENS, tags)
    train = [c.train for c in curves if len(c.train)]
    return tidy.tidy(
        root.resolve().name,
        root,
        pd.DataFrame(facts),
        pd.concat([_checked(e) for e in evals], ignore_index=True),
        pd.concat(train, ignore_index=True) if train else None,
        [note for c in curves for note in c.notes],
    )


def _told(runs_file: str | Path | None, names: list[str]) -> dict[str, dict[str, Any]]:
    """Run -> what the user's table says of it. Raises UserError for a run or column that is not there."""
    if runs_file is None:
        return {}
    table = read_table(runs_file)
    if "run" not in table:
        raise checks.missing(runs_file, "run", table.columns)
    known = (*tidy.REQUIRED, *tidy.OPTIONAL)
    for column in table.columns.drop("run"):
        if column not in known:
            raise UserError(f"{runs_file}: column '{column}' says nothing of a run; {did_you_mean(str(column), known)}")
    table["run"] = table["run"].astype(str)
    for run in table["run"]:
        if run not in names:
            raise UserError(f"{runs_file}: run '{run}' has no event files; {did_you_mean(run, names)}")
    rows = table.set_index("run").to_dict("index")
    return {str(run): {str(k): v for k, v in row.items() if not pd.isna(v)} for run, row in rows.items()}


def _files(folder: Path) -> list[Path]:
    """A run's event files, oldest first: their names begin with when they were opened."""
    return sorted(path for path in folder.glob("*tfevents*") if path.is_file())


def _read_run(folder: Path, name: str, told: dict[str, Any]) -> _Curve:
    notes: list[str] = []
    trains, evals, starts = [], [], []
    clock: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] = (np.zeros(1), np.zeros(1))
    facts: dict[str, Any] = {}
    own_clock = True
    for number, path in enumerate(_files(folder)):
        events = tb_events.read(path)
        if events.torn:
            notes.append(f"{path}: its end is cut off; read up to there.")
        if TRAIN_LOSS not in events.scalars and VAL_LOSS not in events.scalars:
            continue
        restored = _restored(events)
        own_clock = own_clock and ITERATION_TIME in events.scalars
        clock = _go_on(clock, events, restored)
        starts.append({"attempt": number, "restored_step": restored})
        trains.append(_steps(events, clock, number))
        evals.append(_evaluations(events, clock, number))
        facts |= _facts(events)
    if not starts:
        return _Curve({"run_id": name} | told, pd.DataFrame(), pd.DataFrame(), notes)
    attempts = pd.DataFrame(starts)
    evaluated = pd.concat(evals, ignore_index=True).assign(eval_seconds=math.nan)  # Megatron does not tell them apart
    record = records.Record(pd.concat(trains, ignore_index=True), evaluated, attempts, [])
    if not own_clock:
        notes.append(
            f"{name}: no '{ITERATION_TIME}' (--log-timers-to-tensorboard); its seconds are those between events, "
            "evaluation and saves included."
        )
    train, measured = record.train.assign(run_id=name), record.evals.assign(run_id=name)
    return _Curve({"run_id": name, "state": _state(train, measured, facts)} | facts | told, train, measured, notes)


def _restored(events: Events) -> int:
    """The iteration that an attempt went on from: its arguments were written there, its first step comes after."""
    for argument in _ARGUMENTS:
        if argument in events.texts:
            return events.texts[argument][0]
    firsts = [events.scalars[tag].steps[0] for tag in (TRAIN_LOSS, VAL_LOSS) if tag in events.scalars]
    return max(0, min(firsts) - 1)


def _go_on(
    clock: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], events: Events, restored: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The run's clock, (iterations, seconds at each), with an attempt's own stretch from the step it restored on."""
    steps, seconds = clock
    base = float(np.interp(restored, steps, seconds))
    kept = steps < restored
    if ITERATION_TIME in events.scalars:
        series = events.scalars[ITERATION_TIME]
        own = np.array(series.steps, dtype=float)
        # Each value is the mean over the iterations since the one before.
        took = np.array(series.values) * np.diff(own, prepend=float(restored))
    else:
        series = _measure(events)
        own = np.array(series.steps, dtype=float)
        walls = np.array(series.walls)
        pace = (walls[-1] - walls[0]) / max(own[-1] - own[0], 1.0)
        # What the first stretch took was seen by nobody: it is taken at the attempt's mean pace.
        took = np.diff(walls, prepend=walls[0] - pace * (own[0] - restored))
    return (
        np.concatenate([steps[kept], [float(restored)], own]),
        np.concatenate([seconds[kept], [base], base + np.cumsum(took)]),
    )


def _measure(events: Events) -> Series:
    return events.scalars[TRAIN_LOSS if TRAIN_LOSS in events.scalars else VAL_LOSS]


def _over_tokens(
    events: Events, tag: str, clock: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], attempt: int
) -> pd.DataFrame:
    """step, consumed_tokens, train_seconds, attempt and the value of a tag: it is written over both axes at once."""
    by_step, by_tokens = (events.scalars.get(name, Series()) for name in (tag, tag + OVER_TOKENS))
    n = min(len(by_step.steps), len(by_tokens.steps))
    steps = np.array(by_step.steps[:n], dtype="int64")
    beyond = np.diff(clock[1])[-1] / max(np.diff(clock[0])[-1], 1.0)  # steps after the last reading, at its pace
    seconds = np.interp(steps, *clock) + np.maximum(steps - clock[0][-1], 0) * beyond
    return pd.DataFrame(
        {
            "step": steps,
            "consumed_tokens": np.array(by_tokens.steps[:n], dtype="int64"),
            "train_seconds": seconds,
            "attempt": attempt,
            "value": np.array(by_tokens.values[:n], dtype=float),
        }
    )


def _steps(events: Events, clock: Any, attempt: int) -> pd.DataFrame:
    frame = _over_tokens(events, TRAIN_LOSS, clock, attempt).rename(columns={"value": "loss"})
    for tag, column in _STEP_TAGS.items():
        if tag in events.scalars and column not in frame:
            series = events.scalars[tag]
            frame[column] = frame["step"].map(dict(zip(series.steps, series.values, strict=True)))
    return frame


def _evaluations(events: Events, clock: Any, attempt: int) -> pd.DataFrame:
    return _over_tokens(events, VAL_LOSS, clock, attempt).rename(columns={"value": "val_loss"})


def _facts(events: Events) -> dict[str, Any]:
    """What an attempt's arguments, or else its scalars, say of the run."""
    said = {name: text for name, (_, text) in events.texts.items() if text not in ("None", "")}
    facts: dict[str, Any] = {ours: said[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in said}
    flags = [said[flag] for flag in _CURRICULUM_FLAGS if flag in said]
    if flags:
        facts["curriculum"] = "curriculum" if "True" in flags else tidy.BASELINE
    if "num_layers" in said and "hidden_size" in said:
        facts["model"] = f"{said['num_layers']} layers of {said['hidden_size']}"
    if {"bf16", "fp16"} & said.keys():
        facts["precision"] = next((p for p in ("bf16", "fp16") if said.get(p) == "True"), "fp32")
    evaluated = [f"{name}={said[name]}" for name in _EVALUATION_ARGUMENTS if name in said]
    if evaluated:
        facts["eval_set"] = ", ".join(evaluated)
    for tag, column in (("batch-size/batch-size", "global_batch_size"), ("learning-rate/learning-rate", "lr")):
        if column not in facts and tag in events.scalars:  # as float32, so not to the last digit
            facts[column] = float(f"{max(events.scalars[tag].values):.6g}")
    return facts


def _state(train: pd.DataFrame, evals: pd.DataFrame, facts: dict[str, Any]) -> str:
    """Diverged where the last value is no number; lost where it stopped short of the tokens it was to be trained on."""
    for frame, column in ((evals, "val_loss"), (train, "loss")):
        if len(frame) and not math.isfinite(frame[column].iloc[-1]):
            return "DIVERGED"
    furthest = max([int(f["consumed_tokens"].max()) for f in (train, evals) if len(f)], default=0)
    return "LOST" if furthest < float(facts.get("token_budget", 0)) else "DONE"


def _checked(evals: pd.DataFrame) -> pd.DataFrame:
    run_id = str(evals["run_id"].iloc[0])
    diverged = {run_id} if not math.isfinite(evals["val_loss"].iloc[-1]) else set()
    checked = checks.evaluations(
        evals[["run_id", *checks.EVALUATION]],
        lambda row: f"run '{run_id}', iteration {evals['step'].iloc[row]}",
        diverged=diverged,
        remedy=naming.PERPLEXITY_REMEDY,
    )
    return checked.assign(step=evals["step"].to_numpy())
