"""Mutual exclusion of trainers: a POSIX record lock on a file in the run's folder.

The kernel drops the lock when its process ends, however it ends, so a kill -9 cannot leave it stuck. POSIX (fcntl)
locks work across the machines of a network file system: NFSv4 as part of the protocol, NFSv3 through lockd, Lustre
mounted with `-o flock`, GPFS, CephFS and BeeGFS in their usual set-ups. A file system without them is refused.

A cluster may restart a job while its old process still lives (a node lost its network, or its daemon died). The
restarted job then writes a claim beside the lock; the old trainer, which checks for claims whenever it reports, saves
and exits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
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
    with _locked(run.lock, wait_s) as is_mine:
        yield is_mine


@contextlib.contextmanager
def alone(path: Path, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock on `path`, waiting for its holder. Raises UserError if the file system has no locks."""
    with _locked(path, math.inf, on_wait):
        yield


@contextlib.contextmanager
def _locked(path: Path, wait_s: float, on_wait: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Hold the lock on `path` if it is free within `wait_s`, and yield whether; calls `on_wait` after a second."""
    deadline = time.monotonic() + wait_s
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        attempt = 0
        while not (is_mine := _try(file.fileno(), path)) and time.monotonic() < deadline:
            if attempt == 2:
                on_wait()
            attempt += 1
            time.sleep(_POLL_S)
        yield is_mine


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
    """Id of the process that is training the run, 0 if it is on another machine; None if there is no such process.

    Queries without taking the lock, for which a starting job may be waiting. The trainer itself must not call this:
    closing any file descriptor of a locked file drops a POSIX lock.
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
    """Whether a later restart of the same job has claimed the run."""
    try:
        newest = json.loads(run.claim.read_text())
        return bool(newest["job"] == job and newest["restarts"] > restarts)
    except (OSError, ValueError, KeyError, TypeError):
        return False
