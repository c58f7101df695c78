"""One run, one trainer: a POSIX record lock on a file in the run's folder.

The kernel drops the lock when its process ends, however it ends, so a kill -9 cannot leave it stuck.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from cl_bench.paths import RunDir


@contextlib.contextmanager
def only_trainer(run: RunDir) -> Iterator[bool]:
    """Hold the run's lock; yields whether it was free."""
    run.root.mkdir(parents=True, exist_ok=True)
    with run.lock.open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def is_held(run: RunDir) -> bool:
    """Whether a process is training the run now."""
    if not run.lock.exists():
        return False
    with only_trainer(run) as free:
        return not free
