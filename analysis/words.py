"""Savings and names in words, the same everywhere."""

from __future__ import annotations

import math

from cl_bench.errors import printable as printable


def amount(saved: float, what: str) -> str:
    """0.37 of tokens -> '37% fewer tokens'; -0.3 of time -> '30% more time'."""
    whole = round(abs(saved) * 100)
    if whole == 0:
        return f"as many {what}" if what == "tokens" else f"as much {what}"
    return f"{whole}% {('fewer' if what == 'tokens' else 'less') if saved > 0 else 'more'} {what}"


def percent(value: float) -> str:
    """0.37 -> '37%', -0.3 -> '−30%'."""
    text = f"{value * 100:.0f}%"
    return "0%" if text == "-0%" else text.replace("-", "−")


def ppl(value: float | None) -> str:
    """18.34 -> '18.3', 12345 -> '12,300': 3 significant digits, an exponent only from a million on."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value <= 0 or value >= 1e6:
        return f"{value:.3g}"
    rounded = float(f"{value:.3g}")  # first, so that 9.996 becomes 10.0 and not 10.00
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
