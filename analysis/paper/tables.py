"""The comparison with the paper as tables, in the terminal and as Markdown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.paper.claims import ClaimResult, Finding
from analysis.paper.facts import Cell, Claim
from analysis.paper.measure import Measured, RunResult, ZeroShot
from analysis.paper.paper import Paper, PublishedCell
from analysis.stats.intervals import CONFIDENCE, Estimate
from cl_bench.runs.identity import short_float
from cl_bench.runs.status import FINISHED

NOT_MEASURED = "not measured"
NONE = "–"
_STANDING = {"named": "named only", "derived": "derived"}


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, introductory sentences, and rows; an empty first cell repeats the one above."""

    title: str
    words: tuple[str, ...]
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def head(paper: Paper) -> list[str]:
    """The runs here and the published runs."""
    here = paper.scale
    models = ", ".join(f"{name} ({parameters:,} parameters)" for name, parameters in here.models)
    seeds = ", ".join(str(s) for s in here.seeds)
    lines = [
        f"Runs here: {models}; {_list(here.token_budgets)} tokens per run at length {_list(here.max_seqlens)}; "
        f"{'seed' if len(here.seeds) == 1 else 'seeds'} {seeds}; {', '.join(here.precisions)}; "
        f"data: {', '.join(here.data)}; {here.done} of {here.runs} runs done."
    ]
    for e in paper.experiments:
        seed = f"; seed {e.seed}" if e.seed is not None else ""
        machine = f"; {e.machine}" if e.machine else ""
        lines.append(
            f"Published: {e.title} ({e.n_layers} layers, width {e.hidden_size}, {e.n_heads} heads); "
            f"{e.token_budget:,} tokens per run at length {e.seqlen:,}{seed}{machine} (arXiv 2108.06084)."
        )
    return lines


def sections(paper: Paper) -> list[Section]:
    """The tables in order; except for cells and claims, empty ones are left out."""
    several = len(paper.experiments) > 1
    rows = [row for cell in paper.cells for row in _cell_rows(cell, several=several)]
    tables = [_cells(rows), _claims(paper.claims)]
    if paper.same_shape:
        tables.append(_same_shape(paper))
    if paper.others:
        tables.append(_others(paper))
    if paper.notes:
        tables.append(Section("Notes", paper.notes))
    return tables


def _cell_rows(published: PublishedCell, *, several: bool) -> list[tuple[str, ...]]:
    """The rows of a published cell, with its experiment's name if the table has `several`."""
    cell = published.cell
    name = f"{published.experiment.title} {cell.name}" if several else cell.name
    settings = "; ".join(dict.fromkeys(map(_setting_here, published.measured))) or "no run"
    rows: list[tuple[str, ...]] = [(name, "setting", _published_setting(cell), settings)]
    end = NONE if cell.end_step is None else f"{cell.end_step:,}"
    if not published.measured:
        rows.append(("", "end step", end, NOT_MEASURED))
    for measured in published.measured:
        label = "" if len(published.measured) == 1 else f"{measured.cell}: "
        (_, steps), *facts = _facts(measured)
        other = any(r.state == "DONE" and cell.end_step not in (None, r.step) for r in measured.runs)
        rows.append(("", "end step", end, label + steps + ("; not the published step" if other else "")))
        rows += [("", what, NONE, text) for what, text in facts]
    return rows


def _cells(rows: Sequence[tuple[str, ...]]) -> Section:
    return Section(
        "Published cells",
        (
            f"Runs that have every verified value of the cell; their text is not compared. {NONE}: no verified "
            "published figure. Named only: compared in the paper, its open values are the sweep's. Derived: arithmetic "
            "on published values. Tokens and time: to the final perplexity of the small baseline of the same seed.",
        ),
        ("cell", "", "published", "measured here"),
        tuple(rows),
    )


_AT = {
    "validation": "at equal validation perplexity",
    "zero-shot": "at equal WikiText-103 and LAMBADA",
    "11 tasks": "at 99% of the accuracy on 11 tasks",
    "stability": "stability",
}


def _claims(results: Sequence[ClaimResult]) -> Section:
    rows = []
    for result in results:
        claim = result.claim
        text = f"{claim.series}: {claim.what} {_AT[claim.at]}" if claim.what else f"{claim.series}: {_AT[claim.at]}"
        rows.append((claim.version, text, claim.published, _findings(result)))
    return Section(
        "Claims",
        (
            "Measured here: only the published cells' runs, at the final quality of the small baseline of the same "
            f"seed; geometric mean over seeds, with a {CONFIDENCE:.0%} interval. Zero-shot: up to the first evaluated "
            "save that is as good in both tasks, so a lower bound.",
        ),
        ("version", "claim", "published", "measured here"),
        tuple(rows),
    )


def _same_shape(paper: Paper) -> Section:
    rows: list[tuple[str, ...]] = []
    for replica in paper.same_shape:
        rows.append((replica.measured.cell, "shape of", replica.what))
        rows.append(("", "setting", _setting_here(replica.measured)))
        rows += [("", what, text) for what, text in _facts(replica.measured)]
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


def _others(paper: Paper) -> Section:
    rows = []
    for other in paper.others:
        facts = dict(_facts(other.measured))
        rows.append((other.measured.cell, other.what, facts["end step"], facts.get("validation ppl", NONE)))
    return Section(
        "Other runs",
        ("Neither published cells nor of the shape of one.",),
        ("cell", "why", "measured here: end step", "measured here: ppl"),
        tuple(rows),
    )


def _list(values: Sequence[int]) -> str:
    return ", ".join(f"{v:,}" for v in values)


# --- words -----------------------------------------------------------------------------------------------------------


def _published_setting(cell: Cell) -> str:
    """The verified values of a published cell."""
    standing = _STANDING.get(cell.standing, "")
    rate = f"LR {short_float(cell.lr)}" if cell.lr else "LR open"
    if "optim.lr" in cell.below:
        rate = f"LR below {short_float(cell.below['optim.lr'])}"
    parts = [f"batch {cell.batch}", rate]
    if "optim.grad_clip" in cell.below:
        parts.append(f"clip below {cell.below['optim.grad_clip']:g}")
    if cell.method == "length":
        by = f", by {cell.by}" if cell.by else ""
        parts.append(f"{cell.start}→full over {cell.until:,} steps{by}")
    elif cell.method == "two_stage":
        parts.append(f"two stages, {cell.until:,} steps")
    elif cell.method == "batch_warmup":
        grows = f"from {cell.start} by {cell.by}, " if cell.start else ""
        parts.append(f"batch warmup {grows}{cell.until:,} {cell.until_unit}")
    return ", ".join(parts) + (f" ({standing})" if standing else "")


def _setting_here(measured: Measured) -> str:
    """Batch size, learning rate and shape of a group of runs."""
    c = measured.configuration
    return f"batch {c.batch}, LR {short_float(c.lr)}, {c.shape}"


def _facts(measured: Measured) -> list[tuple[str, str]]:
    """(what, measured here) of a group of runs, its end step first."""
    facts = [("end step", _steps(measured.runs))]
    if not measured.steps:
        return facts
    facts.append(("validation ppl", _final_ppl(measured)))
    facts.append(("diverged", f"{measured.diverged} of {len(measured.runs)}"))
    if measured.max_loss_ratio is not None:
        above = f"{measured.steps_above_1_2:,} and {measured.steps_above_1_5:,} of {measured.steps:,}"
        facts.append(("largest loss ratio", f"{measured.max_loss_ratio:.2f}"))
        facts.append(("steps above 1.2, 1.5", above))
    if saved := measured.saved:
        against = f"(against {measured.against})"
        if saved.tokens is None or saved.time is None:
            facts.append(("tokens, time saved", f"{NOT_MEASURED}: {saved.why_not} {against}"))
        else:
            facts.append(("tokens to equal ppl", f"{saving_words(saved.tokens)} {against}"))
            facts.append(("time to equal ppl", saving_words(saved.time)))
    if not any(measured.zeroshot.values()):
        return [*facts, ("zero-shot", NOT_MEASURED)]
    for task, name in (("wikitext103", "WikiText-103 ppl"), ("lambada", "LAMBADA accuracy")):
        facts.append((name, _zeroshot(measured.zeroshot[task], task)))
    return facts


def _steps(runs: Sequence[RunResult]) -> str:
    """'300,000, done (3 seeds)', or seed by seed if they differ."""
    texts = [_step(run) for run in runs]
    if len(set(texts)) == 1:
        seeds = ", ".join(str(r.seed) for r in runs)
        return f"{texts[0]} (seed{'s' * (len(runs) > 1)} {seeds})"
    return "; ".join(f"seed {run.seed}: {text}" for run, text in zip(runs, texts, strict=True))


def _step(run: RunResult) -> str:
    if run.state == "PENDING":
        return "not started"
    state = run.state.lower()
    if not run.step:
        return f"no step yet, {state}"
    planned = f" of {run.planned_steps:,}" if run.planned_steps and run.state != "DONE" else ""
    return f"{run.step:,}{planned}, " + (state if run.state in FINISHED else f"partial, {state}")


def _final_ppl(measured: Measured) -> str:
    seeds, total = measured.final_ppl_seeds, len(measured.runs)
    if measured.final_ppl is None:
        last = ", ".join(ppl(r.last_ppl) for r in measured.runs if r.last_ppl is not None)
        return f"{NOT_MEASURED}: no run is done" + (f"; so far {last}" if last else "")
    text = ppl(measured.final_ppl)
    if measured.final_ppl_lowest is not None and measured.final_ppl_highest is not None and seeds > 1:
        text += f" ({ppl(measured.final_ppl_lowest)} to {ppl(measured.final_ppl_highest)})"
    return text if seeds == total else f"{text}, {seeds} of {total} seeds"


def ppl(value: float) -> str:
    """Four significant digits, never in exponents below a million: 12.35, 12,346."""
    if not 1e-3 < value < 1e6:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(value)))}f}"


def _zeroshot(result: ZeroShot | None, task: str) -> str:
    if result is None:
        return NOT_MEASURED

    def show(value: float) -> str:
        return f"{value:.2%}" if task == "lambada" else ppl(value)

    text = show(result.mean)
    if result.seeds > 1:
        text += f" ({show(result.lowest)} to {show(result.highest)})"
    return text if result.seeds == result.of else f"{text}, {result.seeds} of {result.of} seeds"


def saving_words(estimate: Estimate, form: str = "percent", what: str = "") -> str:
    """A saving in a claim's own form: '−58% (95%: −61 to −55%, 3 seeds)' or '2.4x fewer (one seed: no interval)'."""

    def show(saved: float) -> str:
        if form == "factor":
            return f"{1 / (1 - saved):.1f}x"
        whole = round(saved * 100)
        return f"−{whole}%" if whole > 0 else f"+{-whole}%" if whole < 0 else "0%"

    assert estimate.point is not None
    text = show(estimate.point) + (f" {'fewer' if what == 'tokens' else 'less'}" if form == "factor" else "")
    if estimate.span is None:
        return f"{text} (one seed: no interval)"
    ends = sorted(estimate.span, reverse=form != "factor")
    return f"{text} ({CONFIDENCE:.0%}: {show(ends[0])} to {show(ends[1])}, {estimate.n} seeds)"


def _findings(result: ClaimResult) -> str:
    """The findings on a claim, curriculum by curriculum."""
    reasons = list(dict.fromkeys(f.why_not for f in result.findings))
    if all(reasons):
        return f"{NOT_MEASURED}: {'; '.join(reasons)}"
    return "; ".join(f"{f.cell}: {_finding(f, result.claim)}" for f in result.findings)


def _finding(finding: Finding, claim: Claim) -> str:
    if finding.saved is not None:
        return ("at least " if finding.at_least else "") + saving_words(finding.saved, claim.form, claim.what)
    if finding.diverged is not None:
        return f"{finding.diverged} of {finding.of} diverged"
    return f"{NOT_MEASURED}: {finding.why_not.removeprefix(finding.cell + ': ')}"


# --- output -----------------------------------------------------------------------------------------------------------


def show(paper: Paper, console: Console) -> None:
    """Print the comparison, wrapped to the terminal's width."""
    console.print(Text(f"{paper.sweep} beside arXiv 2108.06084", style="bold"))
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


def markdown(paper: Paper) -> str:
    """The comparison as a Markdown document."""
    lines = [f"# {_escape(paper.sweep)} beside arXiv 2108.06084", ""]
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
    """Text as literal Markdown on one line: a line end would end a table's row."""
    plain = " ".join(text.split())
    return "".join(f"\\{c}" if c in "|<>*_[]\\" else c for c in plain)
