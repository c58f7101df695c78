"""Renderings of an Answer as tables and as verdict.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.answer import Answer
from analysis.cost.hours import CellCost, Cost
from analysis.schema import Cell
from analysis.stats import boundary, clock
from analysis.stats.best_vs_best import Best
from analysis.stats.evaluations import Unlike
from analysis.stats.events import EventRate
from analysis.stats.intervals import Estimate
from analysis.stats.joint_boundary import JointBoundary
from analysis.stats.loss_difference import LossDifference
from analysis.stats.lr_response import Response
from analysis.stats.savings import CellSaving, CommonTarget, RunSaving
from analysis.verdict.boundary import boundary_sentence, joint_sentences
from analysis.verdict.caveats import caveats
from analysis.verdict.sentence import best_sentence, headline_sentences, sentence, spikes_sentence
from cl_bench.runs.paths import SweepDir

_SAVING: dict[str, Callable[[RunSaving], Any]] = {
    "run_id": lambda s: s.run_id,
    "named": lambda s: s.cell.label,
    "baseline_run_id": lambda s: s.paired.baseline_run_id,
    "best_baseline_run_id": lambda s: s.best.baseline_run_id,
    "curriculum": lambda s: s.cell.curriculum,
    "variant": lambda s: s.cell.variant,
    "setting": lambda s: s.cell.setting,
    "global_batch_size": lambda s: s.cell.global_batch_size,
    "lr": lambda s: s.cell.lr,
    "seed": lambda s: s.seed,
    "target_loss": lambda s: s.paired.target_loss,
    "target_ppl": lambda s: s.paired.target_ppl,
    "reached": lambda s: s.paired.reached,
    "censored": lambda s: s.paired.pair("token").censored,
    "tokens_to_target": lambda s: s.paired.amounts("token")[0],
    "seconds_to_target": lambda s: s.paired.amounts("time")[0],
    "rank_hours_to_target": lambda s: s.paired.amounts("rank_hour")[0],
    "baseline_tokens": lambda s: s.paired.amounts("token")[1],
    "baseline_seconds": lambda s: s.paired.amounts("time")[1],
    "baseline_rank_hours": lambda s: s.paired.amounts("rank_hour")[1],
    "token_saving": lambda s: s.paired.pair("token").saving,
    "time_saving": lambda s: s.paired.pair("time").saving,
    "rank_hour_saving": lambda s: s.paired.pair("rank_hour").saving,
    "token_saving_bound": lambda s: s.paired.pair("token").bound,
    "time_saving_bound": lambda s: s.paired.pair("time").bound,
    "rank_hour_saving_bound": lambda s: s.paired.pair("rank_hour").bound,
    "token_saving_interpolate": lambda s: s.token_saving_by_method["interpolate"],
    "token_saving_first": lambda s: s.token_saving_by_method["first"],
    "token_saving_sustained": lambda s: s.token_saving_by_method["sustained"],
    "both_log_ratio": lambda s: s.paired.common_log_ratio,
    "vs_best_target_ppl": lambda s: s.best.target_ppl,
    "vs_best_reached": lambda s: s.best.reached,
    "vs_best_token_saving": lambda s: s.best.plain_saving("token"),
    "vs_best_time_saving": lambda s: s.best.plain_saving("time"),
    "waiting": lambda s: s.paired.waiting,
    "note": lambda s: s.paired.note,
    "printed_target_ppl": lambda s: s.printed.at_target.target_ppl,
    "printed_tokens": lambda s: s.printed.at_target.amounts("token")[0],
    "printed_seconds": lambda s: s.printed.at_target.amounts("time")[0],
    "printed_baseline_tokens": lambda s: s.printed.at_target.amounts("token")[1],
    "printed_baseline_seconds": lambda s: s.printed.at_target.amounts("time")[1],
    "printed_token_saving": lambda s: s.printed.at_target.pair("token").saving,
    "printed_time_saving": lambda s: s.printed.at_target.pair("time").saving,
    "loss_difference": lambda s: s.loss,
    "loss_difference_at_seconds": lambda s: s.loss_at_seconds,
    "unstable": lambda s: s.diverged,
    "baseline_unstable": lambda s: s.baseline_diverged,
}
"""Columns of savings.csv; savings are shares, NaN if a run never reached the target.

Up to `note` at the paper's target, the final loss of the baseline in question, or at the given one; `printed_*` on
cleaned curves at the printed target (analysis.stats.level).
"""


def csv_tables(answer: Answer, folder: SweepDir) -> dict[Path, pd.DataFrame]:
    """The tables of a report by their files."""
    return {
        folder.savings: savings_table(answer.run_savings),
        folder.targets: answer.targets,
        folder.stability: answer.stability,
        folder.frontier: answer.frontier,
        folder.correlation: answer.correlation,
        folder.cost: answer.cost.runs,
    }


def savings_table(savings: Sequence[RunSaving]) -> pd.DataFrame:
    """One row per curriculum run."""
    return pd.DataFrame({column: [value(s) for s in savings] for column, value in _SAVING.items()})


def verdict_json(answer: Answer) -> dict[str, Any]:
    """The content of verdict.json: values that JSON can hold."""
    return {
        "headline": headline_sentences(answer),
        "sentence": sentence(answer),
        "best_sentence": best_sentence(answer.best, answer.options.target_ppl),
        "caveats": caveats(answer),
        "target_ppl": answer.target_ppl,
        "target_kind": answer.target_kind,
        "crossing": answer.options.method,
        "cells_tested": answer.cells_tested,
        "best_against_best": [_best(b) for b in answer.best],
        "cells": cells_json(answer.cells),
        "stability_sentence": boundary_sentence(answer.frontier) if len(answer.runs.train) else "",
        "spikes_sentence": spikes_sentence(answer),
        "frontier": boundary.plain_rows(answer.frontier),
        "cost": cost_json(answer.cost),
        "clock": clock_json(answer),
        "power": dataclasses.asdict(answer.power),
        "unlike": [_unlike(u) for u in answer.unlike],
        **_stability(answer),
    }


def _stability(answer: Answer) -> dict[str, Any]:
    """The stability part of verdict.json, beside the frontier."""
    judged = answer.instability
    return {
        "outcome_rules": answer.rules_sentence,
        "outcomes": {run_id: dataclasses.asdict(outcome) for run_id, outcome in judged.outcomes.items()},
        "unstable": dict(judged.unstable),
        "instability_events": [_event_rate(rate) for rate in judged.rates],
        "lr_responses": [_response(response) for response in judged.responses],
        "joint_sentences": joint_sentences(judged.joint),
        "joint_boundaries": [_joint(joint) for joint in judged.joint],
    }


def _event_rate(rate: EventRate) -> dict[str, Any]:
    return {**dataclasses.asdict(rate), "per_run": rate.per_run}


def _response(response: Response) -> dict[str, Any]:
    return {**dataclasses.asdict(response), "largest_useful": response.largest_useful}


def _joint(joint: JointBoundary) -> dict[str, Any]:
    batch, lr = joint.reference
    return {
        "setting": joint.setting,
        "reference": {"global_batch_size": batch, "lr": lr},
        "methods": [dataclasses.asdict(method) for method in joint.methods],
    }


def _unlike(unlike: Unlike) -> dict[str, Any]:
    return {**_cell(unlike.cell), "kind": unlike.kind, "ratio": unlike.ratio, "run_ids": list(unlike.run_ids)}


def cells_json(cells: Sequence[CellSaving]) -> list[dict[str, Any]]:
    """The cells of verdict.json."""
    tested = sum(c.p_holm is not None for c in cells)
    return [_cell_saving(c) | {"cells_tested": tested} for c in cells]


def _cell_saving(saving: CellSaving) -> dict[str, Any]:
    return {
        **_cell(saving.cell),
        "named": saving.cell.label,
        "setting": saving.cell.setting,
        "run_ids": [r.run_id for r in saving.runs],
        "baseline_run_ids": [r.paired.baseline_run_id for r in saving.runs if r.paired.baseline_run_id],
        "target_ppl": saving.target_ppl,
        "reached": saving.reached,
        "of": saving.seeds,
        "waiting": saving.waiting,
        **_interval("token_saving", saving.printed, bound=True),
        **_interval("time_saving", saving.printed_time, bound=True),
        **_interval("raw_time_saving", saving.recorded_time, bound=True),
        **_interval("rank_hour_saving", saving.printed_rank_hours, bound=True),
        "interval_method": saving.printed.method,
        "censored": saving.printed.censored if saving.printed.n else "",
        **_interval("both_saving", saving.lowest_common),
        "token_p": saving.test.p_value,
        "token_p_holm": saving.p_holm,
        "difference": saving.difference,
        **{f"token_saving_{m}": e.point for m, e in saving.tokens_by_method.items()},
        "vs_best_reached": saving.vs_best_reached,
        "vs_best_token_saving": saving.vs_best_tokens.point,
        "vs_best_time_saving": saving.vs_best_time.point,
        "deepest": None if saving.common_target is None else _common_target(saving.common_target),
        "note": saving.note,
        "printed_target_ppl": saving.printed_ppl,
        **_interval("final_token_saving", saving.final, bound=True),
        **_interval("final_time_saving", saving.time, bound=True),
        **_interval("final_rank_hour_saving", saving.rank_hours, bound=True),
        "final_interval_method": saving.final.method,
        "final_censored": saving.final.censored if saving.compared else "",
        **_loss("loss_difference", saving.loss),
        **_loss("loss_difference_at_seconds", saving.loss_at_seconds),
        "unpaired": saving.unpaired is not None,
        "unpaired_runs": None if saving.unpaired is None else list(saving.unpaired.runs),
        "diverged": saving.diverged,
        "baseline_diverged": saving.baseline_diverged,
        "equivalence_p": saving.equivalence_p,
        "equivalent": saving.equivalent,
    }


def _loss(name: str, difference: LossDifference) -> dict[str, float | None]:
    """A difference of losses, in nats."""
    return {
        name: difference.mean,
        f"{name}_low": difference.low,
        f"{name}_high": difference.high,
        f"{name}_p": difference.p_value,
        f"{name}_p_holm": difference.p_holm,
    }


def _common_target(common: CommonTarget) -> dict[str, Any]:
    return {
        "target_ppl": common.target_ppl,
        "n": common.tokens.n,
        **_interval("token_saving", common.tokens),
        **_interval("time_saving", common.time),
    }


def _interval(name: str, estimate: Estimate, *, bound: bool = False) -> dict[str, float | None]:
    ends = {name: estimate.point, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return ends | ({f"{name}_bound": estimate.bound} if bound else {})


def _cell(cell: Cell) -> dict[str, Any]:
    names = ("curriculum", "variant", "global_batch_size", "lr")
    return {name: getattr(cell, name) for name in names}


def _best(best: Best) -> dict[str, Any]:
    keys = ("point", "low", "high", "p_value", "method", "bound", "censored", "arrived")
    estimates = {
        "token_saving": best.printed,
        "time_saving": best.printed_time,
        "raw_time_saving": best.recorded_time,
        "final_token_saving": best.tokens,
        "final_time_saving": best.time,
    }
    return {
        "baseline": _cell(best.baseline),
        "curriculum": _cell(best.curriculum),
        **{
            name: getattr(best, name)
            for name in ("picks", "seeds", "crossfitted", "target_ppl", "baseline_cells", "curriculum_cells")
        },
        "printed_target_ppl": best.printed_ppl,
        **_loss("loss_difference", best.loss),
        **_loss("loss_difference_at_seconds", best.loss_at_seconds),
        "diverged": best.diverged,
        "baseline_diverged": best.baseline_diverged,
        "left_out_seeds": list(best.left_out),
        **{f"{name}_{key}": getattr(e, key) for name, e in estimates.items() for key in keys},
    }


def clock_json(answer: Answer) -> dict[str, Any]:
    """The clock of verdict.json: which settings have clean seconds, and the runs that were slower or faster."""
    return {
        "clean_settings": sorted(answer.clean_settings),
        "odd_runs": [{"run_id": r.run_id, "step_time_ratio": r.ratio} for r in answer.clock.odd_runs()],
        "notes": list(clock.notes(answer.clock, answer.runs.runs)),
    }


def cost_json(cost: Cost) -> dict[str, Any]:
    """The costs of verdict.json."""
    return {
        "price_per_rank_hour": cost.price,
        "cells": [_cell_cost(c) for c in cost.cells],
        "notes": list(cost.notes),
    }


def _cell_cost(cost: CellCost) -> dict[str, Any]:
    names = (
        "reached",
        "rank_hours_to_target",
        "baseline_rank_hours_to_target",
        "saved_rank_hours",
        "saved_rank_hours_counted",
        "saving_alone",
        "saving_counted",
        "lost_rank_hours",
        "baseline_lost_rank_hours",
        "tuning_rank_hours",
        "unlike",
    )
    return {
        **_cell(cost.cell),
        "setting": cost.cell.setting,
        "named": cost.cell.label,
        "of": cost.seeds,
        **{name: getattr(cost, name) for name in names},
        # Tuning that is never paid back has no number of runs.
        "break_even": None if cost.break_even is None or math.isinf(cost.break_even) else cost.break_even,
    }
