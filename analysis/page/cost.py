"""The page's section on clocks and cost: whether seconds may be compared, hours and money, tuning, throughput."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

import pandas as pd

from analysis import figures
from analysis.cost.hours import Cost
from analysis.figures import Figure
from analysis.page import cost_tables

_BREAK_EVEN = (
    "The tuning is paid back once the hours that so many runs save, lost ones counted on both sides, have made up "
    "for it."
)


_NO_HOURS = (
    "How many ranks the runs had is not known (column world_size), so there are no hours and no money to tell. Seconds "
    "are compared as they are."
)


def _unknown(found: Cost) -> bool:
    return bool(len(found.runs) and found.runs["rank_hours"].isna().all())


def drawn(found: Cost, runs: pd.DataFrame) -> dict[str, Figure]:
    """The section's figures by the ids of their places in it; none where no hours are known."""
    if _unknown(found):
        return {}
    styles = figures.run_styles(runs)
    colors, dashes = (dict(zip(styles[k], styles[v], strict=True)) for k, v in (("method", "color"), ("batch", "dash")))
    return {
        "hours": figures.hours_spent(found.totals, found.unit.word, found.unit.per_hour, colors),
        "throughput": figures.throughput_by_length(found.throughput, colors, dashes),
    }


def section(found: Cost) -> str:
    """The section's HTML."""
    if _unknown(found):
        return (
            '<section aria-labelledby="h-cost">\n<h2 id="h-cost">Clocks and cost</h2>\n'
            f'<p class="prose">{escape(clocks_in_words(found.runs))} {_NO_HOURS}</p>\n</section>\n'
        )
    hour = found.unit.hour_word
    rank = "an hour of one GPU" if hour == "GPU-hour" else "an hour of one rank, which is one process on a GPU or CPU"
    tuned = any(cell.tuning_rank_hours for cell in found.cells)
    values = {
        "clocks": escape(clocks_in_words(found.runs)),
        "cells_table": cost_tables.cost_cells_table(found),
        "rank": f"A {hour} is {rank}.",
        "break_even": f" {_BREAK_EVEN}" if tuned else "",
        "price": "" if found.price is None else f" Money: {found.price:g} per {hour}.",
        "notes": f'<ul class="caveats">{"".join(f"<li>{escape(note)}</li>" for note in found.notes)}</ul>',
        "runs_table": cost_tables.cost_runs_table(found),
        "throughput_table": cost_tables.throughput_table(found.throughput),
    }
    template = (files("analysis.page") / "assets" / "cost.html").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def clocks_in_words(runs: pd.DataFrame) -> str:
    """What the runs ran on: 'All runs: 1 rank on NVIDIA H100, bf16.', or how many on which."""
    trained = runs[runs["rank_hours"] != 0]  # NaN: trained, on nobody knows how many ranks
    if trained.empty:
        return "No run has started yet."
    clocks = trained[["world_size", "hardware", "precision"]].value_counts(sort=True)
    words = [_clock(*key) for key in clocks.index]
    if len(words) == 1:
        which = (
            f"All {len(trained)} runs" if len(trained) == len(runs) else f"The {len(trained)} runs that have started"
        )
        return f"{which if len(trained) > 1 else 'The run that has started'}: {words[0]}."
    counted = [f"{n} on {word}" for n, word in zip(clocks, words, strict=True)]
    return f"Runs by clock: {'; '.join(counted)}. Seconds of unlike runs measure the machines as well."


def _clock(ranks: int, hardware: str, precision: str) -> str:
    of = f"{ranks} rank{'s' * (ranks != 1)}" if ranks else "an unknown number of ranks"
    return f"{of} of {hardware or 'unknown hardware'}{', ' + precision if precision else ''}"
