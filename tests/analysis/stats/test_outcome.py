"""Outcomes of runs by hand, and what they say of stability over learning rate and batch size."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.stats.joint_boundary import joint_boundaries
from analysis.stats.lr_response import responses, useful_runs
from analysis.stats.outcome import Outcome, Rules, instability, judge, longest_above, parse_rules
from analysis.verdict.boundary import joint_sentences
from cl_bench.errors import UserError

BUDGET = 1000.0
TOKENS = np.arange(10, 1001, 10, dtype=float)  # 100 steps of 10 tokens
EVAL_TOKENS = np.array([0.0, 50, 100, 500, 1000])


def falling(start: float = 5.5, end: float = 2.5, n: int = 100) -> np.ndarray:
    return np.linspace(start, end, n)


def outcome(
    losses: np.ndarray | None = None,
    val: tuple[float, ...] = (5.5, 5.0, 4.0, 3.0, 2.5),
    state: str = "DONE",
    unigram: float | None = 3.312,
    rules: Rules | None = None,
) -> Outcome:
    losses = falling() if losses is None else losses
    evals = EVAL_TOKENS[: len(val)], np.array(val)
    return judge(state, (TOKENS[: len(losses)], losses), evals, BUDGET, unigram, rules or Rules())


def test_a_run_that_learns() -> None:
    assert outcome() == Outcome("learned")
    assert outcome(state="RUNNING").kind == "unfinished"


def test_a_loss_that_is_not_finite() -> None:
    losses = falling()
    losses[40] = math.nan
    assert outcome(losses).rule == "non-finite"
    assert outcome(losses, state="RUNNING").kind == "diverged"  # whatever comes later
    assert outcome(losses, rules=Rules(non_finite=False)).kind == "learned"
    assert outcome(val=(5.5, 5.0, 4.0, 3.0, math.nan)).rule == "non-finite"


def test_the_loss_ratio_counts_tokens_not_steps() -> None:
    # Two steps of 10 tokens above twice the minimum of 2.5 are 2% of 1,000 tokens; one is not.
    losses = np.concatenate([falling(n=50), np.full(50, 2.6)])
    losses[60:61] = 5.1
    assert outcome(losses).kind == "learned"
    losses[60:62] = 5.1
    assert outcome(losses).rule == "loss ratio"
    assert outcome(losses, rules=Rules(loss_ratio=None)).kind == "learned"
    apart = np.concatenate([falling(n=50), np.full(50, 2.6)])
    apart[[60, 62, 64]] = 5.1  # spikes that pass
    assert outcome(apart).kind == "learned"
    assert longest_above(TOKENS, losses, 2.0) == 20.0
    assert longest_above(TOKENS[:1], losses[:1], 2.0) == 0.0


def test_the_reproduced_case_of_a_short_run() -> None:
    # Batch 64 at LR 1.0: untrained 5.51, final 6.57, most of 92 steps far above twice the minimum.
    losses = np.concatenate([falling(5.51, 3.5, 12), np.full(80, 20.0)])
    assert outcome(losses, val=(5.51, 5.0, 6.0, 6.5, 6.57)).kind == "diverged"
    assert outcome(val=(5.51, 4.0, 3.6, 6.0, 6.57), rules=Rules(loss_ratio=None)).rule == "worse than early"
    off = Rules(loss_ratio=None, early_share=None)
    assert outcome(val=(5.51, 4.0, 3.6, 6.0, 6.57), rules=off).kind == "did not learn"
    assert outcome(val=(5.51, 4.0, 3.6, 6.0, 6.57), rules=off, unigram=None).kind == "learned"


def test_a_collapse_to_token_frequencies() -> None:
    # Perplexity 27.1 where the unigram's is 27.4.
    collapsed = (5.5, 3.6, 3.4, 3.31, math.log(27.1))
    assert outcome(val=collapsed).kind == "did not learn"
    assert outcome(val=(5.5, 3.6, 3.4, 3.3, 3.25)).kind == "learned"
    assert outcome(val=collapsed, rules=Rules(unigram_margin=None)).kind == "learned"
    assert "3.31" in outcome(val=collapsed).reason


def grid(*rows: tuple[str, int, float, int, float, str]) -> tuple[pd.DataFrame, dict[str, Outcome]]:
    """(curriculum, batch, lr, seed, final loss, outcome) per run."""
    runs = pd.DataFrame(rows, columns=["curriculum", "global_batch_size", "lr", "seed", "final_loss", "kind"])
    runs["run_id"] = [f"r{i}" for i in range(len(runs))]
    runs["role"] = np.where(runs["curriculum"] == "baseline", "baseline", "curriculum")
    runs["variant"], runs["setting"] = "", "s"
    kinds = {str(r): Outcome(k) for r, k in zip(runs["run_id"], runs["kind"], strict=True)}  # type: ignore[arg-type]
    return runs, kinds


def test_not_learning_is_unstable_only_above_the_best_learning_rate() -> None:
    # The measured pattern of the deeper model: too slow at 4e-3, best at 1.6e-2, collapsed at 6.4e-2.
    runs, kinds = grid(
        ("baseline", 32, 4e-3, 1, math.log(27.2), "did not learn"),
        ("baseline", 32, 1.6e-2, 1, math.log(20.4), "learned"),
        ("baseline", 32, 6.4e-2, 1, math.log(27.2), "did not learn"),
        ("linear", 32, 6.4e-2, 1, math.log(24.7), "learned"),
    )
    assert list(instability(runs, kinds).values()) == [None, False, True, False]
    nowhere = runs[runs["lr"] != 1.6e-2]
    assert list(instability(nowhere, kinds).values()) == [None, None, False]
    assert instability(runs, {**kinds, "r1": Outcome("diverged")})["r1"] is True


def test_final_loss_over_learning_rate() -> None:
    runs, kinds = grid(
        ("baseline", 16, 2e-3, 1, 2.45, "learned"),
        ("baseline", 16, 8e-3, 1, 2.38, "learned"),
        ("baseline", 16, 1.6e-2, 1, 2.54, "learned"),
        ("linear", 16, 2e-3, 1, 2.41, "learned"),
        ("linear", 16, 8e-3, 1, 2.22, "learned"),
        ("linear", 16, 1.6e-2, 1, 2.21, "learned"),
        ("linear", 16, 3.2e-2, 1, 9.0, "diverged"),
    )
    evals = pd.DataFrame({"run_id": runs["run_id"], "val_loss": 5.5})
    base, linear = responses(runs, evals, kinds)
    assert (base.best_lr, linear.best_lr, linear.shift) == (8e-3, 1.6e-2, 2.0)
    assert not base.at_end
    # Over the three shared rates: (0.07 + 0 + 0.16) / 3 and (0.20 + 0.01 + 0) / 3.
    assert base.sensitivity == pytest.approx(0.23 / 3)
    assert linear.sensitivity == pytest.approx(0.07)
    assert linear.points[-1].mean_loss == 5.5  # a diverged run counts as untrained
    (no_seed,) = [p for p in linear.points if p.diverged]
    assert (no_seed.ended_loss, no_seed.low, no_seed.high) == (None, None, None)
    # Useful is within 2%: 2.38 x 1.02 = 2.4276; 2.21 x 1.02 = 2.2542.
    assert [p.useful for p in base.points] == [False, True, False]
    assert (base.largest_useful, linear.largest_useful) == (8e-3, 1.6e-2)
    useful = useful_runs(runs, [base, linear], {**kinds, "r0": Outcome("unfinished")})
    assert list(useful.values()) == [None, True, False, False, True, True, False]


def test_a_diagonal_grid_has_a_joint_boundary() -> None:
    seeds = (1, 2, 3)
    runs, kinds = grid(
        *(("baseline", 512, 1.5e-4, s, 2.6, "learned") for s in seeds),
        *(("baseline", 4096, 6e-4, s, 7.0, "diverged") for s in seeds),
        *(("linear", 512, 1.5e-4, s, 2.5, "learned") for s in seeds),
        *(("linear", 4096, 6e-4, s, 2.5, "learned") for s in seeds),
    )
    (answer,) = joint_boundaries(runs, instability(runs, kinds))
    base, linear = answer.methods
    assert answer.reference == (512, 1.5e-4)
    assert base.largest is not None
    assert (base.largest.batch_multiple, base.largest.lr_multiple) == (1, 1)
    assert linear.largest is not None
    assert (linear.largest.batch_multiple, linear.largest.lr_multiple) == (8, pytest.approx(4))
    assert linear.baseline_there is not None
    assert (linear.baseline_there.unstable, linear.baseline_there.seeds) == (3, 3)
    assert (linear.only_method_stable, linear.only_baseline_stable, linear.p_value) == (3, 0, 0.25)
    assert linear.contrast == linear.largest
    assert linear.baseline_at_contrast == linear.baseline_there
    assert base.contrast is None
    (sentence,) = joint_sentences([answer])
    assert "8x the batch and 4x the learning rate" in sentence
    assert "3 of 3 seeds" in sentence
    assert "the baseline did not on 3 of 3" in sentence


def test_the_contrast_is_where_the_baseline_failed_not_where_it_was_never_trained() -> None:
    runs, kinds = grid(
        *(("baseline", 8, lr, 1, 2.6, kind) for lr, kind in ((1e-3, "learned"), (4e-3, "diverged"))),
        *(("linear", batch, 4e-3, 1, 2.5, "learned") for batch in (8, 64)),
    )
    (answer,) = joint_boundaries(runs, instability(runs, kinds))
    linear = answer.methods[1]
    assert linear.largest is not None
    assert (linear.largest.at, linear.baseline_there) == ((64, 4e-3), None)
    assert linear.contrast is not None
    assert linear.contrast.at == (8, 4e-3)
    assert "4x the learning rate on its one seed, where the baseline did not" in joint_sentences([answer])[0]


def test_a_joint_boundary_without_a_baseline_at_the_large_cell() -> None:
    runs, kinds = grid(
        ("baseline", 512, 1.5e-4, 1, 2.6, "learned"),
        ("linear", 4096, 6e-4, 1, 2.5, "learned"),
    )
    (answer,) = joint_boundaries(runs, instability(runs, kinds))
    assert answer.methods[1].largest is not None
    assert answer.methods[1].baseline_there is None
    assert answer.methods[1].p_value is None
    assert "no baseline was trained there" in joint_sentences([answer])[0]
    assert joint_boundaries(runs[runs["role"] != "baseline"], instability(runs, kinds)) == []


def test_rules_from_the_command_line() -> None:
    rules = parse_rules(["ratio=3", "early=off", "unigram=0.1", "non-finite=off"])
    assert rules == Rules(non_finite=False, loss_ratio=3.0, early_share=None, unigram_margin=0.1)
    assert parse_rules([]) == Rules()
    for text, remedy in (
        ("ration=off", "did you mean 'ratio'"),
        ("ratio=1", "a number above 1 or off"),
        ("ratio-share=off", "a number above 0 and below 1"),
        ("early=many", "a number above 0 and below 1 or off"),
        ("non-finite=2", "on or off"),
        ("unigram", "a number above 0 or off"),
    ):
        with pytest.raises(UserError, match=remedy):
            parse_rules([text])


def test_the_rules_are_stated() -> None:
    assert "above 2 times its earlier minimum for 2% of the token budget" in Rules().sentence()
    off = Rules(non_finite=False, loss_ratio=None, early_share=None, unigram_margin=None)
    assert off.sentence(4, 4) == "No rule of divergence is in force."
    assert "could not be applied to 3 of 4 runs" in Rules().sentence(4, 3)
    assert "could not be applied to these runs" in Rules().sentence(4, 4)
