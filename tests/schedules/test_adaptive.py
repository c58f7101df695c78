"""Adaptive schedule: hand-computed lengths, its plan, and its state across a resume."""

from __future__ import annotations

import math

import pytest

from cl_bench import schedules
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import LengthSchedule, LRSchedule
from tests.conftest import run_config

ADAPTIVE = {"name": "a", "schedule": "adaptive", "min_difficulty": 8, "threshold": 0.1, "patience": 2}


def test_the_length_grows_when_the_loss_settles() -> None:
    rule = schedules.build(run_config(curriculum=ADAPTIVE))
    lengths = []
    # Improvements of 20%, 5%, 0: two calm ones; then counting starts anew, from the first value at the new length.
    for loss in (5.0, 4.0, 3.8, 3.8, 3.7, 3.6, 3.6, math.nan, None, 2.0, 2.0, 2.1):
        rule.observe("val_loss", loss)
        lengths.append(rule.at(1, 0))
    assert lengths == [8, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32, 64]
    rule.observe("adam_var_max", 1.0)
    assert rule.state() == {"length": 64, "last": None, "calm": 0}


def test_the_gradient_variance_settles_when_it_stops_moving() -> None:
    rule = schedules.build(run_config(curriculum=ADAPTIVE | {"signal": "adam_var_max", "patience": 1, "growth": 1.5}))
    lengths = []
    for value in (1.0, 2.0, 1.0, 1.05, 9.0, 9.1, 9.0, 9.0):
        rule.observe("adam_var_max", value)
        lengths.append(rule.at(1, 0))
    assert lengths == [8, 8, 8, 16, 16, 24, 24, 32]  # 12 is no multiple of 8: at least one more of them


def test_an_adaptive_run_is_planned_with_the_fewest_steps() -> None:
    config = run_config(curriculum=ADAPTIVE)
    extent = schedules.extent(config)
    assert extent.is_lower_bound
    assert [length for length, _ in extent.lengths] == [8, 16, 32, 64]
    assert schedules.extent(run_config()).steps < extent.steps < 20_000 / (8 * 8)
    with pytest.raises(ConfigError, match=r"set optim.warmup_steps=null optim.warmup_tokens=N"):
        LRSchedule.from_config(run_config(curriculum=ADAPTIVE, optim={"warmup_steps": 5, "warmup_tokens": None}))


def test_the_fewest_steps_come_from_growth_at_every_evaluation() -> None:
    # Evaluations every 2,000 tokens; 8 sequences. Length 8: 64 tokens a step, 32 steps to 2,048; length 16: 128 a step,
    # 16 steps to 4,096; length 32: 256 a step, 8 steps to 6,144; then 512 a step, 28 steps to 20,480.
    extent = schedules.extent(run_config(curriculum=ADAPTIVE))
    assert extent.lengths == ((8, 32), (16, 16), (32, 8), (64, 28))
    assert extent.tokens == 20_480
    # Measured at every step, it grows at every step: 64 + 128 + 256 tokens, and 39 steps of 512 to 20,416.
    variance = schedules.extent(run_config(curriculum=ADAPTIVE | {"signal": "adam_var_max"}))
    assert variance.lengths == ((8, 1), (16, 1), (32, 1), (64, 39))


def test_a_resumed_schedule_continues_from_its_saved_state() -> None:
    config = run_config(curriculum=ADAPTIVE)
    whole, first, second = (schedules.build(config) for _ in range(3))
    losses = [5.0, 4.0, 3.8, 3.8, 3.7, 3.6, 3.6]

    def lengths(rule: LengthSchedule, losses: list[float]) -> list[int]:
        return [(rule.observe("val_loss", loss), rule.at(1, 0))[1] for loss in losses]

    expected = lengths(whole, losses)
    begun = lengths(first, losses[:3])
    second.load_state(first.state())
    assert begun + lengths(second, losses[3:]) == expected
    second.load_state({})  # nothing saved: as at the start
    assert second.at(1, 0) == expected[-1]
    assert hash(whole) == hash(schedules.build(config))
    assert whole == schedules.build(config)
