"""A report that follows a sweep: written while runs are at work, quiet where nothing moved, final in the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import watch
from analysis.__main__ import main
from analysis.readers.source import of_folder
from analysis.report import Options
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir, SweepDir
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep


def evaluate(run: RunDir, tokens: int, loss: float) -> None:
    writer = records.RecordWriter(run, 0)
    row = {"step": tokens // 1000, "consumed_tokens": tokens, "train_seconds": tokens / 100}
    writer.write("eval", {**row, "val_loss": loss, "val_ppl": math.exp(loss)})
    writer.close()


def test_it_is_written_while_runs_are_at_work_and_once_more_in_the_end(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 4, 2], curriculum=BASELINE)
    late = make_run(tmp_path, [5, 3], curriculum=LINEAR, state="PENDING")
    folder = make_sweep(tmp_path, [base, late])
    pages: list[str] = []
    said: list[str] = []

    def nothing() -> None:
        pass

    def evaluated() -> None:
        evaluate(late, 2000, 1.0)

    def finished() -> None:
        status.write(late, status.Status(), state="DONE")

    happens: list[Callable[[], None]] = [nothing, evaluated, finished]

    def sleep(seconds: float) -> None:
        assert seconds >= 5  # between two looks
        pages.append(SweepDir.at(folder).report.read_text())
        happens.pop(0)()

    written = watch.watch(lambda: of_folder(folder), Options(), 5, said.append, sleep)
    assert happens == []
    # Written at the first look and after the evaluation, not at the look in between.
    assert len(said) == 2
    assert "1 of 2 runs over, 1 at work" in said[0]
    assert all('<meta http-equiv="refresh" content="5">' in page for page in pages)
    assert "Still running: 1 of 2 runs have ended." in pages[0]
    last = written.path.read_text()
    assert 'http-equiv="refresh"' not in last
    assert "Still running" not in last
    assert written.verdict["cells"][0]["final_token_saving"] == pytest.approx(1 - 1500 / 2000)


def test_it_waits_for_the_first_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path, [], curriculum=BASELINE, state="RUNNING")
    folder = make_sweep(tmp_path, [run])
    status.write(run, status.Status(), state="PENDING")
    said: list[str] = []

    def sleep(seconds: float) -> None:
        assert not SweepDir.at(folder).report.exists()
        evaluate(run, 10, 5.0)
        status.write(run, status.Status(), state="DONE")

    watch.watch(lambda: of_folder(folder), Options(), 5, said.append, sleep)
    assert said == ["1 of 1 runs at work, no evaluation yet"]
    assert SweepDir.at(folder).report.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["FOLDER", "--watch", "0"], "--watch 0: seconds between two updates, from 2 to 3600"),
        (["--table", "curves.csv", "--watch"], "--watch: goes with outputs/sweeps/NAME or outputs only"),
        (["FOLDER", "--watch"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    filled = [a.replace("FOLDER", str(tmp_path / "nothing")) for a in arguments]
    assert main(["report", *filled]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
