"""Savings of curriculum runs against baselines, per pair of runs and per cell of the grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.cost.comparability import mean_ranks
from analysis.schema import Row, Runs, rows_of
from analysis.stats.crossings import METHODS, Crossing, Method, saving
from analysis.stats.curves import Curve, curves
from analysis.stats.holm import holm
from analysis.stats.intervals import Censored, Estimate, Pair, estimate
from analysis.stats.pairs import Baselines, Comparison, compare
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
    "censored",
    "tokens_to_target",
    "seconds_to_target",
    "rank_hours_to_target",
    "baseline_tokens",
    "baseline_seconds",
    "baseline_rank_hours",
    "token_saving",
    "time_saving",
    "rank_hour_saving",
    "token_saving_bound",
    "time_saving_bound",
    "rank_hour_saving_bound",
    *(f"token_saving_{method}" for method in METHODS),
    "both_log_ratio",
    "vs_best_target_ppl",
    "vs_best_reached",
    "vs_best_token_saving",
    "vs_best_time_saving",
    "waiting",
    "note",
)
CELL = ["curriculum", "variant", "setting", "global_batch_size", "lr"]
"""What a cell's runs share: all but the seed."""
MEASURES = ("token", "time", "rank_hour")
"""What a saving is measured in; rank-hours are training hours times ranks: GPU-hours where a rank is a GPU."""


def savings(runs: Runs, target_ppl: float | None = None, method: Method = "interpolate") -> pd.DataFrame:
    """One row per curriculum run (SAVING_COLUMNS), against two baselines.

    The baseline of the same batch, learning rate, seed and setting; and the best baseline of the grid: the batch and
    learning rate whose finished baselines end lowest on average, at the same seed (columns vs_best_*). The target is
    `target_ppl`, or what that baseline finally reached. Savings are shares (0.37 is 37% less), negative for a cost;
    NaN where a run never arrived, and then *_bound is what it saved at most (or, as `censored` says, at least).
    Raises UserError when a given target is reached by no baseline.
    """
    target_loss = None if target_ppl is None else math.log(target_ppl)
    table = runs.runs
    known = curves(runs.evals)
    if target_ppl is not None:
        _check_target(table, target_ppl)
    baselines, ranks = Baselines(table), mean_ranks(table, runs.attempts)
    rows = []
    for run in rows_of(table[table["role"] == "curriculum"]):
        paired, best = (
            compare(run, baseline, known, target_loss, method) for baseline in (baselines.of(run), baselines.best(run))
        )
        paired = dataclasses.replace(paired, ranks=_ranks(ranks, paired, str(run["run_id"])))
        by_method = {m: _recrossed(paired, str(run["run_id"]), known, m) for m in METHODS}
        rows.append(_row(run, paired, best, by_method))
    return pd.DataFrame(rows, columns=list(SAVING_COLUMNS))


def _check_target(table: pd.DataFrame, target_ppl: float) -> None:
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


def _ranks(ranks: dict[str, float], found: Comparison, run_id: str) -> tuple[float, float]:
    """Of the run and its baseline, NaN where a source does not say."""
    return ranks[run_id], ranks.get(found.baseline_run_id or "", math.nan)


def _recrossed(found: Comparison, run_id: str, known: dict[str, Curve], method: Method) -> float:
    """The token saving of a comparison with crossings read off by another method."""
    if found.curriculum is None or found.baseline_run_id is None:
        return math.nan
    ours, theirs = (known[i].crossing(found.target_loss, method) for i in (run_id, found.baseline_run_id))
    value = saving(ours.tokens, theirs.tokens)
    return math.nan if value is None else value


def _amount(c: Crossing | None, what: str) -> float:
    value = getattr(c, what) if c else None
    return math.nan if value is None else float(value)


def _row(run: Row, paired: Comparison, best: Comparison, by_method: dict[Method, float]) -> dict[str, Any]:
    pairs = {measure: paired.pair(measure) for measure in MEASURES}
    savings = {m: -math.expm1(p.log_ratio) if not p.censored else math.nan for m, p in pairs.items()}
    bounds = {
        m: -math.expm1(p.log_ratio) if p.censored in ("at_most", "at_least") else math.nan for m, p in pairs.items()
    }
    ours, theirs = (_amount(c, "seconds") for c in (paired.curriculum, paired.baseline))
    keys = ("run_id", "named", "curriculum", "variant", "setting", "global_batch_size", "lr", "seed")
    return {
        **{k: run[k] for k in keys},
        "baseline_run_id": paired.baseline_run_id,
        "best_baseline_run_id": best.baseline_run_id,
        "target_loss": paired.target_loss,
        "target_ppl": math.exp(paired.target_loss),
        "reached": paired.reached,
        "censored": pairs["token"].censored,
        "tokens_to_target": _amount(paired.curriculum, "tokens"),
        "seconds_to_target": ours,
        "rank_hours_to_target": ours * paired.ranks[0] / 3600,
        "baseline_tokens": _amount(paired.baseline, "tokens"),
        "baseline_seconds": theirs,
        "baseline_rank_hours": theirs * paired.ranks[1] / 3600,
        **{f"{m}_saving": s for m, s in savings.items()},
        **{f"{m}_saving_bound": b for m, b in bounds.items()},
        **{f"token_saving_{m}": s for m, s in by_method.items()},
        "both_log_ratio": paired.both_log_ratio,
        "vs_best_target_ppl": math.exp(best.target_loss),
        "vs_best_reached": best.reached,
        "vs_best_token_saving": best.saved("tokens"),
        "vs_best_time_saving": best.saved("seconds"),
        "waiting": paired.waiting,
        "note": paired.note,
    }


def cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The cells of the grid from the rows of `savings`: seeds put together, None where there is nothing to say.

    A cell's saving is 1 minus the geometric mean of its seeds' ratios. It has a point and, with two seeds or more, a
    95% interval only when every seed arrived; else it has a bound, since dropping those that did not arrive would
    flatter the curriculum. Seeds that have nothing to be compared with yet are left out and counted in `waiting`.
    `difference` says what can be told apart from nothing at 5% over all cells looked at (Holm): "saved", "cost", or
    "undecided"; None with fewer than two seeds. It is judged on `both_*`: each seed at the target or, where one of its
    two runs never arrived, at the deepest loss that both reached. So no cell leaves the family for having lost seeds,
    and a curriculum that never arrives can be called a cost.
    """
    result = [_cell(key, group) for key, group in table.groupby(CELL, sort=False, dropna=False)]
    tested = [_family_p(cell) for cell in result]
    for cell, adjusted in zip(result, holm(tested), strict=True):
        cell["cells_tested"] = sum(not math.isnan(p) for p in tested)
        if not math.isnan(adjusted):
            cell["token_p_holm"] = adjusted
            decided = adjusted < 0.05
            cell["difference"] = ("saved" if cell["both_saving"] > 0 else "cost") if decided else "undecided"
    return result


def _family_p(cell: dict[str, Any]) -> float:
    """What a cell brings to Holm's family: with two seeds or more its p-value, or 1 where they have none."""
    if cell["of"] - cell["waiting"] < 2:
        return math.nan
    return 1.0 if cell["token_p"] is None else float(cell["token_p"])


def _cell(key: Any, group: pd.DataFrame) -> dict[str, Any]:
    curriculum, variant, setting, batch, lr = cast(tuple[str, str, str, int, float], key)
    here = group[~group["waiting"]]
    found = {measure: _estimate(here, measure) for measure in MEASURES}
    tokens = found["token"]
    both = estimate([Pair(v, "" if math.isfinite(v) else "unbounded") for v in here["both_log_ratio"]])
    targets = here["target_loss"].dropna()
    vs_best = {m: _plain(here[f"vs_best_{m}_saving"]) for m in ("token", "time")}
    return {
        "named": ", ".join(dict.fromkeys(str(n) for n in group["named"] if n)),
        "curriculum": str(curriculum),
        "variant": str(variant),
        "setting": str(setting),
        "global_batch_size": int(batch),
        "lr": float(lr),
        "run_ids": [str(r) for r in group["run_id"]],
        "baseline_run_ids": [r for r in group["baseline_run_id"] if isinstance(r, str)],
        "target_ppl": math.exp(float(targets.mean())) if len(targets) else None,
        "reached": int(group["reached"].sum()),
        "of": len(group),
        "waiting": int(group["waiting"].sum()),
        **{k: v for measure, e in found.items() for k, v in _plain_estimate(measure, e).items()},
        "interval_method": tokens.method,
        "censored": tokens.censored if len(here) else "",
        "both_saving": both.point,
        "both_saving_low": both.low,
        "both_saving_high": both.high,
        "token_p": both.p_value,
        "token_p_holm": None,
        "cells_tested": 0,
        "difference": None,
        **{f"token_saving_{m}": _plain(here[f"token_saving_{m}"]) for m in METHODS},
        "vs_best_reached": int(group["vs_best_reached"].sum()),
        "vs_best_token_saving": vs_best["token"],
        "vs_best_time_saving": vs_best["time"],
        "note": "; ".join(dict.fromkeys(n for n in group["note"] if n)),
    }


def _plain_estimate(measure: str, found: Estimate) -> dict[str, float | None]:
    name = f"{measure}_saving"
    return {name: found.point, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_bound": found.bound}


def _estimate(rows: pd.DataFrame, measure: str) -> Estimate:
    return estimate(
        [
            _pair_of(s, b, c)
            for s, b, c in zip(
                rows[f"{measure}_saving"], rows[f"{measure}_saving_bound"], rows["censored"], strict=True
            )
        ]
    )


def _pair_of(saved: float, bound: float, censored: Censored) -> Pair:
    if not math.isnan(saved):
        return Pair(math.log1p(-saved)) if saved < 1 else Pair(math.nan, "unbounded")
    return Pair(math.log1p(-bound), censored) if not math.isnan(bound) else Pair(math.nan, "unbounded")


def _plain(savings: Sequence[float] | pd.Series[float]) -> float | None:
    """One minus the geometric mean of the ratios of seeds that all have one; else None."""
    values = np.asarray(savings, dtype=float)
    if not len(values) or np.isnan(values).any() or (values >= 1).any():
        return None
    return -math.expm1(float(np.log1p(-values).mean()))
