"""The plan of a grid: counts, costs, states, files."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from cl_bench import schedules
from cl_bench.config import LaunchConfig, RunConfig, SweepConfig
from cl_bench.config.schema import ConfigError
from cl_bench.launch import estimate, plan
from cl_bench.launch.local import LocalQueue
from cl_bench.launch.slurm import packing
from cl_bench.runs import status
from cl_bench.runs.lock import only_trainer
from cl_bench.runs.paths import RunDir, SweepDir, read_yaml
from tests.conftest import LINEAR, run_config


@pytest.fixture
def launch(tmp_path: Path) -> LaunchConfig:
    return LaunchConfig(sweep=SweepConfig(name="s", question="why?"), outputs=str(tmp_path / "out"))


def grid(text: Path, **changes: object) -> list[RunConfig]:
    where = {"data": {"path": str(text)}}
    return [
        run_config(**where, curriculum=c, seed=s, **changes)
        for c in ({"name": "baseline", "schedule": "baseline"}, LINEAR)
        for s in (1, 2)
    ]


def test_a_grid_is_resolved_named_and_priced(text: Path, launch: LaunchConfig) -> None:
    built = plan.build(grid(text), launch, plan.Corpora())
    first, last = built.runs[0], built.runs[-1]
    assert (first.config.role, last.config.role) == ("baseline", "curriculum")
    assert first.cell == "baseline b8 lr2e-3"
    assert last.cell == "fixed_linear b8 lr2e-3"
    assert last.shape == "8→full over 40%"
    # 20,000 tokens in steps of 8 x 64
    assert (first.extent.steps, first.extent.tokens, first.extent.lengths) == (40, 20_480, ((64, 40),))
    # V h + P h + L (12 h² + 13 h) + 2 h = 256x32 + 64x32 + 2 (12,288 + 416) + 64
    assert first.parameters == 35_712
    # (6 N + 12 L C T) a token
    assert first.flops == (6 * 35_712 + 12 * 2 * 32 * 64) * 20_480
    assert built.hours_basis.startswith("assuming")
    assert first.hours == pytest.approx(first.flops / 0.07e12 / 3600)


def test_flops_follow_the_length() -> None:
    curriculum = run_config(curriculum=LINEAR)
    full, extent = run_config(), schedules.extent(curriculum)
    by_hand = sum((6 * 35_712 + 12 * 2 * 32 * d) * d * 8 * n for d, n in extent.lengths)
    resolved_model = {"vocab_size": 256}
    assert estimate.training_flops(run_config(curriculum=LINEAR, model=resolved_model), extent) == by_hand
    a_token = by_hand / extent.tokens
    assert (
        a_token
        < estimate.training_flops(run_config(model=resolved_model), schedules.extent(full))
        / schedules.extent(full).tokens
    )


def test_duplicates_are_dropped(text: Path, launch: LaunchConfig) -> None:
    built = plan.build(grid(text) + grid(text), launch, plan.Corpora())
    assert (len(built.runs), built.duplicates, len(built.run_ids)) == (4, 4, 8)


def test_states_come_from_disk(text: Path, launch: LaunchConfig) -> None:
    ids = [r.run_id for r in plan.build(grid(text), launch, plan.Corpora()).runs]
    for run_id, state in zip(ids, ("DONE", "DIVERGED", "FAILED", "RUNNING"), strict=True):
        run = RunDir(launch.outputs, run_id)
        run.root.mkdir(parents=True)
        status.write(run, status.Status(), state=state)
    built = plan.build(grid(text), launch, plan.Corpora())
    # RUNNING without a process that holds the lock was killed
    assert [r.state for r in built.runs] == ["done", "diverged", "failed", "interrupted"]
    assert [r.to_train for r in built.runs] == [False, False, True, True]


def test_a_run_in_training_elsewhere_is_left_alone(text: Path, launch: LaunchConfig, tmp_path: Path) -> None:
    import subprocess
    import sys

    run = RunDir(launch.outputs, plan.build(grid(text), launch, plan.Corpora()).runs[0].run_id)
    code = (
        "import sys; from cl_bench.runs.lock import only_trainer; from cl_bench.runs.paths import RunDir\n"
        "with only_trainer(RunDir.at(sys.argv[1])) as free: print(free, flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline().strip() == "True"
    assert plan.state_of(run) == "running"
    with only_trainer(run) as free:
        assert not free
    holder.kill()  # a kill -9 cannot leave the lock stuck
    holder.wait()
    assert plan.state_of(run) == "new"


def test_plan_csv_and_manifest(text: Path, launch: LaunchConfig) -> None:
    built = plan.build(grid(text), launch, plan.Corpora())
    plan.write_csv(built)
    plan.write_configs(built)
    sweep = SweepDir(launch.outputs, "s")
    with sweep.plan.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "run_id",
        "cell",
        "role",
        "state",
        "steps",
        "tokens",
        "distinct_seqlens",
        "parameters",
        "flops",
        "hours",
    ]
    assert [int(r["distinct_seqlens"]) for r in rows] == [1, 1, 8, 8]
    assert plan.write_manifest(built) == 0
    manifest = json.loads(sweep.manifest.read_text())
    assert manifest["question"] == "why?"
    assert [r["role"] for r in manifest["runs"]] == ["baseline"] * 2 + ["curriculum"] * 2
    assert RunDir(launch.outputs, rows[0]["run_id"]).config.exists()
    fewer = plan.build(grid(text)[:1], launch, plan.Corpora())
    assert plan.write_manifest(fewer) == 3  # said, and the runs stay


def test_only_a_run_still_to_be_trained_gets_other_resources(text: Path, launch: LaunchConfig) -> None:
    built = plan.build(grid(text), launch, plan.Corpora())
    plan.write_configs(built)
    run = RunDir(launch.outputs, built.runs[0].run_id)
    for state, ranks in (("FAILED", 2), ("DONE", 2)):
        status.write(run, status.Status(), state=state)
        plan.write_configs(plan.build(grid(text, resources={"tasks_per_node": ranks}), launch, plan.Corpora()))
        assert read_yaml(run.config)["resources"]["tasks_per_node"] == 2
    plan.write_configs(plan.build(grid(text, resources={"tasks_per_node": 4}), launch, plan.Corpora()))
    assert read_yaml(run.config)["resources"]["tasks_per_node"] == 2


def test_one_bad_run_refuses_the_grid_before_anything_is_written(text: Path, launch: LaunchConfig) -> None:
    too_short = run_config(data={"path": str(text)}, curriculum=LINEAR | {"duration": 0.001})
    with pytest.raises(ConfigError, match="less than one step"):
        plan.build([*grid(text), too_short], launch, plan.Corpora())
    assert not Path(launch.outputs).exists()


def test_outputs_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        plan.check_writable(str(tmp_path / "file" / "outputs"))


def test_methods_alternate_within_a_seed(text: Path, launch: LaunchConfig) -> None:
    """A machine that becomes slower during a sweep must not do so for the curriculum alone."""
    runs = grid(text)  # baseline seeds 1 and 2, then the curriculum's
    where = {"data": {"path": str(text)}}
    warmup = {"start": 4, "increment": 4, "duration": 64}
    batch = run_config(**where, curriculum=LINEAR, batch_warmup=warmup)
    large = [run_config(**where, curriculum=c, optim={"lr": 8e-3}) for c in (LINEAR, {})]
    built = plan.build([*runs, batch, *large], launch, plan.Corpora())
    order = [built.runs.index(run) for run in built.to_train]
    assert order == [0, 2, 4, 1, 3, 5, 6]  # by seed: baseline, curriculum, with batch warmup; then the other LR
    assert [run.config.seed for run in built.runs] == [1, 2, 1, 2, 1, 1, 1]  # the table keeps the grid's order


def test_the_local_queue_and_slurm_packs_start_runs_in_that_order(text: Path, launch: LaunchConfig) -> None:
    built = plan.build(grid(text), launch, plan.Corpora())
    order = [built.runs[i].run_id for i in (0, 2, 1, 3)]
    queue = LocalQueue(built)
    assert [(number, run.run_id) for number, run in queue.waiting] == list(zip((1, 3, 2, 4), order, strict=True))
    assert [job.runs[0].run_id for job in packing.pack(built)] == order
    packed = plan.build(grid(text), dataclasses.replace(launch, pack=2), plan.Corpora())
    assert [[run.run_id for run in job.runs] for job in packing.pack(packed)] == [order[:2], order[2:]]


def test_a_finished_run_does_not_change_the_order_of_the_others(text: Path, launch: LaunchConfig) -> None:
    built = plan.build(grid(text), launch, plan.Corpora())
    run = RunDir(launch.outputs, built.runs[0].run_id)
    status.write(run, status.read(run), state="DONE")
    again = plan.build(grid(text), launch, plan.Corpora())
    assert [again.runs.index(r) for r in again.to_train] == [2, 1, 3]
