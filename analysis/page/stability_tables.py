"""The tables of the page's section on stability."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.page.columns import (
    column_if_any,
    note_columns,
    numbers,
    p_text,
    state_texts,
    texts,
    where_columns,
)
from analysis.schema import method_name, method_names
from analysis.stats.boundary import Along, Criterion, plain_rows, proportion, select, short
from analysis.stats.events import EventRate
from analysis.stats.joint_boundary import JointBoundary, MethodStability, PlaceStability
from analysis.stats.lr_response import Response
from analysis.tables import Column, Table
from analysis.verdict.boundary import boundary_words, multiple_words, multiples
from cl_bench.runs.identity import short_float


def stability_table(stability: pd.DataFrame) -> Table:
    """Loss ratios of each cell, over seeds."""
    keys = ["named", "curriculum", "variant", "global_batch_size", "lr"]
    finished = stability["diverged"].astype(bool) | (stability["state"] == "DONE")
    cells = (
        stability.assign(
            variant=stability["variant"].fillna(""),
            finished=finished,
            unlearned=stability["outcome"] == "did not learn",
            unstable=stability["unstable"].fillna(False).astype(bool),
        )
        .groupby(keys, sort=False, as_index=False)
        .agg(
            runs=("run_id", "size"),
            diverged=("diverged", "sum"),
            finished=("finished", "sum"),
            ratio=("max_loss_ratio", "max"),
            above_2=("steps_above_1_2", "sum"),
            above_5=("steps_above_1_5", "sum"),
            steps=("steps", "sum"),
            unlearned=("unlearned", "sum"),
            unstable=("unstable", "sum"),
            events=("events", "sum"),
            judged=("events", "count"),
        )
    )
    columns = [
        *where_columns(cells, seed=False),
        Column("runs", numbers(cells["runs"], 0), number=True),
        Column("diverged", [f"× {int(d)}" if d else "0" for d in cells["diverged"]], number=True),
        Column("diverged, 95% interval (%)", _shares(cells["diverged"], cells["finished"]), number=True),
        Column("did not learn", numbers(cells["unlearned"], 0), number=True),
        Column("unstable", numbers(cells["unstable"], 0), number=True),
        Column(
            "events", [str(n) if j else "–" for n, j in zip(cells["events"], cells["judged"], strict=True)], number=True
        ),
        Column("max loss ratio", numbers(cells["ratio"], 2), number=True),
        Column("steps above 1.2", numbers(cells["above_2"], 0), number=True),
        Column("steps above 1.5", numbers(cells["above_5"], 0), number=True),
        Column("of steps", numbers(cells["steps"], 0), number=True),
    ]
    return Table(
        "Stability by cell, over seeds: counts of runs, summed events and steps, largest ratio",
        columns,
        "No training step yet.",
    )


def stability_runs_table(stability: pd.DataFrame) -> Table:
    """Outcome, events and loss ratios of every run; columns in which every run has nothing are left out."""
    optional = {
        "at a change of length": numbers(stability["events_at_length_change"], 0),
        "skipped steps": numbers(stability["skipped_steps"], 0),
        "SpikeScore, loss (%)": numbers(stability["spike_score_loss"], 2, 100),
        "SpikeScore, gradient norm (%)": numbers(stability["spike_score_grad_norm"], 2, 100),
    }
    columns = [
        *where_columns(stability),
        Column("state", state_texts(stability["state"])),
        Column("outcome", texts(stability["outcome"])),
        Column("events", numbers(stability["events"], 0), number=True),
        *(Column(head, cells, number=True) for head, cells in optional.items() if {*cells} - {"0", "0.00", "–"}),
        Column("max loss ratio", numbers(stability["max_loss_ratio"], 2), number=True),
        Column("steps above 1.2", numbers(stability["steps_above_1_2"], 0), number=True),
        Column("steps above 1.5", numbers(stability["steps_above_1_5"], 0), number=True),
        Column("of steps", numbers(stability["steps"], 0), number=True),
        *note_columns(stability["reason"]),
        Column("run", texts(stability["run_id"])),
    ]
    return Table("Stability by run", columns, "No training step yet.")


def frontier_table(table: pd.DataFrame, along: Along) -> Table:
    """The boundary along learning rates or batches, by every criterion; `table` as from all_boundaries()."""
    rows = plain_rows(select(table, along))
    if not rows:
        return Table("Stability frontier", [], "No cell to judge yet.")
    what, at = ("LR", "batch") if along == "lr" else ("batch", "LR")
    strict: dict[Criterion, list[dict[str, Any]]] = {
        criterion: plain_rows(select(table, along, criterion)) for criterion in ("no_events", "useful", "loss_ratio")
    }
    allowed = next((f"{r['max_loss_ratio_allowed']:g}" for r in strict["loss_ratio"]), "")
    heads: dict[Criterion, str] = {
        "no_events": f"largest {what}, no event",
        "useful": f"largest useful {what}",
        "loss_ratio": f"paper's loss ratio ≤ {allowed}",
    }
    columns = [
        Column(at, [short(r["at"]) for r in rows], number=True),
        Column("curriculum", method_names(pd.DataFrame(rows))),
        Column(f"largest stable {what}", [boundary_words(r) for r in rows], number=True),
        Column("multiple of the baseline's", [_times_words(r) for r in rows], number=True),
        Column("ratio of the boundaries", [_between(r) for r in rows], number=True),
    ]
    for criterion, head in heads.items():
        columns += [
            Column(head, [boundary_words(r) for r in strict[criterion]], number=True),
            Column("multiple of the baseline's", [_times_words(r) for r in strict[criterion]], number=True),
        ]
    columns += [
        Column(f"{what} tested", [r["tested"].replace(" ", ", ") for r in rows], number=True),
        Column("seeds", [str(r["seeds"]) for r in rows], number=True),
        *note_columns(_frontier_note(r) for r in rows),
    ]
    return Table(f"Largest {what} stable on every seed, by {at}", columns, "No run yet.")


def _frontier_note(row: Mapping[str, Any]) -> str:
    parts = [
        row["note"],
        f"not finished: {row['unfinished']} of {row['runs']} runs" if row["unfinished"] else "",
        f"did not learn: {row['did_not_learn']} of {row['runs']} runs" if row["did_not_learn"] else "",
    ]
    return "; ".join(part for part in parts if part)


def _times_words(row: Mapping[str, Any]) -> str:
    return multiple_words(row["multiple"], row["multiple_relation"]) or "–"


def _between(row: Mapping[str, Any]) -> str:
    """The range that the grid's spacing allows for the ratio of the true boundaries."""
    above, below = row["multiple_above"], row["multiple_below"]
    if above is not None and below is not None:
        return f"{above:.3g}x to {below:.3g}x"
    if above is not None:
        return f"above {above:.3g}x"
    return f"below {below:.3g}x" if below is not None else "–"


def _shares(counts: Iterable[int], totals: Iterable[int]) -> list[str]:
    intervals = [proportion(int(k), int(n))[1:] for k, n in zip(counts, totals, strict=True)]
    return ["–" if math.isnan(low) else f"{100 * low:.0f} to {100 * high:.0f}" for low, high in intervals]


def events_table(rates: Sequence[EventRate]) -> Table:
    """Instability events per run of each method."""
    if not any(rate.runs for rate in rates):
        rates = []
    shares = [(_percent(r.share_low), _percent(r.share_high)) for r in rates]
    columns = [
        Column("curriculum", [method_name(r.curriculum, r.variant) for r in rates]),
        Column("runs", [str(r.runs) for r in rates], number=True),
        Column("events", [str(r.events) for r in rates], number=True),
        Column("at a change of length", [str(r.at_length_changes) for r in rates], number=True),
        Column("events per run", numbers((r.per_run for r in rates), 2), number=True),
        Column("95% CI", [_range(r.low, r.high) for r in rates], number=True),
        Column("p against the baseline, adjusted", [p_text(r.p_holm) for r in rates], number=True),
        Column("runs with an event", [str(r.with_event) for r in rates], number=True),
        Column("their share, 95% CI (%)", [f"{a} to {b}" for a, b in shares], number=True),
        Column("smallest detectable ratio", numbers((r.smallest_detectable for r in rates), 2), number=True),
        Column("skipped steps", [str(r.skipped_steps) for r in rates], number=True),
        Column("runs too short to tell", [str(r.too_short) for r in rates], number=True),
    ]
    return Table("Instability events by method", columns, "No run has enough training steps to tell events from noise.")


def responses_table(responses: Sequence[Response]) -> Table:
    """The best learning rate of each method at each batch size, and its sensitivity to the learning rate."""
    shifts = [r.shift if r.role != "baseline" else None for r in responses]
    columns = [
        Column("batch", [str(r.global_batch_size) for r in responses], number=True),
        Column("curriculum", [method_name(r.curriculum, r.variant) for r in responses]),
        Column("best LR", [short_float(r.best_lr) for r in responses], number=True),
        Column("multiple of the baseline's", [multiple_words(s, "") or "–" for s in shifts], number=True),
        Column("loss there (nats)", numbers((r.best_loss for r in responses), 3), number=True),
        Column("LR sensitivity (nats)", numbers((r.sensitivity for r in responses), 3), number=True),
        Column(
            "largest useful LR",
            ["–" if r.largest_useful is None else short_float(r.largest_useful) for r in responses],
            number=True,
        ),
        Column("LRs tested", [", ".join(short_float(p.lr) for p in r.points) for r in responses], number=True),
        *column_if_any("note", [_optimum_note(r) for r in responses]),
    ]
    return Table("Final loss over learning rate", columns, "No run has finished yet.")


def _optimum_note(response: Response) -> str:
    if len(response.points) == 1:
        return "one LR tested"
    end = "smallest" if response.best_lr == response.points[0].lr else "largest"
    return f"the best LR is the {end} tested" if response.at_end else ""


def joint_table(joint: Sequence[JointBoundary]) -> Table:
    """How far each method stayed stable over batch size and learning rate together."""
    methods = [(b, m) for b in joint for m in b.methods]
    columns = [
        *([Column("setting", [b.setting for b, _ in methods])] if len(joint) > 1 else []),
        Column("curriculum", [method_name(m.curriculum, m.variant) for _, m in methods]),
        Column("largest stable batch and LR", [_place(m.largest) for _, m in methods]),
        Column("multiples of the reference", [_multiples(m.largest) for _, m in methods]),
        Column("stable seeds", [_seeds(m.largest) for _, m in methods], number=True),
        Column("baseline's stable seeds there", [_there(m) for _, m in methods], number=True),
        Column("largest where the baseline was unstable", [_multiples(m.contrast) for _, m in methods]),
        Column("pairs with only the curriculum stable", [_count(m, "only_method_stable") for _, m in methods], True),
        Column("pairs with only the baseline stable", [_count(m, "only_baseline_stable") for _, m in methods], True),
        Column("McNemar's p", [p_text(m.p_value) for _, m in methods], number=True),
    ]
    return Table("Stability over batch size and learning rate together", columns, "No baseline to compare with.")


def _place(place: PlaceStability | None) -> str:
    return "none" if place is None else f"batch {place.global_batch_size}, LR {short_float(place.lr)}"


def _multiples(place: PlaceStability | None) -> str:
    return "–" if place is None else multiples(place)


def _seeds(place: PlaceStability | None) -> str:
    return "–" if place is None else f"{place.stable} of {place.seeds}"


def _there(method: MethodStability) -> str:
    return "–" if method.role == "baseline" else _seeds(method.baseline_there)


def _count(method: MethodStability, name: str) -> str:
    return "–" if method.role == "baseline" else str(getattr(method, name))


def _range(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"
