"""Learning rates computed by hand."""

from __future__ import annotations

import math

import pytest

from cl_bench.config.schema import ConfigError
from cl_bench.schedules import LRSchedule
from tests.conftest import LINEAR, run_config


def test_cosine_over_tokens() -> None:
    lr = LRSchedule(lr=1.0, min_lr=0.1, decay_tokens=1100, warmup_tokens=100)
    # half way from 100 to 1,100: cos(pi/2) = 0 -> 0.1 + 0.9/2; a quarter: 0.1 + 0.9 (1 + cos(pi/4))/2
    assert lr.at(50, 600) == pytest.approx(0.55, abs=1e-15)
    assert lr.at(20, 350) == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)), abs=1e-15)
    assert lr.at(9, 100) == 1.0
    assert lr.at(99, 1100) == 0.1
    assert lr.at(999, 10**9) == 0.1


def test_warmup_by_steps_and_by_tokens() -> None:
    steps = LRSchedule(lr=1.0, min_lr=0.0, decay_tokens=1000, warmup_tokens=40, warmup_steps=4)
    assert [steps.at(s, 0) for s in (1, 2, 4)] == [0.25, 0.5, 1.0]
    tokens = LRSchedule(lr=1.0, min_lr=0.0, decay_tokens=1000, warmup_tokens=99)
    assert tokens.at(1, 0) == 0.01
    assert tokens.at(7, 49) == 0.5


def test_end_of_a_warmup_in_steps_is_counted_in_the_tokens_of_the_curriculum() -> None:
    # 8 -> 64 over 10 steps: lengths 8, 16, 24, 24 of 8 sequences are 72 x 8 = 576 tokens
    curriculum = LINEAR | {"duration": 10, "duration_unit": "steps"}
    config = run_config(curriculum=curriculum, optim={"warmup_steps": 4, "warmup_tokens": None})
    assert LRSchedule.from_config(config).warmup_tokens == 576
    baseline = run_config(optim={"warmup_steps": 4, "warmup_tokens": None})
    assert LRSchedule.from_config(baseline).warmup_tokens == 4 * 8 * 64


def test_a_warmup_beyond_the_decay_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim.warmup_steps = 100 ends at 51200 tokens"):
        LRSchedule.from_config(run_config(optim={"warmup_steps": 100, "warmup_tokens": None}))
    with pytest.raises(ConfigError, match=r"optim.warmup_tokens = 20000 ends at 20000 tokens"):
        LRSchedule.from_config(run_config(optim={"warmup_tokens": 20_000}))


def test_decay_by_steps_ends_with_the_baseline() -> None:
    optim = {"lr": 1e-3, "min_lr": 1e-4, "warmup_tokens": None, "warmup_steps": 8, "decay": "steps"}
    lr = LRSchedule.from_config(run_config(optim=optim, curriculum=LINEAR))
    assert lr.decay_steps == 40  # 20,000 tokens in steps of 8 x 64
    assert lr.at(8, 0) == pytest.approx(1e-3)
    assert lr.at(9, 0) == pytest.approx(1e-3)
    assert lr.at(25, 0) == pytest.approx(1e-4 + 9e-4 * 0.5)  # half way from step 8 to 40
    assert lr.at(41, 0) == pytest.approx(1e-4)
    assert lr.at(60, 0) == pytest.approx(1e-4)  # the curriculum's steps go on at the minimum
    with pytest.raises(ConfigError, match="decay_steps = 8 ends before"):
        LRSchedule.from_config(run_config(optim=optim | {"decay_steps": 8}))
