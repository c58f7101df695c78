"""The report page in a real browser: what a reader sees, and what a hostile name cannot do."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from analysis.page import html
from analysis.page import tune as tune_page
from analysis.page.data import ReportData
from analysis.page.document import SIZE_LIMIT_BYTES, render
from analysis.page.html import script_json
from analysis.tables import Column, Table
from cl_bench.runs.search_record import Cost, Outcome, Probe, SearchRecord
from tests.analysis.synthetic import make_report

LAUNCH_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
FRAMES = ("runs", "train", "evals", "savings", "stability", "frontier", "correlation")
OPEN = "(all) => all.map(details => details.open)"
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


@pytest.fixture(scope="module")
def open_report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Opens a rendered page in a window of its own; loading takes seconds, so share what can be shared."""

    def opened(html: str, width: int = 1200, scheme: str = "light") -> Opened:
        file = tmp_path_factory.mktemp("page") / "report.html"
        file.write_text(html, encoding="utf-8")
        page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        result = Opened(page, [], [])
        page.on("console", lambda message: result.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: result.messages.append(f"error: {error}"))
        page.on("request", lambda request: result.requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        page.locator("details.part").evaluate_all("(parts) => parts.forEach((part) => (part.open = true))")
        page.wait_for_selector("html[data-undrawn='0']", timeout=60_000)
        return result

    return opened


@pytest.fixture(scope="module")
def report() -> ReportData:
    return make_report()


@pytest.fixture(scope="module")
def small_html() -> str:
    return render(make_report(batches=(16,), seeds=1))


@pytest.fixture(scope="module")
def shared(open_report: Open, report: ReportData) -> Opened:
    return open_report(render(report))


@pytest.fixture
def page(shared: Opened) -> Iterator[Page]:
    """The shared page; whatever a test chose on it is put back."""
    yield shared.page
    shared.page.locator("[data-axis=tokens]").first.click()
    if shared.page.locator("#target-reset").is_visible():
        shared.page.locator("#target-reset").click()
    for box in shared.page.locator(".key input:not(:checked)").all():
        box.check()
    assert shared.messages == []


def drawn_lines(page: Page, plot: str) -> int:
    """Line paths with a real extent."""
    script = "(ps) => ps.filter(p => p.getAttribute('d').length > 20 && p.getBoundingClientRect().width > 50).length"
    return int(page.locator(f"#{plot} .scatterlayer path.js-line").evaluate_all(script))


def downloaded(page: Page, figure: str, folder: Path) -> list[str]:
    """Lines of the CSV file that a figure's button saves."""
    button = page.locator(f"[data-csv={figure}]")
    button.locator("xpath=..").locator("summary").click()
    with page.expect_download() as download:
        button.click()
    saved = folder / f"{figure}.csv"
    download.value.save_as(saved)
    return saved.read_text().splitlines()


@pytest.mark.browser
def test_page_says_the_verdict_and_draws_quietly(shared: Opened, report: ReportData) -> None:
    page = shared.page
    first, *further = report.verdict["headline"]
    assert page.locator("h1").inner_text() == first
    assert page.locator("header .second").all_inner_texts() == further
    for name in ("glance-tokens", "glance-time"):
        assert page.locator(f"#{name} .points path").count() == len(report.verdict["cells"])
    assert page.locator("#glance-stability-0 .heatmaplayer image, #glance-stability-0 .hm").count() >= 1
    for caveat in report.verdict["caveats"]:
        assert page.get_by_text(caveat).is_visible()
    assert drawn_lines(page, "validation") == len(report.runs)
    assert drawn_lines(page, "training") == len(report.runs)
    assert drawn_lines(page, "schedule") == 4  # two curricula at two batch sizes
    assert page.locator("#savings .points path").count() > 4
    assert drawn_lines(page, "throughput") == 2  # the baseline is a mark
    assert page.locator("#hours .barlayer .point path").count() >= 2
    assert page.locator("#frontier .points path").count() > 4
    assert page.locator("#variance-l1 .points path").count() == page.locator("#variance-max .points path").count() > 100
    assert page.locator("#stability-0 .heatmaplayer image, #stability-0 .hm").count() >= 1
    assert shared.messages == []
    assert [url.split(":")[0] for url in shared.requests if not url.startswith("data:")] == ["file"]


@pytest.mark.browser
def test_stability_begins_with_its_sentence(page: Page) -> None:
    section = page.locator("section[aria-labelledby=h-stability]")
    assert section.locator("p").first.inner_text() == (
        "Largest stable LR at batch 16: baseline 2e-3, fixed_linear at least 8e-3 (4x or more). "
        "The table has 1 more batch size."
    )
    captions = section.locator("caption").all_inner_texts()
    assert "Largest LR stable on every seed, by batch" in captions
    correlations = page.locator("section[aria-labelledby=h-correlation] caption").all_inner_texts()
    assert correlations == ["Correlation of a step's loss ratio with Adam's variance"]
    row = section.get_by_role("row", name=re.compile("^16 fixed_linear at least 8e-3 4x or more above 1x"))
    assert row.count() == 1


@pytest.mark.browser
def test_double_click_shows_what_the_first_view_leaves_out(page: Page) -> None:
    assert (
        "part of the first 5% of the budget"
        in page.locator("section[aria-labelledby=h-curves] figcaption").inner_text()
    )
    grip = page.locator("#target-grip")  # its largest value is the top of the view
    first = grip.get_attribute("aria-valuemax") or ""
    assert float(first) < 100
    page.locator("#validation .nsewdrag").dblclick(position={"x": 300, "y": 100})
    expect(grip).not_to_have_attribute("aria-valuemax", first)
    assert float(grip.get_attribute("aria-valuemax") or 0) > math.exp(5.4)  # the untrained start is near exp(5.5)
    page.locator("#validation [data-title='Reset axes']").click()
    expect(grip).to_have_attribute("aria-valuemax", first)


@pytest.mark.browser
def test_switch_moves_every_curve_to_seconds(page: Page) -> None:
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
def test_target_can_be_typed_dragged_and_moved_by_keys(page: Page, report: ReportData) -> None:
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
def test_key_hides_lines(page: Page) -> None:
    page.locator(".key input[data-field=method][value=baseline]").uncheck()
    expect(page.locator("#validation path.js-line")).to_have_count(8)
    expect(page.locator("#training path.js-line")).to_have_count(8)


@pytest.mark.browser
def test_data_is_one_click_away(page: Page, tmp_path: Path) -> None:
    for name, head in {
        "validation": '"run_id","step","consumed_tokens","train_seconds","seqlen","val_ppl"',
        "savings": '"cell","what","saving_pct","low_pct","high_pct"',
        "frontier": '"curriculum","global_batch_size","max_loss_ratio_allowed","kind","largest_stable_lr",'
        '"unstable_from_lr","multiple_relation","multiple","tested_lr","runs","diverged","unfinished","note",'
        '"criterion","unstable_runs","did_not_learn"',
        "joint-0": '"curriculum","global_batch_size","lr","batch_multiple","lr_multiple","seeds","stable","unstable",'
        '"undecided"',
        "lr-response-0": '"curriculum","global_batch_size","lr","final_loss","lowest","highest","seeds","diverged",'
        '"did_not_learn","useful"',
        "stability": '"curriculum","global_batch_size","lr","max_loss_ratio","runs","diverged","finished",'
        '"diverged_low_pct","diverged_high_pct"',
        "variance-l1": '"run_id","step","adam_var_l1","loss_ratio"',
        "variance-max": '"run_id","step","adam_var_max","loss_ratio"',
        "training": '"run_id","step","consumed_tokens","train_seconds","seqlen","loss"',
        "schedule": '"run_id","step","consumed_tokens","train_seconds","seqlen"',
        "hours": '"method","training_rank_hours","evaluation_rank_hours","lost_rank_hours","tuning_rank_hours"',
        "throughput": '"curriculum","global_batch_size","seqlen","steps","tokens_per_second"',
    }.items():
        lines = downloaded(page, name, tmp_path)
        assert lines[0] == head
        assert len(lines) > (2 if name == "hours" else 4)  # one row a curriculum


@pytest.mark.browser
def test_narrow_and_dark_from_the_start_then_wide_and_light(open_report: Open, small_html: str) -> None:
    page = open_report(small_html, width=360, scheme="dark").page
    tick = page.locator("#validation .xtick text").first

    def is_light(colour: str) -> bool:
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) > 384

    def paper_and_ink() -> tuple[bool, bool]:
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return is_light(paper), is_light(tick.evaluate("(text) => getComputedStyle(text).fill"))

    def widest() -> int:
        return int(page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"))

    assert paper_and_ink() == (False, True)
    for details in page.locator("details:not(.part)").all():
        details.locator("summary").first.click()
    page.locator("#target").fill("12")
    assert widest() <= 360

    before = tick.evaluate("(text) => getComputedStyle(text).fill")
    page.emulate_media(color_scheme="light")
    expect(tick).not_to_have_css("fill", before)
    assert paper_and_ink() == (True, False)

    page.set_viewport_size({"width": 1600, "height": 900})
    expect(page.locator("#validation svg.main-svg").first).not_to_have_attribute("width", re.compile(r"^[1-3]\d\d$"))
    assert widest() <= 1600


@pytest.mark.browser
def test_untrusted_text_is_shown_and_never_runs(open_report: Open) -> None:
    report = make_report(batches=(16,), seeds=1)
    names = {run: f"{EVIL}{i}" for i, run in enumerate(report.runs["run_id"])}

    def rename(frame):  # type: ignore[no-untyped-def]
        columns = [c for c in ("run_id", "baseline_run_id", "best_baseline_run_id") if c in frame]
        out = frame.assign(**{c: frame[c].map(names) for c in columns})
        if "curriculum" in out:
            out["curriculum"] = out["curriculum"].replace("fixed_linear", EVIL_END)
        return out.assign(note=EVIL_END) if "note" in out else out

    cells = [
        {**c, "curriculum": EVIL_END, "note": EVIL, "run_ids": [names[run] for run in c["run_ids"]]}
        for c in report.verdict["cells"]
    ]
    verdict = {
        **report.verdict,
        "headline": [f"{EVIL} {EVIL_END}", EVIL, EVIL_END],
        "caveats": [EVIL, EVIL_END],
        "cells": cells,
    }
    frames = {n: rename(getattr(report, n)) for n in FRAMES}
    hostile = replace(report, title=EVIL, question=EVIL_END, command=EVIL_END, verdict=verdict, **frames)
    opened = open_report(render(hostile))
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
def test_print_keeps_every_figure(page: Page) -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#validation svg.main-svg").first).to_have_attribute("width", "680")
    widths = page.locator(".plot svg.main-svg").evaluate_all("(s) => s.map(e => e.getBoundingClientRect().width)")
    assert widths
    assert max(widths) <= 680
    assert len(page.pdf(format="A4")) > 50_000
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("#validation svg.main-svg").first).not_to_have_attribute("width", "680")


@pytest.mark.browser
def test_a_page_that_loads_itself_again_comes_back_as_it_was_left(open_report: Open) -> None:
    report = replace(make_report(batches=(16,), seeds=1), refresh_s=3000.0)
    page = open_report(render(report)).page
    assert "Still running" in page.get_by_role("status").first.inner_text()
    page.locator("[data-axis=seconds]").first.click()
    page.locator(".key input[data-field=method][value=baseline]").uncheck()
    page.locator("#target").fill("12")
    page.locator("details.part > summary").nth(1).click()
    opened = page.locator("details").evaluate_all(OPEN)
    parts = page.locator("details.part").evaluate_all(OPEN)
    assert parts == [True, False] + [True] * (len(parts) - 2)
    page.evaluate("scrollTo(0, 700)")
    page.reload()
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    assert page.locator("[data-axis=seconds]").first.get_attribute("aria-pressed") == "true"
    assert not page.locator(".key input[data-field=method][value=baseline]").is_checked()
    expect(page.locator("#target")).to_have_value("12")
    assert page.locator("details").evaluate_all(OPEN) == opened
    assert page.evaluate("scrollY") == 700


@pytest.mark.browser
def test_a_link_opens_the_part_it_leads_to(browser: Browser, tmp_path: Path, small_html: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(small_html, encoding="utf-8")
    page = browser.new_page()
    page.goto(f"{file.as_uri()}#q-cost")
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    parts = "(parts) => parts.filter((part) => part.open).map((part) => part.id)"
    assert page.locator("details.part").evaluate_all(parts) == ["q-curves", "q-cost"]
    page.evaluate("location.hash = '#h-correlation'")  # a heading within a part
    expect(page.locator("#variance-l1 .points path").first).to_be_visible()
    assert "q-correlation" in page.locator("details.part").evaluate_all(parts)
    page.close()


@pytest.mark.browser
def test_page_without_any_result(open_report: Open) -> None:
    full = make_report(seeds=1)
    nothing = {n: getattr(full, n).iloc[:0] for n in FRAMES}
    verdict = {**full.verdict, "cells": [], "target_ppl": None, "headline": ["Nothing to compare yet."]}
    opened = open_report(render(replace(full, verdict=verdict, **nothing)))
    assert opened.page.locator("h1").inner_text() == "Nothing to compare yet."
    assert opened.page.get_by_text("No run yet.").is_visible()
    assert opened.messages == []


@pytest.mark.browser
def test_two_hundred_runs_stay_small_and_are_all_drawn(open_report: Open) -> None:
    report = make_report(methods=3, batches=(16, 32, 64, 128), lrs=(1e-3, 2e-3, 4e-3, 8e-3), seeds=4)
    assert len(report.runs) == 192
    html = render(report)
    assert len(html.encode()) <= SIZE_LIMIT_BYTES
    opened = open_report(html)
    assert drawn_lines(opened.page, "validation") == 192
    assert opened.messages == []


def search_html() -> str:
    """The page of a search with a steady probe and one that fluctuates at the end."""
    probe = Probe(
        purpose="start",
        start=8,
        duration=80,
        run_id="a",
        beginning_tokens=500,
        tokens=2000,
        train_seconds=8.0,
        eval_seconds=1.0,
        flops=1.0,
        steady=False,
        begins_steady=True,
        worst_ratio=1.5,
        worst_tokens=2000,
        diverged=False,
        words="",
    )
    steady = replace(probe, run_id="b", purpose="T", duration=40, steady=True, worst_ratio=0.7)
    search = SearchRecord(
        name=EVIL,
        settings={"tune.warmups": 3.0, "tune.threshold": 1.3, "tune.skip": 1, "tune.checks": 1},
        run_tokens=20_000,
        run_flops=20.0,
        probes=(probe, steady),
        outcome=Outcome(8, 40, True, 80, words=("Start 8, T = 40 steps: T = 80 fluctuates.", EVIL_END)),
        cost=Cost(2, 4000, 16.0, 2.0, 0.2, 0.1),
    )
    rows = [
        (run, i, 1000 * i, 4.0 * i, ppl)
        for run, end in (("a", 45.0), ("b", 20.0))
        for i, ppl in enumerate([256.0, 30.0, end])
    ]
    evals = pd.DataFrame(rows, columns=["run_id", "step", "consumed_tokens", "train_seconds", "val_ppl"])
    train = pd.DataFrame({"run_id": ["a", "b"], "step": 0, "seqlen": 8})
    return tune_page.render(search, evals, train, preset=f"name: {EVIL}")


@pytest.mark.browser
def test_a_search_has_a_page_like_the_report(open_report: Open, tmp_path: Path) -> None:
    opened = open_report(search_html(), width=700)
    page = opened.page
    assert page.locator("h1").inner_text() == "Start 8, T = 40 steps: T = 80 fluctuates."
    assert drawn_lines(page, "probes") == 2
    assert page.locator("#search .points path").count() == 2
    assert page.locator("#probes .shapelayer path").count() == 1  # the end of the very beginning
    page.locator("[data-axis=seconds]").click()
    expect(page.locator("#probes .xtitle")).to_have_text("training time (seconds)")
    expect(page.locator("#probes .shapelayer path")).to_have_count(0)
    for name, head in {
        "probes": '"run_id","step","consumed_tokens","train_seconds","seqlen","val_ppl"',
        "search": '"probe","start","duration","verdict"',
    }.items():
        assert downloaded(page, name, tmp_path)[0] == head
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img").count() == 0
    assert f"name: {EVIL}" in page.locator("pre").inner_text()
    assert opened.messages == []
    assert [url.split(":")[0] for url in opened.requests if not url.startswith(("data:", "blob:"))] == ["file"]


def test_markup_is_in_templates_alone() -> None:
    folder = Path(html.__file__).parent
    tag = re.compile(r"""["'][^"'\n]*</?(?:p|ul|li|table|t[dhr]|div|span|figure|section|details|svg)\b""")
    for module in [*folder.glob("*.py"), folder.parent / "tables.py"]:
        lines = [line for line in module.read_text().splitlines() if tag.search(line)]
        assert [line for line in lines if "cl-bench" not in line] == [], module


def test_tables_escape_what_they_show() -> None:
    table = Table(EVIL_END, [Column(EVIL, [EVIL_END], number=True)], "")
    text = table.html()
    assert "<script>" not in text
    assert "<img" not in text
    assert text.count(escape(EVIL_END).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) == 3


def test_script_json_cannot_leave_its_script() -> None:
    text = script_json({"a": "</script><!--\u2028\u2029&"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028\u2029&"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"a": float("nan")})


def test_page_names_no_other_host(small_html: str) -> None:
    ours = small_html.split("<script>")[0]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", ours)
    assert escape(make_report().question) in ours
