"""The figures as data: what is kept, what is shown first, and how it is encoded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import figures, words
from analysis.page.data import ReportData
from cl_bench.runs.identity import short_float
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
    savings = report.savings.assign(censored="at_most", token_saving=np.nan, token_saving_bound=-0.02)
    cell = report.verdict["cells"][0] | dict.fromkeys(("token_saving", "token_saving_low", "token_saving_high"))
    savings.loc[savings["run_id"] == cell["run_ids"][0], ["censored", "token_saving"]] = ["", 0.25]
    drawn = figures.savings_intervals([cell], savings)["data"]
    assert [t["x"] for t in drawn if t["name"] == "one seed" and "tokens" in t["hovertemplate"]] == [[25.0]]
    assert [(t["x"], t["marker"]["symbol"]) for t in drawn if t["name"] == "bound: at most"] == [
        ([-2.0], "triangle-left-open")
    ]
    least = figures.savings_intervals([cell], savings.replace({"censored": {"at_most": "at_least"}}))["data"]
    assert [(t["x"], t["marker"]["symbol"]) for t in least if t["name"] == "bound: at least"] == [
        ([-2.0], "triangle-right-open")
    ]


def test_numbers_as_people_write_them() -> None:
    assert [short_float(x) for x in (2e-3, 1.5e-4, 0.0)] == ["2e-3", "1.5e-4", "0"]
    assert [words.ppl(x) for x in (18.34, 9.996, 103.7, 12345.0, None)] == [
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
        figures.stability_frontier(r.frontier),
        figures.variance_scatter(r.runs, r.train, "adam_var_max"),
    ]
    for figure in made:
        go.Figure(figure)
        json.dumps(figure, allow_nan=False)


# --- the stability frontier ------------------------------------------------------------------------------------------


def frontier_figure() -> tuple[figures.Figure, dict[tuple[str, bool], dict[str, Any]]]:
    """The frontier of one batch, and its marks by (curriculum, hollow): baseline breaks at 8e-3 in one of two seeds."""
    table = make_report(batches=(16,), lrs=(2e-3, 8e-3), seeds=2).frontier
    figure = figures.stability_frontier(table, {"fixed_linear": "#D55E00"})
    marks = [t for t in figure["data"] if t["mode"].startswith("markers") and t["x"] != [None]]
    return figure, {(t["name"], t["marker"]["symbol"][0].endswith("-open")): t for t in marks}


def test_frontier_marks_say_exact_and_at_least() -> None:
    figure, marks = frontier_figure()
    base, ours = marks["baseline", False], marks["fixed_linear", False]
    assert (base["y"], base["marker"]["symbol"], base["marker"]["color"]) == ([2e-3], ["circle"], figures.BASELINE_GREY)
    assert (ours["y"], ours["marker"]["symbol"], ours["marker"]["color"]) == ([8e-3], ["triangle-up"], "#D55E00")
    assert (base["text"], ours["text"]) == ([""], ["4x or more"])
    assert set(marks) == {(m, hollow) for m in ("baseline", "fixed_linear") for hollow in (False, True)}
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert figure["layout"]["yaxis"]["ticktext"] == ["2e-3", "8e-3"]
    ways = [t for t in figure["data"] if t["mode"] == "lines+markers"]
    assert [t["y"] for t in ways] == [[2e-3, 8e-3, None]] * 2  # the baseline's, by both criteria
    assert [t["name"] for t in figure["data"] if t["showlegend"]] == ["baseline", "fixed_linear"]


def test_frontier_carries_its_table() -> None:
    figure, _ = frontier_figure()
    table = figure["layout"]["meta"]["table"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert len(rows) == 4
    ours = next(r for r in rows if r["curriculum"] == "fixed_linear" and r["max_loss_ratio_allowed"] is None)
    assert (ours["kind"], ours["largest_stable_lr"], ours["multiple_relation"]) == ("at_least", 8e-3, "at least")
    assert ours["multiple"] == pytest.approx(4)


def test_a_frontier_below_the_grid_hangs_from_its_smallest_rate() -> None:
    report = make_report(batches=(16,), lrs=(8e-3,), seeds=2)
    marks = [t for t in figures.stability_frontier(report.frontier)["data"] if t["name"] == "baseline"]
    full = next(t for t in marks if t["mode"] == "markers+text")
    assert (full["y"], full["marker"]["symbol"]) == ([8e-3], ["triangle-down"])
    assert not [t for t in marks if t["mode"] == "lines+markers"]


def test_an_empty_frontier_says_so(report: ReportData) -> None:
    empty = figures.stability_frontier(report.frontier.iloc[:0])
    assert empty["layout"]["annotations"][0]["text"] == "no run yet"


# --- loss ratio against variance -------------------------------------------------------------------------------------


def test_scatter_has_the_steps_where_both_were_measured(report: ReportData) -> None:
    figure = figures.variance_scatter(report.runs, report.train)
    run = report.train[report.train["run_id"] == report.runs["run_id"].iloc[0]]
    both = run[run["adam_var_l1"].notna() & run["loss_ratio"].notna()]
    trace = next(t for t in figure["data"] if t["meta"]["run_id"] == report.runs["run_id"].iloc[0])
    assert trace["customdata"] == both["step"].tolist()
    assert trace["x"] == pytest.approx(both["adam_var_l1"].tolist(), rel=1e-3)
    assert trace["y"] == pytest.approx(both["loss_ratio"].tolist(), rel=1e-3)
    assert figure["layout"]["meta"] == {"points": ["run_id", "step", "adam_var_l1", "loss_ratio"], "thinned": False}
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_scatter_of_many_runs_stays_small_and_keeps_its_spikes() -> None:
    rng = np.random.default_rng(1)
    report = make_report(batches=(16,), lrs=(2e-3,), seeds=1)
    one = report.runs.iloc[0].to_dict()
    runs = pd.DataFrame([{**one, "run_id": f"r{i}", "seed": i} for i in range(200)])
    ratio = rng.normal(1.0, 0.01, (200, 100))
    ratio[7, 55] = 3.5
    train = pd.DataFrame({"run_id": np.repeat(runs["run_id"], 100).to_numpy(), "step": np.tile(np.arange(100), 200)})
    train = train.assign(loss_ratio=ratio.ravel(), adam_var_l1=1.0 + rng.random(20_000))
    figure = figures.variance_scatter(runs, train)
    assert sum(len(t["x"]) for t in figure["data"]) <= 2000
    assert max(figure["data"][7]["y"]) == 3.5
    assert figure["layout"]["meta"]["thinned"]


def test_scatter_without_telemetry_says_so(report: ReportData) -> None:
    nothing = report.train.drop(columns=["adam_var_l1"])
    empty = figures.variance_scatter(report.runs, nothing)
    assert "was not measured" in empty["layout"]["annotations"][0]["text"]


def test_maps_count_the_share_of_finished_seeds(report: ReportData) -> None:
    (heat,) = figures.stability_maps(report.stability)["baseline"]["data"]
    # batch 16, LR 8e-3: one of two seeds diverged; the exact interval of 1 of 2 is 1.3 to 98.7%
    assert heat["customdata"][0][1] == [2, 1, 2, 1.3, 98.7]
    assert heat["hovertext"][0][1] == "1 of 2 runs diverged (95% interval 1 to 99%)"
    running = report.stability.assign(state="RUNNING", diverged=False)
    (heat,) = figures.stability_maps(running)["baseline"]["data"]
    assert heat["hovertext"][0][0] == "none of 2 runs has finished"
    assert heat["customdata"][0][0] == [2, 0, 0, None, None]


# --- a search's page -------------------------------------------------------------------------------------------------

PROBES = pd.DataFrame(
    {
        "run_id": ["a", "b", "c"],
        "start": [8, 8, 8],
        "duration": [80, 40, 60],
        "steady": [False, True, False],
        "worst_tokens": [1000, 2000, 2000],
    }
)


def test_probe_curves_mark_what_fluctuates() -> None:
    rows = [(run, i, 1000 * i, 1.0 * i, ppl) for run in "abc" for i, ppl in enumerate([256.0, 30.0, 45.0])]
    evals = pd.DataFrame(rows, columns=["run_id", "step", "consumed_tokens", "train_seconds", "val_ppl"])
    train = pd.DataFrame({"run_id": list("abc"), "step": 0, "seqlen": 8})
    figure = figures.probe_curves(PROBES, evals, train, beginning_tokens=500)
    lines = {t["meta"]["label"]: t for t in figure["data"]}
    assert {label: t["line"]["dash"] for label, t in lines.items()} == {
        "start 8, T 80": "dash",
        "start 8, T 40": "solid",
        "start 8, T 60": "dash",
    }
    assert lines["start 8, T 80"]["marker"]["size"] == [0, 12, 0]  # the ring stands at 1,000 tokens
    assert lines["start 8, T 60"]["marker"]["size"] == [0, 0, 12]
    assert "marker" not in lines["start 8, T 40"]
    assert lines["start 8, T 40"]["customdata"] == [[0, 0, 0, 8], [1, 1000, 1, 8], [2, 2000, 2, 8]]
    assert [(s["x0"], s["x1"], s["yref"]) for s in figure["layout"]["shapes"]] == [(500, 500, "paper")]
    assert figure["layout"]["yaxis"]["range"] == pytest.approx([np.log10(30 / 1.04), np.log10(256 * 1.04)])


def test_the_path_of_a_search_goes_down_from_its_first_probe() -> None:
    figure = figures.search_path(PROBES)
    points = {t["name"]: (t["x"], t["y"], t["marker"]["symbol"]) for t in figure["data"]}
    assert points == {"steady": ([40], [2], "circle"), "fluctuates": ([80, 60], [3, 1], "x-thin")}
    assert figure["layout"]["yaxis"]["ticktext"] == ["1: start 8, T 80", "2: start 8, T 40", "3: start 8, T 60"]
    assert figure["layout"]["meta"]["table"]["rows"][1] == [2, 8, 40, "steady"]
    go = pytest.importorskip("plotly.graph_objects")
    go.Figure(figure)
    empty = figures.search_path(PROBES.iloc[:0])
    assert empty["layout"]["annotations"][0]["text"] == "no probe has ended yet"


# --- final loss over learning rate, and stability over both axes -----------------------------------------------------


def test_final_loss_over_learning_rate_marks_what_diverged(report: ReportData) -> None:
    made = figures.lr_responses(report.instability.responses, unigram={"0": 3.3})
    assert list(made) == ["batch 16", "batch 64"]
    layout = made["batch 16"]["layout"]
    assert layout["xaxis"]["type"] == "log"
    assert [s["y0"] for s in layout["shapes"]] == [3.3]
    marks = {t["marker"]["symbol"]: t for t in made["batch 16"]["data"] if t["mode"] == "markers"}
    crosses = marks["x-thin"]
    assert crosses["name"] == "baseline"
    assert crosses["y"][0] > 3.3  # above every loss and the line
    assert crosses["y"][0] <= layout["yaxis"]["range"][1]
    rows = [dict(zip(layout["meta"]["table"]["columns"], r, strict=True)) for r in layout["meta"]["table"]["rows"]]
    (bad,) = [r for r in rows if r["diverged"]]
    assert (bad["curriculum"], bad["lr"], bad["seeds"], bad["diverged"]) == ("baseline", 8e-3, 2, 1)
    ended = report.runs[(report.runs["curriculum"] == "baseline") & (report.runs["global_batch_size"] == 16)]
    ended = ended[(ended["lr"] == 8e-3) & (ended["state"] == "DONE")]
    assert bad["final_loss"] == bad["lowest"] == bad["highest"] == pytest.approx(ended["final_loss"].item())
    json.dumps(made, allow_nan=False)


def test_joint_maps_count_stable_seeds(report: ReportData) -> None:
    made = figures.joint_maps(report.instability.joint)
    assert list(made) == ["baseline", "fixed_linear"]
    (heat,) = made["baseline"]["data"]
    assert heat["text"] == [["2/2", "1/2"], ["2/2", "2/2"]]
    assert heat["z"] == [[0.0, 0.5], [0.0, 0.0]]
    assert heat["y"] == ["16 (1x)", "64 (4x)"]
    assert heat["x"] == ["2e-3<br>1x", "8e-3<br>4x"]
    table = made["baseline"]["layout"]["meta"]["table"]
    assert len(table["rows"]) == 8  # of both methods
    assert figures.joint_maps([]) == {}
