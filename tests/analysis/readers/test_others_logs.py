"""Logs shaped as other projects write them: the baseline by name, no seconds, tags by name, unequal budgets."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.readers import tb_events
from analysis.readers.table import load_table
from analysis.readers.tensorboard import load_tensorboard
from tests.analysis.tables import savings
from tests.analysis.wandb_files import wandb_file

DATA = Path(__file__).parents[1] / "data"
NANOGPT = "run_id=run,curriculum=optimizer,consumed_tokens=tokens,val_loss=val/loss,global_batch_size=batch_size"


def nanogpt(path: Path, **columns: Any) -> Path:
    """Two optimizers, two seeds, with nanoGPT's names; loss falls by 1 per 1,000 tokens, lion's by 2."""
    rows = [
        {"run": f"{name}-{seed}", "optimizer": name, "seed": seed, "iter": i, "tokens": 1000 * i, "batch_size": 480}
        | {"lr": 6e-4, "mfu": 0.4, "val/loss": 6.0 - pace * i}
        for name, pace in (("adamw", 1.0), ("lion", 2.0))
        for seed in (1337, 1338)
        for i in range(3)
    ]
    pd.DataFrame(rows).assign(**columns).to_csv(path, index=False)
    return path


def report(tmp_path: Path, *arguments: object) -> int:
    return main(["report", *map(str, arguments), "--out", str(tmp_path / "out")])


def verdict(tmp_path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tmp_path / "out" / "verdict.json").read_text())
    return loaded


def test_the_baseline_is_named(tmp_path: Path) -> None:
    """Upper and lower case are alike; the file's own spelling stays."""
    runs = load_table(nanogpt(tmp_path / "log.csv"), dict(p.split("=") for p in NANOGPT.split(",")), "AdamW")
    assert runs.runs["role"].tolist() == ["baseline"] * 2 + ["curriculum"] * 2
    assert runs.runs["curriculum"].tolist() == ["adamw"] * 2 + ["lion"] * 2
    assert savings(runs)["token_saving"].tolist() == pytest.approx([0.5, 0.5])  # 4.0 after 1,000 tokens, not 2,000


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["no column 'run_id'", "run, optimizer, seed, iter", "--map run_id=THEIRS"]),
        (["--map", NANOGPT], ["it has adamw, lion", "--baseline VALUE"]),
        (["--map", NANOGPT, "--baseline", "adam"], ["--baseline adam", "did you mean 'adamw'?"]),
        (["--map", NANOGPT.replace("optimizer", "optimiser")], ["'optimiser'", "did you mean 'optimizer'?"]),
    ],
)
def test_a_column_or_baseline_that_does_not_fit_is_one_message_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    assert report(tmp_path, "--table", nanogpt(tmp_path / "log.csv"), *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error


def test_a_scheduled_learning_rate_is_told_apart_from_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nanogpt(tmp_path / "log.csv", lr=[1e-4, 6e-4, 3e-4] * 4)
    assert report(tmp_path, "--table", path, "--map", NANOGPT, "--baseline", "adamw") == 2
    assert "its peak" in capsys.readouterr().err


def test_without_seconds_there_are_no_figures_of_time_and_it_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nanogpt(tmp_path / "log.csv")
    assert report(tmp_path, "--table", path, "--map", NANOGPT, "--baseline", "adamw") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert words.count("No training seconds") == 1
    assert "less time" not in words
    assert "more time" not in words
    (cell,) = verdict(tmp_path)["cells"]
    assert cell["final_token_saving"] == pytest.approx(0.5)
    assert {cell[k] for k in cell if "time" in k or "rank_hour" in k} <= {None}
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'data-axis="seconds"' not in page
    assert "time saved (%)" not in page
    assert "No training seconds are recorded" in page
    for table in (tmp_path / "out").glob("*.csv"):
        frame = pd.read_csv(table)
        for column in (c for c in map(str, frame) if "seconds" in c or "time_saving" in c):
            assert frame[column].isna().all(), (table.name, column)
    arguments = ["--table", str(path), "--map", NANOGPT, "--baseline", "adamw", "--out", str(tmp_path / "print")]
    assert main(["figures", *arguments]) == 0
    assert not list((tmp_path / "print").glob("*_time.*"))


def test_two_curves_without_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pace in (("b", 1.0), ("c", 2.0)):
        losses = [6.0 - pace * i for i in range(3)]
        pd.DataFrame({"consumed_tokens": [0, 1000, 2000], "val_loss": losses}).to_csv(tmp_path / name, index=False)
    arguments = ["compare", str(tmp_path / "b"), str(tmp_path / "c"), "--target", "4"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "needed 50% fewer tokens." in out
    assert " s\n" not in out
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["time_saving"], result["seconds_to_target"], result["token_saving"]) == (None, None, 0.5)


def test_published_runs_by_the_name_of_their_optimizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """modded-nanogpt's AdamH against MuonH: three quarters of a minute of compilation apart, and 41% fewer tokens."""
    parts = [
        pd.read_csv(DATA / f"modded_nanogpt_{n}.csv").assign(run_id=n, optimizer=n, seed=1, batch=512, lr=0.018)
        for n in ("adamh", "muonh")
    ]
    pd.concat(parts).to_csv(tmp_path / "log.csv", index=False)
    names = "curriculum=optimizer,global_batch_size=batch"
    assert report(tmp_path, "--table", tmp_path / "log.csv", "--map", names, "--baseline", "adamh") == 0
    assert "muonh" in capsys.readouterr().out
    assert load_table(tmp_path / "log.csv", dict(p.split("=") for p in names.split(",")), "muonh").runs[
        "role"
    ].tolist() == ["curriculum", "baseline"]


def test_budgets_that_differ_are_a_warning_with_both(tmp_path: Path) -> None:
    budgets = [4000] * 6 + [2000] * 6
    names = dict(p.split("=") for p in NANOGPT.split(","))
    (seconds, warning) = load_table(nanogpt(tmp_path / "a.csv", token_budget=budgets), names, "adamw").notes
    assert "seconds" in seconds
    assert "adamw 0.004M, lion 0.002M" in warning
    assert "decay" in warning
    alike = [4000] * 6 + [4010] * 6  # the last step of one goes beyond it
    assert len(load_table(nanogpt(tmp_path / "b.csv", token_budget=alike), names, "adamw").notes) == 1


# --- W&B --------------------------------------------------------------------------------------------------------------


def test_wandb_runs_of_hugging_faces_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its names: eval/loss, train/num_input_tokens_seen; no seconds of training."""
    for name, pace in (("full", 1.0), ("short-first", 2.0)):
        config = {"method": name, "per_device_train_batch_size": 32, "learning_rate": 5e-5, "seed": 42}
        rows = [
            {"eval/loss": 6.0 - pace * i, "train/num_input_tokens_seen": 1000 * i, "eval/runtime": 9.0}
            for i in range(3)
        ]
        wandb_file(tmp_path / "wandb", name, config, rows)
    names = (
        "val_loss=eval/loss,consumed_tokens=train/num_input_tokens_seen,curriculum=method,lr=learning_rate,"
        "global_batch_size=per_device_train_batch_size"
    )
    where = ["--wandb-dir", tmp_path / "wandb", "--map", names]
    assert report(tmp_path, *where) == 2
    assert "it has full, short-first" in capsys.readouterr().err
    assert report(tmp_path, *where, "--baseline", "full") == 0
    assert "short-first" in capsys.readouterr().out
    (cell,) = verdict(tmp_path)["cells"]
    assert (cell["curriculum"], cell["time_saving"]) == ("short-first", None)
    assert report(tmp_path, *where[:3], f"{names},train_seconds=runtime", "--baseline", "full") == 2
    error = capsys.readouterr().err
    assert "no column 'runtime'" in error
    assert "eval/runtime" in error


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def event_file(folder: Path, scalars: dict[str, Sequence[tuple[int, float]]], texts: dict[str, str]) -> None:
    """An event file with (step, value) of each tag and the texts; events are 10 s apart."""
    folder.mkdir(parents=True)
    message = tb_events._event_class()
    events = []
    for name, text in texts.items():
        event = message(wall_time=0.0, step=0)
        event.summary.value.add(tag=f"{name}/text_summary").tensor.string_val.append(text.encode())
        events.append(event)
    for tag, points in scalars.items():
        for step, value in points:
            event = message(wall_time=10.0 * step, step=step)
            event.summary.value.add(tag=tag, simple_value=value)
            events.append(event)
    data = b""
    for event in events:
        payload = event.SerializeToString()
        length = struct.pack("<Q", len(payload))
        crcs = [struct.pack("<I", tb_events._masked_crc(part)) for part in (length, payload)]
        data += length + crcs[0] + payload + crcs[1]
    (folder / "events.out.tfevents.1").write_bytes(data)


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    """Two runs with the tags of Hugging Face's Trainer: evaluated every 2 steps, tokens logged every step."""
    for name, pace in (("full", 0.5), ("short", 1.0)):
        steps = range(1, 5)
        event_file(
            tmp_path / "runs" / name,
            {
                "eval/loss": [(i, 6.0 - pace * i) for i in (2, 4)],
                "train/loss": [(i, 6.0 - pace * i) for i in steps],
                "train/learning_rate": [(i, 5e-5 / i) for i in steps],
                "train/num_input_tokens_seen": [(i, 500.0 * i) for i in steps],
                "seconds": [(i, 3.0 * i) for i in steps],
            },
            {"seed": "42", "batch": "32"},
        )
    (tmp_path / "facts.csv").write_text("run,curriculum\nfull,full\nshort,short\n")
    return tmp_path / "runs"


TRAINER = {
    "val_loss": "eval/loss",
    "loss": "train/loss",
    "consumed_tokens": "train/num_input_tokens_seen",
    "lr": "train/learning_rate",
    "global_batch_size": "batch",
}


def test_tags_are_mapped(trainer: Path, tmp_path: Path) -> None:
    """full: 5 after 1,000 tokens, 4 after 2,000. short: 4 after 1,000."""
    names = TRAINER | {"train_seconds": "seconds"}
    runs = load_tensorboard(trainer, tmp_path / "facts.csv", names, "full")
    assert runs.runs[["lr", "global_batch_size", "seed"]].drop_duplicates().values.tolist() == [[5e-5, 32, 42]]
    assert runs.curve("full")[["consumed_tokens", "train_seconds", "val_loss"]].values.tolist() == [
        [1000, 6.0, 5.0],
        [2000, 12.0, 4.0],
    ]
    assert runs.train.query("run_id == 'short'")["loss"].tolist() == [5.0, 4.0, 3.0, 2.0]
    assert runs.train.query("run_id == 'short'")["consumed_tokens"].tolist() == [500, 1000, 1500, 2000]


def test_a_mapped_perplexity_is_one(trainer: Path, tmp_path: Path) -> None:
    names = {k: v for k, v in TRAINER.items() if k != "val_loss"} | {"val_ppl": "eval/loss"}
    runs = load_tensorboard(trainer, tmp_path / "facts.csv", names, "full")
    assert runs.curve("full")["val_loss"].tolist() == pytest.approx([math.log(5.0), math.log(4.0)])


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ({}, ["lm-loss-validation", "eval/loss", "--map val_loss=TAG"]),
        ({"val_loss": "eval/los"}, ["no column 'eval/los'", "did you mean 'eval/loss'?"]),
        ({"val_loss": "eval/loss"}, ["train/num_input_tokens_seen", "--map consumed_tokens=TAG"]),
        ({"run_id": "seed"}, ["named by its folder"]),
    ],
)
def test_tags_that_do_not_fit_are_one_message_with_the_remedy(
    trainer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: dict[str, str], parts: list[str]
) -> None:
    (tmp_path / "facts.csv").write_text(
        "run,curriculum,lr,global_batch_size,seed\nfull,full,1,1,1\nshort,short,1,1,1\n"
    )
    mapped = ",".join(f"{k}={v}" for k, v in names.items())
    arguments = ["--tensorboard", trainer, "--runs", tmp_path / "facts.csv", "--baseline", "full"]
    assert report(tmp_path, *arguments, *(["--map", mapped] if mapped else [])) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error


def test_the_command_of_a_mapped_report_reads_the_same_again(trainer: Path, tmp_path: Path) -> None:
    mapped = ",".join(f"{k}={v}" for k, v in TRAINER.items())
    arguments = ["--tensorboard", trainer, "--runs", tmp_path / "facts.csv", "--map", mapped, "--baseline", "full"]
    assert report(tmp_path, *arguments) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "--baseline full" in page
    assert "--map val_loss=eval/loss" in page
