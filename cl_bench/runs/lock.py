"""One run, one trainer: a POSIX record lock on a file in the run's folder.

The kernel drops the lock when its process ends, however it ends, so a kill -9 cannot leave it stuck. POSIX (fcntl)
locks are the ones that network file systems carry between machines: NFSv4 as part of the protocol, NFSv3 through lockd,
Lustre mounted with `-o flock`, GPFS, CephFS and BeeGFS in their usual set-ups. A file system without them is refused.

A cluster may start a job again while the process it has given up still lives (a node lost its network, or its daemon
died). The new start then writes a claim beside the lock; the old trainer, which checks for claims whenever it reports,
saves and leaves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cl_bench.errors import UserError
from cl_bench.runs.paths import RunDir, write_atomic

_FLOCK = "hhqqi0q"
"""C's struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid, padding."""
_POLL_S = 0.5


@contextlib.contextmanager
def only_trainer(run: RunDir, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold the run's lock; yields whether it was free, or became free within `wait_s` seconds.

    Raises UserError if the file system has no locks.
    """
    deadline = time.monotonic() + wait_s
    run.root.mkdir(parents=True, exist_ok=True)
    with run.lock.open("w") as file:
        while not (mine := _try(file.fileno(), run.lock)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        yield mine


@contextlib.contextmanager
def alone(path: Path, say_waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock on `path`, waiting for its holder. Raises UserError if the file system has no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for attempt in itertools.count():
            if _try(file.fileno(), path):
                break
            if attempt == 2:
                say_waiting()
            time.sleep(_POLL_S)
        yield


def _try(fd: int, path: Path) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise UserError(
            f"{path}: this file system has no POSIX locks ({error.strerror}), so two jobs could train one run at once; "
            "choose outputs=FOLDER on another, or mount it with them (Lustre: -o flock)"
        ) from None
    return True


def holder(run: RunDir) -> int | None:
    """The process that trains the run now: its id, 0 for a process of another machine; None if nobody trains it.

    Queries without taking the lock, which a starting job may want. The trainer itself must not call this: closing any
    file descriptor of a locked file drops a POSIX lock.
    """
    try:
        file = run.lock.open("rb")
    except OSError:
        return None
    with file:
        query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, query))
        except OSError:  # no locks on this file system: no trainer would have started
            return None
    return None if answer[0] == fcntl.F_UNLCK else max(0, int(answer[4]))


def is_held(run: RunDir) -> bool:
    """Whether a process is training the run now."""
    return holder(run) is not None


def claim(run: RunDir, job: str, restarts: int) -> None:
    """Claim the run for the `restarts`-th restart of `job`; earlier starts are superseded."""
    write_atomic(run.claim, json.dumps({"job": job, "restarts": restarts}), durable=False)


def is_superseded(run: RunDir, job: str, restarts: int) -> bool:
    """Whether the same job has been started again since."""
    try:
        newest = json.loads(run.claim.read_text())
        return bool(newest["job"] == job and newest["restarts"] > restarts)
    except (OSError, ValueError, KeyError, TypeError):
        return False
