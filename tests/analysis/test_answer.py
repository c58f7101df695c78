"""The typed answer: estimates of a cell by hand, names of cells, options, and the order of packages."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from analysis import load_runs
from analysis.answer import Options, analyse
from analysis.renderers import verdict_json
from analysis.schema import Cell, cell_of
from analysis.stats.intervals import Estimate
from analysis.stats.outcome import parse_rules
from analysis.verdict.headline import headline, spikes
from cl_bench.errors import UserError
from tests.analysis.folders import make_sweep, pair
from tests.analysis.synthetic import make_answer


def test_a_cells_estimates_by_hand(tmp_path: Path) -> None:
    # Baselines end at 2 after 3,000 tokens. Curricula pass 2 after 2,000 (seed 1); seed 2 ends at 3.5 instead, where
    # its baseline was after 1,500 of its own 3,000.
    made = pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=1) + pair(tmp_path, [5, 4, 3, 2], [5, 4.5, 4, 3.5], seed=2)
    answer = analyse(load_runs(make_sweep(tmp_path, made)))
    (cell,) = answer.cells
    assert (cell.seeds, cell.compared, cell.reached, cell.waiting, cell.diverged) == (2, 2, 1, 0, 0)
    assert (cell.tokens.point, cell.tokens.censored, cell.tokens.arrived, cell.tokens.n) == (None, "at_most", 1, 2)
    assert cell.tokens.bound == pytest.approx(1 - math.sqrt(2 / 3 * 1))
    assert cell.lowest_common.point == pytest.approx(1 - math.sqrt(2 / 3 * 2))
    assert cell.lowest_common.span == (cell.lowest_common.low, cell.lowest_common.high)
    # Printed and tested at 80% of the tokens: 2,400, on the log a share of log(1.2) / log(1.5) of the way from 2,000 to
    # 3,000. Seed 1's baseline is there at 3 - share, which its curriculum passes after 1,000 * 2**share tokens; seed
    # 2's curriculum is there at 4 - share / 2, which its baseline passes after 1,000 * 2**(share / 2).
    share = math.log(1.2) / math.log(1.5)
    ratios = 1000 * 2**share / 2400, 2400 / (1000 * 2 ** (share / 2))
    assert cell.printed.point == pytest.approx(1 - math.sqrt(ratios[0] * ratios[1]))
    assert cell.printed_time.point == pytest.approx(1 - math.sqrt(ratios[0] * ratios[1]))  # 100 tokens a second, all
    assert cell.log_ratios == pytest.approx([math.log(r) for r in ratios])
    assert cell.printed_ppl == pytest.approx(math.exp((3 - share + 4 - share / 2) / 2))
    assert cell.p_holm == cell.test.p_value == cell.printed.p_value  # one cell tested
    assert (cell.loss.mean, cell.loss.n) == (pytest.approx((-1 + 1.5) / 2), 2)
    assert cell.difference == "undecided"
    # At 3.5, the lowest loss of all four runs: 750 tokens (seed 1) and 3,000 (seed 2) against 1,500 each.
    assert cell.common_target is not None
    assert cell.common_target.target_loss == 3.5
    assert cell.common_target.tokens.point == pytest.approx(1 - math.sqrt(0.5 * 2))
    assert cell.target_ppl == pytest.approx(math.exp(2))
    assert [r.seed for r in cell.runs] == [1, 2]
    assert answer.best_baseline is not None
    assert answer.best_baseline.final_ppl == answer.target_ppl == pytest.approx(math.exp(2))
    assert (answer.target_kind, answer.cells_tested) == ("best_baseline_final", 1)


def test_an_estimate_over_the_best_baseline_has_an_interval(tmp_path: Path) -> None:
    made = [r for seed in (1, 2) for r in pair(tmp_path, [5, 4, 3, 2], [5, 3, 2, 1], seed=seed)]
    (cell,) = analyse(load_runs(make_sweep(tmp_path, made))).cells
    for estimate in (cell.vs_best_tokens, cell.vs_best_time, *cell.tokens_by_method.values()):
        assert estimate.point == pytest.approx(1 / 3)
        assert estimate.span == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_cells_have_one_name() -> None:
    cell = Cell("fixed_linear", "dropout=0.1", 64, 8e-3, "abc", "cl_v1")
    assert (cell.method, cell.place) == ("fixed_linear dropout=0.1", "batch 64, LR 8e-3")
    assert cell.name == "fixed_linear at batch 64, LR 8e-3 (cl_v1)"
    assert cell == dataclasses.replace(cell, label="another name for it")
    row = {"curriculum": "baseline", "variant": math.nan, "setting": 0, "global_batch_size": 8.0, "lr": 1}
    assert cell_of(row) == Cell("baseline", "", 8, 1.0, "0")


def test_options_are_checked_and_shown() -> None:
    options = Options(30, "sustained", 2.5, ("a", "b"))
    assert options.arguments() == " --target 30 --crossing sustained --price 2.5 --tuning a,b"
    assert Options().arguments() == ""
    rules = parse_rules(["ratio=off", "early=0.2", "non-finite=off", "ratio-share=0.05"])
    assert Options(rules=rules).arguments() == (
        " --rule non-finite=off --rule ratio=off --rule ratio-share=0.05 --rule early=0.2"
    )
    with pytest.raises(UserError, match="target 1: a perplexity is a number above 1"):
        Options(1.0)
    with pytest.raises(UserError, match="--price -1: must be a finite price"):
        Options(price=-1)


def test_the_headline_has_every_cell_and_the_contrast_in_stability() -> None:
    answer = make_answer(methods=3)
    head = headline(answer)
    assert answer.best_baseline is not None
    assert [c.saving for c in head.cells] == list(answer.cells)
    assert [c.tokens_differ for c in head.cells] == [c.difference for c in answer.cells]
    assert head.best is answer.best[0]
    # One baseline of two seeds diverged at batch 16, LR 8e-3; both curricula were stable there.
    assert [c.curriculum for c in head.stability] == ["fixed_linear", "fixed_root"]
    for contrast in head.stability:
        assert contrast.place.at == (16, 8e-3)
        assert contrast.theirs is not None
        assert (contrast.ours.failed, contrast.theirs.failed, contrast.theirs.seeds) == (0, 1, 2)
    largest = spikes(answer)
    assert [s.role for s in largest] == ["baseline", "curriculum"]
    assert (largest[0].diverged, largest[1].diverged) == (1, 0)


def test_renderings_agree_with_the_answer() -> None:
    answer = make_answer()
    verdict = json.loads(json.dumps(verdict_json(answer), allow_nan=False))
    for cell, plain in zip(answer.cells, verdict["cells"], strict=True):
        assert (plain["curriculum"], plain["global_batch_size"], plain["lr"]) == (
            cell.cell.curriculum,
            *cell.cell.point,
        )
        assert (plain["token_saving"], plain["time_saving"]) == (cell.printed.point, cell.printed_time.point)
        assert (plain["final_token_saving"], plain["final_time_saving"]) == (cell.tokens.point, cell.time.point)
        assert plain["of"] == cell.seeds


def test_an_estimate_of_nothing_is_unbounded() -> None:
    assert (Estimate().point, Estimate().bound, Estimate().censored, Estimate().span) == (None, None, "unbounded", None)
