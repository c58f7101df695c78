"""Batch-size warmup, decay by steps, adaptive pacing, buckets: hand-computed values, and Megatron's own rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cl_bench.config import from_dict
from cl_bench.config.schema import ConfigError
from cl_bench.data import batches
from cl_bench.schedules import adaptive, batch_size, learning_rate, seqlen
from tests.conftest import LINEAR, run_config, small

RAMP = {"start": 2, "increment": 2, "duration": 60, "duration_unit": "samples"}


def megatron(consumed: int, start: int, increment: int, samples: int, full: int) -> int:
    """Megatron-LM's rule, as its --rampup-batch-size documents it."""
    if consumed > samples:
        return full
    per_increment = samples / ((full - start) // increment)
    return min(full, start + int(consumed / per_increment) * increment)


def test_the_ramp_is_megatrons() -> None:
    sizes = batch_size.of(run_config(global_batch_size=8, batch_warmup=RAMP))
    assert [sizes.at(1, samples, 0) for samples in (0, 19, 20, 39, 40, 60, 61)] == [2, 2, 4, 4, 6, 8, 8]
    assert [sizes.at(1, s, 0) for s in range(80)] == [megatron(s, 2, 2, 60, 8) for s in range(80)]


def test_a_ramp_over_tokens_or_steps() -> None:
    tokens = batch_size.of(run_config(global_batch_size=8, batch_warmup=RAMP | {"duration_unit": "tokens"}))
    assert [tokens.at(9, 9, consumed) for consumed in (0, 20, 40, 61)] == [2, 4, 6, 8]
    steps = batch_size.of(
        run_config(global_batch_size=8, batch_warmup=RAMP | {"duration_unit": "steps", "duration": 30})
    )
    assert [steps.at(step, 9, 9) for step in (1, 10, 11, 21, 31, 32)] == [2, 2, 4, 6, 8, 8]
    assert batch_size.of(run_config(global_batch_size=8)).at(1, 0, 0) == 8


@pytest.mark.parametrize("unit", ["samples", "tokens", "steps"])
@pytest.mark.parametrize("mode", ["truncate", "reshape"])
def test_ramp_and_curriculum_together_end_where_counting_does(unit: str, mode: str) -> None:
    duration = {"samples": 60, "tokens": 2_500, "steps": 12}[unit]
    ramp = RAMP | {"duration": duration, "duration_unit": unit}
    config = run_config(curriculum=LINEAR | {"mode": mode}, batch_warmup=ramp)
    pace, sizes = seqlen.of(config), batch_size.of(config)
    step = samples = tokens = 0
    seen: dict[int, int] = {}
    while tokens < config.token_budget:
        step += 1
        size, length = sizes.at(step, samples, tokens), pace.seqlen(step)
        samples += size
        tokens += size * (64 if mode == "reshape" else length)
        seen[length] = seen.get(length, 0) + size
        if step == 7:
            assert seqlen.tokens_after(config, 7) == tokens
    extent = seqlen.extent(config)
    assert (extent.steps, extent.tokens) == (step, tokens)
    assert dict(extent.sequences) == seen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"batch_warmup": RAMP | {"increment": 4}},
            "batch_warmup.increment = 4 never leads from batch_warmup.start = 2",
        ),
        ({"batch_warmup": RAMP | {"start": 8}}, "batch_warmup.start = 8 is not below global_batch_size = 8"),
        ({"batch_warmup": {"start": 2}}, "batch_warmup.duration is null: the batch would stay at 2"),
        ({"batch_warmup": {"duration": 2}}, "batch_warmup.start is null"),
        (
            {"batch_warmup": RAMP | {"start": 3, "increment": 1}, "resources": {"tasks_per_node": 2}},
            "batch_warmup.start = 3 does not divide over 2 ranks",
        ),
        (
            {
                "curriculum": {"name": "a", "schedule": "adaptive", "signal": "adam_var_max"},
                "telemetry": {"adam_variance_interval": 0},
            },
            "curriculum.signal = adam_var_max is never measured with telemetry.adam_variance_interval = 0",
        ),
        ({"optim": {"decay_steps": 10}}, "optim.decay_steps = 10 is ignored by optim.decay = tokens"),
        ({"deepspeed": {"offload_optimizer": True}}, "needs deepspeed.zero_stage = 1, 2 or 3"),
        ({"deepspeed": {"offload_parameters": True, "zero_stage": 2}}, "needs deepspeed.zero_stage = 3, not 2"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(small(**changes))
    assert said in str(error.value)


@pytest.mark.parametrize("unit", ["samples", "tokens", "steps"])
def test_a_ramp_that_the_run_is_too_short_for_is_refused(unit: str) -> None:
    # 20,000 tokens of length 64 are 312 samples, and at batches 2, 4 and 6 in equal parts 78 steps.
    longest = {"samples": 290, "tokens": 19_000, "steps": 78}[unit]
    ramp = RAMP | {"duration": longest, "duration_unit": unit}
    seqlen.check_batch_warmup(run_config(batch_warmup=ramp))
    with pytest.raises(
        ConfigError, match=r"duration = 1e\+09 .*: the run ends at token_budget = 20,000 with a batch of 2"
    ):
        seqlen.check_batch_warmup(run_config(batch_warmup=ramp | {"duration": 1e9}))
    seqlen.check_batch_warmup(run_config())


# --- decay by steps ---------------------------------------------------------------------------------------------------


def test_decay_by_steps_is_over_when_the_baseline_is() -> None:
    optim = {"lr": 1e-3, "min_lr": 1e-4, "warmup_tokens": None, "warmup_steps": 8, "decay": "steps"}
    lr = learning_rate.of(run_config(optim=optim, curriculum=LINEAR))
    assert lr.decay_steps == 40  # 20,000 tokens in steps of 8 x 64
    assert lr.at(8, 0) == pytest.approx(1e-3)
    assert lr.at(9, 0) == pytest.approx(1e-3)
    assert lr.at(25, 0) == pytest.approx(1e-4 + 9e-4 * 0.5)  # half way from step 8 to 40
    assert lr.at(41, 0) == pytest.approx(1e-4)
    assert lr.at(60, 0) == pytest.approx(1e-4)  # the curriculum's steps go on at the minimum
    with pytest.raises(ConfigError, match="decay_steps = 8 ends before"):
        learning_rate.of(run_config(optim=optim | {"decay_steps": 8}))


# --- adaptive pacing --------------------------------------------------------------------------------------------------

ADAPTIVE = {"name": "a", "schedule": "adaptive", "min_difficulty": 8, "threshold": 0.1, "patience": 2}


def test_the_length_grows_when_the_loss_settles() -> None:
    rule = adaptive.Adaptive(run_config(curriculum=ADAPTIVE))
    pace = rule.first()
    lengths = []
    # Improvements of 20%, 5%, 0: two calm ones; then counting starts anew, from the first value at the new length.
    for loss in (5.0, 4.0, 3.8, 3.8, 3.7, 3.6, 3.6, math.nan, None, 2.0, 2.0, 2.1):
        rule.observe(pace, "val_loss", loss)
        lengths.append(pace.length)
    assert lengths == [8, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32, 64]
    rule.observe(pace, "adam_var_max", 1.0)
    assert pace == adaptive.Pace(64, None, 0)


def test_the_gradient_variance_settles_when_it_stops_moving() -> None:
    rule = adaptive.Adaptive(run_config(curriculum=ADAPTIVE | {"signal": "adam_var_max", "patience": 1, "growth": 1.5}))
    pace = rule.first()
    lengths = []
    for value in (1.0, 2.0, 1.0, 1.05, 9.0, 9.1, 9.0, 9.0):
        rule.observe(pace, "adam_var_max", value)
        lengths.append(pace.length)
    assert lengths == [8, 8, 8, 16, 16, 24, 24, 32]  # 12 is no multiple of 8: at least one more of them


def test_an_adaptive_run_is_planned_with_the_least_steps() -> None:
    config = run_config(curriculum=ADAPTIVE)
    extent = seqlen.extent(config)
    assert extent.is_least
    assert [length for length, _ in extent.lengths] == [8, 16, 32, 64]
    assert seqlen.extent(run_config()).steps < extent.steps < 20_000 / (8 * 8)
    with pytest.raises(ConfigError, match=r"set optim.warmup_steps=null optim.warmup_tokens=N"):
        learning_rate.of(run_config(curriculum=ADAPTIVE, optim={"warmup_steps": 5, "warmup_tokens": None}))


# --- micro-batches and buckets ----------------------------------------------------------------------------------------


def test_micro_batches_are_budgeted_in_tokens() -> None:
    config = run_config(global_batch_size=64, micro_batch_tokens=1024)
    assert [config.micro_batch(1, 64, length) for length in (8, 16, 24, 32, 64)] == [64, 64, 32, 32, 16]
    assert [config.micro_batch(2, 64, length) for length in (8, 64)] == [32, 16]
    assert config.micro_batch(1, 24, 64) == 12
    assert config.micro_batch(1) == 16
    fixed = run_config(global_batch_size=64, micro_batch_size=4)
    assert fixed.micro_batch(1, 64, 8) == 4


def test_buckets_bound_the_lengths() -> None:
    assert set(seqlen.buckets(run_config(curriculum=LINEAR)).values()) == {8, 16, 24, 32, 40, 48, 56, 64}
    padded = seqlen.buckets(run_config(curriculum=LINEAR, deepspeed={"length_buckets": 3}))
    assert padded == {8: 24, 16: 24, 24: 24, 32: 48, 40: 48, 48: 48, 56: 64, 64: 64}
    assert set(seqlen.buckets(run_config(curriculum=LINEAR, deepspeed={"length_buckets": 1})).values()) == {64}


@pytest.mark.parametrize("mode", ["truncate", "reshape"])
@pytest.mark.parametrize("ramp", [{}, RAMP | {"start": 16, "increment": 16, "duration": 600}])
@pytest.mark.parametrize("most", [None, 2, 3])
def test_a_micro_batch_holds_no_more_than_its_budget_and_shapes_are_bounded(
    mode: str, ramp: dict[str, Any], most: int | None
) -> None:
    config = run_config(
        curriculum=LINEAR | {"mode": mode},
        batch_warmup=ramp,
        deepspeed={"length_buckets": most},
        global_batch_size=64,
        micro_batch_tokens=1024,
        token_budget=200_000,
    )
    pace, sizes, padded_to = seqlen.of(config), batch_size.of(config), seqlen.buckets(config)
    step = samples = tokens = 0
    shapes = set()
    while tokens < config.token_budget:
        step += 1
        size, length = sizes.at(step, samples, tokens), pace.seqlen(step)
        padded = padded_to[length]
        micro_batch = config.micro_batch(1, size, seqlen.tokens_on_device(config, length, padded))
        block = np.zeros((micro_batch, config.seqlen + 1), np.int64)
        inputs, _ = batches.pad(*batches.to_length(block, length, mode), padded)
        assert inputs.size <= 1024
        shapes.add(inputs.shape)
        samples, tokens = samples + size, tokens + seqlen.tokens_per_step(config, length, size)
    assert len(shapes) <= seqlen.most_shapes(config)
    if mode == "truncate" and not ramp:
        assert len(shapes) == (most or 8)
