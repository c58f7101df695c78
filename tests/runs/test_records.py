"""Rows survive kills, resumes and compaction; what is read back is one clean curve."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cl_bench.runs import records
from cl_bench.runs.paths import RunDir


def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path, "run")


def train_row(step: int, loss: float = 2.0) -> dict:
    return {
        "step": step,
        "consumed_tokens": step * 10,
        "consumed_samples": step,
        "seqlen": 10,
        "global_batch_size": 1,
        "lr": 1e-3,
        "loss": loss,
        "loss_ratio": None,
        "grad_norm": 1.0,
        "loss_scale": None,
        "train_seconds": step * 0.1,
        "tokens_per_second": 100.0,
    }


def eval_row(step: int, loss: float = 2.0) -> dict:
    return {
        "step": step,
        "consumed_tokens": step * 10,
        "train_seconds": step * 0.1,
        "val_loss": loss,
        "val_ppl": math.exp(loss),
        "eval_seconds": 0.1,
    }


def attempt(run: RunDir, restored: int, steps: range, loss: float = 2.0) -> records.RecordWriter:
    writer = records.RecordWriter(run, records.next_attempt(run))
    writer.write(
        "attempt",
        {
            "restored_step": restored,
            "world_size": 1,
            "host": "h",
            "device": "cpu",
            "started": 1.0,
            "versions": {"torch": "2"},
        },
    )
    if restored == 0:
        writer.write("eval", eval_row(0, 5.0))
    for step in steps:
        writer.write("train", train_row(step, loss))
        if step % 2 == 0:
            writer.write("eval", eval_row(step, loss))
    return writer


def test_read_back(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 5)).close()
    record = records.read(run)
    assert record.train["step"].tolist() == [1, 2, 3, 4]
    assert record.evals["step"].tolist() == [0, 2, 4]
    assert list(record.train.columns) == list(records.TRAIN_COLUMNS)
    assert record.train["adam_var_l1"].isna().all()
    assert record.notes == []


def test_a_later_attempt_replaces_what_it_trained_again(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 8), loss=2.0).close()  # died after step 7
    attempt(run, 4, range(5, 11), loss=3.0).close()  # went on from the save at step 4
    record = records.read(run)
    assert record.train["step"].tolist() == list(range(1, 11))
    assert record.train["loss"].tolist() == [2.0] * 4 + [3.0] * 6
    assert record.evals["step"].tolist() == [0, 2, 4, 6, 8, 10]
    assert record.evals["val_loss"].tolist() == [5.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    assert record.attempts["restored_step"].tolist() == [0, 4]


def test_an_attempt_that_restored_earlier_supersedes_several(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    for restored, steps, loss in ((0, range(1, 6), 1.0), (4, range(5, 9), 2.0), (2, range(3, 7), 3.0)):
        attempt(run, restored, steps, loss).close()
    record = records.read(run)
    assert record.train["step"].tolist() == list(range(1, 7))
    assert record.train["loss"].tolist() == [1.0] * 2 + [3.0] * 4


def test_trained_and_lost_seconds_per_attempt(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 8)).close()  # 7 steps of 0.1 s, the last 3 rolled back; evaluations at 0, 2, 4, 6
    attempt(run, 4, range(0)).close()  # failed at once
    attempt(run, 4, range(5, 11)).close()
    record = records.read(run)
    assert record.attempts["trained_seconds"].tolist() == pytest.approx([0.7, 0.0, 0.6])
    assert record.attempts["lost_seconds"].tolist() == pytest.approx([0.3, 0.0, 0.0])
    assert record.attempts["eval_seconds"].tolist() == pytest.approx([0.4, 0.0, 0.3])
    assert record.lost_seconds == pytest.approx(0.3)
    kept = record.attempts["trained_seconds"] - record.attempts["lost_seconds"]
    assert kept.sum() == pytest.approx(record.train["train_seconds"].iloc[-1])
    records.compact(run)
    pd.testing.assert_frame_equal(records.read(run).attempts, record.attempts)


def test_seconds_lost_by_several_attempts_to_a_later_one(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    for restored, steps in ((0, range(1, 6)), (4, range(5, 9)), (2, range(3, 7))):
        attempt(run, restored, steps).close()
    spent = records.read(run).attempts
    assert spent["trained_seconds"].tolist() == pytest.approx([0.5, 0.4, 0.4])
    assert spent["lost_seconds"].tolist() == pytest.approx([0.3, 0.4, 0.0])  # the second saved nothing that was kept


def test_an_attempt_without_a_known_start_counts_from_its_second_step(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 4, range(5, 8)).close()  # the rows of the first four steps are gone
    assert records.read(run).attempts["trained_seconds"].tolist() == pytest.approx([0.2])


def test_attempts_without_a_hardware_column(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 3)).close()  # its row says none
    assert records.read(run).attempts["hardware"].tolist() == [""]
    records.compact(run)
    pd.read_parquet(run.table("attempt")).drop(columns="hardware").to_parquet(run.table("attempt"))
    assert records.read(run).attempts["hardware"].tolist() == [""]
    named = records.RecordWriter(run, 1)
    row = {"restored_step": 2, "world_size": 1, "host": "h", "device": "cuda:0", "started": 2.0, "versions": {}}
    named.write("attempt", row | {"hardware": "NVIDIA H100 80GB HBM3"})
    named.close()
    assert records.read(run).attempts["hardware"].tolist() == ["", "NVIDIA H100 80GB HBM3"]
    records.compact(run)
    assert records.read(run).attempts["hardware"].tolist() == ["", "NVIDIA H100 80GB HBM3"]


def test_only_a_torn_last_line_is_forgiven(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 4)).close()
    with run.attempt(0).open("a") as file:
        file.write('{"kind": "train", "step": 4, "lo')
    attempt(run, 2, range(3, 5)).close()
    record = records.read(run)
    assert record.train["step"].tolist() == [1, 2, 3, 4]
    assert len(record.notes) == 1
    assert "attempt_000.jsonl: torn last line 7 ignored" in record.notes[0]


@pytest.mark.parametrize("line", ['{"kind": "train", "st', "null", '{"step": 3}', "\x00\x00"])
def test_damage_before_the_end_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 2)).close()
    with run.attempt(0).open("a") as file:
        file.write(line + "\n" + json.dumps({"kind": "train", "attempt": 0, **train_row(2)}) + "\n")
    with pytest.raises(records.RecordError, match=r"attempt_000.jsonl, line 4"):
        records.read(run)


def test_numbers_that_are_not_finite_are_null_and_read_as_nan(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    writer = records.RecordWriter(run, 0)
    writer.write("train", train_row(1, math.nan))
    writer.write("train", train_row(2, math.inf))
    writer.close()
    assert "NaN" not in run.attempt(0).read_text()
    assert records.read(run).train["loss"].isna().all()


def test_compaction_keeps_every_row_and_every_bit(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 8), loss=0.1 + 0.2).close()
    attempt(run, 4, range(5, 11), loss=1 / 3).close()
    before = records.read(run)
    records.compact(run)
    after = records.read(run)
    assert not run.attempts()
    for name in ("train", "evals", "attempts"):
        pd.testing.assert_frame_equal(getattr(before, name), getattr(after, name), check_exact=True)
    assert len(pd.read_parquet(run.table("train"))) == 13  # rolled-back rows are still there, for who asks their cost


def test_jsonl_left_beside_its_tables_is_not_read_twice(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 4)).close()
    kept = run.attempt(0).read_bytes()
    records.compact(run)
    run.attempt(0).write_bytes(kept)  # as if the machine had died before the JSONL was removed
    assert records.read(run).train["step"].tolist() == [1, 2, 3]


def test_a_compacted_run_that_is_trained_on_keeps_its_rows(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 8), loss=2.0).close()
    records.compact(run)
    assert records.next_attempt(run) == 1
    attempt(run, 5, range(6, 10), loss=3.0).close()
    before = records.read(run)
    assert before.train["loss"].tolist() == [2.0] * 5 + [3.0] * 4
    records.compact(run)
    after = records.read(run)
    pd.testing.assert_frame_equal(before.train, after.train)
    assert len(pd.read_parquet(run.table("train"))) == 11


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    attempt(run, 0, range(1, 4)).close()
    records.compact(run)
    run.table("train").write_bytes(b"PAR1 but not really")
    with pytest.raises(records.RecordError, match=r"train.parquet"):
        records.read(run)


def test_kill_loses_no_row(tmp_path: Path) -> None:
    code = (
        "import sys; from cl_bench.runs import records; from cl_bench.runs.paths import RunDir\n"
        "w = records.RecordWriter(RunDir(sys.argv[1], 'run'), 0)\n"
        "step = 0\n"
        "while True:\n"
        "    step += 1; w.write('train', {'step': step, 'consumed_tokens': 1, 'consumed_samples': 1, 'seqlen': 1,"
        " 'global_batch_size': 1}); print(step, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for _ in range(500):
        last = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0].split()
    last = int(rest[-1]) if rest else last
    assert len(records.read(run_dir(tmp_path)).train) >= last


def test_a_full_disk_raises_and_the_rows_before_it_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_dir(tmp_path)
    writer = attempt(run, 0, range(1, 3))
    real = os.write

    def nearly_full(fd: int, data: memoryview) -> int:
        if len(data) < 60:
            raise OSError(28, "No space left on device")
        return real(fd, data[: len(data) - 50])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="No space left"):
        writer.write("train", train_row(3))
    monkeypatch.undo()
    record = records.read(run)
    assert record.train["step"].tolist() == [1, 2]
    assert "torn last line" in record.notes[0]
