"""Savings and names in words, the same everywhere."""

from __future__ import annotations

import math

from cl_bench.errors import printable as printable


def amount(saved: float, what: str) -> str:
    """0.37 of tokens -> '37% fewer tokens'; -0.3 of time -> '30% more time'."""
    size = saved_share(saved) if saved > 0 else percent(-saved)
    if size == "0%":
        return f"as many {what}" if what == "tokens" else f"as much {what}"
    return f"{size} {direction(saved, what)} {what}"


def direction(saved: float, what: str) -> str:
    """'fewer' or 'less' for a saving of `what`, 'more' for a cost."""
    return "more" if saved <= 0 else "fewer" if what == "tokens" else "less"


def more(cost: float, what: str) -> str:
    """0.3 of tokens -> '30% more', 24 -> '25x as many': percentages above 1,000 say nothing."""
    if cost < 10:
        return f"{percent(cost)} more"
    times = float(f"{1 + cost:.3g}")
    return f"{times:,.0f}x as {'many' if what == 'tokens' else 'much'}"


def saved_share(saved: float) -> str:
    """0.37 -> '37%', 0.9996 -> 'over 99%': nothing that was needed at all is 100% fewer."""
    return "over 99%" if 0.995 <= saved < 1 else percent(saved)


def percent(value: float, decimals: int = 0) -> str:
    """0.37 -> '37%', -0.3 -> '−30%', 0.052 -> '5.2%': below 10% at least one decimal."""
    size = abs(value) * 100
    shown = f"{size:.{max(decimals, 1 if size < 9.95 else 0)}f}"
    if not float(shown):
        return "0%"
    return f"{'−' if value < 0 else ''}{shown}%"


def interval(span: tuple[float, float], what: str) -> str:
    """The interval of a saving (low, high; shares) as a reader repeats it.

    (0.34, 0.43) -> '34–43%'; a cost (-0.63, -0.28) -> '28–63% more'; (-0.3, 0.86) of tokens -> '30% more to 86% fewer'.
    Ends that look alike get up to two more decimals.
    """
    low, high = span
    if low < 0 < high:
        return f"{more(-low, what)} to {saved_share(high)} {direction(high, what)}"
    near, far = sorted((abs(low), abs(high)))
    for decimals in range(3):
        first, last = percent(near, decimals), percent(far, decimals)
        if first != last:
            break
    return f"{first.removesuffix('%')}–{last}" + (" more" if low < 0 else "")


def ppl(value: float | None) -> str:
    """18.34 -> '18.3', 12345 -> '12,300': 3 significant digits, an exponent only from a million on."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value <= 0 or value >= 1e6:
        return f"{value:.3g}"
    rounded = float(f"{value:.3g}")  # first, so that 9.996 becomes 10.0 and not 10.00
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
