"""Differences between the two arms of a cell that a reader must know: evaluation noise and grids, token budgets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis.schema import Cell, cell_of, rows_of
from analysis.stats.crossings import Curve
from analysis.stats.level import SHARE
from analysis.stats.smoothing import FEWEST_FOR_NOISE, evaluation_noise, reading_noise, usable

Kind = Literal["noise", "grid", "budget", "hardly readable", "too few evaluations"]

FACTOR = 2.0
"""Noise, or evaluations per token, that differ by more than this factor between the arms is named."""
BUDGET_TOLERANCE = 0.01
"""Relative difference of token budgets that is named: their learning rates decay differently."""
HARDLY_READABLE = 0.5
"""Evaluation noise, as an error of log tokens, above which a run is named."""


@dataclasses.dataclass(frozen=True)
class Unlike:
    """One such difference, or one run that can hardly be read."""

    kind: Kind
    cell: Cell
    """Of the curriculum; of a run that is named by itself, its own cell."""
    ratio: float
    """Curriculum over baseline: noise, evaluations per token or token budget; for "hardly readable" the noise of one
    reading as an error of log tokens, for "too few evaluations" their number."""
    run_ids: tuple[str, ...]
    """The curriculum's and the baselines' runs concerned."""


def unlike_arms(
    table: pd.DataFrame, cells: Sequence[tuple[Cell, Sequence[tuple[str, str]]]], by_run: Mapping[str, Curve]
) -> tuple[Unlike, ...]:
    """All differences of the cells' (curriculum, baseline) pairs of run_ids, then the runs that can hardly be read.

    `table` is Runs.runs. None of them needs a test to be refused: crossings are read off cleaned curves, whose error
    rates hold at up to 33 times the noise and four times the evaluations (docs/statistics.md).
    """
    rows = {str(row["run_id"]): row for row in rows_of(table)}
    curves = {i: usable(c) for i, c in by_run.items()}
    noise = {
        i: float(evaluation_noise(c.tokens, c.loss))
        for i, c in curves.items()
        if c is not None and len(c.tokens) >= FEWEST_FOR_NOISE
    }
    noise = {i: sd for i, sd in noise.items() if sd > 1e-9}  # curves without noise have no ratio
    results: list[Unlike] = []
    for cell, pairs in cells:
        ids = tuple(dict.fromkeys(i for pair in pairs for i in pair))
        measures: tuple[tuple[Kind, Mapping[str, float], float], ...] = (
            ("noise", noise, FACTOR),
            ("grid", {i: len(c.tokens) / float(c.tokens[-1]) for i, c in curves.items() if c is not None}, FACTOR),
            ("budget", {i: float(rows[i]["token_budget"]) for i in ids}, 1 + BUDGET_TOLERANCE),
        )
        for kind, values, factor in measures:
            ratio = _ratio(values, pairs)
            if ratio is not None and max(ratio, 1 / ratio) > factor:
                results.append(Unlike(kind, cell, ratio, ids))
    compared = dict.fromkeys(i for _, pairs in cells for pair in pairs for i in pair)
    for run_id in compared:
        results += _hardly_readable(
            run_id, cell_of(rows[run_id]), by_run.get(run_id), finished=rows[run_id]["state"] == "DONE"
        )
    return tuple(results)


def _ratio(values: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> float | None:
    """Geometric mean over pairs of curriculum / baseline; None if a pair has no positive values to compare."""
    logs = [math.log(values[c] / values[b]) for c, b in pairs if values.get(c, 0) > 0 and values.get(b, 0) > 0]
    return math.exp(float(np.mean(logs))) if logs else None


def _hardly_readable(run_id: str, cell: Cell, curve: Curve | None, *, finished: bool) -> Iterator[Unlike]:
    if curve is None:
        return
    part = usable(curve)
    if part is None:
        count = float((np.isfinite(curve.loss) & (curve.tokens > 0)).sum())
        if finished:  # a run that has only begun will have more
            yield Unlike("too few evaluations", cell, count, (run_id,))
        return
    if len(part.tokens) >= FEWEST_FOR_NOISE:
        error = reading_noise(part, SHARE * float(part.tokens[-1]))
        if error > HARDLY_READABLE:
            yield Unlike("hardly readable", cell, error, (run_id,))
