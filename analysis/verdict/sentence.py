"""The verdict in a sentence, costs as plainly as savings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analysis.answer import Answer
from analysis.stats.best_vs_best import Best
from analysis.stats.intervals import CONFIDENCE, SIGNIFICANCE
from analysis.stats.savings import CellSaving
from analysis.verdict.headline import FEW_CELLS, MOST_CURRICULA, Head, Headline, Spikes, headline, place
from analysis.words import amount, percent

_INTERVAL = f"{CONFIDENCE:.0%} interval"


def sentence(answer: Answer) -> str:
    """The verdict: each curriculum in the cell of the best baseline, the others as a range or count, the spikes."""
    head = headline(answer)
    return f"{head.obstacle or _comparison(head)} {_spikes(head.spikes)}".strip()


def _comparison(head: Headline) -> str:
    target = head.target_ppl
    at = "At the baseline's final perplexity" if target is None else f"At perplexity {target:.4g}"
    if len(head.heads) == 1:
        (only,) = head.heads
        saving = only.saving
        text = f"{at} {saving.cell.curriculum} {_needed(saving)} at {only.place}{_weaker(only)}{_against_best(saving)}"
        text += _elsewhere(head.others) if len(head.cells) <= FEW_CELLS else ""
    else:
        text = f"{at} {_side_by_side(head.heads[:MOST_CURRICULA])}"
    text += "."
    if len(head.heads) > MOST_CURRICULA:
        text += f" {len(head.heads) - MOST_CURRICULA} more curricula are in the table."
    if len(head.cells) > FEW_CELLS or len(head.heads) > 1:
        text += _tally(head)
    return text


def _weaker(head: Head) -> str:
    if head.weaker is None:
        return ""
    own, best = head.weaker
    return f", where the baseline ends at perplexity {own:.3g} (the best at {best:.3g})"


def _side_by_side(heads: Sequence[Head]) -> str:
    """Several curricula grouped by place; tokens only, time is in the table."""
    places: dict[str, list[str]] = {}
    for i, head in enumerate(heads):
        text = f"{head.saving.cell.curriculum} {_needed(head.saving, first=i == 0, time=False)}"
        places.setdefault(head.place + _weaker(head), []).append(text)
    return "; ".join(f"{' and '.join(parts)} at {where}" for where, parts in places.items())


def _needed(saving: CellSaving, *, first: bool = True, time: bool = True) -> str:
    """What a cell needed; the `first` of several names the unit and the kind of interval."""
    tokens = saving.tokens
    if tokens.point is None:
        return _bounded(saving)
    text = amount(tokens.point, "tokens")
    if not first:
        return text.removesuffix(" tokens") + (f" ({_range(tokens.span)})" if tokens.span else "")
    text = f"needed {text}" + _span(tokens.span, f"{_INTERVAL} ")
    if time and saving.time.point is not None:
        text += f" and {amount(saving.time.point, 'time')}{_span(saving.time.span)}"
    return text


def _bounded(saving: CellSaving) -> str:
    """A cell of which not every run reached the target."""
    arrived = f"{saving.reached} of {saving.compared} seeds arrived"
    bound, censored = saving.tokens.bound, saving.tokens.censored
    if censored == "at_most" and bound is not None:
        if not saving.reached:
            return ("has not reached it yet" if "not there yet" in saving.note else "never reached it") + _common(
                saving
            )
        return f"saved at most {percent(bound)} of the tokens ({arrived}{_common(saving)})"
    if censored == "at_least" and bound is not None:
        return f"saved at least {percent(bound)} of the tokens ({arrived}; a baseline did not)"
    if saving.reached:
        return f"reached it with {saving.reached} of {saving.seeds} seeds"
    return f"cannot be judged ({saving.note})"


def _common(saving: CellSaving) -> str:
    """The saving at the lowest common loss, which a cell with censored seeds still has."""
    common = saving.lowest_common
    if common.point is None:
        return ""
    span = f", {_range(common.span)} saved" if common.span else ""
    return f"; {amount(common.point, 'tokens')} as far as both got{span}"


def _against_best(saving: CellSaving) -> str:
    """Tokens to the best baseline's perplexity, if the cell's own baseline gives no target."""
    against = saving.vs_best_tokens.point
    if saving.tokens.point is not None or against is None:
        return ""
    return f", but needed {amount(against, 'tokens')} to the best baseline's perplexity"


def _elsewhere(others: Sequence[CellSaving]) -> str:
    """The other cells of the only curriculum."""
    text = ""
    compared = [(c.tokens.point, c) for c in others if c.tokens.point is not None]
    if len(compared) == 1:
        ((point, cell),) = compared
        text += f", {amount(point, 'tokens')} at {place(cell)}"
    elif compared:
        (low, least), (high, most) = (extreme(compared, key=lambda c: c[0]) for extreme in (min, max))
        text += f", and between {amount(high, 'tokens')} ({place(most)})"
        text += f" and {amount(low, 'tokens')} ({place(least)}) elsewhere"
    silent = [c for c in others if c.tokens.point is None]
    if silent:
        text += f"; {len(silent)} more cell{'s' * (len(silent) > 1)}: {_reasons(silent)}"
    return text


def _reasons(silent: Sequence[CellSaving]) -> str:
    counts = Counter(cell.note.split(":")[0] or "no figure" for cell in silent)
    return ", ".join(note if len(counts) == 1 else f"{n} where {note}" for note, n in counts.items())


def _tally(head: Headline) -> str:
    """Cells with a significant difference, over all cells tested; ranges with one seed."""
    total, counts = len(head.cells), head.differences
    if total > counts["untested"]:
        parts = [f"{counts['saved'] or 'none'} saved tokens", f"{counts['cost'] or 'none'} cost more"]
        parts += [f"{counts['undecided']} undecided"] if counts["undecided"] else []
        parts += [f"{counts['untested']} without an interval"] if counts["untested"] else []
        return f" Of {total} cells {', '.join(parts)} ({SIGNIFICANCE:.0%} for all of them together, Holm)."
    points = [c.tokens.point for c in head.cells if c.tokens.point is not None]
    if not points:
        return ""
    rest = f"; {total - len(points)} have none" if len(points) < total else ""
    return f" Over {len(points)} cells the saving goes from {percent(min(points))} to {percent(max(points))}{rest}."


def _spikes(spikes: Sequence[Spikes]) -> str:
    """Largest loss ratios and divergences, baseline and curricula apart."""
    largest = [f"{s.role} {s.largest:.2f}x" for s in spikes if s.largest is not None]
    diverged = [f"{s.diverged} of {s.runs} {s.role} runs" for s in spikes if s.diverged]
    text = f"Largest loss spike: {', '.join(largest)}." if largest else ""
    return f"{text} Diverged: {', '.join(diverged)}.".strip() if diverged else text


def best_sentence(results: Sequence[Best]) -> str:
    """The grid's best baseline against its best curriculum; empty unless the grid has one setting to compare."""
    if len(results) != 1:
        return ""
    (best,) = results
    tokens, time = best.tokens, best.time
    text = f"Best against best: {best.curriculum.curriculum} at {best.curriculum.place}"
    if tokens.point is not None:
        text += f" needed {amount(tokens.point, 'tokens')}{_span(tokens.span, f'{_INTERVAL} ')}"
        if time.point is not None:
            text += f" and {amount(time.point, 'time')}{_span(time.span)}"
    elif tokens.bound is not None:
        side = "at most" if tokens.censored == "at_most" else "at least"
        text += f" saved {side} {percent(tokens.bound)} of the tokens ({tokens.arrived} of {tokens.n} seeds arrived)"
    else:
        text += " cannot be judged"
    text += f", to what the best baseline ({best.baseline.place}) finally reached."
    if not best.chosen:
        return text
    if not best.crossfitted:
        return text + " Chosen and measured on the same seed, which flatters the choice."
    choices = "the same cells each time" if best.picks == 1 else f"{best.picks} different choices"
    return f"{text} Each seed is measured on the cells that the others chose ({choices})."


def _range(span: tuple[float, float]) -> str:
    return f"{percent(span[0])} to {percent(span[1])}"


def _span(span: tuple[float, float] | None, what: str = "") -> str:
    return f" ({what}{_range(span)} saved)" if span else ""
