"""The job around the training loop: lock, rendezvous, process group, and the status of its outcome.

A job reads nothing but config.yaml in the run's folder, and writes its results there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import traceback
from pathlib import Path

import submitit

from cl_bench.config import RunConfig
from cl_bench.errors import EXIT_USER_ERROR, UserError
from cl_bench.runs import identity, lock, status
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED
from cl_bench.training.process import Rank, StopRequest
from cl_bench.training.rendezvous import Rendezvous

# torch is imported inside functions: a launch imports this module but never trains in its own process.

log = logging.getLogger("cl_bench")

_ERROR_LINES = 12
_HANDOVER_S = 120.0
"""Wait of a run restarted by Slurm for its predecessor's lock: longer than a lease of NFS (90 s), after which a lost
machine's lock is released."""
EXIT_FAILED = 1
EXIT_LOCK_HELD = 75
"""The job's predecessor still holds the run's lock (sysexits' EX_TEMPFAIL: try again)."""


def task(root: str, meeting_point: str, threads: int | None) -> None:
    """Train the run in folder `root` as this task's rank, then end the process: what submitit runs on this machine."""
    place = submitit.JobEnvironment()
    rank = Rank(place.global_rank, place.num_tasks, place.local_rank)
    with StopRequest() as stop:
        code = run_job(root, rank, meeting_point, stop, threads)
    leave(code)


def _prepare(config: RunConfig, place: Rank) -> Rank:
    """Choose this process's device and threads."""
    import torch

    from cl_bench.training import engine

    accelerator: str = config.resources.accelerator
    if place.job and accelerator == "auto":
        # A missing GPU must not turn into weeks on a CPU.
        accelerator = "cuda" if config.resources.gpus_per_node else "cpu"
    device = engine.choose_accelerator(accelerator)
    torch.set_num_threads(config.resources.threads or max(1, (os.cpu_count() or 1) // place.world_size))
    if device == "cuda":
        # On some sites each task sees its own GPU only.
        index = place.local_rank % torch.cuda.device_count()
        torch.cuda.set_device(index)
        device = f"cuda:{index}"
    return dataclasses.replace(place, device=device)


def run_job(root: str, place: Rank, meeting_point: str, stop: StopRequest, threads: int | None = None) -> int:
    """Train the run whose folder is `root` as one of its ranks. Returns the exit code; the outcome is in its status.

    The ranks of this attempt find each other through the file `meeting_point`, which must not exist yet. `threads` is
    used if resources.threads is null.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    run = RunDir.at(root)
    ranks = Rendezvous(place.rank, place.world_size, Path(meeting_point), one_machine=place.nodes == 1)
    writes_status = False
    with contextlib.ExitStack() as resources:
        try:
            may_train = True
            if place.rank == 0:
                may_train = resources.enter_context(_lock(run, place)) and status.read(run).state not in FINISHED
                # Rank 0 holds the lock; another rank may write the run's status once rank 0 has let it train.
                writes_status = may_train
            if not may_train and place.world_size == 1:
                return _not_needed(run, place)
            from cl_bench.training import collectives, engine, loop

            config = identity.load_config(run)
            if config.resources.threads is None:
                config = dataclasses.replace(config, resources=dataclasses.replace(config.resources, threads=threads))
            if may_train:
                _check_restarts(config, place)
            rank = _prepare(config, place)
            engine.init_distributed(rank, ranks.wait_for_all())
            # Rank 0 alone holds the lock, and no rank must wait for one that has exited.
            if not collectives.broadcast_flag(may_train, rank):
                return _not_needed(run, place)
            writes_status = True
            loop.Trainer(config, run, rank, stop, resources).train()
        except UserError as error:
            log.error("%s", error)
            ranks.fail(str(error))
            if writes_status:
                _write_failed(run, place, str(error))
            return EXIT_USER_ERROR
        except BaseException:
            text = traceback.format_exc()
            log.error("%s", text)
            ranks.fail(text.strip().splitlines()[-1])
            if writes_status and status.read(run).state != "FAILED":  # the first failure is the cause
                _write_failed(run, place, "\n".join(text.strip().splitlines()[-_ERROR_LINES:]))
            return EXIT_FAILED
    return 0


def _lock(run: RunDir, place: Rank) -> contextlib.AbstractContextManager[bool]:
    """The run's lock. A job restarted by Slurm tells its predecessor to exit, and waits for it."""
    if place.job:
        lock.claim(run, place.job, place.restarts)
    return lock.only_trainer(run, _HANDOVER_S if place.restarts else 0.0)


def _check_restarts(config: RunConfig, place: Rank) -> None:
    """Raise UserError if Slurm has restarted the job more often than resources.max_restarts."""
    limit = config.resources.max_restarts
    if place.restarts > limit:
        raise UserError(
            f"Slurm has restarted this job {place.restarts} times, and resources.max_restarts = {limit}; see why "
            "with `cl-bench logs`, then `cl-bench retry` resumes from the last checkpoint"
        )


def _write_failed(run: RunDir, place: Rank, error: str) -> None:
    """Write why the run failed, and in which job."""
    status.write(
        run, status.read(run), state="FAILED", error=error, job=place.job, restarts=place.restarts, node=place.node
    )


def _not_needed(run: RunDir, place: Rank) -> int:
    """Log why this process does not train; the exit code tells whether the job should try again."""
    current = status.read(run)
    if current.state not in FINISHED and place.restarts and current.job == place.job:
        log.info("%s: an earlier start of this job still holds its lock", run.run_id)
        return EXIT_LOCK_HELD
    log.info("%s: finished, or in training by another process; nothing to do", run.run_id)
    return 0


def leave(code: int) -> None:
    """End the process at once: Python's finalisation races gloo's thread and may abort a finished run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
