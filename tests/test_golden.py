"""What version 0.1.0 wrote still reads, resumes and reports the same, and known experiments keep their run_ids."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import report
from cl_bench import sweep
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir
from tests.analysis.synthetic import make_report

GOLDEN = Path(__file__).parent / "golden"
KILLED = "tiny_root_b8_lr2e-3_s2-8132ed43"
LAUNCHES = json.loads((GOLDEN / "run_ids.json").read_text())


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A copy of the old outputs folder whose configurations find their text."""
    copy = tmp_path / "outputs"
    shutil.copytree(GOLDEN / "outputs", copy)
    for path in [*copy.rglob("*.yaml"), *copy.rglob("*.json")]:
        path.write_text(path.read_text().replace("/data/corpus.txt", str(GOLDEN / "corpus.txt")))
    return copy


def assert_same_tables(folder: Path, name: str) -> None:
    golden = GOLDEN / "report" / name
    for path in sorted(golden.glob("*.csv")):
        expected, actual = pd.read_csv(path), pd.read_csv(folder / path.name)
        pd.testing.assert_frame_equal(actual, expected, rtol=1e-9, check_dtype=False, obj=f"{name}/{path.name}")
    expected = json.loads((golden / "verdict.json").read_text())
    assert_same(json.loads((folder / "verdict.json").read_text()), expected, name)


def assert_same(actual: Any, expected: Any, where: str) -> None:
    """Equal values, floats to rounding."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), where
        assert actual.keys() == expected.keys(), where
        for key in expected:
            assert_same(actual[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(actual, list), where
        assert len(actual) == len(expected), where
        for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(expected, float) and isinstance(actual, float):
        assert actual == pytest.approx(expected, rel=1e-9, nan_ok=True), where
    else:
        assert actual == expected, where


@pytest.mark.parametrize("launch", LAUNCHES, ids=lambda launch: " ".join(launch["arguments"])[:60])
def test_known_experiments_keep_their_run_ids_and_lengths(launch: dict[str, Any], tmp_path: Path) -> None:
    assert sweep.main(["-m", *launch["arguments"], "dry_run=true", f"outputs={tmp_path}"]) == 0
    rows = list(csv.DictReader(next(tmp_path.glob("sweeps/*/plan.csv")).open()))
    assert [row["run_id"] for row in rows] == launch["run_ids"]
    assert [int(row["steps"]) for row in rows] == launch["steps"]
    assert [int(row["tokens"]) for row in rows] == launch["tokens"]


def test_an_old_outputs_folder_reports_the_same(outputs: Path) -> None:
    report.write(outputs / "sweeps" / "golden")
    assert_same_tables(outputs / "sweeps" / "golden", "outputs")


def test_a_synthetic_sweep_reports_the_same(tmp_path: Path) -> None:
    data = make_report(methods=3, seeds=3)
    tables = {
        "savings": data.savings,
        "savings_by_target": data.targets,
        "stability": data.stability,
        "frontier": data.frontier,
        "correlation": data.correlation,
        "cost": data.cost.runs,
    }
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "verdict.json").write_text(json.dumps(data.verdict))
    assert_same_tables(tmp_path, "synthetic")


@pytest.mark.train
def test_an_old_killed_run_resumes_and_ends_as_its_uninterrupted_twin(outputs: Path) -> None:
    root = Path(__file__).parents[1]
    command = [
        *(sys.executable, "-m", "cl_bench.sweep", "-m", "sweeps=smoke", "sweep.name=golden", "data=text"),
        *(f"data.path={GOLDEN / 'corpus.txt'}", "model.n_layers=1", "model.hidden_size=32", "model.n_heads=2"),
        *("tracking=none", "token_budget=60000", "resources.threads=1", "checkpoint.interval_steps=20"),
        *("curriculum=fixed_root", "seed=2", f"outputs={outputs}"),
    ]
    subprocess.run(command, check=True, cwd=root, capture_output=True, text=True)
    run = RunDir(outputs, KILLED)
    assert status.read(run).state == "DONE"
    record = records.read(run)
    assert record.attempts["restored_step"].to_list() == [0, 40]
    actual = record.evals[["step", "consumed_tokens", "val_loss"]].reset_index(drop=True)
    expected = pd.read_csv(GOLDEN / "uninterrupted_eval.csv")
    # Within rounding: another processor's matrix products differ in their last bits.
    pd.testing.assert_frame_equal(actual, expected, rtol=1e-3, check_dtype=False)
