"""Pacing equals DeepSpeed's scheduler, hand computations, and the published end steps."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from cl_bench import schedules
from cl_bench.config import from_dict
from cl_bench.config.schema import ConfigError
from cl_bench.runs import identity
from cl_bench.schedules.builtin.custom import Custom
from cl_bench.schedules.builtin.fixed_discrete import FixedDiscrete
from cl_bench.schedules.builtin.fixed_root import FixedLinear, FixedRoot
from tests.conftest import LINEAR, run_config, small


def deepspeed_lengths(schedule: str, low: int, high: int, settings: dict[str, Any], steps: int) -> list[int]:
    from deepspeed.runtime.data_pipeline.curriculum_scheduler import CurriculumScheduler

    scheduler = CurriculumScheduler(
        {"min_difficulty": low, "max_difficulty": high, "schedule_type": schedule, "schedule_config": settings}
    )
    return [scheduler.update_difficulty(step) for step in range(1, steps + 1)]


ROOT_GRID = list(
    itertools.product((8, 12, 64, 72), (64, 100, 256, 1024), (1, 8, 16, 64), (1, 7, 100, 333), (0.5, 1, 2, 3))
)


def test_root_equals_deepspeed_over_a_grid() -> None:
    compared = 0
    for low, high, multiple, total, degree in ROOT_GRID:
        if low > high:
            continue
        settings = {"total_curriculum_step": total, "difficulty_step": multiple, "root_degree": degree}
        theirs = deepspeed_lengths("fixed_root", low, high, settings, total + 20)
        ours = FixedRoot(low, high, multiple, total, degree)
        assert [ours.at(s, 0) for s in range(1, total + 21)] == theirs, settings
        compared += 1
    assert compared > 500


def test_linear_equals_deepspeed() -> None:
    for low, high, multiple, total in itertools.product((8, 64), (256, 1000), (8, 24), (50, 195)):
        theirs = deepspeed_lengths(
            "fixed_linear", low, high, {"total_curriculum_step": total, "difficulty_step": multiple}, total + 10
        )
        ours = FixedLinear(low, high, multiple, total)
        assert [ours.at(s, 0) for s in range(1, total + 11)] == theirs


@pytest.mark.parametrize(
    ("difficulty", "max_step"),
    [((8, 64), (10,)), ((32, 64, 128), (5, 9)), ((64, 128, 32), (3, 6)), ((8, 8, 16), (1, 2))],
)
def test_discrete_equals_deepspeed(difficulty: tuple[int, ...], max_step: tuple[int, ...]) -> None:
    # DeepSpeed stays at the maximum once it is reached, whatever comes later: 64, 128, 32 never falls back.
    settings = {"difficulty": list(difficulty), "max_step": list(max_step)}
    theirs = deepspeed_lengths("fixed_discrete", difficulty[0], max(difficulty), settings, 20)
    ours = FixedDiscrete(max(difficulty), difficulty, max_step)
    assert [ours.at(s, 0) for s in range(1, 21)] == theirs


def sawtooth(step: int, width: int = 10) -> int:
    """A custom schedule that falls back, until it reaches the maximum."""
    return min(64, 8 + (step % width) * (1 + step // width))


def test_custom_equals_deepspeed_in_any_order_of_steps() -> None:
    from deepspeed.runtime.data_pipeline.curriculum_scheduler import CurriculumScheduler

    scheduler = CurriculumScheduler({"min_difficulty": 8, "max_difficulty": 64, "schedule_type": "custom"})
    scheduler.set_custom_get_difficulty(sawtooth)
    theirs = [scheduler.update_difficulty(s) for s in range(1, 151)]
    ours = Custom(64, "sawtooth", sawtooth)
    assert [ours.at(s, 0) for s in range(1, 151)] == theirs
    ours = Custom(64, "sawtooth", sawtooth)
    assert ours.at(150, 0) == theirs[149]  # asked first for the end, as a resumed run does
    assert ours.at(3, 0) == theirs[2]


def test_hand_computed_linear() -> None:
    # d = floor(t/10 x (64 - 8) + 8) down to a multiple of 8: t=1: 13.6 -> 8; t=2: 19.2 -> 16; t=5: 36 -> 32; t=10: 64.
    ours = FixedLinear(8, 64, 8, 10)
    assert [ours.at(t, 0) for t in (1, 2, 5, 9, 10, 11)] == [8, 16, 32, 56, 64, 64]


def test_first_length_is_a_multiple_at_or_above_the_minimum() -> None:
    assert FixedLinear(12, 64, 8, 100).at(1, 0) == 16


def test_durations() -> None:
    # 20,000 / (8 x 64) -> 40 baseline steps
    assert schedules.build(run_config(curriculum=LINEAR)).total_curriculum_step == 16
    assert (
        schedules.build(run_config(curriculum=LINEAR | {"duration": 9, "duration_unit": "steps"})).total_curriculum_step
        == 9
    )
    # tokens / (batch x mean length): 5,760 / (8 x (8 + 64)/2) = 20
    tokens = LINEAR | {"duration": 5760, "duration_unit": "tokens"}
    assert schedules.build(run_config(curriculum=tokens)).total_curriculum_step == 20
    # square root: mean length 8 + 56 x 2/3 = 45.33; 5,760 / (8 x 45.33) = 15.88
    root = tokens | {"schedule": "fixed_root", "root_degree": 2}
    assert schedules.build(run_config(curriculum=root)).total_curriculum_step == 15
    # reshape consumes full batches: 5,760 / (8 x 64) = 11.25
    assert schedules.build(run_config(curriculum=tokens | {"mode": "reshape"})).total_curriculum_step == 11


def test_discrete_durations_in_every_unit() -> None:
    stages = {"name": "d", "schedule": "fixed_discrete", "difficulty": [16, 32, 64]}

    def ends(max_step: list[float], unit: str) -> tuple[int, ...]:
        return schedules.build(run_config(curriculum=stages | {"max_step": max_step, "duration_unit": unit})).max_step

    assert ends([4, 9], "steps") == (4, 9)
    assert ends([0.1, 0.5], "baseline_fraction") == (4, 20)
    # 1,280 / (8 x 16) = 10 steps, then 2,560 / (8 x 32) = 10 more
    assert ends([1280, 3840], "tokens") == (10, 20)
    with pytest.raises(ConfigError, match="leaves a stage without a step"):
        ends([0.001, 0.5], "baseline_fraction")


def test_a_curriculum_shorter_than_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="is less than one step"):
        schedules.build(run_config(curriculum=LINEAR | {"duration": 0.001}))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nonexistent_module.f", "No module named"),
        ("tests.schedules.test_seqlen.nothing", "has no 'nothing'"),
        ("sawtooth", "package.module.function"),
        ("tests.schedules.test_seqlen.too_long", "returned 1000 at step 1"),
        ("tests.schedules.test_seqlen.ROOT_GRID", "is not a function"),
    ],
)
def test_a_bad_custom_function_is_named(function: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        schedules.extent(run_config(curriculum={"name": "c", "schedule": "custom", "function": function}))


def too_long(step: int) -> int:
    """A custom schedule that asks for more than the model has."""
    return 1000


def brute_force(config: Any) -> tuple[int, int, dict[int, int]]:
    """Steps, tokens and lengths of a run, one step after another."""
    pace = schedules.build(config)
    step = tokens = 0
    used: dict[int, int] = {}
    while tokens < config.token_budget:
        step += 1
        length = pace.at(step, tokens)
        used[length] = used.get(length, 0) + 1
        tokens += schedules.tokens_per_step(config, length, config.global_batch_size)
    return step, tokens, used


@pytest.mark.parametrize("mode", ["truncate", "reshape"])
@pytest.mark.parametrize("budget", [1, 512, 513, 20_000, 77_777])
def test_extent_equals_counting(mode: str, budget: int) -> None:
    for curriculum in (LINEAR, {"name": "b", "schedule": "baseline"}, LINEAR | {"duration": 3.0}):
        duration = {} if curriculum["schedule"] == "baseline" else {"duration": 16, "duration_unit": "steps"}
        config = run_config(curriculum=curriculum | duration | {"mode": mode}, token_budget=budget)
        extent = schedules.extent(config)
        assert (extent.steps, extent.tokens, dict(extent.lengths)) == brute_force(config)


def published(model: str, length: int, batch: int, budget: int, curriculum: dict[str, Any]) -> int:
    config = from_dict(
        small(
            model={"name": model, "n_layers": 2, "hidden_size": 32, "n_heads": 2, "n_positions": length},
            global_batch_size=batch,
            token_budget=budget,
            curriculum=curriculum,
        )
    )
    return schedules.extent(config).steps


def steps_curriculum(start: int, total: int) -> dict[str, Any]:
    return LINEAR | {"min_difficulty": start, "duration": total, "duration_unit": "steps"}


GPT2_TOKENS = 157_286_400_000
BASELINE = {"name": "baseline", "schedule": "baseline"}


@pytest.mark.parametrize(
    ("batch", "curriculum", "end"),
    [
        (512, BASELINE, 300_000),
        (4096, BASELINE, 37_500),
        (4096, steps_curriculum(64, 15_000), 44_589),
        (4096, steps_curriculum(64, 45_000), 58_769),
        (512, steps_curriculum(8, 60_000), 330_000),
    ],
)
def test_gpt2_cells_end_at_the_published_step(batch: int, curriculum: dict[str, Any], end: int) -> None:
    assert published("gpt2", 1024, batch, GPT2_TOKENS, curriculum) == end


def test_gpt3_cells_end_at_the_published_step() -> None:
    tokens = LINEAR | {"min_difficulty": 72, "duration": 45e9, "duration_unit": "tokens"}
    assert published("gpt3", 2048, 256, 300_000_000_000, BASELINE) == 572_205
    assert published("gpt3", 2048, 2048, 300_000_000_000, tokens) == 81_566


def test_an_edited_custom_function_is_another_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    curriculum = {"name": "c", "schedule": "custom", "function": "edited.f", "function_args": {"lengths": [8, 64]}}
    ids = set()
    for start in (8, 16):
        (tmp_path / "edited.py").write_text(f"def f(step, lengths): return {start} if step < 5 else lengths[1]\n")
        importlib.invalidate_caches()
        sys.modules.pop("edited", None)
        sys.dont_write_bytecode = True
        full = identity.resolve(run_config(curriculum=curriculum), vocab_size=256, fingerprint="0")
        ids.add(identity.run_id(full))
    sys.dont_write_bytecode = False
    assert len(ids) == 2


def test_a_tiny_degree_does_not_overflow() -> None:
    assert FixedRoot(8, 64, 8, 10, 0.002).at(100, 0) == 64


def test_identity_holds_the_steps() -> None:
    full = identity.resolve(run_config(curriculum=LINEAR), vocab_size=256, fingerprint="0")
    assert schedules.build(full) == schedules.build(run_config(curriculum=LINEAR))
