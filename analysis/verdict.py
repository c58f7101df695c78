"""The answer in words, as ready to say that a curriculum cost tokens as that it saved them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis import frontier
from analysis.savings import best_baseline_cell, cells
from analysis.schema import Runs
from cl_bench.identity import short_float

_MOST_CURRICULA = 3


def verdict(runs: Runs, savings: pd.DataFrame, stability: pd.DataFrame, target_ppl: float | None) -> dict[str, Any]:
    """`sentence`, `caveats`, `target_ppl`, `target_kind`, `cells`, `stability_sentence`, `frontier`: plain values.

    `target_ppl` is the given one, else the perplexity that the best baseline of the grid finally reached (geometric
    mean over its seeds), None where the grid holds several settings; each cell has its own where none was given.
    """
    grid = cells(savings)
    baselines = runs.runs[runs.runs["role"] == "baseline"]
    # Runs of several settings (models, texts) have no best baseline in common.
    best = best_baseline_cell(baselines) if baselines["setting"].nunique() == 1 else None
    common = target_ppl if target_ppl is not None else _final_ppl(baselines, best)
    edges = frontier.frontiers(runs.runs, stability)
    return {
        "sentence": sentence(runs, grid, stability, best, target_ppl),
        "caveats": caveats(runs, grid),
        "target_ppl": common,
        "target_kind": _target_kind(baselines, target_ppl),
        "cells": grid,
        "stability_sentence": frontier.sentence(edges),
        "frontier": frontier.plain_rows(edges),
    }


def _target_kind(baselines: pd.DataFrame, target_ppl: float | None) -> str:
    if target_ppl is not None:
        return "given"
    return "best_baseline_final" if baselines["setting"].nunique() <= 1 else "per_cell"


def _final_ppl(baselines: pd.DataFrame, best: tuple[int, float] | None) -> float | None:
    if best is None:
        return None
    cell = baselines[
        (baselines["global_batch_size"] == best[0]) & (baselines["lr"] == best[1]) & (baselines["state"] == "DONE")
    ]
    return math.exp(float(cell["final_loss"].mean()))


def sentence(
    runs: Runs,
    grid: list[dict[str, Any]],
    stability: pd.DataFrame,
    best: tuple[int, float] | None,
    target_ppl: float | None,
) -> str:
    """The verdict: each curriculum in the cell of the best baseline, the range over the others, the largest spikes."""
    if not grid:
        return "There is no curriculum run here to compare with a baseline. " + _spikes(runs, stability)
    if target_ppl is None and not ((runs.runs["role"] == "baseline") & (runs.runs["state"] == "DONE")).any():
        none = "There is no baseline in this grid" if not (runs.runs["role"] == "baseline").any() else None
        return f"{none or 'No baseline has finished yet'}: nothing to compare with. " + _spikes(runs, stability)
    at = f"At perplexity {target_ppl:.4g}" if target_ppl is not None else "At the baseline's final perplexity"
    names = list(dict.fromkeys(c["curriculum"] for c in grid))
    parts = [_curriculum(name, [c for c in grid if c["curriculum"] == name], best) for name in names[:_MOST_CURRICULA]]
    text = f"{at} " + "; ".join(parts) + "."
    if len(names) > _MOST_CURRICULA:
        text += f" {len(names) - _MOST_CURRICULA} more curricula are in the table."
    return f"{text} {_spikes(runs, stability)}".strip()


def _curriculum(name: str, own: list[dict[str, Any]], best: tuple[int, float] | None) -> str:
    """One curriculum: the headline cell, then the others."""
    head = next((c for c in own if best == (c["global_batch_size"], c["lr"])), own[0])
    text = f"{name} {_needed(head)} at {_where(head)}{_against_best(head)}"
    others = [c for c in own if c is not head]
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


def _needed(cell: dict[str, Any]) -> str:
    if cell["token_saving"] is None:
        if cell["note"].startswith("never") or cell["reached"]:
            return f"reached it with {cell['reached']} of {cell['of']} seeds" if cell["reached"] else "never reached it"
        return f"cannot be judged ({cell['note']})"
    text = f"needed {amount(cell['token_saving'], 'tokens')}"
    if cell["token_saving_low"] is not None:
        text += f" (95% interval {percent(cell['token_saving_low'])} to {percent(cell['token_saving_high'])} saved)"
    return f"{text} and {amount(cell['time_saving'], 'time')}"


def _reasons(silent: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for cell in silent:
        note = cell["note"].split(":")[0] or "no figure"
        counts[note] = counts.get(note, 0) + 1
    return ", ".join(note if len(counts) == 1 else f"{n} where {note}" for note, n in counts.items())


def _against_best(cell: dict[str, Any]) -> str:
    """What a cell needed to the best baseline's perplexity, where the baseline of its own batch gives no target."""
    if cell["token_saving"] is not None or cell["vs_best_token_saving"] is None:
        return ""
    return f", but needed {amount(cell['vs_best_token_saving'], 'tokens')} to the best baseline's perplexity"


def _where(cell: dict[str, Any]) -> str:
    """A cell's batch and learning rate, and what else is special about it: the sweep's name for it says that best."""
    special = f", {cell['variant']}" if cell["variant"] else ""
    if cell["named"]:
        special = f" ({cell['named']})"
    return f"batch {cell['global_batch_size']}, LR {short_float(cell['lr'])}{special}"


def amount(saved: float, what: str) -> str:
    """0.37 of tokens -> '37% fewer tokens'; -0.3 of time -> '30% more time'."""
    whole = round(abs(saved) * 100)
    if whole == 0:
        return f"as many {what}" if what == "tokens" else f"as much {what}"
    return f"{whole}% {('fewer' if what == 'tokens' else 'less') if saved > 0 else 'more'} {what}"


def percent(value: float) -> str:
    """0.37 -> '37%', -0.3 -> '−30%'."""
    return f"{value * 100:.0f}%".replace("-", "−")


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


def caveats(runs: Runs, grid: list[dict[str, Any]]) -> list[str]:
    """What a reader must know before repeating the sentence."""
    found = []
    if grid and max(c["of"] for c in grid) == 1:
        found.append("One seed: no interval. A second seed may change the sign.")
    elif grid and (n := sum(c["of"] == 1 for c in grid)):
        found.append(f"{n} of {len(grid)} cells have one seed and no interval.")
    partial = [c for c in grid if 0 < c["reached"] < c["of"]]
    if partial:
        found.append(f"In {len(partial)} cells some seeds never reached the target; they give no saving, only a count.")
    open_states = runs.runs[~runs.runs["state"].isin(["DONE", "DIVERGED"])]
    if len(open_states):
        counts = open_states["state"].value_counts()
        found.append("Not finished: " + ", ".join(f"{n} {str(s).lower()}" for s, n in counts.items()) + ".")
    return [*found, *runs.notes]
