"""Known answers for clocks and cost: unlike runs, rank-hours, money, tuning, throughput."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import clocks, cost, figures, load_runs, page_cost, savings, tuning
from analysis.__main__ import main
from analysis.cost import Cost
from analysis.schema import Runs
from analysis.tuning import Charges, Search
from cl_bench import identity, records, tune_record
from cl_bench.config import RunConfig
from cl_bench.errors import UserError
from cl_bench.paths import RunDir, SweepDir, TuneDir, write_atomic
from cl_bench.tune_config import TuneConfig
from cl_bench.tune_probe import Space
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep
from tests.analysis.synthetic import make_report
from tests.conftest import resolved

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
CPU = "AMD EPYC 7B13, 2 threads"


def clock(hardware: str = H100, world_size: int = 8, precision: str = "bf16") -> dict[str, Any]:
    return {"hardware": hardware, "world_size": world_size, "precision": precision}


# --- clocks that may be compared --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "baseline", "said"),
    [
        (clock(), clock(), ""),
        (clock(), clock(A100), f"on {H100} against {A100}"),
        (clock(world_size=1), clock(), "1 rank against 8 ranks"),
        (clock(precision="fp32"), clock(), "fp32 against bf16"),
        (clock(A100, 4), clock(), f"on {A100} against {H100}; 4 ranks against 8 ranks"),
        (clock(""), clock(""), ""),
        (clock(""), clock(), f"on unknown hardware against {H100}"),
        (clock(world_size=0), clock(), "unknown ranks against 8 ranks"),
        ({}, {}, ""),
        ({"hardware": math.nan, "precision": None}, {}, ""),
        (clock("mixed: A, B"), clock("mixed: A, B"), "on mixed: A, B against mixed: A, B"),
    ],
)
def test_unlike(run: dict[str, Any], baseline: dict[str, Any], said: str) -> None:
    assert clocks.unlike(run, baseline) == said


def clock_rows(*rows: dict[str, Any]) -> pd.DataFrame:
    filled = [{"curriculum": "c", "global_batch_size": 16, "train_seconds": 1.0, **clock(), **row} for row in rows]
    return pd.DataFrame(filled)


def test_warnings_are_grouped_by_name() -> None:
    runs = clock_rows(
        {"run_id": "base"},
        {"run_id": "like"},
        *({"run_id": f"r{i}", "curriculum": f"c{i}", "hardware": A100, "precision": "fp32"} for i in range(5)),
        {"run_id": "pending", "hardware": "", "world_size": 0, "train_seconds": 0.0},
    )
    ids = ["like", *(f"r{i}" for i in range(5)), "pending", "alone"]
    pairs = pd.DataFrame({"run_id": ids, "baseline_run_id": ["base"] * 7 + [None]})
    pairs["best_baseline_run_id"] = pairs["baseline_run_id"]
    first, second = clocks.warnings(runs, pairs)
    assert first == (
        f"Time is compared across hardware in 5 of 6 pairs: c0 b16 on {A100} against {H100}; c1 b16 on {A100} against "
        f"{H100}; c2 b16 on {A100} against {H100}; and 2 more."
    )
    assert second.startswith("Time is compared across precisions in 5 of 6 pairs: c0 b16 fp32 against bf16;")
    assert clocks.warnings(runs, pairs.iloc[:1]) == []


def test_another_best_baseline_is_warned_of_apart() -> None:
    runs = clock_rows({"run_id": "base"}, {"run_id": "run"}, {"run_id": "best", "world_size": 4})
    pairs = pd.DataFrame({"run_id": ["run"], "baseline_run_id": ["base"], "best_baseline_run_id": ["best"]})
    assert clocks.warnings(runs, pairs) == [
        "Time is compared across world sizes in 1 of 1 pairs with the best baseline: c b16 8 ranks against 4 ranks."
    ]


# --- what a run's records say -----------------------------------------------------------------------------------------


def add_attempt(
    run: RunDir, number: int, restored: int, steps: Sequence[int], seconds: Sequence[float] = (), **row: Any
) -> None:
    """A further attempt of a run made by make_run, whose steps take 1 s and 100 tokens."""
    writer = records.RecordWriter(run, number)
    start = {"restored_step": restored, "world_size": 1, "host": "h", "device": "cpu", "started": 0.0, "versions": {}}
    writer.write("attempt", start | row)
    for step, second in zip(steps, seconds or steps, strict=True):
        values = {"step": step, "consumed_tokens": step * 100, "consumed_samples": step, "seqlen": 64}
        writer.write("train", values | {"global_batch_size": 8, "lr": 1.0, "loss": 1.0, "train_seconds": float(second)})
    writer.close()


def row_of(runs: Runs, run: RunDir) -> dict[str, Any]:
    (row,) = runs.runs[runs.runs["run_id"] == run.run_id].to_dict("records")
    return {str(k): v for k, v in row.items()}


def test_hardware_of_a_run_is_that_of_the_attempts_whose_steps_it_kept(tmp_path: Path) -> None:
    old, mixed, steady, spread = (make_run(tmp_path, [5, 2], train_losses=[2.0] * 4, seed=s) for s in (1, 2, 3, 4))
    add_attempt(mixed, 1, 2, [3, 4], device="cuda:0", hardware=H100)
    add_attempt(steady, 1, 0, [1, 2], device="cuda:1", hardware=H100)  # nothing of the first was kept
    add_attempt(steady, 2, 2, [], device="cuda:0", hardware=A100)  # failed at once
    add_attempt(spread, 1, 0, [1, 2], device="cuda:1", hardware=H100, world_size=4)
    add_attempt(spread, 2, 2, [3, 4], device="cuda:1", hardware=H100, world_size=8)
    runs = load_runs(tmp_path)
    assert [row_of(runs, r)["hardware"] for r in (old, mixed, steady, spread)] == [
        "cpu",
        f"mixed: cpu, {H100}",
        H100,
        f"mixed: 4 × {H100}, 8 × {H100}",
    ]


def cost_of(runs: Runs, charges: Charges | None = None, price: float | None = None) -> Cost:
    return cost.cost(runs.runs, runs.train, runs.attempts, savings(runs), charges, price)


def pair_by_hand(outputs: Path) -> Runs:
    """A pair on unlike ranks: the baseline straight through on 1 rank, the curriculum on 2 ranks in three attempts.

    The baseline is at loss 2 after 40 s, the curriculum after 25 s (2,500 tokens). It trained steps 1 to 10, 1 s each,
    went back to 4, failed at once, and trained 5 to 30. Each of its three evaluations took 0.5 s.
    """
    base = make_run(outputs, [5, 4, 3, 2.5, 2], train_losses=[2.0] * 40, curriculum=BASELINE)
    run = make_run(
        outputs,
        [5, 2.5, 1.5],
        tokens=[0, 2000, 3000],
        seconds=[0.0, 20.0, 30.0],
        train_losses=[2.0] * 10,
        curriculum=LINEAR,
    )
    rows = [json.loads(line) for line in run.attempt(0).read_text().splitlines()]
    changed = {"attempt": {"world_size": 2}, "eval": {"eval_seconds": 0.5}, "train": {}}
    run.attempt(0).write_text("".join(json.dumps(row | changed[row["kind"]]) + "\n" for row in rows))
    add_attempt(run, 1, 4, [], world_size=2)
    add_attempt(run, 2, 4, range(5, 31), world_size=2)
    return load_runs(make_sweep(outputs, [base, run]))


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


# --- tuning -----------------------------------------------------------------------------------------------------------

ASKED = TuneConfig(name="mine", starts=(8, 16), low=10, high=40, resolution=2)


def make_search(
    outputs: Path, config: RunConfig, name: str = "mine", duration: int | None = 16, start: int = 8
) -> None:
    """A search on `config` with two probes of 10 s, of which one was recorded on 2 ranks and one is gone."""
    probe = make_run(outputs, [5, 4], train_losses=[2.0] * 10, curriculum=LINEAR, token_budget=4_000)
    rows = [json.loads(line) for line in probe.attempt(0).read_text().splitlines()]
    changed = {"attempt": {"world_size": 2}, "eval": {"eval_seconds": 1.0}, "train": {}}
    probe.attempt(0).write_text("".join(json.dumps(row | changed[row["kind"]]) + "\n" for row in rows))
    probes = [
        {"run_id": probe.run_id, "train_seconds": 10.0, "eval_seconds": 2.0},
        {"run_id": "gone", "train_seconds": 10.0, "eval_seconds": 6.0},
    ]
    settings = tune_record.settings(config, ASKED, Space((8, 16), (10, 12)))
    outcome = {"start": start, "duration": duration} if duration else None
    plain = {"name": name, "settings": settings, "probes": probes, "outcome": outcome}
    write_atomic(TuneDir(outputs, name).search, json.dumps(plain))


TUNING_HOURS = (2 * (10 + 2) + 16) / 3600


def tuned_sweep(outputs: Path) -> Path:
    """Baseline at loss 2 after 40 s, curriculum (resolved: 8 to 64 over 16 steps) after 25 s, two seeds each."""
    made = []
    for seed in (1, 2):
        made.append(make_run(outputs, [5, 4, 3, 2.5, 2], train_losses=[2.0] * 40, curriculum=BASELINE, seed=seed))
        made.append(make_run(outputs, [5, 3, 2.5, 1.5], train_losses=[2.0] * 30, curriculum=LINEAR, seed=seed))
    return make_sweep(outputs, made)


def test_a_search_is_charged_to_the_runs_that_use_what_it_found(tmp_path: Path) -> None:
    folder = tuned_sweep(tmp_path)
    # tuned at another batch and learning rate: the same setting
    make_search(tmp_path, resolved(curriculum=LINEAR, global_batch_size=8, optim={"lr": 1e-3}, seed=9))
    runs = load_runs(folder)
    charges = tuning.charges(runs, tmp_path)
    assert len(charges.by_run) == 2
    assert charges.notes == ("Tuning mine: 2 probes, charged to fixed_linear.",)
    found = cost_of(runs, charges)
    (cell,) = found.cells
    assert cell["tuning_rank_hours"] == pytest.approx(TUNING_HOURS)
    assert cell["saving_alone"] == pytest.approx(1 - 25 / 40)
    # 24 rank-seconds of the recorded probe and 16 of the lost one, in full for each run
    assert cell["saving_counted"] == pytest.approx(1 - (25 + 40) / 40)
    assert cell["break_even"] == 3  # 40 rank-seconds at 15 a run
    assert found.totals.set_index("method").loc["fixed_linear", "tuning"] == pytest.approx(TUNING_HOURS)
    assert cost.caveats(found) == [
        "With rolled-back attempts and tuning counted, fixed_linear at batch 8, LR 2e-3 saved −62% of the rank-hours, "
        "not 38%; its tuning is paid back after 3 runs."
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"curriculum": LINEAR, "token_budget": 30_000},
        {"curriculum": LINEAR, "model": {"dropout": 0.1}},
        {"curriculum": LINEAR | {"schedule": "fixed_root"}},
    ],
    ids=["budget", "model", "schedule"],
)
def test_a_search_in_another_setting_is_said_and_not_counted(tmp_path: Path, other: dict[str, Any]) -> None:
    runs = load_runs(tuned_sweep(tmp_path))
    make_search(tmp_path, resolved(**other))
    charges = tuning.charges(runs, tmp_path)
    assert not charges.by_run
    assert charges.notes[0].startswith("Not counted: the search mine, because no run here has the start length, T")
    assert len(tuning.charges(runs, tmp_path, ["mine"]).by_run) == 2  # unless the user says so


@pytest.mark.parametrize(("start", "duration"), [(16, 16), (8, 18), (8, None)])
def test_a_search_with_another_outcome_is_not_counted(tmp_path: Path, start: int, duration: int | None) -> None:
    runs = load_runs(tuned_sweep(tmp_path))
    make_search(tmp_path, resolved(curriculum=LINEAR), start=start, duration=duration)
    assert not tuning.charges(runs, tmp_path).by_run


def test_a_probe_of_two_searches_is_counted_once() -> None:
    one = Search("one", 8, 16, {}, {"a": 1.0, "b": 2.0})
    two = Search("two", 8, 16, {}, {"b": 2.0, "c": 4.0})
    assert tuning.hours([one, two]) == 7.0
    assert tuning.hours([]) == 0.0


def test_a_tuning_that_is_never_paid_back(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 3, 2], train_losses=[2.0] * 20, curriculum=BASELINE)
    worse = make_run(tmp_path, [5, 4, 3, 2], train_losses=[2.0] * 30, curriculum=LINEAR)
    runs = load_runs(make_sweep(tmp_path, [base, worse]))
    found = cost_of(runs, Charges({worse.run_id: (Search("t", 8, 16, {}, {"p": 1 / 3600}),)}))
    assert found.cells[0]["break_even"] == math.inf
    assert "never" in page_cost.section(found)
    assert cost.caveats(found)[0].endswith("its tuning is never paid back.")
    json.dumps(cost.plain(found), allow_nan=False)


# --- throughput -------------------------------------------------------------------------------------------------------


def train_rows(run_id: str, seqlen: Sequence[int], took: Sequence[float], **columns: Any) -> pd.DataFrame:
    """Steps of 10 sequences."""
    steps = np.arange(1, len(seqlen) + 1)
    rows = {"step": steps, "consumed_tokens": 10 * np.cumsum(seqlen), "seqlen": seqlen, "attempt": 0}
    return pd.DataFrame(rows | {"train_seconds": np.cumsum(took)} | columns).assign(run_id=run_id)


RUNS = pd.DataFrame(
    {
        "run_id": ["a", "b", "c"],
        "role": ["baseline", "curriculum", "curriculum"],
        "curriculum": ["baseline", "linear", "linear"],
        "variant": "",
        "model": "tiny",
        "hardware": "cpu",
        "world_size": 1,
        "global_batch_size": 10,
        "state": "DONE",
        "lr": 1e-3,
        "seed": [1, 1, 2],
    }
)


def test_throughput_by_hand() -> None:
    train = pd.concat(
        [
            train_rows("a", [64, 64, 64], [9.0, 1.0, 3.0]),  # the first step is left out
            train_rows("b", [8, 8, 64, 64], [9.0, 0.5, 2.0, 7.0], attempt=[0, 0, 0, 1]),  # and the one after a restart
            train_rows("c", [8, 8, 64, 64], [9.0, 1.5, 1.0, 1.0]),
        ],
        ignore_index=True,
    )
    table = clocks.throughput(RUNS, train)
    assert table["curriculum"].tolist() == ["baseline", "linear", "linear"]
    assert table["seqlen"].tolist() == [64, 8, 64]
    assert table["steps"].tolist() == [2, 2, 3]
    assert table["tokens_per_second"].tolist() == pytest.approx([1280 / 4, 160 / 2, 1920 / 4])
    figure = figures.throughput_by_length(table)
    assert [t["y"] for t in figure["data"]] == [[320], [80, 480]]
    assert [t["mode"] for t in figure["data"]] == ["markers", "lines+markers"]
    assert figure["layout"]["meta"]["table"]["rows"][1] == ["linear", 10, 8, 2, 80.0]
    json.dumps(figure, allow_nan=False)


def test_throughput_of_curves_that_hold_every_tenth_step() -> None:
    train = train_rows("a", [8, 8, 8, 64, 64], [1.0] * 5).assign(step=[10, 20, 30, 40, 50])
    assert clocks.throughput(RUNS, train)["seqlen"].tolist() == [8, 64]
    assert clocks.throughput(RUNS, train)["steps"].tolist() == [20, 10]  # the length changed somewhere in 30 to 40


def test_throughput_where_there_is_none() -> None:
    train = train_rows("a", [8, 8], [1.0, 0.0])
    for nothing in (train, train.iloc[:0], train.drop(columns="seqlen"), train.assign(train_seconds=math.nan)):
        table = clocks.throughput(RUNS, nothing)
        assert list(table.columns) == list(clocks.THROUGHPUT_COLUMNS)
        assert table.empty
        assert figures.throughput_by_length(table)["data"] == []


def test_stretches_are_found_where_a_run_is_in_pieces() -> None:
    frame = pd.DataFrame({"run_id": ["a", "a", "b", "a"]})
    assert list(clocks.stretches(frame)) == [("a", slice(0, 2)), ("b", slice(2, 3)), ("a", slice(3, 4))]


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
    found = cost.cost(runs, report.train, report.attempts, report.savings, price=0.0)
    html = page_cost.section(found)
    assert "Runs by clock: 4 on 1 rank of" in html
    assert "<b>A100" not in html
    assert "&lt;b&gt;A100" in html
    assert "Money: 0 per rank-hour." in html


def test_report_counts_tuning_and_money(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tuned_sweep(tmp_path)
    make_search(tmp_path, resolved(curriculum=LINEAR))
    assert main(["report", str(folder), "--price", "2.5", "--tuning", "mine"]) == 0
    assert "its tuning is paid back after 3 runs" in " ".join(capsys.readouterr().out.split())
    out = SweepDir.at(folder)
    table = pd.read_csv(out.cost)
    assert list(table.columns) == list(cost.RUN_COST_COLUMNS)
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


def test_a_damaged_search_costs_the_report_a_note_only(tmp_path: Path) -> None:
    runs = load_runs(tuned_sweep(tmp_path))
    write_atomic(TuneDir(tmp_path, "broken").search, "{")
    (note,) = tuning.charges(runs, tmp_path).notes
    assert "not the record of a search" in note
    with pytest.raises(UserError, match="there are broken"):
        tuning.charges(runs, tmp_path, ["mine"])


def test_settings_of_a_search_are_those_of_a_resolved_run() -> None:
    config = resolved(curriculum=LINEAR)
    settings = tune_record.settings(config, ASKED, Space((8,), (16,)))
    assert Search("t", 8, 16, json.loads(json.dumps(settings)), {}).found(config)
    assert identity.flatten(identity.identity(config))["curriculum.duration"] == 16
