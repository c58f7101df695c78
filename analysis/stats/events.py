"""Instability events: how often a run's training loss left the level that it had reached.

The paper's loss ratio (arXiv 2108.06084, section 3) compares single steps, so that short sequences and small batches
exceed any threshold by sampling noise alone. Here the loss is averaged over windows of equal tokens (batch size × full
length). A window is *unstable* if it exceeds RATIO times the lowest earlier one and lies more than SIGMAS standard
deviations of the run's own noise above the lowest mean of earlier windows; two or more of them in a row are an *event*.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from analysis.schema import Runs, rows_of, stretches
from analysis.stats.intervals import CONFIDENCE, holm

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RATIO = 1.2
SIGMAS = 6.0
FEWEST_WINDOWS = 16
"""Windows that a run needs before its noise can be measured."""
_SMOOTHED = 16
"""Windows whose mean is the level that a loss had reached: the lowest single window is luck."""
_LOCAL = 65
"""Windows over which local noise is measured."""
_QUIET = 8
"""Windows below the threshold that end an event."""
_IN_A_ROW = 2
"""Unstable windows that make an event: a single one is an unlucky batch of text."""
SPIKE_WINDOW = 128
"""Steps before a step that SpikeScore compares it with."""
_CHUNK = 1 << 14
"""Steps whose windows are held in memory at once."""


@dataclasses.dataclass(frozen=True)
class Event:
    """An unstable stretch of a run."""

    first_step: int
    """Step that begins its first window."""
    tokens: float
    """Tokens consumed before its first window."""
    windows: int
    ratio: float
    """Its highest window over the lowest earlier one; infinite if the loss was not finite."""
    at_length_change: bool
    """Whether it begins within one window after a change of the sequence length."""


@dataclasses.dataclass(frozen=True)
class RunEvents:
    """The instability events of one run."""

    windows: int
    events: tuple[Event, ...]
    is_measured: bool
    """Whether the run has the FEWEST_WINDOWS windows from which its noise can be measured."""
    smallest_detectable: float | None
    """Ratio to the lowest window at which the run's median noise lets an event show: 1 + SIGMAS × noise ÷ lowest
    window, at least RATIO; None if not measured."""
    skipped_steps: int
    """Steps without an update: the loss scale fell, or the gradient norm was not finite (fp16, bf16)."""
    spike_score_loss: float
    """Share of steps that are spikes of the training loss (:func:`spike_score`); NaN for short runs."""
    spike_score_grad_norm: float

    @property
    def at_length_changes(self) -> int:
        """Events that begin at a change of length."""
        return sum(e.at_length_change for e in self.events)


NOTHING = RunEvents(0, (), False, None, 0, math.nan, math.nan)
"""Of a run without training steps."""


def run_events(runs: Runs) -> dict[str, RunEvents]:
    """The events of each run_id, from its training steps."""
    train = dict(stretches(runs.train))
    result = {}
    for run in rows_of(runs.runs):
        run_id = str(run["run_id"])
        if (rows := train.get(run_id)) is None:
            result[run_id] = NOTHING
            continue
        size = float(run["global_batch_size"]) * float(run["max_seqlen"])
        result[run_id] = measure(runs.train.iloc[rows], size, str(run.get("precision", "")))
    return result


def measure(train: pd.DataFrame, window_tokens: float, precision: str = "") -> RunEvents:
    """The events of one run from its rows of schema.TRAIN_COLUMNS; windows of `window_tokens` tokens."""
    consumed, loss, seqlen = (train[c].to_numpy(dtype=float) for c in ("consumed_tokens", "loss", "seqlen"))
    step_numbers = train["step"].to_numpy()
    grad_norm, scale = (
        train[c].to_numpy(dtype=float) if c in train else np.full(len(train), np.nan)
        for c in ("grad_norm", "loss_scale")
    )
    tokens = np.maximum(np.diff(consumed, prepend=0.0), 1.0)
    if window_tokens <= 0 or len(loss) == 0:
        return NOTHING
    values, first = windows(tokens, loss, window_tokens)
    unstable = unstable_windows(values)
    changes = np.flatnonzero(np.diff(seqlen)) + 1  # the first steps of a new length
    is_measured = bool(np.isfinite(values).sum() >= FEWEST_WINDOWS)
    found = []
    for begin, end in spans(unstable, ~np.isfinite(values)):
        lowest = float(np.min(values[:begin], initial=np.inf, where=np.isfinite(values[:begin])))
        since = first[max(0, begin - 1)]
        until = first[begin + 1] if begin + 1 < len(first) else len(loss)
        found.append(
            Event(
                int(step_numbers[first[begin]]),
                float(consumed[first[begin]] - tokens[first[begin]]),
                end - begin + 1,
                float(values[begin : end + 1].max()) / lowest if math.isfinite(lowest) else math.inf,
                bool(((changes >= since) & (changes < until)).any()),
            )
        )
    return RunEvents(
        len(values),
        tuple(found),
        is_measured,
        _smallest_detectable(values) if is_measured else None,
        skipped_steps(grad_norm, scale, precision),
        spike_score(loss),
        spike_score(grad_norm) if np.isfinite(grad_norm).any() else math.nan,
    )


def _smallest_detectable(values: Floats) -> float:
    """1 + SIGMAS × median noise ÷ lowest window, at least RATIO."""
    noise = float(np.nanmedian(noise_sd(values)))
    return max(RATIO, 1 + SIGMAS * noise / float(values[np.isfinite(values)].min()))


def windows(tokens: Floats, loss: Floats, size: float) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Mean training loss over windows of `size` tokens (W,), and the position of each window's first step (W,).

    `tokens` (steps,): tokens of each step, `loss` (steps,): its mean loss. A step belongs to the window in which its
    last token falls; a window's mean is weighted by tokens, and infinite if it holds a loss that is not finite. A
    remainder of less than half a window is left out.
    """
    bad = ~np.isfinite(loss)
    number = np.ceil(np.cumsum(tokens) / size - 1e-9).astype(np.intp) - 1
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    mass = np.bincount(number, tokens)
    mean = np.bincount(number, tokens * np.where(bad, 0, loss)) / mass
    spoiled = np.bincount(number, bad) > 0
    mean = np.where(spoiled, np.inf, mean)
    keep = len(mean) if mass[-1] >= size / 2 or spoiled[-1] or len(mean) == 1 else len(mean) - 1
    return mean[:keep], first[:keep]


def noise_sd(w: Floats) -> Floats:
    """Standard deviation of a window's own noise at each window (W,): the larger of the local and the run's.

    From differences of neighbouring windows less their running median (a smooth fall), over sqrt(2), by the median of
    their absolute values / 0.6745, which a few spikes leave alone. NaN with fewer than FEWEST_WINDOWS windows.
    """
    finite = np.where(np.isfinite(w), w, np.nan)
    if np.isfinite(finite).sum() < FEWEST_WINDOWS:
        return np.full(len(w), np.nan)
    step = np.diff(finite, prepend=np.nan)
    step = np.abs(step - _running_median(step)) / math.sqrt(2)
    result: Floats = np.fmax(_running_median(step), float(np.nanmedian(step))) / 0.6745
    return result


def _running_median(values: Floats) -> Floats:
    """Median of the _LOCAL values around each, NaN left out, fewer at the ends."""
    return pd.Series(values).rolling(_LOCAL, center=True, min_periods=1).median().to_numpy(dtype=float)


def unstable_windows(w: Floats) -> Mask:
    """Windows above RATIO times the lowest earlier one and SIGMAS sd above the level reached, or not finite (W,).

    The level is the lowest mean of _SMOOTHED consecutive earlier windows (of all earlier ones while there are fewer, at
    least 4): measured from the lowest single window, itself three sd low by luck, six sd are three.
    """
    n = len(w)
    is_finite = np.isfinite(w)
    lowest = np.concatenate([[np.inf], np.minimum.accumulate(np.where(is_finite, w, np.inf))[:-1]])
    sums = np.concatenate([[0.0], np.cumsum(np.where(is_finite, w, 0))])
    spoiled = np.concatenate([[0], np.cumsum(~is_finite)])
    end = np.arange(1, n + 1)
    start = np.maximum(end - _SMOOTHED, 0)
    mean = np.where(spoiled[end] == spoiled[start], (sums[end] - sums[start]) / (end - start), np.inf)
    mean[: min(3, n)] = np.inf
    level = np.concatenate([[np.inf], np.minimum.accumulate(mean)[:-1]])
    with np.errstate(invalid="ignore"):
        above = (w > RATIO * lowest) & (w - level > SIGMAS * noise_sd(w))
    result: Mask = above | ~is_finite
    return result


def spans(unstable: Mask, not_finite: Mask) -> list[tuple[int, int]]:
    """(first, last) window of each event, from masks (W,).

    _IN_A_ROW unstable windows, or one that is not finite, make an event; events with at most _QUIET windows between
    them are one.
    """
    inside = np.convolve(unstable, np.ones(_IN_A_ROW, dtype=np.int64))  # (W + _IN_A_ROW - 1,)
    full = inside >= _IN_A_ROW  # at the last window of each stretch of _IN_A_ROW
    kept = unstable & not_finite
    for back in range(_IN_A_ROW):
        kept |= np.concatenate([full[back : len(unstable)], np.zeros(back, dtype=bool)])
    at = np.flatnonzero(kept & unstable)
    if not len(at):
        return []
    cuts = np.flatnonzero(np.diff(at) > _QUIET + 1)
    starts, ends = np.concatenate([[0], cuts + 1]), np.concatenate([cuts, [len(at) - 1]])
    return [(int(at[a]), int(at[b])) for a, b in zip(starts, ends, strict=True)]


def skipped_steps(grad_norm: Floats, loss_scale: Floats, precision: str) -> int:
    """Steps (steps,) whose update was skipped: the loss scale fell, or, in fp16 or bf16, a missing gradient norm.

    A norm that the engine never reports says nothing, so it counts only if others are finite.
    """
    with np.errstate(invalid="ignore"):
        skipped = np.concatenate([[False], loss_scale[1:] < loss_scale[:-1]])
    if precision in ("fp16", "bf16") and np.isfinite(grad_norm).any():
        skipped |= ~np.isfinite(grad_norm)
    return int(skipped.sum())


def spike_score(values: Floats, window: int = SPIKE_WINDOW, sigmas: float = SIGMAS) -> float:
    """Share of steps whose value exceeds the mean of the `window` before it by `sigmas` of their population sd.

    Over all steps; the first `window` steps cannot count. NaN for runs that are not longer than that. As OLMo-core's
    StabilityMonitor (allenai/OLMo-core, src/olmo_core/train/callbacks/stability_monitor.py).
    """
    if len(values) <= window:
        return math.nan
    v = np.where(np.isfinite(values), values, np.inf)
    before = np.lib.stride_tricks.sliding_window_view(v, window)[:-1]  # (steps - window, window)
    count = 0
    with np.errstate(invalid="ignore"):
        for start in range(0, len(before), _CHUNK):
            rows = before[start : start + _CHUNK]
            mean, sd = rows.mean(axis=1), rows.std(axis=1)
            count += int(((v[window + start :][: len(rows)] > mean + sigmas * sd) & (sd >= 1e-10)).sum())
    return count / len(values)


@functools.cache
def poisson_interval(count: int, exposure: float) -> tuple[float, float]:
    """Exact 95% interval of a rate from `count` events in `exposure` runs (Garwood, Biometrika 28, 1936)."""
    tail = (1 - CONFIDENCE) / 2
    low = float(special.chdtri(2 * count, 1 - tail)) / 2 if count else 0.0
    return low / exposure, float(special.chdtri(2 * count + 2, tail)) / 2 / exposure


def poisson_p(count: int, exposure: float, other: int, other_exposure: float) -> float:
    """Two-sided exact p of equal rates, given the total (Przyborowski and Wilenski, Biometrika 31, 1940)."""
    total = count + other
    return float(stats.binomtest(count, total, exposure / (exposure + other_exposure)).pvalue) if total else 1.0


@dataclasses.dataclass(frozen=True)
class EventRate:
    """Instability events per run of one method, beside the baseline."""

    setting: str
    role: str
    curriculum: str
    variant: str
    runs: int
    """Runs whose noise could be measured."""
    too_short: int
    """Runs that are too short to tell, or have no training steps."""
    events: int
    at_length_changes: int
    """Those of `events` that begin at a change of length."""
    low: float | None
    """Exact Poisson interval of the events per run, if runs are alike; None without runs."""
    high: float | None
    with_event: int
    """Runs with an event or more."""
    share_low: float | None
    """Clopper-Pearson interval of their share, which does not need runs to be alike."""
    share_high: float | None
    skipped_steps: int
    smallest_detectable: float | None
    """Median over runs."""
    p_value: float | None
    """Exact comparison with the baseline's rate, over the batch sizes and learning rates that both were trained at;
    None for a baseline and without such a place."""
    p_holm: float | None = None
    """`p_value` adjusted by Holm's method over all methods compared."""

    @property
    def per_run(self) -> float | None:
        """Events per run."""
        return self.events / self.runs if self.runs else None


def event_rates(runs: pd.DataFrame, events: Mapping[str, RunEvents]) -> list[EventRate]:
    """One rate per setting and method (columns of Runs.runs), the baseline first."""
    table = runs.assign(variant=runs["variant"].fillna("").astype(str))
    made = []
    for setting, group in table.groupby("setting", sort=False):
        baseline = group[group["role"] == "baseline"]
        lines = sorted(
            group.groupby(["role", "curriculum", "variant"], sort=False),
            key=lambda line: cast(tuple[str, str, str], line[0])[0] != "baseline",
        )
        for key, rows in lines:
            role, curriculum, variant = (str(part) for part in cast(tuple[str, str, str], key))
            p_value = None if role == "baseline" else _compare(rows, baseline, events)
            names = (str(setting), role, curriculum, variant)
            made.append(_rate(names, [events[str(r)] for r in rows["run_id"]], p_value))
    adjusted = iter(holm([rate.p_value for rate in made if rate.p_value is not None]))
    return [r if r.p_value is None else dataclasses.replace(r, p_holm=next(adjusted)) for r in made]


def _rate(names: tuple[str, str, str, str], own: Sequence[RunEvents], p_value: float | None) -> EventRate:
    judged = [e for e in own if e.is_measured or e.events]
    count, affected = sum(len(e.events) for e in judged), sum(bool(e.events) for e in judged)
    low = high = share_low = share_high = None
    if judged:
        low, high = poisson_interval(count, len(judged))
        share = stats.binomtest(affected, len(judged)).proportion_ci(CONFIDENCE, method="exact")
        share_low, share_high = float(share.low), float(share.high)
    detectable = [e.smallest_detectable for e in judged if e.smallest_detectable is not None]
    return EventRate(
        *names,
        runs=len(judged),
        too_short=len(own) - len(judged),
        events=count,
        at_length_changes=sum(e.at_length_changes for e in judged),
        low=low,
        high=high,
        with_event=affected,
        share_low=share_low,
        share_high=share_high,
        skipped_steps=sum(e.skipped_steps for e in own),
        smallest_detectable=float(np.median(detectable)) if detectable else None,
        p_value=p_value,
    )


def _compare(ours: pd.DataFrame, baseline: pd.DataFrame, events: Mapping[str, RunEvents]) -> float | None:
    """Exact p over the cells that both were trained at."""

    def counts(rows: pd.DataFrame, others: pd.DataFrame) -> tuple[int, int]:
        shared = set(zip(others["global_batch_size"], others["lr"], strict=True))
        cells = zip(rows["global_batch_size"], rows["lr"], rows["run_id"], strict=True)
        own = [events[str(run_id)] for batch, lr, run_id in cells if (batch, lr) in shared]
        judged = [e for e in own if e.is_measured or e.events]
        return sum(len(e.events) for e in judged), len(judged)

    (count, n), (other, other_n) = counts(ours, baseline), counts(baseline, ours)
    return poisson_p(count, n, other, other_n) if n and other_n else None
