"""Best-effort mirror of the records in Weights & Biases, which never holds up training.

A daemon thread owns wandb; the trainer only puts rows on a queue. If the service cannot be reached, the mirror goes
offline, and if that fails, off; a full queue drops rows and counts them. The local record stays complete.

Layout, on which analysis/readers/wandb_runs.py and dashboards rely: one W&B run per attempt, because offline
attempts cannot be joined into one. Its group is the cell, so that a dashboard draws a cell's seeds as one line with a
band; its job type is the method. Its config holds, flat, the columns to filter by, `run_id` and the first row of the
attempt's record, and under `config` the whole resolved configuration. Metrics are drawn over consumed_tokens. The
summary's `state` is the attempt's outcome.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Mapping
from typing import Any, Literal

from cl_bench import schedules
from cl_bench.config import RunConfig
from cl_bench.config.schema import to_dict
from cl_bench.runs import identity
from cl_bench.runs.paths import RunDir, sweeps_of
from cl_bench.runs.status import State

log = logging.getLogger(__name__)

_QUEUE_ROWS = 20_000
_INIT_TIMEOUT_S = 20
_FINISH_TIMEOUT_S = 30.0
_GROUP_CHARACTERS = 119  # with the setting 128, as W&B bounds a project's name
_TAG_CHARACTERS = 64  # W&B refuses longer ones


class Mirror:
    """Sends rows to W&B from its own thread."""

    def __init__(self, config: RunConfig, run: RunDir, attempt: Mapping[str, Any]) -> None:
        """`attempt` is the first row of the attempt's record, with its number and the run's planned_steps."""
        self.dropped = 0
        self._rows: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE_ROWS)
        self._state: State = "RUNNING"
        self._thread = threading.Thread(target=self._work, args=(config, run, attempt), name="wandb", daemon=True)
        self._is_on = config.tracking.mode != "none"
        if self._is_on:
            self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Queue one row; never blocks."""
        if not self._is_on:
            return
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self.dropped += 1

    def finish(self, state: State) -> None:
        """Flush, for a bounded time; `state` is the attempt's outcome."""
        if not self._is_on:
            return
        self._state = state
        with contextlib.suppress(queue.Full):
            self._rows.put_nowait(None)
        self._thread.join(_FINISH_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("W&B did not finish within %g s; the local record is complete", _FINISH_TIMEOUT_S)
        if self.dropped:
            log.warning("W&B was too slow for %d rows; the local record is complete", self.dropped)

    def _work(self, config: RunConfig, run: RunDir, attempt: Mapping[str, Any]) -> None:
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

                    wandb.teardown()  # otherwise the run id counts as in use for the next mode
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
                wandb_run.summary["state"] = self._state
                wandb_run.finish()


def columns(config: RunConfig, run: RunDir, attempt: Mapping[str, Any]) -> dict[str, Any]:
    """A W&B run's config: columns to filter the grid by, the attempt, and the whole configuration."""
    return {
        "run_id": run.run_id,
        "curriculum": config.method,
        "shape": schedules.describe(config),
        "model": config.model.name,
        "global_batch_size": config.global_batch_size,
        "lr": config.optim.lr,
        "seed": config.seed,
        "cell": cell(config),
        "sweep": ", ".join(sweeps_of(run)),
        "setting": identity.setting(config),
        "token_budget": config.token_budget,
        "max_seqlen": config.seqlen,
        "precision": config.deepspeed.precision,
        **attempt,
        "config": to_dict(config),
    }


def cell(config: RunConfig) -> str:
    """Name of the run's cell: the sweep's own name for it, or method, batch and learning rate."""
    return config.cell or f"{config.method} b{config.global_batch_size} lr{identity.short_float(config.optim.lr)}"


def group(config: RunConfig) -> str:
    """The cell's W&B group, distinct from equal cells of other models, texts or budgets in the project."""
    return f"{f'{config.model.name} {cell(config)}'[:_GROUP_CHARACTERS]} {identity.setting(config)}"


def tags(config: RunConfig, run: RunDir) -> list[str]:
    """Role, schedule, model and sweeps, each once."""
    names = [config.role, config.curriculum.schedule, config.model.name, *sweeps_of(run)]
    return [name[:_TAG_CHARACTERS] for name in dict.fromkeys(names) if name]


def _start(config: RunConfig, run: RunDir, attempt: Mapping[str, Any], mode: Literal["online", "offline"]) -> Any:
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
        group=group(config),
        name=f"{run.run_id}.{attempt['attempt']}",
        job_type=config.method,
        tags=tags(config, run),
        config=columns(config, run, attempt),
        settings=settings,
    )
    wandb_run.define_metric("consumed_tokens", hidden=True)
    wandb_run.define_metric("*", step_metric="consumed_tokens")
    for metric in ("val_loss", "val_ppl"):  # a table of runs shows the best and the last
        wandb_run.define_metric(metric, step_metric="consumed_tokens", summary="min,last")
    wandb_run.define_metric("loss_ratio", step_metric="consumed_tokens", summary="max")
    return wandb_run
