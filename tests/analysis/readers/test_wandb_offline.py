"""W&B's files: the framing, our own mirror read back as the records, and what others logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import Runs, load_runs
from analysis.__main__ import main
from analysis.readers import wandb_log
from analysis.readers.wandb_offline import load_wandb_dir
from cl_bench.errors import UserError
from cl_bench.runs.paths import SweepDir, sweeps_of, write_atomic
from tests.analysis.tables import savings
from tests.analysis.wandb_files import framed, logged, recorded, wandb_file
from tests.conftest import LINEAR, resolved

OTHERS = {"curriculum": "baseline", "global_batch_size": 16, "lr": 1e-3, "seed": 1}


def evaluations(losses: list[float]) -> list[dict[str, Any]]:
    return [{"consumed_tokens": 1000 * i, "train_seconds": 10.0 * i, "val_loss": v} for i, v in enumerate(losses)]


def same(ours: Runs, theirs: Runs) -> None:
    """Both readers give the same frames."""
    for frame in ("runs", "train", "evals", "attempts"):
        pd.testing.assert_frame_equal(getattr(ours, frame), getattr(theirs, frame), check_exact=True)
    assert ours.configs == theirs.configs


# --- the framing


@pytest.mark.parametrize("sizes", [[0], [10, 20], [32754], [32755, 1], [32750, 5, 5], [100_000, 3], [1] * 9000])
def test_records_of_every_size_come_back(sizes: list[int]) -> None:
    """Across blocks, up to a block's last byte, and where no head fits any more."""
    payloads = [bytes([i % 251]) * size for i, size in enumerate(sizes)]
    assert list(wandb_log.records(framed(payloads), "x")) == payloads


def test_wherever_the_end_is_cut_off_the_whole_records_stay() -> None:
    payloads = [b"a" * 40, b"b" * 50, b"c" * 60]
    data = framed(payloads)
    ends = [7 + 47, 7 + 47 + 57, 7 + 47 + 57 + 67]
    for cut in range(7, len(data)):
        whole = []
        try:
            for payload in wandb_log.records(data[:cut], "x"):
                whole.append(payload)  # noqa: PERF402
        except wandb_log.Torn:
            assert cut not in ends[:-1]
        assert whole == payloads[: sum(cut >= end for end in ends)]


def test_space_that_was_never_written_is_an_end() -> None:
    found = wandb_log.records(framed([b"a" * 40]) + bytes(50_000), "x")
    assert next(found) == b"a" * 40
    with pytest.raises(wandb_log.Torn):
        next(found)


def test_damage_before_the_end_is_refused() -> None:
    data = bytearray(framed([b"a" * 40_000, b"b" * 40_000]))
    data[100] ^= 1
    with pytest.raises(UserError, match="x: damaged at byte 7, before its end"):
        list(wandb_log.records(bytes(data), "x"))
    with pytest.raises(UserError, match=r"not a \.wandb file"):
        list(wandb_log.records(b"SQLite format 3", "x"))


# --- our own runs


def test_the_mirror_reads_back_as_the_records_do(tmp_path: Path) -> None:
    """Two attempts, the second of which restored an earlier step: one clean curve, equal to the last bit."""
    config = resolved(curriculum=LINEAR)
    run = recorded(tmp_path / "outputs", config)
    for number, (columns, rows) in enumerate(logged(run, config)):
        wandb_file(run.wandb, f"w{number}", columns, rows, summary={"state": ["PREEMPTED", "DONE"][number]})
    ours = load_wandb_dir(run.root)
    same(ours, load_runs(tmp_path / "outputs"))
    assert ours.train["step"].tolist() == list(range(1, 9))
    assert ours.train["attempt"].tolist() == [0] * 4 + [1] * 4
    assert ours.evals["step"].tolist() == [0, 2, 4, 6, 8]


def test_a_killed_attempt_is_read_up_to_its_torn_end(tmp_path: Path) -> None:
    config = resolved()
    run = recorded(tmp_path / "outputs", config)
    columns, rows = logged(run, config)[0]
    path = wandb_file(tmp_path / "w", "w0", columns, rows, exit_code=None)
    path.write_bytes(path.read_bytes()[:-20])
    runs = load_wandb_dir(tmp_path / "w")
    assert runs.notes == (f"{path}: its end is cut off; read up to there.",)
    assert runs.runs["state"].tolist() == ["LOST"]
    assert runs.evals["step"].tolist() == [0, 2, 4]  # the last row was the evaluation at step 6
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(UserError, match="holds no W&B runs"):
        load_wandb_dir(tmp_path / "w")


def test_an_attempt_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    config = resolved()
    run = recorded(tmp_path / "outputs", config)
    (columns, rows), (later, more) = logged(run, config)
    wandb_file(tmp_path / "a", "w0", columns, rows)
    wandb_file(tmp_path / "a", "w1", later, more)
    wandb_file(tmp_path / "copy", "w1", later, more)
    runs = load_wandb_dir(tmp_path)
    assert runs.train["step"].tolist() == list(range(1, 9))
    assert runs.notes == (f"{run.run_id}: attempt 1 was logged twice (w1 and w1); the older one is left out.",)


def test_a_runs_sweeps_are_those_whose_manifests_name_it(tmp_path: Path) -> None:
    run = recorded(tmp_path, resolved())
    for name, text in (
        ("mine", json.dumps({"name": "mine", "runs": [{"run_id": run.run_id}]})),
        ("other", json.dumps({"name": "other", "runs": [{"run_id": run.run_id + "0"}]})),
        ("damaged", "{"),
    ):
        write_atomic(SweepDir(tmp_path, name).manifest, text)
    assert sweeps_of(run) == ["mine"]


# --- runs of others


def test_runs_of_others_are_read_by_their_names(tmp_path: Path) -> None:
    """Nested config keys and metrics have dotted names."""

    def rows(losses: list[float]) -> list[dict[str, Any]]:
        found = [
            {"tokens": r["consumed_tokens"], "t": r["train_seconds"], "eval.loss": r["val_loss"]}
            for r in evaluations(losses)
        ]
        return [row for pair in zip(found, [{"train.loss": 1.0}] * len(found), strict=True) for row in pair]

    for name, kind, losses in (("b", "baseline", [5.0, 4.0, 3.0, 2.0]), ("c", "cl", [5.0, 3.0, 1.0, 0.5])):
        wandb_file(tmp_path, name, {"optim": {"lr": 1e-3}, "bs": 16, "seed": 1, "kind": kind}, rows(losses))
    names = {
        "lr": "optim.lr",
        "global_batch_size": "bs",
        "curriculum": "kind",
        "consumed_tokens": "tokens",
        "train_seconds": "t",
        "val_loss": "eval.loss",
    }
    runs = load_wandb_dir(tmp_path, names)
    assert savings(runs)["token_saving"].tolist() == [pytest.approx(0.5, abs=1e-12)]


def test_a_curve_that_ends_in_nan_has_diverged(tmp_path: Path) -> None:
    wandb_file(tmp_path, "b", OTHERS, evaluations([5.0, 4.0, 3.0, 2.0]))
    wandb_file(tmp_path, "c", OTHERS | {"curriculum": "cl"}, evaluations([5.0, 4.0, math.nan]))
    runs = load_wandb_dir(tmp_path)
    assert runs.runs["state"].tolist() == ["DONE", "DIVERGED"]
    assert savings(runs)["note"].tolist() == ["never reached the target; the run diverged"]


def test_runs_without_what_is_needed_are_left_out_and_named(tmp_path: Path) -> None:
    wandb_file(tmp_path, "b", OTHERS, evaluations([5.0, 4.0]))
    wandb_file(tmp_path, "early", OTHERS | {"seed": 2}, [{"acc": 0.5}], exit_code=1)
    wandb_file(tmp_path, "other", {"lr": 1}, evaluations([5.0, 4.0]))
    runs = load_wandb_dir(tmp_path)
    assert runs.notes == (
        "run 'other': no curriculum, global_batch_size, seed in its config; left out.",
        "early: ended before any evaluation; it has no curve.",
    )
    assert runs.runs["state"].tolist() == ["DONE", "FAILED"]


BAD: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
    ({}, [{"acc": 1.0}], "history of its runs: no column 'val_loss' (or val_ppl); it has acc; name yours: --map"),
    ({"lr": None}, evaluations([5.0, 4.0]), "config of its 1 runs: no column 'lr'; it has"),
    ({}, [{"val_loss": 3.0, "train_seconds": 1}], "no column 'consumed_tokens'; it has val_loss, train_seconds"),
    ({}, evaluations([5.0, math.nan, 4.0]), "run 'b', evaluation 2: column 'val_loss' is empty or nan"),
    ({}, evaluations([5.0, 4.0]) * 2, "run 'b', evaluation 3: 'consumed_tokens' goes backwards"),
    (
        {},
        [r for r in evaluations([5.0, 4.0]) for _ in (0, 1)],
        "run 'b', evaluation 2: a second evaluation at 0 tokens",
    ),
    ({}, evaluations([50000.0, 900.0]), "'val_loss' looks like a perplexity"),
]


@pytest.mark.parametrize(("config", "rows", "said"), BAD, ids=[said for _, _, said in BAD])
def test_what_is_wrong_with_runs_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any], rows: list[dict[str, Any]], said: str
) -> None:
    wandb_file(tmp_path, "b", {k: v for k, v in (OTHERS | config).items() if v is not None}, rows)
    assert main(["report", "--wandb-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_empty_folders_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--wandb-dir", str(tmp_path)]) == 2
    assert "no run-*.wandb below it" in capsys.readouterr().err
    assert main(["report", "--wandb-dir", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
