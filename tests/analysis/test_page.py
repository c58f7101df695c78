"""The report page in a real browser: what a reader sees, and what a hostile name cannot do."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from analysis import figures
from analysis.page import SIZE_LIMIT_BYTES, ReportData, render, script_json
from tests.analysis.synthetic import SPIKE_LOSS, make_report

LAUNCH_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
EVIL = "<script>window.pwned=1</script>"
EVIL_END = '</script><img src=x onerror="window.pwned=2"><b>\'&amp;\u2028'


@dataclass
class Opened:
    """A loaded page and what it said and asked for on the way."""

    page: Page
    messages: list[str]
    requests: list[str]


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        words = "Chromium is missing: install it (Debian: apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=LAUNCH_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    contexts = []

    def opened(report: ReportData, width: int = 1200, scheme: str = "light") -> Opened:
        file = tmp_path / "report.html"
        file.write_text(render(report), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        result = Opened(page, [], [])
        page.on("console", lambda message: result.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: result.messages.append(f"error: {error}"))
        page.on("request", lambda request: result.requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        return result

    yield opened
    for context in contexts:
        context.close()


def drawn_lines(page: Page, plot: str) -> int:
    """Line paths with a real extent."""
    script = "(ps) => ps.filter(p => p.getAttribute('d').length > 20 && p.getBoundingClientRect().width > 50).length"
    return int(page.locator(f"#{plot} .scatterlayer path.js-line").evaluate_all(script))


@pytest.mark.browser
def test_page_says_the_verdict_and_draws_quietly(open_report: Open) -> None:
    report = make_report()
    opened = open_report(report)
    page = opened.page
    assert page.locator("h1").inner_text() == report.verdict["sentence"]
    for caveat in report.verdict["caveats"]:
        assert page.get_by_text(caveat).is_visible()
    assert drawn_lines(page, "validation") == len(report.runs)
    assert drawn_lines(page, "training") == len(report.runs)
    assert drawn_lines(page, "schedule") == 4  # two curricula at two batch sizes
    assert page.locator("#savings .points path").count() > 4
    assert page.locator("#stability-0 .heatmaplayer image, #stability-0 .hm").count() >= 1
    assert opened.messages == []
    assert [url.split(":")[0] for url in opened.requests if not url.startswith("data:")] == ["file"]


@pytest.mark.browser
def test_switch_moves_every_curve_to_seconds(open_report: Open) -> None:
    page = open_report(make_report()).page
    title = page.locator("#validation .xtitle")
    # a curriculum run: the baseline's seconds are proportional to its tokens
    line = page.locator("#validation path.js-line").last
    before = line.get_attribute("d")
    assert title.text_content() == "consumed tokens"
    page.locator("[data-axis=seconds]").first.focus()
    page.keyboard.press("Enter")
    expect(title).to_have_text("training time (seconds)")
    expect(page.locator("#training .xtitle")).to_have_text("training time (seconds)")
    assert page.locator("[data-axis=seconds][aria-pressed=true]").count() == 3
    assert line.get_attribute("d") != before


@pytest.mark.browser
def test_target_can_be_typed_dragged_and_moved_by_keys(open_report: Open) -> None:
    report = make_report()
    page = open_report(report).page
    explore = page.locator("#explore")
    assert not explore.is_visible()

    page.locator("#target").fill("12")
    assert explore.is_visible()
    assert "no part of the verdict" in explore.inner_text()
    run = report.evals[report.evals["run_id"] == report.runs["run_id"].iloc[0]]
    # by hand: the first segment that falls through ln 12, linear in loss over tokens
    loss, tokens = run["val_loss"].to_numpy(), run["consumed_tokens"].to_numpy()
    i = int(np.argmax(loss <= np.log(12)))
    share = (loss[i - 1] - np.log(12)) / (loss[i - 1] - loss[i])
    expected = tokens[i - 1] + share * (tokens[i] - tokens[i - 1])
    shown = page.locator("#explore-rows tr").first.locator("td").nth(1).inner_text()
    # perplexities travel with 5 significant digits
    assert float(shown.replace(",", "")) == pytest.approx(expected, rel=1e-3)

    page.locator("#target-reset").click()
    assert not explore.is_visible()

    grip = page.locator("#target-grip")
    grip.focus()
    page.keyboard.press("ArrowUp")
    assert explore.is_visible()
    assert float(grip.get_attribute("aria-valuenow") or 0) > report.verdict["target_ppl"]

    box = grip.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] - 150)
    page.mouse.up()
    assert float(page.locator("#target").input_value()) > 11


@pytest.mark.browser
def test_key_hides_lines(open_report: Open) -> None:
    page = open_report(make_report()).page
    page.locator(".key input[data-field=method][value=baseline]").uncheck()
    expect(page.locator("#validation path.js-line")).to_have_count(8)
    expect(page.locator("#training path.js-line")).to_have_count(8)


@pytest.mark.browser
def test_data_is_one_click_away(open_report: Open, tmp_path: Path) -> None:
    page = open_report(make_report()).page
    for name, head in {
        "validation": '"run_id","step","consumed_tokens","train_seconds","seqlen","val_ppl"',
        "savings": '"cell","what","saving_pct","low_pct","high_pct"',
        "stability": '"curriculum","global_batch_size","lr","max_loss_ratio","runs","diverged"',
        "training": '"run_id","step","consumed_tokens","train_seconds","seqlen","loss"',
        "schedule": '"run_id","step","consumed_tokens","train_seconds","seqlen"',
    }.items():
        button = page.locator(f"[data-csv={name}]")
        button.locator("xpath=..").locator("summary").click()
        with page.expect_download() as download:
            button.click()
        saved = tmp_path / f"{name}.csv"
        download.value.save_as(saved)
        lines = saved.read_text().splitlines()
        assert lines[0] == head
        assert len(lines) > 4


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_follow_the_colour_scheme(open_report: Open, scheme: str) -> None:
    page = open_report(make_report(seeds=1), scheme=scheme).page
    tick = page.locator("#validation .xtick text").first

    def is_light(colour: str) -> bool:
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) > 384

    def fill() -> str:
        return str(tick.evaluate("(text) => getComputedStyle(text).fill"))

    assert is_light(page.evaluate("getComputedStyle(document.body).backgroundColor")) == (scheme == "light")
    before = fill()
    assert is_light(before) == (scheme == "dark")
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    expect(tick).not_to_have_css("fill", before)
    assert is_light(fill()) == (scheme == "light")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1600])
def test_body_never_scrolls_sideways(open_report: Open, width: int) -> None:
    page = open_report(make_report(), width=width).page
    for details in page.locator("details").all():
        details.locator("summary").first.click()
    page.locator("#target").fill("12")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width


@pytest.mark.browser
def test_untrusted_text_is_shown_and_never_runs(open_report: Open) -> None:
    report = make_report(seeds=1)
    names = {run: f"{EVIL}{i}" for i, run in enumerate(report.runs["run_id"])}

    def rename(frame):  # type: ignore[no-untyped-def]
        columns = [c for c in ("run_id", "baseline_run_id", "best_baseline_run_id") if c in frame]
        out = frame.assign(**{c: frame[c].map(names) for c in columns})
        if "curriculum" in out:
            out["curriculum"] = out["curriculum"].replace("fixed_linear", EVIL_END)
        return out.assign(note=EVIL_END) if "note" in out else out

    cells = [{**c, "curriculum": EVIL_END, "note": EVIL} for c in report.verdict["cells"]]
    verdict = {**report.verdict, "sentence": f"{EVIL} {EVIL_END}", "caveats": [EVIL, EVIL_END], "cells": cells}
    frames = {n: rename(getattr(report, n)) for n in ("runs", "train", "evals", "savings", "stability")}
    hostile = replace(report, title=EVIL, question=EVIL_END, command=EVIL_END, verdict=verdict, **frames)
    opened = open_report(hostile)
    opened.page.locator("#target").fill("12")
    opened.page.locator("[data-axis=seconds]").first.click()
    opened.page.mouse.move(500, 700)
    assert opened.page.evaluate("window.pwned") is None
    assert opened.page.locator("main img").count() == 0
    assert opened.page.locator("main b").count() == 0
    assert EVIL in opened.page.locator("h1").inner_text()
    assert EVIL_END.strip("\u2028") in opened.page.locator("#explore-rows").inner_text()
    assert opened.messages == []


@pytest.mark.browser
def test_print_keeps_every_figure(open_report: Open) -> None:
    page = open_report(make_report(seeds=1)).page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#validation svg.main-svg").first).to_have_attribute("width", "680")
    widths = page.locator(".plot svg.main-svg").evaluate_all("(s) => s.map(e => e.getBoundingClientRect().width)")
    assert widths
    assert max(widths) <= 680
    assert len(page.pdf(format="A4")) > 50_000


@pytest.mark.browser
def test_page_without_any_result(open_report: Open) -> None:
    full = make_report(seeds=1)
    nothing = {n: getattr(full, n).iloc[:0] for n in ("runs", "train", "evals", "savings", "stability")}
    verdict = {**full.verdict, "cells": [], "target_ppl": None, "sentence": "Nothing to compare yet."}
    opened = open_report(replace(full, verdict=verdict, **nothing))
    assert opened.page.locator("h1").inner_text() == "Nothing to compare yet."
    assert opened.page.get_by_text("No run yet.").is_visible()
    assert opened.messages == []


@pytest.mark.browser
def test_two_hundred_runs_stay_small_and_quick(open_report: Open) -> None:
    report = make_report(methods=3, batches=(16, 32, 64, 128), lrs=(1e-3, 2e-3, 4e-3, 8e-3), seeds=4)
    assert len(report.runs) == 192
    assert len(render(report).encode()) <= SIZE_LIMIT_BYTES
    opened = open_report(report)
    assert drawn_lines(opened.page, "validation") == 192
    assert opened.messages == []


def test_script_json_cannot_leave_its_script() -> None:
    text = script_json({"a": "</script><!--\u2028\u2029&"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028\u2029&"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"a": float("nan")})


def test_page_names_no_other_host() -> None:
    html = render(make_report(seeds=1))
    ours = html.split("<script>")[0]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", ours)
    assert escape(make_report().question) in ours


def test_spikes_survive_thinning() -> None:
    y = np.full(10_000, 3.0)
    y[4321], y[4322], y[9998] = 9.0, 1.0, 7.0
    kept = figures.thin_minmax(y, 60)
    assert len(kept) <= 60
    assert {0, 4321, 4322, 9998, 9999} <= set(kept.tolist())

    report = make_report()
    curves = figures.training_curves(report.runs, report.train, max_points=40)
    assert max(len(t["x"]) for t in curves["data"]) <= 40
    spiky = [t for t in curves["data"] if t["meta"]["run_id"] == "tiny_baseline_b64_lr0.008_s1"]
    assert max(spiky[0]["y"]) == SPIKE_LOSS


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


def test_figures_are_valid_plotly_by_themselves() -> None:
    go = pytest.importorskip("plotly.graph_objects")
    r = make_report()
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
