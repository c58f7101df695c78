"""Known answers of the statistics, by hand; and proof over synthetic sweeps that intervals cover what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis import load_runs
from analysis.calibration.printed import printed_row
from analysis.calibration.simulate import USUAL, at_final, best_of_equals, coverage, family, simulate, true_loss
from analysis.calibration.worlds import WORLDS
from analysis.stats.intervals import (
    BOOTSTRAP_FROM,
    Pair,
    estimate,
    estimate_savings,
    holm,
    log_interval,
    method_for,
    pair,
    t_interval,
)
from analysis.stats.level import level_log_ratio
from analysis.stats.smoothing import cleaned
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep
from tests.analysis.tables import cells

NAN = math.nan


# --- one cell ---------------------------------------------------------------------------------------------------------


def test_three_seeds_by_hand() -> None:
    # Ratios 0.5, 0.6, 0.8: logs -0.693147, -0.510826, -0.223144; mean -0.475706, sd 0.236965, /sqrt(3) = 0.136812.
    found = estimate([pair(50, 100, 0, 0), pair(60, 100, 0, 0), pair(80, 100, 0, 0)])
    assert found.point == pytest.approx(1 - 0.24 ** (1 / 3))
    half = 4.302652729911275 * 0.1368120  # t(0.975, 2)
    assert found.low == pytest.approx(1 - math.exp(-0.4757058 + half), abs=1e-5)
    assert found.high == pytest.approx(1 - math.exp(-0.4757058 - half), abs=1e-5)
    # t = 3.47702 on 2 degrees: p = 1 - t / sqrt(2 + t^2), the closed form for 2 degrees of freedom
    t = 0.4757058 / 0.1368120
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-5)
    assert (found.method, found.censored, found.arrived, found.n) == ("t", "", 3, 3)


def test_the_interval_is_scipys() -> None:
    logs = np.log([0.5, 0.6, 0.8, 0.7])
    expected = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    low, high = log_interval(logs[:, None])
    assert (low[0], high[0]) == pytest.approx(expected)
    assert estimate([Pair(v) for v in logs]).p_value == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)


def test_many_seeds_are_bootstrapped_and_the_same_each_time() -> None:
    logs = np.random.default_rng(0).normal(-0.4, 0.1, BOOTSTRAP_FROM)
    found, again = (estimate([Pair(float(v)) for v in logs]) for _ in range(2))
    assert found == again
    assert found.method == "bootstrap"
    t = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    assert (found.low, found.high) == pytest.approx((1 - math.exp(t[1]), 1 - math.exp(t[0])), abs=0.01)
    assert [method_for(n) for n in (1, 2, BOOTSTRAP_FROM - 1, BOOTSTRAP_FROM)] == ["", "t", "t", "bootstrap"]


def test_one_seed_has_a_point_alone() -> None:
    found = estimate([pair(63, 100, 0, 0)])
    assert found.point == pytest.approx(0.37)
    assert (found.low, found.high, found.p_value, found.method) == (None, None, None, "")
    one = estimate_savings([0.37])
    assert (one.point, one.low, one.high) == (pytest.approx(0.37), None, None)


def test_a_seed_that_never_arrived_bounds_the_saving_and_is_not_dropped() -> None:
    # It was followed for 100 tokens where its baseline needed 80: a ratio above 1.25. The other took half.
    found = estimate([pair(NAN, 80, 100, 100), pair(40, 80, 100, 100)])
    assert (found.point, found.censored, found.arrived, found.n) == (None, "at_most", 1, 2)
    assert found.bound == pytest.approx(1 - math.sqrt(1.25 * 0.5))
    # The interval of the same logs keeps its end on that side.
    logs = np.log([1.25, 0.5])
    assert found.low is None
    assert found.high == pytest.approx(1 - math.exp(stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))[0]))
    assert found.p_value is None


def test_a_baseline_that_never_arrived_bounds_it_from_below() -> None:
    found = estimate([pair(60, NAN, 100, 120)])
    assert (found.censored, found.bound) == ("at_least", pytest.approx(0.5))
    assert (found.low, found.high) == (None, None)


def test_what_bounds_nothing() -> None:
    both_ways = estimate([pair(NAN, 80, 100, 100), pair(60, NAN, 100, 120)])
    assert (both_ways.point, both_ways.bound, both_ways.censored) == (None, None, "unbounded")
    assert pair(NAN, NAN, 100, 100).censored == "unbounded"
    assert pair(50, 0, 100, 100).censored == "unbounded"  # the baseline was there before training
    assert estimate([]).censored == "unbounded"


def test_seeds_that_do_not_differ_prove_nothing() -> None:
    same = estimate([Pair(0.0)] * 3)
    assert (same.point, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, None)
    half = estimate([Pair(math.log(0.5))] * 3)
    assert (half.low, half.high, half.p_value) == (pytest.approx(0.5), pytest.approx(0.5), None)


# --- the proof --------------------------------------------------------------------------------------------------------


@pytest.mark.calibration
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_the_true_saving(seeds: int) -> None:
    row = coverage("the baseline's final loss", 0.3, seeds, 2000)
    assert row.with_interval > 0.99
    assert row.covered is not None
    assert 0.93 <= row.covered <= 0.97


@pytest.mark.calibration
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_baseline_against_a_baseline_is_rarely_significant(seeds: int) -> None:
    assert coverage("the baseline's final loss", 0.0, seeds, 2000).significant <= 0.05
    named = coverage("a loss named beforehand", 0.0, seeds, 2000)
    assert named.covered is not None
    assert 0.93 <= named.covered <= 0.97


@pytest.mark.calibration
@pytest.mark.parametrize("saving", [0.1, 0.0, -0.2])
def test_calls_are_right_whether_runs_arrive_or_not(saving: float) -> None:
    # A curriculum that costs a fifth more tokens never reaches its baseline's final loss: it is a cost all the same.
    row = coverage("the lowest common loss of each seed", saving, 5, 1000)
    assert row.with_interval == 1.0
    assert row.covered is not None
    assert 0.93 <= row.covered <= 0.97
    assert row.significant <= 0.065 if saving == 0 else row.significant > 0.5


def test_synthetic_sweeps_are_read_as_real_ones_are(tmp_path: Path) -> None:
    pairs = simulate(USUAL, 0.3, 3, np.random.default_rng(8))
    made = []
    for seed, (ours, theirs) in enumerate(pairs, 1):
        for curve, curriculum in ((theirs, BASELINE), (ours, LINEAR)):
            tokens = [int(t) for t in curve.tokens]
            made.append(make_run(tmp_path, curve.loss.tolist(), tokens=tokens, curriculum=curriculum, seed=seed))
    (cell,) = cells(load_runs(make_sweep(tmp_path, made)))
    expected = at_final(pairs)
    for ours, theirs in (("", "point"), ("_low", "low"), ("_high", "high")):
        assert cell[f"final_token_saving{ours}"] == pytest.approx(getattr(expected, theirs), rel=1e-9)
    # The printed saving as the calibration over worlds computes it, for all pairs at once.
    tokens = pairs[0][0].tokens[1:]
    curves = [cleaned(tokens, np.array([pair[arm].loss[1:] for pair in pairs])) for arm in (0, 1)]
    interval = t_interval(level_log_ratio(tokens, curves[0], tokens, curves[1]))
    assert cell["token_saving"] == pytest.approx(-math.expm1(float(interval.mean)), rel=1e-9)
    assert cell["token_saving_low"] == pytest.approx(-math.expm1(float(interval.high)), rel=1e-9)
    assert cell["token_p"] == pytest.approx(float(interval.p_value), rel=1e-6)


@pytest.mark.calibration
def test_bounds_hold_where_runs_never_arrive() -> None:
    # A curriculum that costs a quarter more tokens cannot get to a late target within the budget.
    row = coverage("a loss named beforehand", -0.25, 3, 500)
    assert row.with_interval < 0.5
    assert row.held >= 0.93


@pytest.mark.calibration
@pytest.mark.parametrize("world", WORLDS)
def test_the_printed_saving_covers_in_every_world(world: str) -> None:
    row = printed_row(world, 0.14, 300)
    for covered, significant in zip(row.covered, row.significant, strict=True):
        assert 0.93 - 0.015 <= covered <= 0.97 + 0.015  # two standard errors of 900 sweeps
        assert significant <= 0.055 + 0.013  # of 1,200


@pytest.mark.calibration
def test_many_cells_are_corrected_for() -> None:
    plain, corrected = family(12, 3, 300)
    assert plain > 0.3  # 1 - 0.95 ** 12 = 0.46
    assert corrected <= 0.08  # 0.05 and three standard errors


@pytest.mark.calibration
def test_choosing_on_the_other_seeds_does_not_flatter() -> None:
    same, others = (best_of_equals(3, 150, apart=c) for c in (False, True))
    assert same.mean > others.mean + 0.02
    assert others.mean <= 0.3
    assert others.covered >= 0.93


def test_the_synthetic_curve_falls() -> None:
    loss = true_loss(np.linspace(0, 1.5e9, 50))
    assert (np.diff(loss) < 0).all()


# --- Holm -------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # ascending: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 -> 0.02, 0.03, 0.06, 0.04 -> the last may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_equal_single_and_large_values() -> None:
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.3]) == [0.3]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.0, 1.0]) == [0.0, 1.0]
    assert holm([]) == []


def test_tests_that_were_not_made_are_not_counted() -> None:
    assert holm([0.03, math.nan, 0.02]) == [pytest.approx(0.04), pytest.approx(math.nan, nan_ok=True), 0.04]
