"""The registry of sequence-length schedules, and the recipe for a new one: a module, a preset, a test."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from cl_bench import schedules
from cl_bench.cli import main
from cl_bench.config.schema import ConfigError
from cl_bench.launch import display
from cl_bench.runs import identity
from cl_bench.runs.paths import config_root, read_yaml
from cl_bench.schedules import StepShapes, length
from tests.conftest import resolved, run_config


def test_every_preset_names_a_registered_schedule_and_every_schedule_has_a_preset() -> None:
    presets = [read_yaml(path) for path in (config_root() / "conf/curriculum").glob("*.yaml")]
    assert {preset["schedule"] for preset in presets if "schedule" in preset} == set(schedules.names())


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'fixed_rot': unknown schedule; did you mean 'fixed_root'\? valid: adaptive"
    ):
        resolved(curriculum={"name": "r", "schedule": "fixed_rot"})


_MODULE = """
import dataclasses
from cl_bench.schedules.length import LengthSchedule, register

@register("halfway")
@dataclasses.dataclass(frozen=True)
class Halfway(LengthSchedule):
    parameters = ("function_args",)
    max_difficulty: int
    tokens: int

    @classmethod
    def build(cls, config):
        return cls(config.max_difficulty, config.curriculum.function_args["tokens"])

    @classmethod
    def describe(cls, curriculum):
        return f"half for {curriculum.function_args['tokens']:,} tokens"

    def at(self, step, consumed_tokens):
        return self.max_difficulty if consumed_tokens >= self.tokens else self.max_difficulty // 2
"""
_PRESET = "name: halfway\nschedule: halfway\nfunction_args: {tokens: 1000}\nduration: 0.3\n"


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A schedule `halfway`, added to the built-in ones as CONTRIBUTING.md has it; its preset."""
    (tmp_path / "builtin").mkdir()
    (tmp_path / "builtin" / "halfway.py").write_text(_MODULE)
    monkeypatch.setattr(length, "_REGISTRY", dict(length._REGISTRY))
    monkeypatch.setattr(schedules.builtin, "__path__", [*schedules.builtin.__path__, str(tmp_path / "builtin")])
    monkeypatch.delitem(sys.modules, "cl_bench.schedules.builtin.halfway", raising=False)
    schedules.builtin.load()
    path = tmp_path / "conf" / "curriculum" / "halfway.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(_PRESET)
    return path


def test_a_new_schedule_is_a_module_and_a_preset(preset: Path) -> None:
    curriculum = read_yaml(preset)
    config = run_config(curriculum=curriculum)
    # 8 x 32 = 256 tokens a step for 4 steps to 1,024, then 512 a step: 38 more to 20,480.
    assert schedules.extent(config).lengths == ((32, 4), (64, 38))
    assert list(schedules.walk(config, steps=6))[-1] == (2, 64, 8, 512)
    assert schedules.describe(config) == "half for 1,000 tokens"
    assert StepShapes(config).at(5, 32, 1024).seqlen == 64
    full = resolved(curriculum=curriculum)
    assert full.curriculum.duration is None  # not a parameter of the schedule, and not in the run's identity
    assert identity.run_id(full).startswith("tiny_halfway_b8_")


def test_a_new_schedule_is_planned_from_the_command_line(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display.console, "width", 160)
    monkeypatch.setattr(sys, "argv", ["cl-bench"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times.\n" * 400)
    command = ["sweep", "-m", "sweeps=smoke", "curriculum=baseline,halfway", "dry_run=true", "data=text"]
    command += [f"data.path={text}", f"outputs={tmp_path / 'out'}", f"hydra.searchpath=[file://{preset.parents[1]}]"]
    command += ["global_batch_size=8", "token_budget=20_480", "max_seqlen=64"]
    assert main.main([*command, "curriculum.function_args.tokens=2_000"]) == 0
    # 256 tokens a step for 8 steps to 2,048, then 512 a step: 36 more to 20,480; the baseline takes 40.
    rows = (tmp_path / "out" / "sweeps" / "smoke" / "plan.csv").read_text().splitlines()
    steps = {row["cell"].split()[0]: row["steps"] for row in csv.DictReader(rows)}
    assert steps == {"baseline": "40", "halfway": "44"}
    assert "half for 2,000 tokens" in capsys.readouterr().out


def test_the_package_is_a_library_without_torch_or_hydra() -> None:
    code = "import sys, cl_bench.schedules; print({'torch', 'hydra', 'deepspeed', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
