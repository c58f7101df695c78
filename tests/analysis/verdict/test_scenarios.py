"""The headline of made sweeps: what it says and in which order, not how it is spelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from analysis import load_runs
from analysis.answer import Options, analyse
from analysis.stats.joint_boundary import PlaceStability
from analysis.verdict.caveats import caveats
from analysis.verdict.contrast import Contrast, Side, stability_headline
from analysis.verdict.sentence import headline_sentences
from cl_bench.runs.paths import RunDir
from tests.analysis.folders import BASELINE, LINEAR, make_run, make_sweep

SMALL = {"global_batch_size": 8, "optim": {"lr": 2e-3}}
LARGE = {"global_batch_size": 64, "optim": {"lr": 8e-3}}
CALM = [5.0, 4.0, 3.0, 2.5, 2.2, 2.0]
Config = dict[str, object]


def says(folder: Path) -> list[str]:
    """The headline, in small letters."""
    sentences = [s.lower() for s in headline_sentences(analyse(load_runs(folder)))]
    assert 1 <= len(sentences) <= 3
    for s in sentences:
        assert "1 of 1" not in s
        assert "-" not in re.findall(r"[-−]?\d[\d.]*%", s)  # shares carry a word, not a sign
        assert "−" not in s
        assert s.endswith(".")
    return sentences


def runs_at(
    outputs: Path, needs: Sequence[float], place: Config, *, speed: float = 1.0, base_needs: Sequence[float] = ()
) -> list[RunDir]:
    """Baselines and curricula of one cell, one per seed: both fall along CALM, the curriculum `needs` times as slowly.

    The curriculum takes `speed` times as long for a token. Its curve goes on to the baseline's budget, at least.
    """
    made = []
    for seed, ratio in enumerate(needs, 1):
        own = base_needs[seed - 1] if base_needs else 1.0
        tokens = [round(2000 * own * i) for i in range(len(CALM))]
        made.append(make_run(outputs, CALM, tokens=tokens, curriculum=BASELINE, seed=seed, **place))
        tokens = [round(2000 * own * ratio * i) for i in range(len(CALM))]
        made.append(
            make_run(
                outputs,
                CALM,
                tokens=tokens,
                seconds=[t * speed / 100 for t in tokens],
                curriculum=LINEAR,
                seed=seed,
                **place,
            )
        )
    return made


def diverging(outputs: Path, curriculum: Config, place: Config, seeds: Sequence[int]) -> list[RunDir]:
    return [make_run(outputs, [5, 4, 300.0], curriculum=curriculum, seed=s, state="DIVERGED", **place) for s in seeds]


def calm(outputs: Path, curriculum: Config, place: Config, seeds: Sequence[int]) -> list[RunDir]:
    return [make_run(outputs, CALM, curriculum=curriculum, seed=s, **place) for s in seeds]


def test_the_seeds_case(tmp_path: Path) -> None:
    made = runs_at(tmp_path, [0.6, 0.62, 0.58], SMALL)
    made += diverging(tmp_path, BASELINE, LARGE, (1, 2, 3)) + calm(tmp_path, LINEAR, LARGE, (1, 2, 3))
    folder = make_sweep(tmp_path, made)
    first, *rest = says(folder)
    for words in (
        "fixed_linear",
        "8x the batch",
        "4x the learning rate",
        "3 of 3 seeds",
        "baseline diverged on 3 of 3",
    ):
        assert words in first
    assert any("fewer tokens" in s and "40%" in s and "95% ci" in s and "less time" in s for s in rest)
    assert any("p 0.25" in c for c in caveats(analyse(load_runs(folder))))  # 3 against 0: 2 x 0.5 ** 3


def test_no_baseline_run_at_eight_times_the_batch(tmp_path: Path) -> None:
    made = runs_at(tmp_path, [0.6, 0.62, 0.58], SMALL) + calm(tmp_path, LINEAR, LARGE, (1, 2, 3))
    first, *_ = says(make_sweep(tmp_path, made))
    assert "8x the batch" in first
    assert "3 of 3 seeds" in first
    assert "the baseline was not trained there" in first
    assert "diverged" not in first


def test_one_of_three_baseline_seeds_diverged(tmp_path: Path) -> None:
    made = runs_at(tmp_path, [0.6, 0.62, 0.58], SMALL)
    made += diverging(tmp_path, BASELINE, LARGE, (3,)) + calm(tmp_path, BASELINE, LARGE, (1, 2))
    made += calm(tmp_path, LINEAR, LARGE, (1, 2, 3))
    first, *_ = says(make_sweep(tmp_path, made))
    assert "3 of 3 seeds" in first
    assert "baseline diverged on 1 of 3" in first


def test_only_the_large_cells(tmp_path: Path) -> None:
    made = diverging(tmp_path, BASELINE, LARGE, (1, 2, 3)) + calm(tmp_path, LINEAR, LARGE, (1, 2, 3))
    first, *rest = says(make_sweep(tmp_path, made))
    assert "batch 64, lr 8e-3" in first
    assert "baseline diverged on 3 of 3" in first
    assert "x the batch" not in first  # nothing smaller to be a multiple of
    assert any("nothing to compare" in s for s in rest)


def test_a_curriculum_that_diverged_saved_nothing(tmp_path: Path) -> None:
    # Each is far ahead until it diverges.
    made = calm(tmp_path, BASELINE, SMALL, (1, 2, 3))
    made += [
        make_run(tmp_path, [5, 1.5, 300.0], curriculum=LINEAR, seed=s, state="DIVERGED", **SMALL) for s in (1, 2, 3)
    ]
    first, *rest = says(make_sweep(tmp_path, made))
    assert "fixed_linear diverged" in first
    assert "3 of 3 seeds" in first
    assert "fewer" not in " ".join([first, *rest])


def test_a_clear_cost_is_in_the_first_sentence(tmp_path: Path) -> None:
    first, *rest = says(make_sweep(tmp_path, runs_at(tmp_path, [1.4, 1.45, 1.5], SMALL)))
    assert re.search(r"45% more tokens \(95% ci \d+–\d+% more\)", first)
    assert "more time" in first
    assert rest == []


def test_a_cost_is_in_the_first_sentence_beside_stability(tmp_path: Path) -> None:
    made = runs_at(tmp_path, [1.4, 1.45, 1.5], SMALL)
    made += diverging(tmp_path, BASELINE, LARGE, (1, 2, 3)) + calm(tmp_path, LINEAR, LARGE, (1, 2, 3))
    first, *_ = says(make_sweep(tmp_path, made))
    assert "stable" in first
    assert "45% more tokens" in first


def test_half_saved_half_cost(tmp_path: Path) -> None:
    made = runs_at(tmp_path, [0.6, 0.62, 0.58], SMALL)
    made += runs_at(tmp_path, [1.4, 1.45, 1.5], {"global_batch_size": 16, "optim": {"lr": 2e-3}})
    first, *rest = says(make_sweep(tmp_path, made))
    assert "more tokens" in first
    last = rest[-1]
    assert re.search(r"fewer tokens in 1 of 2 \(40% fewer", last)
    assert re.search(r"more tokens in 1 of 2 \(45% more", last)
    assert "2 cells" in last


def test_what_two_seeds_leave_open_is_not_asserted(tmp_path: Path) -> None:
    # Ratios 0.35 and 0.52: a geometric mean of 0.43, and an interval that includes 1.
    folder = make_sweep(tmp_path, runs_at(tmp_path, [0.35, 0.52], SMALL))
    text = " ".join(says(folder))
    assert "57%" not in text
    assert "undecided" in text
    assert re.search(r"between \d+% more and \d+% fewer tokens", text)


def test_one_seed_has_no_interval_and_nothing_significant(tmp_path: Path) -> None:
    text = " ".join(says(make_sweep(tmp_path, runs_at(tmp_path, [0.6], SMALL))))
    assert "40% fewer tokens" in text
    assert "40% less time" in text
    assert "one seed: no interval" in text
    assert "significant" not in text
    assert "ci" not in re.findall(r"[a-z]+", text)


def test_time_and_tokens_of_opposite_sign(tmp_path: Path) -> None:
    # 0.6 of the tokens at 2.5 times the time of each: 1.5 of the time.
    first, *_ = says(make_sweep(tmp_path, runs_at(tmp_path, [0.6, 0.62, 0.58], SMALL, speed=2.5)))
    assert re.search(r"40% fewer tokens \(.*\) but 50% more time \(\d+–\d+% more\)", first)


def test_a_target_that_was_given_is_named(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, runs_at(tmp_path, [0.6, 0.62, 0.58], SMALL))
    answer = analyse(load_runs(folder), Options(target_ppl=12.5))
    assert any("perplexity 12.5" in s for s in headline_sentences(answer))


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_a_baseline_that_ended_worse_than_it_was_has_diverged(tmp_path: Path, seeds: Sequence[int]) -> None:
    # Finite and DONE, but above its own loss at 10% of the budget.
    made = runs_at(tmp_path, [0.9] * len(seeds), SMALL)
    made += [make_run(tmp_path, [5, 4, 4.2, 4.6, 4.9, 5.3], curriculum=BASELINE, seed=s, **LARGE) for s in seeds]
    made += calm(tmp_path, LINEAR, LARGE, seeds)
    first, *_ = says(make_sweep(tmp_path, made))
    assert "8x the batch" in first
    assert "the baseline diverged" in first


def test_no_difference_that_is_excluded_is_not_undecided(tmp_path: Path) -> None:
    # Ratios within 1% of each other: a saving or cost of 5% is excluded.
    text = " ".join(says(make_sweep(tmp_path, runs_at(tmp_path, [1.0, 1.01, 0.99, 1.005, 0.996], SMALL))))
    assert "no difference in tokens larger than 5%" in text
    assert "tokens undecided" not in text
    assert "fewer tokens (" not in text


def test_no_difference_that_is_not_excluded_is_undecided(tmp_path: Path) -> None:
    text = " ".join(says(make_sweep(tmp_path, runs_at(tmp_path, [1.0, 1.2, 0.8, 1.1, 0.92], SMALL))))
    assert "no difference" not in text
    assert re.search(r"undecided: between \d+% more and \d+% fewer tokens", text)


def test_where_every_saving_is_a_bound_the_loss_leads(tmp_path: Path) -> None:
    # The curriculum ends half a nat above the target, which its baseline reaches: it never arrives.
    made = []
    for seed, end in ((1, 2.5), (2, 2.52), (3, 2.47)):
        made.append(make_run(tmp_path, CALM, curriculum=BASELINE, seed=seed, **SMALL))
        slow = [5.0, 4.5, 4.0, 3.4, 2.8, end]
        made.append(make_run(tmp_path, slow, curriculum=LINEAR, seed=seed, **SMALL))
    answer = analyse(load_runs(make_sweep(tmp_path, made)), Options(target_ppl=8.2))  # a loss of 2.10
    assert answer.cells[0].printed.point is None
    first = headline_sentences(answer)[0]
    assert re.search(r"ended 0\.49\d nats higher \(95% CI .*\) at equal tokens", first)
    assert "more tokens" in first
    assert first.index("nats") < first.index("more tokens")
    assert "fewer" not in first


def test_a_collapsed_baseline_did_not_learn() -> None:
    place = PlaceStability(64, 8e-3, 8.0, 4.0, 3, 0, 0)
    ours, theirs = Side(3, 0, 0, 0), Side(0, 0, 3, 0)
    (words,) = [stability_headline([Contrast("0", "fixed_linear", place, ours, theirs, 0.25)])]
    assert "where the baseline did not learn on 3 of 3" in words
    mixed = Contrast("0", "fixed_linear", place, ours, Side(0, 2, 1, 0), 0.25)
    assert "diverged on 2 and did not learn on 1 of 3" in stability_headline([mixed])
    alone = Contrast("0", "fixed_linear", place, Side(1, 0, 0, 0), Side(0, 1, 0, 0), 1.0)
    assert "diverged (one seed each)" in stability_headline([alone])
    worse = Contrast("0", "fixed_linear", place, Side(1, 2, 0, 0), Side(3, 0, 0, 0), 0.5)
    text = stability_headline([worse])
    assert "fixed_linear diverged at 8x the batch" in text
    assert "on 2 of 3 seeds, where the baseline stayed stable on 3 of 3" in text
