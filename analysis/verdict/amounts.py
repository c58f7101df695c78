"""Savings, costs and differences of loss in words, with what their intervals leave open."""

from __future__ import annotations

from analysis.stats.intervals import CONFIDENCE, Estimate
from analysis.stats.loss_difference import LossDifference
from analysis.words import amount, direction, interval, more, percent, saved_share

CI = f"{CONFIDENCE:.0%} CI"


def decided(estimate: Estimate) -> bool:
    """Whether the interval excludes "as many"."""
    return estimate.span is not None and not estimate.span[0] <= 0 <= estimate.span[1]


def needed(estimate: Estimate, what: str, *, name_interval: bool = True, within: float | None = None) -> str:
    """The amount needed: '39% fewer tokens (95% CI 34–43%)', '44% more tokens (28–63% more)'.

    An interval that includes 0 gives no figure to repeat: 'undecided: between 30% more and 86% fewer tokens', or, if an
    equivalence test has excluded more than the share `within`, that there is no larger difference. One seed gives a
    figure without an interval, runs that did not arrive a bound; empty if nothing is known.
    """
    if estimate.point is None:
        return bounded(estimate, what)
    if estimate.span is None:
        return amount(estimate.point, what)
    low, high = estimate.span
    label = f"{CI} " if name_interval else ""
    if within is not None:
        return f"no difference in {what} larger than {within:.0%} ({label}{interval(estimate.span, what)})"
    if decided(estimate):
        alike = f"{low:.4f}" == f"{high:.4f}"
        span = "the same on every seed" if alike else f"{label}{interval(estimate.span, what)}"
        return f"{amount(estimate.point, what)} ({span})"
    if low == high == 0:
        return f"as {'many' if what == 'tokens' else 'much'} {what} on every seed"
    return f"undecided: {between((low, high), what)}"


def between(span: tuple[float, float], what: str) -> str:
    """An interval that includes 0: 'between 30% more and 86% fewer tokens'."""
    low, high = span
    return f"between {more(-low, what)} and {saved_share(high)} {direction(1, what)} {what}"


def bounded(estimate: Estimate, what: str) -> str:
    """The bound that runs which never arrived leave: 'at most 18% fewer tokens', 'at least 30% more tokens'."""
    bound = estimate.bound
    if bound is None or estimate.censored not in ("at_most", "at_least"):
        return ""
    least = (estimate.censored == "at_least") == (bound > 0)
    size = percent(abs(bound))
    return f"at {'least' if least else 'most'} {size} {direction(bound, what)} {what}"


def loss_words(loss: LossDifference, *, name_interval: bool = True) -> str:
    """A difference of final loss: '0.052 nats lower (95% CI 0.031–0.073)'; empty if there is none."""
    if loss.mean is None:
        return ""
    label = f"{CI} " if name_interval else ""
    side = "lower" if loss.mean < 0 else "higher"
    if abs(loss.mean) < 0.0005 and (loss.span is None or max(map(abs, loss.span)) < 0.0005):
        return "equal"
    if loss.span is None:
        return f"{abs(loss.mean):.3f} nats {side}"
    low, high = loss.span
    if low <= 0 <= high:
        return f"undecided: between {-low:.3f} nats lower and {high:.3f} higher"
    near, far = (f"{end:.3f}" for end in sorted((abs(low), abs(high))))
    return f"{abs(loss.mean):.3f} nats {side} ({'the same on every seed' if near == far else f'{label}{near}–{far}'})"
