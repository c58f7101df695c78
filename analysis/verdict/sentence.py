"""The headline in at most three sentences: stability, best against best, cells compared with their own baselines."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from analysis.answer import Answer
from analysis.stats.best_vs_best import TWO_FOLDS_FROM, Best
from analysis.stats.intervals import SIGNIFICANCE, Estimate
from analysis.stats.level import SHARE
from analysis.stats.loss_difference import LossDifference
from analysis.stats.outcome import Kind
from analysis.stats.power import MARGIN
from analysis.stats.savings import Difference
from analysis.verdict.amounts import CI, decided, loss_words, needed
from analysis.verdict.contrast import stability_headline
from analysis.verdict.headline import (
    CellResult,
    Headline,
    headline,
    place,
    spikes,
)
from analysis.words import amount, direction, interval, percent

What = Literal["tokens", "time"]
_WHAT: tuple[What, What] = ("tokens", "time")
_SIDES: tuple[Difference, Difference] = ("saved", "cost")
_MOST_CURRICULA = 3


def headline_sentences(answer: Answer) -> list[str]:
    """At most three sentences, what matters most first; they assert nothing that the tests leave undecided."""
    head = headline(answer)
    stability = _failures_headline(head)
    best = _best_headline(head.best, head.target_ppl) if head.best is not None and not head.obstacle else []
    same = head.obstacle or _same_cell(head)
    if not stability and not best:
        return [same]
    if stability and best:
        best = [" ".join(best)]
    first, *rest = [stability, *best] if stability else best
    if costs := _costs(head):
        worse = head.best is not None and (head.best.printed.point or 0) < 0
        saved = bool(stability) or not worse
        first = f"{first.removesuffix('.')}; {'but ' if saved else ''}{costs}."
    # One cell that failed is all that the contrast is about.
    said = stability_headline(head.stability) and len(head.cells) == 1 and head.cells[0].failed
    return [first, *rest, *([] if said else [same])]


def _failures_headline(head: Headline) -> str:
    """Where methods differ in stability, and how many runs did not learn."""
    stability, slow = stability_headline(head.stability), head.did_not_learn
    if not slow:
        return stability
    slow = slow[0].upper() + slow[1:]
    return f"{slow}; {stability}" if stability else f"{slow}."


def sentence(answer: Answer) -> str:
    """The headline as one text."""
    return " ".join(headline_sentences(answer))


def _at(target_ppl: float | None) -> str:
    """Where amounts are read."""
    if target_ppl is not None:
        return f" to perplexity {target_ppl:.4g}"
    return f" to a loss both reached by {SHARE:.0%} of their tokens"


# --- best against best ------------------------------------------------------------------------------------------------


def _best_headline(best: Best, target_ppl: float | None) -> list[str]:
    """What the best curriculum needed; then where the two were trained, and where the amounts are read."""
    ours, theirs = best.curriculum, best.baseline
    leads = _loss_leads(best.printed, best.loss)
    result = _result(best.printed, best.printed_time, best.loss if leads else LossDifference())
    text = f"Best against best, {ours.curriculum}{result or ' cannot be compared'}"
    failed = [
        f"{n} {role} run{'s' * (n > 1)} failed"
        for n, role in ((best.diverged, "curriculum"), (best.baseline_diverged, "baseline"))
        if n
    ]
    text += f"; {' and '.join(failed)}" if failed else ""
    same = ours.point == theirs.point
    detail = f"Both are at {ours.place}" if same else f"It is at {ours.place}, the baseline at {theirs.place}"
    if result and (best.printed.point is not None or best.printed.bound is not None):
        detail += f"{' and' if same else '; they'} are compared at{_at(target_ppl).removeprefix(' to')}"
    if not leads and (words := loss_words(best.loss)):
        detail += f"; final loss {words}" + ("" if words == "equal" or ":" in words else " at equal tokens")
    return [f"{text}.", f"{detail}."]


def best_sentence(results: Sequence[Best], target_ppl: float | None = None) -> str:
    """The grid's best baseline against its best curriculum, and how they were chosen; empty with several settings."""
    if len(results) != 1:
        return ""
    (best,) = results
    text = " ".join(_best_headline(best, target_ppl))
    if not best.chosen:
        return text
    if not best.crossfitted:
        return text + " Chosen and measured on the same seed, which flatters the choice."
    choices = "the same cells each time" if best.picks == 1 else f"{best.picks} different choices"
    others = "the other half of the seeds" if best.seeds >= TWO_FOLDS_FROM else "the others"
    return f"{text} Each seed is measured on the cells that {others} chose ({choices})."


# --- a cell against its own baseline ----------------------------------------------------------------------------------


def _same_cell(head: Headline) -> str:
    at = "" if head.best else _at(head.target_ppl)
    if len(head.cells) == 1:
        (only,) = head.cells
        start = f"At the same place, {_named(head, only)}" if head.best else _named(head, only)
        return f"{start}{_one_cell(only, at)}{_weaker(head, only)}{_against_best(only)}."
    by_curriculum: dict[str, list[CellResult]] = {}
    for cell in head.cells:
        by_curriculum.setdefault(cell.saving.cell.curriculum, []).append(cell)
    places = {place(c.saving, several=head.several) for c in head.cells}
    if len(by_curriculum) == len(head.cells) and len(places) == 1:
        start = f"At {min(places)}"
        parts = [f"{name}{_one_cell(cells[0], brief=True)}" for name, cells in by_curriculum.items()]
    else:
        start = "Cell by cell"
        parts = [
            f"{_named(head, cells[0])}{_one_cell(cells[0], brief=True)}"
            if len(cells) == 1
            else f"{name}: {_tally(cells)}"
            for name, cells in by_curriculum.items()
        ]
    at = at if any(c.tokens.point is not None or c.tokens.bound is not None for c in head.cells) else ""
    text = f"{start}{at}, {'; '.join(parts[:_MOST_CURRICULA])}"
    if (more := len(parts) - _MOST_CURRICULA) > 0:
        text += f"; {more} more curricul{'a' if more > 1 else 'um'} in the table"
    tests = sum(c.tokens_differ is not None for c in head.cells)
    called = any(d in _SIDES for c in head.cells for d in (c.tokens_differ, c.time_differs, c.loss_differs))
    word = "significant" if called else "none is significant"
    return text + (f" ({word}: Holm over {tests} cells, {SIGNIFICANCE:.0%})." if tests > 1 else ".")


def _named(head: Headline, cell: CellResult) -> str:
    return f"{cell.saving.cell.curriculum} at {place(cell.saving, several=head.several)}"


def _one_cell(cell: CellResult, at: str = "", *, brief: bool = False) -> str:
    """`brief` leaves out a difference of final loss that only confirms the amounts."""
    saving = cell.saving
    if cell.failed:
        return f" {_failure(cell)}"
    within = MARGIN if saving.equivalent else None
    loss = cell.loss
    if brief and not _loss_leads(cell.tokens, loss) and _result(cell.tokens, cell.time, LossDifference()):
        loss = LossDifference()
    calls = (cell.tokens_differ, cell.time_differs, cell.loss_differs)
    result = _result(cell.tokens, cell.time, loss, within, calls, at)
    if not result:
        notes = dict.fromkeys(n for r in saving.runs if (n := r.printed.at_target.note or r.paired.note))
        return f" cannot be compared ({'; '.join(notes) or 'no figure'})"
    if saving.unpaired is not None:
        ours, theirs = saving.unpaired.runs
        result += f" (unpaired: {ours} runs against {theirs})"
    elif saving.baseline_diverged:
        result += (
            f" (over {saving.seeds - saving.baseline_diverged} of {saving.seeds} seeds: the other baselines failed)"
        )
    return result


def _failure(cell: CellResult) -> str:
    """'diverged on 2 of 3 seeds', 'did not learn on 1 of 3 seeds'."""
    words: list[Kind] = ["diverged", "did not learn"]
    failures = [f"{word} on {cell.ends[word]}" for word in words if cell.ends.get(word)]
    seeds = cell.saving.seeds
    if seeds == 1:
        return f"{failures[0].removesuffix(' on 1')} (one seed)"
    return f"{' and '.join(failures)} of {seeds} seeds"


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
    if not all(math.isnan(r.paired.target_loss) for r in cell.saving.runs):  # it does give one: see the caveats
        return ""
    return f"; to the best baseline's perplexity it{_result(against, Estimate(), LossDifference())}"


def _tally(cells: Sequence[CellResult]) -> str:
    """A curriculum's cells by outcome, in tokens, time and final loss; their total appears once."""
    own = [c for c in cells if not c.failed]
    parts = [*(_of_amount(own, what) for what in _WHAT), _of_loss(own)]
    if any(c.tokens.point is None for c in own):
        parts = [parts[-1], *parts[:-1]]
    parts.append(_points([c for c in own if c.tokens_differ is None and c.tokens.point is not None]))
    if failed := len(cells) - len(own):
        words = "failed" if any(c.ends.get("did not learn") for c in cells if c.failed) else "diverged"
        parts.append(f"{words} in {failed}")
    if silent := [c for c in own if c.tokens_differ is None and c.tokens.point is None]:
        parts.append(f"no figure in {len(silent)} ({_reasons(silent)})")
    return re.sub(r" in (\d+)(?! cell)\b", rf" in \1 of {len(cells)}", "; ".join(p for p in parts if p), count=1)


def _of_amount(cells: Sequence[CellResult], what: What) -> str:
    """'fewer tokens in 6 (9.6–50%), more in 3 (6.5–22%), undecided in 1'."""
    parts: list[str] = []
    for side in _SIDES:
        if called := [c for c in cells if _differs(c, what) == side]:
            word = direction(1 if side == "saved" else -1, what)
            parts.append(f"{word}{'' if parts else f' {what}'} in {len(called)} ({_sizes(called, what)})")
    alike = sum(c.saving.equivalent for c in cells) if what == "tokens" else 0
    undecided = sum(_differs(c, what) == "undecided" for c in cells) - alike
    if undecided:
        parts.append(f"{'' if parts else f'{what} '}undecided in {undecided}")
    if alike:
        parts.append(f"no difference in tokens larger than {MARGIN:.0%} in {alike}")
    return ", ".join(parts)


def _of_loss(cells: Sequence[CellResult]) -> str:
    """'lower final loss in 3 (0.021–0.052 nats), higher in 1 (0.030 nats)'."""
    parts: list[str] = []
    for side, word in zip(_SIDES, ("lower", "higher"), strict=True):
        sizes = sorted(abs(c.loss.mean) for c in cells if c.loss_differs == side and c.loss.mean is not None)
        if sizes:
            near, far = f"{sizes[0]:.3f}", f"{sizes[-1]:.3f}"
            size = near if near == far else f"{near}–{far}"
            parts.append(f"{word}{'' if parts else ' final loss'} in {len(sizes)} ({size} nats)")
    return ", ".join(parts)


def _sizes(called: Sequence[CellResult], what: What) -> str:
    """'22–46%', or of one cell '40%, 95% CI 35–44%': significant differences of one sign."""
    estimates = [_estimate(c, what) for c in called]
    points = [abs(e.point) for e in estimates if e.point is not None]
    near, far = percent(min(points)), percent(max(points))
    sizes = near if near == far else f"{near.removesuffix('%')}–{far}"
    span = estimates[0].span
    return f"{sizes}, {CI} {interval(span, what).removesuffix(' more')}" if len(called) == 1 and span else sizes


def _differs(cell: CellResult, what: What) -> Difference | None:
    return cell.tokens_differ if what == "tokens" else cell.time_differs


def _estimate(cell: CellResult, what: What) -> Estimate:
    return cell.tokens if what == "tokens" else cell.time


def _points(cells: Sequence[CellResult]) -> str:
    """Cells with one seed: the range of their figures, in tokens and in time."""
    texts = []
    for what in _WHAT:
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
    counts = Counter(_reason(cell) for cell in silent)
    return ", ".join(note if len(counts) == 1 else f"{n} where {note}" for note, n in counts.items())


def _reason(cell: CellResult) -> str:
    if cell.baseline_ends.get("did not learn"):
        return "the baseline did not learn" if not cell.baseline_ends.get("diverged") else "the baseline failed"
    return cell.saving.note.split(":")[0] or "too few evaluations"


def _costs(head: Headline) -> str:
    """The significant costs, for the first sentence if that is about something else."""
    cells = head.cells
    called = [c for c in cells if "cost" in (c.tokens_differ, c.time_differs)]
    if not called:
        return ""
    if len(called) == 1:
        (cell,) = called
        sizes = [needed(_estimate(cell, w), w, name_interval=False) for w in _WHAT if _differs(cell, w) == "cost"]
        return f"{_named(head, cell)} needed {' and '.join(sizes)}"
    parts: list[str] = []
    for what in _WHAT:
        costs = [e.point for c in called if _differs(c, what) == "cost" and (e := _estimate(c, what)).point is not None]
        if costs:
            near, far = percent(-max(costs)), percent(-min(costs))
            span = near if near == far else f"{near.removesuffix('%')}–{far}"
            cells_of = f" of {len(cells)} cells" if not parts else ""
            parts.append(f"more {what} in {len(costs)}{cells_of} ({span})")
    return f"curricula needed {' and '.join(parts)}"


# --- tokens, time and loss of one comparison --------------------------------------------------------------------------


def _result(
    tokens: Estimate,
    time: Estimate,
    loss: LossDifference,
    within: float | None = None,
    calls: tuple[Difference | None, Difference | None, Difference | None] = (None, None, None),
    at: str = "",
) -> str:
    """' needed 39% fewer tokens (…) and 24% less time (…)', or what is undecided; empty if nothing is known.

    `within` is the share that an equivalence test has excluded a difference in tokens of; `calls` are the tests over
    all cells, of tokens and of time (None leaves it to the interval); `at` says where amounts are read.
    """
    sure: list[tuple[float, str]] = []
    undecided: list[str] = []
    alike = needed(tokens, "tokens", within=within) if within is not None else ""
    time_alike = within is not None and time.span is not None and max(map(abs, time.span)) < within
    if alike and time_alike and time.span is not None:
        alike += f" and none in time ({interval(time.span, 'time')})"
        time = Estimate()
    for what, estimate, call in zip(_WHAT, (tokens, time), calls[:2], strict=True):
        size = estimate.point if estimate.point is not None else estimate.bound
        words = "" if what == "tokens" and alike else needed(estimate, what, name_interval=not (sure or alike))
        if words.startswith("undecided: "):
            undecided.append(words.removeprefix("undecided: "))
        elif words and call == "undecided" and estimate.span is not None and estimate.p_value is not None:
            undecided.append(f"{words}, not significant over all cells")
        elif words and size is not None:
            sure.append((size, words))
    text = f" showed {alike}" if alike else ""
    if sure:
        opposite = len(sure) == 2 and (sure[0][0] > 0) != (sure[1][0] > 0)
        text += f"{' and' if alike else ''} needed " + (" but " if opposite else " and ").join(t for _, t in sure)
        text += f" ({tokens.arrived} of {tokens.n} seeds arrived)" if tokens.point is None and tokens.n > 1 else ""
    text += at if text else ""
    if undecided:
        text += f"; undecided: {', '.join(undecided)}" if text else f" is undecided: {', '.join(undecided)}{at}"
    text = _with_loss(text, loss, tokens, calls[2])
    return text + (" (one seed: no interval)" if text and tokens.n == 1 else "")


def _loss_leads(tokens: Estimate, loss: LossDifference) -> bool:
    """Whether the difference of final loss comes first: where amounts are bounds or point the other way."""
    if loss.mean is None or loss_words(loss) == "equal" or loss_words(loss).startswith("undecided"):
        return False
    return tokens.point is None or (decided(tokens) and tokens.point * loss.mean > 0)


def _with_loss(text: str, loss: LossDifference, tokens: Estimate, call: Difference | None) -> str:
    """The difference of final loss: behind the amounts, or first where those are bounds or point the other way."""
    words = loss_words(loss)
    if not words:
        return text
    if _loss_leads(tokens, loss):
        join = " but" if tokens.point is not None else " and"
        unsure = " (not significant over all cells)" if call == "undecided" and loss.span is not None else ""
        return f" ended {words} at equal tokens{unsure}" + (f"{join}{text}" if text else "")
    if words == "equal" or words.startswith("undecided"):
        return f"{text}; final loss {words}" if text else f": final loss {words}"
    unsure = ", not significant over all cells" if call == "undecided" and loss.span is not None else ""
    return f"{text}; final loss {words} at equal tokens{unsure}"


# --- loss ratios ------------------------------------------------------------------------------------------------------


def spikes_sentence(answer: Answer) -> str:
    """Largest loss ratios (the paper's measure) and divergences, baseline and curricula apart."""
    found = spikes(answer)
    largest = [f"{s.role} {s.largest:.2f}x" for s in found if s.largest is not None]
    diverged = [f"{s.diverged} of {s.runs} {s.role} runs" for s in found if s.diverged]
    text = f"Largest loss ratio of any run: {', '.join(largest)}." if largest else ""
    return f"{text} Diverged: {', '.join(diverged)}.".strip() if diverged else text
