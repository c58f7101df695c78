"""The page of a search for a curriculum: one HTML file without scripts, its two figures drawn as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from analysis.figures.style import format_ppl
from analysis.page import tune_figures
from analysis.page.tune_figures import Curve
from cl_bench.errors import UserError
from cl_bench.runs import records
from cl_bench.runs.paths import RunDir, TuneDir, write_atomic

_STYLE = """
svg { width: 100%; min-width: 620px; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .axis { stroke: var(--rule); }
svg .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .steady { stroke: #0072B2; fill: #0072B2; }
svg .fluctuates { stroke: #D55E00; fill: #D55E00; }
svg path.steady, svg path.fluctuates { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg path.fluctuates { stroke-dasharray: 6 3; }
svg .cross { fill: none; stroke-width: 2.4; }
@media (prefers-color-scheme: dark) {
  svg .steady { stroke: #4aa5de; fill: #4aa5de; }
  svg .fluctuates { stroke: #f08a4b; fill: #f08a4b; }
  svg path.steady, svg path.fluctuates, svg .cross { fill: none; }
}
"""
_PURPOSES = {"start": "start length", "T": "search of T", "check": "check"}


def write(folder: TuneDir) -> Path:
    """Write the page of a search from its record and its probes' curves. Raises UserError for a damaged record."""
    try:
        search = json.loads(folder.search.read_text())
        page = render(search, [_curve(folder, probe) for probe in search["probes"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.search}: not the record of a search ({error}); tune again to rewrite it") from None
    write_atomic(folder.page, page)
    return folder.page


def _curve(folder: TuneDir, probe: Mapping[str, Any]) -> Curve:
    evals = records.read(RunDir(folder.outputs, str(probe["run_id"]))).evals
    return Curve(
        label=f"start {probe['start']}, T {probe['duration']}",
        tokens=evals["consumed_tokens"].tolist(),
        ppl=evals["val_ppl"].tolist(),
        worst_tokens=None if probe["steady"] else int(probe["worst_tokens"]),
    )


def render(search: Mapping[str, Any], curves: Sequence[Curve]) -> str:
    """The whole page from a search's record and a curve for each of its probes."""
    outcome, probes, settings = search["outcome"], search["probes"], search["settings"]
    sentence, *caveats = outcome["words"] if outcome else ["The search is not over."]
    beginning = probes[-1]["beginning_tokens"] if probes else None
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(str(search["name"]))}: a curriculum tuned</title>
<style>{(files("analysis.page") / "assets" / "style.css").read_text(encoding="utf-8")}{_STYLE}</style>
</head><body><main>
<header><p class="kicker"><strong>{escape(str(search["name"]))}</strong>cl-bench tune</p>
<h1>{escape(sentence)}</h1>
{_list(caveats, "caveats")}
<p class="prose">{escape(_cost(search["cost"]))}</p></header>
<h2>Validation perplexity of every probe</h2>
<figure><div class="scroll">{tune_figures.curves(curves, beginning)}</div>
<figcaption>Every evaluation, not smoothed, on a log axis. Solid: steady; dashed: it fluctuated, a ring where most. The
vertical line ends the very beginning (one LR warmup).</figcaption></figure>
<h2>The search</h2>
<figure><div class="scroll">{tune_figures.path(probes)}</div>
<figcaption>One row a probe, from first to last: a disc where T is steady, a cross where it fluctuates.</figcaption>
</figure>
<div class="scroll">{_table(probes)}</div>
<h2>How it was judged</h2>
{_list(_methods(settings), "methods prose")}
</main></body></html>
"""


def _methods(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"A probe is the beginning of the whole run, {settings['tune.warmups']:g} times its LR warmup, under the whole "
        "run's lengths, learning rates and batches.",
        f"It fluctuates when an evaluation's perplexity is above {settings['tune.threshold']:g} times the best before "
        f"it, or when it diverges. The evaluation before training and the next {settings['tune.skip']} are not judged. "
        "What happens between two evaluations, and after the probe's end, is not seen.",
        "The start is the shortest whose probe with the longest T is steady at the very beginning. T is then searched "
        "by halving, which takes for granted that whatever is below a steady T is steady; "
        f"{settings['tune.checks']} further probe(s) look at stretches that it left out.",
        "Cost counts every probe: training steps and evaluations, but no start of processes, no queue, and no work "
        "rolled back after an interruption. The share is that of one run at full length.",
        "One seed: another may have another T.",
    )


def _list(items: Sequence[str], css: str) -> str:
    rows = "".join(f"<li>{escape(str(item))}</li>" for item in items)
    return f'<ul class="{css}">{rows}</ul>' if rows else ""


def _cost(cost: Mapping[str, Any]) -> str:
    count = cost["probes"]
    return (
        f"Cost: {count} probe{'s' * (count != 1)}, {cost['tokens']:,} tokens ({cost['share_of_tokens']:.0%} of a whole "
        f"run's, {cost['share_of_flops']:.0%} of its FLOPs), {cost['train_seconds']:,.0f} s of training and "
        f"{cost['eval_seconds']:,.0f} s of evaluation."
    )


def _table(probes: Sequence[Mapping[str, Any]]) -> str:
    heads = ("#", "for", "start", "T, steps", "verdict", "worst, x best", "at tokens", "tokens", "seconds", "run")
    numbers = {0, 2, 3, 5, 6, 7, 8}
    rows = []
    for number, probe in enumerate(probes, 1):
        ratio = probe["worst_ratio"]
        cells = (
            str(number),
            _PURPOSES.get(probe["purpose"], str(probe["purpose"])),
            f"{probe['start']:,}",
            f"{probe['duration']:,}",
            "steady" if probe["steady"] else "diverged" if probe["diverged"] else "fluctuates",
            "not finite" if ratio is None else format_ppl(ratio),
            f"{probe['worst_tokens']:,}",
            f"{probe['tokens']:,}",
            f"{probe['train_seconds']:,.1f}",
            str(probe["run_id"]),
        )
        rows.append(_row("td", cells, numbers))
    return f"<table><thead>{_row('th', heads, numbers)}</thead><tbody>{''.join(rows)}</tbody></table>"


def _row(tag: str, cells: Sequence[str], numbers: set[int]) -> str:
    inner = "".join(
        f"<{tag}{' class=n' if i in numbers else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells)
    )
    return f"<tr>{inner}</tr>"
