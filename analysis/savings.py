"""Savings of curriculum runs against baselines, per pair of runs and per cell of the grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from analysis.schema import Runs
from analysis.targets import Crossing, Method, crossing, saving
from cl_bench.errors import UserError

SAVING_COLUMNS = (
    "run_id",
    "named",
    "baseline_run_id",
    "best_baseline_run_id",
    "curriculum",
    "variant",
    "setting",
    "global_batch_size",
    "lr",
    "seed",
    "target_loss",
    "target_ppl",
    "reached",
    "tokens_to_target",
    "seconds_to_target",
    "baseline_tokens",
    "baseline_seconds",
    "token_saving",
    "time_saving",
    "token_saving_bound",
    "vs_best_target_ppl",
    "vs_best_reached",
    "vs_best_token_saving",
    "vs_best_time_saving",
    "note",
)
_CELL = ["curriculum", "variant", "setting", "global_batch_size", "lr"]
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One curriculum run against one baseline run."""

    baseline_run_id: str | None = None
    target_loss: float = math.nan
    curriculum: Crossing | None = None
    baseline: Crossing | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        return bool(self.curriculum and self.curriculum.reached and self.baseline and self.baseline.reached)

    def saved(self, what: str) -> float:
        """Saving in 'tokens' or 'seconds', NaN where there is none."""
        if not self.curriculum or not self.baseline:
            return math.nan
        value = saving(getattr(self.curriculum, what), getattr(self.baseline, what))
        return math.nan if value is None else value

    @property
    def bound(self) -> float:
        """Where the curriculum never arrived: it saved at most this share of the tokens."""
        if not self.curriculum or not self.baseline or self.curriculum.reached or not self.baseline.tokens:
            return math.nan
        return 1 - self.curriculum.tokens_bound / self.baseline.tokens


def savings(runs: Runs, target_ppl: float | None = None, method: Method = "interpolate") -> pd.DataFrame:
    """One row per curriculum run (SAVING_COLUMNS), against two baselines.

    The baseline of the same batch, learning rate, seed and setting; and the best baseline of the grid: the batch and
    learning rate whose finished baselines end lowest on average, at the same seed (columns vs_best_*). The target is
    `target_ppl`, or what that baseline finally reached. Savings are shares (0.37 is 37% less), negative for a cost.
    Raises UserError when a given target is reached by no baseline.
    """
    target_loss = None if target_ppl is None else math.log(target_ppl)
    table = runs.runs
    curves = {str(run_id): curve for run_id, curve in runs.evals.groupby("run_id", sort=False)}
    if target_ppl is not None:
        _check_target(table, curves, target_ppl)
    rows = []
    for _, run in table[table["role"] == "curriculum"].iterrows():
        baselines = table[(table["role"] == "baseline") & (table["setting"] == run["setting"])]
        same_seed = baselines[baselines["seed"] == run["seed"]]
        same = same_seed[(same_seed["global_batch_size"] == run["global_batch_size"]) & (same_seed["lr"] == run["lr"])]
        best_cell = best_baseline_cell(baselines)
        best = same_seed.iloc[0:0]
        if best_cell is not None:
            best = same_seed[(same_seed["global_batch_size"] == best_cell[0]) & (same_seed["lr"] == best_cell[1])]
        paired = _compare(run, same, curves, target_loss, method)
        against_best = _compare(run, best, curves, target_loss, method)
        rows.append(_row(run, paired, against_best))
    return pd.DataFrame(rows, columns=list(SAVING_COLUMNS))


def compare_runs(runs: Runs, run_id: str, baseline_run_id: str, method: Method = "interpolate") -> Comparison:
    """One run against another, at the perplexity that the second finally reached, whatever their batches."""
    run, baseline = (runs.runs[runs.runs["run_id"] == i] for i in (run_id, baseline_run_id))
    curves = {i: curve for i in (run_id, baseline_run_id) if len(curve := runs.curve(i))}
    return _compare(run.iloc[0], baseline, curves, None, method)


def best_baseline_cell(baselines: pd.DataFrame) -> tuple[int, float] | None:
    """(batch, lr) whose baselines end at the lowest mean loss over seeds; None where none finished.

    A cell some of whose seeds diverged, failed or still run is passed over while there is one without.
    """
    finished = (baselines["state"] == "DONE") & baselines["final_loss"].notna()
    groups = [baselines["global_batch_size"], baselines["lr"]]
    whole = baselines[finished.groupby(groups).transform("all")]
    done = whole if len(whole) else baselines[finished]
    if done.empty:
        return None
    means = done.groupby(["global_batch_size", "lr"])["final_loss"].mean()
    batch, lr = means.index[int(np.argmin(means.to_numpy()))]
    return int(batch), float(lr)


def _check_target(table: pd.DataFrame, curves: dict[str, pd.DataFrame], target_ppl: float) -> None:
    baselines = table[table["role"] == "baseline"]
    if baselines.empty or (baselines["best_ppl"] <= target_ppl).any():
        return
    best = round_up(float(baselines["best_ppl"].min()))
    raise UserError(
        f"target {target_ppl:g}: no baseline reached it (the best got to perplexity {best:g}); choose {best:g} or above"
    )


def round_up(value: float) -> float:
    """The next number of four significant digits, so that a reader who types it is at or above `value`."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3) if value > 0 else 1e-4
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def _compare(
    run: pd.Series[Any],
    baselines: pd.DataFrame,
    curves: dict[str, pd.DataFrame],
    target_loss: float | None,
    method: Method,
) -> Comparison:
    if baselines.empty:
        return Comparison(note="no baseline of the same batch, learning rate and seed")
    baseline = baselines.iloc[0]
    baseline_id = str(baseline["run_id"])
    if target_loss is None:
        if baseline["state"] == "DIVERGED":
            return Comparison(baseline_id, note="the baseline diverged: it has no final perplexity to compare at")
        if baseline["state"] != "DONE":
            return Comparison(baseline_id, note=f"the baseline is not finished ({baseline['state']})")
        target = float(baseline["final_loss"])
    else:
        target = target_loss
    if str(run["run_id"]) not in curves or baseline_id not in curves or math.isnan(target):
        return Comparison(baseline_id, note="no evaluation yet")
    ours, theirs = (_crossing(curves[i], target, method) for i in (str(run["run_id"]), baseline_id))
    note = ""
    if not theirs.reached:
        note = "the baseline never reached the target"
    elif theirs.tokens == 0:
        note = "the baseline is at the target before training"
    elif not ours.reached:
        unfinished = run["state"] not in ("DONE", "DIVERGED")
        note = f"not there yet ({run['state']})" if unfinished else "never reached the target"
        note += "; the run diverged" if run["state"] == "DIVERGED" else ""
    return Comparison(baseline_id, target, ours, theirs, note)


def _crossing(curve: pd.DataFrame, target_loss: float, method: Method) -> Crossing:
    return crossing(
        curve["consumed_tokens"].to_numpy(),
        curve["train_seconds"].to_numpy(),
        curve["val_loss"].to_numpy(),
        target_loss,
        method,
    )


def _row(run: pd.Series[Any], paired: Comparison, best: Comparison) -> dict[str, Any]:
    def amount(c: Crossing | None, what: str) -> float:
        value = getattr(c, what) if c else None
        return math.nan if value is None else float(value)

    return {
        **{
            k: run[k]
            for k in ("run_id", "named", "curriculum", "variant", "setting", "global_batch_size", "lr", "seed")
        },
        "baseline_run_id": paired.baseline_run_id,
        "best_baseline_run_id": best.baseline_run_id,
        "target_loss": paired.target_loss,
        "target_ppl": math.exp(paired.target_loss),
        "reached": paired.reached,
        "tokens_to_target": amount(paired.curriculum, "tokens"),
        "seconds_to_target": amount(paired.curriculum, "seconds"),
        "baseline_tokens": amount(paired.baseline, "tokens"),
        "baseline_seconds": amount(paired.baseline, "seconds"),
        "token_saving": paired.saved("tokens"),
        "time_saving": paired.saved("seconds"),
        "token_saving_bound": paired.bound,
        "vs_best_target_ppl": math.exp(best.target_loss),
        "vs_best_reached": best.reached,
        "vs_best_token_saving": best.saved("tokens"),
        "vs_best_time_saving": best.saved("seconds"),
        "note": paired.note,
    }


def cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The cells of the grid from the rows of `savings`: seeds put together, None where there is nothing to say.

    A cell's saving is 1 minus the geometric mean of its seeds' ratios, and only given when every seed reached the
    target: dropping those that did not would flatter the curriculum. With two seeds or more there is a 95% interval.
    """
    result = []
    for key, group in table.groupby(_CELL, sort=False, dropna=False):
        tokens, seconds, best_tokens, best_seconds = (
            summarise(group[c].tolist()) if group[c].notna().all() else (None, None, None)
            for c in ("token_saving", "time_saving", "vs_best_token_saving", "vs_best_time_saving")
        )
        targets = [float(t) for t in group["target_ppl"] if not math.isnan(t)]
        bounds = [float(b) for b in group["token_saving_bound"] if not math.isnan(b)]
        curriculum, variant, setting, batch, lr = cast(tuple[str, str, str, int, float], key)
        result.append(
            {
                "named": ", ".join(dict.fromkeys(str(n) for n in group["named"] if n)),
                "curriculum": str(curriculum),
                "variant": str(variant),
                "setting": str(setting),
                "global_batch_size": int(batch),
                "lr": float(lr),
                "run_ids": [str(r) for r in group["run_id"]],
                "baseline_run_ids": [r for r in group["baseline_run_id"] if isinstance(r, str)],
                "target_ppl": math.exp(float(np.mean(np.log(targets)))) if targets else None,
                "reached": int(group["reached"].sum()),
                "of": len(group),
                "token_saving": tokens[0],
                "token_saving_low": tokens[1],
                "token_saving_high": tokens[2],
                "time_saving": seconds[0],
                "time_saving_low": seconds[1],
                "time_saving_high": seconds[2],
                "token_saving_bound": max(bounds) if bounds else None,
                "vs_best_reached": int(group["vs_best_reached"].sum()),
                "vs_best_token_saving": best_tokens[0],
                "vs_best_time_saving": best_seconds[0],
                "note": "; ".join(dict.fromkeys(n for n in group["note"] if n)),
            }
        )
    return result


def summarise(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """(point, low, high) of savings over seeds: Student's t on the log of the ratios 1 - saving.

    A ratio of two token counts is positive and skewed, so its mean and interval are taken on the log. One seed: no
    interval (None).
    """
    logs = np.log1p(-np.asarray(values, dtype=float))
    mean = float(logs.mean())
    if len(logs) < 2:
        return 1 - math.exp(mean), None, None
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1) * stats.sem(logs))
    return 1 - math.exp(mean), 1 - math.exp(mean + half), 1 - math.exp(mean - half)
