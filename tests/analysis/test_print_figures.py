"""Figures for print: a column wide, text and lines only, drawn offline; what is said where they cannot be drawn."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from analysis import __main__ as cli
from analysis import figures, print_figures
from analysis.figures.printed import over_time, printed
from analysis.page import document
from analysis.page.data import ReportData
from tests.analysis.folders import make_sweep, pair
from tests.analysis.synthetic import make_report


@pytest.fixture(scope="module")
def report() -> ReportData:
    return make_report()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A baseline and a curriculum with a file name's worst characters in the sweep's name."""
    return make_sweep(tmp_path, pair(tmp_path, [4.0, 3.0, 2.0], [4.0, 2.0, 1.5]), name="a_b & c")


@pytest.fixture
def chromium() -> None:
    if shutil.which("chromium") is None:
        words = "Chromium is missing: install it (Debian: apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)


def key_of(figure: figures.Figure) -> list[str]:
    """Words of the key, which is placed by pixels from the plot's corner."""
    return [a["text"] for a in figure["layout"]["annotations"] if a.get("xref") == "paper" and "xshift" in a]


def test_printed_figures_are_those_of_the_page(report: ReportData) -> None:
    static = print_figures.static(report)
    names = ["validation", "savings", "over_targets", "frontier", "training", "schedule", "hours", "throughput"]
    over_time = ["validation_time", "training_time", "schedule_time"]
    maps = ["stability_baseline", "stability_fixed_linear", "joint_baseline", "joint_fixed_linear"]
    responses = ["lr_response_batch_16", "lr_response_batch_64"]
    assert set(static) == {*names, *over_time, *maps, *responses, "variance_l1", "variance_max"}
    drawn = document.all_figures(report)
    for name in ("validation", "training", "schedule", "savings"):
        assert [(t["x"], t["y"]) for t in static[name]["data"]] == [(t["x"], t["y"]) for t in drawn[name]["data"]]
        colors = [{(t.get("line") or t["marker"])["color"] for t in f["data"]} for f in (static[name], drawn[name])]
        assert colors[0] == colors[1]
    assert "customdata" in drawn["validation"]["data"][0]  # the page's own are left as they are


@pytest.mark.parametrize(("width", "px"), [("one", 317), ("two", 662)])
def test_a_printed_figure_is_a_column_wide_on_white(report: ReportData, width: figures.Width, px: int) -> None:
    for figure in print_figures.static(report, width).values():
        layout = figure["layout"]
        assert layout["width"] == px  # 3.3 and 6.9 in at 96 px
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "white"
        assert "title" not in layout
        sizes = [layout["font"]["size"], *(layout[a]["title"]["font"]["size"] for a in ("xaxis", "yaxis"))]
        assert sizes == [9.33, 10.67, 10.67]  # 7 and 8 pt


def test_lines_are_named_by_what_their_look_stands_for(report: ReportData) -> None:
    static = print_figures.static(report)
    looks = ["baseline", "fixed_linear", "batch 16", "batch 64", "LR 2e-3", "LR 8e-3"]
    assert key_of(static["validation"]) == [*looks, "diverged", "target"]
    assert key_of(static["training"]) == [*looks, "diverged"]
    assert key_of(static["over_targets"]) == [*looks[1:], "target"]
    assert sorted(key_of(static["savings"])) == ["bound: at most", "one seed", "time", "tokens"]
    assert key_of(static["variance_max"]) == looks[:2]
    # the diverged baseline ends above the view, and is marked at its edge
    assert [a["text"] for a in static["validation"]["layout"]["annotations"] if "xshift" not in a] == ["×"]


def test_the_key_fits_the_width(report: ReportData) -> None:
    layout = print_figures.static(report)["validation"]["layout"]
    for words in layout["annotations"]:
        if "xshift" in words:
            right = layout["margin"]["l"] + words["xshift"] + 5.4 * len(words["text"])
            assert right <= layout["width"]


def test_curves_over_time_hold_the_times_of_their_points(report: ReportData) -> None:
    figure = document.all_figures(report)["validation"]
    timed = over_time(figure)
    assert timed is not None
    assert timed["layout"]["xaxis"]["title"]["text"] == "training time (seconds)"
    for before, after in zip(figure["data"], timed["data"], strict=True):
        assert after["x"] == [point[2] for point in before["customdata"]]
    assert figure["layout"]["xaxis"]["title"]["text"] == "consumed tokens"
    assert over_time(document.all_figures(report)["savings"]) is None


def test_a_printed_map_is_rectangles() -> None:
    heat = {
        "type": "heatmap",
        "x": ["1e-3", "2e-3"],
        "y": ["16"],
        "z": [[1.5, None]],
        "text": [["1.50", ""]],
        "zmin": 1.0,
        "zmax": 2.0,
        "colorscale": [[0, "rgba(213,94,0,0.0)"], [1, "rgba(213,94,0,0.8)"]],
    }
    axis = figures.style.styled_axis("learning rate", type="category")
    figure = printed({"data": [heat], "layout": figures.style.styled_layout(114, axis, axis)})
    assert [t["type"] for t in figure["data"]] == ["scatter"]
    assert figure["data"][0]["text"] == ["1.50"]
    (square,) = figure["layout"]["shapes"]
    assert square["fillcolor"] == "rgba(213,94,0,0.400)"  # half way up the scale
    assert figure["layout"]["xaxis"]["range"] == [-0.5, 1.5]  # the one not run keeps its place


def test_figures_that_show_nothing_are_left_out(report: ReportData) -> None:
    unmeasured = report.stability.assign(max_loss_ratio=math.nan, diverged=False)
    cost = dataclasses.replace(report.cost, throughput=report.cost.throughput.iloc[:0])
    few = {**vars(report), "stability": unmeasured, "train": report.train.iloc[:0], "cost": cost}
    names = list(print_figures.static(ReportData(**few)))
    assert {"validation", "savings"} <= set(names)
    assert not {n for n in names if n.startswith(("stability", "training", "schedule", "variance", "throughput"))}


def test_names_that_no_file_can_hold_do_not_collide(report: ReportData) -> None:
    renamed = {"baseline": "a/b", "fixed_linear": "a b"}
    stability = report.stability.assign(curriculum=report.stability["curriculum"].map(renamed))
    names = list(print_figures.static(ReportData(**{**vars(report), "stability": stability})))
    assert [n for n in names if n.startswith("stability")] == ["stability_a_b", "stability_a_b_"]


@pytest.mark.browser
@pytest.mark.usefixtures("chromium")
def test_the_command_writes_vector_files_and_tables(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", str(sweep), "--format", "svg"]) == 0
    out = sweep / "figures"
    assert capsys.readouterr().out == f"11 figures, 10 tables in LaTeX and Markdown  {out}\n"
    for path in out.glob("*.svg"):
        svg = path.read_text()
        assert 'width="317"' in svg
        assert "<image" not in svg, path
        assert "http" not in svg.replace("http://www.w3.org/", ""), path
    assert "fixed_linear" in (out / "validation.svg").read_text()
    names = ["correlation", "cost", "crossings", "deepest", "events", "frontier", "joint_boundary", "lr_response"]
    names += ["savings", "stability"]
    assert sorted(p.stem for p in out.glob("*.tex")) == sorted(p.stem for p in out.glob("*.md")) == names
    assert "fixed\\_linear" in (out / "savings.md").read_text()


@pytest.mark.browser
@pytest.mark.usefixtures("chromium")
def test_a_pdf_has_its_size_in_inches_its_fonts_and_no_image(report: ReportData) -> None:
    static = print_figures.static(report, "two")
    for name in ("validation", "stability_baseline"):
        (pdf,) = print_figures.draw({name: static[name]}, "pdf").values()
        assert pdf.startswith(b"%PDF")
        box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
        assert box
        assert float(box[1]) == pytest.approx(6.9 * 72, abs=1)
        assert float(box[2]) == pytest.approx(static[name]["layout"]["height"] * 0.75, abs=1)
        assert b"/FontFile2" in pdf  # text, its font embedded
        assert b"/Subtype /Image" not in pdf


def test_without_kaleido_tables_are_written_and_the_remedy_named(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert cli.main(["figures", str(sweep), "--out", str(tmp_path / "print")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    remedy = '.venv/bin/pip install -c constraints.txt -e ".[figures]"'
    assert line.endswith(f"kaleido is not installed (the tables are written); run: {remedy}")
    assert len(list((tmp_path / "print").iterdir())) == 20


@pytest.mark.browser
def test_without_a_browser_the_remedy_is_named(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    assert cli.main(["figures", str(sweep)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: figures: no Chromium or Chrome found; install one")
    assert "BROWSER_PATH" in line


@pytest.mark.browser
def test_a_browser_that_cannot_start_is_one_line(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROWSER_PATH", shutil.which("false") or "/bin/false")
    assert cli.main(["figures", str(sweep)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: figures: the browser did not draw")


@pytest.mark.parametrize(("option", "value"), [("--format", "png"), ("--width", "three")])
def test_unknown_options_name_the_valid_ones(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "somewhere", option, value]) == 2
    assert f"'{value}' is not one of '" in capsys.readouterr().err
