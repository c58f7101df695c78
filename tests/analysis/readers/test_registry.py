"""The registry of readers: a new reader is one module and one entry; its options, report folder and errors follow."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest

from analysis import commands
from analysis.__main__ import main
from analysis.readers import source
from analysis.readers.reader import Option
from tests.analysis.folders import make_run, make_sweep

READER = '''
"""A reader of files with one perplexity per line, one evaluation per million tokens."""

from pathlib import Path

import pandas as pd

from analysis.readers import tidy
from analysis.readers.reader import Option, Reader, folder_beside


def load(location, seconds=1.0):
    table = pd.read_csv(location, sep=" ", names=["baseline", "linear"])
    evals = pd.concat(
        pd.DataFrame({"run_id": name, "consumed_tokens": 1e6 * table.index, "val_loss": table[name]})
        for name in table
    ).reset_index(drop=True)
    evals["train_seconds"] = evals["consumed_tokens"] / 1e6 * seconds
    names = list(table)
    facts = pd.DataFrame({"run_id": names, "curriculum": names, "global_batch_size": 8, "lr": 1e-3, "seed": 1})
    return tidy.tidy("lines", Path(location), facts, evals)


READER = Reader(
    Option("lines", "FILE", "instead: perplexities of a baseline and a curriculum, in columns"),
    load,
    {"seconds": Option("seconds", "N", "seconds of training per line", parse=float)},
    lambda location: folder_beside(location, "lines"),
)
'''


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader in a temporary package, registered, and a file for it."""
    package = tmp_path / "my_readers"
    package.mkdir()
    (package / "lines.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source, "READERS", (*source.READERS, importlib.import_module("my_readers.lines").READER))
    path = tmp_path / "curves.txt"
    path.write_text("5 5\n4 3\n2 1\n")
    return path


def test_a_new_reader_is_one_module_and_one_entry(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--lines", str(lines), "--seconds", "30"]) == 0
    out = capsys.readouterr().out
    assert str(lines.parent / "lines_report" / "report.html") in out
    table = pd.read_csv(lines.parent / "lines_report" / "savings.csv")
    # The baseline ends at 2 after 2M tokens; the curriculum passes 2 halfway between 3 (1M) and 1 (2M).
    assert table["token_saving"].tolist() == pytest.approx([0.25])
    assert main(["report", "--help"]) == 0
    assert "--lines FILE" in capsys.readouterr().out


def test_evaluations_need_no_seconds(lines: Path) -> None:
    module = lines.parent / "my_readers" / "no_clock.py"
    module.write_text(READER.replace('evals["train_seconds"]', 'evals["unused"]'))
    runs = importlib.import_module("my_readers.no_clock").load(lines)
    assert runs.evals["train_seconds"].isna().all()


def test_its_options_are_checked_like_the_others(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--table", "x.csv", "--seconds", "3"]) == 2
    assert capsys.readouterr().err == "error: --seconds: goes with --lines only\n"
    assert main(["report", "--table", "x.csv", "--lines", str(lines)]) == 2
    assert "error: --table and --lines are both given; give one of outputs/sweeps/NAME, " in capsys.readouterr().err


def test_options_are_plain_data() -> None:
    options = source.options()
    flags = [o.flag for o in options]
    readers = len(source.READERS)
    assert flags[:5] == ["outputs/sweeps/NAME", "--table", "--wandb-dir", "--wandb", "--tensorboard"]
    assert flags[readers : readers + 4] == ["--map", "--baseline", "--filter", "--runs"]
    assert flags[-1] == "--out"
    assert Option("wandb-dir", "FOLDER", "…").key == "wandb_dir"
    for command in (commands.report, commands.figures):
        with command.make_context(command.name, []) as context:
            assert {o.key: context.params[o.key] for o in options} == dict.fromkeys(o.key for o in options)


def test_the_command_reads_the_same_again(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "my outputs", [make_run(tmp_path / "my outputs", [5.0, 4.0, 2.0])])
    found = source.read_values({"folder": folder, "out": tmp_path / "here", "price": 3.0})
    assert found.command == f"cl-bench report '{folder}' --out {tmp_path}/here"
    assert (found.out, found.outputs) == (tmp_path / "here", tmp_path / "my outputs")
    assert source.of_folder(folder).out == folder
    assert source.of_folder(tmp_path / "my outputs").outputs == tmp_path / "my outputs"
