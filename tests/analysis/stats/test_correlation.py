"""Correlations of time series: known answers, the false alarms of 1,000 pairs, and what gets no figure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import signal, stats

from analysis.calibration.correlation import calibration
from analysis.stats.correlation import (
    MEASURES,
    correlate,
    correlations,
    effective_size,
    fisher_mean,
    series_by_run,
)
from analysis.stats.intervals import holm


def ar1(rng: np.random.Generator, phi: float, *shape: int) -> np.ndarray:
    """AR(1) series along the last axis, started in its stationary state."""
    noise = rng.standard_normal((*shape[:-1], shape[-1] + 200))
    return signal.lfilter([1.0], [1.0, -phi], noise, axis=-1)[..., 200:]


# --- one pair --------------------------------------------------------------------------------------------------------


def test_coefficients_are_scipys() -> None:
    x, y = np.random.default_rng(1).standard_normal((2, 60))
    y = np.exp(x + y)
    assert correlate(x, y).r == pytest.approx(stats.pearsonr(x, y).statistic, rel=1e-12)
    assert correlate(x, y, "spearman").r == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-12)


def test_effective_size_by_hand() -> None:
    # x = 1 1 1 1 -1 -1 -1 -1, mean 0, sum of squares 8. Lag 1: 3 - 1 + 3 = 5 of 7 products, 5/8 x 8/7 = 5/7;
    # lag 2: (1 + 1 - 1 - 1 + 1 + 1)/8 x 8/6 = 2/6; lag 3: (1 - 1 - 1 - 1 + 1)/8 < 0, where the sum ends.
    x = np.array([1.0, 1, 1, 1, -1, -1, -1, -1])
    total = (1 - 1 / 8) * (5 / 7) ** 2 + (1 - 2 / 8) * (2 / 6) ** 2
    assert effective_size(x, x) == pytest.approx(8 / (1 + 2 * total), rel=1e-12)


def test_alternating_series_are_worth_no_more_than_their_points() -> None:
    x = np.tile([1.0, -1.0], 50) + np.random.default_rng(2).normal(0, 0.1, 100)
    assert effective_size(x, x) == 100


def test_p_and_interval_by_hand() -> None:
    rng = np.random.default_rng(5)
    x = ar1(rng, 0.7, 200)
    y = ar1(rng, 0.7, 200) + x
    found = correlate(x, y)
    freedom = float(effective_size(x, y)) - 2
    t = found.r * math.sqrt(freedom / (1 - found.r**2))
    assert found.p == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.r) - 1.959964 / math.sqrt(freedom - 1)), rel=1e-6)
    assert 30 < found.effective_points < 120


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.arange(9.0), np.arange(9.0), "9 points are too few (at least 10)"),
        ([math.nan] * 30, np.arange(30.0), "0 points are too few"),
        ([math.inf, *range(9)], [1.0, math.nan, *range(8)], "8 points are too few"),
        (np.ones(30), np.arange(30.0), "the loss ratio is constant"),
        (np.arange(30.0), np.ones(30), "the variance is constant"),
    ],
)
def test_no_figure_has_a_reason(x: list[float], y: list[float], said: str) -> None:
    found = correlate(x, y)
    assert math.isnan(found.r)
    assert math.isnan(found.p)
    assert found.note.startswith(said)


def test_one_long_rise_is_little_evidence_however_finely_it_is_cut() -> None:
    x = np.linspace(0, 1, 1000)
    found = correlate(x, x**2)
    assert found.r > 0.95
    assert stats.pearsonr(x, x**2).pvalue < 1e-300
    assert found.effective_points < 5
    assert found.p > 0.01


# --- calibration -----------------------------------------------------------------------------------------------------


@pytest.mark.calibration
def test_unrelated_series_are_called_related_in_five_of_a_hundred() -> None:
    rows = calibration(1000, seed=1)
    unrelated = [r for r in rows if r.true_r == 0]
    # 1,000 pairs: the standard error of 5% is 0.7%
    assert all(0.03 <= r.share <= 0.07 for r in unrelated), unrelated
    naive = {r.phi: r.naive_share for r in unrelated if r.points == 100 and r.coefficient == "pearson"}
    assert naive[0.9] > 0.4
    assert naive[0.5] > 0.09
    assert all(0.9 <= r.covered <= 0.98 for r in rows), rows
    power = {r.phi: r.share for r in rows if r.true_r == 0.5 and r.coefficient == "pearson"}
    assert power[0.0] > 0.99
    assert power[0.5] > 0.95
    assert power[0.9] > 0.4  # 17 effective points of 100


def test_calibration_is_repeatable() -> None:
    assert calibration(20, seed=3) == calibration(20, seed=3)


def test_p_values_agree_with_circular_shifts() -> None:
    # Shifting one series round keeps its autocorrelation and undoes any relation with the other.
    rng = np.random.default_rng(7)
    ours, shifted = [], []
    for _ in range(60):
        x, y = ar1(rng, 0.9, 2, 600)
        found = correlate(x, y)
        x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        every = np.fft.irfft(np.fft.rfft(x) * np.conj(np.fft.rfft(y)), 600) / 600  # r at each of the 600 shifts
        assert every[0] == pytest.approx(found.r, rel=1e-9)
        ours.append(found.p)
        shifted.append(float((np.abs(every) >= abs(found.r) - 1e-12).mean()))
    assert np.corrcoef(ours, shifted)[0, 1] > 0.9
    assert abs(np.mean(ours) - np.mean(shifted)) < 0.05


def test_means_over_seeds_hold_their_level() -> None:
    rng = np.random.default_rng(8)
    r = [correlate(x, y).r for x, y in ar1(rng, 0.9, 1500, 2, 100)]
    p = np.array([fisher_mean(r[i : i + 3])[3] for i in range(0, 1500, 3)])
    assert 0.02 <= (p < 0.05).mean() <= 0.09  # 500 means: the standard error is 1%


# --- over runs -------------------------------------------------------------------------------------------------------


def test_fisher_mean_by_hand() -> None:
    r, low, high, p = fisher_mean([math.tanh(0.4), math.tanh(0.8)])
    # mean 0.6, standard error 0.2, t(0.975, 1) = 12.7062; p of t = 3 with one degree of freedom
    assert r == pytest.approx(math.tanh(0.6))
    assert (low, high) == (pytest.approx(math.tanh(0.6 - 2.541241)), pytest.approx(math.tanh(0.6 + 2.541241)))
    assert p == pytest.approx(2 * (0.5 - math.atan(3) / math.pi))
    assert math.isnan(fisher_mean([0.5, 0.5])[3])


def sweep(cells: int = 2, seeds: int = 2, points: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs whose variance is the loss ratio plus noise, measured at every second step."""
    rng = np.random.default_rng(9)
    runs, train = [], []
    for cell in range(cells):
        for seed in range(1, seeds + 1):
            run_id = f"c{cell}s{seed}"
            place = {"role": "curriculum", "curriculum": "linear", "variant": "", "setting": "0"}
            runs.append({"run_id": run_id, **place, "global_batch_size": 8, "lr": 1e-3 * (cell + 1), "seed": seed})
            ratio = rng.normal(1, 0.1, 2 * points)
            variance = np.where(np.arange(2 * points) % 2, np.exp(ratio + rng.normal(0, 0.05, 2 * points)), np.nan)
            table = {"run_id": run_id, "loss_ratio": ratio, **dict.fromkeys(MEASURES, variance)}
            train.append(pd.DataFrame(table))
    return pd.DataFrame(runs), pd.concat(train, ignore_index=True)


def test_levels_pool_correlations_and_never_rows() -> None:
    runs, train = sweep()
    table = correlations(runs, train)
    l1 = table[(table["measure"] == "adam_var_l1") & (table["coefficient"] == "pearson")]
    by_level = {level: group["r"].tolist() for level, group in l1.groupby("level", sort=False)}
    assert [len(r) for r in by_level.values()] == [1, 1, 2, 4]
    for run_id, rows in train.groupby("run_id"):
        every_second = rows.dropna()
        (own,) = l1[l1["run_id"] == run_id].to_dict("records")
        assert own["r"] == pytest.approx(np.corrcoef(every_second["loss_ratio"], every_second["adam_var_l1"])[0, 1])
        assert own["points"] == 40
    z = np.arctanh(by_level["run"])
    cells = [z[:2].mean(), z[2:].mean()]
    assert by_level["cell"] == pytest.approx(np.tanh(cells))
    assert by_level["curriculum"] == pytest.approx([math.tanh(np.mean(cells))])
    assert by_level["sweep"] == pytest.approx(by_level["curriculum"])
    runs_of_level = table[table["level"] == "run"]
    assert runs_of_level["p_holm"].tolist() == pytest.approx(holm(runs_of_level["p"].tolist()))
    assert len(runs_of_level) == 4 * len(MEASURES) * 2


def test_rows_of_a_run_need_not_lie_together() -> None:
    runs, train = sweep()
    mixed = train.assign(at=train.groupby("run_id").cumcount()).sort_values(["at", "run_id"])
    pd.testing.assert_frame_equal(correlations(runs, mixed), correlations(runs, train))


def test_a_lone_run_keeps_its_own_p() -> None:
    table = correlations(*sweep(cells=1, seeds=1))
    assert table.groupby("level")["p"].nunique().max() <= len(MEASURES) * 2
    own, pooled = (table[table["level"] == level]["p"].tolist() for level in ("run", "sweep"))
    assert pooled == own


def test_runs_that_say_nothing_are_counted() -> None:
    runs, train = sweep()
    silent = train.copy()
    silent.loc[silent["run_id"] == "c0s1", list(MEASURES)] = math.nan
    table = correlations(runs, silent)
    (cell, _) = table[(table["level"] == "cell") & (table["measure"] == "adam_var_max")].iloc[::2].to_dict("records")
    assert (cell["units"], cell["of"]) == (1, 2)
    assert cell["note"] == "no step has both a loss ratio and Adam's variance"


def test_measures_taken_at_different_steps_each_use_their_own() -> None:
    runs, train = sweep(cells=1, seeds=1)
    train.loc[:40, "adam_var_max"] = math.nan
    table = correlations(runs, train)
    points = table[(table["level"] == "run") & (table["coefficient"] == "pearson")].set_index("measure")["points"]
    assert points.to_dict() == {
        "adam_var_l1": 40,
        "adam_var_sqrt_l1": 40,
        "adam_var_max": 20,
        "adam_var_sqrt_max": 40,
    }


@pytest.mark.parametrize("what", ["no rows", "no columns", "no runs"])
def test_a_source_without_telemetry(what: str) -> None:
    runs, train = sweep(cells=1, seeds=1)
    if what == "no runs":
        assert correlations(runs.iloc[:0], train.iloc[:0]).empty
        return
    table = correlations(runs, train.iloc[:0] if what == "no rows" else train[["run_id"]])
    assert table["r"].isna().all()
    assert set(table["note"]) == {"no step has both a loss ratio and Adam's variance"}
    assert dict(series_by_run(train.iloc[:0])) == {}
