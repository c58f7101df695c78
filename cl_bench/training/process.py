"""The training process: its rank in the run, and requests to stop it."""

from __future__ import annotations

import dataclasses
import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@dataclasses.dataclass(frozen=True)
class Rank:
    """This process's rank in the run, and its machine and job."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: str = "cpu"
    nodes: int = 1
    """Machines of the run."""
    node: str = ""
    """Name of this rank's machine."""
    job: str = ""
    """Slurm's id of the job; empty outside Slurm."""
    restarts: int = 0
    """Restarts of the job by Slurm."""


class StopRequest:
    """Signals that told the process to stop; the ranks agree on them at the end of a step."""

    def __init__(self) -> None:
        self.signals: set[int] = set()

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second signal must not break the last writes

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.signals.add(number)
