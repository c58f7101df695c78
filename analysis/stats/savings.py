"""Savings of curriculum runs against baselines, per run and per cell of the grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pandas as pd

from analysis.schema import Cell, Row, Runs, cell_of, perplexity, rows_of
from analysis.stats.crossings import METHODS, Method, curves
from analysis.stats.intervals import SIGNIFICANCE, Estimate, Pair, estimate, estimate_savings, holm
from analysis.stats.pairs import Baselines, Comparison, Measure, compare, mean_ranks, token_saving
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
    diverged: bool = False


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
    """Tokens, each seed at the target or, if one of its two runs never reached it, at their lowest common loss. The
    test of significance uses it: no cell leaves the family for having lost seeds."""
    vs_best_tokens: Estimate
    """Against the best baseline of the grid."""
    vs_best_time: Estimate
    tokens_by_method: Mapping[Method, Estimate]
    """`tokens` by each way to determine a crossing."""
    common_target: CommonTarget | None = None
    """None if no target was reached by all runs."""
    p_holm: float | None = None
    """`lowest_common`'s p-value, adjusted over the cells tested; None with fewer than two seeds."""
    difference: Difference | None = None
    """None with fewer than two seeds."""

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
        return sum(r.paired.waiting for r in self.runs)

    @property
    def compared(self) -> int:
        """Seeds that are compared."""
        return self.seeds - self.waiting

    @property
    def diverged(self) -> int:
        """Curriculum runs that diverged."""
        return sum(r.diverged for r in self.runs)

    @property
    def note(self) -> str:
        """The notes of the seeds' comparisons."""
        return "; ".join(dict.fromkeys(r.paired.note for r in self.runs if r.paired.note))


def run_savings(runs: Runs, target_ppl: float | None = None, method: Method = "interpolate") -> tuple[RunSaving, ...]:
    """The saving of every curriculum run, at `target_ppl` or at the final perplexity of the baseline in question.

    Raises UserError if no baseline reached a given target.
    """
    target_loss = None if target_ppl is None else math.log(target_ppl)
    if target_ppl is not None:
        _check_target(runs.runs, target_ppl)
    by_run = curves(runs.evals)
    baselines, ranks = Baselines(runs.runs), mean_ranks(runs.runs, runs.attempts)

    def saving(run: Row) -> RunSaving:
        run_id = str(run["run_id"])
        paired, best = (
            compare(run, baseline, by_run, target_loss, method)
            for baseline in (baselines.paired(run), baselines.best(run))
        )
        paired = dataclasses.replace(paired, ranks=(ranks[run_id], ranks.get(paired.baseline_run_id or "", math.nan)))
        by_method = {m: token_saving(paired, run_id, by_run, m) for m in METHODS}
        return RunSaving(
            run_id, cell_of(run), int(run["seed"]), paired, best, by_method, diverged=run["state"] == "DIVERGED"
        )

    return tuple(saving(run) for run in rows_of(runs.runs[runs.runs["role"] == "curriculum"]))


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


def cell_savings(runs: Iterable[RunSaving]) -> tuple[CellSaving, ...]:
    """The savings of the cells, in order of their first run; significance by Holm over all cells tested."""
    by_cell: dict[Cell, list[RunSaving]] = {}
    for run in runs:
        by_cell.setdefault(run.cell, []).append(run)
    cells = [_cell_saving(cell, own) for cell, own in by_cell.items()]
    adjusted = holm([_family_p(cell) for cell in cells])
    return tuple(_with_significance(cell, p) for cell, p in zip(cells, adjusted, strict=True))


def _cell_saving(cell: Cell, runs: Sequence[RunSaving]) -> CellSaving:
    labels = dict.fromkeys(r.cell.label for r in runs if r.cell.label)
    compared = [r for r in runs if not r.paired.waiting]
    targets = [r.paired.target_loss for r in compared if not math.isnan(r.paired.target_loss)]

    def over_seeds(measure: Measure) -> Estimate:
        return estimate([r.paired.pair(measure) for r in compared])

    return CellSaving(
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
    )


def tested(cell: CellSaving) -> bool:
    """Whether the cell takes part in the tests of significance: it has two seeds to compare."""
    return cell.compared >= 2


def _family_p(cell: CellSaving) -> float:
    """The cell's p-value in Holm's family: 1 if its seeds have none, NaN if it is not tested."""
    p_value = cell.lowest_common.p_value
    return math.nan if not tested(cell) else 1.0 if p_value is None else p_value


def _with_significance(cell: CellSaving, p_holm: float) -> CellSaving:
    if math.isnan(p_holm):
        return cell
    difference: Difference = "undecided"
    if p_holm < SIGNIFICANCE and cell.lowest_common.point is not None:
        difference = "saved" if cell.lowest_common.point > 0 else "cost"
    return dataclasses.replace(cell, p_holm=p_holm, difference=difference)
