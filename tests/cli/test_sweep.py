"""The command line: grids are composed as Hydra composes them; mistakes leave with code 2 and nothing written."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cl_bench import sweep
from cl_bench.cli import hydra_glue, main
from cl_bench.cli import sweep as composition
from cl_bench.launch import display, local
from cl_bench.runs.paths import config_root


@pytest.fixture(autouse=True)
def _narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display.console, "width", 120)
    monkeypatch.setattr(sys, "argv", ["sweep"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def dry(outputs: Path, *arguments: str) -> int:
    return sweep.main(["-m", *arguments, "dry_run=true", f"outputs={outputs}"])


def planned(outputs: Path, name: str) -> list[dict[str, str]]:
    with (outputs / "sweeps" / name / "plan.csv").open() as file:
        return list(csv.DictReader(file))


def test_dry_run_of_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry(tmp_path, "sweeps=demo") == 0
    rows = planned(tmp_path, "demo")
    assert len(rows) == 8
    assert {r["role"] for r in rows} == {"baseline", "curriculum"}
    out = capsys.readouterr().out
    assert "8 runs: 8 new, 0 done, 0 failed" in out
    assert not (tmp_path / "runs").exists()


def test_the_command_line_overrides_and_extends_the_grid(tmp_path: Path) -> None:
    arguments = ("sweeps=smoke", "optim.lr=1e-3,2e-3", "curriculum=baseline,fixed_root", "seed=1,2")
    assert dry(tmp_path, *arguments) == 0
    cells = {r["cell"] for r in planned(tmp_path, "smoke")}
    assert len(planned(tmp_path, "smoke")) == 8
    assert cells == {f"{c} b8 lr{lr}" for c in ("baseline", "fixed_root") for lr in ("1e-3", "2e-3")}


def test_every_preset_composes(tmp_path: Path) -> None:
    models = "tiny,gpt2_117m,gpt2_345m,gpt2_774m,gpt2_1558m,gpt3_125m"
    common = ["max_seqlen=256", "tracking=none", "token_budget=100_000_000", "global_batch_size=128"]
    assert dry(tmp_path, f"model={models}", *common) == 0
    curricula = "baseline,fixed_linear,fixed_root,fixed_discrete,two_stage"
    assert dry(tmp_path, f"curriculum={curricula}", "deepspeed=zero0,zero1,zero2,zero3", "sweep.name=b") == 0
    assert len(planned(tmp_path, "b")) == 20
    assert dry(tmp_path, "optim=gpt2,gpt3", "token_budget=157_286_400_000", "sweep.name=c") == 0


def test_the_fast_grid_equals_hydras_own_composition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, list] = {}
    original = hydra_glue.compose_grid

    def spy(loader: object, master: object, jobs: list[list[str]]) -> list[dict]:
        seen["jobs"], seen["grid"] = jobs, original(loader, master, jobs)  # type: ignore[arg-type]
        return seen["grid"]

    monkeypatch.setattr(hydra_glue, "compose_grid", spy)
    arguments = [
        "sweeps=smoke",
        "curriculum=baseline,fixed_linear,two_stage",
        "optim.lr=1e-3,4e-3",
        "deepspeed=zero0,zero1",
        "+curriculum.function_args.power=2",
        "curriculum.difficulty_step=8,16",
        "token_budget=50_000",
    ]
    assert dry(tmp_path, *arguments) == 0
    composition._register()
    with initialize_config_dir(str(config_root() / "conf"), version_base="1.3"):
        for overrides, ours in zip(seen["jobs"], seen["grid"], strict=True):
            theirs = compose("config", list(overrides))
            assert ours == OmegaConf.to_container(theirs, resolve=True), overrides
    assert len(seen["jobs"]) == 24


@pytest.mark.parametrize("grid", [["-m"], []])
@pytest.mark.parametrize(
    "override",
    ["curriculum.function_args={every: 20}", "curriculum.function_args.every=20", "+curriculum.function_args.every=20"],
)
def test_parameters_of_an_own_schedule(
    grid: list[str], override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "every_steps.py").write_text("def length(step, every): return min(128, 16 * (1 + step // every))")
    monkeypatch.syspath_prepend(tmp_path)
    function = "curriculum.function=every_steps.length"
    command = [*grid, "sweeps=smoke", "curriculum=custom", function, override, "dry_run=true", f"outputs={tmp_path}"]
    assert sweep.main(command) == 0


BAD_INPUT = [
    (["sweeps=smoke", "optim.lrr=1e-3"], "optim.lrr: unknown key; did you mean 'optim.lr'?"),
    (["sweeps=smoke", "batch=1"], "batch: unknown key"),
    (["sweeps=smoke", "+optim.speed=1"], "optim.speed: unknown key"),
    (
        ["sweeps=smoke", "curriculum=fixd_linear"],
        "curriculum=fixd_linear: no such choice; did you mean 'fixed_linear'?",
    ),
    (["sweeps=smok"], "sweeps=smok: no such choice; did you mean 'smoke'?"),
    (["sweeps=smoke", "optim.lr=fast"], "optim.lr = 'fast': must be a valid number"),
    (["sweeps=smoke", "optim.lr=1e-3,-1e-3"], "optim.lr = -0.001: must be greater than 0"),
    (["sweeps=smoke", "micro_batch_size=3"], "global_batch_size = 8 is not a multiple of micro_batch_size"),
    (
        ["sweeps=smoke", "curriculum=fixed_linear", "curriculum.min_difficulty=64", "curriculum.max_difficulty=32"],
        "curriculum.min_difficulty = 64 is above curriculum.max_difficulty = 32",
    ),
    (["sweeps=smoke", "max_seqlen=512"], "max_seqlen = 512 is longer than the model's positions"),
    (["sweeps=smoke", "data=text", "data.path=/nowhere.txt"], "data.path = /nowhere.txt: no such file or folder"),
    (["sweeps=smoke", "data=text"], "data.path is null"),
    (["sweeps=smoke", "outputs=/dev/null/x"], "outputs = /dev/null/x: cannot be created"),
    (["sweeps=smoke", "sweep.name=a/b"], "sweep.name = 'a/b' must be a plain folder name"),
    (["sweeps=smoke", "jobs=0"], "jobs = 0: must be greater than 0"),
    (["sweeps=smoke", "seed"], "seed"),
    (["sweeps=smoke", "optim=none"], "optim=none: no such choice"),
    (["sweeps=smoke", "optim.lr=???"], "optim.lr: has no value"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(a) for a, _ in BAD_INPUT])
def test_bad_input_is_one_clear_line_and_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep.main(["-m", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert error.startswith("error: ")
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.parametrize(("arguments", "message"), [b for b in BAD_INPUT if "," not in " ".join(b[0])])
def test_bad_input_without_m(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_launch_settings_take_one_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for axis in ("jobs=1,2", "sweeps=demo,smoke", "sweep.name=a,b"):
        assert dry(tmp_path, "sweeps=smoke", axis) == 2
        assert "take one value" in capsys.readouterr().err


def test_settings_that_a_machine_without_gpus_rejects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_gpus", lambda: list(range(0)))
    for argument in ("deepspeed.precision=fp16", "resources.accelerator=cuda"):
        assert dry(tmp_path, "sweeps=smoke", argument) == 0  # a plan is for any machine
        assert sweep.main(["-m", "sweeps=smoke", argument, f"outputs={tmp_path}"]) == 2
        assert "has no" in capsys.readouterr().err
    monkeypatch.setattr(local, "_gpus", lambda: list(range(1)))
    assert sweep.main(["-m", "sweeps=smoke", "resources.tasks_per_node=2", f"outputs={tmp_path}"]) == 2
    assert "more than the 1 GPU of" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_axis_may_be_a_list_or_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "sweep: {name: mine}\nhydra: {sweeper: {params: {max_seqlen: null, seed: [1, 2], optim.lr: 1e-3,"
        " curriculum: fixed_discrete, curriculum.max_step: [[0.4]], curriculum.difficulty: [[8, null], [16, null]]}}}\n"
    )
    assert dry(tmp_path / "out", "sweeps=mine") == 0
    assert len(planned(tmp_path / "out", "mine")) == 4


def test_an_empty_axis_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry(tmp_path, "sweeps=smoke", "seed=range(1,1)") == 2
    assert "an axis has no values" in capsys.readouterr().err


def test_several_values_without_m_are_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert sweep.main(["sweeps=smoke", "seed=1,2", f"outputs={tmp_path}"]) == 2
    assert "-m" in capsys.readouterr().err


def test_texts_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, message in ((b"", "empty"), (b"\xff\xfe", "not UTF-8"), (b"short", "less than one block")):
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        assert dry(tmp_path / "out", "sweeps=smoke", "data=text", f"data.path={path}") == 2
        assert message in capsys.readouterr().err


def test_presets_are_found_from_any_directory_and_so_are_own_sweeps(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("sweep: {name: mine}\nhydra: {sweeper: {params: {seed: '1,2,3'}}}\n")
    command = [sys.executable, "-m", "cl_bench.sweep", "-m", "sweeps=mine", "dry_run=true"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert "3 runs: 3 new" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert len(planned(tmp_path / "outputs", "mine")) == 3


def test_mistakes_in_a_sweep_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "sweeps" / "mine.yaml"
    mine.parent.mkdir()
    for content, message in (
        ("optim: {lrr: 1}", "optim.lrr: unknown key; did you mean 'optim.lr'?"),
        ("optim: {lr: [1", "mine.yaml: not YAML"),
        ("- a list", "mine.yaml: must be a group of keys"),
        ("hydra: {sweeper: {params: {optim.lrr: '1,2'}}}", "optim.lrr: unknown key"),
    ):
        mine.write_text(content)
        assert sweep.main(["-m", "sweeps=mine", "dry_run=true"]) == 2
        assert message in capsys.readouterr().err


def test_folders_beside_sweeps_are_not_taken_for_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sweeps", "outputs", "seed", "jobs"):
        (tmp_path / name).mkdir()
    assert dry(tmp_path / "outputs", "sweeps=smoke", "seed=1,2", "jobs=2") == 0


def test_cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an outputs folder of somebody's own is none of its business
    assert main.main(["--help"]) == 0
    assert "cl-bench COMMAND" in capsys.readouterr().out
    assert main.main(["reprot"]) == 2
    assert "did you mean 'report'" in capsys.readouterr().err
    assert main.main(["status", str(tmp_path)]) == 2
    assert "contains no runs" in capsys.readouterr().err
    assert main.main(["sweep", "-m", "sweeps=smoke", "dry_run=true", f"outputs={tmp_path}"]) == 0


@pytest.mark.parametrize(
    ("sweep", "steps"),
    [
        (
            "gpt2_1558m",
            {
                "baseline_512": 300_000,
                "baseline_4096": 37_500,
                "cl_v1": 44_589,
                "cl_later": 58_769,
                "tighter_clip": 37_500,
            },
        ),
        ("gpt2_117m", {"baseline_512": 300_000, "cl_example": 330_000, "cl_v1": 44_589}),
        ("gpt3_125m", {"baseline": 591_581, "baseline_fixed_batch": 572_205, "cl_45b": 81_566}),
    ],
)
def test_published_cells_plan_to_their_published_steps(tmp_path: Path, sweep: str, steps: dict[str, int]) -> None:
    assert dry(tmp_path, f"sweeps={sweep}") == 0
    rows = planned(tmp_path, sweep)
    steps_by_cell = {row["cell"]: int(row["steps"]) for row in rows}
    assert {name: steps_by_cell[name] for name in steps} == steps
    assert len(steps_by_cell) == len(rows)


def test_cells_are_chosen_and_overridden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry(tmp_path, "sweeps=gpt2_117m", "cell=cl_v1,baseline_512", "seed=1,2", "optim.lr=3e-4") == 0
    rows = planned(tmp_path, "gpt2_117m")
    assert [row["cell"] for row in rows] == ["baseline_512"] * 2 + ["cl_v1"] * 2
    assert all("lr3e-4" in row["run_id"] for row in rows)
    assert dry(tmp_path, "sweeps=gpt2_117m", "cell=cl_v2") == 2
    assert "cell = cl_v2: no such cell in this sweep; did you mean 'cl_v1'?" in capsys.readouterr().err
