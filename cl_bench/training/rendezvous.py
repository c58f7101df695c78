"""Rendezvous of the ranks of a run, on one machine or on many.

Rank 0 opens a key-value store on a port that its system chooses, so that no two jobs of a node can collide, and writes
its address into a file in the run's folder. Every rank reports to the store that it is ready, or why it is not, before
any collective, which would wait half an hour for a missing rank.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from cl_bench.runs.paths import write_atomic

_READY = "ready"
_PATIENCE_S = 300.0
_POLL_S = 0.05
_GRACE_S = 1.0


class Rendezvous:
    """Rendezvous of one attempt's ranks through the file `path`, which must not exist yet."""

    def __init__(self, rank: int, world_size: int, path: Path, *, one_machine: bool = True) -> None:
        self.rank, self.world_size, self.path = rank, world_size, path
        self.one_machine = one_machine
        self._has_reported = False
        self.store: Any = None

    def wait_for_all(self) -> Any:
        """Report that this rank is ready and wait for the others; returns the store they share.

        Raises RuntimeError naming a rank that failed or does not come within five minutes.
        """
        import torch.distributed as dist

        if self.world_size == 1:
            self._has_reported = True
            self.store = dist.HashStore()  # type: ignore[attr-defined]
            return self.store
        self._report(_READY)
        for rank in range(self.world_size):
            try:
                text = self.store.get(f"rank {rank}").decode()
            except RuntimeError:
                raise RuntimeError(f"rank {rank} did not start within {_PATIENCE_S:g} s, or has left") from None
            if text != _READY:
                if self.rank == 0:
                    time.sleep(_GRACE_S)  # keep the store up until the others have read the reason
                raise RuntimeError(f"rank {rank} could not start: {text}")
        if self.rank == 0:
            self.path.unlink(missing_ok=True)  # every rank has read it
        return self.store

    def fail(self, reason: str) -> None:
        """Tell the others why this rank cannot start, unless it has already reported."""
        if self._has_reported or self.world_size == 1:
            return
        # Without the others or without torch, there is no way to tell them.
        with contextlib.suppress(RuntimeError, OSError, ImportError):
            if self.rank == 0 and self.store is None:
                self._has_reported = True
                write_atomic(self.path, json.dumps({"error": reason}), durable=False)
            else:
                self._report(reason)

    def _report(self, text: str) -> None:
        self._has_reported = True
        if self.store is None:
            self.store = self._open() if self.rank == 0 else self._join()
        self.store.set(f"rank {self.rank}", text)

    def _open(self) -> Any:
        store = _store("127.0.0.1", 0, server=True)
        address = {"hosts": ["127.0.0.1"] if self.one_machine else _my_names(), "port": store.port}
        write_atomic(self.path, json.dumps(address), durable=False)
        return store

    def _join(self) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(OSError, ValueError):
                # Listing the folder makes NFS drop its cached answer that there is no such file.
                any(self.path.parent.iterdir())
                address = json.loads(self.path.read_text())
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"rank 0 did not start within {_PATIENCE_S:g} s")
            time.sleep(_POLL_S)
        if "error" in address:
            raise RuntimeError(f"rank 0 could not start: {address['error']}")
        for host in address["hosts"]:
            with contextlib.suppress(OSError):
                socket.create_connection((host, address["port"]), timeout=10).close()
                return _store(host, address["port"], server=False)
        raise RuntimeError(
            f"rank 0 waits at port {address['port']} of {', '.join(address['hosts'])}, but none of these can be "
            f"reached from {socket.gethostname()}; do the nodes know each other by name?"
        )


def _store(host: str, port: int, *, server: bool) -> Any:
    import torch.distributed as dist

    patience = datetime.timedelta(seconds=_PATIENCE_S)
    return dist.TCPStore(host, port, is_master=server, timeout=patience, wait_for_workers=False)  # type: ignore[attr-defined]


def _my_names() -> list[str]:
    """Names and addresses under which other nodes may know this one, the likeliest first."""
    names = [os.environ.get("SLURMD_NODENAME", ""), socket.gethostname(), socket.getfqdn()]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: finds this machine's outward address
        names.append(probe.getsockname()[0])
    return list(dict.fromkeys(filter(None, names)))
