"""What the measurements share: the machine they ran on, and one way to print a ratio."""

from __future__ import annotations

import os
import platform


def heading(title: str) -> None:
    """Name the measurement and the machine."""
    print(f"{title}  ({os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()})")


def result(what: str, value: str, goal: str, met: bool) -> None:
    """One line: the figure, its goal, and whether it was met."""
    print(f"  {what:<58} {value:>14}   goal {goal:<9} {'met' if met else 'MISSED'}")
