"""The process around the training loop.

A job is given the run's folder and reads nothing but its config.yaml; what it leaves there is the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import submitit

from cl_bench import identity, status, train
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import EXIT_USER_ERROR, UserError
from cl_bench.lock import only_trainer
from cl_bench.paths import RunDir, read_yaml
from cl_bench.status import FINISHED
from cl_bench.validation import ConfigError

log = logging.getLogger("cl_bench")

_ERROR_LINES = 12
_READY = "ready"
_ROLL_CALL_S = 300
EXIT_FAILED = 1


def task(root: str, store: str, threads: int | None) -> None:
    """What submitit runs: train the run in folder `root` as this task's rank, then end the process."""
    place = submitit.JobEnvironment()
    rank = train.Rank(place.global_rank, place.num_tasks, place.local_rank)
    leave(run_job(root, rank, store, threads))


def load_config(run: RunDir) -> RunConfig:
    """The run's configuration as it was written at submission. Raises ConfigError when it was edited since."""
    config = from_dict(read_yaml(run.config))
    if identity.run_id(config) != run.run_id:
        raise ConfigError(
            f"{run.config}: describes {identity.run_id(config)}, not the run of its folder; a run's configuration is "
            "never edited: launch the other experiment instead, and delete the folder to train this one anew"
        )
    return config


def _prepare(config: RunConfig, place: train.Rank) -> train.Rank:
    """Choose this process's device and threads."""
    import torch

    from cl_bench import ds_config

    device = ds_config.choose_accelerator(config.resources.accelerator)
    torch.set_num_threads(config.resources.threads or max(1, (os.cpu_count() or 1) // place.world_size))
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
        device = f"cuda:{place.local_rank}"
    return dataclasses.replace(place, device=device)


class RollCall:
    """Where ranks say that they are ready, or why not, before they wait for one another for up to half an hour."""

    def __init__(self, place: train.Rank, store: Path) -> None:
        self.place, self.path = place, f"{store}.ranks"
        self.answered = place.world_size == 1

    def answer(self, text: str = _READY) -> Any:
        """Say `text` for this rank, once."""
        import torch

        self.answered = True
        book = torch.distributed.FileStore(self.path, self.place.world_size)  # type: ignore[attr-defined]
        book.set_timeout(datetime.timedelta(seconds=_ROLL_CALL_S))
        book.set(str(self.place.rank), text)
        return book

    def wait(self) -> None:
        """Answer, then wait for the others. Raises RuntimeError naming a rank that failed or does not come."""
        if self.place.world_size == 1:
            return
        book = self.answer()
        for rank in range(self.place.world_size):
            try:
                text = book.get(str(rank)).decode()
            except RuntimeError:
                raise RuntimeError(f"rank {rank} did not start within {_ROLL_CALL_S} s") from None
            if text != _READY:
                raise RuntimeError(f"rank {rank} could not start: {text}")


def _told_by_rank_0(may_train: bool, rank: train.Rank) -> bool:
    """Whether rank 0 may train the run: it alone holds the lock, and no rank must wait for one that has left."""
    import torch

    answer = torch.tensor([int(may_train)], device=rank.device)
    torch.distributed.broadcast(answer, src=0)
    return bool(answer.item())


def run_job(root: str, place: train.Rank, store: str, threads: int | None = None) -> int:
    """Train the run whose folder is `root` as one of its ranks. Returns the exit code; the status file says the rest.

    `store` is a file that does not exist yet, through which the ranks of this attempt find each other. `threads` is
    used where the configuration leaves resources.threads open.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    run = RunDir.at(root)
    with train.StopRequest() as stop, only_trainer(run) if place.rank == 0 else contextlib.nullcontext(True) as mine:
        may_train = mine and status.read(run).state not in FINISHED
        if not may_train and place.world_size == 1:
            return _not_needed(run)
        # Rank 0 holds the lock; another rank may write the run's status once rank 0 has told it to train.
        writes_status = bool(mine) and place.rank == 0
        roll_call = RollCall(place, Path(store))
        try:
            from cl_bench import ds_config

            config = load_config(run)
            if config.resources.threads is None:
                config = dataclasses.replace(config, resources=dataclasses.replace(config.resources, threads=threads))
            rank = _prepare(config, place)
            roll_call.wait()
            ds_config.init_distributed(rank.rank, rank.world_size, rank.local_rank, Path(store), rank.device)
            if not _told_by_rank_0(may_train, rank):
                return _not_needed(run)
            writes_status = True
            train.Trainer(config, run, rank, stop).train()
        except UserError as error:
            log.error("%s", error)
            if not roll_call.answered:
                roll_call.answer(str(error))
            if writes_status:
                status.write(run, status.read(run), state="FAILED", error=str(error))
            return EXIT_USER_ERROR
        except BaseException:
            text = traceback.format_exc()
            log.error("%s", text)
            if not roll_call.answered:
                roll_call.answer(text.strip().splitlines()[-1])
            if writes_status and status.read(run).state != "FAILED":  # the rank that broke first knows best
                last = "\n".join(text.strip().splitlines()[-_ERROR_LINES:])
                status.write(run, status.read(run), state="FAILED", error=last)
            return EXIT_FAILED
    return 0


def _not_needed(run: RunDir) -> int:
    log.info("%s is finished, or another process is training it; leaving it alone", run.run_id)
    return 0


def leave(code: int) -> None:
    """End the process at once: Python's finalisation races gloo's thread and may abort a finished run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
