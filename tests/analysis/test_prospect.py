"""Power before training: what a plan says of its own seeds and cells."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis import prospect
from analysis.prospect import Spread
from cl_bench import sweep
from cl_bench.runs import identity
from tests.analysis.folders import BASELINE, make_run
from tests.conftest import LINEAR


def test_seeds_and_savings_are_those_of_the_tables() -> None:
    """sd 0.14: five seeds detect 21% in one cell, and 10% / 20% need 16 / 6 (simulated beforehand)."""
    assert prospect.in_words(Spread(0.14, 12), 5, 1) == [
        "5 seeds: savings from 21% up are significant (80% power)",
        "10% needs 16 seeds, 20% 6 (sd of log ratios 0.14, 12 earlier pairs)",
    ]
    first, second = prospect.in_words(Spread(0.06, 0), 10, 4)
    assert first == "4 cells, 10 seeds: savings from 7.4% up are significant (80% power)"
    assert second == "10% needs 7 seeds, 20% 4 (sd of log ratios 0.06, assumed)"


def test_one_seed_can_show_nothing() -> None:
    first, second = prospect.in_words(Spread(0.1, 0), 1, 1)
    assert "no difference can be significant" in first
    assert "10% needs 10 seeds" in second


@pytest.mark.parametrize("cells", [1, 12, 100])
@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_lines_fit_a_narrow_terminal(seeds: int, cells: int) -> None:
    assert all(len(line) <= 80 for line in prospect.in_words(Spread(0.2815, 120), seeds, cells))


def test_the_spread_is_that_of_finished_runs_of_the_same_setting(tmp_path: Path) -> None:
    """Baselines halve their distance; the curriculum's pace differs by seed, so its log ratios spread."""
    runs = []
    for seed, pace in ((1, 1.0), (2, 1.3), (3, 1.7)):
        steps = np.arange(21)
        for curriculum, factor in ((BASELINE, 1.0), (LINEAR, pace)):
            losses = (2 + 3 * np.exp(-factor * steps / 8)).tolist()
            runs.append(make_run(tmp_path, losses, curriculum=curriculum, seed=seed))
    from analysis import load_runs

    config = next(iter(load_runs(tmp_path).configs.values()))
    spread = prospect.spread(tmp_path, {identity.setting(config)})
    assert spread.pairs == 3
    expected = np.log([1.0, 1.3, 1.7]).std(ddof=1)  # a curve of k times the pace needs 1/k of the tokens
    assert spread.sd == pytest.approx(expected, rel=0.1)
    assert prospect.spread(tmp_path, {"another"}) == Spread(0.1, 0)
    assert prospect.spread(tmp_path / "nowhere", {"another"}) == Spread(0.1, 0)
    assert math.isfinite(spread.sd)


def test_a_plan_says_what_it_can_detect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["-m", "sweeps=smoke", "dry_run=true", f"outputs={tmp_path}"]
    assert sweep.main([*base, "curriculum=baseline,fixed_linear", "seed=1,2,3"]) == 0
    out = capsys.readouterr().out
    assert "3 seeds: savings from" in out
    assert "assumed" in out
    assert sweep.main([*base, "curriculum=baseline,fixed_linear", "seed=1"]) == 0
    assert "no difference can be significant" in capsys.readouterr().out
    assert sweep.main([*base, "curriculum=baseline", "seed=1,2,3"]) == 0
    assert "significant" not in capsys.readouterr().out
