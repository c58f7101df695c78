"""The real W&B client against a stub of its service: what it logs of our runs, and what we read through it.

Each test starts a process of wandb's own, so they are marked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from analysis import load_runs
from analysis.__main__ import main
from analysis.readers import wandb_online
from analysis.readers.wandb_offline import load_wandb_dir, read_file
from analysis.readers.wandb_online import load_wandb
from cl_bench.config import RunConfig
from cl_bench.runs.paths import RunDir
from cl_bench.training.wandb_mirror import Mirror
from tests.analysis.readers.test_wandb_offline import OTHERS, evaluations, same
from tests.analysis.tables import savings
from tests.analysis.wandb_files import attempts_of_one_run, recorded
from tests.analysis.wandb_stub import ENTITY, Stub, serving
from tests.conftest import LINEAR, resolved

pytestmark = pytest.mark.train


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with serving(monkeypatch) as found:
        yield found
    wandb.teardown()  # the next test, of whatever file, has a process of its own


def mirrored(run: RunDir, config: RunConfig) -> None:
    """Both attempts, through the trainer's own mirror."""
    for number, (about, rows) in enumerate(attempts_of_one_run()):
        mirror = Mirror(config, run, {"attempt": number, "planned_steps": 8, **about})
        for _, row in rows:
            mirror.log({**row, "attempt": number})
        mirror.finish("PREEMPTED" if number == 0 else "DONE")


def plain(config: str) -> dict[str, Any]:
    return {key: value["value"] for key, value in json.loads(config).items()}


def test_our_runs_open_well_in_the_dashboard_and_read_back_as_the_records_do(stub: Stub, tmp_path: Path) -> None:
    config = resolved(curriculum=LINEAR, tracking={"mode": "wandb_online", "project": "p"})
    run = recorded(tmp_path / "outputs", config)
    manifest = tmp_path / "outputs" / "sweeps" / "mine" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"name": "mine", "runs": [{"run_id": run.run_id}]}))
    mirrored(run, config)

    first, second = stub.runs[ENTITY, "p"].values()
    assert first["group"] == second["group"]
    assert first["group"].startswith("tiny fixed_linear b8 lr2e-3 ")
    assert (first["jobType"], first["displayName"]) == ("fixed_linear", f"{run.run_id}.0")
    assert set(first["tags"]) == {"curriculum", "fixed_linear", "tiny", "mine"}
    columns = plain(first["config"])
    flat = {
        k: columns[k] for k in ("curriculum", "global_batch_size", "lr", "seed", "cell", "sweep", "run_id", "attempt")
    }
    assert flat == {
        "curriculum": "fixed_linear",
        "global_batch_size": 8,
        "lr": 2e-3,
        "seed": 1,
        "cell": "fixed_linear b8 lr2e-3",
        "sweep": "mine",
        "run_id": run.run_id,
        "attempt": 0,
    }
    # metrics over consumed_tokens: key 1 is a name, 2 a pattern, 5 the place in this list (from 1) of their x axis
    axes = columns["_wandb"]["m"]
    place = next(i for i, metric in enumerate(axes, 1) if metric.get("1") == "consumed_tokens")
    assert {m.get("1", m.get("2")): m.get("5") for m in axes if m.get("5")} == dict.fromkeys(
        ("*", "val_loss", "val_ppl", "loss_ratio"), place
    )
    assert (plain(second["config"])["attempt"], json.loads(second["summaryMetrics"])["state"]) == (1, "DONE")
    assert (first["state"], second["state"]) == ("finished", "finished")

    same(load_wandb(f"{ENTITY}/p"), load_runs(tmp_path / "outputs"))


def test_offline_files_hold_what_w_and_bs_own_reader_finds(stub: Stub, tmp_path: Path) -> None:
    config = resolved(curriculum=LINEAR, tracking={"mode": "wandb_offline"})
    run = recorded(tmp_path / "outputs", config)
    mirrored(run, config)
    same(load_wandb_dir(run.wandb), load_runs(tmp_path / "outputs"))

    for path in sorted(run.wandb.glob("offline-run-*/*.wandb")):
        leet = Path(sys.executable).with_name("wandb")
        printed = subprocess.run([leet, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in printed.stdout.splitlines()]
        theirs = [line["history"]["item"] for line in lines if line["type"] == "history"]
        about = next(line["run"] for line in lines if line["type"] == "run")
        ours, note = read_file(path)
        assert ours is not None
        assert not note
        assert (ours.id, ours.group, ours.job_type) == (about["run_id"], about["run_group"], about["job_type"])
        assert dict(ours.config) == {k: v for k, v in about["config"]["update"].items() if k != "_wandb"}
        assert [{k: "NaN" if v != v else v for k, v in row.items()} for row in ours.rows] == theirs


def two_runs(stub: Stub) -> None:
    stub.add("p", "b", evaluations([5.0, 4.0, 3.0, 2.0]), config=OTHERS, group="a")
    stub.add("p", "c", evaluations([5.0, 3.0, 1.0, 0.5]), config=OTHERS | {"curriculum": "cl"}, group="a")


def test_a_project_becomes_a_report(stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    two_runs(stub)
    stub.add("p", "d", evaluations([5.0, 1.0]), config=OTHERS | {"curriculum": "x"}, group="b")
    assert main(["report", "--wandb", f"{ENTITY}/p", "--filter", '{"group": "a"}']) == 0
    assert "cl at batch 16, LR 1e-3 needed 51% fewer tokens and 51% less time" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert (tmp_path / "p_report" / "report.html").exists()
    assert [v["filters"] for name, v in stub.asked if name == "Runs"] == ['{"group": "a"}']


def test_history_in_exported_files_and_live_is_one(stub: Stub) -> None:
    """The service keeps old rows in Parquet files, and what came since apart."""
    two_runs(stub)
    stub.runs[ENTITY, "p"]["b"]["exported"] = 2
    runs = load_wandb(f"{ENTITY}/p")
    assert runs.curve("b")["val_loss"].tolist() == [5.0, 4.0, 3.0, 2.0]
    assert savings(runs)["token_saving"].tolist() == [pytest.approx(0.5, abs=1e-12)]


def test_a_history_with_missing_rows_is_said(stub: Stub) -> None:
    two_runs(stub)
    stub.runs[ENTITY, "p"]["b"]["kept_back"] = 2
    missing, shorter = load_wandb(f"{ENTITY}/p").notes
    assert missing == "b: W&B returned 2 of 4 rows."
    assert "Token budgets differ" in shorter


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (f"{ENTITY}/none", "no such project, or the key may not see it; check entity and project"),
        ("someone/p", "no such project, or the key may not see it"),
        ("p", "--wandb p: give ENTITY/PROJECT"),
        (f"{ENTITY}/q", "history of its runs: no column 'val_loss' (or val_ppl); it has acc; name yours"),
        (f"{ENTITY}/empty", f"W&B {ENTITY}/empty: no runs yet"),
    ],
)
def test_what_is_wrong_with_a_project_is_one_line(
    stub: Stub, capsys: pytest.CaptureFixture[str], where: str, said: str
) -> None:
    two_runs(stub)
    stub.add("q", "e", [{"acc": 0.5}], config=OTHERS)
    stub.runs[ENTITY, "empty"] = {}
    assert main(["report", "--wandb", where]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("fault", ["down", "silent", "refused", "key"])
def test_a_service_that_does_not_serve_is_one_line_in_seconds(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    two_runs(stub)
    said = "the key is not accepted"
    if fault == "key":
        stub.status = 401
    else:
        monkeypatch.setattr(wandb_online, "_ANSWER_S", 2)  # nobody answers, however long one waits
        said = "no answer within 2 s; check the network"
    if fault == "down":
        stub.status = 500
    elif fault == "silent":
        stub.silent.set()
    elif fault == "refused":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        said = "no connection to http://127.0.0.1:9 (Connection refused); check the network"
    started = time.monotonic()
    assert main(["report", "--wandb", f"{ENTITY}/p"]) == 2
    assert time.monotonic() - started < 60  # W&B's own client goes on for minutes
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_history_that_never_comes_is_one_line(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    two_runs(stub)
    monkeypatch.setattr(wandb_online, "_HISTORY_S", 1)
    stub.held_back = "RunParquetHistory"
    with pytest.raises(wandb_online.UserError, match=r"run 'b': no answer within 1 s; check the network"):
        load_wandb(f"{ENTITY}/p")


def test_without_a_key_it_says_so(stub: Stub) -> None:
    """In a process of its own: a session keeps the key that it once had."""
    environment = {k: v for k, v in os.environ.items() if k not in ("WANDB_API_KEY", "NETRC")}
    command = [sys.executable, "-m", "analysis", "report", "--wandb", f"{ENTITY}/p"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd=Path(__file__).parents[3],
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: W&B {ENTITY}/p: no key; set WANDB_API_KEY or run `wandb login`"
