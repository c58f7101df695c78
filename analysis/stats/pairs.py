"""Comparison of a curriculum run with a baseline run: which baseline, at which target, and what each needed to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.schema import Row, Runs, perplexity, rows_of
from analysis.stats.crossings import Crossing, Curve, Method, curves, saving
from analysis.stats.intervals import Pair, pair_of
from analysis.stats.level import SHARE, crossing_at, crossing_of, level_pair
from analysis.stats.outcome import Outcome, instability, outcomes
from cl_bench.runs.status import FINISHED

Measure = Literal["token", "time", "rank_hour"]
MEASURES: tuple[Measure, ...] = ("token", "time", "rank_hour")
"""What a saving is measured in; rank-hours are training hours times ranks: GPU-hours if a rank is a GPU."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One curriculum run against one baseline run."""

    baseline_run_id: str | None = None
    target_loss: float = math.nan
    curriculum: Crossing | None = None
    baseline: Crossing | None = None
    note: str = ""
    waiting: bool = False
    """Whether the comparison is still to come, or has no baseline: not an outcome of either run."""
    ranks: tuple[float, float] = (1, 1)
    """Of the curriculum run and of the baseline; NaN if unknown."""
    common_log_ratio: float = math.nan
    """Log ratio of tokens at the target or, if either run never reached it, at their lowest common loss."""

    @property
    def reached(self) -> bool:
        """Whether both runs reached the target."""
        return bool(self.curriculum and self.curriculum.reached and self.baseline and self.baseline.reached)

    @property
    def target_ppl(self) -> float:
        """Perplexity of the target."""
        return perplexity(self.target_loss)

    def amounts(self, measure: Measure) -> tuple[float, float]:
        """What curriculum run and baseline needed to the target, in tokens, seconds or rank-hours; NaN: never."""
        what: Literal["tokens", "seconds"] = "tokens" if measure == "token" else "seconds"
        ours, theirs = _amount(self.curriculum, what), _amount(self.baseline, what)
        if measure != "rank_hour":
            return ours, theirs
        return ours * self.ranks[0] / 3600, theirs * self.ranks[1] / 3600

    def plain_saving(self, measure: Measure) -> float:
        """1 - the ratio of the amounts, even if the curriculum began at the target; NaN if a run never reached it."""
        ours, theirs = self.amounts(measure)
        return 1 - ours / theirs if theirs > 0 else math.nan

    def pair(self, measure: Measure) -> Pair:
        """The pair's log ratio, or its bound."""
        ranks = self.ranks if measure == "rank_hour" else (1.0, 1.0)
        if not self.curriculum or not self.baseline or any(math.isnan(n) for n in ranks):
            return Pair(math.nan, "unbounded")
        return pair_of(self.curriculum, self.baseline, "tokens" if measure == "token" else "seconds", ranks)


def _amount(crossing: Crossing | None, what: Literal["tokens", "seconds"]) -> float:
    value = None if crossing is None else crossing.tokens if what == "tokens" else crossing.seconds
    return math.nan if value is None else value


def failures(runs: Runs, outcome: Mapping[str, Outcome] | None = None) -> frozenset[str]:
    """Run_ids that count as failures of their cell: unstable runs, and baselines that did not learn."""
    outcome = outcomes(runs) if outcome is None else outcome
    unstable = {run_id for run_id, value in instability(runs.runs, outcome).items() if value}
    baselines = runs.runs.loc[runs.runs["role"] == "baseline", "run_id"].astype(str)
    return frozenset(unstable | {i for i in baselines if outcome[i].kind == "did not learn"})


class Baselines:
    """The baselines of a table of runs, by the settings that they share with curriculum runs."""

    def __init__(self, table: pd.DataFrame) -> None:
        baselines = table[table["role"] == "baseline"]
        self._by_key: dict[tuple[Any, ...], Row] = {}
        self._by_point: dict[tuple[Any, ...], list[Row]] = {}
        for run in rows_of(baselines):
            self._by_key.setdefault(self._key(run, run["global_batch_size"], run["lr"]), run)
            self._by_point.setdefault((run["setting"], run["global_batch_size"], run["lr"]), []).append(run)
        groups = baselines.groupby("setting", sort=False)
        self._best = {setting: best_baseline_point(group) for setting, group in groups}

    @staticmethod
    def _key(run: Row, batch: int, lr: float) -> tuple[Any, ...]:
        return run["setting"], batch, lr, run["seed"]

    def paired(self, run: Row) -> Row | None:
        """The baseline of the run's own batch size, learning rate, seed and setting."""
        return self._by_key.get(self._key(run, run["global_batch_size"], run["lr"]))

    def at_point(self, setting: str, batch: int, lr: float) -> list[Row]:
        """The baselines of one setting, batch size and learning rate, of every seed."""
        return self._by_point.get((setting, batch, lr), [])

    def best(self, run: Row) -> Row | None:
        """The run's seed in the best baseline cell of its setting."""
        point = self._best.get(run["setting"])
        return self._by_key.get(self._key(run, *point)) if point else None


def compare_runs(runs: Runs, run_id: str, baseline_run_id: str, method: Method = "interpolate") -> Comparison:
    """One run against another at the final perplexity of the second, whatever their batch sizes."""
    table = runs.runs
    run, baseline = (rows_of(table[table["run_id"] == i])[0] for i in (run_id, baseline_run_id))
    by_run = curves(runs.evals[runs.evals["run_id"].isin([run_id, baseline_run_id])])
    return compare(run, baseline, by_run, None, method)


def best_baseline_point(baselines: pd.DataFrame) -> tuple[int, float] | None:
    """(batch, lr) of the baselines with the lowest mean final loss over seeds; None if none finished.

    A cell with a seed that diverged, failed or still runs is taken only if every cell has one.
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
    by_run: Mapping[str, Curve],
    target_loss: float | None,
    method: Method,
    failed: Collection[str] = (),
) -> Comparison:
    """One curriculum run against one baseline (rows of Runs.runs) at `target_loss`, or at the baseline's final loss.

    `by_run` holds curves by run_id; `failed` run_ids that diverged by their record, whatever their state. A curriculum
    that failed has not arrived, even if it was at the target before.
    """
    if baseline is None:
        return Comparison(note="no baseline of the same batch, learning rate and seed", waiting=True)
    baseline_id = str(baseline["run_id"])
    if target_loss is None:
        if baseline["state"] == "DIVERGED" or baseline_id in failed:
            return Comparison(baseline_id, note="the baseline diverged: it has no final perplexity to compare at")
        if baseline["state"] != "DONE":
            return Comparison(baseline_id, note=f"the baseline is not finished ({baseline['state']})", waiting=True)
    target = float(baseline["final_loss"]) if target_loss is None else target_loss
    if str(run["run_id"]) not in by_run or baseline_id not in by_run or math.isnan(target):
        return Comparison(baseline_id, note="no evaluation yet", waiting=True)
    both = by_run[str(run["run_id"])], by_run[baseline_id]
    ours, theirs = (curve.crossing(target, method) for curve in both)
    state = "DIVERGED" if run["run_id"] in failed else str(run["state"])
    common = math.nan if state == "DIVERGED" else common_log_ratio(*both, target, method)
    if state == "DIVERGED":
        ours = _never(ours, float(run["token_budget"]))
    note = _note(ours, theirs, state, str(baseline["state"]))
    return Comparison(baseline_id, target, ours, theirs, note, common_log_ratio=common)


def _never(crossing: Crossing, token_budget: float) -> Crossing:
    """The crossing of a run that diverged: its remaining tokens would not have helped."""
    return Crossing(None, None, max(crossing.tokens_bound, token_budget), crossing.seconds_bound)


@dataclasses.dataclass(frozen=True)
class Printed:
    """One pair on cleaned curves: the saving that is printed, and the one that is tested."""

    at_target: Comparison
    """At the given target or, without one, where `test` is. A curriculum that diverged leaves a bound."""
    test: Comparison
    """At the given target or, if a run had not reached it by 80% of the smaller budget, at the lowest loss that both
    had reached by then (analysis.stats.level). Nothing is censored; a pair with a failed run has no figure."""
    log_ratio: float = math.nan
    """Of tokens, of `test`."""


NOT_PRINTED = Printed(Comparison(), Comparison())
"""Of no pair."""


def printed(
    run: Row,
    baseline: Row | None,
    clean: Mapping[str, Curve],
    target_loss: float | None,
    failed: Collection[str],
    ranks: tuple[float, float] = (1, 1),
) -> Printed:
    """One curriculum run against its baseline on cleaned curves (`clean`, by run_id).

    A pair of which a run has not been evaluated at 80% of the smaller budget yet is waiting.
    """
    if baseline is None:
        return _nothing(Comparison(note="no baseline of the same batch, learning rate and seed", waiting=True))
    run_id, baseline_id = str(run["run_id"]), str(baseline["run_id"])
    if baseline_id in failed:
        return _nothing(Comparison(baseline_id, note="the baseline diverged or did not learn"))
    theirs, end = clean.get(baseline_id), _end(run, baseline, clean)
    waiting = Comparison(baseline_id, note="not evaluated at 80% of the budget yet", waiting=True)
    if theirs is None or not end <= theirs.tokens[-1] * (1 + 1e-9):
        return _nothing(waiting)
    if run_id in failed:
        return Printed(_bounded(run, baseline_id, theirs, end, target_loss), Comparison(baseline_id, note="diverged"))
    ours = clean.get(run_id)
    level = None if ours is None else level_pair(ours, theirs, end)
    if ours is None or level is None:
        return _nothing(waiting)
    test = Comparison(baseline_id, *level, ranks=ranks)
    at_target = test
    if target_loss is not None:
        at_target = _at(baseline_id, ours, theirs, target_loss, ranks)
        test = test if target_loss < test.target_loss else at_target
    pair = test.pair("token")
    return Printed(at_target, test, math.nan if pair.censored else pair.log_ratio)


def _nothing(comparison: Comparison) -> Printed:
    return Printed(comparison, comparison)


def _end(run: Row, baseline: Row, clean: Mapping[str, Curve]) -> float:
    """Tokens at which a pair is read: SHARE of the smaller budget."""
    return SHARE * min(budget(row, clean.get(str(row["run_id"]))) for row in (run, baseline))


def budget(row: Row, curve: Curve | None) -> float:
    """Tokens that a run is trained for: those of its last evaluation once it has finished, else its token budget."""
    planned = float(row["token_budget"])
    finished = row["state"] == "DONE" or not planned > 0
    return float(curve.tokens[-1]) if finished and curve is not None else planned


def _at(baseline_id: str, ours: Curve, theirs: Curve, target_loss: float, ranks: tuple[float, float]) -> Comparison:
    return Comparison(
        baseline_id, target_loss, crossing_of(ours, target_loss), crossing_of(theirs, target_loss), ranks=ranks
    )


def _bounded(run: Row, baseline_id: str, theirs: Curve, end: float, target_loss: float | None) -> Comparison:
    """A curriculum that diverged: it never arrived, however far its budget went."""
    reached = crossing_at(theirs, end) if target_loss is None else crossing_of(theirs, target_loss)
    loss = float(np.interp(end, theirs.tokens, theirs.loss)) if target_loss is None else target_loss
    # Its seconds ended with it and bound nothing.
    never = Crossing(None, None, float(run["token_budget"]), math.nan)
    return Comparison(baseline_id, loss, never, reached, note="the run diverged")


def _note(ours: Crossing, theirs: Crossing, state: str, baseline_state: str) -> str:
    """What limits the comparison of two crossings, given the states of their runs; empty if nothing does."""
    if not theirs.reached:
        if baseline_state not in FINISHED:
            return f"the baseline is not there yet ({baseline_state})"
        return "the baseline never reached the target"
    if theirs.tokens == 0:
        return "the baseline is at the target before training"
    if theirs.from_start:
        return "the baseline begins at or below the target: when it reached it is unknown"
    if ours.from_start:
        return "begins at or below the target: the saving is a lower bound"
    if ours.reached:
        return ""
    note = f"not there yet ({state})" if state not in FINISHED else "never reached the target"
    return note + ("; the run diverged" if state == "DIVERGED" else "")


def common_log_ratio(curriculum: Curve, baseline: Curve, target_loss: float, method: Method) -> float:
    """Log ratio of tokens at `target_loss` or, above it, at the lowest loss that both curves reached.

    If both reach the target this is the pair's own log ratio. Otherwise it measures one run's lead as far as the two
    can be compared, so that costs are measured as savings are. NaN if either curve begins below that loss.
    """
    lowest = max(target_loss, curriculum.lowest(method), baseline.lowest(method))
    pair = pair_of(curriculum.crossing(lowest, method), baseline.crossing(lowest, method))
    return math.nan if pair.censored else pair.log_ratio


def mean_ranks(runs: pd.DataFrame, attempts: pd.DataFrame) -> dict[str, float]:
    """Ranks of each run_id, averaged over the training seconds that were kept; NaN if unknown.

    `runs` and `attempts` as in schema.Runs. Without attempts it is the run's world_size.
    """
    ranks = runs.set_index("run_id")["world_size"].astype("float64").replace(0.0, math.nan)
    if {"world_size", "trained_seconds", "lost_seconds"} <= set(attempts.columns):
        kept = (attempts["trained_seconds"] - attempts["lost_seconds"]).astype("float64")
        totals = pd.DataFrame({"kept": kept, "hours": kept * attempts["world_size"]}).groupby(attempts["run_id"]).sum()
        trained = totals[totals["kept"] > 0]
        ranks.update(trained["hours"] / trained["kept"])
    return {str(run_id): float(n) for run_id, n in ranks.items()}


def token_saving(comparison: Comparison, run_id: str, by_run: Mapping[str, Curve], method: Method) -> float:
    """The comparison's token saving with crossings determined by another method; NaN if a run never reached it."""
    if comparison.curriculum is None or comparison.baseline_run_id is None:
        return math.nan
    ours, theirs = (by_run[i].crossing(comparison.target_loss, method) for i in (run_id, comparison.baseline_run_id))
    value = saving(ours.tokens, theirs.tokens)
    return math.nan if value is None else value
