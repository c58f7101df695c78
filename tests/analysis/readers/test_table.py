"""Tables of curves: known answers, and one line for each thing that is wrong with one."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import load_runs
from analysis.__main__ import main
from analysis.readers.table import load_table
from tests.analysis.folders import BASELINE, make_run, make_sweep
from tests.analysis.tables import savings
from tests.conftest import LINEAR

DATA = Path(__file__).parents[1] / "data"


def curve(run_id: str, curriculum: str, losses: list[float], **facts: Any) -> pd.DataFrame:
    """One run's evaluations, one per 1,000 tokens and 10 seconds."""
    steps = range(len(losses))
    return pd.DataFrame(
        {
            "run_id": run_id,
            "curriculum": curriculum,
            "global_batch_size": 16,
            "lr": 2e-3,
            "seed": 1,
            "consumed_tokens": [1000 * i for i in steps],
            "train_seconds": [10.0 * i for i in steps],
            "val_loss": losses,
        }
        | facts
    )


def written(path: Path, *curves: pd.DataFrame) -> Path:
    """The curves as a file."""
    table = pd.concat(curves, ignore_index=True)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def pair() -> list[pd.DataFrame]:
    """A baseline that ends at 2, and a curriculum that is there after half of its last interval."""
    return [curve("b", "baseline", [5.0, 4.0, 3.0, 2.0]), curve("c", "linear", [5.0, 3.0, 1.0, 0.5])]


@pytest.mark.parametrize("name", ["curves.csv", "curves.parquet"])
def test_a_table_becomes_a_report_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = written(tmp_path / name, *pair())
    assert main(["report", "--table", str(path)]) == 0
    out = tmp_path / "curves_report"
    assert f"report  {out / 'report.html'}" in capsys.readouterr().out
    tables = {"savings", "savings_by_target", "stability", "frontier", "correlation", "cost"}
    assert {p.name for p in out.iterdir()} == {"report.html", "verdict.json", *(f"{name}.csv" for name in tables)}
    # baseline: 2 nats at 3,000 tokens; curriculum: from 3 at 1,000 to 1 at 2,000, half way
    saved = json.loads((out / "verdict.json").read_text())["cells"][0]
    assert saved["final_token_saving"] == pytest.approx(0.5, abs=1e-12)
    assert f"cl-bench report --table {path}" in (out / "report.html").read_text()


def test_out_and_target_are_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "curves.csv", *pair())
    assert main(["report", "--table", str(path), "--out", str(tmp_path / "here"), "--target", "20.0"]) == 0
    assert (tmp_path / "here" / "report.html").exists()
    assert "to perplexity 20" in " ".join(capsys.readouterr().out.split())


def test_two_public_curves_give_the_saving_of_a_hand_computation(tmp_path: Path) -> None:
    """AdamH against MuonH, as their authors logged them: data/README.md names the two logs.

    The target is what AdamH had reached at its step 625, 3.99808. MuonH was at 4.19817 at step 250 (217.058 s) and at
    3.99149 at step 375 (235.681 s): 20009/20668 of the way. Every step is 524,288 tokens, so they cancel.
    """
    adamh, muonh = (
        pd.read_csv(DATA / f"modded_nanogpt_{name}.csv").assign(
            run_id=name, curriculum=what, global_batch_size=512, lr=0.018, seed=1, max_seqlen=1024
        )
        for name, what in (("adamh", "baseline"), ("muonh", "muonh"))
    )
    share = Fraction(419817 - 399808, 419817 - 399149)
    assert share == Fraction(20009, 20668)
    tokens = 1 - (250 + 125 * share) / 625
    seconds = 1 - (Fraction("217.058") + share * (Fraction("235.681") - Fraction("217.058"))) / Fraction("99.288")
    assert float(tokens) == pytest.approx(0.406377, abs=1e-7)

    row = savings(load_table(written(tmp_path / "both.csv", adamh, muonh))).iloc[0]
    assert row["token_saving"] == pytest.approx(float(tokens), abs=1e-9)
    assert row["time_saving"] == pytest.approx(float(seconds), abs=1e-9)
    assert row["tokens_to_target"] == pytest.approx(float((250 + 125 * share) * 524288), rel=1e-12)


def test_compare_gives_the_same_hand_computed_saving(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(DATA / f"modded_nanogpt_{name}.csv") for name in ("adamh", "muonh")]
    assert main(["compare", *files, "--target", "3.99808", "--json"]) == 0
    by_hand = 1 - (250 + 125 * Fraction(20009, 20668)) / 625
    assert json.loads(capsys.readouterr().out)["token_saving"] == pytest.approx(float(by_hand), abs=1e-9)


def test_their_names_become_ours(tmp_path: Path) -> None:
    theirs = {"val_loss": "eval/ppl", "lr": "learning_rate", "consumed_tokens": "tokens"}
    table = pd.concat(pair()).assign(val_loss=lambda t: t["val_loss"].map(math.exp)).rename(columns=theirs)
    path = written(tmp_path / "curves.csv", table)
    runs = load_table(path, {"val_ppl": "eval/ppl", "lr": "learning_rate", "consumed_tokens": "tokens"})
    assert savings(runs)["token_saving"].iloc[0] == pytest.approx(0.5, abs=1e-9)


def test_steps_beside_evaluations(tmp_path: Path) -> None:
    """Rows with a training loss are steps; loss ratios are computed, and a run may have steps only."""
    steps = curve("b", "baseline", [math.nan] * 4).assign(
        loss=[4.0, 2.0, 3.0, 1.0], consumed_tokens=[500, 1500, 2500, 2600], train_seconds=[5.0, 15.0, 25.0, 26.0]
    )
    short = curve("c", "linear", [math.nan]).assign(loss=4.0, consumed_tokens=500, train_seconds=5.0)
    runs = load_table(written(tmp_path / "curves.csv", curve("b", "baseline", [5.0, 4.0, 3.0]), steps, short))
    assert runs.train.loc[runs.train["run_id"] == "b", "loss_ratio"].tolist()[1:] == [0.5, 1.5, 0.5]
    assert runs.notes == ("c: ended before any evaluation; it has no curve.",)
    assert savings(runs)["note"].tolist() == ["no evaluation yet"]
    assert runs.runs.set_index("run_id").loc["b", "consumed_tokens"] == 2600


def test_runs_of_other_evaluation_sets_are_not_compared(tmp_path: Path) -> None:
    base, other = pair()
    runs = load_table(written(tmp_path / "c.csv", base.assign(eval_set="wiki"), other.assign(eval_set="books")))
    assert runs.notes == (
        "The runs differ in their evaluation sets: wiki (1 run), books (1 run). Runs of different sets are not "
        "compared.",
    )
    assert savings(runs)["note"].tolist() == ["no baseline of the same batch, learning rate and seed"]


def test_our_own_runs_say_so_too(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 4, 2], curriculum=BASELINE)
    cl = make_run(tmp_path, [5, 3, 1], curriculum=LINEAR, evaluation={"n_blocks": 9})
    (note,) = load_runs(make_sweep(tmp_path, [base, cl])).notes
    assert "7 blocks of 64 tokens (1 run), text 0000000000000000, 9 blocks of 64 tokens (1 run)" in note


def test_a_diverged_run_may_hold_nan(tmp_path: Path) -> None:
    base, other = pair()
    other = other.assign(val_loss=[5.0, 4.0, math.nan, math.nan], state="DIVERGED")
    runs = load_table(written(tmp_path / "c.csv", base.assign(state="finished"), other))
    assert runs.runs["state"].tolist() == ["DONE", "DIVERGED"]
    assert savings(runs)["note"].tolist() == ["never reached the target; the run diverged"]


def test_an_unfinished_double_gives_way(tmp_path: Path) -> None:
    base, other = pair()
    crashed = base.assign(run_id="b0", state="crashed")
    runs = load_table(
        written(tmp_path / "c.csv", crashed, base.assign(state="finished"), other.assign(state="finished"))
    )
    assert runs.runs["run_id"].tolist() == ["b", "c"]
    assert runs.notes == ("b0: failed, and b is the same run finished; left out.",)
    assert set(runs.evals["run_id"]) == {"b", "c"}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lr": None}, "no column 'lr'; it has run_id, curriculum"),
    ({"val_loss": [5.0, math.nan, 3.0, 2.0]}, "line 3: column 'val_loss' is empty or nan; remove or correct the row"),
    ({"val_loss": [5.0, "?", 3.0, 2.0]}, "line 3: column 'val_loss' holds '?'"),
    ({"val_loss": [50000.0, 900.0, 80.0, 20.0]}, "'val_loss' looks like a perplexity (the curve begins at 50000"),
    ({"consumed_tokens": [0, 2000, 1000, 3000]}, "line 4: 'consumed_tokens' goes backwards"),
    ({"consumed_tokens": [0, 1000, 1000, 3000]}, "line 4: a second evaluation at 1,000 tokens"),
    ({"train_seconds": [0, 20, 10, 30]}, "line 4: 'train_seconds' goes backwards"),
    ({"seed": [1, 1, 2, 1]}, "line 4: run 'b' has seed '2', and '1' before"),
    ({"seed": [1.5] * 4}, "run 'b': seed is '1.5'; it must be a whole number of at least 0"),
    ({"lr": [0.0] * 4}, "run 'b': lr is '0'; it must be above 0"),
    ({"state": ["resting"] * 4}, "state 'resting': unknown"),
    ({"run_id": ["b", None, "b", "b"]}, "line 3: no run_id"),
    ({"run_id": ["c"] * 4, "consumed_tokens": [7000, 8000, 9000, 9500]}, "run 'c' has curriculum 'linear', and"),
    (
        {"val_loss": None, "val_ppl": [5.0, 4.0, 3.0, 0.5]},
        "line 5: column 'val_ppl' holds 0.5; a perplexity is at least 1",
    ),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said for _, said in BAD])
def test_what_is_wrong_with_a_table_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    base, other = pair()
    for column, values in change.items():
        base = base.drop(columns=column) if values is None else base.assign(**{column: values})
        if values is None:
            other = other.drop(columns=column)
        elif column not in other:
            other[column] = None if column == "state" else [9.0, 8.0, 7.0, 6.0]
    path = written(tmp_path / "curves.csv", base, other)
    assert main(["report", "--table", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_perplexity_beside_its_loss_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Low perplexities could be losses; the column that they are the exponential of gives them away."""
    both = pd.concat(pair()).assign(
        nats=lambda t: t["val_loss"] / 4, val_loss=lambda t: (t["val_loss"] / 4).map(math.exp)
    )
    assert main(["report", "--table", str(written(tmp_path / "c.csv", both))]) == 2
    assert "'val_loss' is exp('nats'), so it looks like a perplexity; map it" in capsys.readouterr().err


def test_runs_that_are_each_others_double(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, other = pair()
    assert main(["report", "--table", str(written(tmp_path / "c.csv", base, base.assign(run_id="b2"), other))]) == 2
    assert "runs 'b' and 'b2' are both baseline, batch 16, LR 2e-3, seed 1; keep one" in capsys.readouterr().err


def test_a_name_near_the_missing_one_is_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.concat(pair()).rename(columns={"consumed_tokens": "consumed_token"})
    assert main(["report", "--table", str(written(tmp_path / "c.csv", table))]) == 2
    error = capsys.readouterr().err
    assert "no column 'consumed_tokens'" in error
    assert "did you mean 'consumed_token'?; name yours: --map consumed_tokens=THEIRS" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no curves are named; give one of outputs/sweeps/NAME, --table"),
        (["x", "--table", "y.csv"], "outputs/sweeps/NAME and --table are both given"),
        (["x", "--map", "lr=x"], "--map: goes with --table, --wandb-dir, --wandb, --tensorboard only"),
        (["--table", "none.csv"], "none.csv: no such file"),
        (["--table", "none.csv", "--map", "loss_value=x"], "'loss_value' is not one of our columns"),
        (["--table", "none.csv", "--map", "lr"], "--map lr: give ours=theirs"),
        (["--wandb", "a/b", "--filter", "[1]"], "--filter [1]: not an object"),
        (["--wandb", "a/b", "--filter", "{"], "--filter {: not JSON"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_empty_tables_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "c.csv", pair()[0].head(0))
    assert main(["report", "--table", str(path)]) == 2
    assert "holds no rows; give at least one evaluation" in capsys.readouterr().err


def test_names_are_tidied_and_cannot_steer_a_terminal(tmp_path: Path) -> None:
    base, other = pair()
    other = other.assign(curriculum="li\x1b[31mn", lr=np.float32(0.002))
    path = written(
        tmp_path / "curves.parquet",
        base.assign(curriculum=" Baseline"),
        other,
    )
    runs = load_table(path)
    assert runs.runs["curriculum"].tolist() == ["baseline", "li�[31mn"]
    assert savings(runs)["token_saving"].tolist() == [pytest.approx(0.5)]


def test_training_steps_without_lengths_still_make_a_page(tmp_path: Path) -> None:
    path = written(tmp_path / "curves.csv", *(c.assign(loss=[5.0, 4.0, 3.0, 2.0]) for c in pair()))
    assert main(["report", "--table", str(path)]) == 0


def test_hours_are_told_only_where_ranks_are_known(tmp_path: Path) -> None:
    for name, facts in (("without", {}), ("with", {"world_size": 4})):
        path = written(tmp_path / f"{name}.csv", *(c.assign(**facts) for c in pair()))
        assert main(["report", "--table", str(path), "--price", "2"]) == 0
    pages = [(tmp_path / f"{name}_report" / "report.html").read_text() for name in ("without", "with")]
    assert ["The number of ranks is unknown" in page for page in pages] == [True, False]
    assert ['id="hours"' in page for page in pages] == [False, True]
