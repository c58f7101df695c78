"""Final validation loss against learning rate: each method's optimum, its sensitivity, and what counts as useful.

Small models degrade instead of diverging, so "did it diverge?" misses how much room a method leaves for the learning
rate. Sensitivity is that of Wortsman et al., "Small-scale proxies for large-scale Transformer training instabilities"
(arXiv 2309.14322, section 2.2): the mean over a range of learning rates of the final loss, at most the untrained one,
less the loss at the best learning rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from analysis.stats.outcome import Outcome

USEFUL_MARGIN = 0.02
"""Share by which a final loss may exceed the method's best and still be useful."""


@dataclasses.dataclass(frozen=True)
class Point:
    """The runs of one method at one batch size and learning rate."""

    lr: float
    mean_loss: float
    """Mean final validation loss (nats per token) over seeds, diverged ones at the untrained loss."""
    ended_loss: float | None
    """Mean final validation loss over the seeds that did not diverge; None without one."""
    low: float | None
    high: float | None
    """Smallest and largest final loss over the seeds that did not diverge."""
    seeds: int
    diverged: int
    did_not_learn: int
    useful: bool
    """Whether every seed ended within USEFUL_MARGIN of the method's best mean loss, none diverged."""


@dataclasses.dataclass(frozen=True)
class Response:
    """Final loss over learning rate for one method at one batch size."""

    role: str
    curriculum: str
    variant: str
    setting: str
    global_batch_size: int
    points: tuple[Point, ...]
    """In order of learning rate."""
    best_lr: float
    """Learning rate of the lowest mean final loss."""
    best_loss: float
    at_end: bool
    """Whether the best learning rate is the smallest or largest tested, so that the optimum may lie beyond."""
    sensitivity: float | None
    """Mean excess loss (nats) over the learning rates that all methods of this batch size were tested at; None with
    fewer than two."""
    shift: float | None
    """best_lr as a multiple of the baseline's at this batch size; None without one."""

    @property
    def largest_useful(self) -> float | None:
        """Largest useful learning rate."""
        return max((p.lr for p in self.points if p.useful), default=None)


def responses(runs: pd.DataFrame, evals: pd.DataFrame, outcome: Mapping[str, Outcome]) -> list[Response]:
    """One response per method and batch size, of finished and diverged runs (columns of Runs.runs and Runs.evals)."""
    first = evals.groupby("run_id", sort=False)["val_loss"].first()
    table = runs.assign(
        kind=[outcome[str(run_id)].kind for run_id in runs["run_id"]],
        untrained=runs["run_id"].map(first).astype("float64"),
    )
    table = table[table["kind"] != "unfinished"]
    ended = table["final_loss"].where(table["kind"] != "diverged")
    table = table.assign(ended=ended, loss=np.fmin(ended.fillna(table["untrained"]), table["untrained"]))
    table = table[table["loss"].notna()]
    made: list[Response] = []
    for (setting, batch), group in table.groupby(["setting", "global_batch_size"], sort=False):
        lines = list(group.groupby(["role", "curriculum", "variant"], sort=False, dropna=False))
        shared = set.intersection(*({float(lr) for lr in rows["lr"]} for _, rows in lines))
        own = []
        for key, rows in sorted(lines, key=lambda line: cast(tuple[str, ...], line[0])[0] != "baseline"):
            role, curriculum, variant = (str(part) for part in cast(tuple[str, ...], key))
            own.append(_response((role, curriculum, variant, str(setting)), int(cast(int, batch)), rows, shared))
        base = next((r for r in own if r.role == "baseline"), None)
        made += [dataclasses.replace(r, shift=r.best_lr / base.best_lr) if base else r for r in own]
    return made


def _response(names: tuple[str, str, str, str], batch: int, rows: pd.DataFrame, shared: set[float]) -> Response:
    by_lr = {float(cast(float, lr)): cell for lr, cell in rows.groupby("lr")}
    means = {lr: float(cell["loss"].mean()) for lr, cell in by_lr.items()}
    best = min(means, key=lambda lr: means[lr])
    points = tuple(_point(lr, cell, means[best]) for lr, cell in sorted(by_lr.items()))
    common = [means[lr] - means[best] for lr in means if lr in shared]
    return Response(
        *names,
        batch,
        points,
        best,
        means[best],
        best in (min(means), max(means)) and len(means) > 1,
        float(np.mean(common)) if len(common) > 1 else None,
        None,
    )


def _point(lr: float, cell: pd.DataFrame, best: float) -> Point:
    kinds: Sequence[str] = cell["kind"].tolist()
    losses = cell["loss"].to_numpy(dtype=float)
    ended = cell["ended"].dropna().to_numpy(dtype=float)
    return Point(
        lr,
        float(losses.mean()),
        float(ended.mean()) if len(ended) else None,
        float(ended.min()) if len(ended) else None,
        float(ended.max()) if len(ended) else None,
        len(cell),
        kinds.count("diverged"),
        kinds.count("did not learn"),
        set(kinds) == {"learned"} and bool((losses <= (1 + USEFUL_MARGIN) * best).all()),
    )


def useful_runs(runs: pd.DataFrame, made: Sequence[Response], outcome: Mapping[str, Outcome]) -> dict[str, bool | None]:
    """Whether each run ended within USEFUL_MARGIN of its method's best mean loss at its batch size.

    None where that is undecided: the run is not finished. A run that diverged or did not learn is not useful.
    """
    best = {(r.setting, r.curriculum, r.variant, r.global_batch_size): r.best_loss for r in made}
    result: dict[str, bool | None] = {}
    keys = ("run_id", "setting", "curriculum", "variant", "global_batch_size", "final_loss")
    for run_id, setting, curriculum, variant, batch, loss in zip(*(runs[k] for k in keys), strict=True):
        kind = outcome[str(run_id)].kind
        level = best.get((str(setting), str(curriculum), str(variant), int(batch)))
        if kind == "unfinished" or level is None:
            result[str(run_id)] = None
        else:
            result[str(run_id)] = kind == "learned" and float(loss) <= (1 + USEFUL_MARGIN) * level
    return result
