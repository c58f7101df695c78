"""The page of a search for a curriculum (`cl-bench tune`): its probes' curves, its course, its cost and its outcome."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis import figures, words
from analysis.page import html
from analysis.tables import Column, Table
from cl_bench.runs import records, search_record
from cl_bench.runs.paths import RunDir, TuneDir, write_atomic
from cl_bench.runs.search_record import Probe, SearchRecord

_PURPOSES = {"start": "start length", "T": "search of T", "check": "check"}


def write(folder: TuneDir) -> Path:
    """Write the page of a search from its record and its probes' curves. Raises UserError for a damaged record."""
    search = search_record.read(folder)
    runs = {probe.run_id: records.read(RunDir(folder.outputs, probe.run_id)) for probe in search.probes}
    evals = _joined({run_id: run.evals for run_id, run in runs.items()})
    train = _joined({run_id: run.train for run_id, run in runs.items()})
    preset = folder.preset.read_text() if folder.preset.exists() else ""
    write_atomic(folder.page, render(search, evals, train, preset))
    return folder.page


def _joined(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames of several runs as one, with a column run_id."""
    return pd.concat([frame.assign(run_id=run_id) for run_id, frame in frames.items()] or [pd.DataFrame()])


def render(search: SearchRecord, evals: pd.DataFrame, train: pd.DataFrame, preset: str = "") -> str:
    """The whole page from a search's record, its probes' evaluations and training steps, and the preset found."""
    probes = pd.DataFrame([dataclasses.asdict(probe) for probe in search.probes])
    beginning = search.probes[-1].beginning_tokens if search.probes else None
    sentence, *caveats = search.outcome.words if search.outcome else ("The search has not ended.",)
    curves = figures.probe_curves(probes, evals, train, beginning)
    plots = {"probes": curves, "search": figures.search_path(probes)}
    return html.document(
        "tune.html.jinja",
        {"title": search.name, "target": None, "watched": False, "pairs": {}, "figures": html.compact(plots)},
        kind="a curriculum tuned",
        title=search.name,
        question="cl-bench tune",
        sentence=sentence,
        caveats=caveats,
        refresh_s=None,
        time_word=curves["layout"].get("meta", {}).get("time", "time"),
        cost=search.cost,
        settings=search.settings,
        probes=_table(search.probes),
        preset=preset,
    )


def _table(probes: Sequence[Probe]) -> Table:
    def column(head: str, values: list[str]) -> Column:
        return Column(head, values, number=True)

    def counts(head: str, key: str) -> Column:
        return column(head, [f"{getattr(p, key):,}" for p in probes])

    ratios = [words.ppl(p.worst_ratio) if math.isfinite(p.worst_ratio) else "not finite" for p in probes]
    columns = [
        column("#", [str(i) for i, _ in enumerate(probes, 1)]),
        Column("purpose", [_PURPOSES[p.purpose] for p in probes]),
        counts("start (tokens)", "start"),
        counts("T (steps)", "duration"),
        Column("verdict", [_verdict(p) for p in probes]),
        column("worst ÷ best before", ratios),
        counts("at tokens", "worst_tokens"),
        counts("tokens", "tokens"),
        column("training (s)", [f"{p.train_seconds:,.1f}" for p in probes]),
        Column("run", [p.run_id for p in probes]),
    ]
    return Table("Every probe, from first to last", columns, "No probe has ended yet.")


def _verdict(probe: Probe) -> str:
    return "steady" if probe.steady else "diverged" if probe.diverged else "fluctuates"
