"""The answer to a sweep's question, typed: page, tables, verdict.json and sentences are renderings of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd

from analysis.cost import hours
from analysis.cost.tuning import Charges
from analysis.schema import Cell, Runs, cell_of, perplexity, rows_of
from analysis.stats.best_vs_best import Best, best_against_best
from analysis.stats.boundary import all_boundaries
from analysis.stats.clean_time import clean_settings, with_clean_seconds
from analysis.stats.clock import Clock, clock_of
from analysis.stats.correlation import correlations
from analysis.stats.crossings import Method, curves
from analysis.stats.evaluations import Unlike, unlike_arms
from analysis.stats.outcome import DEFAULT, Outcome, Rules
from analysis.stats.over_targets import over_targets
from analysis.stats.pairs import best_baseline_point
from analysis.stats.power import Power, sweep_power
from analysis.stats.savings import CellSaving, RunSaving, cell_savings, run_savings, tested, with_clock
from analysis.stats.stability import Instability, judge_runs, stability, with_outcomes
from analysis.stats.unpaired import unpaired_cells
from cl_bench.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a report."""

    target_ppl: float | None = None
    """Target perplexity; None: each baseline's final perplexity."""
    method: Method = "interpolate"
    """How a crossing is determined."""
    price: float | None = None
    """Money per rank-hour."""
    searches: tuple[str, ...] = ()
    """Names of tuning searches to charge in addition to those that belong to the runs."""
    refresh_s: float | None = None
    """Seconds after which the page reloads itself; None: never."""
    rules: Rules = DEFAULT
    """When a run counts as diverged or as not having learned."""

    def __post_init__(self) -> None:
        target = self.target_ppl
        if target is not None and not (math.isfinite(target) and target > 1):
            raise UserError(f"target {target:g}: a perplexity is a number above 1 (for a loss of L nats, exp(L))")
        hours.check_price(self.price)

    def arguments(self) -> str:
        """As arguments of the command line."""
        words = f" --target {self.target_ppl:g}" if self.target_ppl is not None else ""
        words += f" --crossing {self.method}" if self.method != "interpolate" else ""
        words += f" --price {self.price:g}" if self.price is not None else ""
        words += self.rules.arguments()
        return words + (f" --tuning {','.join(self.searches)}" if self.searches else "")


@dataclasses.dataclass(frozen=True)
class BestBaseline:
    """The baseline cell with the lowest mean final loss over seeds."""

    cell: Cell
    final_ppl: float
    """Geometric mean over its finished seeds."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The results of a sweep."""

    runs: Runs
    """A run that finished, but diverged by its record, has the state DIVERGED."""
    options: Options
    run_savings: tuple[RunSaving, ...]
    """One per curriculum run, in the order of `runs.runs`."""
    cells: tuple[CellSaving, ...]
    """One per curriculum cell; index i is `cell` i of `targets`."""
    best_baseline: BestBaseline | None
    """Of the grid; None if no baseline finished, or if the runs have several settings."""
    best: tuple[Best, ...]
    """Best against best, one per setting."""
    targets: pd.DataFrame
    """One row per target and cell (analysis.stats.over_targets.TARGET_COLUMNS)."""
    stability: pd.DataFrame
    """One row per run (analysis.stats.stability.STABILITY_COLUMNS)."""
    frontier: pd.DataFrame
    """Stability boundaries (analysis.stats.boundary.FRONTIER_COLUMNS)."""
    correlation: pd.DataFrame
    """analysis.stats.correlation.CORRELATION_COLUMNS."""
    cost: hours.Cost
    power: Power
    """What the tests of this sweep can detect."""
    unlike: tuple[Unlike, ...]
    """Evaluation noise, grids and budgets that differ between the arms of a cell, and runs that can hardly be read."""

    clock: Clock
    """Seconds per step of each shape, and how much slower or faster each run was."""
    clean_settings: frozenset[str]
    """Settings whose printed times are by the clock; the others' are as recorded."""

    # How each run ended, and what that says about stability.
    instability: Instability
    """Outcomes, events, final loss over learning rate, and the joint boundary."""

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The outcome of each run_id."""
        return self.instability.outcomes

    @property
    def rules_sentence(self) -> str:
        """When a run counts as diverged or as not having learned, and which runs a rule could not judge."""
        count = len(self.runs.runs)
        return self.options.rules.sentence(count, count - len(self.runs.unigram))

    @property
    def target_ppl(self) -> float | None:
        """The given target, else the final perplexity of the grid's best baseline, if there is one."""
        if self.options.target_ppl is not None:
            return self.options.target_ppl
        return None if self.best_baseline is None else self.best_baseline.final_ppl

    @property
    def target_kind(self) -> Literal["given", "best_baseline_final", "per_cell"]:
        """The origin of `target_ppl`."""
        if self.options.target_ppl is not None:
            return "given"
        several = self.baselines["setting"].nunique() > 1
        return "per_cell" if several else "best_baseline_final"

    @property
    def baselines(self) -> pd.DataFrame:
        """The baselines' rows of `runs.runs`."""
        return self.runs.runs[self.runs.runs["role"] == "baseline"]

    @property
    def cells_tested(self) -> int:
        """Cells that take part in the tests of significance."""
        return sum(map(tested, self.cells))


def analyse(runs: Runs, options: Options | None = None, charges: Charges | None = None) -> Answer:
    """The answer of loaded runs; `charges` are the tuning searches to count.

    Raises UserError if no baseline reached a given target.
    """
    options = options or Options()
    judged = judge_runs(runs, options.rules)
    runs, outcome = with_outcomes(runs, judged.outcomes), judged.outcomes
    clock = clock_of(runs)
    timed, settings = with_clean_seconds(runs, clock), clean_settings(runs, clock)
    by_run = run_savings(runs, options.target_ppl, options.method, outcome, timed)
    cells = with_clock(cell_savings(by_run, unpaired_cells(timed, options.target_ppl, outcome)), clock, settings)
    targets, common = over_targets(runs, cells, options.method)
    cells = tuple(dataclasses.replace(c, common_target=t) for c, t in zip(cells, common, strict=True))
    best = best_against_best(timed, options.method, options.target_ppl, outcome)
    recorded = best if timed is runs else best_against_best(runs, options.method, options.target_ppl, outcome)
    best = [dataclasses.replace(b, recorded_time=r.printed_time) for b, r in zip(best, recorded, strict=True)]
    ratios = stability(runs, judged)
    return Answer(
        runs,
        options,
        by_run,
        cells,
        best_baseline(runs),
        tuple(best),
        targets,
        ratios,
        all_boundaries(runs.runs, ratios),
        correlations(runs.runs, runs.train),
        hours.cost(runs.runs, runs.train, runs.attempts, by_run, charges, options.price),
        sweep_power([c.log_ratios for c in cells if tested(c)]),
        unlike_arms(runs.runs, _run_ids(cells), curves(runs.evals)),
        clock,
        settings,
        judged,
    )


def _run_ids(cells: Sequence[CellSaving]) -> list[tuple[Cell, list[tuple[str, str]]]]:
    """The (curriculum, baseline) run_ids of each cell's pairs."""
    return [
        (c.cell, [(r.run_id, r.paired.baseline_run_id) for r in c.runs if r.paired.baseline_run_id is not None])
        for c in cells
    ]


def best_baseline(runs: Runs) -> BestBaseline | None:
    """The best baseline of the grid: none if the runs differ in their settings (models, texts)."""
    baselines = runs.runs[runs.runs["role"] == "baseline"]
    point = best_baseline_point(baselines) if baselines["setting"].nunique() == 1 else None
    if point is None:
        return None
    batch, lr = point
    cell = baselines[
        (baselines["global_batch_size"] == batch) & (baselines["lr"] == lr) & (baselines["state"] == "DONE")
    ]
    return BestBaseline(cell_of(rows_of(cell)[0]), perplexity(float(cell["final_loss"].mean())))
