"""Loss differences, unpaired arms, censored likelihood, power, equivalence and unlike arms, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis import load_runs
from analysis.answer import analyse
from analysis.stats.best_vs_best import folds, widening
from analysis.stats.censored import censored_estimate, likelihood_interval
from analysis.stats.crossings import Curve
from analysis.stats.intervals import Pair, estimate
from analysis.stats.loss_difference import difference_at_end, loss_difference
from analysis.stats.power import Power, equivalence_p, pooled_sd, power, seeds_needed, smallest_saving, sweep_power
from analysis.stats.unpaired import pairing_holds, welch
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep

# --- loss at equal tokens and seconds ---------------------------------------------------------------------------------


def test_loss_at_equal_tokens_and_seconds() -> None:
    ours = Curve(np.array([1.0, 2.0]), np.array([10.0, 20.0]), np.array([4.0, 2.0]))
    theirs = Curve(np.array([1.0, 2.0, 3.0]), np.array([5.0, 10.0, 15.0]), np.array([4.0, 3.0, 1.0]))
    assert difference_at_end(ours, theirs) == pytest.approx(2 - 3)  # after 2 tokens
    assert difference_at_end(ours, theirs, "seconds") == pytest.approx(3 - 1)  # after 15 s
    without = theirs._replace(seconds=np.full(3, math.nan))
    assert math.isnan(difference_at_end(ours, without, "seconds"))


def test_a_loss_difference_by_hand() -> None:
    # mean -0.2, sd 0.1: half width t(0.975, 2) = 4.30265 times 0.1 / sqrt(3)
    result = loss_difference([-0.1, -0.2, -0.3, math.nan])
    half = 4.30265273 * 0.1 / math.sqrt(3)
    assert (result.mean, result.n, result.method) == (pytest.approx(-0.2), 3, "t")
    assert result.span == (pytest.approx(-0.2 - half), pytest.approx(-0.2 + half))
    assert result.p_value == pytest.approx(float(stats.ttest_1samp([-0.1, -0.2, -0.3], 0).pvalue))
    assert loss_difference([0.5]).span is None
    assert loss_difference([math.nan]).mean is None
    assert loss_difference([0.5, 0.5]).p_value is None


# --- best against best ------------------------------------------------------------------------------------------------


def test_folds() -> None:
    assert folds([1]) == [([1], [1])]
    assert folds([1, 2, 3]) == [([1], [2, 3]), ([2], [1, 3]), ([3], [1, 2])]
    assert folds([1, 2, 3, 4, 5]) == [([1, 3, 5], [2, 4]), ([2, 4], [1, 3, 5])]
    assert (widening(1), widening(3), widening(4)) == (1.0, pytest.approx(math.sqrt(2.5)), pytest.approx(math.sqrt(2)))


# --- a censored likelihood --------------------------------------------------------------------------------------------


def test_without_bounds_the_likelihood_interval_is_students() -> None:
    values = np.array([-0.5, -0.3, -0.2, -0.45])
    low, high = likelihood_interval(values, np.zeros(4, dtype=int))
    half = float(stats.t.ppf(0.975, 3)) * values.std(ddof=1) / 2
    assert (low, high) == (pytest.approx(values.mean() - half, abs=1e-4), pytest.approx(values.mean() + half, abs=1e-4))


def test_bounds_widen_the_interval_on_their_side() -> None:
    pairs = [Pair(-0.5), Pair(-0.3), Pair(-0.4), Pair(-0.1, "at_most")]
    plain, result = estimate(pairs), censored_estimate(pairs)
    assert (result.point, result.bound, result.censored) == (None, plain.bound, "at_most")
    assert result.method == "censored"
    assert result.low is not None
    assert result.high is not None
    assert result.low < -math.expm1(-0.3) < result.high  # the known values' mean is -0.4
    assert censored_estimate([Pair(-0.5), Pair(-0.1, "at_most")]) == estimate([Pair(-0.5), Pair(-0.1, "at_most")])
    assert censored_estimate(pairs[:3]) == estimate(pairs[:3])


# --- unpaired arms ----------------------------------------------------------------------------------------------------


def test_welch_with_halfway_degrees() -> None:
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0, 8.0])
    plain = stats.ttest_ind(ours, theirs, equal_var=False)
    df = (float(plain.df) + 2) / 2
    result = welch(ours, theirs)
    assert float(result.mean) == -3.0
    assert float(result.p_value) == pytest.approx(2 * float(stats.t.sf(abs(float(plain.statistic)), df)))
    two = welch(ours[:2], theirs)  # an arm of two runs has one degree of freedom
    error = math.sqrt(0.5 / 2 + theirs.var(ddof=1) / 4)
    assert float(two.high - two.mean) == pytest.approx(float(stats.t.ppf(0.975, 1)) * error)


def test_when_seeds_pair() -> None:
    assert pairing_holds({1, 2}, {1, 2, 3, 4, 5})  # every curriculum seed has its baseline
    assert pairing_holds({1, 2, 3, 4}, {1, 2, 3})  # three pairs, one run of seven left over
    assert not pairing_holds({1, 2, 3}, {4, 5, 6})
    assert not pairing_holds({1, 2, 3, 4}, {1, 2})
    assert pairing_holds({1, 2, 3, 4, 5, 6}, {1, 2, 3})  # three of nine left over
    assert not pairing_holds({1, 2, 3, 4, 5, 6, 7}, {1, 2, 3})  # four of ten


def test_seeds_that_do_not_pair_are_compared_as_arms(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2, 3):
        shift = seed / 100
        made.append(make_run(tmp_path, [5, 4 + shift, 3, 2.5, 2], curriculum=BASELINE, seed=seed))
        made.append(make_run(tmp_path, [5, 3 + shift, 2.3, 1.5, 1.2], curriculum=LINEAR, seed=seed + 10))
    answer = analyse(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer.cells
    assert cell.unpaired is not None
    assert (cell.unpaired.runs, cell.printed.method, cell.waiting) == ((3, 3), "welch", 0)
    # All baselines are at 2.5 - 0.5 share after 3,200 tokens, the loss that all runs had reached.
    share = math.log(3200 / 3000) / math.log(4000 / 3000)
    target = 2.5 - 0.5 * share
    assert cell.printed_ppl == pytest.approx(math.exp(target))
    # Curricula pass it between their evaluations at 1,000 and 2,000 tokens.
    there = [1000 * 2 ** ((3 + s / 100 - target) / (0.7 + s / 100)) for s in (1, 2, 3)]
    assert cell.printed.point == pytest.approx(1 - math.prod(there) ** (1 / 3) / 3200)
    assert cell.loss.mean == pytest.approx(1.2 - 2)
    assert (cell.difference, answer.cells_tested) == ("saved", 1)


# --- power and equivalence --------------------------------------------------------------------------------------------


def test_power_by_the_noncentral_t() -> None:
    # A log ratio of 0 is "detected" in its own direction in half of 5%.
    assert power(0.0, 0.1, 5, 0.05) == pytest.approx(0.025)
    saving = smallest_saving(0.14, 5, 10)
    assert saving == pytest.approx(0.36, abs=0.005)  # the table in docs/statistics.md
    assert power(-math.log1p(-saving), 0.14, 5, 0.005) == pytest.approx(0.8, abs=1e-6)
    assert (seeds_needed(0.1, 0.06, 1), seeds_needed(0.2, 0.06, 1)) == (5, 3)
    assert (seeds_needed(0.1, 0.14, 10), seeds_needed(0.2, 0.14, 10)) == (28, 10)
    assert seeds_needed(0.001, 0.3, 10) is None
    assert 0.99 < smallest_saving(0.28, 2, 12) <= 1


def test_the_spread_is_pooled_by_degrees_of_freedom() -> None:
    # Variances 0.02 (one degree) and 0.01 (two): root of (0.02 + 2 * 0.01) / 3.
    cells = [[0.0, 0.2], [0.1, 0.2, 0.3], [0.5]]
    assert pooled_sd(cells) == pytest.approx(math.sqrt(0.04 / 3))
    assert pooled_sd([[0.5]]) is None
    assert sweep_power([]) == Power(0.1, True, 1, 1, None, 10, 4)
    result = sweep_power(cells)
    assert (result.assumed, result.seeds, result.cells) == (False, 2, 2)


def test_equivalence_by_two_one_sided_tests() -> None:
    values = [0.001, -0.002, 0.003, 0.0]
    lower = stats.ttest_1samp(values, math.log(0.95), alternative="greater").pvalue
    upper = stats.ttest_1samp(values, math.log(1.05), alternative="less").pvalue
    assert equivalence_p(values) == pytest.approx(max(float(lower), float(upper)))
    assert equivalence_p([0.1]) is None
    assert equivalence_p([0.1, 0.1]) is None


@pytest.mark.parametrize(("spread", "excluded"), [(0.001, True), (0.5, False)])
def test_no_difference_is_excluded_or_left_open(tmp_path: Path, spread: float, excluded: bool) -> None:
    made = []
    for seed, shift in ((1, -1.0), (2, 0.3), (3, 0.7)):
        made.append(make_run(tmp_path, [5, 4, 3, 2.5, 2], curriculum=BASELINE, seed=seed))
        curve = [v + shift * spread for v in (5, 4, 3, 2.5, 2)]
        made.append(make_run(tmp_path, curve, curriculum=LINEAR, seed=seed))
    (cell,) = analyse(load_runs(make_sweep(tmp_path, made))).cells
    assert (cell.difference, cell.equivalent) == ("undecided", excluded)


# --- unlike arms ------------------------------------------------------------------------------------------------------


def test_noise_and_grids_that_differ_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = []
    for seed in (1, 2, 3):
        for curriculum, count, noise in ((BASELINE, 20, 0.002), (LINEAR, 60, 0.02)):
            tokens = [int(1000 * (i + 1) * 60 / count) for i in range(count)]
            loss = [3 - 0.5 * math.log(t / 1000) / 4 + rng.normal(0, noise) for t in tokens]
            made.append(make_run(tmp_path, loss, tokens=tokens, curriculum=curriculum, seed=seed))
    answer = analyse(load_runs(make_sweep(tmp_path, made)))
    ratios = {u.kind: u.ratio for u in answer.unlike}
    assert ratios["grid"] == pytest.approx(3)
    assert ratios["noise"] > 4
    assert len(answer.unlike[0].run_ids) == 6
    assert "budget" not in ratios


def test_too_few_evaluations_are_named(tmp_path: Path) -> None:
    made = [make_run(tmp_path, [5, 3, 2], curriculum=BASELINE), make_run(tmp_path, [5, 3, 2, 1], curriculum=LINEAR)]
    answer = analyse(load_runs(make_sweep(tmp_path, made)))
    assert [(u.kind, u.ratio) for u in answer.unlike] == [("too few evaluations", 2.0)]
    assert answer.cells[0].printed.point is None
