"""The page of 192 runs in headless Chromium: its size, and seconds until the first and the last figure are drawn."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import heading, ratio, result, size
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.page.document import render
from tests.analysis.page.test_page import LAUNCH_ARGS
from tests.analysis.synthetic import make_report

_TIMES = size(5, 1)
_LRS, _SEEDS = size(((1e-3, 2e-3, 4e-3, 8e-3), 4), ((1e-3, 2e-3), 2))


def main() -> None:
    """Measure and print."""
    heading("the page of 192 runs in Chromium")
    chromium = shutil.which("chromium")
    if chromium is None:
        print("  not measured: Chromium is missing")
        return
    report = make_report(methods=3, batches=(16, 32, 64, 128), lrs=_LRS, seeds=_SEEDS)
    html = render(report)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        file = Path(place) / "report.html"
        file.write_text(html, encoding="utf-8")
        blank = Path(place) / "plotly.html"
        blank.write_text(f"<html data-shown data-ready><script>{get_plotlyjs()}</script></html>", encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=LAUNCH_ARGS)
        took = []
        for path in [blank, *[file] * _TIMES]:
            page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
            started = time.perf_counter()
            page.goto(path.as_uri(), wait_until="load" if path == blank else "commit")
            laps = []
            for mark in ("shown", "ready"):
                page.wait_for_selector(f"html[data-{mark}]", timeout=60_000)
                laps.append(time.perf_counter() - started)
            took.append(laps)
            drawn = page.locator(".js-plotly-plot").count()
        browser.close()
    first, whole = (statistics.median(lap[i] for lap in took[1:]) for i in (0, 1))
    size = len(html.encode()) / 1e6
    result("size, the plotting library included", f"{size:.2f} MB", "<= 6 MB", size <= 6)
    result(f"seconds to the first figure, median of {_TIMES}", f"{first:.2f} s", "<= 2 s", first <= 2)
    print(f"  to all {drawn} figures {whole:.2f} s; an empty page with the plotting library alone {took[0][0]:.2f} s")
    ratio("an empty page with the plotting library", first / took[0][0])


if __name__ == "__main__":
    main()
