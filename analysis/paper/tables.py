"""The comparison with the paper as tables: in the terminal and as Markdown, the same rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.paper.words import (
    NONE,
    NOT_MEASURED,
    facts_of,
    measured_claim,
    published_setting,
    setting_here,
    settings_here,
)

_STANDING = {"named": "named only", "derived": "derived"}


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, what to know before reading, and rows; an empty first cell repeats the one above."""

    title: str
    words: tuple[str, ...]
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def head(paper: dict[str, Any]) -> list[str]:
    """What was trained here and what was published."""
    here = paper["runs_here"]
    models = ", ".join(f"{m['name']} ({m['parameters']:,} parameters)" for m in here["models"])
    seeds = ", ".join(str(s) for s in here["seeds"])
    lines = [
        f"Runs here: {models}; {_list(here['token_budgets'])} tokens a run at length {_list(here['max_seqlens'])}; "
        f"{'seed' if len(here['seeds']) == 1 else 'seeds'} {seeds}; {', '.join(here['precisions'])}; "
        f"data: {', '.join(here['data'])}; {here['done']} of {here['runs']} runs done."
    ]
    for e in paper["published_runs"]:
        seed = f"; seed {e['seed']}" if e["seed"] is not None else ""
        machine = f"; {e['machine']}" if e["machine"] else ""
        lines.append(
            f"Published: {e['title']} ({e['n_layers']} layers, width {e['hidden_size']}, {e['n_heads']} heads); "
            f"{e['token_budget']:,} tokens a run at length {e['seqlen']:,}{seed}{machine} (arXiv 2108.06084)."
        )
    return lines


def sections(paper: dict[str, Any]) -> list[Section]:
    """The tables in their order; those without a row are left out, but for cells and claims."""
    found = [_cells(paper), _claims(paper)]
    if paper["same_shape"]:
        found.append(_same_shape(paper))
    if paper["others"]:
        found.append(_others(paper))
    if paper["notes"]:
        found.append(Section("Notes", tuple(paper["notes"])))
    return found


def _cells(paper: dict[str, Any]) -> Section:
    rows: list[tuple[str, ...]] = []
    several = len(paper["published_runs"]) > 1
    for cell in paper["cells"]:
        name = f"{cell['experiment']} {cell['name']}" if several else cell["name"]
        published, standing = cell["published"], _STANDING.get(cell["standing"], "")
        rows.append((name, "setting", published_setting(published, standing), settings_here(cell["measured_here"])))
        end = NONE if published["end_step"] is None else f"{published['end_step']:,}"
        if not cell["measured_here"]:
            rows.append(("", "end step", end, NOT_MEASURED))
        for measured in cell["measured_here"]:
            label = "" if len(cell["measured_here"]) == 1 else f"{measured['cell']}: "
            facts = facts_of(measured)
            other = any(
                r["state"] == "DONE" and published["end_step"] not in (None, r["step"]) for r in measured["runs"]
            )
            rows.append(("", "end step", end, label + facts[0][1] + ("; not the published step" if other else "")))
            rows += [("", what, NONE, text) for what, text in facts[1:]]
    return Section(
        "Published cells",
        (
            f"A run stands here only with every verified value of the cell; its text is not compared. {NONE}: no "
            "verified published figure. "
            "Named only: compared in the paper, its open values are the sweep's. Derived: arithmetic on published "
            "values. Tokens and time: to the final perplexity of the small baseline of the same seed.",
        ),
        ("cell", "", "published", "measured here"),
        tuple(rows),
    )


def _claims(paper: dict[str, Any]) -> Section:
    rows = []
    for claim in paper["claims"]:
        what = {"validation": "at equal validation perplexity", "zero-shot": "at equal WikiText-103 and LAMBADA"}
        held = what.get(claim["at"], "at 99% of the accuracy on 11 tasks" if claim["at"] == "11 tasks" else "stability")
        text = f"{claim['series']}: {claim['what']} {held}" if claim["what"] else f"{claim['series']}: {held}"
        rows.append((claim["version"], text, claim["published"], measured_claim(claim)))
    return Section(
        "Claims",
        (
            "Measured here: the published cells' runs alone, at the final quality of the small baseline of the same "
            "seed; seeds put together by the geometric mean, with a 95% interval. Zero-shot: up to the first evaluated "
            "save that is as good in both tasks, so at least so much.",
        ),
        ("version", "claim", "published", "measured here"),
        tuple(rows),
    )


def _same_shape(paper: dict[str, Any]) -> Section:
    rows: list[tuple[str, ...]] = []
    for one in paper["same_shape"]:
        measured = one["measured_here"]
        rows.append((measured["cell"], "shape of", one["shape_of"]))
        rows.append(("", "setting", setting_here(measured)))
        rows += [("", what, text) for what, text in facts_of(measured)]
    return Section(
        "Same shape at another scale",
        (
            "These runs are not the published cells: same method, batch and learning rate as multiples of the small "
            "baseline's, and length warmup as a share of the baseline's steps (within a tenth), at another model, "
            "length or token budget. No published figure applies to them.",
        ),
        ("cell", "", "measured here"),
        tuple(rows),
    )


def _others(paper: dict[str, Any]) -> Section:
    rows = []
    for one in paper["others"]:
        facts = dict(facts_of(one["measured_here"]))
        rows.append((one["measured_here"]["cell"], one["why"], facts["end step"], facts.get("validation ppl", NONE)))
    return Section(
        "Other runs",
        ("Neither a published cell nor the shape of one.",),
        ("cell", "why", "measured here: end step", "measured here: ppl"),
        tuple(rows),
    )


def _list(values: Sequence[int]) -> str:
    return ", ".join(f"{v:,}" for v in values)


# --- output -----------------------------------------------------------------------------------------------------------


def show(paper: dict[str, Any], console: Console) -> None:
    """Print the comparison; numbers keep whole, words wrap to the terminal's width."""
    console.print(Text(f"{paper['sweep']} beside arXiv 2108.06084", style="bold"))
    for line in head(paper):
        console.print(Text(line))
    for section in sections(paper):
        console.print()
        console.print(Text(section.title, style="bold"))
        for words in section.words:
            console.print(Text(words, style="dim" if section.rows else ""))
        if section.rows:
            console.print(_rich(section, console.width))


def _rich(section: Section, width: int) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(section.head):
        last = i == len(section.head) - 1
        table.add_column(
            name, overflow="fold", ratio=2 if last else None, max_width=None if last else max(24, width // 4)
        )
    for row in section.rows:
        table.add_row(*(Text(cell, style="dim" if cell.startswith(NOT_MEASURED) else "") for cell in row))
    return table


def markdown(paper: dict[str, Any]) -> str:
    """The comparison as a Markdown document."""
    lines = [f"# {_escape(paper['sweep'])} beside arXiv 2108.06084", ""]
    lines += [f"{_escape(line)}\n" for line in head(paper)]
    for section in sections(paper):
        lines += [f"## {section.title}", ""]
        lines += [f"{_escape(words)}\n" for words in section.words]
        if section.rows:
            lines.append("| " + " | ".join(section.head) + " |")
            lines.append("|" + "---|" * len(section.head))
            lines += ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in section.rows] + [""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text of run names and folders as Markdown that says just that; a line end would end a table's row."""
    plain = " ".join(text.split())
    return "".join(f"\\{c}" if c in "|<>*_[]\\" else c for c in plain)
