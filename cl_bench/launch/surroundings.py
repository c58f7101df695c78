"""Environment and signal handlers of this process, changed within a `with` block."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextlib.contextmanager
def environment(values: Mapping[str, str], hidden: Iterable[str] = ()) -> Iterator[None]:
    """Set `values` and remove the variables `hidden`."""
    before = os.environ.copy()
    os.environ.update(values)
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def handling(handler: Handler, *signals: signal.Signals) -> Iterator[None]:
    """Have `handler` receive these signals."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
