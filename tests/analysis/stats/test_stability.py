"""Outcomes in a report: from run folders to the answer, its tables and verdict.json."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import load_runs
from analysis.__main__ import main
from analysis.answer import Answer, Options, analyse
from analysis.stats.outcome import Rules
from cl_bench.runs import unigram
from cl_bench.runs.paths import RunDir, SweepDir
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep

UNIGRAM = 3.312
FALL = [5.5 - 0.1 * i for i in range(30)]


def folders(outputs: Path, *, spikes: bool = False) -> list[RunDir]:
    """A baseline that learns at LR 2e-3 and ends at token frequencies at 8e-3, and a linear one that learns at both.

    All of them are DONE. With `spikes` the baseline at 8e-3 trains above twice its minimum for 20 of 30 steps.
    """
    common = {"global_batch_size": 8, "token_budget": 3000}
    bad = FALL[:10] + [20.0] * 20 if spikes else FALL
    return [
        make_run(outputs, [5.5, 4, 3, 2.5], train_losses=FALL, curriculum=BASELINE, optim={"lr": 2e-3}, **common),
        make_run(outputs, [5.5, 4, 3.5, 3.3], train_losses=bad, curriculum=BASELINE, optim={"lr": 8e-3}, **common),
        make_run(outputs, [5.5, 4, 3, 2.5], train_losses=FALL, curriculum=LINEAR, optim={"lr": 2e-3}, **common),
        make_run(outputs, [5.5, 4, 3, 2.4], train_losses=FALL, curriculum=LINEAR, optim={"lr": 8e-3}, **common),
    ]


def keep_unigram(outputs: Path, runs: list[RunDir]) -> None:
    for config in load_runs(make_sweep(outputs, runs)).configs.values():
        unigram.write(outputs, str(config.data.fingerprint), UNIGRAM)


def answer_of(outputs: Path, runs: list[RunDir], rules: Rules | None = None) -> Answer:
    return analyse(load_runs(make_sweep(outputs, runs)), Options(rules=rules or Rules()))


def test_a_collapse_is_instability_where_the_unigram_level_is_known(tmp_path: Path) -> None:
    runs = folders(tmp_path)
    collapsed = runs[1].run_id
    unknown = answer_of(tmp_path, runs)
    assert {outcome.kind for outcome in unknown.outcomes.values()} == {"learned"}
    assert "could not be applied to these runs" in unknown.rules_sentence
    keep_unigram(tmp_path, runs)
    answer = answer_of(tmp_path, runs)
    assert answer.runs.unigram == dict.fromkeys((run.run_id for run in runs), UNIGRAM)
    assert answer.outcomes[collapsed].kind == "did not learn"
    assert answer.instability.unstable[collapsed] is True
    table = answer.stability.set_index("run_id")
    assert bool(table.loc[collapsed, "unstable"])
    assert not table.loc[collapsed, "diverged"]
    assert "3.31" in str(table.loc[collapsed, "reason"])
    (base,) = answer.frontier.query("role == 'baseline' and along == 'lr' and criterion == 'stable'").to_dict("records")
    assert (base["kind"], base["largest_stable"], base["unstable_from"]) == ("exact", 2e-3, 8e-3)
    (joint,) = answer.instability.joint
    linear = joint.methods[1]
    assert linear.contrast is not None
    assert (linear.contrast.lr_multiple, linear.only_method_stable) == (pytest.approx(4.0), 1)
    off = answer_of(tmp_path, runs, Rules(unigram_margin=None))
    assert off.outcomes[collapsed].kind == "learned"


def test_a_finished_run_that_diverged_by_its_record_counts_as_diverged_everywhere(tmp_path: Path) -> None:
    runs = folders(tmp_path, spikes=True)
    answer = answer_of(tmp_path, runs)
    bad = runs[1].run_id
    assert answer.outcomes[bad].rule == "loss ratio"
    states = answer.runs.runs.set_index("run_id")["state"]
    assert states[bad] == "DIVERGED"
    assert (states.drop(bad) == "DONE").all()
    (cell,) = [c for c in answer.cells if c.cell.lr == 8e-3]
    assert "diverged" in cell.note
    off = answer_of(tmp_path, runs, Rules(loss_ratio=None))
    assert off.runs.runs.set_index("run_id")["state"][bad] == "DONE"


def test_rules_on_the_command_line_reach_the_report_and_its_command(tmp_path: Path) -> None:
    runs = folders(tmp_path, spikes=True)
    folder = make_sweep(tmp_path, runs)
    out = SweepDir.at(folder)
    assert main(["report", str(folder)]) == 0
    verdict = json.loads(out.verdict.read_text())
    assert verdict["outcomes"][runs[1].run_id]["kind"] == "diverged"
    assert verdict["unstable"][runs[1].run_id] is True
    assert main(["report", str(folder), "--rule", "ratio=off", "--rule", "early=0.2"]) == 0
    verdict = json.loads(out.verdict.read_text())
    assert verdict["outcomes"][runs[1].run_id]["kind"] == "learned"
    assert "times its earlier minimum" not in verdict["outcome_rules"]
    page = out.report.read_text()
    assert "--rule ratio=off --rule early=0.2" in page
    assert "above the one it had at 20% of the budget" in page
    assert main(["report", str(folder), "--rule", "ratio=0.5"]) == 2


def test_the_report_carries_every_criterion(tmp_path: Path) -> None:
    runs = folders(tmp_path)
    folder = make_sweep(tmp_path, runs)
    assert main(["report", str(folder)]) == 0
    out = SweepDir.at(folder)
    verdict = json.loads(out.verdict.read_text())
    assert {row["criterion"] for row in verdict["frontier"]} == {"stable", "loss_ratio", "no_events", "useful"}
    responses = {r["role"]: r for r in verdict["lr_responses"]}
    assert (responses["baseline"]["best_lr"], responses["curriculum"]["best_lr"]) == (2e-3, 8e-3)
    assert responses["curriculum"]["shift"] == pytest.approx(4.0)
    # Over both rates: baseline (0 + 0.8) / 2, linear (0.1 + 0) / 2.
    assert responses["baseline"]["sensitivity"] == pytest.approx(0.4)
    assert responses["curriculum"]["sensitivity"] == pytest.approx(0.05)
    (joint,) = verdict["joint_boundaries"]
    assert joint["reference"] == {"global_batch_size": 8, "lr": 2e-3}
    assert len(verdict["instability_events"]) == 2
    table = pd.read_csv(out.stability)
    assert table["useful"].tolist() == [True, False, False, True]  # 2.5 is more than 2% above 2.4
    assert math.isnan(table["spike_score_loss"].iloc[0])
