"""Batch-size warmup: hand-computed values, and Megatron's own rule."""

from __future__ import annotations

from typing import Any

import pytest

from cl_bench import schedules
from cl_bench.config.schema import ConfigError
from cl_bench.schedules import BatchSize
from tests.conftest import LINEAR, run_config

RAMP = {"start": 2, "increment": 2, "duration": 60, "duration_unit": "samples"}


def megatron(consumed: int, start: int, increment: int, samples: int, full: int) -> int:
    """Megatron-LM's rule, as its --rampup-batch-size documents it."""
    if consumed > samples:
        return full
    per_increment = samples / ((full - start) // increment)
    return min(full, start + int(consumed / per_increment) * increment)


def test_the_ramp_is_megatrons() -> None:
    sizes = BatchSize.from_config(run_config(global_batch_size=8, batch_warmup=RAMP))
    assert [sizes.at(1, samples, 0) for samples in (0, 19, 20, 39, 40, 60, 61)] == [2, 2, 4, 4, 6, 8, 8]
    assert [sizes.at(1, s, 0) for s in range(80)] == [megatron(s, 2, 2, 60, 8) for s in range(80)]


def test_a_ramp_over_tokens_or_steps() -> None:
    tokens = BatchSize.from_config(run_config(global_batch_size=8, batch_warmup=RAMP | {"duration_unit": "tokens"}))
    assert [tokens.at(9, 9, consumed) for consumed in (0, 20, 40, 61)] == [2, 4, 6, 8]
    steps = BatchSize.from_config(
        run_config(global_batch_size=8, batch_warmup=RAMP | {"duration_unit": "steps", "duration": 30})
    )
    assert [steps.at(step, 9, 9) for step in (1, 10, 11, 21, 31, 32)] == [2, 2, 4, 6, 8, 8]
    assert BatchSize.from_config(run_config(global_batch_size=8)).at(1, 0, 0) == 8


@pytest.mark.parametrize("unit", ["samples", "tokens", "steps"])
@pytest.mark.parametrize("mode", ["truncate", "reshape"])
def test_ramp_and_curriculum_together_end_at_the_counted_step(unit: str, mode: str) -> None:
    duration = {"samples": 60, "tokens": 2_500, "steps": 12}[unit]
    ramp = RAMP | {"duration": duration, "duration_unit": unit}
    config = run_config(curriculum=LINEAR | {"mode": mode}, batch_warmup=ramp)
    pace, sizes = schedules.build(config), BatchSize.from_config(config)
    step = samples = tokens = 0
    seen: dict[int, int] = {}
    while tokens < config.token_budget:
        step += 1
        size, length = sizes.at(step, samples, tokens), pace.at(step, tokens)
        samples += size
        tokens += size * (64 if mode == "reshape" else length)
        seen[length] = seen.get(length, 0) + size
        if step == 7:
            assert schedules.tokens_after(config, 7) == tokens
    extent = schedules.extent(config)
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
def test_invalid_warmups_and_signals_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        schedules.check(run_config(**changes))
    assert said in str(error.value)


@pytest.mark.parametrize("unit", ["samples", "tokens", "steps"])
def test_a_ramp_longer_than_the_run_is_refused(unit: str) -> None:
    # 20,000 tokens of length 64 are 312 samples, and at batches 2, 4 and 6 in equal parts 78 steps.
    longest = {"samples": 290, "tokens": 19_000, "steps": 78}[unit]
    ramp = RAMP | {"duration": longest, "duration_unit": unit}
    schedules.check(run_config(batch_warmup=ramp))
    with pytest.raises(
        ConfigError, match=r"duration = 1e\+09 .*: the run ends at token_budget = 20,000 with a batch of 2"
    ):
        schedules.check(run_config(batch_warmup=ramp | {"duration": 1e9}))
    schedules.check(run_config())
