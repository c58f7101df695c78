"""The headline in at most three sentences: stability, best against best, cells compared with their own baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from analysis.answer import Answer
from analysis.stats.best_vs_best import Best
from analysis.stats.intervals import SIGNIFICANCE, Estimate
from analysis.stats.savings import Difference
from analysis.verdict.amounts import CI, loss_difference, needed
from analysis.verdict.contrast import stability_headline
from analysis.verdict.headline import (
    CellResult,
    Headline,
    Loss,
    best_loss,
    excluded_difference,
    headline,
    place,
    spikes,
)
from analysis.words import amount, direction, interval, percent

What = Literal["tokens", "time"]
_MOST_CURRICULA = 3


def headline_sentences(answer: Answer) -> list[str]:
    """At most three sentences, what matters most first; they assert nothing that the tests leave undecided."""
    head = headline(answer)
    stability = stability_headline(head.stability)
    best = _best_headline(head.best) if head.best is not None and not head.obstacle else ""
    same = head.obstacle or _same_cell(head)
    if stability or best:
        first, *rest = [s for s in (stability, best) if s]
        costs = _costs(head.cells)
        first = f"{first.removesuffix('.')}; {costs}." if costs else first
        return [first, *rest, same]
    return [same]


def sentence(answer: Answer) -> str:
    """The headline as one text."""
    return " ".join(headline_sentences(answer))


# --- best against best ------------------------------------------------------------------------------------------------


def _best_headline(best: Best) -> str:
    ours, theirs = best.curriculum, best.baseline
    result = _result(best.tokens, best.time, best_loss(best), best.seeds) or " cannot be compared"
    where = f"both at {ours.place}" if ours.point == theirs.point else f"{ours.place} against {theirs.place}"
    return f"Best against best, {ours.curriculum}{result}, to the best baseline's final perplexity ({where})."


def best_sentence(results: Sequence[Best]) -> str:
    """The grid's best baseline against its best curriculum, and how they were chosen; empty with several settings."""
    if len(results) != 1:
        return ""
    (best,) = results
    text = _best_headline(best)
    if not best.chosen:
        return text
    if not best.crossfitted:
        return text + " Chosen and measured on the same seed, which flatters the choice."
    choices = "the same cells each time" if best.picks == 1 else f"{best.picks} different choices"
    return f"{text} Each seed is measured on the cells that the others chose ({choices})."


# --- a cell against its own baseline ----------------------------------------------------------------------------------


def _same_cell(head: Headline) -> str:
    target = head.target_ppl
    at = "at the baseline's final perplexity" if target is None else f"at perplexity {target:.4g}"
    if len(head.cells) == 1:
        (only,) = head.cells
        text = f"{_capital(at)}, {only.saving.cell.curriculum} at {place(only.saving, several=head.several)}"
        return f"{text}{_one_cell(only)}{_weaker(head, only)}{_against_best(only)}."
    by_curriculum: dict[str, list[CellResult]] = {}
    for cell in head.cells:
        by_curriculum.setdefault(cell.saving.cell.curriculum, []).append(cell)
    parts = [_curriculum(name, cells, several=head.several) for name, cells in by_curriculum.items()]
    text = f"Cell by cell, {at}: {'; '.join(parts[:_MOST_CURRICULA])}"
    if (more := len(parts) - _MOST_CURRICULA) > 0:
        text += f"; {more} more curricul{'a' if more > 1 else 'um'} in the table"
    tests = sum(c.tokens_differ is not None for c in head.cells)
    return text + (f" (significant: Holm over {tests} cells, {SIGNIFICANCE:.0%})." if tests > 1 else ".")


def _curriculum(name: str, cells: Sequence[CellResult], *, several: bool) -> str:
    if len(cells) == 1:
        return f"{name} at {place(cells[0].saving, several=several)}{_one_cell(cells[0])}"
    return f"{name}: {_tally(cells)}"


def _one_cell(cell: CellResult) -> str:
    if cell.failed:
        return f" {_failure(cell)}"
    calls = cell.tokens_differ, cell.time_differs
    result = _result(cell.tokens, cell.time, cell.loss, cell.saving.compared, calls)
    return result or f" cannot be compared ({cell.saving.note or 'no figure'})"


def _failure(cell: CellResult) -> str:
    n, seeds = cell.saving.diverged, cell.saving.seeds
    return f"diverged on {n} of {seeds} seeds" if seeds > 1 else "diverged (one seed)"


def _weaker(head: Headline, cell: CellResult) -> str:
    weaker = head.weaker(cell.saving)
    if weaker is None:
        return ""
    own, best = weaker
    return f", where the baseline ends at perplexity {own:.3g} (the best at {best:.3g})"


def _against_best(cell: CellResult) -> str:
    """Tokens to the best baseline's perplexity, if the cell's own baseline gives no target."""
    against = cell.saving.vs_best_tokens
    if cell.tokens.point is not None or cell.failed or against.point is None:
        return ""
    return f"; to the best baseline's perplexity it{_result(against, Estimate(), None, cell.saving.seeds)}"


def _tally(cells: Sequence[CellResult]) -> str:
    """A curriculum's cells by outcome, in tokens and in time."""
    own = [c for c in cells if not c.failed]
    parts = []
    for what in ("tokens", "time"):
        called = [_called(own, what, side, len(cells)) for side in ("saved", "cost")]
        open_cells = [c for c in own if _differs(c, what) == "undecided"]
        called.append(f"{what} undecided in {len(open_cells)} of {len(cells)}" if open_cells else "")
        parts.append(", ".join(c for c in called if c))
    parts.append(_points([c for c in own if c.tokens_differ is None and c.tokens.point is not None]))
    if failed := len(cells) - len(own):
        parts.append(f"diverged in {failed} of {len(cells)} cells")
    if silent := [c for c in own if c.tokens_differ is None and c.tokens.point is None]:
        parts.append(f"no figure in {len(silent)} of {len(cells)} ({_reasons(silent)})")
    return ", ".join(p for p in parts if p)


def _called(cells: Sequence[CellResult], what: What, side: Difference, total: int) -> str:
    """'fewer tokens in 3 of 4 cells (22–46% fewer)': the significant ones of one sign."""
    called = [c for c in cells if _differs(c, what) == side]
    if not called:
        return ""
    estimates = [_estimate(c, what) for c in called]
    points = [abs(e.point) for e in estimates if e.point is not None]
    more = "more" if side == "cost" else direction(1, what)
    near, far = percent(min(points)), percent(max(points))
    sizes = near if near == far else f"{near.removesuffix('%')}–{far}"
    span = estimates[0].span
    if len(called) == 1 and span is not None:
        sizes += f" {more}, {CI} {interval(span, what).removesuffix(' more')}"
    else:
        sizes += f" {more}"
    return f"{more} {what} in {len(called)} of {total} ({sizes})"


def _differs(cell: CellResult, what: What) -> Difference | None:
    return cell.tokens_differ if what == "tokens" else cell.time_differs


def _estimate(cell: CellResult, what: What) -> Estimate:
    return cell.tokens if what == "tokens" else cell.time


def _points(cells: Sequence[CellResult]) -> str:
    """Cells with one seed: the range of their figures, in tokens and in time."""
    texts = []
    for what in ("tokens", "time"):
        points = [p for c in cells if (p := _estimate(c, what).point) is not None]
        if points:
            low, high = min(points), max(points)
            if f"{low:.4f}" == f"{high:.4f}":
                texts.append(amount(high, what))
            elif low < 0 < high:
                texts.append(f"{interval((low, high), what)} {what}")
            else:
                side = direction(high if high > 0 else low, what)
                texts.append(f"{interval((low, high), what).removesuffix(' more')} {side} {what}")
    if not texts:
        return ""
    n = len(cells)
    return f"{' and '.join(texts)} in {n} cell{'s' * (n > 1)} (one seed: no interval)"


def _reasons(silent: Sequence[CellResult]) -> str:
    counts = Counter(cell.saving.note.split(":")[0] or "no figure" for cell in silent)
    return ", ".join(note if len(counts) == 1 else f"{n} where {note}" for note, n in counts.items())


def _costs(cells: Sequence[CellResult]) -> str:
    """The significant costs, for the first sentence if that is about something else."""
    texts = []
    for what in ("tokens", "time"):
        called = [c for c in cells if not c.failed and _differs(c, what) == "cost"]
        if len(called) == 1:
            (cell,) = called
            texts.append(f"{cell.saving.cell.curriculum} needed {needed(_estimate(cell, what), what)} at {place(cell.saving)}")
        elif called:
            texts.append(f"in {len(called)} of {len(cells)} cells the curriculum needed more {what}")
    return "but " + " and ".join(texts) if texts else ""


# --- tokens, time and loss of one comparison --------------------------------------------------------------------------


def _result(
    tokens: Estimate, time: Estimate, loss: Loss | None, seeds: int, calls: Sequence[Difference | None] = (None, None)
) -> str:
    """' needed 39% fewer tokens (…) and 24% less time (…)', or what is undecided; empty if nothing is known.

    `calls` are the tests over all cells, of tokens and of time; None leaves it to the interval.
    """
    sure: list[tuple[float, str]] = []
    alike: list[str] = []
    undecided: list[str] = []
    for what, estimate, call in zip(("tokens", "time"), (tokens, time), calls, strict=True):
        size = estimate.point if estimate.point is not None else estimate.bound
        within = excluded_difference(estimate)
        words = needed(estimate, what, name_interval=not sure, within=within)
        if within is not None:
            alike.append(words)
        elif words.startswith("undecided: "):
            undecided.append(words.removeprefix("undecided: "))
        elif call == "undecided":
            undecided.append(f"{words}, not significant over all cells")
        elif words and size is not None:
            sure.append((size, words))
    text = ""
    if sure:
        opposite = len(sure) == 2 and (sure[0][0] > 0) != (sure[1][0] > 0)
        text = " needed " + (" but " if opposite else " and ").join(t for _, t in sure)
        text += f" ({tokens.arrived} of {tokens.n} seeds arrived)" if tokens.point is None and tokens.n > 1 else ""
    if alike:
        text += f"{';' if text else ''} showed {' and '.join(alike)}"
    if undecided:
        text += f"{';' if text else ' is'} undecided: {'; '.join(undecided)}"
    if text and seeds == 1:
        text += " (one seed: no interval)"
    if loss is not None:
        text = _with_loss(text, loss, leads=tokens.point is None)
    return text


def _with_loss(text: str, loss: Loss, *, leads: bool) -> str:
    words = loss_difference(*loss)
    if leads:
        ended = f": final loss {words}" if words.startswith("undecided") else f" ended {words}"
        return f"{ended} at equal tokens" + (f" and{text}" if text else "")
    return f"{text}; final loss {words} at equal tokens"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- loss ratios ------------------------------------------------------------------------------------------------------


def spikes_sentence(answer: Answer) -> str:
    """Largest loss ratios (the paper's measure) and divergences, baseline and curricula apart."""
    found = spikes(answer)
    largest = [f"{s.role} {s.largest:.2f}x" for s in found if s.largest is not None]
    diverged = [f"{s.diverged} of {s.runs} {s.role} runs" for s in found if s.diverged]
    text = f"Largest loss ratio of any run: {', '.join(largest)}." if largest else ""
    return f"{text} Diverged: {', '.join(diverged)}.".strip() if diverged else text
