"""Assembly of checked curves and facts about their runs into the tidy schema."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from analysis.readers import checks
from analysis.schema import RUN_COLUMNS, TRAIN_COLUMNS, NoRunsError, Runs, perplexity
from analysis.words import printable
from cl_bench.errors import UserError, did_you_mean
from cl_bench.runs import records
from cl_bench.runs.identity import short_float
from cl_bench.runs.status import FINISHED, State

REQUIRED = ("curriculum", "global_batch_size", "lr", "seed")
"""Required facts of a run: its place in the grid."""
OPTIONAL = (
    "state",
    "setting",
    "eval_set",
    "variant",
    "shape",
    "model",
    "max_seqlen",
    "token_budget",
    "hardware",
    "world_size",
    "precision",
)
"""Optional facts of a run. Runs of different `setting` (default: the model) or `eval_set` are not compared."""

BASELINE = "baseline"
"""The curriculum of the runs that others are compared with."""

_SAME_BUDGET = 0.01
"""Relative difference up to which token budgets count as equal: the last step may go beyond them."""

# Other tools' names of states.
_STATES: dict[str, State] = {
    "FINISHED": "DONE",
    "COMPLETED": "DONE",
    "CRASHED": "FAILED",
    "KILLED": "FAILED",
    "PREEMPTING": "PREEMPTED",
}


def tidy(
    name: str,
    folder: Path,
    facts: pd.DataFrame,
    evals: pd.DataFrame,
    train: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
    *,
    baseline: str = BASELINE,
) -> Runs:
    """Runs in the tidy schema.

    `facts`: one row per run, with run_id, REQUIRED and any of OPTIONAL. `evals`: checked rows of run_id,
    consumed_tokens, val_loss (nats per token) and optionally train_seconds and step, each run's in order.
    `train`: run_id and any of TRAIN_COLUMNS, one row per step. `baseline`: the curriculum of the runs that others are
    compared with, upper and lower case alike. Raises UserError for impossible facts and duplicate runs, NoRunsError
    if no run has an evaluation.
    """
    if facts.empty:
        raise NoRunsError(f"{folder}: holds no runs")
    if evals.empty:
        raise NoRunsError(f"{folder}: no run has an evaluation; give at least one row with a val_loss")
    runs, notes = _facts(facts), [printable(note) for note in notes]
    _set_roles(runs, baseline, folder)
    runs, evals, train = _printable_ids(runs, evals, pd.DataFrame() if train is None else train)
    train = _train(train, runs)
    evals = _evals(evals)
    for column in ("token_budget", "max_seqlen"):
        runs[column] = runs[column].fillna(_largest(runs["run_id"], column, evals, train)).astype("int64")
    notes += _without_evaluation(runs["run_id"], evals)
    notes += _split_settings(runs)
    runs = _measured(runs, evals, train)
    notes += [*_without_seconds(runs), *_unequal_budgets(runs)]
    runs, left_out = _without_duplicates(runs)
    if left_out:
        train, evals = (f[f["run_id"].isin(runs["run_id"])].reset_index(drop=True) for f in (train, evals))
    return Runs(
        printable(name),
        "",
        folder,
        runs[list(RUN_COLUMNS)].reset_index(drop=True),
        train,
        evals,
        empty("attempt"),
        tuple(notes + left_out),
    )


def empty(kind: records.Kind) -> pd.DataFrame:
    """An empty frame with run_id and the columns of a kind of record."""
    return pd.DataFrame(columns=list(records.COLUMNS[kind])).astype(records.COLUMNS[kind]).assign(run_id="")


def default_cell(curriculum: str, batch: int, lr: float, variant: str) -> str:
    """Name of a cell that has no other: 'baseline b16 lr2e-3'."""
    return f"{curriculum} b{batch} lr{short_float(lr)}" + (f" {variant}" if variant else "")


def state(word: object) -> State:
    """A run's state from its name in cl_bench or another tool. Raises UserError for an unknown one."""
    upper = str(word).strip().upper()
    states: dict[str, State] = {name: name for name in get_args(State)} | _STATES
    if upper not in states:
        raise UserError(f"state '{word}': unknown; {did_you_mean(upper, [*states])}")
    return states[upper]


def _printable_ids(*frames: pd.DataFrame) -> list[pd.DataFrame]:
    """The frames, of which the first has all run_ids, with printable ones. Raises UserError if two become equal."""
    names = {run_id: printable(run_id) for run_id in frames[0]["run_id"].astype(str)}
    changed = {run_id: name for run_id, name in names.items() if name != run_id}
    if changed and len(set(names.values())) < len(names):
        raise UserError(f"run '{next(iter(changed.values()))}': another differs in control characters only; rename one")
    return [f if f.empty or not changed else f.assign(run_id=f["run_id"].replace(changed)) for f in frames]


def _facts(facts: pd.DataFrame) -> pd.DataFrame:
    """Checked facts: one row per run, all columns present, numbers as numbers."""
    runs = facts.reset_index(drop=True).copy()
    for column in OPTIONAL:
        if column not in runs:
            runs[column] = None
    for column in ("curriculum", "setting", "eval_set", "variant", "shape", "model", "hardware", "precision"):
        runs[column] = [_text(v) for v in runs[column]]
    runs["state"] = [state(v) if _text(v) else "DONE" for v in runs["state"]]
    if (row := checks.first_true(runs["curriculum"] == "")) is not None:
        raise _bad_fact(runs, "curriculum", row, f"name it, '{BASELINE}' for runs without one")
    runs["global_batch_size"] = _whole(runs, "global_batch_size", least=1).astype("int64")
    runs["seed"] = _whole(runs, "seed", least=0).astype("int64")
    runs["lr"] = _positive(runs, "lr")
    for column in ("token_budget", "max_seqlen", "world_size"):
        limit = checks.WHOLE if column == "token_budget" else 2**31
        runs[column] = _whole(runs, column, least=0, limit=limit, may_lack=True)
    runs["world_size"] = runs["world_size"].fillna(0).astype("int64")
    return runs


def _set_roles(runs: pd.DataFrame, baseline: str, folder: object) -> None:
    """Set the role of each run in place, and one spelling of the baseline.

    Raises UserError if no run is a baseline: of a name that was given, or of several curricula.
    """
    is_baseline = runs["curriculum"].str.casefold() == baseline.strip().casefold()
    names = list(dict.fromkeys(runs["curriculum"]))
    if not is_baseline.any() and baseline != BASELINE:
        raise UserError(
            f"{folder}: --baseline {baseline}: no run has this curriculum; {did_you_mean(baseline.strip(), names)}"
        )
    if not is_baseline.any() and len(names) > 1:
        raise UserError(
            f"{folder}: no run has the curriculum '{BASELINE}' to compare with; it has {', '.join(names)}; name the "
            "one that the others are compared with: --baseline VALUE"
        )
    own_spelling = [BASELINE] if baseline == BASELINE else runs.loc[is_baseline, "curriculum"].tolist()
    runs.loc[is_baseline, "curriculum"] = own_spelling[0]
    runs["role"] = np.where(is_baseline, "baseline", "curriculum")


def _text(value: object) -> str:
    """A label as text: empty for a missing one, 7 rather than 7.0 for a whole number."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else printable(str(value).strip())


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats, NaN for text."""

    def number(value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            return math.nan

    return runs[column].map(number).astype(float)


def _whole(
    runs: pd.DataFrame, column: str, least: int, *, limit: int = checks.WHOLE, may_lack: bool = False
) -> pd.Series[float]:
    """A column as whole numbers from `least` to below `limit`, NaN where it may lack and does."""
    values = _numbers(runs, column)
    valid = np.isfinite(values) & (values >= least) & (values < limit) & (values % 1 == 0)
    if may_lack:
        valid |= runs[column].map(_text) == ""
    if (row := checks.first_true(~valid)) is not None:
        below = f" and below 2^{limit.bit_length() - 1}" if values.iloc[row] >= limit else ""
        raise _bad_fact(runs, column, row, f"it must be a whole number of at least {least}{below}")
    return values


def _positive(runs: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column above 0, to 6 digits: a float32 of 2e-3 is logged as 0.00200000009."""
    values = _numbers(runs, column)
    if (row := checks.first_true(~(np.isfinite(values) & (values > 0)))) is not None:
        raise _bad_fact(runs, column, row, "it must be above 0")
    return values.map(lambda value: float(f"{value:.6g}"))


def _bad_fact(runs: pd.DataFrame, column: str, row: int, remedy: str) -> UserError:
    value = runs[column].iloc[row]
    shown = f"{value:g}" if isinstance(value, float) else _text(value)
    problem = f"is '{shown}'" if _text(value) else "is empty"
    return UserError(f"run '{runs['run_id'].iloc[row]}': {column} {problem}; {remedy}")


def _evals(evals: pd.DataFrame) -> pd.DataFrame:
    frame = evals.reset_index(drop=True)
    if "step" not in frame:  # the evaluation's number; runs are never compared by it
        frame = frame.assign(step=frame.groupby("run_id", sort=False).cumcount())
    if "train_seconds" not in frame:
        frame = frame.assign(train_seconds=math.nan)
    with np.errstate(over="ignore"):
        frame = frame.assign(val_ppl=np.exp(frame["val_loss"]), eval_seconds=math.nan, attempt=0)
    return frame[["run_id", *records.EVAL_COLUMNS]].astype(records.EVAL_COLUMNS)


def _train(train: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Training rows with all columns; a missing loss ratio is computed."""
    if train.empty:
        return empty("train")
    frame = train.reset_index(drop=True)
    by_run = frame.groupby("run_id", sort=False)
    if "step" not in frame:
        frame["step"] = by_run.cumcount() + 1
    if "seqlen" not in frame:
        frame["seqlen"] = frame["run_id"].map(runs.set_index("run_id")["max_seqlen"])
    if "loss_ratio" not in frame:
        before = by_run["loss"].cummin().groupby(frame["run_id"], sort=False).shift()
        frame["loss_ratio"] = frame["loss"] / before
    for column, kind in TRAIN_COLUMNS.items():
        if column not in frame:
            frame[column] = math.nan
        if kind.startswith("int"):
            frame[column] = pd.to_numeric(frame[column], errors="coerce").fillna(0)
    return frame[["run_id", *TRAIN_COLUMNS]].astype(TRAIN_COLUMNS)


def _largest(run_ids: pd.Series[str], column: str, evals: pd.DataFrame, train: pd.DataFrame) -> pd.Series[float]:
    """A missing token_budget or max_seqlen from a run's curve: its last token count, its longest length."""
    frames = [evals[["run_id", "consumed_tokens"]], train[["run_id", "consumed_tokens"]]]
    both = pd.concat(frames) if column == "token_budget" else train[["run_id", "seqlen"]]
    return run_ids.map(both.groupby("run_id").max().iloc[:, 0]).fillna(0)


def _without_evaluation(run_ids: pd.Series[str], evals: pd.DataFrame) -> list[str]:
    measured = set(evals.loc[evals["consumed_tokens"] > 0, "run_id"].unique())
    return [f"{run_id}: ended before any evaluation; it has no curve." for run_id in run_ids if run_id not in measured]


def _without_seconds(runs: pd.DataFrame) -> list[str]:
    """A note if training seconds are unknown."""
    lacking = runs.loc[runs["train_seconds"].isna(), "run_id"].tolist()
    if not lacking:
        return []
    which = (
        "the runs" if len(lacking) == len(runs) else f"{len(lacking)} of {len(runs)} runs ({', '.join(lacking[:3])})"
    )
    return [
        f"No training seconds of {which} are recorded: tokens are compared, time is not (--map train_seconds=THEIRS "
        "names another column)."
    ]


def _unequal_budgets(runs: pd.DataFrame) -> list[str]:
    """A note if finished runs of baselines and curricula of one setting have different token budgets."""
    notes = []
    finished = runs[(runs["state"] == "DONE") & runs["final_loss"].notna()]
    for _, group in finished.groupby("setting", sort=False):
        budgets = group.groupby("curriculum", sort=False)["token_budget"].median()
        theirs = group.loc[group["role"] == "baseline", "token_budget"].median()
        unequal = [name for name, budget in budgets.items() if abs(budget - theirs) > _SAME_BUDGET * theirs]
        if unequal:
            words = ", ".join(f"{name} {budget / 1e6:,.4g}M" for name, budget in budgets.items())
            notes.append(
                f"Token budgets differ ({words}): at equal tokens the runs are at different points of their "
                "learning-rate decay, which favours the shorter one."
            )
    return notes


def _split_settings(runs: pd.DataFrame) -> list[str]:
    """Give runs of different models or evaluation sets different settings, in place; returns notes.

    If the baselines are of several variants, each variant is a setting with its own baseline.
    """
    runs["setting"] = np.where(runs["setting"] == "", runs["model"], runs["setting"])
    notes = []
    baselines = runs[runs["role"] == "baseline"]
    for setting, variants in baselines.groupby("setting", sort=False)["variant"].unique().items():
        if len(variants) > 1:
            own = (runs["setting"] == setting) & runs["variant"].isin(list(variants))
            runs.loc[own, "setting"] = (runs["setting"] + " " + runs["variant"]).str.strip()[own]
            listed = ", ".join(variant or "none" for variant in variants)
            notes.append(f"Baselines are of several variants ({listed}); runs are compared within a variant.")
    for column in ("model", "eval_set"):
        if runs[column].nunique() > 1:
            runs["variant"] = (runs["variant"] + " " + runs[column]).str.strip()
    runs["setting"] = (runs["setting"] + " " + runs["eval_set"]).str.strip()
    return [*notes, *checks.evaluation_sets(runs["eval_set"].tolist())]


def _measured(runs: pd.DataFrame, evals: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the columns that follow from their curves: progress, duration, final and best loss."""
    after = evals[evals["consumed_tokens"] > 0]
    columns = ["run_id", "step", "consumed_tokens", "train_seconds"]
    both = pd.concat([evals[columns], train[columns]])
    furthest = both.groupby("run_id").max().reindex(runs["run_id"])
    final = runs["run_id"].map(after.groupby("run_id")["val_loss"].agg(lambda loss: loss.iloc[-1])).astype(float)
    best = runs["run_id"].map(evals.groupby("run_id")["val_loss"].min()).astype(float)
    seconds = furthest["train_seconds"].to_numpy(dtype=float)
    seconds = np.where(furthest["consumed_tokens"].isna(), 0.0, seconds)  # NaN: trained for an unknown time
    tokens = furthest["consumed_tokens"].fillna(0).to_numpy(dtype="int64")
    steps = furthest["step"].fillna(0).to_numpy(dtype="int64")
    cells = [
        default_cell(c, b, lr, v)
        for c, b, lr, v in zip(runs["curriculum"], runs["global_batch_size"], runs["lr"], runs["variant"], strict=True)
    ]
    return runs.assign(
        cell=cells,
        named="",
        shape=np.where(runs["shape"] == "", runs["curriculum"], runs["shape"]),
        consumed_tokens=tokens,
        train_seconds=seconds,
        final_loss=final,
        final_ppl=[perplexity(v) for v in final],
        best_ppl=[perplexity(v) for v in best],
        tokens_per_second=np.divide(tokens, seconds, out=np.full(len(runs), math.nan), where=seconds > 0),
        last_step=steps,
        planned_steps=steps,
    )


def _without_duplicates(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One run per place in the grid, and notes on the others: a finished run replaces unfinished ones.

    Raises UserError for two finished, or only unfinished, runs of one place.
    """
    place = ["curriculum", "setting", "variant", "global_batch_size", "lr", "seed"]
    drop: list[Any] = []
    notes = []
    for _, group in runs[runs.duplicated(place, keep=False)].groupby(place, sort=False):
        done = group[group["state"].isin(FINISHED)]
        if len(done) > 1 or done.empty:
            first, second = (done if len(done) > 1 else group)["run_id"].tolist()[:2]
            row = group.iloc[0]
            raise UserError(
                f"runs '{first}' and '{second}' are both {row['curriculum']}, batch {row['global_batch_size']}, LR "
                f"{short_float(row['lr'])}, seed {row['seed']}; keep one, or give each its own seed, variant or setting"
            )
        others = group.drop(index=done.index)
        drop += others.index.tolist()
        finished = done["run_id"].tolist()[0]
        notes += [
            f"{run_id}: {was.lower()}, and {finished} is the same run finished; left out."
            for run_id, was in zip(others["run_id"].tolist(), others["state"].tolist(), strict=True)
        ]
    return runs.drop(index=drop), notes
