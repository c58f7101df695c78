"""The answer in words, as ready to say that a curriculum cost tokens as that it saved them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.cost import comparability
from analysis.schema import Runs
from analysis.stats import best_vs_best, boundary
from analysis.stats.best_vs_best import Best
from analysis.stats.crossings import Method
from analysis.stats.over_targets import deepest
from analysis.stats.pairs import best_baseline_cell
from analysis.stats.savings import cells
from analysis.verdict.caveats import caveats
from analysis.words import amount, percent
from cl_bench.runs.identity import short_float

_MOST_CURRICULA = 3
_FEW_CELLS = 4
"""With more cells than this the sentence counts them instead of naming the extremes."""


def verdict(
    runs: Runs,
    savings: pd.DataFrame,
    stability: pd.DataFrame,
    target_ppl: float | None,
    targets: pd.DataFrame | None = None,
    method: Method = "interpolate",
    edges: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """`sentence`, `best_sentence`, `caveats`, `target_ppl`, `target_kind`, `cells` and more; values that JSON can hold.

    `target_ppl` is the given one, else the perplexity that the best baseline of the grid finally reached (geometric
    mean over its seeds), None where the grid holds several settings; each cell has its own where none was given.
    `targets` are the rows of `over_targets`: each cell's `deepest` is its last. `stability_sentence` and `frontier` say
    where the edge of stability lies.
    """
    grid = cells(savings)
    last = deepest(targets) if targets is not None else {}
    for number, cell in enumerate(grid):
        cell["deepest"] = _deepest(last.get(number))
    baselines = runs.runs[runs.runs["role"] == "baseline"]
    # Runs of several settings (models, texts) have no best baseline in common.
    best_cell = best_baseline_cell(baselines) if baselines["setting"].nunique() == 1 else None
    common = target_ppl if target_ppl is not None else _final_ppl(baselines, best_cell)
    champions = best_vs_best.best_against_best(runs, method)
    edges = boundary.frontiers(runs.runs, stability) if edges is None else edges
    return {
        "sentence": sentence(runs, grid, stability, best_cell, target_ppl),
        "best_sentence": best_sentence(champions),
        "caveats": caveats(runs, grid, champions if len(champions) == 1 else ())
        + comparability.warnings(runs.runs, savings),
        "target_ppl": common,
        "target_kind": _target_kind(baselines, target_ppl),
        "crossing": method,
        "cells_tested": max((c["cells_tested"] for c in grid), default=0),
        "best_against_best": [best_vs_best.plain(b) for b in champions],
        "cells": grid,
        "stability_sentence": boundary.sentence(edges) if len(runs.train) else "",
        "frontier": boundary.plain_rows(edges),
    }


def _deepest(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """The saving at the deepest target that every run of a cell reached."""
    names = ("target_ppl", "n", *(f"{m}_saving{e}" for m in ("token", "time") for e in ("", "_low", "_high")))
    return None if row is None else {name: row[name] for name in names}


def _target_kind(baselines: pd.DataFrame, target_ppl: float | None) -> str:
    if target_ppl is not None:
        return "given"
    return "best_baseline_final" if baselines["setting"].nunique() <= 1 else "per_cell"


def _final_ppl(baselines: pd.DataFrame, best_cell: tuple[int, float] | None) -> float | None:
    if best_cell is None:
        return None
    cell = baselines[
        (baselines["global_batch_size"] == best_cell[0])
        & (baselines["lr"] == best_cell[1])
        & (baselines["state"] == "DONE")
    ]
    return math.exp(float(cell["final_loss"].mean()))


# --- the sentence -----------------------------------------------------------------------------------------------------


def sentence(
    runs: Runs,
    grid: list[dict[str, Any]],
    stability: pd.DataFrame,
    best_cell: tuple[int, float] | None,
    target_ppl: float | None,
) -> str:
    """The verdict: each curriculum in the cell of the best baseline, the others in a range or count, the spikes."""
    if not grid:
        return "There is no curriculum run here to compare with a baseline. " + _spikes(runs, stability)
    if target_ppl is None and not ((runs.runs["role"] == "baseline") & (runs.runs["state"] == "DONE")).any():
        states = runs.runs.loc[runs.runs["role"] == "baseline", "state"]
        why = "No baseline has finished yet" if len(states) else "There is no baseline in this grid"
        if len(states) and (states == "DIVERGED").all():
            why = "Every baseline diverged and has no final perplexity"
        return f"{why}: nothing to compare with. " + _spikes(runs, stability)
    at = f"At perplexity {target_ppl:.4g}" if target_ppl is not None else "At the baseline's final perplexity"
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in grid:
        groups.setdefault(cell["curriculum"], []).append(cell)
    heads = [_head(own, best_cell) for own in groups.values()]
    heads.sort(key=lambda h: best_cell != (h["global_batch_size"], h["lr"]))  # what is beside the best baseline leads
    weaker = _weaker(heads, best_cell, runs.runs) if target_ppl is None else {}
    several = len({cell["setting"] for cell in grid}) > 1
    if len(heads) == 1:
        (head,) = heads
        where = _where(head, several) + weaker.get(_where(head, several), "")
        text = f"{at} {head['curriculum']} {_needed(head)} at {where}{_against_best(head)}"
        text += _elsewhere([c for c in grid if c is not head]) if len(grid) <= _FEW_CELLS else ""
    else:
        text = f"{at} {_side_by_side(heads[:_MOST_CURRICULA], weaker, several)}"
    text += "."
    if len(heads) > _MOST_CURRICULA:
        text += f" {len(heads) - _MOST_CURRICULA} more curricula are in the table."
    if len(grid) > _FEW_CELLS or len(heads) > 1:
        text += _tally(grid)
    return f"{text} {_spikes(runs, stability)}".strip()


def _weaker(heads: list[dict[str, Any]], best_cell: tuple[int, float] | None, runs: pd.DataFrame) -> dict[str, str]:
    """By place, that the baseline compared with there ends above the grid's best, which is the easier thing to beat."""
    baselines = runs[(runs["role"] == "baseline") & (runs["state"] == "DONE")]
    best_ppl = _final_ppl(baselines, best_cell)
    if best_ppl is None or best_cell is None:
        return {}
    found = {}
    for head in heads:
        place = (head["global_batch_size"], head["lr"])
        if place != best_cell and head["target_ppl"] is not None and head["target_ppl"] > 1.02 * best_ppl:
            found[_where(head)] = (
                f", where the baseline ends at perplexity {head['target_ppl']:.3g} (the best at {best_ppl:.3g})"
            )
    return found


def _side_by_side(heads: list[dict[str, Any]], weaker: dict[str, str], several: bool) -> str:
    """Several curricula, those of one place together; tokens only, time is in the table."""
    places: dict[str, list[str]] = {}
    for i, head in enumerate(heads):
        where = _where(head, several)
        places.setdefault(where, []).append(f"{head['curriculum']} {_needed(head, first=i == 0, time=False)}")
    return "; ".join(f"{' and '.join(parts)} at {where}{weaker.get(where, '')}" for where, parts in places.items())


def _head(own: list[dict[str, Any]], best_cell: tuple[int, float] | None) -> dict[str, Any]:
    """The cell that speaks for a curriculum: that of the best baseline, whatever it says."""
    return next((c for c in own if best_cell == (c["global_batch_size"], c["lr"])), own[0])


def _needed(cell: dict[str, Any], *, first: bool = True, time: bool = True) -> str:
    """What a cell needed; the `first` of several says of what, and what its interval is."""
    if cell["token_saving"] is None:
        return _bounded(cell)
    low, high = cell["token_saving_low"], cell["token_saving_high"]
    span = "" if low is None else f"{percent(low)} to {percent(high)}"
    text = amount(cell["token_saving"], "tokens")
    if not first:
        return text.removesuffix(" tokens") + (f" ({span})" if span else "")
    text = f"needed {text}" + (f" (95% interval {span} saved)" if span else "")
    if time and cell["time_saving"] is not None:
        text += f" and {amount(cell['time_saving'], 'time')}{_span(cell['time_saving_low'], cell['time_saving_high'])}"
    return text


def _bounded(cell: dict[str, Any]) -> str:
    """A cell in which not every run arrived."""
    arrived = f"{cell['reached']} of {cell['of'] - cell['waiting']} seeds arrived"
    bound = cell["token_saving_bound"]
    if cell["censored"] == "at_most" and bound is not None:
        if not cell["reached"]:
            return ("has not reached it yet" if "not there yet" in cell["note"] else "never reached it") + _both(cell)
        return f"saved at most {percent(bound)} of the tokens ({arrived}{_both(cell)})"
    if cell["censored"] == "at_least" and bound is not None:
        return f"saved at least {percent(bound)} of the tokens ({arrived}; a baseline did not)"
    if cell["reached"]:
        return f"reached it with {cell['reached']} of {cell['of']} seeds"
    return f"cannot be judged ({cell['note']})"


def _both(cell: dict[str, Any]) -> str:
    """The figure that a cell with seeds that did not arrive still has."""
    if cell["both_saving"] is None:
        return ""
    span = ""
    if cell["both_saving_low"] is not None:
        span = f", {percent(cell['both_saving_low'])} to {percent(cell['both_saving_high'])} saved"
    return f"; {amount(cell['both_saving'], 'tokens')} as far as both got{span}"


def _against_best(cell: dict[str, Any]) -> str:
    """What a cell needed to the best baseline's perplexity, where the baseline of its own batch gives no target."""
    if cell["token_saving"] is not None or cell["vs_best_token_saving"] is None:
        return ""
    return f", but needed {amount(cell['vs_best_token_saving'], 'tokens')} to the best baseline's perplexity"


def _elsewhere(others: list[dict[str, Any]]) -> str:
    """The other cells of the only curriculum."""
    text = ""
    compared = [c for c in others if c["token_saving"] is not None]
    if len(compared) == 1:
        text += f", {amount(compared[0]['token_saving'], 'tokens')} at {_where(compared[0])}"
    elif compared:
        low, high = (f(compared, key=lambda c: c["token_saving"]) for f in (min, max))
        text += f", and between {amount(high['token_saving'], 'tokens')} ({_where(high)})"
        text += f" and {amount(low['token_saving'], 'tokens')} ({_where(low)}) elsewhere"
    silent = [c for c in others if c["token_saving"] is None]
    if silent:
        text += f"; {len(silent)} more cell{'s' * (len(silent) > 1)}: {_reasons(silent)}"
    return text


def _reasons(silent: list[dict[str, Any]]) -> str:
    counts = Counter(cell["note"].split(":")[0] or "no figure" for cell in silent)
    return ", ".join(note if len(counts) == 1 else f"{n} where {note}" for note, n in counts.items())


def _tally(grid: list[dict[str, Any]]) -> str:
    """How many cells can be told apart from no difference, over all that were looked at; ranges with one seed."""
    called = Counter(c["difference"] or "silent" for c in grid)
    if called.total() > called["silent"]:
        told = [f"{called['saved'] or 'none'} saved tokens", f"{called['cost'] or 'none'} cost more"]
        told += [f"{called['undecided']} undecided"] if called["undecided"] else []
        told += [f"{called['silent']} without an interval"] if called["silent"] else []
        return f" Of {len(grid)} cells {', '.join(told)} (5% for all of them together, Holm)."
    points = [c["token_saving"] for c in grid if c["token_saving"] is not None]
    if not points:
        return ""
    low, high = min(points), max(points)
    rest = f"; {len(grid) - len(points)} have none" if len(points) < len(grid) else ""
    return f" Over {len(points)} cells the saving goes from {percent(low)} to {percent(high)}{rest}."


def _where(cell: dict[str, Any], several: bool = False) -> str:
    """A cell's batch and learning rate, and what else is special about it, which the sweep's name for it says best.

    Where the grid holds `several` settings, the variant or the setting itself is what tells them apart.
    """
    special = f", {cell['variant']}" if cell["variant"] else ""
    if several:
        special = special or f", setting {cell['setting']}"
    elif special and cell["named"]:
        special = f" ({cell['named']})"
    return f"batch {cell['global_batch_size']}, LR {short_float(cell['lr'])}{special}"


def _spikes(runs: Runs, stability: pd.DataFrame) -> str:
    """Largest loss ratios and divergences, baseline and curricula apart."""
    table = stability.merge(runs.runs[["run_id", "role"]], on="run_id")
    largest, diverged = [], []
    for role, name in (("baseline", "baseline"), ("curriculum", "curriculum")):
        own = table[table["role"] == role]
        top = own["max_loss_ratio"].max()
        if not own.empty and not math.isnan(top):
            largest.append(f"{name} {top:.2f}x")
        if own["diverged"].any():
            diverged.append(f"{int(own['diverged'].sum())} of {len(own)} {name} runs")
    text = f"Largest loss spike: {', '.join(largest)}." if largest else ""
    return f"{text} Diverged: {', '.join(diverged)}.".strip() if diverged else text


# --- best against best, caveats ---------------------------------------------------------------------------------------


def best_sentence(champions: Sequence[Best]) -> str:
    """The grid's best baseline against its best curriculum; empty where there is nothing to compare."""
    if len(champions) != 1:
        return ""
    (found,) = champions
    cl, base = found.curriculum, found.baseline
    where = f"batch {cl.global_batch_size}, LR {short_float(cl.lr)}"
    text = f"Best against best: {cl.curriculum} at {where}"
    e = found.tokens
    if e.point is not None:
        text += f" needed {amount(e.point, 'tokens')}{_span(e.low, e.high, '95% interval ')}"
        if found.seconds.point is not None:
            text += f" and {amount(found.seconds.point, 'time')}{_span(found.seconds.low, found.seconds.high)}"
    elif e.bound is not None:
        side = "at most" if e.censored == "at_most" else "at least"
        text += f" saved {side} {percent(e.bound)} of the tokens ({e.arrived} of {e.n} seeds arrived)"
    else:
        text += " cannot be judged"
    text += f", to what the best baseline (batch {base.global_batch_size}, LR {short_float(base.lr)}) finally reached."
    if found.candidates == (1, 1):
        return text
    if not found.crossfitted:
        return text + " Chosen and measured on the same seed, which flatters the choice."
    chosen = "the same cells each time" if found.picks == 1 else f"{found.picks} different choices"
    return f"{text} Each seed is measured on the cells that the others chose ({chosen})."


def _span(low: float | None, high: float | None, what: str = "") -> str:
    return "" if low is None or high is None else f" ({what}{percent(low)} to {percent(high)} saved)"
