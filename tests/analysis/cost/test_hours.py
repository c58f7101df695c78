"""Known answers for costs: rank-hours, lost attempts, money; on the page and from the command line."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import figures, load_runs
from analysis.__main__ import main
from analysis.cost import hours
from analysis.page import cost as page_cost
from analysis.page import html
from cl_bench.runs.paths import SweepDir, TuneDir, write_atomic
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep
from tests.analysis.spending import H100, cost_of, make_search, pair_by_hand, tuned_sweep
from tests.analysis.synthetic import make_report
from tests.conftest import resolved


def test_rank_hours_of_a_run_with_three_attempts_by_hand(tmp_path: Path) -> None:
    found = cost_of(pair_by_hand(tmp_path), price=2.5)
    base, run = found.runs.sort_values("role").to_dict("records")
    assert (base["rank_hours"], base["lost_rank_hours"], base["attempts"]) == (pytest.approx(40 / 3600), 0, 1)
    assert run["attempts"] == 3
    assert run["rank_hours"] == pytest.approx(2 * 30 / 3600)
    assert run["lost_rank_hours"] == pytest.approx(2 * 6 / 3600)  # steps 5 to 10 of the first attempt
    assert run["eval_rank_hours"] == pytest.approx(2 * 1.5 / 3600)
    assert run["money"] == pytest.approx(2.5 * 2 * (30 + 6 + 1.5) / 3600)
    assert run["rank_hours_to_target"] == pytest.approx(2 * 25 / 3600)
    assert run["saving_alone"] == pytest.approx(1 - 2 * 25 / 40)  # 37% of the seconds, on twice the ranks: a cost
    assert run["saving_counted"] == pytest.approx(1 - 2 * (25 + 6) / 40)
    assert run["unlike"] == "2 ranks against 1 rank"
    (cell,) = found.cells
    assert cell["saving_alone"] == pytest.approx(-0.25)
    assert cell["saved_rank_hours"] == pytest.approx((40 - 50) / 3600)
    assert cell["saved_rank_hours_counted"] == pytest.approx((40 - 62) / 3600)
    assert cell["break_even"] is None  # nothing was tuned
    totals = found.totals.set_index("method")
    assert totals.loc["fixed_linear", "lost"] == pytest.approx(12 / 3600)
    assert totals.loc["baseline", "training"] == pytest.approx(40 / 3600)
    assert "1 of 2 runs took more than one attempt; 1 of them rolled back and trained again." in found.notes
    assert found.unit.word == "rank-minutes"


def test_a_failed_run_is_lost_as_a_whole(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 2], train_losses=[2.0] * 36, curriculum=BASELINE)
    failed = make_run(tmp_path, [5], train_losses=[2.0] * 18, curriculum=LINEAR, state="FAILED")
    found = cost_of(load_runs(make_sweep(tmp_path, [base, failed])))
    totals = found.totals.set_index("method")
    assert totals.loc["fixed_linear", ["training", "lost"]].tolist() == [0.0, pytest.approx(18 / 3600)]
    assert found.cells[0]["saving_alone"] is None
    assert found.notes[-1].startswith("1 run failed or was lost and not taken up again")


def test_curves_of_other_sources_know_no_attempts(tmp_path: Path) -> None:
    runs = pair_by_hand(tmp_path)
    runs = dataclasses.replace(
        runs, runs=runs.runs.assign(world_size=[4, 0]), attempts=pd.DataFrame(columns=["run_id"])
    )
    found = cost_of(runs)
    assert found.runs["rank_hours"].tolist() == pytest.approx([4 * 40 / 3600, math.nan], nan_ok=True)
    assert math.isnan(found.runs["saving_alone"].iloc[1])
    assert any("attempts are not known" in note for note in found.notes)


@pytest.mark.parametrize(
    ("devices", "word"),
    [
        (["cuda:0", "cuda:3"], "GPU-hour"),
        (["cuda:0", "cpu"], "rank-hour"),
        (["cpu", "cpu"], "rank-hour"),
        (["cuda:0", ""], "rank-hour"),
    ],
)
def test_hours_are_named_by_what_they_are(tmp_path: Path, devices: list[str], word: str) -> None:
    runs = pair_by_hand(tmp_path)
    device_of = dict(zip(runs.runs["run_id"], devices, strict=True))
    attempts = runs.attempts.assign(device=runs.attempts["run_id"].map(device_of))
    # What hardware is called does not make it a GPU.
    found = cost_of(dataclasses.replace(runs, runs=runs.runs.assign(hardware="AMD EPYC 7B13"), attempts=attempts))
    assert found.unit.hour_word == word
    assert cost_of(dataclasses.replace(runs, attempts=attempts.iloc[:0])).unit.hour_word == "rank-hour"


def test_a_run_that_has_not_started_has_no_clock(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 2], train_losses=[2.0] * 36, curriculum=BASELINE)
    pending = make_run(tmp_path, [5], curriculum=LINEAR, state="PENDING")
    pending.attempt(0).unlink()
    found = cost_of(load_runs(make_sweep(tmp_path, [base, pending])))
    assert found.runs["rank_hours"].tolist() == [pytest.approx(0.01), 0.0]
    assert found.runs["unlike"].tolist() == ["", ""]
    assert page_cost.clocks_in_words(found.runs) == "The run that has started: 1 rank of cpu, fp32."
    assert page_cost.clocks_in_words(found.runs.iloc[1:]) == "No run has started yet."


# --- the page, the table and the command line -------------------------------------------------------------------------


def test_bars_of_hours_add_up() -> None:
    totals = pd.DataFrame(
        [["baseline", "baseline", 2.0, 0.5, 0.0, 0.0], ["linear", "curriculum", 1.0, 0.5, 0.25, 0.75]],
        columns=["method", "role", "training", "evaluation", "lost", "tuning"],
    )
    figure = figures.hours_spent(totals, "GPU-minutes", 60.0)
    by_row: dict[float, float] = {}
    for trace in figure["data"]:
        by_row[trace["y"][0]] = by_row.get(trace["y"][0], 0.0) + trace["x"][0]
    assert by_row == {1: 150.0, 0: 150.0}
    assert sum(t["showlegend"] for t in figure["data"]) == 4
    assert figure["layout"]["meta"]["table"]["rows"][1] == ["linear", 1.0, 0.5, 0.25, 0.75]
    json.dumps(figure, allow_nan=False)


def test_the_section_names_clocks_and_escapes_them() -> None:
    report = make_report(seeds=1)
    runs = report.runs.assign(hardware=[H100, "<b>A100"] * (len(report.runs) // 2))
    found = hours.cost(runs, report.train, report.attempts, report.savings, price=0.0)
    text = html.render("cost.html.jinja", cost=page_cost.section(found))
    assert "Runs by clock: 4 on 1 rank of" in text
    assert "<b>A100" not in text
    assert "&lt;b&gt;A100" in text
    assert "Money: 0 per rank-hour." in text


def test_report_counts_tuning_and_money(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tuned_sweep(tmp_path)
    make_search(tmp_path, resolved(curriculum=LINEAR))
    assert main(["report", str(folder), "--price", "2.5", "--tuning", "mine"]) == 0
    assert "its tuning is paid back after 3 runs" in " ".join(capsys.readouterr().out.split())
    out = SweepDir.at(folder)
    table = pd.read_csv(out.cost)
    assert list(table.columns) == list(hours.RUN_COST_COLUMNS)
    assert table["saving_counted"].dropna().tolist() == pytest.approx([-0.625, -0.625])
    assert table["money"].iloc[0] == pytest.approx(2.5 * 40 / 3600)
    html = out.report.read_text()
    assert "--price 2.5 --tuning mine" in html
    assert "Tuning mine: 2 probes" in html
    assert json.loads(out.verdict.read_text())["cost"]["cells"][0]["break_even"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--price", "-1"], "--price -1: must be a finite price"),
        (["--price", "nan"], "--price nan: must be"),
        (["--price", "inf"], "--price inf: must be"),
        (["--tuning", "mine,other"], "--tuning other: no search of that name"),
        (["--tuning", "broken"], "search.json: not the record of a search"),
    ],
)
def test_bad_prices_and_searches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    folder = tuned_sweep(tmp_path)
    make_search(tmp_path, resolved(curriculum=LINEAR))
    write_atomic(TuneDir(tmp_path, "broken").search, '{"probes": 3}')
    assert main(["report", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
