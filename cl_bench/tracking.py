"""The W&B mirror: best effort, never in the way of training.

A daemon thread owns wandb; the trainer only puts rows on a queue. If the service cannot be reached the mirror goes
offline, if that fails it is off; a full queue drops rows and counts them. The local record stays complete.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import Any, Literal

from cl_bench.config import RunConfig
from cl_bench.paths import RunDir
from cl_bench.validation import to_dict

log = logging.getLogger(__name__)

_QUEUE_ROWS = 20_000
_INIT_TIMEOUT_S = 20
_FINISH_TIMEOUT_S = 30.0


class Mirror:
    """Sends rows to W&B from a thread of its own."""

    def __init__(self, config: RunConfig, run: RunDir, attempt: int) -> None:
        self.dropped = 0
        self._rows: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE_ROWS)
        self._thread = threading.Thread(target=self._work, args=(config, run, attempt), name="wandb", daemon=True)
        self._on = config.tracking.mode != "none"
        if self._on:
            self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Queue one row; never blocks."""
        if not self._on:
            return
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self.dropped += 1

    def finish(self) -> None:
        """Flush for a bounded time."""
        if not self._on:
            return
        with contextlib.suppress(queue.Full):
            self._rows.put_nowait(None)
        self._thread.join(_FINISH_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("W&B did not finish within %g s; the local record is complete", _FINISH_TIMEOUT_S)
        if self.dropped:
            log.warning("W&B was too slow for %d rows; the local record is complete", self.dropped)

    def _work(self, config: RunConfig, run: RunDir, attempt: int) -> None:
        wandb_run = None
        online: list[Literal["online", "offline"]] = ["online"] if config.tracking.mode == "wandb_online" else []
        for mode in [*online, "offline"]:
            try:
                wandb_run = _start(config, run, attempt, mode)
                break
            except Exception as error:
                log.warning("W&B %s could not start: %s", mode, error)
                with contextlib.suppress(Exception):
                    import wandb

                    wandb.teardown()  # else the run id counts as in use for the next mode
        while (row := self._rows.get()) is not None:
            if wandb_run is None:
                continue
            try:
                wandb_run.log(row)
            except Exception as error:
                log.warning("W&B stopped taking rows: %s", error)
                wandb_run = None
        if wandb_run is not None:
            with contextlib.suppress(Exception):
                wandb_run.finish()


def _start(config: RunConfig, run: RunDir, attempt: int, mode: Literal["online", "offline"]) -> Any:
    """One fresh W&B run per attempt, grouped by our run: offline attempts cannot be joined into one."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        x_disable_stats=True,
        init_timeout=_INIT_TIMEOUT_S,
        x_transaction_log_flush_interval=1.0,
    )
    run.root.mkdir(parents=True, exist_ok=True)
    wandb_run = wandb.init(
        project=config.tracking.project,
        entity=config.tracking.entity,
        mode=mode,
        dir=str(run.root),
        group=run.run_id,
        name=f"{run.run_id}.{attempt}",
        job_type=config.curriculum.name,
        tags=[config.curriculum.schedule, config.model.name],
        config=to_dict(config) | {"attempt": attempt},
        settings=settings,
    )
    wandb_run.define_metric("consumed_tokens", hidden=True)
    wandb_run.define_metric("*", step_metric="consumed_tokens")
    return wandb_run
