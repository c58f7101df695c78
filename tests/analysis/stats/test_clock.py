"""The clock: known step times come back, whatever machine slowed some of the runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.schema import RUN_COLUMNS, Runs
from analysis.stats import clock
from analysis.stats.clean_time import clean_settings, with_clean_seconds, with_seconds_of
from analysis.stats.clock import TimedPair, clock_of, time_saving, two_way
from analysis.stats.crossings import Crossing, curves
from analysis.stats.pairs import Comparison

FULL = 256
LENGTHS = range(8, FULL + 1, 8)
BATCH = 4


def step_seconds(seqlen: int) -> float:
    """The true clock of these tests: 0.1 s per step and 1 ms per token of length."""
    return 0.1 + seqlen / 1000


def run_rows(run_id: str, lengths: Sequence[int], slow: float = 1.0, batch: int = BATCH) -> pd.DataFrame:
    """Training rows of one attempt, `slow` times as long as the true clock; the first step takes 30 s more."""
    seqlen = np.array(lengths)
    took = slow * (0.1 + seqlen / 1000)
    took[0] += 30
    steps = np.arange(1, len(seqlen) + 1)
    columns = {"step": steps, "consumed_tokens": np.cumsum(seqlen) * batch, "train_seconds": np.cumsum(took)}
    return pd.DataFrame({"run_id": run_id, **columns, "seqlen": seqlen, "attempt": 0})


def make_runs(made: Sequence[tuple[str, str, int, pd.DataFrame]], **facts: list[Any]) -> Runs:
    """Runs from (run_id, curriculum, seed, rows); `facts` are columns, one value per run."""
    table = pd.DataFrame(columns=list(RUN_COLUMNS)).reindex(range(len(made)))
    table["run_id"] = [m[0] for m in made]
    table["curriculum"] = [m[1] for m in made]
    table["role"] = ["baseline" if m[1] == "baseline" else "curriculum" for m in made]
    table["seed"] = [m[2] for m in made]
    table = table.assign(setting="", hardware="cpu", world_size=1, precision="fp32").assign(**facts)
    table["train_seconds"] = [float(m[3]["train_seconds"].iloc[-1]) for m in made]
    empty = pd.DataFrame()
    return Runs("made", "", Path("made"), table, pd.concat([m[3] for m in made], ignore_index=True), empty, empty)


def curriculum_lengths() -> list[int]:
    """Each length for 10 steps, then 300 at full length."""
    return [length for length in LENGTHS for _ in range(10)] + [FULL] * 300


def busy_baselines(slow: Sequence[float] = (1.8, 1.8, 1.8)) -> Runs:
    """Baselines that trained first, on a busy machine, and curricula afterwards."""
    base = [(f"b{s}", "baseline", s, run_rows(f"b{s}", [FULL] * 500, f)) for s, f in enumerate(slow, 1)]
    ours = [(f"c{s}", "linear", s, run_rows(f"c{s}", curriculum_lengths())) for s in range(1, len(slow) + 1)]
    return make_runs([*base, *ours])


def test_a_machine_that_was_busy_for_one_method_changes_no_saving() -> None:
    runs = busy_baselines()
    made = clock_of(runs)
    # 32 lengths of 10 steps and 300 steps of 0.356 s, against 500 steps of 0.356 s.
    truth = (10 * sum(map(step_seconds, LENGTHS)) + 300 * step_seconds(FULL)) / (500 * step_seconds(FULL))
    tokens = {run_id: float(rows["consumed_tokens"].iloc[-1]) for run_id, rows in runs.train.groupby("run_id")}
    pairs = [TimedPair(s, f"c{s}", tokens[f"c{s}"], f"b{s}", tokens[f"b{s}"]) for s in (1, 2, 3)]
    assert time_saving(made, pairs).point == pytest.approx(1 - truth, abs=1e-6)
    seconds = runs.runs.set_index("run_id")["train_seconds"]
    assert truth == pytest.approx(1.017, abs=1e-3)  # 1.7% more time, of which the recorded seconds make 40% less
    assert 1 - seconds["c1"] / seconds["b1"] == pytest.approx(0.40, abs=0.01)
    assert {r.run_id for r in made.odd_runs()} == {"b1", "b2", "b3", "c1", "c2", "c3"}  # half against half


def test_one_slow_run_is_named_and_costs_no_seconds() -> None:
    runs = busy_baselines((1.0, 1.5, 1.0))
    made = clock_of(runs)
    (odd,) = made.odd_runs()
    assert odd.run_id == "b2"
    assert odd.ratio == pytest.approx(1.5, abs=1e-6)
    assert float(made.seconds_at("b2", 10 * FULL * BATCH)) == pytest.approx(10 * step_seconds(FULL))
    assert any("b2 (50% slower)" in note for note in clock.notes(made, runs.runs))


def test_the_first_step_of_an_attempt_costs_what_its_shape_costs() -> None:
    rows = run_rows("b", [FULL] * 20)
    later = run_rows("b", [FULL] * 20)
    later[["step", "consumed_tokens", "train_seconds"]] += rows[["step", "consumed_tokens", "train_seconds"]].iloc[-1]
    made = clock_of(make_runs([("b", "baseline", 1, pd.concat([rows, later.assign(attempt=1)]))]))
    assert float(made.seconds_at("b", 40 * FULL * BATCH)) == pytest.approx(40 * step_seconds(FULL))  # not + 2 x 30 s


def test_seconds_are_linear_within_a_step_and_go_on_at_the_last_pace() -> None:
    made = clock_of(make_runs([("b", "baseline", 1, run_rows("b", [FULL] * 10))]))
    at = np.array([0, 0.5, 2, 12]) * FULL * BATCH
    np.testing.assert_allclose(made.seconds_at("b", at), np.array([0, 0.5, 2, 12]) * step_seconds(FULL))
    assert math.isnan(float(made.seconds_at("nobody", 5.0)))


def test_rows_of_several_steps_count_where_their_length_is_one() -> None:
    rows = run_rows("c", [64] * 20 + [FULL] * 30).iloc[4::5]  # every fifth step
    made = clock_of(make_runs([("c", "linear", 1, rows)]))
    timed = {
        s: float(np.exp(log)) for s, log in zip(made.times.shapes, made.log_seconds, strict=True) if np.isfinite(log)
    }
    assert {shape.batch for shape in timed} == {BATCH}
    by_length = {shape.seqlen: seconds for shape, seconds in timed.items()}
    assert by_length == pytest.approx({64: 0.164, FULL: 0.356})
    # The stretch from 64 to 256 and the first one have their own seconds: 4 x 5 x 0.164 + 30 + 30 x 0.356.
    assert float(made.seconds_at("c", rows["consumed_tokens"].iloc[-1])) == pytest.approx(30 + 20 * 0.164 + 30 * 0.356)


def test_runs_without_a_length_in_common_are_refused_by_name() -> None:
    base = ("b", "baseline", 1, run_rows("b", [FULL] * 50))
    apart = ("c", "linear", 1, run_rows("c", [64] * 50, batch=8 * BATCH))
    runs = make_runs([base, apart])
    made = clock_of(runs)
    assert made.refusal("c", "b") == clock.NO_LENGTH_IN_COMMON
    assert time_saving(made, [TimedPair(1, "c", 100.0, "b", 100.0)]).point is None
    assert any("c" in note and "no length in common" in note for note in clock.notes(made, runs.runs))


def test_other_hardware_or_another_model_is_another_shape() -> None:
    base = ("b", "baseline", 1, run_rows("b", [FULL] * 50))
    ours = ("c", "linear", 1, run_rows("c", [FULL] * 50, 0.1))
    for column in ("hardware", "setting", "world_size", "precision"):
        runs = make_runs([base, ours], **{column: [2, 1] if column == "world_size" else ["one", "other"]})
        assert clock_of(runs).refusal("c", "b") == clock.NO_LENGTH_IN_COMMON, column


def test_the_interval_is_the_jackknife_with_the_clock_fitted_again() -> None:
    """Without a busy machine the clock is exact, and the jackknife of a mean is Student's t interval."""
    runs = busy_baselines((1.0, 1.0, 1.0))
    made = clock_of(runs)
    at = [(1, 100), (2, 110), (3, 125)]  # steps at full length to the target; the baseline's: 200
    start = float(runs.train.query("run_id == 'c1'")["consumed_tokens"].iloc[len(LENGTHS) * 10 - 1])
    pairs = [TimedPair(s, f"c{s}", start + n * FULL * BATCH, f"b{s}", 200.0 * FULL * BATCH) for s, n in at]
    before = 10 * sum(map(step_seconds, LENGTHS)) / step_seconds(FULL)  # in steps of full length
    logs = np.log([(before + n) / 200 for _, n in at])
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)  # t with 2 degrees of freedom
    result = time_saving(made, pairs)
    assert result.point == pytest.approx(1 - math.exp(logs.mean()))
    assert (result.low, result.high) == pytest.approx(
        (1 - math.exp(logs.mean() + half), 1 - math.exp(logs.mean() - half))
    )
    assert (result.method, result.arrived, result.n) == ("jackknife", 3, 3)
    single = time_saving(made, pairs[:1])
    assert (single.low, single.high, single.method) == (None, None, "")


def test_two_way_is_not_caught_by_lengths_of_one_method() -> None:
    """Alternating medians stop at run effects of 0 here: the curriculum has 31 lengths of its own, one shared."""
    shape = np.log(np.arange(1.0, 33.0))
    y, weight = np.zeros((2, 2, 32))
    y[0, -1], weight[0, -1] = shape[-1] + 0.6, 30
    y[1], weight[1] = shape, 4
    shapes, runs = two_way(y, weight)
    np.testing.assert_allclose(runs, [0.3, -0.3], atol=1e-6)
    np.testing.assert_allclose(shapes, shape + 0.3, atol=1e-6)


def test_two_way_ignores_one_slow_shape_of_one_run() -> None:
    """A slow episode in one of three runs moves neither its run effect nor the shape."""
    y = np.log([[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 12.0, 8.0]])
    shapes, runs = two_way(y, np.ones((3, 4)))
    np.testing.assert_allclose(runs, 0, atol=1e-4)
    np.testing.assert_allclose(shapes, np.log([1, 2, 4, 8]), atol=1e-4)


def test_runs_without_training_steps_keep_their_seconds() -> None:
    runs = make_runs([("b", "baseline", 1, run_rows("b", [FULL] * 9)), ("c", "linear", 1, run_rows("c", [FULL] * 9))])
    made = clock_of(dataclasses.replace(runs, train=runs.train.query("run_id == 'b'")))
    assert made.refusal("c", "b") == clock.NO_STEPS
    assert any("No training steps of 1 of 2 runs are recorded" in note for note in clock.notes(made, runs.runs))


def evaluated(runs: Runs) -> Runs:
    """The runs with an evaluation every tenth of their tokens: the loss is 6 - 3 log10(1 + 9 x), x the share done."""
    parts = []
    for run_id, rows in runs.train.groupby("run_id", sort=False):
        share = np.linspace(0, 1, 11)
        tokens = share * rows["consumed_tokens"].iloc[-1]
        seconds = np.interp(tokens, np.append(0, rows["consumed_tokens"]), np.append(0.0, rows["train_seconds"]))
        loss = 6 - 3 * np.log10(1 + 9 * share)
        columns = {"step": range(11), "consumed_tokens": tokens.astype(int), "train_seconds": seconds}
        parts.append(pd.DataFrame({"run_id": run_id, **columns, "val_loss": loss, "val_ppl": np.exp(loss)}))
    return dataclasses.replace(runs, evals=pd.concat(parts, ignore_index=True))


def test_evaluations_get_clean_seconds_only_where_all_runs_of_a_setting_have_them() -> None:
    runs = evaluated(busy_baselines())
    made = clock_of(runs)
    assert clean_settings(runs, made) == {""}
    timed = with_clean_seconds(runs, made)
    ends = timed.evals.groupby("run_id")["train_seconds"].max()
    assert ends["b1"] / ends["c1"] == pytest.approx(1 / 1.017, abs=1e-3)  # the truth of the first test
    assert timed.evals["val_loss"].equals(runs.evals["val_loss"])
    recorded = dataclasses.replace(runs, train=runs.train.query("run_id != 'c3'"))
    assert clean_settings(recorded, clock_of(recorded)) == frozenset()
    assert with_clean_seconds(recorded, clock_of(recorded)) is recorded


def test_a_comparison_can_be_read_in_recorded_seconds() -> None:
    runs = evaluated(busy_baselines())
    by_run = curves(runs.evals)
    half = float(by_run["b1"].tokens[5])
    reached = Crossing(half, 1.0, half * 2, 2.0)
    comparison = with_seconds_of(Comparison("b1", 4.0, reached, reached), "c1", by_run)
    ours, theirs = comparison.amounts("time")
    assert theirs == pytest.approx(float(by_run["b1"].seconds[5]))
    assert ours == pytest.approx(float(np.interp(half, by_run["c1"].tokens, by_run["c1"].seconds)))
    assert comparison.amounts("token") == (half, half)
