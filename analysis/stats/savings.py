"""Savings of curriculum runs against baselines, per run and per cell of the grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pandas as pd

from analysis.schema import Cell, Row, Runs, cell_of, perplexity, rows_of
from analysis.stats.censored import censored_estimate
from analysis.stats.clean_time import jackknifed, with_seconds_of
from analysis.stats.clock import Clock
from analysis.stats.crossings import METHODS, Curve, Method, curves
from analysis.stats.intervals import NO_ESTIMATE, SIGNIFICANCE, Estimate, Pair, estimate, estimate_savings, holm
from analysis.stats.loss_difference import NO_DIFFERENCE, LossDifference, difference_at_end, loss_difference
from analysis.stats.outcome import Outcome
from analysis.stats.pairs import (
    NOT_PRINTED,
    Baselines,
    Comparison,
    Measure,
    Printed,
    compare,
    failures,
    mean_ranks,
    printed,
    token_saving,
)
from analysis.stats.power import equivalence_p
from analysis.stats.smoothing import clean_curves
from analysis.stats.unpaired import Unpaired
from cl_bench.errors import UserError

Difference = Literal["saved", "cost", "undecided"]
"""Whether a difference in tokens is significant over all cells tested, and its sign."""


@dataclasses.dataclass(frozen=True)
class RunSaving:
    """One curriculum run against the baseline of its own cell and seed, and against the best baseline of the grid."""

    run_id: str
    cell: Cell
    seed: int
    paired: Comparison
    """With the baseline of the same batch size, learning rate, seed and setting."""
    best: Comparison
    """With the same seed of the batch size and learning rate whose finished baselines have the lowest mean loss."""
    token_saving_by_method: Mapping[Method, float] = dataclasses.field(default_factory=dict)
    """`paired`'s token saving by each way to determine a crossing; NaN if a run never reached the target."""
    printed: Printed = NOT_PRINTED
    """`paired` on cleaned curves, at the printed target, in clean seconds if the setting has them."""
    recorded: Comparison = dataclasses.field(default_factory=Comparison)
    """`printed.at_target` in recorded seconds."""
    loss: float = math.nan
    """Final validation loss at equal tokens, curriculum minus baseline (nats); NaN unless both finished."""
    loss_at_seconds: float = math.nan
    """The same at equal training seconds."""
    diverged: bool = False
    """Whether the curriculum run was unstable (analysis.stats.outcome.instability): it has saved nothing."""
    baseline_diverged: bool = False
    """Whether the paired baseline was unstable or did not learn: there is nothing to compare with."""


@dataclasses.dataclass(frozen=True)
class CommonTarget:
    """A cell's saving at the lowest target that all of its runs reached: nothing is censored."""

    target_loss: float
    tokens: Estimate
    time: Estimate

    @property
    def target_ppl(self) -> float:
        """Perplexity of the target."""
        return perplexity(self.target_loss)


@dataclasses.dataclass(frozen=True)
class CellSaving:
    """A cell's saving against its baselines, seeds combined.

    It has a point and, with two seeds or more, an interval only if every seed reached the target; otherwise it has a
    bound, since dropping the seeds that did not would flatter the curriculum. Seeds that cannot be compared yet are
    left out of every estimate and counted in `waiting`.
    """

    cell: Cell
    runs: tuple[RunSaving, ...]
    """One per seed."""
    target_ppl: float | None
    """Geometric mean over seeds; None if no seed has a target."""
    tokens: Estimate
    time: Estimate
    rank_hours: Estimate
    lowest_common: Estimate
    """Tokens, each seed at the target or, if one of its two runs never reached it, at their lowest common loss."""
    vs_best_tokens: Estimate
    """Against the best baseline of the grid."""
    vs_best_time: Estimate
    tokens_by_method: Mapping[Method, Estimate]
    """`tokens` by each way to determine a crossing."""
    common_target: CommonTarget | None = None
    """None if no target was reached by all runs."""
    p_holm: float | None = None
    """`test`'s p-value, adjusted over the cells tested; None with fewer than two seeds."""
    difference: Difference | None = None
    """None with fewer than two seeds. A cell with a diverged curriculum run has not saved."""
    printed: Estimate = NO_ESTIMATE
    """Tokens, on cleaned curves at the given target or, without one, at the loss that both runs of a seed had reached
    by 80% of their budget (analysis.stats.level). A diverged curriculum run makes it a bound."""
    printed_time: Estimate = NO_ESTIMATE
    """Training seconds, read at the same places: by the clock (analysis.stats.clock) if the setting has clean ones."""
    recorded_time: Estimate = NO_ESTIMATE
    """The same in seconds as recorded."""
    printed_rank_hours: Estimate = NO_ESTIMATE
    printed_ppl: float | None = None
    """Perplexity of the printed target, geometric mean over seeds."""
    test: Estimate = NO_ESTIMATE
    """Tokens, where nothing is censored: the basis of `difference`. Without pairs of which a run diverged."""
    final: Estimate = NO_ESTIMATE
    """`tokens`, the paper's definition; if seeds are bounds, both ends of the interval by a censored likelihood."""
    loss: LossDifference = NO_DIFFERENCE
    """Final validation loss at equal tokens."""
    loss_at_seconds: LossDifference = NO_DIFFERENCE
    """Validation loss at equal training seconds."""
    unpaired: Unpaired | None = None
    """Where seeds do not pair: the two arms compared as a whole; `printed`, `test` and `loss` are then its own."""
    equivalence_p: float | None = None
    """Of a saving or cost of 5% or more (TOST), adjusted over the cells tested."""

    @property
    def seeds(self) -> int:
        """Curriculum runs, compared or not."""
        return len(self.runs)

    @property
    def reached(self) -> int:
        """Seeds of which both runs reached the target."""
        return sum(r.paired.reached for r in self.runs)

    @property
    def vs_best_reached(self) -> int:
        """Seeds of which both runs reached the target of the best baseline."""
        return sum(r.best.reached for r in self.runs)

    @property
    def waiting(self) -> int:
        """Seeds that cannot be compared yet."""
        return 0 if self.unpaired else sum(r.paired.waiting for r in self.runs)

    @property
    def compared(self) -> int:
        """Seeds that are compared."""
        return self.seeds - self.waiting

    @property
    def diverged(self) -> int:
        """Curriculum runs that were unstable."""
        return sum(r.diverged for r in self.runs)

    @property
    def baseline_diverged(self) -> int:
        """Seeds whose baseline was unstable or did not learn."""
        return sum(r.baseline_diverged for r in self.runs)

    @property
    def log_ratios(self) -> list[float]:
        """Log ratio of tokens of each pair that is tested, curriculum / baseline."""
        return [r.printed.log_ratio for r in self.runs if math.isfinite(r.printed.log_ratio)]

    @property
    def equivalent(self) -> bool:
        """Whether a saving or cost of 5% or more is excluded, and no difference is significant."""
        p = self.equivalence_p
        return self.difference == "undecided" and p is not None and p < SIGNIFICANCE

    @property
    def note(self) -> str:
        """The notes of the seeds' comparisons."""
        return "; ".join(dict.fromkeys(r.paired.note for r in self.runs if r.paired.note))


def run_savings(
    runs: Runs,
    target_ppl: float | None = None,
    method: Method = "interpolate",
    outcome: Mapping[str, Outcome] | None = None,
    timed: Runs | None = None,
) -> tuple[RunSaving, ...]:
    """The saving of every curriculum run, at `target_ppl` or at the final perplexity of the baseline in question.

    `timed` are the runs with clean seconds (analysis.stats.clean_time), which the printed saving and the loss at equal
    seconds use. `outcome` is that of every run_id (analysis.stats.outcome.outcomes; by default without the unigram
    rule). Raises UserError if no baseline reached a given target.
    """
    target_loss = None if target_ppl is None else math.log(target_ppl)
    if target_ppl is not None:
        _check_target(runs.runs, target_ppl)
    by_run = curves(runs.evals)
    by_clock = by_run if timed is None else curves(timed.evals)
    clean, failed = clean_curves(by_clock), failures(runs, outcome)
    baselines, ranks = Baselines(runs.runs), mean_ranks(runs.runs, runs.attempts)

    def saving(run: Row) -> RunSaving:
        run_id, own = str(run["run_id"]), baselines.paired(run)
        paired, best = (
            compare(run, baseline, by_run, target_loss, method, failed) for baseline in (own, baselines.best(run))
        )
        both_ranks = ranks[run_id], ranks.get(paired.baseline_run_id or "", math.nan)
        paired = dataclasses.replace(paired, ranks=both_ranks)
        reading = printed(run, own, clean, target_loss, failed, both_ranks)
        return RunSaving(
            run_id,
            cell_of(run),
            int(run["seed"]),
            paired,
            best,
            {m: token_saving(paired, run_id, by_run, m) for m in METHODS},
            reading,
            with_seconds_of(reading.at_target, run_id, by_run),
            *_loss_differences(run, own, by_clock, failed),
            diverged=run_id in failed,
            baseline_diverged=own is not None and str(own["run_id"]) in failed,
        )

    return tuple(saving(run) for run in rows_of(runs.runs[runs.runs["role"] == "curriculum"]))


def _loss_differences(
    run: Row, baseline: Row | None, by_run: Mapping[str, Curve], failed: frozenset[str]
) -> tuple[float, float]:
    """Final loss of a finished pair, curriculum minus baseline (nats), at equal tokens and at equal seconds."""
    both = [row for row in (run, baseline) if row is not None and _finished(row, by_run, failed)]
    if len(both) < 2:
        return math.nan, math.nan
    ours, theirs = (by_run[str(row["run_id"])] for row in both)
    return difference_at_end(ours, theirs), difference_at_end(ours, theirs, "seconds")


def _finished(row: Row, by_run: Mapping[str, Curve], failed: frozenset[str]) -> bool:
    return row["state"] == "DONE" and str(row["run_id"]) in by_run and str(row["run_id"]) not in failed


def _check_target(table: pd.DataFrame, target_ppl: float) -> None:
    baselines = table[table["role"] == "baseline"]
    if baselines.empty or (baselines["best_ppl"] <= target_ppl).any():
        return
    best = round_up(float(baselines["best_ppl"].min()))
    raise UserError(
        f"target {target_ppl:g}: no baseline reached it (the best got to perplexity {best:g}); choose {best:g} or above"
    )


def round_up(value: float) -> float:
    """The next number of four significant digits: as a target, it is at or above `value`."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3) if value > 0 else 1e-4
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def cell_savings(runs: Iterable[RunSaving], unpaired: Mapping[Cell, Unpaired] | None = None) -> tuple[CellSaving, ...]:
    """The savings of the cells, in order of their first run; significance by Holm over all cells tested.

    `unpaired` holds the cells that are compared as whole arms (analysis.stats.unpaired.unpaired_cells).
    """
    by_cell: dict[Cell, list[RunSaving]] = {}
    for run in runs:
        by_cell.setdefault(run.cell, []).append(run)
    cells = [_cell_saving(cell, own, (unpaired or {}).get(cell)) for cell, own in by_cell.items()]
    difference = holm([_family_p(cell) for cell in cells])
    equivalence = holm([_or_nan(equivalence_p(cell.log_ratios) if not cell.unpaired else None) for cell in cells])
    losses = holm([_or_nan(cell.loss.p_value) for cell in cells])
    seconds = holm([_or_nan(cell.loss_at_seconds.p_value) for cell in cells])
    return tuple(
        _with_significance(*parts) for parts in zip(cells, difference, equivalence, losses, seconds, strict=True)
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _cell_saving(cell: Cell, runs: Sequence[RunSaving], unpaired: Unpaired | None) -> CellSaving:
    labels = dict.fromkeys(r.cell.label for r in runs if r.cell.label)
    compared = [r for r in runs if not r.paired.waiting]
    targets = [r.paired.target_loss for r in compared if not math.isnan(r.paired.target_loss)]

    def over_seeds(measure: Measure) -> Estimate:
        return estimate([r.paired.pair(measure) for r in compared])

    saving = CellSaving(
        cell=dataclasses.replace(cell, label=", ".join(labels)),
        runs=tuple(runs),
        target_ppl=perplexity(sum(targets) / len(targets)) if targets else None,
        tokens=over_seeds("token"),
        time=over_seeds("time"),
        rank_hours=over_seeds("rank_hour"),
        lowest_common=estimate([Pair.exact(r.paired.common_log_ratio) for r in compared]),
        vs_best_tokens=estimate_savings(r.best.plain_saving("token") for r in compared),
        vs_best_time=estimate_savings(r.best.plain_saving("time") for r in compared),
        tokens_by_method={m: estimate_savings(r.token_saving_by_method[m] for r in compared) for m in METHODS},
        final=censored_estimate([r.paired.pair("token") for r in compared]),
    )
    return _with_unpaired(saving, unpaired) if unpaired else _with_pairs(saving)


def _with_unpaired(saving: CellSaving, unpaired: Unpaired) -> CellSaving:
    return dataclasses.replace(
        saving,
        printed=unpaired.tokens,
        printed_time=unpaired.time,
        printed_rank_hours=unpaired.rank_hours,
        printed_ppl=perplexity(unpaired.target_loss),
        test=unpaired.test,
        loss=unpaired.loss,
        loss_at_seconds=unpaired.loss_at_seconds,
        unpaired=unpaired,
    )


def _with_pairs(saving: CellSaving) -> CellSaving:
    """The printed saving, the test and the loss differences over the seeds' pairs."""
    at_target = [
        r.printed.at_target for r in saving.runs if not r.printed.at_target.waiting and not r.baseline_diverged
    ]
    losses = [c.target_loss for c in at_target if not math.isnan(c.target_loss)]
    recorded = [r.recorded for r in saving.runs if not r.recorded.waiting and not r.baseline_diverged]
    return dataclasses.replace(
        saving,
        recorded_time=estimate([c.pair("time") for c in recorded]),
        printed=estimate([c.pair("token") for c in at_target]),
        printed_time=estimate([c.pair("time") for c in at_target]),
        printed_rank_hours=estimate([c.pair("rank_hour") for c in at_target]),
        printed_ppl=perplexity(sum(losses) / len(losses)) if losses else None,
        test=estimate([Pair(d) for d in saving.log_ratios]),
        loss=loss_difference([r.loss for r in saving.runs]),
        loss_at_seconds=loss_difference([r.loss_at_seconds for r in saving.runs]),
    )


def with_clock(cells: Iterable[CellSaving], clock: Clock, settings: frozenset[str]) -> tuple[CellSaving, ...]:
    """The cells of `settings` with the clock's interval of the time saving; seeds share a clock (jackknife)."""
    return tuple(
        cell
        if cell.unpaired or cell.cell.setting not in settings
        else dataclasses.replace(cell, printed_time=jackknifed(cell.printed_time, clock, _printed_pairs(cell)))
        for cell in cells
    )


def _printed_pairs(cell: CellSaving) -> list[tuple[int, str, Comparison]]:
    """Seed, run_id and comparison of each pair of the printed saving."""
    return [
        (r.seed, r.run_id, r.printed.at_target)
        for r in cell.runs
        if not r.printed.at_target.waiting and not r.baseline_diverged
    ]


def tested(cell: CellSaving) -> bool:
    """Whether the cell takes part in the tests of significance: it has two seeds with a figure."""
    return cell.test.n >= 2


def _family_p(cell: CellSaving) -> float:
    """The cell's p-value in Holm's family: 1 if its seeds have none, NaN if it is not tested."""
    p_value = cell.test.p_value
    return math.nan if not tested(cell) else 1.0 if p_value is None else p_value


def _with_significance(
    cell: CellSaving, p_holm: float, equivalence: float, loss_p: float, seconds_p: float
) -> CellSaving:
    cell = dataclasses.replace(
        cell,
        loss=dataclasses.replace(cell.loss, p_holm=_or_none(loss_p)),
        loss_at_seconds=dataclasses.replace(cell.loss_at_seconds, p_holm=_or_none(seconds_p)),
        equivalence_p=_or_none(equivalence),
    )
    if math.isnan(p_holm):
        return cell
    difference: Difference = "undecided"
    if p_holm < SIGNIFICANCE and cell.test.point is not None:
        difference = "saved" if cell.test.point > 0 else "cost"
    if difference == "saved" and cell.diverged:  # the seeds that survived are a favourable selection
        difference = "undecided"
    return dataclasses.replace(cell, p_holm=p_holm, difference=difference)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
