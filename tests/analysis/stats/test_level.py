"""The printed saving on cleaned curves: by hand, unbiased by noise and grids, at a given target, with failures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis import load_runs
from analysis.answer import Options, analyse
from analysis.stats.crossings import Curve, Floats
from analysis.stats.level import level_log_ratio, level_pair
from analysis.stats.smoothing import clean_curves, cleaned, despiked, evaluation_noise, falling, smooth, tokens_at
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep, pair

TOKENS = np.arange(1, 41) / 40


def power_law(tokens: Floats, pace: float = 1.0) -> Floats:
    """2 + 0.8 (tokens / pace)^-0.3: at `pace` 0.7 any loss takes 70% of the tokens."""
    return 2 + 0.8 * (tokens / pace) ** -0.3


def test_falling_averages_what_rises() -> None:
    # 3, 4 -> 3.5 each; then 1, 2, 0 -> 1.5, 1.5, 0.
    assert falling(np.array([3.0, 4.0, 1.0, 2.0, 0.0])).tolist() == [3.5, 3.5, 1.5, 1.5, 0.0]
    assert falling(np.array([[1.0, 2.0], [2.0, 1.0]])).tolist() == [[1.5, 1.5], [2.0, 1.0]]


def test_a_line_over_log_tokens_is_its_own_smooth() -> None:
    line = 3 - 0.5 * np.log(TOKENS)
    np.testing.assert_allclose(smooth(TOKENS, line), line, atol=1e-9)
    assert float(evaluation_noise(TOKENS, line)) == pytest.approx(0, abs=1e-9)


def test_a_spike_is_cut_and_the_rest_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    loss = power_law(TOKENS) + rng.normal(0, 0.003, 40)
    spiked = loss.copy()
    spiked[25] += 0.5
    result = despiked(TOKENS, spiked)
    assert result[25] == pytest.approx(loss[25], abs=0.03)
    np.testing.assert_array_equal(np.delete(result, 25)[5:], np.delete(loss, 25)[5:])


def test_few_evaluations_have_no_spikes_to_cut() -> None:
    loss = np.array([5.0, 2.0, 4.0, 1.0])
    assert despiked(np.array([1.0, 2, 3, 4]), loss).tolist() == loss.tolist()


def test_tokens_to_a_target_are_linear_in_log_tokens() -> None:
    curve = np.array([[4.0, 3.0, 2.0]] * 3)
    at = tokens_at(np.array([1.0, 2.0, 8.0]), curve, np.array([2.5, 5.0, 1.0]))
    # Halfway from 2 to 8 on the log is 4; above the first loss the first evaluation; below the last never.
    assert at[:2].tolist() == pytest.approx([4.0, 1.0])
    assert math.isnan(at[2])


def test_the_run_behind_sets_the_target_at_80_percent() -> None:
    tokens = np.array([1.0, 10.0, 100.0])
    ahead, behind = np.array([4.0, 3.0, 2.0]), np.array([4.0, 3.5, 3.0])
    # After 80 tokens the one behind is at 3.5 - 0.5 log10(8), which the other passes where 3 - log10(t / 10) is as much
    # below 10 tokens: 4 - log10(t).
    target = 3.5 - 0.5 * math.log10(8)
    there = 10 ** (4 - target)
    saved = level_log_ratio(tokens, ahead, tokens, behind)
    assert float(saved) == pytest.approx(math.log(there / 80))
    assert float(level_log_ratio(tokens, behind, tokens, ahead)) == pytest.approx(-float(saved))  # a cost, alike


def test_seconds_are_read_at_the_same_place() -> None:
    tokens = np.array([1.0, 10.0, 100.0])
    ours = Curve(tokens, tokens * 2, np.array([4.0, 3.0, 2.0]))
    theirs = Curve(tokens, tokens * 3, np.array([4.0, 3.5, 3.0]))
    reading = level_pair(ours, theirs, 80.0)
    assert reading is not None
    _, c, b = reading
    assert (b.tokens, b.seconds) == (80.0, pytest.approx(240.0))
    assert c.tokens is not None
    assert c.seconds == pytest.approx(2 * c.tokens)
    assert level_pair(ours, theirs, 101.0) is None  # neither has come that far


@pytest.mark.parametrize(("noise", "every"), [(0.0, 1), (0.003, 1), (0.03, 1), (0.003, 4)])
def test_noise_and_grids_that_differ_leave_no_bias(noise: float, every: int) -> None:
    """The true saving is 30%: ten times the noise, or a quarter of the evaluations, moves its mean by under 1.5%."""
    rng = np.random.default_rng(1)
    grid = TOKENS[every - 1 :: every]
    ours = cleaned(grid, power_law(grid, 0.7) + rng.normal(0, noise, (400, len(grid))))
    theirs = cleaned(TOKENS, power_law(TOKENS) + rng.normal(0, 0.003, (400, 40)))
    mean = float(level_log_ratio(grid, ours, TOKENS, theirs).mean())
    assert mean == pytest.approx(math.log(0.7), abs=0.015)


def test_curves_of_one_grid_are_cleaned_as_each_alone() -> None:
    rng = np.random.default_rng(2)
    made = {str(i): Curve(TOKENS, TOKENS, power_law(TOKENS) + rng.normal(0, 0.01, 40)) for i in range(3)}
    together = clean_curves(made)
    for name, curve in made.items():
        np.testing.assert_allclose(together[name].loss, cleaned(TOKENS, curve.loss))
    short = Curve(TOKENS[:3], TOKENS[:3], np.array([3.0, math.nan, 2.0]))
    assert clean_curves({"short": short}) == {}


def test_a_very_long_curve_is_averaged() -> None:
    tokens = np.arange(1, 5001, dtype=float)
    (clean,) = clean_curves({"a": Curve(tokens, tokens, power_law(tokens / 5000))}).values()
    assert len(clean.tokens) == 500
    assert float(clean.loss[-1]) == pytest.approx(float(power_law(np.array(1.0))), abs=1e-3)


# --- in a sweep -------------------------------------------------------------------------------------------------------


def test_a_given_target_reaches_the_printed_saving(tmp_path: Path) -> None:
    made = [r for s in (1, 2) for r in pair(tmp_path, [5, 4, 3, 2.5, 2], [5, 3, 2.5, 1.5, 1.2], seed=s)]
    answer = analyse(load_runs(make_sweep(tmp_path, made)), Options(target_ppl=math.exp(3)))
    (cell,) = answer.cells
    assert cell.printed_ppl == pytest.approx(math.exp(3))
    # The curriculum begins (its first evaluation above 0 tokens) at the target, 1,000 tokens, the baseline is there
    # after 2,000: at least half.
    assert (cell.printed.censored, cell.printed.bound) == ("at_least", pytest.approx(0.5))
    (best,) = answer.best
    assert best.target_ppl == pytest.approx(math.exp(3))


def test_a_diverged_curriculum_has_saved_nothing(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2, 3):  # ahead of their baselines by half until they diverge
        made += [
            make_run(tmp_path, [5, 4, 3, 2.5, 2], curriculum=BASELINE, seed=seed),
            make_run(tmp_path, [5, 3, 2, 1.9 + seed / 100, 30], curriculum=LINEAR, seed=seed, state="DIVERGED"),
        ]
    (cell,) = analyse(load_runs(make_sweep(tmp_path, made))).cells
    assert (cell.diverged, cell.baseline_diverged, cell.difference) == (3, 0, None)
    assert (cell.reached, cell.tokens.point, cell.printed.point, cell.loss.mean) == (0, None, None, None)
    # It never arrived with its whole budget, where its baseline needed 80% of 4,000 tokens.
    assert cell.printed.censored == "at_most"


def test_one_diverged_curriculum_takes_the_saving_away_and_is_counted(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2, 3, 4, 5):
        bad = seed == 5
        made += [
            make_run(tmp_path, [5, 4, 3, 2.5, 2], curriculum=BASELINE, seed=seed),
            make_run(
                tmp_path,
                [5, 3 + seed / 1000, 2, 1.5, 20 if bad else 1.2],
                curriculum=LINEAR,
                seed=seed,
                state="DIVERGED" if bad else "DONE",
            ),
        ]
    answer = analyse(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer.cells
    assert (cell.diverged, cell.test.n) == (1, 4)
    assert cell.test.p_value is not None
    assert cell.test.p_value < 0.05
    assert cell.difference == "undecided"  # the four that survived are a selection
    (best,) = answer.best
    assert (best.diverged, best.left_out, best.seeds) == (1, (5,), 4)


def test_a_diverged_baseline_is_counted_and_the_other_seeds_compared(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2, 3):
        bad = seed == 3
        made += [
            make_run(
                tmp_path,
                [5, 4 + seed / 100, 3, 2.5, 40 if bad else 2],
                curriculum=BASELINE,
                seed=seed,
                state="DIVERGED" if bad else "DONE",
            ),
            make_run(tmp_path, [5, 3, 2, 1.5, 1.2], curriculum=LINEAR, seed=seed),
        ]
    answer = analyse(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer.cells
    assert (cell.diverged, cell.baseline_diverged, cell.test.n, cell.printed.n) == (0, 1, 2, 2)
    (best,) = answer.best
    assert (best.baseline_diverged, best.left_out) == (1, (3,))


def test_a_diverged_cell_never_wins_best_against_best(tmp_path: Path) -> None:
    made = [make_run(tmp_path, [5, 4, 3, 2.5, 2], curriculum=BASELINE, seed=s) for s in (1, 2)]
    for seed in (1, 2):
        made.append(make_run(tmp_path, [5, 4, 2.9, 2.4, 1.9], curriculum=LINEAR, seed=seed))
        made.append(
            make_run(tmp_path, [5, 2, 1, 0.5, 9], curriculum=LINEAR, seed=seed, optim={"lr": 4e-3}, state="DIVERGED")
        )
    (best,) = analyse(load_runs(make_sweep(tmp_path, made))).best
    assert (best.curriculum.lr, best.diverged, best.left_out) == (2e-3, 0, ())


def test_an_unfinished_run_waits_until_80_percent(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2.5, 2], [5, 3, 2.5, 1.5, 1.2], seed=1)
    made += [
        make_run(tmp_path, [5, 4, 3, 2.5, 2], curriculum=BASELINE, seed=2),
        make_run(tmp_path, [5, 3, 2.5, 1.5], curriculum=LINEAR, seed=2, state="RUNNING"),
    ]
    (cell,) = analyse(load_runs(make_sweep(tmp_path, made))).cells
    assert (cell.printed.n, cell.test.n, cell.difference) == (1, 1, None)
