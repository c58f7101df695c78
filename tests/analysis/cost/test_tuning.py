"""Known answers for tuning: which searches are charged to which runs, and when they are paid back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from analysis import load_runs
from analysis.cost import hours, tuning
from analysis.cost.tuning import Charges, Search
from analysis.page import cost as page_cost
from cl_bench.errors import UserError
from cl_bench.runs import identity
from cl_bench.runs.paths import TuneDir, write_atomic
from cl_bench.tune import record
from cl_bench.tune.probe import Space
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep
from tests.analysis.spending import ASKED, TUNING_HOURS, cost_of, make_search, tuned_sweep
from tests.conftest import resolved


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
    assert hours.caveats(found) == [
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
    assert "never" in str(page_cost.section(found).cells)
    assert hours.caveats(found)[0].endswith("its tuning is never paid back.")
    json.dumps(hours.plain(found), allow_nan=False)


def test_a_damaged_search_costs_the_report_a_note_only(tmp_path: Path) -> None:
    runs = load_runs(tuned_sweep(tmp_path))
    write_atomic(TuneDir(tmp_path, "broken").search, "{")
    (note,) = tuning.charges(runs, tmp_path).notes
    assert "not the record of a search" in note
    with pytest.raises(UserError, match="there are broken"):
        tuning.charges(runs, tmp_path, ["mine"])


def test_settings_of_a_search_are_those_of_a_resolved_run() -> None:
    config = resolved(curriculum=LINEAR)
    settings = record.settings(config, ASKED, Space((8,), (16,)))
    assert Search("t", 8, 16, json.loads(json.dumps(settings)), {}).found(config)
    assert identity.flatten(identity.identity(config))["curriculum.duration"] == 16
