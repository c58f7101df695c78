"""Reader of TensorBoard events of Megatron-DeepSpeed (megatron/training.py), and of others by the names of their tags.

Each scalar is written three times: over iterations, "… vs samples" and "… vs tokens", whose step is the token count.
The arguments of the run are written as texts when an attempt begins, at the iteration it restored, so an attempt
supersedes its predecessors as in our own records. Seconds are iteration-time x iterations; if it was not logged, the
differences of the events' times, which include evaluation. Other tools' tags are mapped (--map): tokens then come from
a scalar of tokens so far, and seconds from one of seconds so far, if they are mapped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.readers import checks, naming, tb_events, tidy
from analysis.readers.files import read_table
from analysis.readers.reader import Option, Reader
from analysis.readers.tb_events import Events, Series
from analysis.schema import NoRunsError, Runs
from cl_bench.errors import UserError, did_you_mean
from cl_bench.runs import records

TRAIN_LOSS = "lm-loss-training/lm loss"
VAL_LOSS = "lm-loss-validation/lm loss validation"
ITERATION_TIME = "iteration-time/iteration-time"
OVER_TOKENS = " vs tokens"
# Tag -> column of a training step; the first existing tag of a column counts.
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
# Argument of Megatron -> fact of a run.
_ARGUMENTS = {
    "seed": "seed",
    "lr": "lr",
    "global_batch_size": "global_batch_size",
    "seq_length": "max_seqlen",
    "train_tokens": "token_budget",
    "world_size": "world_size",
}
_CURVE = ("step", "consumed_tokens", "train_seconds", "loss")
_CURRICULUM_FLAGS = ("curriculum_learning_legacy", "curriculum_learning", "data_efficiency_curriculum_learning")
_EVALUATION_ARGUMENTS = ("data_path", "valid_data_path", "split", "eval_iters", "seq_length")


_Facts = dict[str, Any]
"""Facts of a run (tidy.REQUIRED and tidy.OPTIONAL), by column."""


@dataclasses.dataclass(frozen=True)
class _Tags:
    """Names of the scalars that a run is read from."""

    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Our column or fact -> the tag or argument that --map names."""

    @property
    def train_loss(self) -> str:
        """Training loss."""
        return self.names.get("loss", TRAIN_LOSS)

    @property
    def validation(self) -> str:
        """Validation loss, or perplexity if `is_perplexity`."""
        return self.names.get("val_loss", self.names.get("val_ppl", VAL_LOSS))

    @property
    def is_perplexity(self) -> bool:
        """Whether `validation` is one."""
        return "val_ppl" in self.names and "val_loss" not in self.names

    @property
    def columns(self) -> dict[str, str]:
        """Tag -> column of a training step, other than loss, tokens and seconds."""
        mapped = {self.names[c]: c for c in naming.TRAIN if c in self.names and c not in _CURVE}
        return mapped | {tag: c for tag, c in _STEP_TAGS.items() if c not in self.names}

    def clock_tag(self, events: Events) -> str:
        """The scalar whose event times stand in for the time of training."""
        return self.train_loss if self.train_loss in events.scalars else self.validation


@dataclasses.dataclass(frozen=True)
class _Clock:
    """Training time of a run: seconds at each of some iterations."""

    steps: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]

    def at(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Seconds at `steps`; beyond the last reading, at the pace of the last interval."""
        pace = np.diff(self.seconds)[-1] / max(np.diff(self.steps)[-1], 1.0)
        beyond: npt.NDArray[np.float64] = np.maximum(steps - self.steps[-1], 0) * pace
        return np.interp(steps, self.steps, self.seconds) + beyond

    def resumed(self, events: Events, restored: int, tags: _Tags) -> _Clock:
        """This clock up to step `restored`, continued by the attempt that restored it."""
        kept = self.steps < restored
        base = float(np.interp(restored, self.steps, self.seconds))
        if tags.names.get("train_seconds") in events.scalars:
            logged = events.scalars[tags.names["train_seconds"]]
            later = np.array(logged.steps, dtype=float) > restored
            return _Clock(
                np.concatenate([self.steps[kept], [float(restored)], np.array(logged.steps, dtype=float)[later]]),
                np.concatenate([self.seconds[kept], [base], np.array(logged.values)[later]]),
            )
        if ITERATION_TIME in events.scalars:
            series = events.scalars[ITERATION_TIME]
            steps = np.array(series.steps, dtype=float)
            # Each value is the mean over the iterations since the one before.
            durations = np.array(series.values) * np.diff(steps, prepend=float(restored))
        else:
            series = events.scalars[tags.clock_tag(events)]
            steps, times = np.array(series.steps, dtype=float), np.array(series.walls)
            pace = (times[-1] - times[0]) / max(steps[-1] - steps[0], 1.0)
            # The first interval has no start time: it is taken at the attempt's mean pace.
            durations = np.diff(times, prepend=times[0] - pace * (steps[0] - restored))
        return _Clock(
            np.concatenate([self.steps[kept], [float(restored)], steps]),
            np.concatenate([self.seconds[kept], [base], base + np.cumsum(durations)]),
        )


@dataclasses.dataclass(frozen=True)
class _Curve:
    """One run's folder, its attempts joined."""

    facts: _Facts
    train: pd.DataFrame
    evals: pd.DataFrame
    notes: list[str]


def load_tensorboard(
    folder: str | Path,
    runs_file: str | Path | None = None,
    names: Mapping[str, str] | None = None,
    baseline: str = tidy.BASELINE,
) -> Runs:
    """The runs below `folder`: each folder with event files is one, named by its path.

    Facts of a run come from Megatron's arguments, written beside the scalars; a table `runs_file` (CSV or Parquet, with
    the column `run` and any of curriculum, global_batch_size, lr, seed, state, setting, …) overrides them. `names` maps
    our columns to tags of scalars, and our facts to arguments or, for their largest value, tags. `baseline` is the
    curriculum of the runs that others are compared with. Raises
    NoRunsError without event files, UserError for missing facts and damaged files.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NoRunsError(f"{root}: no such folder")
    folders = sorted({path.parent for path in root.rglob("*tfevents*") if path.is_file()})
    if not folders:
        raise NoRunsError(f"{root}: no event files (*tfevents*) below it; give the folder of --tensorboard-dir")
    tags = _Tags(names or {})
    run_ids = {path: path.relative_to(root).as_posix() if path != root else root.resolve().name for path in folders}
    overrides = _read_facts(runs_file, list(run_ids.values()))
    _check_names(root, folders, tags)
    curves = [_read_run(path, run_id, overrides.get(run_id, {}), tags) for path, run_id in run_ids.items()]
    facts = [c.facts for c in curves]
    for column in tidy.REQUIRED:
        lacking = [str(f["run_id"]) for f in facts if f.get(column) is None]
        if lacking:
            raise UserError(
                f"{root}: the events of run '{lacking[0]}' lack its {column}; give it in a table with the columns run, "
                f"{column}: --runs FILE (or name an argument or tag that holds it: --map {column}=THEIRS)"
            )
    evals = [c.evals for c in curves if len(c.evals)]
    if not evals:
        raise _no_evaluation(root, folders, tags)
    train = [c.train for c in curves if len(c.train)]
    return tidy.tidy(
        root.resolve().name,
        root,
        pd.DataFrame(facts),
        pd.concat([_checked(e) for e in evals], ignore_index=True),
        pd.concat(train, ignore_index=True) if train else None,
        [note for c in curves for note in c.notes],
        baseline=baseline,
    )


def _scalars(folders: Sequence[Path]) -> list[str]:
    """The tags of all scalars of some runs."""
    return list(dict.fromkeys(t for path in folders for f in _files(path) for t in tb_events.read(f).scalars))


def _check_names(root: Path, folders: Sequence[Path], tags: _Tags) -> None:
    """Raise UserError for a mapped name that no run has."""
    if not tags.names:
        return
    scalars = _scalars(folders)
    texts = list(dict.fromkeys(t for path in folders for f in _files(path) for t in tb_events.read(f).texts))
    for ours, theirs in tags.names.items():
        if ours == "run_id":
            raise UserError("--map run_id: a run is named by its folder; leave run_id out")
        is_fact = ours in (*tidy.REQUIRED, *tidy.OPTIONAL)
        if theirs not in scalars and not (is_fact and theirs in texts):
            kinds = "tags and arguments" if is_fact else "tags"
            raise checks.missing(f"{root}: {kinds} of its runs", theirs, [*scalars, *(texts if is_fact else [])])


def _no_evaluation(root: Path, folders: Sequence[Path], tags: _Tags) -> UserError:
    scalars = _scalars(folders)
    where = f"{root}: tags of its {len(folders)} run{'s' * (len(folders) > 1)}"
    if tags.validation not in scalars:
        return checks.missing(where, tags.validation, scalars, "; name yours: --map val_loss=TAG")
    remedy = "; name a scalar of the tokens so far: --map consumed_tokens=TAG"
    return checks.missing(where, tags.validation + OVER_TOKENS, scalars, remedy)


def _read_facts(runs_file: str | Path | None, names: list[str]) -> dict[str, _Facts]:
    """Run -> its facts in the user's table. Raises UserError for an unknown run or column."""
    if runs_file is None:
        return {}
    table = read_table(runs_file)
    if "run" not in table:
        raise checks.missing(runs_file, "run", table.columns)
    valid = (*tidy.REQUIRED, *tidy.OPTIONAL)
    for column in table.columns.drop("run"):
        if column not in valid:
            raise UserError(
                f"{runs_file}: column '{column}' is not a fact of a run; {did_you_mean(str(column), valid)}"
            )
    table["run"] = table["run"].astype(str)
    for run in table["run"]:
        if run not in names:
            raise UserError(f"{runs_file}: run '{run}' has no event files; {did_you_mean(run, names)}")
    rows = table.set_index("run").to_dict("index")
    return {str(run): {str(k): v for k, v in row.items() if not pd.isna(v)} for run, row in rows.items()}


def _files(folder: Path) -> list[Path]:
    """A run's event files, oldest first: their names begin with the time of opening."""
    return sorted(path for path in folder.glob("*tfevents*") if path.is_file())


def _read_run(folder: Path, name: str, overrides: _Facts, tags: _Tags) -> _Curve:
    notes: list[str] = []
    trains, evals, starts = [], [], []
    clock = _Clock(np.zeros(1), np.zeros(1))
    facts: _Facts = {}
    is_timed = True
    for number, path in enumerate(_files(folder)):
        events = tb_events.read(path)
        if events.torn:
            notes.append(f"{path}: its end is cut off; read up to there.")
        if tags.clock_tag(events) not in events.scalars:
            continue
        restored = _restored(events, tags)
        is_timed = is_timed and bool({ITERATION_TIME, tags.names.get("train_seconds")} & events.scalars.keys())
        clock = clock.resumed(events, restored, tags)
        starts.append({"attempt": number, "restored_step": restored})
        trains.append(_steps(events, clock, number, tags))
        evals.append(_evaluations(events, clock, number, tags))
        facts |= _facts(events) | _mapped_facts(events, tags)
    if not starts:
        return _Curve({"run_id": name} | overrides, pd.DataFrame(), pd.DataFrame(), notes)
    attempts = pd.DataFrame(starts)
    evaluated = pd.concat(evals, ignore_index=True).assign(eval_seconds=math.nan)  # Megatron does not log them
    record = records.Record(pd.concat(trains, ignore_index=True), evaluated, attempts, [])
    if not is_timed:
        notes.append(
            f"{name}: no '{ITERATION_TIME}' (--log-timers-to-tensorboard); its seconds are those between events, "
            "evaluation and saves included."
        )
    train, measured = record.train.assign(run_id=name), record.evals.assign(run_id=name)
    return _Curve({"run_id": name, "state": _state(train, measured, facts)} | facts | overrides, train, measured, notes)


def _restored(events: Events, tags: _Tags) -> int:
    """The iteration that an attempt restored: its arguments were written at it, its first step follows it."""
    for argument in _ARGUMENTS:
        if argument in events.texts:
            return events.texts[argument][0]
    firsts = [events.scalars[tag].steps[0] for tag in (tags.train_loss, tags.validation) if tag in events.scalars]
    return max(0, min(firsts) - 1)


def _over_tokens(events: Events, tag: str, clock: _Clock, attempt: int, tags: _Tags) -> pd.DataFrame:
    """step, consumed_tokens, train_seconds, attempt and the value of a tag.

    Tokens are those of the mapped scalar at the tag's steps, else those of the tag's twin, which Megatron writes over
    tokens at the same time.
    """
    by_step, by_tokens = (events.scalars.get(name, Series()) for name in (tag, tag + OVER_TOKENS))
    steps, values = np.array(by_step.steps, dtype="int64"), np.array(by_step.values, dtype=float)
    counted = events.scalars.get(tags.names.get("consumed_tokens", ""))
    if counted is None:
        n = min(len(by_step.steps), len(by_tokens.steps))
        steps, values, tokens = steps[:n], values[:n], np.array(by_tokens.steps[:n], dtype="int64")
    else:
        at = np.append(0, counted.steps), np.append(0.0, counted.values)
        tokens = np.rint(np.interp(steps, *at)).astype("int64")
    columns = {"step": steps, "consumed_tokens": tokens, "train_seconds": clock.at(steps)}
    return pd.DataFrame({**columns, "attempt": attempt, "value": values})


def _steps(events: Events, clock: _Clock, attempt: int, tags: _Tags) -> pd.DataFrame:
    frame = _over_tokens(events, tags.train_loss, clock, attempt, tags).rename(columns={"value": "loss"})
    for tag, column in tags.columns.items():
        if tag in events.scalars and column not in frame:
            series = events.scalars[tag]
            frame[column] = frame["step"].map(dict(zip(series.steps, series.values, strict=True)))
    return frame


def _evaluations(events: Events, clock: _Clock, attempt: int, tags: _Tags) -> pd.DataFrame:
    frame = _over_tokens(events, tags.validation, clock, attempt, tags).rename(columns={"value": "val_loss"})
    return frame.assign(val_loss=np.log(frame["val_loss"])) if tags.is_perplexity else frame


def _mapped_facts(events: Events, tags: _Tags) -> _Facts:
    """Facts that --map names: an argument, or the largest value of a scalar (float32, so not to the last digit)."""
    facts: _Facts = {}
    for ours in (*tidy.REQUIRED, *tidy.OPTIONAL):
        theirs = tags.names.get(ours, "")
        if theirs in events.texts:
            facts[ours] = events.texts[theirs][1]
        elif theirs in events.scalars:
            facts[ours] = float(f"{max(events.scalars[theirs].values):.6g}")
    return facts


def _facts(events: Events) -> _Facts:
    """Facts of a run from an attempt's arguments, or else from its scalars."""
    arguments = {name: text for name, (_, text) in events.texts.items() if text not in ("None", "")}
    facts: _Facts = {ours: arguments[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in arguments}
    flags = [arguments[flag] for flag in _CURRICULUM_FLAGS if flag in arguments]
    if flags:
        facts["curriculum"] = "curriculum" if "True" in flags else tidy.BASELINE
    if "num_layers" in arguments and "hidden_size" in arguments:
        facts["model"] = f"{arguments['num_layers']} layers of {arguments['hidden_size']}"
    if {"bf16", "fp16"} & arguments.keys():
        facts["precision"] = next((p for p in ("bf16", "fp16") if arguments.get(p) == "True"), "fp32")
    evaluated = [f"{name}={arguments[name]}" for name in _EVALUATION_ARGUMENTS if name in arguments]
    if evaluated:
        facts["eval_set"] = ", ".join(evaluated)
    for tag, column in (("batch-size/batch-size", "global_batch_size"), ("learning-rate/learning-rate", "lr")):
        if column not in facts and tag in events.scalars:  # as float32, so not to the last digit
            facts[column] = float(f"{max(events.scalars[tag].values):.6g}")
    return facts


def _state(train: pd.DataFrame, evals: pd.DataFrame, facts: _Facts) -> str:
    """DIVERGED if the last loss is not finite, LOST if the run stopped short of its token budget, else DONE."""
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


READER = Reader(
    Option("tensorboard", "FOLDER", "instead: TensorBoard events, of Megatron or by --map"),
    load_tensorboard,
    {
        "runs_file": Option("runs", "FILE", "table of facts that the events lack: run, curriculum, seed, …"),
        "names": naming.MAP,
        "baseline": naming.BASELINE,
    },
)
