"""Savings of curriculum runs against baselines, per pair of runs and per cell of the grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.clocks import mean_ranks
from analysis.curves import Curve, curves
from analysis.intervals import Censored, Estimate, Pair, estimate, pair_of
from analysis.multiple import holm
from analysis.schema import Row, Runs, rows_of
from analysis.targets import METHODS, Crossing, Method, saving
from cl_bench.errors import UserError
from cl_bench.status import FINISHED

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


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One curriculum run against one baseline run."""

    baseline_run_id: str | None = None
    target_loss: float = math.nan
    curriculum: Crossing | None = None
    baseline: Crossing | None = None
    note: str = ""
    waiting: bool = False
    """Whether there is nothing to compare yet, or nothing to compare with: no outcome of either run."""
    ranks: tuple[float, float] = (1, 1)
    """Of the curriculum run and of the baseline."""
    both_log_ratio: float = math.nan
    """Log ratio of tokens at the target or, where one of them never arrived, at the deepest loss that both reached."""

    @property
    def reached(self) -> bool:
        """Whether both arrived."""
        return bool(self.curriculum and self.curriculum.reached and self.baseline and self.baseline.reached)

    def saved(self, what: str) -> float:
        """Saving in 'tokens' or 'seconds', NaN where there is none."""
        if not self.curriculum or not self.baseline:
            return math.nan
        value = saving(getattr(self.curriculum, what), getattr(self.baseline, what))
        return math.nan if value is None else value

    def pair(self, measure: str) -> Pair:
        """The pair's log ratio in one of MEASURES, or its bound."""
        if not self.curriculum or not self.baseline:
            return Pair(math.nan, "unbounded")
        if measure == "token":
            return pair_of(self.curriculum, self.baseline)
        ranks = self.ranks if measure == "rank_hour" else (1.0, 1.0)
        if any(math.isnan(n) for n in ranks):
            return Pair(math.nan, "unbounded")
        return pair_of(self.curriculum, self.baseline, "seconds", ranks)


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


class Baselines:
    """The baselines of a table of runs, found by what they must share with a curriculum run."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table[table["role"] == "baseline"]
        self._of: dict[tuple[Any, ...], Row] = {}
        for run in rows_of(self._table):
            self._of.setdefault(self._key(run, run["global_batch_size"], run["lr"]), run)
        groups = self._table.groupby("setting", sort=False)
        self._best = {setting: best_baseline_cell(group) for setting, group in groups}

    @staticmethod
    def _key(run: Row, batch: int, lr: float) -> tuple[Any, ...]:
        return run["setting"], batch, lr, run["seed"]

    def of(self, run: Row) -> Row | None:
        """The baseline of the run's own batch, learning rate, seed and setting."""
        return self._of.get(self._key(run, run["global_batch_size"], run["lr"]))

    def best(self, run: Row) -> Row | None:
        """The run's seed in the best baseline cell of its setting."""
        cell = self._best.get(run["setting"])
        return self._of.get(self._key(run, *cell)) if cell else None


def compare_runs(runs: Runs, run_id: str, baseline_run_id: str, method: Method = "interpolate") -> Comparison:
    """One run against another, at the perplexity that the second finally reached, whatever their batches."""
    table = runs.runs
    run, baseline = (rows_of(table[table["run_id"] == i])[0] for i in (run_id, baseline_run_id))
    known = curves(runs.evals[runs.evals["run_id"].isin([run_id, baseline_run_id])])
    return compare(run, baseline, known, None, method)


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


def compare(
    run: Row,
    baseline: Row | None,
    known: dict[str, Curve],
    target_loss: float | None,
    method: Method,
) -> Comparison:
    """One curriculum run against one baseline (rows of Runs.runs), at `target_loss` or where the baseline ended."""
    if baseline is None:
        return Comparison(note="no baseline of the same batch, learning rate and seed", waiting=True)
    baseline_id = str(baseline["run_id"])
    if target_loss is None:
        if baseline["state"] == "DIVERGED":
            return Comparison(baseline_id, note="the baseline diverged: it has no final perplexity to compare at")
        if baseline["state"] != "DONE":
            return Comparison(baseline_id, note=f"the baseline is not finished ({baseline['state']})", waiting=True)
        target = float(baseline["final_loss"])
    else:
        target = target_loss
    if str(run["run_id"]) not in known or baseline_id not in known or math.isnan(target):
        return Comparison(baseline_id, note="no evaluation yet", waiting=True)
    pair_of_curves = known[str(run["run_id"])], known[baseline_id]
    ours, theirs = (curve.crossing(target, method) for curve in pair_of_curves)
    both = both_log_ratio(*pair_of_curves, target, method)
    if run["state"] == "DIVERGED" and not ours.reached:  # it would not have got there with the rest of its tokens
        ours = dataclasses.replace(ours, tokens_bound=max(ours.tokens_bound, float(run["token_budget"])))
    note = ""
    if not theirs.reached:
        note = "the baseline never reached the target"
        if baseline["state"] not in FINISHED:
            note = f"the baseline is not there yet ({baseline['state']})"
    elif theirs.tokens == 0:
        note = "the baseline is at the target before training"
    elif theirs.from_start:
        note = "the baseline begins at or below the target: when it got there nobody knows"
    elif ours.from_start:
        note = "begins at or below the target: at least so much was saved"
    elif not ours.reached:
        note = f"not there yet ({run['state']})" if run["state"] not in FINISHED else "never reached the target"
        note += "; the run diverged" if run["state"] == "DIVERGED" else ""
    return Comparison(baseline_id, target, ours, theirs, note, both_log_ratio=both)


def both_log_ratio(curriculum: Curve, baseline: Curve, target_loss: float, method: Method) -> float:
    """Log ratio of tokens at `target_loss` or, above it, at the deepest loss that both curves reached.

    Where both arrive this is the pair's own log ratio. Where one does not, the other's lead is measured as far as the
    two can be compared, so that a cost can be told as a saving can. NaN where either begins below that loss.
    """
    deepest = max(target_loss, curriculum.depth(method), baseline.depth(method))
    found = pair_of(curriculum.crossing(deepest, method), baseline.crossing(deepest, method))
    return math.nan if found.censored else found.log_ratio


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
