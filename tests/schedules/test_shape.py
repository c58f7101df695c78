"""Shapes of steps: micro-batches budgeted in tokens, buckets of padded lengths, and bounds on both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cl_bench import schedules
from cl_bench.data import batches
from cl_bench.schedules import StepShape, StepShapes
from tests.conftest import LINEAR, run_config
from tests.schedules.test_batch_size import RAMP


def test_micro_batches_are_budgeted_in_tokens() -> None:
    config = run_config(global_batch_size=64, micro_batch_tokens=1024)
    assert [config.micro_batch(1, 64, length) for length in (8, 16, 24, 32, 64)] == [64, 64, 32, 32, 16]
    assert [config.micro_batch(2, 64, length) for length in (8, 64)] == [32, 16]
    assert config.micro_batch(1, 24, 64) == 12
    assert config.micro_batch(1) == 16
    fixed = run_config(global_batch_size=64, micro_batch_size=4)
    assert fixed.micro_batch(1, 64, 8) == 4


def test_buckets_bound_the_lengths() -> None:
    assert set(schedules.buckets(run_config(curriculum=LINEAR)).values()) == {8, 16, 24, 32, 40, 48, 56, 64}
    padded = schedules.buckets(run_config(curriculum=LINEAR, deepspeed={"length_buckets": 3}))
    assert padded == {8: 24, 16: 24, 24: 24, 32: 48, 40: 48, 48: 48, 56: 64, 64: 64}
    assert set(schedules.buckets(run_config(curriculum=LINEAR, deepspeed={"length_buckets": 1})).values()) == {64}


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
    of_step = StepShapes(config)
    step = samples = tokens = 0
    shapes = set()
    while tokens < config.token_budget:
        step += 1
        shape = of_step.at(step, samples, tokens)
        block = np.zeros((shape.micro_batch_size, config.seqlen + 1), np.int64)
        inputs, _ = batches.cut(block, shape)
        assert inputs.size <= 1024
        assert shape.micro_batch_size * shape.grad_accum_steps == shape.global_batch_size
        shapes.add(inputs.shape)
        samples, tokens = samples + shape.global_batch_size, tokens + shape.tokens
    assert len(shapes) <= schedules.max_shapes(config)
    if mode == "truncate" and not ramp:
        assert len(shapes) == (most or 8)


def test_a_shape_computed_by_hand() -> None:
    # Step 5 of 10 from 8 to 64: length 32, in two buckets (8, 16, 24, 32; 40, 48, 56, 64) padded to 32. 128 tokens are
    # the 4 sequences that each of 2 ranks has of a batch of 8.
    curriculum = LINEAR | {"duration": 10, "duration_unit": "steps"}
    settings: dict[str, Any] = {"deepspeed": {"length_buckets": 2}, "micro_batch_tokens": 128}
    config = run_config(curriculum=curriculum, **settings)
    assert StepShapes(config, 2).at(5, 32, 1000) == StepShape(32, 32, "truncate", 8, 4, 1, 8 * 32)
    assert StepShapes(config, 1).at(2, 8, 64) == StepShape(16, 32, "truncate", 8, 4, 2, 8 * 16)
    # Reshaped to 24, 64 tokens are 3 pieces, padded to 32: 96 tokens per sequence.
    reshaped = run_config(curriculum=curriculum | {"mode": "reshape"}, **settings)
    assert StepShapes(reshaped, 2).at(3, 16, 1024) == StepShape(24, 32, "reshape", 8, 1, 4, 8 * 64)
