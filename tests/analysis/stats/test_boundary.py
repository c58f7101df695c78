"""The stability boundary against hand-made grids: bounds, holes, seeds that are not finished, multiples, words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.stats.boundary import (
    Boundary,
    Kind,
    all_boundaries,
    boundaries,
    boundary,
    cell_stability,
    multiple,
    plain_rows,
    proportion,
    select,
)
from analysis.verdict.boundary import boundary_sentence
from cl_bench.runs.paths import SweepDir
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep

Place = tuple[str, int, float]
Cell = tuple[str, int, float, Sequence[str]]


def grid(
    *cells: Cell,
    ratios: dict[Place, float] | None = None,
    events: dict[Place, int | None] | None = None,
    useless: Sequence[Place] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(runs, stability) of cells (curriculum, batch, lr, one state a seed).

    Every loss ratio is 1.05 unless given, no run has an event unless given, and finished ones are useful but `useless`.
    """
    rows = [
        {
            "run_id": f"{name}-{batch}-{lr}-{seed}",
            "role": "baseline" if name == "baseline" else "curriculum",
            "curriculum": name,
            "variant": "",
            "setting": "0",
            "global_batch_size": batch,
            "lr": lr,
            "seed": seed,
            "state": state,
            "diverged": state == "DIVERGED",
            "max_loss_ratio": (ratios or {}).get((name, batch, lr), 1.05),
            "outcome": {"DIVERGED": "diverged", "DONE": "learned"}.get(state, "unfinished"),
            "unstable": {"DIVERGED": True, "DONE": False}.get(state),
            "useful": {"DIVERGED": False, "DONE": (name, batch, lr) not in (useless or ())}.get(state),
            "events": (events or {}).get((name, batch, lr), 0),
        }
        for name, batch, lr, states in cells
        for seed, state in enumerate(states, 1)
    ]
    table = pd.DataFrame(rows)
    return table, table


OK, LOST, MIXED, OPEN = ("DONE", "DONE"), ("DIVERGED", "DIVERGED"), ("DONE", "DIVERGED"), ("DONE", "RUNNING")


# --- one line of values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("s s u u", Boundary("exact", 2, 3, 2, "")),
        ("s s s s", Boundary("at_least", 4, None, 4, "no larger LR tested")),
        ("u u u u", Boundary("below", None, 1, None, "no smaller LR tested")),
        ("s u s u", Boundary("exact", 3, 4, 1, "unstable at 2 although 3 is stable")),
        ("s u u s", Boundary("at_least", 4, None, 1, "no larger LR tested; unstable at 2 and 3 although 4 is stable")),
        ("s s ? u", Boundary("at_least", 2, 4, 2, "3 not decided yet")),
        ("s ? s u", Boundary("exact", 3, 4, 1, "2 not decided yet")),
        ("u s u u", Boundary("exact", 2, 3, None, "unstable at 1 although 2 is stable")),
        ("? u u u", Boundary("undecided", None, 2, None, "1 not decided yet")),
        ("u ? ? u", Boundary("undecided", None, 1, None, "2 and 3 not decided yet")),
    ],
)
def test_edge_along_four_values(statuses: str, expected: Boundary) -> None:
    words = {"s": "stable", "u": "unstable", "?": "undecided"}
    assert boundary([1, 2, 3, 4], [words[s] for s in statuses.split()]) == expected  # type: ignore[misc]


def test_edge_of_nothing_and_of_one() -> None:
    assert boundary([], []).kind == "undecided"
    assert boundary([2e-3], ["stable"]) == Boundary("at_least", 2e-3, None, 2e-3, "no larger LR tested")
    assert boundary([2e-3], ["unstable"]) == Boundary("below", None, 2e-3, None, "no smaller LR tested")


def made(kind: Kind, largest: float | None, beyond: float | None) -> Boundary:
    return Boundary(kind, largest, beyond)


@pytest.mark.parametrize(
    ("ours", "base", "expected"),
    [
        # true edges in [8, 16) and [2, 4): their ratio lies between 8/4 and 16/2
        (made("exact", 8, 16), made("exact", 2, 4), ("", 4.0, 2.0, 8.0)),
        (made("at_least", 8, None), made("exact", 2, 8), ("at least", 4.0, 1.0, None)),
        (made("exact", 2, 4), made("at_least", 8, None), ("at most", 0.25, None, 0.5)),
        (made("at_least", 8, None), made("at_least", 8, None), ("", None, None, None)),
        (made("exact", 4, 8), made("below", None, 1), ("more than", 4.0, 4.0, None)),
        (made("below", None, 1), made("exact", 4, 8), ("less than", 0.25, None, 0.25)),
        (made("below", None, 1), made("below", None, 1), ("", None, None, None)),
        (made("exact", 8, 16), made("undecided", None, 4), ("", None, 2.0, None)),
    ],
)
def test_multiples(ours: Boundary, base: Boundary, expected: tuple[str, float, float, float]) -> None:
    assert tuple(multiple(ours, base)) == expected


# --- cells -----------------------------------------------------------------------------------------------------------


def test_share_diverged_with_the_exact_interval() -> None:
    # Clopper-Pearson: 0 of 3 is 0 to 1 - 0.025^(1/3), 3 of 3 is its mirror image; 1 of 4 from tables
    assert proportion(0, 3) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 3)))
    assert proportion(3, 3) == (1.0, pytest.approx(0.025 ** (1 / 3)), 1.0)
    assert proportion(1, 4) == (0.25, pytest.approx(0.00631, abs=5e-6), pytest.approx(0.80588, abs=5e-6))
    assert all(math.isnan(v) for v in proportion(0, 0))


def test_a_cell_is_stable_only_when_every_seed_is() -> None:
    cells = cell_stability(
        *grid(
            ("baseline", 8, 1e-3, OK),
            ("baseline", 8, 2e-3, MIXED),
            ("baseline", 8, 4e-3, OPEN),
            ("baseline", 8, 8e-3, ("DIVERGED", "RUNNING", "FAILED", "DONE")),
        )
    )
    assert cells["status"].tolist() == ["stable", "unstable", "undecided", "unstable"]
    assert cells["runs"].tolist() == [2, 2, 2, 4]
    assert cells["unfinished"].tolist() == [0, 0, 1, 2]
    assert cells["diverged_share"].tolist() == [0.0, 0.5, 0.0, 0.5]  # of the finished


def test_spikes_are_a_stricter_criterion_of_their_own() -> None:
    runs, stability = grid(("baseline", 8, 1e-3, OK), ("baseline", 8, 2e-3, OK), ratios={("baseline", 8, 2e-3): 1.9})
    assert cell_stability(runs, stability)["status"].tolist() == ["stable", "stable"]
    assert cell_stability(runs, stability, "loss_ratio")["status"].tolist() == ["stable", "unstable"]
    assert cell_stability(runs, stability, "loss_ratio", 1.9)["status"].tolist() == [
        "stable",
        "stable",
    ]
    nothing = stability.assign(max_loss_ratio=math.nan)  # evaluations only: no loss ratio to judge by
    assert cell_stability(runs, nothing, "loss_ratio")["status"].tolist() == ["undecided", "undecided"]
    assert cell_stability(runs, nothing)["status"].tolist() == ["stable", "stable"]


def test_a_spike_of_a_run_that_still_trains_already_counts() -> None:
    runs, stability = grid(("baseline", 8, 2e-3, OPEN), ratios={("baseline", 8, 2e-3): 1.9})
    assert cell_stability(runs, stability, "loss_ratio")["status"].tolist() == ["unstable"]


def test_events_usefulness_and_outcomes_are_criteria_too() -> None:
    cells: list[Cell] = [("baseline", 8, lr, OK) for lr in (1e-3, 2e-3, 4e-3)]
    runs, stability = grid(
        *cells, events={("baseline", 8, 2e-3): 1, ("baseline", 8, 4e-3): None}, useless=[("baseline", 8, 4e-3)]
    )
    assert cell_stability(runs, stability)["status"].tolist() == ["stable"] * 3
    assert cell_stability(runs, stability, "no_events")["status"].tolist() == ["stable", "unstable", "undecided"]
    assert cell_stability(runs, stability, "useful")["status"].tolist() == ["stable", "stable", "unstable"]
    # A run that did not learn above the best learning rate is unstable; one that did not below it shows nothing.
    ended = stability.assign(
        outcome=["did not learn"] * 2 + ["learned"] * 2 + ["did not learn"] * 2,
        unstable=pd.Series([None, None, False, False, True, True], dtype=object),
    )
    found = cell_stability(runs, ended)
    assert found["status"].tolist() == ["undecided", "stable", "unstable"]
    assert (found["unstable_runs"].tolist(), found["did_not_learn"].tolist()) == ([0, 0, 2], [2, 0, 2])
    assert found["diverged"].tolist() == [0, 0, 0]
    (row,) = plain_rows(boundaries(runs, ended))
    assert (row["kind"], row["largest_stable"], row["note"]) == ("exact", 2e-3, "1e-3 undecided")
    assert boundary_sentence(all_boundaries(runs, ended)) == "Largest stable LR at batch 8: baseline 2e-3."


# --- frontiers -------------------------------------------------------------------------------------------------------

PUBLISHED = (  # the claim's shape: at batch 64 the baseline is stable up to 2e-3, the curriculum at every LR
    ("fixed_linear", 64, 2e-3, OK),
    ("fixed_linear", 64, 8e-3, OK),
    ("baseline", 64, 2e-3, OK),
    ("baseline", 64, 8e-3, MIXED),
    ("baseline", 8, 2e-3, OK),
    ("baseline", 8, 8e-3, OK),
    ("fixed_linear", 8, 2e-3, OK),
    ("fixed_linear", 8, 8e-3, OK),
)


def test_frontier_along_learning_rates() -> None:
    table = boundaries(*grid(*PUBLISHED))
    rows = {(r["curriculum"], r["at"]): r for r in plain_rows(table)}
    base, ours = rows["baseline", 64], rows["fixed_linear", 64]
    assert (base["kind"], base["largest_stable"], base["unstable_from"]) == ("exact", 2e-3, 8e-3)
    assert (ours["kind"], ours["largest_stable"], ours["unstable_from"]) == ("at_least", 8e-3, None)
    assert (ours["multiple_relation"], ours["multiple"]) == ("at least", pytest.approx(4.0))
    assert (ours["multiple_above"], ours["multiple_below"]) == (pytest.approx(1.0), None)
    assert (ours["baseline_kind"], ours["baseline_largest_stable"]) == ("exact", 2e-3)
    assert (base["tested"], base["runs"], base["diverged"]) == ("2e-3 8e-3", 4, 1)
    small = rows["fixed_linear", 8]
    assert small["multiple"] is None
    assert small["note"] == "no larger LR tested; nor is the baseline's edge reached"
    assert table["role"].tolist() == ["baseline", "curriculum", "baseline", "curriculum"]


def test_frontier_along_batches() -> None:
    rows = {(r["curriculum"], r["at"]): r for r in plain_rows(boundaries(*grid(*PUBLISHED), along="global_batch_size"))}
    assert (rows["baseline", 8e-3]["kind"], rows["baseline", 8e-3]["largest_stable"]) == ("exact", 8)
    ours = rows["fixed_linear", 8e-3]
    assert (ours["kind"], ours["largest_stable"], ours["multiple_relation"], ours["multiple"]) == (
        "at_least",
        64,
        "at least",
        8.0,
    )
    assert ours["note"] == "no larger batch tested"


def test_settings_are_not_compared_with_each_other() -> None:
    runs, stability = grid(("baseline", 8, 2e-3, OK), ("baseline", 8, 4e-3, LOST), ("fixed_linear", 8, 4e-3, OK))
    runs.loc[runs["role"] == "curriculum", "setting"] = "1"
    (row,) = (r for r in plain_rows(boundaries(runs, stability)) if r["role"] == "curriculum")
    assert row["multiple"] is None
    assert row["note"] == "no larger LR tested; no baseline to compare with"


def test_fewer_seeds_than_the_baseline_are_said() -> None:
    cells: list[Cell] = [("baseline", 8, 1e-3, OK), ("baseline", 8, 2e-3, LOST)]
    cells += [("fixed_linear", 8, 1e-3, ("DONE",)), ("fixed_linear", 8, 2e-3, ("DIVERGED",))]
    _, row = plain_rows(boundaries(*grid(*cells)))
    assert (row["multiple"], row["note"]) == (1.0, "fewer seeds than the baseline's 2")


def test_what_a_report_writes_is_plain_and_holds_every_criterion() -> None:
    runs, stability = grid(*PUBLISHED, ratios={("fixed_linear", 64, 8e-3): 1.5})
    table = all_boundaries(runs, stability)
    assert len(table) == 2 * 4 * 4  # two axes, four criteria, two curricula at two values
    json.dumps(plain_rows(table), allow_nan=False)
    strict = {(r["curriculum"], r["at"]): r for r in plain_rows(select(table, criterion="loss_ratio"))}
    assert (strict["fixed_linear", 64]["kind"], strict["fixed_linear", 64]["largest_stable"]) == ("exact", 2e-3)
    assert len(select(table, "global_batch_size")) == 4


def test_an_empty_sweep_has_an_empty_frontier() -> None:
    runs, stability = grid(*PUBLISHED)
    table = all_boundaries(runs.iloc[:0], stability.iloc[:0])
    assert table.empty
    assert boundary_sentence(table) == ""


# --- the sentence ----------------------------------------------------------------------------------------------------


def said(*cells: Cell, events: dict[Place, int | None] | None = None, useless: Sequence[Place] | None = None) -> str:
    return boundary_sentence(all_boundaries(*grid(*cells, events=events, useless=useless)))


def test_the_sentence_names_the_batches_where_something_can_be_said() -> None:
    assert said(*PUBLISHED) == (
        "Largest stable LR at batch 64: baseline 2e-3, fixed_linear at least 8e-3 (4x or more). "
        "The table has 1 more batch size."
    )


def test_the_sentence_shows_two_batches_rather_than_the_better_one() -> None:
    cells: list[Cell] = [(m, b, 1e-3, OK) for b in (8, 16, 32) for m in ("baseline", "linear")]
    cells += [("baseline", b, 4e-3, LOST) for b in (8, 16, 32)]
    cells += [("linear", 8, 4e-3, OK), ("linear", 16, 4e-3, OK), ("linear", 32, 4e-3, LOST)]
    assert said(*cells) == (
        "Largest stable LR at batch 16: baseline 1e-3, linear at least 4e-3 (4x or more); at batch 32: baseline 1e-3, "
        "linear 1e-3 (1x). The table has 1 more batch size."
    )


def test_the_sentence_is_about_the_setting_that_compares() -> None:
    runs, stability = grid(("other", 4, 1e-3, OK), *PUBLISHED)
    runs.loc[runs["curriculum"] == "other", "setting"] = "another model"
    assert boundary_sentence(all_boundaries(runs, stability)) == (
        "Largest stable LR at batch 64: baseline 2e-3, fixed_linear at least 8e-3 (4x or more). "
        "The table has 1 more batch size and 1 more setting."
    )


def test_the_sentence_of_a_grid_where_nothing_diverged() -> None:
    calm = (("baseline", 8, 2e-3, OK), ("fixed_linear", 8, 2e-3, OK))
    assert said(*calm) == "None of 4 runs diverged: the stability boundary lies beyond this grid."
    assert said(*calm, events={("baseline", 8, 2e-3): 3}) == (
        "None of 4 runs diverged: the stability boundary lies beyond this grid. "
        "Largest LR without an instability event "
        "at batch 8: baseline below 2e-3, fixed_linear at least 2e-3 (more than 1x)."
    )
    assert said(*calm, useless=[("baseline", 8, 2e-3)]) == (
        "None of 4 runs diverged: the stability boundary lies beyond this grid. Largest LR within 2% of the method's "
        "best loss at batch 8: baseline below 2e-3, fixed_linear at least 2e-3 (more than 1x)."
    )
    assert said(("baseline", 8, 2e-3, ("RUNNING",))) == (
        "The one run has not diverged so far (1 not finished); the stability boundary is not reached yet."
    )


def test_the_sentence_says_worse_holes_and_what_is_undecided() -> None:
    cells = [("baseline", 8, lr, OK) for lr in (1e-3, 2e-3, 4e-3)]
    cells += [("worse", 8, 1e-3, OK), ("worse", 8, 2e-3, LOST), ("worse", 8, 4e-3, LOST)]
    cells += [("holed", 8, 1e-3, OK), ("holed", 8, 2e-3, LOST), ("holed", 8, 4e-3, OK)]
    cells += [("open", 8, 1e-3, OPEN)]
    cells += [("more", 8, 1e-3, OK), ("most", 8, 1e-3, OK)]
    assert said(*cells) == (
        "Largest stable LR at batch 8: baseline at least 4e-3, worse 1e-3 (0.25x or less), holed at least 4e-3 (not "
        "at every value below), open undecided. The table has 2 more curricula."
    )


# --- from run folders to files ---------------------------------------------------------------------------------------


def test_a_report_writes_frontier_correlation_and_sentence(tmp_path: Path) -> None:
    calm = {"train_losses": [4, 3, 2], "global_batch_size": 8}
    made = [
        make_run(tmp_path, [5, 2], curriculum=BASELINE, **calm),
        make_run(tmp_path, [5, 9], curriculum=BASELINE, optim={"lr": 8e-3}, state="DIVERGED", **calm),
        make_run(tmp_path, [5, 2], curriculum=LINEAR, **calm),
        make_run(tmp_path, [5, 2], curriculum=LINEAR, optim={"lr": 8e-3}, **calm),
    ]
    folder = make_sweep(tmp_path, made)
    assert main(["report", str(folder)]) == 0
    out = SweepDir.at(folder)
    answer = json.loads(out.verdict.read_text())
    said = "Largest stable LR at batch 8: baseline 2e-3, fixed_linear at least 8e-3 (4x or more)."
    assert answer["stability_sentence"] == said
    assert said in out.report.read_text()
    table = pd.read_csv(out.frontier)
    ours = table[(table["curriculum"] == "fixed_linear") & (table["along"] == "lr")]
    multiples = dict(zip(ours["criterion"], ours["multiple"], strict=True))
    assert math.isnan(multiples.pop("no_events"))  # three steps are too few to tell an event from noise
    assert multiples == pytest.approx({"stable": 4.0, "loss_ratio": 4.0, "useful": 4.0})
    assert len(answer["frontier"]) == len(table)
    correlated = pd.read_csv(out.correlation)
    assert set(correlated["note"]) == {"no step has both a loss ratio and Adam's variance"}
    assert set(correlated["level"]) == {"sweep", "curriculum", "cell", "run"}
