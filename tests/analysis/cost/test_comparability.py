"""Known answers for clocks: unlike runs, hardware by name, tokens a second at each length."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import figures, load_runs
from analysis.cost import comparability
from analysis.schema import Cell, Runs
from analysis.stats.pairs import Comparison
from analysis.stats.savings import RunSaving
from cl_bench.runs.paths import RunDir
from tests.analysis.folders import make_run
from tests.analysis.spending import A100, H100, add_attempt


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
    assert comparability.unlike(run, baseline) == said


def clock_rows(*rows: dict[str, Any]) -> pd.DataFrame:
    filled = [{"curriculum": "c", "global_batch_size": 16, "train_seconds": 1.0, **clock(), **row} for row in rows]
    return pd.DataFrame(filled)


def saving(run_id: str, paired: str | None, best: str | None) -> RunSaving:
    return RunSaving(run_id, Cell("c", "", 16, 1e-3), 1, Comparison(paired), Comparison(best))


def test_warnings_are_grouped_by_name() -> None:
    runs = clock_rows(
        {"run_id": "base"},
        {"run_id": "like"},
        *({"run_id": f"r{i}", "curriculum": f"c{i}", "hardware": A100, "precision": "fp32"} for i in range(5)),
        {"run_id": "pending", "hardware": "", "world_size": 0, "train_seconds": 0.0},
    )
    ids = ["like", *(f"r{i}" for i in range(5)), "pending", "alone"]
    pairs = [saving(run_id, "base", "base") for run_id in ids[:-1]] + [saving("alone", None, None)]
    first, second = comparability.warnings(runs, pairs)
    assert first == (
        f"Time is compared across hardware in 5 of 6 pairs: c0 b16 on {A100} against {H100}; c1 b16 on {A100} against "
        f"{H100}; c2 b16 on {A100} against {H100}; and 2 more."
    )
    assert second.startswith("Time is compared across precisions in 5 of 6 pairs: c0 b16 fp32 against bf16;")
    assert comparability.warnings(runs, pairs[:1]) == []


def test_another_best_baseline_is_warned_of_apart() -> None:
    runs = clock_rows({"run_id": "base"}, {"run_id": "run"}, {"run_id": "best", "world_size": 4})
    assert comparability.warnings(runs, [saving("run", "base", "best")]) == [
        "Time is compared across world sizes in 1 of 1 pairs with the best baseline: c b16 8 ranks against 4 ranks."
    ]


# --- what a run's records say -----------------------------------------------------------------------------------------


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
    table = comparability.throughput(RUNS, train)
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
    assert comparability.throughput(RUNS, train)["seqlen"].tolist() == [8, 64]
    assert comparability.throughput(RUNS, train)["steps"].tolist() == [
        20,
        10,
    ]  # the length changed somewhere in 30 to 40


def test_throughput_where_there_is_none() -> None:
    train = train_rows("a", [8, 8], [1.0, 0.0])
    for nothing in (train, train.iloc[:0], train.drop(columns="seqlen"), train.assign(train_seconds=math.nan)):
        table = comparability.throughput(RUNS, nothing)
        assert list(table.columns) == list(comparability.THROUGHPUT_COLUMNS)
        assert table.empty
        assert figures.throughput_by_length(table)["data"] == []


def test_stretches_are_found_where_a_run_is_in_pieces() -> None:
    frame = pd.DataFrame({"run_id": ["a", "a", "b", "a"]})
    assert list(comparability.stretches(frame)) == [("a", slice(0, 2)), ("b", slice(2, 3)), ("a", slice(3, 4))]
