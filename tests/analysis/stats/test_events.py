"""Instability events by hand: windows, noise, events, skipped steps, exact intervals and comparisons."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.stats.events import (
    RATIO,
    SIGMAS,
    Event,
    RunEvents,
    event_rates,
    measure,
    noise_sd,
    poisson_interval,
    poisson_p,
    skipped_steps,
    spans,
    spike_score,
    unstable_windows,
    windows,
)


def test_windows_hold_equal_tokens() -> None:
    # Windows of 4 tokens: two steps of 2, one of 4, one of 3 and 1. A remainder of 1 token is left out.
    values, first = windows(np.array([2.0, 2, 4, 3, 1, 1]), np.array([5.0, 3, 2, 4, 8, 1]), 4.0)
    assert values.tolist() == [4.0, 2.0, (3 * 4 + 8) / 4]
    assert first.tolist() == [0, 2, 3]
    spoiled, _ = windows(np.array([4.0, 4, 1]), np.array([5.0, 3, math.nan]), 4.0)
    assert spoiled.tolist() == [5.0, 3.0, math.inf]  # a run's last step may be the one that was not finite


def test_noise_is_that_of_a_window_whatever_the_fall() -> None:
    rng = np.random.default_rng(1)
    fall = 5 * np.exp(-np.arange(1000) / 200)
    noise = noise_sd(fall + rng.normal(0, 0.05, 1000))
    assert np.median(noise) == pytest.approx(0.05, rel=0.1)
    assert np.isnan(noise_sd(np.ones(15))).all()


def test_an_event_is_two_windows_in_a_row_above_both_thresholds() -> None:
    w = np.full(60, 3.0) + np.tile([0.01, -0.01], 30)
    assert not unstable_windows(w).any()
    w[40] = 4.0
    assert spans(unstable_windows(w), ~np.isfinite(w)) == []  # a single window is an unlucky batch
    w[41] = 3.7
    assert spans(unstable_windows(w), ~np.isfinite(w)) == [(40, 41)]
    w[50:52] = 3.8  # 8 quiet windows between them: the same event
    assert spans(unstable_windows(w), ~np.isfinite(w)) == [(40, 51)]
    w[50:54] = 3.0, 3.8, 3.8, 3.0  # 9 quiet windows: another
    assert spans(unstable_windows(w), ~np.isfinite(w)) == [(40, 41), (51, 52)]
    w[51:53] = 3.5  # below 1.2 times the minimum of 2.99
    assert spans(unstable_windows(w), ~np.isfinite(w)) == [(40, 41)]


def test_what_is_not_finite_is_an_event_by_itself() -> None:
    w = np.append(np.full(5, 3.0), np.inf)
    assert spans(unstable_windows(w), ~np.isfinite(w)) == [(5, 5)]


def run(seqlens: np.ndarray, loss: np.ndarray, batch: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": np.arange(1, len(loss) + 1),
            "consumed_tokens": np.cumsum(batch * seqlens),
            "seqlen": seqlens,
            "loss": loss,
            "grad_norm": np.nan,
        }
    )


def test_a_run_with_an_event_at_a_change_of_length_and_one_elsewhere() -> None:
    # Windows of 2 x 8 tokens: 40 steps of length 4 fill 20 windows, then 40 steps of length 8 fill 40.
    seqlens = np.repeat([4, 8], 40)
    loss = np.full(80, 3.0) + np.tile([0.01, -0.01], 40)
    loss[40:43] = 4.5  # at the change: step 41
    loss[65:67] = 4.2  # step 66
    found = measure(run(seqlens, loss), 16.0)
    assert (found.windows, found.is_measured, found.at_length_changes) == (60, True, 1)
    first, second = found.events
    assert (first.first_step, first.tokens, first.windows, first.at_length_change) == (41, 320.0, 3, True)
    assert first.ratio == 1.5  # windows of two short steps average to 3
    assert (second.first_step, second.windows, second.at_length_change) == (66, 2, False)
    assert found.smallest_detectable == pytest.approx(RATIO, abs=0.05)


def test_a_short_run_shows_nothing() -> None:
    short = measure(run(np.full(10, 8), np.linspace(5, 3, 10)), 16.0)
    assert (short.is_measured, short.events, short.smallest_detectable) == (False, (), None)


def test_noise_limits_what_can_be_detected() -> None:
    rng = np.random.default_rng(2)
    loss = np.full(400, 3.0) + rng.normal(0, 0.4, 400)
    found = measure(run(np.full(400, 8), loss), 16.0)
    assert found.events == ()  # although many steps exceed 1.2 times the minimum
    assert (loss[1:] > 1.2 * np.minimum.accumulate(loss)[:-1]).mean() > 0.5
    assert found.smallest_detectable == pytest.approx(1 + SIGMAS * 0.4 / loss.min(), rel=0.25)


def test_skipped_steps() -> None:
    scale = np.array([65536.0, 32768, 32768, 65536, 32768])
    assert skipped_steps(np.full(5, 1.0), scale, "fp16") == 2
    assert skipped_steps(np.array([1.0, np.nan, 1.0]), np.full(3, np.nan), "bf16") == 1
    assert skipped_steps(np.full(3, np.nan), np.full(3, np.nan), "bf16") == 0  # the engine reports no norm
    assert skipped_steps(np.array([1.0, np.nan, 1.0]), np.full(3, np.nan), "fp32") == 0


def test_spike_score() -> None:
    values = np.tile([1.0, 3.0], 100)  # mean 2, population sd 1
    assert spike_score(values) == 0.0
    values[150] = 8.1  # above 2 + 6 x 1
    assert spike_score(values) == 1 / 200
    values[150] = 7.9
    assert spike_score(values) == 0.0
    values[199] = math.nan
    assert spike_score(values) == 1 / 200
    assert math.isnan(spike_score(values[:128]))


def test_poisson_intervals_and_comparisons() -> None:
    # Garwood: no event in 3 runs is 0 to -ln(0.025)/3; two events: 0.2422 to 7.2247 (tables of the Poisson).
    assert poisson_interval(0, 3.0) == (0.0, pytest.approx(-math.log(0.025) / 3))
    assert poisson_interval(2, 1.0) == (pytest.approx(0.2422, abs=1e-4), pytest.approx(7.2247, abs=1e-4))
    # All of 5 events in one of two equal arms: 2 x 0.5^5.
    assert poisson_p(0, 3.0, 5, 3.0) == pytest.approx(2 * 0.5**5)
    assert poisson_p(0, 3.0, 0, 3.0) == 1.0


def test_rates_compare_methods_where_both_were_trained() -> None:
    rows = [("baseline", 8, s, 2) for s in range(3)] + [("linear", 8, s, 0) for s in range(3)]
    rows += [("linear", 64, s, 9) for s in range(3)]  # where no baseline was trained
    runs = pd.DataFrame(rows, columns=["curriculum", "global_batch_size", "seed", "count"])
    runs = runs.assign(run_id=[f"r{i}" for i in range(9)], lr=1e-3, variant="", setting="s")
    runs["role"] = np.where(runs["curriculum"] == "baseline", "baseline", "curriculum")
    event = Event(1, 0.0, 2, 1.5, at_length_change=True)
    events = {
        str(r): RunEvents(100, (event,) * int(n), True, 1.2, 0, 0.0, 0.0)
        for r, n in zip(runs["run_id"], runs["count"], strict=True)
    }
    base, linear = event_rates(runs, events)
    assert (base.runs, base.events, base.per_run, base.with_event, base.p_value) == (3, 6, 2.0, 3, None)
    assert (linear.runs, linear.events, linear.at_length_changes, linear.with_event) == (6, 27, 27, 3)
    assert linear.p_value == linear.p_holm == pytest.approx(2 * 0.5**6)  # 0 against 6 at batch 8
    assert (linear.share_low, linear.share_high) == (pytest.approx(0.118, abs=1e-3), pytest.approx(0.882, abs=1e-3))
    short = event_rates(runs, {str(r): RunEvents(3, (), False, None, 0, 0.0, 0.0) for r in runs["run_id"]})
    assert (short[0].runs, short[0].too_short, short[0].per_run, short[0].low) == (0, 3, None, None)
