"""One run, one trainer: a POSIX record lock on a file in the run's folder.

The kernel drops the lock when its process ends, however it ends, so a kill -9 cannot leave it stuck.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

from cl_bench.paths import RunDir

_FLOCK = "hhqqi0q"
"""C's struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid, padding."""


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
    """Whether a process is training the run now. Asks without taking the lock, which a starting job may want."""
    try:
        file = run.lock.open("rb")
    except OSError:
        return False
    with file:
        answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
