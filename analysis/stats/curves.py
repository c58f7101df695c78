"""Validation curves as arrays, by run: what targets are read off."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.stats.crossings import Crossing, Floats, Method, crossing, crossings


class Curve(NamedTuple):
    """A run's evaluations in order of tokens, each array of shape (evaluations,)."""

    tokens: Floats
    seconds: Floats
    """Of training steps only."""
    loss: Floats
    """Nats a token; NaN where it was not finite."""

    def crossing(self, target_loss: float, method: Method) -> Crossing:
        """When it reaches the target (analysis.stats.crossings)."""
        return crossing(self.tokens, self.seconds, self.loss, target_loss, method)

    def crossings(self, targets: Floats, method: Method) -> tuple[Floats, Floats]:
        """Tokens and seconds to each of the targets, NaN where never."""
        return crossings(self.tokens, self.seconds, self.loss, targets, method)

    def depth(self, method: Method) -> float:
        """The deepest target that it reaches by `method`: to stay at or below a loss is to end there."""
        if method != "sustained":
            return self.best
        return float(self.loss[-1]) if np.isfinite(self.loss[-1]) else np.inf

    @property
    def start(self) -> float:
        """Loss of the first evaluation; a target above it was reached before anybody looked."""
        return float(self.loss[0])

    @property
    def best(self) -> float:
        """The lowest loss, infinite where none is finite."""
        finite = self.loss[np.isfinite(self.loss)]
        return float(finite.min()) if len(finite) else np.inf


def curves(evals: pd.DataFrame) -> dict[str, Curve]:
    """The curve of each run_id that has an evaluation. `evals` as in analysis.schema, runs in one piece or not."""
    if evals.empty:
        return {}
    codes, names = pd.factorize(evals["run_id"])
    order = np.argsort(codes, kind="stable")
    columns = [evals[c].to_numpy(dtype=float)[order] for c in ("consumed_tokens", "train_seconds", "val_loss")]
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    parts = zip(*(np.split(column, ends) for column in columns), strict=True)
    return {str(name): Curve(*part) for name, part in zip(names, parts, strict=True)}
