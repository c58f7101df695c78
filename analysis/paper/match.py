"""Match of a run with a published cell, by the values of its configuration, never by its name alone.

A run that has every published value is that cell. One that has a cell's shape (method, batch and learning rate as
multiples of the small baseline's, warmup as a share of the baseline's steps) at another model, length or token budget
is a replica of it. For every other run the reason is given.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from analysis.paper.facts import EXPERIMENTS, Cell, Experiment, Method
from cl_bench.config import RunConfig
from cl_bench.runs.identity import short_float

_SHARE_TOLERANCE = 0.1
"""Relative difference up to which two warmups take the same share of the baseline's steps."""
_REFERENCE = {"gpt2_1558m": (512, 1.5e-4), "gpt2_117m": (512, 1.5e-4), "gpt3_125m": (256, 6e-4)}
"""Batch and learning rate of each experiment's small baseline, of which the other cells are multiples."""


@dataclasses.dataclass(frozen=True)
class Match:
    """The place of a run beside the published grid."""

    experiment: Experiment | None = None
    cell: Cell | None = None
    """The published cell, or the one whose shape the run has; None: neither."""
    replica: bool = False
    """Whether it has only the cell's shape, at another scale."""
    why: str = ""
    """The reason for being neither."""

    @property
    def is_published(self) -> bool:
        """Whether every verified value is the published one."""
        return self.cell is not None and not self.replica

    @property
    def title(self) -> str:
        """The cell's name with its experiment."""
        assert self.experiment is not None
        assert self.cell is not None
        return f"{self.experiment.title} {self.cell.name}"

    def is_cell(self, experiment: Experiment, cell: Cell) -> bool:
        """Whether the run is this published cell."""
        return self.is_published and self.experiment is experiment and self.cell is cell


def match(config: RunConfig, name: str, base: RunConfig | None) -> Match:
    """The published cell of a resolved configuration.

    `name` is the sweep's name for the run's cell, `base` the small baseline of the run's own scale (`base_of`).
    """
    for experiment in EXPERIMENTS:
        for cell in experiment.cells:
            if not differences(config, experiment, cell):
                return Match(experiment, cell)
    ordered = sorted(EXPERIMENTS, key=lambda e: not at_scale(config, e))  # its own experiment first
    for experiment in ordered:
        shape = _same_shape(config, base, experiment) if base is not None else None
        if shape is not None and not at_scale(config, experiment):
            return Match(experiment, shape, replica=True)
        if at_scale(config, experiment):
            named = next((c for c in experiment.cells if c.name == name), None)
            if nearest := named or shape:
                listed = "; ".join(differences(config, experiment, nearest))
                return Match(why=f"not {experiment.title}'s {nearest.name}: {listed}")
    if base is None:
        return Match(why="no baseline of its own scale here to compare its shape with")
    batch, lr = _ratios(config, (base.global_batch_size, base.optim.lr))
    return Match(
        why=f"no published cell has its shape ({config.method}, {batch:g}x batch, {lr:g}x LR{_share_of(config)})"
    )


def base_of(config: RunConfig, others: list[RunConfig]) -> RunConfig | None:
    """The baseline with the smallest batch, then learning rate, of the same model, length and token budget."""
    same = [c for c in others if c.is_baseline and _scale(c) == _scale(config)]
    # If a cell clips more tightly, the usual clipping is the baseline's.
    return min(same, key=lambda c: (c.global_batch_size, c.optim.lr, -c.optim.grad_clip), default=None)


def at_scale(config: RunConfig, experiment: Experiment) -> bool:
    """Whether model, length and token budget are the experiment's."""
    published = (experiment.n_layers, experiment.hidden_size, experiment.n_heads)
    return _scale(config) == (*published, experiment.seqlen, experiment.token_budget)


def method_of(config: RunConfig) -> Method | None:
    """The method in the published grid's terms; None if the grid has no such method."""
    cur = config.curriculum
    if cur.schedule == "baseline":
        return "baseline" if config.batch_warmup.start is None else "batch_warmup"
    if config.batch_warmup.start is not None or cur.mode != "truncate" or config.max_difficulty != config.seqlen:
        return None
    if cur.schedule == "fixed_linear" or (cur.schedule == "fixed_root" and cur.root_degree == 1):
        return "length"
    return "two_stage" if cur.schedule == "fixed_discrete" and len(cur.difficulty) == 2 else None


def differences(config: RunConfig, experiment: Experiment, cell: Cell) -> list[str]:
    """The verified values of a published cell from which a resolved configuration differs, in words."""
    here: dict[str, Any] = {
        "model.n_layers": config.model.n_layers,
        "model.hidden_size": config.model.hidden_size,
        "model.n_heads": config.model.n_heads,
        "max_seqlen": config.seqlen,
        "token_budget": config.token_budget,
        "global_batch_size": config.global_batch_size,
        "method": method_of(config) or config.method,
        "optim.lr": config.optim.lr,
    }
    published: dict[str, Any] = {
        "model.n_layers": experiment.n_layers,
        "model.hidden_size": experiment.hidden_size,
        "model.n_heads": experiment.n_heads,
        "max_seqlen": experiment.seqlen,
        "token_budget": experiment.token_budget,
        "global_batch_size": cell.batch,
        "method": cell.method,
        "optim.lr": cell.lr,
        **experiment.settings,
        **cell.settings,
    }
    if here["method"] == cell.method and cell.method != "baseline":
        ends = (cell.until, cell.until_unit if cell.until else None)
        here |= _warmup(config, cell.method)
        published |= dict(zip(_WARMUP, (cell.start, cell.by, *ends), strict=True))
    lines = []
    for key, expected in published.items():
        value = here[key] if key in here else _setting(config, key)
        if expected is not None and key not in cell.below and not _equal(value, expected):
            lines.append(f"{key} = {_text(value)} (published {_text(expected)})")
    for key, limit in cell.below.items():
        value = _setting(config, key)
        if not 0 < value < limit:
            lines.append(f"{key} = {_text(value)} (published: below {_text(limit)})")
    return lines


_WARMUP = ("warmup start", "warmup by", "warmup end", "warmup unit")


def _warmup(config: RunConfig, method: Method) -> dict[str, Any]:
    """The warmup of length or batch of a configuration of this method, by the names of _WARMUP."""
    cur, batch = config.curriculum, config.batch_warmup
    values: tuple[Any, ...] = (cur.min_difficulty, cur.difficulty_step, cur.duration, "steps")
    if method == "batch_warmup":
        values = (batch.start, batch.increment, batch.duration, batch.duration_unit)
    elif method == "two_stage":
        values = (cur.difficulty[0], None, cur.max_step[0], "steps")
    return dict(zip(_WARMUP, values, strict=True))


def _same_shape(config: RunConfig, base: RunConfig, experiment: Experiment) -> Cell | None:
    """The experiment's cell whose shape the run has; of several, the one with the nearest share of warmup."""
    ours = _ratios(config, (base.global_batch_size, base.optim.lr))
    candidates: list[tuple[float, Cell]] = []
    for cell in experiment.cells:
        batch, lr = _REFERENCE[experiment.name]
        theirs = (cell.batch / batch, cell.lr / lr if cell.lr else None)
        if method_of(config) != cell.method or not math.isclose(ours[0], theirs[0]):
            continue
        if not _rate_and_clip(ours[1], theirs[1], config, base, cell, lr):
            continue
        distance = _share_distance(config, cell, experiment)
        if distance <= _SHARE_TOLERANCE:
            candidates.append((distance, cell))
    return min(candidates, key=lambda pair: pair[0])[1] if candidates else None


def _rate_and_clip(
    ours: float, theirs: float | None, config: RunConfig, base: RunConfig, cell: Cell, reference_lr: float
) -> bool:
    """Whether the learning rate's multiple and the clipping, relative to the base's, have the cell's shape."""
    clip, usual = config.optim.grad_clip, base.optim.grad_clip
    if ("optim.grad_clip" in cell.below) != (0 < clip < usual):
        return False
    if "optim.lr" in cell.below:
        return ours < cell.below["optim.lr"] / reference_lr * (1 - 1e-6)
    # A cell of unknown rate has that of the grid's large batch: 4x at 8x.
    return math.isclose(ours, 4.0 if theirs is None else theirs, rel_tol=1e-6)


def _share_distance(config: RunConfig, cell: Cell, experiment: Experiment) -> float:
    """Relative difference of the warmups' shares of the baseline's steps; 0 if they are not compared."""
    if cell.method not in ("length", "two_stage") or cell.until is None:
        return 0.0
    published = cell.until / math.ceil(experiment.token_budget / (cell.batch * experiment.seqlen))
    return abs((_share(config) or 0.0) / published - 1)


def _share(config: RunConfig) -> float | None:
    """Steps of the length warmup as a share of the baseline's steps at the same batch."""
    cur = config.curriculum
    steps = cur.max_step[0] if cur.max_step else cur.duration
    return steps / config.baseline_steps if steps and cur.schedule != "baseline" else None


def _share_of(config: RunConfig) -> str:
    share = _share(config)
    return "" if share is None else f", warmup over {share:.0%} of the baseline's steps"


def _ratios(config: RunConfig, reference: tuple[int, float]) -> tuple[float, float]:
    return config.global_batch_size / reference[0], config.optim.lr / reference[1]


def _scale(config: RunConfig) -> tuple[int, int, int, int, int]:
    model = config.model
    return model.n_layers, model.hidden_size, model.n_heads, config.seqlen, config.token_budget


def _setting(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(expected, str) or value is None:
        return bool(value == expected)
    return math.isclose(float(value), float(expected), rel_tol=1e-9)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return short_float(value) if 0 < abs(value) < 0.01 else f"{value:,.15g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
