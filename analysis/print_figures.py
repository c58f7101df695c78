"""A report's figures and tables for print: vector files one column wide, LaTeX and Markdown."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from analysis import figures
from analysis.answer import Answer
from analysis.figures import Figure, Width
from analysis.page import cost, document, stability_tables
from analysis.page import tables as page_tables
from analysis.page.data import ReportData
from analysis.renderers import cells_json
from analysis.report import page_data
from analysis.tables import Table
from cl_bench.errors import UserError
from cl_bench.runs.paths import write_atomic

Format = Literal["pdf", "svg"]
FORMATS: tuple[Format, ...] = ("pdf", "svg")

_PAGE_STYLE = "<style>@page { margin: 0 } #kaleido-image { display: block }</style>"
"""Kaleido prints to PDF with margins of 0.1 in otherwise, and shrinks the figure by them."""


@dataclasses.dataclass(frozen=True)
class Published:
    """Names of the files written into `folder`, without their endings."""

    folder: Path
    figures: list[str]
    tables: list[str]


def write(answer: Answer, into: str | Path, form: Format = "pdf", width: Width = "one") -> Published:
    """Write every figure of a report and its tables by cell into a folder.

    Raises UserError, after writing the tables, if figures cannot be drawn.
    """
    folder, written = Path(into), tables(answer)
    for name, table in written.items():
        write_atomic(folder / f"{name}.tex", table.latex(f"tab:{name}"))
        write_atomic(folder / f"{name}.md", table.markdown())
    files = draw(static(page_data(answer), width), form)
    for name, content in files.items():
        write_atomic(folder / f"{name}.{form}", content)
    return Published(folder, list(files), list(written))


def tables(answer: Answer) -> dict[str, Table]:
    """The page's tables with one row per cell, by name."""
    cells = cells_json(answer.cells)
    return {
        "savings": page_tables.cells_table(cells),
        "deepest": page_tables.deepest_table(cells),
        "crossings": page_tables.crossings_table(cells),
        "stability": stability_tables.stability_table(answer.stability),
        "frontier": stability_tables.frontier_table(answer.frontier, "lr"),
        "joint_boundary": stability_tables.joint_table(answer.instability.joint),
        "lr_response": stability_tables.responses_table(answer.instability.responses),
        "events": stability_tables.events_table(answer.instability.rates),
        "correlation": page_tables.correlation_table(answer.correlation),
        "cost": cost.cost_cells_table(answer.cost),
    }


def static(report: ReportData, width: Width = "one") -> dict[str, Figure]:
    """Every figure of the page for print, by file name; curves over tokens and, as NAME_time, over training time.

    Figures without any value, such as maps of curves without training steps, are left out.
    """
    papers: dict[str, Figure] = {}
    for place, figure in document.all_figures(report).items():
        name = _file_name(place, report)
        while name in papers:  # two curricula whose names differ in characters that a file's name cannot hold
            name += "_"
        for suffix, form in (("", figure), ("_time", figures.over_time(figure))):
            paper = figures.printed(form, width) if form is not None else None
            if paper and any(x is not None for trace in paper["data"] for x in trace["x"]):
                papers[name + suffix] = paper
    return papers


def _file_name(place: str, report: ReportData) -> str:
    """File name for a figure's place in the page; numbered places are named by curriculum or batch instead."""
    kind, _, number = place.rpartition("-")
    if number.isdigit():
        titles = {
            "stability": list(figures.stability_maps(report.stability)),
            "joint": list(figures.joint_maps(report.instability.joint)),
            "lr-response": list(figures.lr_responses(report.instability.responses)),
        }
        place = f"{kind}_{titles[kind][int(number)]}"
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in place)


def draw(printed: Mapping[str, Figure], form: Format) -> dict[str, bytes]:
    """Vector files of figures by name, drawn in one headless Chromium without a network.

    Raises UserError if kaleido or a browser is missing.
    """
    try:
        import kaleido  # an extra that only printing needs
        from kaleido import errors
    except ImportError:
        raise UserError(
            "figures: kaleido is not installed (the tables are written); run: "
            '.venv/bin/pip install -c constraints.txt -e ".[figures]"'
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[dict[str, Any]] = []
        for name, figure in printed.items():
            size = {key: figure["layout"][key] for key in ("width", "height")}
            jobs.append({"fig": figure, "path": f"{folder}/{name}.{form}", "opts": {"format": form, **size}})
        # plotly.js is the one that plotly ships; MathJax would come from the network.
        generator = kaleido.PageGenerator(mathjax=False)
        generator.header += _PAGE_STYLE
        try:
            kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"page_generator": generator})
        except errors.ChromeNotFoundError:
            raise UserError(
                "figures: no Chromium or Chrome found; install one (Debian: apt install chromium), or set BROWSER_PATH "
                "to its program"
            ) from None
        except (errors.BrowserFailedError, errors.BrowserClosedError, TimeoutError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"figures: the browser did not draw ({words}); does `chromium --version` work?") from None
        return {name: Path(folder, f"{name}.{form}").read_bytes() for name in printed}
