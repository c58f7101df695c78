"""What the benchmarks share: their size, the machine they ran on, and the form of a result."""

from __future__ import annotations

import os
import platform
from typing import TypeVar

T = TypeVar("T")

TOY = os.environ.get("BENCH_SIZE") == "toy"
"""BENCH_SIZE=toy runs a benchmark in seconds, as a check that it works; its figures mean nothing."""


def size(full: T, toy: T) -> T:
    """One of two sizes: `toy` if BENCH_SIZE=toy."""
    return toy if TOY else full


def heading(title: str) -> None:
    """Print the benchmark's name and the machine."""
    note = ", TOY SIZE" if TOY else ""
    print(f"{title}  ({os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}{note})")


def result(what: str, value: str, goal: str, met: bool) -> None:
    """Print one figure, its goal, and whether it was met."""
    print(f"  {what:<58} {value:>14}   goal {goal:<9} {'met' if met else 'MISSED'}")


def ratio(peer: str, value: float, goal: str = "-", met: bool = True) -> None:
    """Print our figure divided by that of `peer`."""
    result(f"as a ratio of {peer}", f"{value:.3g}", goal, met)
