"""From the command line to the report on real text: the smoke sweep, its second launch, failures, the notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from analysis import load_runs
from analysis.page.document import all_figures
from analysis.readers.source import of_folder
from analysis.report import answer_of, page_data
from cl_bench.cli import main
from cl_bench.launch import observe
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir, SweepDir, manifest_runs

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]


def launch(outputs: Path, *arguments: str, columns: int = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cl_bench.sweep", *arguments, f"outputs={outputs}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "COLUMNS": str(columns)},
        timeout=280,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    outputs = tmp_path_factory.mktemp("outputs")
    return outputs, launch(outputs, "-m", "sweeps=smoke")


def test_the_smoke_sweep_ends_in_a_verdict(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    outputs, done = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # no banner or warning of a third party reaches the screen
    assert "2 done, 0 failed" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines() if str(outputs) not in line)
    sweep = SweepDir(outputs, "smoke")
    answer = json.loads(sweep.verdict.read_text())
    assert answer["sentence"] in " ".join(done.stdout.split())
    assert answer["cells"][0]["curriculum"] == "fixed_linear"
    assert answer["cells"][0]["reached"] == 1
    runs = load_runs(sweep.root)
    assert runs.runs["state"].tolist() == ["DONE", "DONE"]
    assert (runs.runs["final_ppl"] < 40).all()  # bytes of Shakespeare: 256 before training
    for run_id in manifest_runs(sweep):
        run = RunDir(outputs, run_id)
        assert run.table("train").exists()
        assert not run.attempts()  # compacted


def test_cancel_stops_the_named_run_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "cl_bench.sweep", "-m", "sweeps=smoke", "tracking=none", "token_budget=200_000"]
    command += ["curriculum=baseline", "seed=1,2,3", "resources.threads=1", f"outputs={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not (runs := [r for r in _in_order(tmp_path) if status.read(r).step > 10]):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    first, second, third = _in_order(tmp_path)
    assert runs == [first] or runs[0].run_id == first.run_id
    assert [seen.status.state for seen in observe.observe([second, third])] == ["PENDING", "PENDING"]
    assert observe.observe([second])[0].is_live
    for run in (second, first):  # one that waits, and the one in training
        assert main.main(["cancel", run.run_id, "--outputs", str(tmp_path)]) == 0
    said = process.communicate(timeout=200)[0]
    assert f"{second.run_id} was cancelled" in said, said
    assert [status.read(run).state for run in (first, second, third)] == ["PREEMPTED", "PENDING", "DONE"], said
    assert main.main(["cancel", "smoke", "--outputs", str(tmp_path)]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert main.main(["retry", "smoke", "--outputs", str(tmp_path)]) == 0
    assert all(status.read(run).state == "DONE" for run in (first, second, third))
    assert records.read(first).attempts["restored_step"].iloc[1] > 10
    assert not records.read(second).train.empty


def _in_order(outputs: Path) -> list[RunDir]:
    sweep = SweepDir(outputs, "smoke")
    return [RunDir(outputs, r) for r in manifest_runs(sweep)] if sweep.manifest.exists() else []


def test_the_mirror_holds_the_same_rows(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    outputs, _ = smoke
    run = RunDir(outputs, manifest_runs(SweepDir(outputs, "smoke"))[1])
    (mirror,) = run.wandb.glob("offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(mirror)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    record = records.read(run)
    assert out.stdout.count("grad_norm") >= len(record.train)
    assert "val_loss" in out.stdout
    assert run.run_id in out.stdout


def test_a_second_launch_trains_nothing(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    outputs, _ = smoke
    before = {p: p.stat().st_mtime_ns for p in outputs.glob("runs/*/metrics/*")}
    started = time.monotonic()
    again = launch(outputs, "-m", "sweeps=smoke")
    assert again.returncode == 0
    assert "2 runs: 0 new, 2 done, 0 failed" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in outputs.glob("runs/*/metrics/*")} == before
    assert time.monotonic() - started < 60  # seconds where nothing else runs; never a training's time


def test_one_run_without_m(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    outputs, _ = smoke
    manifest = SweepDir(outputs, "smoke").manifest.read_text()
    done = launch(outputs, "sweeps=smoke")
    assert done.returncode == 0, done.stderr
    assert "1 run: 0 new, 1 done" in done.stdout  # the same experiment: the sweep's baseline
    assert "validation loss" in done.stdout
    assert SweepDir(outputs, "smoke").manifest.read_text() == manifest


def test_a_failing_run_stops_no_other(tmp_path: Path) -> None:
    # The custom function fails at its tenth step, and only where it trains.
    (tmp_path / "breaks.py").write_text(
        "import os, time\n"
        "def at_ten(step):\n"
        "    if step > 9 and 'SUBMITIT_LOCAL_JOB_ID' in os.environ:\n"
        "        time.sleep(10)\n"
        "        raise RuntimeError('the disk [/data/x] caught fire')\n"
        "    return 32\n"
    )
    env = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "cl_bench.sweep",
        "-m",
        "sweeps=smoke",
        "curriculum=custom,baseline",
        "jobs=2",
        "curriculum.function=breaks.at_ten",
        "tracking=none",
        "token_budget=20_000",
        f"outputs={tmp_path}",
    ]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=env, timeout=280)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 done, 1 failed" in done.stdout
    assert "RuntimeError: the disk [/data/x] caught fire" in done.stdout
    # side by side: the failing run is the longer one and started first, yet the other ends before it
    assert done.stdout.index("  done") < done.stdout.index("  failed")
    assert "1 of 2 runs did not finish; launch again to resume them" in done.stdout
    states = {status.read(RunDir.at(p)).state for p in (tmp_path / "runs").glob("*")}
    assert states == {"DONE", "FAILED"}
    log = next(line.split()[1] for line in done.stdout.splitlines() if line.strip().startswith("log"))
    assert "caught fire" in Path(log).read_text()


def test_two_launches_at_once_train_each_run_once(tmp_path: Path) -> None:
    arguments = ["-m", "sweeps=smoke", "token_budget=20_000", "tracking=none", "resources.tasks_per_node=2"]
    command = [sys.executable, "-m", "cl_bench.sweep", *arguments, f"outputs={tmp_path}"]
    both = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in "ab"
    ]
    said = [process.communicate(timeout=280)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for run_id in manifest_runs(SweepDir(tmp_path, "smoke")):
        run = RunDir(tmp_path, run_id)
        assert status.read(run).state == "DONE"
        record = records.read(run)
        assert len(record.attempts) == 1
        assert record.train["step"].is_unique


@pytest.mark.parametrize("name", ["savings", "stability"])
def test_a_notebook_shows_the_pages_figures(
    name: str, smoke: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = SweepDir(smoke[0], "smoke").root
    monkeypatch.setenv("CL_BENCH_SWEEP", str(sweep))
    shown, words = executed(name)
    drawn = all_figures(page_data(answer_of(of_folder(sweep))))
    own = {
        "savings": ["validation", "savings", "over-targets", "schedule"],
        "stability": ["frontier", "stability-0", "stability-1", "training", "variance-l1", "variance-max"],
    }[name]
    for place in own:
        assert drawn[place]["data"] in shown, place
    assert len(shown) > len(own)
    assert "fixed_linear" in words
    assert ".cl-bench td" in words  # a table


def test_the_notebook_on_wandb_reads_the_mirrors(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, _ = smoke
    monkeypatch.delenv("CL_BENCH_WANDB", raising=False)
    monkeypatch.setenv("CL_BENCH_WANDB_DIR", str(outputs / "runs"))
    shown, words = executed("from_wandb")
    assert len(shown) == 3
    # the same tokens as the local records say
    sentence = json.loads(SweepDir(outputs, "smoke").verdict.read_text())["sentence"]
    assert sentence.split(" and ")[0] in words


def executed(name: str) -> tuple[list[Any], str]:
    """The traces of the figures that a notebook shows, and all else that it shows as text."""
    notebook = nbformat.read(ROOT / f"analysis/notebooks/{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    plotly = "application/vnd.plotly.v1+json"
    figures = [o["data"][plotly]["data"] for o in outputs if plotly in o.get("data", {})]
    return figures, json.dumps([o for o in outputs if plotly not in o.get("data", {})], ensure_ascii=False)


def test_status_command(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    outputs, _ = smoke
    command = [str(Path(sys.executable).parent / "cl-bench"), "status", str(SweepDir(outputs, "smoke").root)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DONE") == 2
