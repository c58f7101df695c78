"""Known answers: crossings, savings, cells, stability, verdicts; and the command line on good and bad input."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import crossing, load_runs
from analysis.__main__ import main
from analysis.compare import compare
from analysis.schema import NoRunsError
from analysis.stats.crossings import saving
from analysis.stats.pairs import best_baseline_point
from analysis.stats.stability import stability
from analysis.words import amount
from cl_bench.errors import UserError
from cl_bench.runs import records
from cl_bench.runs.paths import SweepDir
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep, pair
from tests.analysis.tables import cells, savings, verdict

# --- targets ----------------------------------------------------------------------------------------------------------


def test_crossing_interpolates_loss_over_tokens() -> None:
    # 4 -> 3 -> 1 at 0, 100, 200 tokens; 2 is half way between the last two.
    found = crossing([0, 100, 200], [0.0, 10.0, 30.0], [4.0, 3.0, 1.0], 2.0)
    assert (found.tokens, found.seconds) == (150.0, 20.0)
    first = crossing([0, 100, 200], [0.0, 10.0, 30.0], [4.0, 3.0, 1.0], 2.0, method="first")
    assert (first.tokens, first.seconds) == (200.0, 30.0)


def test_crossing_takes_the_first_of_several() -> None:
    assert crossing([0, 1, 2, 3], [0, 1, 2, 3], [4, 2, 3, 1], 2.0).tokens == 1.0
    assert crossing([0, 1, 2, 3], [0, 1, 2, 3], [4, 2, 3, 1], 1.5).tokens == 2.75


def test_never_reached_is_bounded_by_how_far_it_got() -> None:
    found = crossing([0, 100], [0, 9], [4.0, 3.0], 2.9)
    assert not found.reached
    assert (found.tokens, found.seconds, found.tokens_bound, found.seconds_bound) == (None, None, 100, 9)


def test_a_curve_that_begins_below_the_target_is_there_at_once() -> None:
    assert crossing([50, 100], [5, 10], [1.0, 0.5], 2.0).tokens == 50


def test_what_is_not_a_number_is_never_at_the_target() -> None:
    assert not crossing([0, 1], [0, 1], [math.nan, math.nan], 2.0).reached
    after_nan = crossing([0, 1, 2], [0, 1, 2], [4.0, math.nan, 1.0], 2.0)
    assert after_nan.tokens == 2.0  # nothing to interpolate from


@given(
    st.lists(st.floats(0.1, 9.9), min_size=2, max_size=20),
    st.floats(0.5, 9.5),
)
def test_interpolated_is_never_later_than_first_and_within_its_bracket(losses: list[float], target: float) -> None:
    tokens = np.arange(len(losses)) * 10.0
    exact, first = (crossing(tokens, tokens, losses, target, m) for m in ("interpolate", "first"))  # type: ignore[arg-type]
    assert exact.reached == first.reached
    if first.tokens:
        assert exact.tokens is not None
        assert first.tokens - 10 <= exact.tokens <= first.tokens


def test_saving() -> None:
    assert saving(63.0, 100.0) == pytest.approx(0.37)
    assert saving(130.0, 100.0) == pytest.approx(-0.3)
    assert saving(None, 100.0) is None
    assert saving(1.0, 0.0) is None


# --- savings ----------------------------------------------------------------------------------------------------------


def test_saving_of_a_pair_by_hand(tmp_path: Path) -> None:
    # The baseline ends at loss 2 after 4,000 tokens. The curriculum passes 2 between 2,000 (2.5) and 3,000 (1.5).
    runs = load_runs(make_sweep(tmp_path, pair(tmp_path, [5, 4, 3, 2.5, 2], [5, 3, 2.5, 1.5, 1.2])))
    (row,) = savings(runs).to_dict("records")
    assert row["reached"]
    assert row["tokens_to_target"] == pytest.approx(2500)
    assert row["baseline_tokens"] == 4000
    assert row["token_saving"] == pytest.approx(1 - 2500 / 4000)
    assert row["time_saving"] == pytest.approx(1 - 25 / 40)
    assert row["target_ppl"] == pytest.approx(math.exp(2))
    (cell,) = cells(runs)
    assert cell["final_token_saving"] == pytest.approx(0.375)
    assert (cell["reached"], cell["of"], cell["final_token_saving_low"]) == (1, 1, None)


def test_a_given_target(tmp_path: Path) -> None:
    runs = load_runs(make_sweep(tmp_path, pair(tmp_path, [5, 4, 3, 2.5, 2], [5, 3, 2.5, 1.5, 1.2])))
    (row,) = savings(runs, target_ppl=math.exp(3)).to_dict("records")
    assert (row["tokens_to_target"], row["baseline_tokens"]) == (pytest.approx(1000), pytest.approx(2000))
    with pytest.raises(UserError, match=r"no baseline reached it \(the best got to perplexity 7.39\)"):
        savings(runs, target_ppl=math.exp(1.9))


def test_never_stays_never_and_is_counted(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2], [5, 4.5, 4, 3.5], seed=1) + pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=2)
    runs = load_runs(make_sweep(tmp_path, made))
    table = savings(runs)
    assert table["reached"].tolist() == [False, True]
    assert math.isnan(table["token_saving"][0])
    assert table["token_saving_bound"][0] == 0.0  # it used the baseline's whole budget: it saved nothing, or less
    (cell,) = cells(runs)
    assert (cell["reached"], cell["of"]) == (1, 2)
    assert cell["final_token_saving"] is None
    assert cell["final_time_saving"] is None
    assert "never reached the target" in cell["note"]


def test_seeds_are_paired_and_summarised_on_the_log(tmp_path: Path) -> None:
    made = []
    for seed, half in ((1, 2000), (2, 1000)):  # the curriculum is at the target after 2,000 and 1,000 of 4,000 tokens
        made += [
            make_run(tmp_path, [5, 4, 3, 2.5, 2], curriculum=BASELINE, seed=seed),
            make_run(tmp_path, [5, 2, 1], tokens=[0, half, 4000], curriculum=LINEAR, seed=seed),
        ]
    (cell,) = cells(load_runs(make_sweep(tmp_path, made)))
    # ratios 1/2 and 1/4: geometric mean sqrt(1/8)
    assert cell["final_token_saving"] == pytest.approx(1 - math.sqrt(1 / 8))
    # half width on the log: t(0.975, 1) = 12.7062 times sd/sqrt(2) = log(2)/2
    half_width = 12.706204736 * math.log(2) / 2
    assert cell["final_token_saving_low"] == pytest.approx(1 - math.exp(math.log(math.sqrt(1 / 8)) + half_width))
    assert cell["final_token_saving_high"] == pytest.approx(1 - math.exp(math.log(math.sqrt(1 / 8)) - half_width))
    assert len(cell["run_ids"]) == len(cell["baseline_run_ids"]) == 2


def test_against_the_best_baseline_of_the_grid(tmp_path: Path) -> None:
    worse = pair(tmp_path, [5, 4, 3, 2.5], [5, 4, 2.5, 2.4], optim={"lr": 1e-3})
    better = pair(tmp_path, [5, 3, 2.5, 2.0], [5, 2.5, 2, 1.5], optim={"lr": 4e-3})
    runs = load_runs(make_sweep(tmp_path, worse + better))
    assert best_baseline_point(runs.runs[runs.runs["role"] == "baseline"]) == (8, 4e-3)
    table = savings(runs)
    assert table["best_baseline_run_id"].nunique() == 1
    assert table["vs_best_reached"].tolist() == [False, True]
    assert table["vs_best_token_saving"][1] == pytest.approx(1 - 2000 / 3000)
    assert [c["vs_best_token_saving"] for c in cells(runs)] == [None, pytest.approx(1 - 2000 / 3000)]


def test_runs_of_other_settings_are_not_compared(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 4, 2], curriculum=BASELINE, model={"dropout": 0.1})
    cl = make_run(tmp_path, [5, 3, 1], curriculum=LINEAR)
    (row,) = savings(load_runs(make_sweep(tmp_path, [base, cl]))).to_dict("records")
    assert row["baseline_run_id"] is None
    assert "no baseline of the same batch" in row["note"]


def test_a_diverged_baseline_is_no_target(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 4, 300.0], curriculum=BASELINE, state="DIVERGED")
    cl = make_run(tmp_path, [5, 3, 1], curriculum=LINEAR)
    runs = load_runs(make_sweep(tmp_path, [base, cl]))
    (cell,) = cells(runs)
    assert cell["final_token_saving"] is None
    assert "the baseline diverged" in cell["note"]
    answer = verdict(runs)
    json.dumps(answer, allow_nan=False)
    assert "the baseline diverged" in answer["headline"][0]


# --- stability --------------------------------------------------------------------------------------------------------


def test_stability_by_hand(tmp_path: Path) -> None:
    # ratios to the smallest before: -, 0.5, 1.25, 3, 1.6
    base = make_run(tmp_path, [5, 2], train_losses=[4, 2, 2.5, 6, 3.2], curriculum=BASELINE)
    calm = make_run(tmp_path, [5, 2], train_losses=[4, 3, 2], curriculum=LINEAR, state="DIVERGED")
    table = stability(load_runs(make_sweep(tmp_path, [base, calm])))
    assert table["max_loss_ratio"].tolist() == [3.0, 0.75]
    assert table["steps_above_1_2"].tolist() == [3, 0]
    assert table["steps_above_1_5"].tolist() == [2, 0]
    assert table["diverged"].tolist() == [False, True]
    assert table["steps"].tolist() == [5, 3]


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_the_verdict_says_a_cost_as_readily_as_a_saving(tmp_path: Path) -> None:
    saved = pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], optim={"lr": 4e-3})
    cost = pair(tmp_path, [5, 4, 3, 2.2], [5, 4.5, 4, 3, 2.2], optim={"lr": 8e-3})
    runs = load_runs(make_sweep(tmp_path, saved + cost))
    answer = verdict(runs)
    assert answer["cells"][0]["token_saving"] > 0 > answer["cells"][1]["token_saving"]
    assert re.search(r"\d+% more to \d+% fewer tokens and \d+% more to \d+% less time in 2 cells", answer["sentence"])
    assert answer["target_ppl"] == pytest.approx(math.exp(2))
    assert "One seed: no interval." in answer["caveats"][0]


def test_amounts_in_words() -> None:
    assert amount(0.37, "tokens") == "37% fewer tokens"
    assert amount(-0.3, "time") == "30% more time"
    assert amount(0.001, "tokens") == "0.1% fewer tokens"
    assert amount(0.0001, "tokens") == "as many tokens"


def test_a_target_above_the_untrained_model_saves_nothing(tmp_path: Path) -> None:
    runs = load_runs(make_sweep(tmp_path, pair(tmp_path, [5, 4, 2], [5, 3, 1])))
    (cell,) = cells(runs, target_ppl=1000)
    assert cell["final_token_saving"] is None
    assert "before training" in cell["note"]
    json.dumps(verdict(runs, 1000), allow_nan=False)


def test_a_cell_without_a_baseline_names_none(tmp_path: Path) -> None:
    made = [*pair(tmp_path, [5, 4, 2], [5, 3, 1]), make_run(tmp_path, [5, 2], curriculum=LINEAR, global_batch_size=4)]
    table = cells(load_runs(make_sweep(tmp_path, made)))
    assert [len(c["baseline_run_ids"]) for c in table] == [1, 0]


def test_several_settings_have_no_best_baseline_in_common(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 2], [5, 3, 1]) + pair(tmp_path, [5, 4, 3], [5, 3, 2], model={"n_layers": 3})
    runs = load_runs(make_sweep(tmp_path, made))
    answer = verdict(runs)
    assert answer["target_ppl"] is None
    assert [c["of"] for c in answer["cells"]] == [1, 1]


def test_a_cell_with_a_lost_seed_is_not_the_best_baseline(tmp_path: Path) -> None:
    made = [
        make_run(tmp_path, [5, 1], curriculum=BASELINE, optim={"lr": 8e-3}, seed=1),
        make_run(tmp_path, [5, 9], curriculum=BASELINE, optim={"lr": 8e-3}, seed=2, state="DIVERGED"),
        *(make_run(tmp_path, [5, 2], curriculum=BASELINE, seed=s) for s in (1, 2)),
    ]
    assert best_baseline_point(load_runs(make_sweep(tmp_path, made)).runs) == (8, 2e-3)


def test_verdicts_of_incomplete_sweeps(tmp_path: Path) -> None:
    only_base = load_runs(make_sweep(tmp_path, [make_run(tmp_path, [5, 2], curriculum=BASELINE)], "a"))
    assert "no curriculum run" in verdict(only_base)["sentence"]
    only_cl = load_runs(make_sweep(tmp_path, [make_run(tmp_path, [5, 2], curriculum=LINEAR)], "b"))
    assert "no baseline in this grid" in verdict(only_cl)["sentence"]
    made = [
        make_run(tmp_path, [5, 4], curriculum=BASELINE, state="RUNNING", seed=3),
        make_run(tmp_path, [5, 2], curriculum=LINEAR, seed=3),
    ]
    running = load_runs(make_sweep(tmp_path, made, "c"))
    answer = verdict(running)
    assert "No baseline has finished yet" in answer["sentence"]
    assert "Not finished: 1 lost." in answer["caveats"]


# --- loading ----------------------------------------------------------------------------------------------------------


def test_different_experiments_of_one_name_are_told_apart(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 4, 2], curriculum=BASELINE)
    short = make_run(tmp_path, [5, 3, 1], curriculum=LINEAR)
    long = make_run(tmp_path, [5, 3, 1], curriculum=LINEAR | {"duration": 0.8})
    longer = pair(tmp_path, [5, 4, 2], [5, 3, 1], token_budget=40_000)
    for name, runs in (("a", [base, short]), ("b", [base, long]), ("c", longer)):
        make_sweep(tmp_path, runs, name)
    loaded = load_runs(tmp_path)
    table = cells(loaded)
    assert [c["of"] for c in table] == [1, 1, 1]
    assert len({(c["curriculum"], c["variant"]) for c in table}) == 3


def test_custom_schedules_of_one_function_are_told_apart_and_equal_ones_are_not(tmp_path: Path) -> None:
    custom = {"name": "custom", "schedule": "custom", "function": "tests.schedules.test_seqlen.sawtooth"}
    made = [make_run(tmp_path, [5, 4, 2], curriculum=BASELINE, seed=s) for s in (1, 2)]
    made += [make_run(tmp_path, [5, 3, 1], curriculum=custom | {"function_args": {"width": w}}) for w in (10, 20)]
    made += [make_run(tmp_path, [5, 3, 1], curriculum=LINEAR, seed=s) for s in (1, 2)]
    make_sweep(tmp_path, made[:5], "a")  # the last run stands in no sweep
    table = cells(load_runs(tmp_path))
    assert sorted(c["of"] for c in table) == [1, 1, 2]
    assert next(c for c in table if c["of"] == 2)["curriculum"] == "fixed_linear"


def test_the_report_on_all_runs_stays_in_their_folder(tmp_path: Path) -> None:
    outputs = tmp_path / "deep" / "outputs"
    pair(outputs, [5, 2], [5, 1])
    assert main(["report", str(outputs)]) == 0
    assert (outputs / "report.html").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]


def test_a_damaged_configuration_costs_its_run_only(tmp_path: Path) -> None:
    made = [*pair(tmp_path, [5, 4, 2], [5, 3, 1]), *(make_run(tmp_path, [5, 2], seed=s) for s in (7, 8, 9))]
    made[2].config.write_text("")
    made[3].config.write_bytes(b"\xff\xfe")
    made[4].config.write_text("model: [")
    runs = load_runs(make_sweep(tmp_path, made))
    assert len(runs.runs) == 2
    assert sum("left out" in n for n in runs.notes) == 3


def test_load_runs_of_an_outputs_folder(tmp_path: Path) -> None:
    pair(tmp_path, [5, 2], [5, 1])
    runs = load_runs(tmp_path)
    assert sorted(runs.runs["curriculum"]) == ["baseline", "fixed_linear"]
    assert set(runs.evals["run_id"]) == set(runs.runs["run_id"])
    assert len(savings(runs)) == 1


def test_compacted_runs_read_the_same(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 2], [5, 3, 1])
    folder = make_sweep(tmp_path, made)
    before = savings(load_runs(folder))
    for run in made:
        records.compact(run)
    pd.testing.assert_frame_equal(savings(load_runs(folder)), before)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 2], [5, 3, 1])
    lost = make_run(tmp_path, [5, 2], curriculum=BASELINE, seed=9)
    folder = make_sweep(tmp_path, [*made, lost])
    lost.config.unlink()
    with made[0].attempt(0).open("a") as file:
        file.write('{"kind": "ev')
    notes = load_runs(folder).notes
    assert any("torn last line" in n for n in notes)
    assert any("left out" in n for n in notes)


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_folder_without_runs(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "nothing"
    if what == "empty":
        (folder / "runs").mkdir(parents=True)
    with pytest.raises(NoRunsError):
        load_runs(folder)


# --- the command line -------------------------------------------------------------------------------------------------


def test_report_writes_page_tables_and_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_sweep(tmp_path, pair(tmp_path, [5, 4, 3, 2.5, 2], [5, 3, 2.5, 1.5, 1.2]))
    assert main(["report", str(folder)]) == 0
    out = SweepDir.at(folder)
    answer = json.loads(out.verdict.read_text())
    assert answer["sentence"] in " ".join(capsys.readouterr().out.split())
    assert {"sentence", "target_ppl", "cells"} <= set(answer)
    needed = {
        "curriculum",
        "global_batch_size",
        "lr",
        "run_ids",
        "baseline_run_ids",
        "reached",
        "of",
        "token_saving",
        "time_saving",
        "token_saving_low",
        "token_saving_high",
        "time_saving_low",
        "time_saving_high",
    }
    assert needed <= set(answer["cells"][0])
    assert pd.read_csv(out.savings)["token_saving"].tolist() == [pytest.approx(0.375)]
    assert len(pd.read_csv(out.stability)) == 2
    page = out.report.read_text()
    assert re.search(r"needed \d+% fewer tokens", page)
    assert all(sentence in page for sentence in answer["headline"])


def test_a_torn_line_is_read_and_said_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pair(tmp_path, [5, 4, 2], [5, 3, 1])
    with made[1].attempt(0).open("a") as file:
        file.write('{"kind": "eval", "va')
    folder = make_sweep(tmp_path, made)
    assert main(["report", str(folder)]) == 0
    assert "torn last line" in capsys.readouterr().out
    assert "torn last line" in SweepDir.at(folder).report.read_text()


def csv_file(path: Path, losses: list[object], loss_column: str = "val_loss", **columns: list[object]) -> Path:
    table = {
        "consumed_tokens": [1000 * i for i in range(len(losses))],
        "train_seconds": [2.0 * i for i in range(len(losses))],
        loss_column: losses,
    }
    pd.DataFrame(table | columns).to_csv(path, index=False)
    return path


def test_compare_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = csv_file(tmp_path / "b.csv", [5, 4, 3, 2])
    cl = csv_file(tmp_path / "c.csv", [math.exp(x) for x in (5, 3, 2.5, 1)], "val_ppl")
    assert main(["compare", str(base), str(cl), "--target", "2.25", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    # baseline: 2,750 tokens; curriculum: from 2.5 at 2,000 to 1 at 3,000: 2,000 + 0.25/1.5 x 1,000
    assert result["baseline_tokens_to_target"] == pytest.approx(2750, rel=1e-12)
    assert result["tokens_to_target"] == pytest.approx(2000 + 1000 / 6, rel=1e-12)
    assert result["token_saving"] == pytest.approx(1 - (2000 + 1000 / 6) / 2750, abs=1e-9)
    assert result["time_saving"] == pytest.approx(result["token_saving"], abs=1e-9)
    assert main(["compare", str(base), str(cl), "--target", "2.25"]) == 0
    assert "The curriculum needed 21% fewer tokens and 21% less time." in capsys.readouterr().out


def test_compare_never_reached_is_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, cl = csv_file(tmp_path / "b.csv", [5, 4, 3, 2]), csv_file(tmp_path / "c.csv", [5, 4, 3.5])
    assert main(["compare", str(base), str(cl), "--target", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["reached"], result["token_saving"], result["token_saving_bound"]) == (False, None, 0.0)


BAD_CURVES = [
    ({"consumed_tokens": None}, "no column 'consumed_tokens'; it has train_seconds, val_loss"),
    ({"val_loss": None}, "no column 'val_loss' (or val_ppl)"),
    ({"val_loss": [5, math.nan, 3]}, "line 3: column 'val_loss' is empty or nan"),
    ({"val_loss": [5, "high", 3]}, "line 3: column 'val_loss' holds 'high'"),
    ({"consumed_tokens": [0, 2000, 1000]}, "line 4: 'consumed_tokens' goes backwards"),
    ({"consumed_tokens": [-5, 1000, 2000]}, "'consumed_tokens' holds -5; it counts from 0"),
    ({"val_loss": [5, 4, 2.5]}, "the baseline never reached it (its lowest val_loss is 2.5)"),
]


@pytest.mark.parametrize(("change", "said"), BAD_CURVES, ids=[said for _, said in BAD_CURVES])
def test_bad_curves_are_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, list[object] | None], said: str
) -> None:
    table = pd.read_csv(csv_file(tmp_path / "b.csv", [5, 4, 1]))
    for column, values in change.items():
        table = table.drop(columns=column) if values is None else table.assign(**{column: values})
    table.to_csv(tmp_path / "b.csv", index=False)
    cl = csv_file(tmp_path / "c.csv", [5, 3, 1])
    assert main(["compare", str(tmp_path / "b.csv"), str(cl), "--target", "2"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_files_that_are_not_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = csv_file(tmp_path / "c.csv", [5, 3, 1])
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("consumed_tokens,train_seconds,val_loss\n")
    (tmp_path / "wide.csv").write_text("consumed_tokens,train_seconds,val_loss\n7,0,0,5\n8,10,1,4\n")
    (tmp_path / "semicolons.csv").write_text("\ufeffconsumed_tokens;train_seconds;val_loss\n0;0;5\n")
    for name, said in (
        ("wide.csv", "Expected 3 columns, got 4"),
        ("semicolons.csv", "no column 'consumed_tokens'"),
        ("no.csv", "no such file"),
        ("empty.csv", "not a CSV"),
        ("head.csv", "holds no evaluation"),
    ):
        assert main(["compare", str(tmp_path / name), str(good), "--target", "2"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere"], "nowhere: no such folder"),
        (["report", "."], "neither a sweep (manifest.json) nor an outputs folder"),
        (["report", "s", "--target", "1.5"], "no baseline reached it"),
        (["report", "s", "--target", "-3"], "a perplexity is a number above 1"),
    ],
)
def test_bad_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    folder = make_sweep(tmp_path / "outputs", pair(tmp_path / "outputs", [5, 4, 2], [5, 3, 1]))
    monkeypatch.chdir(tmp_path)
    assert main([str(folder) if a == "s" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_damaged_records_and_manifests_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pair(tmp_path, [5, 4, 2], [5, 3, 1])
    folder = make_sweep(tmp_path, made)
    lines = made[0].attempt(0).read_text().splitlines()
    made[0].attempt(0).write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    assert main(["report", str(folder)]) == 2
    assert "line 2" in capsys.readouterr().err
    SweepDir.at(folder).manifest.write_text("{")
    assert main(["report", str(folder)]) == 2
    assert "not a manifest" in capsys.readouterr().err


def test_compare_takes_the_frames_of_a_notebook() -> None:
    base = pd.DataFrame({"consumed_tokens": [0, 10], "train_seconds": [0.0, 1.0], "val_loss": [3.0, 1.0]})
    faster = base.assign(train_seconds=[0.0, 0.5])
    result = compare(base, faster, 2.0)
    assert (result["token_saving"], result["time_saving"]) == (0.0, 0.5)
