"""The two figures of a search's page, as SVG: perplexity curves, and the values of T in the order of their probes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from analysis.figures.style import format_ppl
from analysis.figures.thinning import thin_minmax

_WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP = 900, 64, 150, 34, 12
_MOST_POINTS = 400
_LABEL_PX = 14.0


@dataclass(frozen=True)
class Curve:
    """One probe's validation perplexity over consumed tokens."""

    label: str
    tokens: Sequence[int]
    ppl: Sequence[float]
    worst_tokens: int | None
    """Where it fluctuated most; None: it is steady."""

    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn on a log axis, at most _MOST_POINTS, peaks kept."""
        points = [(float(t), p) for t, p in zip(self.tokens, self.ppl, strict=True) if math.isfinite(p) and p > 0]
        if len(points) <= _MOST_POINTS:
            return points
        return [points[i] for i in thin_minmax([p for _, p in points], _MOST_POINTS).tolist()]


def curves(drawn: Sequence[Curve], beginning: int | None) -> str:
    """Perplexity of all probes on a log axis, each named at its end; a line at `beginning` tokens."""
    points = [point for curve in drawn for point in curve.finite()]
    if not points:
        return '<p class="nothing">No probe has an evaluation yet.</p>'
    height = 380
    right = max(t for t, _ in points) or 1.0
    low, high = math.log(min(p for _, p in points)), math.log(max(p for _, p in points))
    span = (high - low) or 1.0

    def x(tokens: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * tokens / right

    def y(ppl: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (high - math.log(ppl)) / span

    parts = [_axes(height)]
    parts += [_text(_LEFT - 8, y(value) + 4, format_ppl(value), "end") for value in _log_ticks(low, high)]
    parts += [_text(x(tokens), height - 14, f"{tokens:,.0f}", "middle") for tokens in _ticks(right)]
    parts.append(_text(_WIDTH - _RIGHT + 44, height - 14, "tokens", "start"))
    if beginning and beginning <= right:
        parts.append(_line(x(beginning), _TOP, x(beginning), height - _BOTTOM, "mark"))
    ends: list[tuple[float, str]] = []
    for curve in drawn:
        line = curve.finite()
        if not line:
            continue
        css = "steady" if curve.worst_tokens is None else "fluctuates"
        path = "M" + " L".join(f"{x(t):.1f} {y(p):.1f}" for t, p in line)
        parts.append(f'<path class="{css}" d="{path}"><title>{escape(curve.label)}</title></path>')
        for tokens, ppl in line:
            if tokens == curve.worst_tokens:
                parts.append(f'<circle class="{css} cross" cx="{x(tokens):.1f}" cy="{y(ppl):.1f}" r="6"/>')
        ends.append((y(line[-1][1]), curve.label))
    for top, label in _apart(ends, height - _BOTTOM):
        parts.append(_text(_WIDTH - _RIGHT + 8, top + 4, label, "start"))
    words = f"Validation perplexity over tokens of {len(drawn)} probes; the table below has the verdicts."
    return _svg(height, words, parts)


def path(probes: Sequence[Mapping[str, Any]]) -> str:
    """T of every probe, a row each in their order."""
    if not probes:
        return '<p class="nothing">No probe is over yet.</p>'
    row = 24
    height = _TOP + _BOTTOM + row * len(probes)
    right = max(int(p["duration"]) for p in probes)

    def x(duration: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * duration / right

    parts = [_axes(height)]
    parts += [_text(x(duration), height - 14, f"{duration:,.0f}", "middle") for duration in _ticks(right)]
    parts.append(_text(_WIDTH - _RIGHT + 44, height - 14, "T, steps", "start"))
    for number, probe in enumerate(probes):
        middle, at = _TOP + row * (number + 0.5), x(int(probe["duration"]))
        parts.append(_text(_LEFT - 8, middle + 4, str(number + 1), "end"))
        parts.append(_line(_LEFT, middle, _WIDTH - _RIGHT, middle, "axis"))
        parts.append(_text(_WIDTH - _RIGHT + 16, middle + 4, f"start {probe['start']}, T {probe['duration']}", "start"))
        if probe["steady"]:
            parts.append(f'<circle class="steady" cx="{at:.1f}" cy="{middle}" r="6"/>')
        else:
            d = f"M{at - 6:.1f} {middle - 6} l12 12 m0 -12 l-12 12"
            parts.append(f'<path class="fluctuates cross" style="stroke-dasharray:none" d="{d}"/>')
    return _svg(height, "T of every probe in their order; the table below has the numbers.", parts)


def _apart(ends: Sequence[tuple[float, str]], bottom: float) -> list[tuple[float, str]]:
    """Labels moved down until none covers another, then up from the bottom as far as they must."""
    placed: list[tuple[float, str]] = []
    for top, label in sorted(ends):
        placed.append((max(top, placed[-1][0] + _LABEL_PX) if placed else top, label))
    limit = bottom
    for i in reversed(range(len(placed))):
        placed[i] = (min(placed[i][0], limit), placed[i][1])
        limit = placed[i][0] - _LABEL_PX
    return placed


def _ticks(right: float) -> list[float]:
    """Round whole numbers from 0 to `right`, at most six."""
    size = 10.0 ** math.floor(math.log10(max(1.0, right / 5)))
    step = next(size * m for m in (1, 2, 5, 10) if right / (size * m) <= 5)
    return [step * i for i in range(int(right / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers whose logarithms lie from `low` to `high`; the two ends where fewer than two do."""
    decades = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    found = [m * 10.0**e for e in decades for m in (1, 2, 3, 5)]
    inside = [value for value in found if low <= math.log(value) <= high]
    return inside if len(inside) > 1 else [math.exp(low), math.exp(high)]


def _axes(height: int) -> str:
    foot = height - _BOTTOM
    return _line(_LEFT, _TOP, _LEFT, foot, "axis") + _line(_LEFT, foot, _WIDTH - _RIGHT, foot, "axis")


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: int, words: str, parts: Sequence[str]) -> str:
    inner = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(words)}">{inner}</svg>'
