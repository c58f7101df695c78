"""What is called a difference, what is a bound, and the sentence that says it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from analysis import load_runs
from analysis.__main__ import main
from analysis.answer import analyse
from analysis.stats.intervals import Censored, Estimate
from analysis.stats.loss_difference import LossDifference
from analysis.verdict.amounts import bounded, loss_words, needed
from analysis.verdict.caveats import disagree
from analysis.words import amount, interval, percent
from cl_bench.runs.paths import RunDir
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep, pair
from tests.analysis.tables import cells, savings, verdict

ROOT = {"name": "fixed_root", "schedule": "fixed_root", "min_difficulty": 8, "duration": 0.4, "root_degree": 2}


def seeds_of(outputs: Path, needs: list[int], curriculum: dict[str, object], **config: object) -> list[RunDir]:
    """Baselines that take 4,000 tokens to a loss of 2, and curricula that take 4 times `needs`: in the same proportion
    to any other loss."""
    made = []
    for seed, tokens in enumerate(needs, 1):
        for n, method in ((1000, BASELINE), (tokens, curriculum)):
            at = [0, n, 2 * n, 4 * n]
            made.append(make_run(outputs, [5, 4, 3, 2], tokens=at, curriculum=method, seed=seed, **config))
    return made


def test_calls_are_corrected_for_the_cells_looked_at(tmp_path: Path) -> None:
    # Ratios 0.9, 0.93, 0.88: logs with mean -0.10192 and standard error 0.01601, t = 6.36 on 2 degrees. Alone p is
    # 1 - t / sqrt(2 + t^2) = 0.0239; one of two such cells is not called: Holm doubles the smaller p.
    near = seeds_of(tmp_path, [900, 930, 880], LINEAR)
    same = seeds_of(tmp_path, [900, 930, 870], LINEAR, optim={"lr": 4e-3})
    (alone,) = cells(load_runs(make_sweep(tmp_path, near, "alone")))
    both = cells(load_runs(make_sweep(tmp_path, near + same, "both")))
    assert (alone["difference"], alone["cells_tested"]) == ("saved", 1)
    assert alone["token_p"] == alone["token_p_holm"] == pytest.approx(0.0239, abs=2e-4)
    assert [c["cells_tested"] for c in both] == [2, 2]
    p = [c["token_p"] for c in both]
    assert [c["token_p_holm"] for c in both] == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert [c["difference"] for c in both] == ["saved", "saved"]
    third = seeds_of(tmp_path, [900, 930, 860], LINEAR, optim={"lr": 1e-3})
    three = cells(load_runs(make_sweep(tmp_path, near + same + third, "three")))
    assert [c["difference"] for c in three] == ["undecided"] * 3  # 3 x 0.0239 is above 0.05


def test_a_cost_is_called_as_a_cost_and_noise_is_undecided(tmp_path: Path) -> None:
    # A target that the curriculum reaches late: 2 is where its baseline ended, its own curve takes twice the tokens.
    cost = seeds_of(tmp_path, [2000, 2100, 1900], LINEAR)
    noise = seeds_of(tmp_path, [500, 1400, 1000], ROOT)
    runs = load_runs(make_sweep(tmp_path, cost + noise))
    by_name = {c["curriculum"]: c for c in cells(runs)}
    assert by_name["fixed_linear"]["difference"] == "cost"
    assert by_name["fixed_root"]["difference"] == "undecided"
    answer = verdict(runs)
    sentence = answer["sentence"]
    assert "At batch 8, LR 2e-3" in sentence  # once: both curricula are there
    assert "fixed_linear needed 100% more tokens (95% CI 76–126% more)" in sentence
    first = answer["headline"][0]
    assert "100% more tokens" in first  # a cost is not kept for a later sentence
    assert "fixed_root is undecided: between " in sentence
    assert "Holm over 2 cells, 5%" in sentence


def test_a_bound_is_said_with_who_arrived(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2], [5, 4.5, 4, 3.5], seed=1) + pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=2)
    answer = verdict(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer["cells"]
    # ratios: above 1 and 2/3
    assert cell["final_token_saving_bound"] == pytest.approx(1 - math.sqrt(2 / 3))
    assert (cell["final_censored"], cell["final_token_saving_low"], cell["difference"]) == (
        "at_most",
        None,
        "undecided",
    )
    # As far as both got: the baseline was at 3.5 after 1,500 of the curriculum's 3,000 tokens; the other pair arrived.
    assert cell["both_saving"] == pytest.approx(1 - math.sqrt(2 * 2 / 3))
    assert cell["final_token_saving_high"] > cell["final_token_saving_bound"]
    assert "fixed_linear at batch 8, LR 2e-3 is undecided: between " in answer["sentence"]
    assert any("In 1 cell not every run reached the target" in c for c in answer["caveats"])
    json.dumps(answer, allow_nan=False)


def test_a_given_target_that_a_baseline_missed_is_at_least(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2.5], [5, 3, 2, 1], seed=1) + pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=2)
    answer = verdict(load_runs(make_sweep(tmp_path, made)), target_ppl=math.exp(2))
    (cell,) = answer["cells"]
    assert cell["final_censored"] == "at_least"
    assert cell["final_token_saving_bound"] == pytest.approx(1 / 3)  # 2,000 of more than 3,000, and of 3,000
    assert "needed at least 33% fewer tokens and at least 33% less time (1 of 2 seeds arrived)" in answer["sentence"]


def test_a_curriculum_that_never_arrives_can_be_called_a_cost(tmp_path: Path) -> None:
    # Each is after its 2,000 tokens where its baseline was after 1,000, 950 and 1,050.
    made = []
    for seed, there in ((1, 1000), (2, 950), (3, 1050)):
        made += [
            make_run(tmp_path, [5, 4.6, 3, 2], tokens=[0, there // 2, there, 2000], curriculum=BASELINE, seed=seed),
            make_run(tmp_path, [5, 4.5, 4, 3], tokens=[0, 500, 1000, 2000], curriculum=LINEAR, seed=seed),
        ]
    answer = verdict(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer["cells"]
    assert (cell["final_token_saving"], cell["final_censored"], cell["difference"]) == (None, "at_most", "cost")
    assert cell["both_saving"] == pytest.approx(1 - 2 / (1.0 * 0.95 * 1.05) ** (1 / 3))
    assert re.search(r"needed \d+% more tokens \(95% CI \d+–\d+% more\)", answer["sentence"])
    assert "final loss 1.000 nats higher" in answer["sentence"]


def test_a_curve_that_begins_at_the_target_bounds_the_saving(tmp_path: Path) -> None:
    # First looked at after 500 tokens, and there already; its baseline got there after 1,000.
    base = make_run(tmp_path, [5, 2], tokens=[0, 1000], curriculum=BASELINE)
    early = make_run(tmp_path, [1.9, 1.8], tokens=[500, 1000], curriculum=LINEAR)
    (cell,) = cells(load_runs(make_sweep(tmp_path, [base, early])))
    assert (cell["final_token_saving"], cell["final_censored"], cell["final_token_saving_bound"]) == (
        None,
        "at_least",
        pytest.approx(0.5),
    )
    assert "begins at or below the target" in cell["note"]


def test_a_baseline_that_begins_at_the_target_leaves_nothing_to_compare(tmp_path: Path) -> None:
    base = make_run(tmp_path, [2, 2.5], tokens=[500, 1000], curriculum=BASELINE)
    other = make_run(tmp_path, [5, 2], tokens=[500, 1000], curriculum=LINEAR)
    (cell,) = cells(load_runs(make_sweep(tmp_path, [base, other])))
    assert (cell["final_token_saving"], cell["final_token_saving_bound"]) == (None, None)
    assert "the baseline begins at or below the target" in cell["note"]


def test_the_headline_says_where_a_weaker_baseline_was_beaten(tmp_path: Path) -> None:
    best = [make_run(tmp_path, [5, 2], tokens=[0, 1000], curriculum=BASELINE)]
    made = best + pair(tmp_path, [5, 3.0], [5, 2.0], optim={"lr": 1e-3})
    sentence = verdict(load_runs(make_sweep(tmp_path, made)))["sentence"]
    assert "at batch 8, LR 1e-3" in sentence
    assert ", where the baseline ends at perplexity 20.1 (the best at 7.39)" in sentence


def test_a_running_curriculum_has_not_reached_it_yet(tmp_path: Path) -> None:
    base = make_run(tmp_path, [5, 4, 2], curriculum=BASELINE)
    running = make_run(tmp_path, [5, 4], curriculum=LINEAR, state="PENDING")
    sentence = verdict(load_runs(make_sweep(tmp_path, [base, running])))["sentence"]
    assert "cannot be compared (not evaluated at 80% of the budget yet" in sentence


def test_seeds_without_a_finished_baseline_wait_and_are_counted(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=1)
    made += [
        make_run(tmp_path, [5, 4], curriculum=BASELINE, state="PENDING", seed=2),
        make_run(tmp_path, [5, 2], curriculum=LINEAR, seed=2),
    ]
    answer = verdict(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer["cells"]
    assert (cell["of"], cell["waiting"], cell["final_token_saving"]) == (2, 1, pytest.approx(1 / 3))
    assert any("1 curriculum run cannot be compared yet" in c for c in answer["caveats"])


def test_a_diverged_baseline_takes_its_cells_figure_away(tmp_path: Path) -> None:
    made = pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=1)
    made += [
        make_run(tmp_path, [5, 300], curriculum=BASELINE, state="DIVERGED", seed=2),
        make_run(tmp_path, [5, 2], curriculum=LINEAR, seed=2),
    ]
    (cell,) = cells(load_runs(make_sweep(tmp_path, made)))
    assert (cell["final_token_saving"], cell["final_token_saving_bound"], cell["final_censored"]) == (
        None,
        None,
        "unbounded",
    )
    assert "the baseline diverged" in cell["note"]


def test_rank_hours_count_the_ranks(tmp_path: Path) -> None:
    runs = load_runs(make_sweep(tmp_path, pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1])))
    ranks = runs.runs["role"].map({"baseline": 1, "curriculum": 2})
    runs = dataclasses.replace(runs, runs=runs.runs.assign(world_size=ranks), attempts=runs.attempts.iloc[:0])
    (row,) = savings(runs).to_dict("records")
    assert row["time_saving"] == pytest.approx(1 / 3)
    assert row["rank_hour_saving"] == pytest.approx(1 - 2 * 2 / 3)
    assert row["rank_hours_to_target"] == pytest.approx(2 * 20 / 3600)
    assert row["baseline_rank_hours"] == pytest.approx(30 / 3600)


def test_ways_to_read_a_crossing_are_compared(tmp_path: Path) -> None:
    # The curriculum dips to the baseline's final 2 at 1,000 tokens, and is there for good only at 3,500.
    made = pair(tmp_path, [5, 4, 3, 2.5, 2], [5, 2, 3, 3, 1])
    folder = make_sweep(tmp_path, made)
    answer = verdict(load_runs(folder))
    (cell,) = answer["cells"]
    assert cell["token_saving_interpolate"] == cell["token_saving_first"] == pytest.approx(0.75)
    assert cell["token_saving_sustained"] == pytest.approx(1 - 3500 / 4000)
    assert disagree(analyse(load_runs(folder)).cells[0])
    assert any("how a crossing is read" in c for c in answer["caveats"])
    sustained = verdict(load_runs(folder), method="sustained")
    assert sustained["cells"][0]["final_token_saving"] == pytest.approx(0.125)
    assert main(["report", str(folder), "--crossing", "sustained"]) == 0
    written = json.loads((folder / "verdict.json").read_text())
    assert (written["crossing"], written["cells"][0]["final_token_saving"]) == ("sustained", pytest.approx(0.125))
    assert "--crossing sustained" in (folder / "report.html").read_text()


def test_percent_in_words() -> None:
    assert [percent(v) for v in (0.374, -0.3, -0.0001)] == ["37%", "−30%", "0%"]
    # Below 10% one decimal; 9.96% rounds to 10 and needs none.
    assert [percent(v) for v in (0.0934, 0.07, 0.0996, -0.001)] == ["9.3%", "7.0%", "10%", "−0.1%"]
    assert (amount(0.9999, "tokens"), amount(-0.9999, "tokens")) == ("over 99% fewer tokens", "100% more tokens")


def test_intervals_in_words() -> None:
    assert interval((0.34, 0.43), "tokens") == "34–43%"
    assert interval((-0.63, -0.28), "time") == "28–63% more"
    assert interval((-0.3, 0.86), "tokens") == "30% more to 86% fewer"
    assert interval((-24.0, 0.5), "time") == "25x as much to 50% less"
    assert interval((0.3472, 0.3533), "tokens") == "34.7–35.3%"  # both are 35% in whole numbers
    assert interval((0.069, 0.104), "tokens") == "6.9–10%"


def test_estimates_in_words() -> None:
    saved, cost = Estimate(0.39, 0.34, 0.43, 0.001, "t"), Estimate(-0.44, -0.63, -0.28, 0.001, "t")
    assert needed(saved, "tokens") == "39% fewer tokens (95% CI 34–43%)"
    assert needed(cost, "tokens", name_interval=False) == "44% more tokens (28–63% more)"
    unclear = Estimate(0.57, -0.3, 0.86, 0.06, "t")
    assert needed(unclear, "tokens") == "undecided: between 30% more and 86% fewer tokens"
    near = Estimate(0.01, -0.02, 0.04, 0.3, "t")
    assert needed(near, "time", within=0.05) == "no difference in time larger than 5% (95% CI 2.0% more to 4.0% less)"
    alike = Estimate(0.25, 0.25, 0.25, None, "t")
    assert needed(alike, "time") == "25% less time (the same on every seed)"
    assert needed(Estimate(0.25), "time") == "25% less time"
    assert needed(Estimate(), "time") == ""
    bounds: list[tuple[float, Censored]] = [
        (0.18, "at_most"),
        (-0.3, "at_most"),
        (0.33, "at_least"),
        (-0.1, "at_least"),
    ]
    words = [bounded(Estimate(bound=b, censored=side), "tokens") for b, side in bounds]
    assert words == [
        "at most 18% fewer tokens",
        "at least 30% more tokens",
        "at least 33% fewer tokens",
        "at most 10% more tokens",
    ]


def test_differences_of_loss_in_words() -> None:
    assert loss_words(LossDifference(-0.052, -0.073, -0.031)) == "0.052 nats lower (95% CI 0.031–0.073)"
    assert loss_words(LossDifference(0.052)) == "0.052 nats higher"
    assert loss_words(LossDifference(0.0)) == "equal"
    assert loss_words(LossDifference(0.01, -0.02, 0.04)) == "undecided: between 0.020 nats lower and 0.040 higher"
    assert loss_words(LossDifference()) == ""
