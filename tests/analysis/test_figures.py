"""The figures as data: what is kept, what is shown first, and how it is encoded."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.page import ReportData
from tests.analysis.synthetic import SPIKE_LOSS, make_report


@pytest.fixture(scope="module")
def report() -> ReportData:
    return make_report()


def test_spikes_survive_thinning(report: ReportData) -> None:
    y = np.full(10_000, 3.0)
    y[4321], y[4322], y[9998] = 9.0, 1.0, 7.0
    kept = figures.thin_minmax(y, 60)
    assert len(kept) <= 60
    assert {0, 4321, 4322, 9998, 9999} <= set(kept.tolist())

    curves = figures.training_curves(report.runs, report.train, max_points=40)
    assert max(len(t["x"]) for t in curves["data"]) <= 40
    spiky = [t for t in curves["data"] if t["meta"]["run_id"] == "tiny_baseline_b64_lr0.008_s1"]
    assert max(spiky[0]["y"]) == SPIKE_LOSS


def view_of(spike: float, target_ppl: float | None = None) -> tuple[float, float, str]:
    """First view of two runs to 1M tokens that end at perplexity 10 and 20; the second once went to ``spike``."""
    runs = make_report(batches=(16,), lrs=(2e-3,), seeds=1).runs
    runs = runs.assign(run_id=["a", "b"], state="DONE", token_budget=1_000_000)
    curves = {"a": [50_000, 40, 12, 10], "b": [50_000, 60, spike, 20]}
    tokens = [0, 60_000, 500_000, 1_000_000]
    rows = [(run, i, t, t / 1e5, ppl[i]) for run, ppl in curves.items() for i, t in enumerate(tokens)]
    evals = pd.DataFrame(rows, columns=["run_id", "step", "consumed_tokens", "train_seconds", "val_ppl"])
    layout = figures.validation_curves(runs, evals, target_ppl=target_ppl)["layout"]
    low, high = (10**power for power in layout["yaxis"]["range"])
    return low, high, layout["meta"]["left_out"]


def test_first_view_keeps_the_ends_apart() -> None:
    start = "Outside the first view: part of the first 5% of the budget"
    # all values from 5% of the budget on fit below 4 x 20; the margin is 4%
    assert view_of(spike=30) == (
        pytest.approx(10 / 1.04),
        pytest.approx(60 * 1.04),
        f"{start}. Double-click shows all.",
    )
    low, high, words = view_of(spike=40_000)
    assert (low, high) == (pytest.approx(10 / 1.04), pytest.approx(4 * 20 * 1.04))
    assert words == f"{start}; later values of 1 run, up to 40,000. Double-click shows all."
    assert view_of(spike=30, target_ppl=100)[1] == pytest.approx(100 * 1.04)
    assert view_of(spike=30, target_ppl=5)[0] == pytest.approx(5 / 1.04)
    assert view_of(spike=30, target_ppl=60_000)[2] == ""


def test_a_seed_alone_in_reaching_the_target_is_drawn(report: ReportData) -> None:
    savings = report.savings.assign(reached=False, token_saving=np.nan, token_saving_bound=-0.02)
    cell = report.verdict["cells"][0] | dict.fromkeys(("token_saving", "token_saving_low", "token_saving_high"))
    savings.loc[savings["run_id"] == cell["run_ids"][0], ["reached", "token_saving"]] = [True, 0.25]
    drawn = figures.savings_intervals([cell], savings)["data"]
    assert [t["x"] for t in drawn if t["name"] == "one seed" and "tokens" in t["hovertemplate"]] == [[25.0]]
    assert [t["x"] for t in drawn if t["name"].startswith("never reached")] == [[-2.0]]


def test_numbers_as_people_write_them() -> None:
    assert [figures.format_lr(x) for x in (2e-3, 1.5e-4, 0.0)] == ["2e-3", "1.5e-4", "0"]
    assert [figures.format_ppl(x) for x in (18.34, 9.996, 103.7, 12345.0, None)] == [
        "18.3",
        "10.0",
        "104",
        "12,300",
        "n/a",
    ]


def test_encoding_is_the_same_everywhere() -> None:
    report = make_report(methods=3)
    styles = figures.run_styles(report.runs)
    assert set(styles.loc[styles["method"] == "baseline", "color"]) == {figures.BASELINE_GREY}
    assert styles["color"].nunique() == 3
    assert set(styles.loc[styles["batch"] == 16, "dash"]) == {"solid"}
    assert set(styles.loc[styles["batch"] == 64, "dash"]) == {"dash"}
    lengths = figures.length_schedule(report.runs, report.train)["data"]
    assert {t["meta"]["method"]: t["line"]["color"] for t in lengths} == dict(
        zip(styles["method"], styles["color"], strict=True)
    )


def test_figures_are_valid_plotly_by_themselves(report: ReportData) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    r = report
    made = [
        figures.validation_curves(r.runs, r.evals, r.train, target_ppl=9.4),
        figures.training_curves(r.runs, r.train, metric="grad_norm", axis="seconds"),
        figures.savings_intervals(r.verdict["cells"], r.savings),
        figures.length_schedule(r.runs, r.train),
        *figures.stability_maps(r.stability).values(),
    ]
    for figure in made:
        go.Figure(figure)
        json.dumps(figure, allow_nan=False)
