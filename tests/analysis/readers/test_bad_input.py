"""Values that cannot be, and text that is not what it seems: one clear line, and nothing written."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis import load_runs
from analysis.__main__ import main
from analysis.figures.curves import length_schedule
from analysis.readers.table import load_table
from cl_bench.runs import status
from cl_bench.runs.paths import RunDir
from tests.analysis.folders import make_run, make_sweep
from tests.analysis.folders import pair as our_pair
from tests.analysis.readers.test_table import curve, pair, written
from tests.analysis.tables import savings

BAD: list[tuple[dict[str, Any], str]] = [
    ({"consumed_tokens": [0.1, 0.2, 0.3, 0.4]}, "line 2: 'consumed_tokens' holds 0.1; give whole tokens, not millions"),
    ({"consumed_tokens": [0, 1, 2, 10**18]}, "line 5: 'consumed_tokens' holds 1e+18; give a number below 2^53"),
    ({"consumed_tokens": [-1, 1, 2, 3]}, "line 2: 'consumed_tokens' holds -1; it counts from 0"),
    ({"train_seconds": [0, None, 2, 3]}, "line 3: column 'train_seconds' is empty or nan; remove or correct the row"),
    ({"val_loss": [5.0, -3.0, 2.0, 1.0]}, "line 3: 'val_loss' holds -3; a loss in nats per token is at least 0"),
    (
        {"val_ppl": [math.exp(5.0), 50.0, math.exp(3.0), math.exp(2.0)]},
        "line 3: 'val_loss' holds 4, perplexity 54.598, and 'val_ppl' 50; give the column that is right",
    ),
    ({"loss": ["x"] * 4}, "line 2: column 'loss' holds 'x'; remove or correct the row"),
    ({"loss": [-1.0] * 4}, "line 2: 'loss' holds -1; it is at least 0"),
    ({"step": [0, 1, 2, 1e20]}, "line 5: 'step' holds 1e+20; its maximum is 2^31 - 1"),
    ({"global_batch_size": 1e30}, "run 'b': global_batch_size is '1e+30'; it must be a whole number of at least 1 and"),
    ({"seed": 1e20}, "run 'b': seed is '1e+20'; it must be a whole number of at least 0 and below 2^53"),
    ({"seed": math.nan}, "run 'b': seed is empty; it must be a whole number of at least 0"),
    ({"world_size": -2}, "run 'b': world_size is '-2'; it must be a whole number of at least 0"),
    ({"world_size": "two"}, "run 'b': world_size is 'two'; it must be"),
    ({"token_budget": -5}, "run 'b': token_budget is '-5'; it must be"),
    ({"token_budget": "lots"}, "run 'b': token_budget is 'lots'; it must be"),
    ({"max_seqlen": -1}, "run 'b': max_seqlen is '-1'; it must be"),
    ({"curriculum": " "}, "run 'b': curriculum is empty; name it, 'baseline' for runs without one"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said for _, said in BAD])
def test_a_value_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    base, other = pair()
    path = written(tmp_path / "curves.csv", base.assign(**change), other)
    assert main(["report", "--table", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_perplexity_beside_its_own_loss_may_be_rounded(tmp_path: Path) -> None:
    base, other = (c.assign(val_ppl=c["val_loss"].map(math.exp).round(2)) for c in pair())
    assert len(load_table(written(tmp_path / "curves.csv", base, other)).runs) == 2


@pytest.mark.parametrize("loss", [0.0, 2.0])
def test_steps_of_unknown_length_make_an_empty_figure(tmp_path: Path, loss: float) -> None:
    path = written(tmp_path / "curves.csv", *(c.assign(loss=loss) for c in pair()))
    runs = load_table(path)
    assert "the sequence lengths are not known" in str(length_schedule(runs.runs, runs.train))
    assert main(["report", "--table", str(path)]) == 0


@pytest.mark.parametrize(("head", "value"), [("", "basé"), ("né", "")])
def test_a_table_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str, value: str) -> None:
    path = tmp_path / "curves.csv"
    table = pair()[0].assign(model=value).rename(columns={"seed": head or "seed"})
    path.write_bytes(table.to_csv(index=False).encode("latin-1"))
    assert main(["report", "--table", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: not UTF-8; save it as UTF-8\n"


def test_curricula_are_compared_with_the_baseline_of_their_variant(tmp_path: Path) -> None:
    """The other baseline is there in half the tokens, so a wrong partner would show."""
    curves = [
        curve(f"{name}{variant}", name, [loss + worse for loss in losses], variant=variant)
        for variant, worse in (("wd0.1", 0.0), ("wd0.01", 1.0))
        for name, losses in (("baseline", [5.0, 4.0, 3.0, 2.0]), ("linear", [5.0, 3.0, 1.0, 0.5]))
    ]
    runs = load_table(written(tmp_path / "curves.csv", *curves))
    saved = savings(runs).set_index("run_id")
    assert saved["baseline_run_id"].to_dict() == {"linearwd0.1": "baselinewd0.1", "linearwd0.01": "baselinewd0.01"}
    assert saved["token_saving"].tolist() == pytest.approx([0.5, 0.5], abs=1e-9)
    assert runs.notes == ("Baselines are of several variants (wd0.1, wd0.01); runs are compared within a variant.",)


def test_a_variant_of_curricula_alone_keeps_its_baseline(tmp_path: Path) -> None:
    base, other = pair()
    runs = load_table(written(tmp_path / "curves.csv", base, other.assign(variant="slow")))
    assert savings(runs)["baseline_run_id"].tolist() == ["b"]


def test_a_baseline_is_known_however_it_is_written(tmp_path: Path) -> None:
    base, other = pair()
    runs = load_table(written(tmp_path / "curves.csv", base.assign(curriculum=" Baseline"), other))
    assert runs.runs["role"].tolist() == ["baseline", "curriculum"]
    assert runs.runs["curriculum"].tolist() == ["baseline", "linear"]


def test_a_learning_rate_that_was_a_float32_is_the_same(tmp_path: Path) -> None:
    base, other = pair()
    runs = load_table(written(tmp_path / "curves.parquet", base.assign(lr=0.0020000000949949026), other))
    assert runs.runs["lr"].tolist() == [2e-3, 2e-3]


def test_names_cannot_command_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, other = pair()
    told = {"run_id": "b\x1b[2J", "variant": "\x9b1m", "model": "m\x07", "loss": 3.0}
    path = written(tmp_path / "curves.parquet", base.assign(**told), other.assign(curriculum="lin\x1b]0;x\x07"))
    runs = load_table(path)
    assert runs.runs["run_id"].tolist() == ["b�[2J", "c"]
    assert set(runs.evals["run_id"]) == {"b�[2J", "c"}
    assert set(runs.train["run_id"]) == {"b�[2J"}
    assert main(["report", "--table", str(path)]) == 0
    shown = capsys.readouterr().out + (tmp_path / "curves_report" / "verdict.json").read_text()
    assert not {"\x1b", "\\u001b", "\x9b", "\x07"} & {c for c in ("\x1b", "\\u001b", "\x9b", "\x07") if c in shown}
    path = written(tmp_path / "bad.parquet", base.assign(**told, val_loss=-1.0))
    assert main(["report", "--table", str(path)]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_names_that_differ_in_control_characters_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, other = pair()
    path = written(tmp_path / "c.parquet", base.assign(run_id="r\x1b"), other.assign(run_id="r\x07"))
    assert main(["report", "--table", str(path)]) == 2
    assert capsys.readouterr().err == "error: run 'r�': another differs in control characters only; rename one\n"


def test_a_comparison_takes_one_run_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(tmp_path / "base.csv", pair()[0])
    both = written(tmp_path / "both.csv", *pair())
    assert main(["compare", str(base), str(both), "--target", "3"]) == 2
    assert capsys.readouterr().err == f"error: {both}: holds 2 runs; give one run's curve\n"


@pytest.mark.parametrize("command", ["report", "figures"])
def test_a_folder_that_cannot_be_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    path = written(tmp_path / "curves.csv", *pair())
    monkeypatch.chdir(tmp_path)
    assert main([command, "--table", str(path), "--out", ""]) == 2
    assert "error: --out: an empty path; give a folder" in capsys.readouterr().err
    assert main([command, "--table", str(path), "--out", str(path)]) == 2
    assert capsys.readouterr().err == f"error: --out {path}: is a file; give a folder\n"
    assert list(tmp_path.iterdir()) == [path]
    assert main([command, "--help"]) == 0
    assert "NAME_report beside any other" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("state", "kept"), [("DONE", "copy"), ("FAILED", "original")])
def test_an_experiment_counts_once_under_whatever_names(tmp_path: Path, state: status.State, kept: str) -> None:
    """A copied folder is no further seed; of two that finished the last counts."""
    base, curriculum = our_pair(tmp_path, [5.0, 4.0, 2.0], [5.0, 3.0, 1.0])
    copy = RunDir(tmp_path, f"{curriculum.run_id}_again")
    shutil.copytree(curriculum.root, copy.root)
    status.write(copy, status.read(copy), state=state)
    runs = load_runs(tmp_path)
    names = {"copy": copy.run_id, "original": curriculum.run_id}
    (other,) = names.keys() - {kept}
    assert set(runs.runs["run_id"]) == {base.run_id, names[kept]}
    assert set(runs.configs) == set(runs.runs["run_id"])
    assert runs.notes == (f"{names[other]}: the same experiment, seed and all, as {names[kept]}; left out.",)


def test_names_of_our_own_sweeps_cannot_command_a_terminal(tmp_path: Path) -> None:
    run = make_run(tmp_path, [5.0, 4.0, 2.0])
    sweep = make_sweep(tmp_path, [run])
    manifest = {"name": "s\x1b", "question": "why\x07?", "runs": [{"run_id": run.run_id, "curriculum": "c\x9b"}]}
    (sweep / "manifest.json").write_text(json.dumps(manifest))
    runs = load_runs(sweep)
    assert (runs.name, runs.question, runs.runs["curriculum"].tolist()) == ("s�", "why�?", ["c�"])
