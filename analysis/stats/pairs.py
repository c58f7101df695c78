"""One curriculum run against one baseline run: which two, at what target, and what each needed to it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.schema import Row, Runs, rows_of
from analysis.stats.crossings import Crossing, Method, saving
from analysis.stats.curves import Curve, curves
from analysis.stats.intervals import Pair, pair_of
from cl_bench.runs.status import FINISHED


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
