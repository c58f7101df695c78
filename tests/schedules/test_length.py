"""The registry of sequence-length schedules: presets, unknown names, and a schedule added from outside."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from cl_bench import schedules
from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.runs import identity
from cl_bench.runs.paths import config_root, read_yaml
from cl_bench.schedules import LengthSchedule, StepShapes, length
from tests.conftest import resolved, run_config


def test_every_preset_names_a_registered_schedule_and_every_schedule_has_a_preset() -> None:
    presets = [read_yaml(path) for path in (config_root() / "conf/curriculum").glob("*.yaml")]
    assert {preset["schedule"] for preset in presets if "schedule" in preset} == set(schedules.names())


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'fixed_rot': unknown schedule; did you mean 'fixed_root'\? valid: adaptive"
    ):
        resolved(curriculum={"name": "r", "schedule": "fixed_rot"})


@dataclasses.dataclass(frozen=True)
class Halfway(LengthSchedule):
    """Half the length until `tokens` are consumed."""

    parameters = ("function_args",)
    max_difficulty: int
    tokens: int

    @classmethod
    def build(cls, config: RunConfig) -> Halfway:
        return cls(config.max_difficulty, config.curriculum.function_args["tokens"])

    @classmethod
    def describe(cls, curriculum: CurriculumConfig) -> str:
        return f"half for {curriculum.function_args['tokens']:,} tokens"

    def at(self, step: int, consumed_tokens: int) -> int:
        return self.max_difficulty if consumed_tokens >= self.tokens else self.max_difficulty // 2


def test_a_schedule_added_from_outside_is_planned_named_and_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(length._REGISTRY, "halfway", Halfway)
    curriculum = {"name": "h", "schedule": "halfway", "function_args": {"tokens": 1000}, "duration": 0.3}
    config = run_config(curriculum=curriculum)
    # 8 x 32 = 256 tokens a step for 4 steps to 1,024, then 512 a step: 38 more to 20,480.
    assert schedules.extent(config).lengths == ((32, 4), (64, 38))
    assert list(schedules.walk(config, steps=6))[-1] == (2, 64, 8, 512)
    assert schedules.describe(config) == "half for 1,000 tokens"
    assert StepShapes(config).at(5, 32, 1024).seqlen == 64
    full = resolved(curriculum=curriculum)
    assert full.curriculum.duration is None  # not a parameter of the schedule, and not in the run's identity
    assert identity.run_id(full).startswith("tiny_halfway_b8_")


def test_the_package_is_a_library_without_torch_or_hydra() -> None:
    code = "import sys, cl_bench.schedules; print({'torch', 'hydra', 'deepspeed', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
