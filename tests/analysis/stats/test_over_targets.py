"""Savings at every target and best against best: known answers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis import load_runs
from analysis.stats.best_vs_best import best_against_best, crossfitted
from analysis.stats.crossings import METHODS, Curve, crossing, crossings, curves
from analysis.stats.intervals import Estimate, Pair, estimate
from analysis.stats.over_targets import at_targets, over_targets, target_losses
from analysis.stats.savings import cell_savings, run_savings
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep, pair
from tests.analysis.tables import verdict


def curve(losses: list[float], tokens: list[float] | None = None) -> Curve:
    t = np.array(tokens if tokens is not None else [1000.0 * i for i in range(len(losses))])
    return Curve(t, t / 100, np.array(losses, dtype=float))


# --- crossings --------------------------------------------------------------------------------------------------------


def test_the_three_ways_to_read_a_crossing() -> None:
    # Down to 2 at 200 tokens, up to 3 at 300, down to 1 at 400: 2.5 is met at 150 for the first time, for good at 325.
    t, y = [0, 100, 200, 300, 400], [4.0, 3.0, 2.0, 3.0, 1.0]
    found = {m: crossing(t, t, y, 2.5, m).tokens for m in METHODS}
    assert found == {"interpolate": 150.0, "first": 200.0, "sustained": 325.0}


def test_a_curve_that_ends_above_the_target_is_never_there_for_good() -> None:
    assert crossing([0, 1, 2], [0, 1, 2], [4, 1, 3], 2.0).reached
    assert not crossing([0, 1, 2], [0, 1, 2], [4, 1, 3], 2.0, "sustained").reached
    assert not crossing([0, 1, 2], [0, 1, 2], [4, 1, math.nan], 2.0, "sustained").reached


def test_many_targets_at_once_are_the_single_ones() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(40.0)
    y = 5 - 0.08 * t + rng.normal(0, 0.2, 40)
    y[7] = np.nan
    targets = np.linspace(1.5, 5.5, 33)
    for method in METHODS:
        tokens, _ = crossings(t, t, y, targets, method)
        single = [crossing(t, t, y, float(g), method).tokens for g in targets]
        np.testing.assert_array_equal(tokens, [math.nan if v is None else v for v in single])


# --- over targets -----------------------------------------------------------------------------------------------------


def test_targets_end_where_the_worst_run_ended() -> None:
    base, short = curve([5, 4, 3, 2]), curve([5, 3.5, 3.2, 3.1])
    found = target_losses([(short, base)])
    assert found[-1] == 3.1
    assert (np.diff(found) < 0).all()
    assert found[0] < 5
    # for good: the curriculum ends at 3.4 although it was lower once
    assert target_losses([(curve([5, 3.5, 3.2, 3.4]), base)], "sustained")[-1] == 3.4


def test_the_saving_at_the_deepest_target_by_hand() -> None:
    # Two seeds, deepest common loss 2: baselines take 3,000 and 3,000 tokens, curricula 1,000 and 2,000.
    pairs = [(curve([5, 2, 1.9, 1.8]), curve([5, 4, 3, 2])), (curve([5, 3, 2, 1.8]), curve([5, 4, 3, 2]))]
    last = at_targets(pairs)[-1]
    assert (last.loss, last.n) == (2.0, 2)
    assert last.token[0] == pytest.approx(1 - math.sqrt(1 / 3 * 2 / 3))
    half = 12.706204736 * math.log(2) / 2  # t(0.975, 1) times the standard error of two logs ln 2 apart
    assert last.token[1] == pytest.approx(1 - math.sqrt(2 / 9) * math.exp(half))
    assert last.time == pytest.approx(last.token)


def test_one_seed_has_a_line_without_a_band() -> None:
    last = at_targets([(curve([5, 2, 1]), curve([5, 3, 2]))])[-1]
    assert last.token[0] == pytest.approx(0.5)
    assert math.isnan(last.token[1])


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(curve([math.nan, math.nan]), curve([5, 4]))],
        [(curve([5, 4]), curve([3]))],  # one begins below where the other ends
        [(curve([5, 4], [0, 0]), curve([5, 4], [0, 0]))],
    ],
    ids=["no pair", "never finite", "no loss in common", "no tokens"],
)
def test_where_there_is_no_common_target(pairs: list[tuple[Curve, Curve]]) -> None:
    assert at_targets(pairs) == []


def test_over_targets_of_a_sweep(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=1) + pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=2)
    made += pair(tmp_path, [5, 4, 3, 2], [5, 4.5, 4, 3.5], optim={"lr": 4e-3})
    runs = load_runs(make_sweep(tmp_path, made))
    table, (first, second) = over_targets(runs, cell_savings(run_savings(runs)))
    assert first is not None
    assert second is not None
    assert first.tokens.point == pytest.approx(1 / 3)
    assert (first.tokens.n, first.target_ppl) == (2, pytest.approx(math.exp(2)))
    assert table[table["cell"] == 0]["token_saving"].iloc[-1] == first.tokens.point
    # The other cell's curriculum never got further than 3.5, where its baseline was after 1,500 tokens: twice as many.
    assert second.tokens.point == pytest.approx(-1.0)
    assert second.tokens.low is None
    answer = verdict(runs)
    json.dumps(answer, allow_nan=False)
    assert [c["deepest"]["token_saving"] for c in answer["cells"]] == [pytest.approx(1 / 3), pytest.approx(-1.0)]


def test_curves_of_runs_in_pieces() -> None:
    import pandas as pd

    evals = pd.DataFrame(
        {
            "run_id": ["a", "b", "a"],
            "consumed_tokens": [0, 0, 10],
            "train_seconds": [0.0, 0.0, 1.0],
            "val_loss": [5.0, 4.0, 3.0],
        }
    )
    found = curves(evals)
    assert found["a"].loss.tolist() == [5.0, 3.0]
    assert found["b"].loss.tolist() == [4.0]
    assert curves(evals.iloc[:0]) == {}


# --- best against best ------------------------------------------------------------------------------------------------


def grid(tmp_path: Path, finals: dict[str, list[tuple[float, float]]]) -> Path:
    """Cells of baselines and curricula by learning rate; each seed's curve falls from 5 to `end` at `tokens`."""
    made = []
    for name, seeds in finals.items():
        kind, lr = name.split("@")
        for seed, (end, tokens) in enumerate(seeds, 1):
            made.append(
                make_run(
                    tmp_path,
                    [5, end],
                    tokens=[0, int(tokens)],
                    curriculum=BASELINE if kind == "base" else LINEAR,
                    optim={"lr": float(lr)},
                    seed=seed,
                )
            )
    return make_sweep(tmp_path, made)


def test_the_cells_are_chosen_on_the_other_seeds(tmp_path: Path) -> None:
    # Over seeds 2 and 3 (1 and 3, 1 and 2) the baseline at 2e-3 is the best each time. Curriculum A is lucky at seed 1
    # only (100 tokens to a loss of 2, then 900 and 900), curriculum B takes 500 each time.
    folder = grid(
        tmp_path,
        {
            "base@2e-3": [(2, 1000)] * 3,
            "base@4e-3": [(3, 1000)] * 3,
            "cl@2e-3": [(2, 10), (2, 900), (2, 900)],
            "cl@4e-3": [(2, 500)] * 3,
        },
    )
    (found,) = best_against_best(load_runs(folder))
    assert found.baseline.lr == 2e-3
    # Seeds 2 and 3 hold A's luck of seed 1: geometric mean of 10 and 900 is 95, below 500. Seed 1 picks B.
    assert found.picks == 2
    assert found.tokens.point == pytest.approx(1 - (0.5 * 0.9 * 0.9) ** (1 / 3))
    assert found.crossfitted
    assert (found.baseline_cells, found.curriculum_cells) == (2, 2)
    json.dumps(verdict(load_runs(folder))["best_against_best"], allow_nan=False)


def test_one_seed_flatters_the_choice_and_says_so(tmp_path: Path) -> None:
    folder = grid(tmp_path, {"base@2e-3": [(2, 1000)], "cl@2e-3": [(2, 800)], "cl@4e-3": [(2, 400)]})
    answer = verdict(load_runs(folder))
    (found,) = answer["best_against_best"]
    assert found["final_token_saving_point"] == pytest.approx(0.6)
    assert not found["crossfitted"]
    assert "which flatters the choice" in answer["best_sentence"]
    assert any("flatters the choice" in c for c in answer["caveats"])


def test_a_best_curriculum_that_lost_seeds_is_bounded(tmp_path: Path) -> None:
    folder = grid(tmp_path, {"base@2e-3": [(2, 1000)] * 2, "cl@2e-3": [(2, 500), (3, 1000)]})
    answer = verdict(load_runs(folder))
    (found,) = answer["best_against_best"]
    assert (found["final_token_saving_point"], found["final_token_saving_arrived"]) == (None, 1)
    assert found["final_token_saving_bound"] == pytest.approx(1 - math.sqrt(0.5))
    # Two evaluations are too few to read tokens from; one seed ended level, the other a nat behind.
    assert "undecided" in answer["best_sentence"]
    assert "fewer" not in answer["best_sentence"]


def test_cells_of_unequal_seeds_are_compared_over_those_in_common(tmp_path: Path) -> None:
    folder = grid(tmp_path, {"base@2e-3": [(2, 1000)] * 5, "cl@2e-3": [(2, 500), (2, 600), (2, 700)]})
    (found,) = best_against_best(load_runs(folder))
    assert found.seeds == 3
    assert found.tokens.point == pytest.approx(1 - (0.5 * 0.6 * 0.7) ** (1 / 3))
    assert "Each seed is measured" not in verdict(load_runs(folder))["best_sentence"]  # nothing was chosen


def test_of_curricula_that_never_arrive_the_nearest_is_chosen(tmp_path: Path) -> None:
    folder = grid(tmp_path, {"base@2e-3": [(2, 1000)], "cl@1e-3": [(4, 1000)], "cl@4e-3": [(2.1, 1000)]})
    (found,) = best_against_best(load_runs(folder))
    assert found.curriculum.lr == 4e-3


def test_the_interval_allows_for_choices_that_share_seeds() -> None:
    plain, wider = (f([Pair(math.log(v)) for v in (0.5, 0.6, 0.8)]) for f in (estimate, crossfitted))
    assert plain.point == wider.point

    def half(e: Estimate) -> float:
        assert e.point is not None
        assert e.high is not None
        return math.log1p(-e.point) - math.log1p(-e.high)

    assert half(wider) / half(plain) == pytest.approx(math.sqrt(1 + 3 / 2))


def test_nothing_to_choose_from(tmp_path: Path) -> None:
    only = make_sweep(tmp_path, [make_run(tmp_path, [5, 2], curriculum=BASELINE)])
    assert best_against_best(load_runs(only)) == []
    assert verdict(load_runs(only))["best_sentence"] == ""
