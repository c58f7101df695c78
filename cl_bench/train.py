"""Train one run: the loop, and the process around it.

A job is given the run's folder and reads nothing but its config.yaml; what it leaves there is the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import signal
import socket
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from cl_bench import pacing, records, schedule, status
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import EXIT_USER_ERROR, UserError
from cl_bench.lock import only_trainer
from cl_bench.paths import RunDir
from cl_bench.status import FINISHED

log = logging.getLogger("cl_bench")

_HEARTBEAT_S = 0.5
_ERROR_LINES = 12
EXIT_FAILED = 1


@dataclasses.dataclass(frozen=True)
class Rank:
    """This process's place among the processes of the run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: str = "cpu"


class StopRequest:
    """Remembers that the process was asked to leave; the ranks agree on it at a step boundary."""

    def __init__(self) -> None:
        self.signal: int = 0

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # a second signal must not break the last writes

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.signal = number


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a step's dropout, so that a resumed run needs no saved random state."""
    return (seed * 1_000_003 + step) * 65_537 + rank


class Trainer:
    """One attempt at one run: builds the engine, restores, and steps through the token budget."""

    def __init__(self, config: RunConfig, run: RunDir, rank: Rank, stop: StopRequest) -> None:
        import torch

        from cl_bench import checkpoint, data, ds_config
        from cl_bench.tracking import Mirror

        self.config, self.run, self.rank, self.stop = config, run, rank, stop
        self.pacing = pacing.of(config)
        self.lr_schedule = schedule.of(config)
        self.steps = pacing.extent(config).steps
        corpus = data.inspect(config.data)
        if corpus.fingerprint != config.data.fingerprint:
            raise UserError(
                f"the text behind data.{config.data.source} changed since the run was planned (fingerprint "
                f"{corpus.fingerprint}, planned {config.data.fingerprint}); launch the sweep again"
            )
        folder = data.prepare(corpus, run.outputs)
        self.batches = data.Batches(folder, config.seqlen, config.seed)
        self.validation = data.validation_blocks(folder, config.seqlen, config.evaluation.n_blocks)
        self.engine = ds_config.make_engine(config, rank.world_size, rank.device)
        self.micro_batch = config.micro_batch(rank.world_size)
        self.grad_accum_steps = config.global_batch_size // (self.micro_batch * rank.world_size)
        self.state = checkpoint.restore(self.engine, run)
        self.attempt = records.next_attempt(run)
        torch.distributed.barrier()  # every rank has counted the attempts before rank 0 adds one
        self.writer = records.RecordWriter(run, self.attempt) if rank.rank == 0 else None
        self.mirror = Mirror(config, run, self.attempt) if rank.rank == 0 else None
        self.status = status.read(run)
        self._heartbeat = 0.0

    def train(self) -> status.State:
        """Run to the end, to divergence, or until asked to stop; returns the state that the run is left in."""
        self._begin()
        state: status.State = "DONE"
        reason = ""
        while self.state.consumed_tokens < self.config.token_budget:
            row, asked_to_stop = self._step()
            self._write("train", row)
            self._report(row)
            reason = self._diverged(row) or ""
            if reason:
                state = "DIVERGED"
                break
            self._evaluate_if_due(row)
            if asked_to_stop and self.state.consumed_tokens < self.config.token_budget:
                state, reason = "PREEMPTED", "asked to stop; launch again to go on"
                break
            every = self.config.checkpoint.interval_steps
            if every and self.state.step % every == 0:
                self._save()
        if state == "DIVERGED":
            self._evaluate()
        self._save()
        self._end(state, reason)
        return state

    def _step(self) -> tuple[dict[str, Any], bool]:
        """One optimizer update. Returns its metric row and whether any rank was asked to stop."""
        import torch

        from cl_bench import data, ds_config, telemetry

        config, engine, state, rank = self.config, self.engine, self.state, self.rank
        step = state.step + 1
        seqlen = self.pacing.seqlen(step)
        lr = self.lr_schedule.at(step, state.consumed_tokens)
        started = time.perf_counter()
        for group in ds_config.base_optimizer(engine).param_groups:
            group["lr"] = lr
        torch.manual_seed(dropout_seed(config.seed, step, rank.rank))
        loss_sum = torch.zeros((), device=rank.device)
        grad_norm = None
        for micro_step in range(self.grad_accum_steps):
            first = (micro_step * rank.world_size + rank.rank) * self.micro_batch
            tokens = self.batches.micro_batch(state.consumed_samples + first, self.micro_batch)
            inputs, labels = data.to_length(tokens, seqlen, config.curriculum.mode)
            loss = engine(torch.from_numpy(inputs).to(rank.device), torch.from_numpy(labels).to(rank.device))
            engine.backward(loss)
            if not ds_config.clips_itself(config) and engine.is_gradient_accumulation_boundary():
                grad_norm = telemetry.clip_gradients(engine, config.optim.grad_clip)
            engine.step()
            loss_sum += loss.detach()
        train_loss, asked_to_stop = self._agree(loss_sum / self.grad_accum_steps)
        if ds_config.clips_itself(config):
            norm = engine.get_global_grad_norm()
            grad_norm = None if norm is None else float(norm)
        seconds = time.perf_counter() - started

        tokens_in_step = pacing.tokens_per_step(config, seqlen)
        state.step = step
        state.consumed_tokens += tokens_in_step
        state.consumed_samples += config.global_batch_size
        state.train_seconds += seconds
        ratio = telemetry.loss_ratio(train_loss, state.min_loss)
        state.min_loss = min(state.min_loss, train_loss)  # a NaN never becomes the minimum
        state.steps_above = telemetry.steps_above(config.divergence, ratio, state.steps_above)
        row = {
            "step": step, "consumed_tokens": state.consumed_tokens, "consumed_samples": state.consumed_samples,
            "seqlen": seqlen, "global_batch_size": config.global_batch_size, "lr": lr, "loss": train_loss,
            "loss_ratio": ratio, "grad_norm": grad_norm, "loss_scale": ds_config.loss_scale(engine),
            "train_seconds": state.train_seconds, "tokens_per_second": tokens_in_step / seconds,
        }  # fmt: skip
        interval = config.telemetry.adam_variance_interval
        if interval and step % interval == 0:
            row |= telemetry.adam_variance(engine, rank.world_size, config.deepspeed.zero_stage > 0)
        return row, asked_to_stop

    def _agree(self, loss: Any) -> tuple[float, bool]:
        """Mean loss over the ranks, and whether any of them was asked to stop, in one collective."""
        import torch
        import torch.distributed as dist

        asked = float(bool(self.stop.signal))
        if self.rank.world_size == 1:
            return float(loss), bool(asked)
        both = torch.stack([loss, torch.tensor(asked, device=loss.device)])
        dist.all_reduce(both)
        return float(both[0]) / self.rank.world_size, bool(both[1] > 0)

    def _diverged(self, row: dict[str, Any]) -> str | None:
        from cl_bench import telemetry

        return telemetry.divergence(self.config.divergence, row["loss"], self.state.steps_above)

    def _evaluate_if_due(self, row: dict[str, Any]) -> None:
        """Evaluate where consumed_tokens crosses the grid of evaluation.interval_tokens, and at the end."""
        interval = self.config.eval_interval_tokens
        before = row["consumed_tokens"] - pacing.tokens_per_step(self.config, row["seqlen"])
        crossed = row["consumed_tokens"] // interval > before // interval
        if crossed or row["consumed_tokens"] >= self.config.token_budget:
            self._evaluate()

    def _evaluate(self) -> None:
        from cl_bench import evaluate

        started = time.perf_counter()
        rank = self.rank
        loss = evaluate.validation_loss(
            self.engine, self.validation, self.micro_batch, rank.rank, rank.world_size, rank.device
        )
        row = {
            "step": self.state.step, "consumed_tokens": self.state.consumed_tokens,
            "train_seconds": self.state.train_seconds, "val_loss": loss, "val_ppl": evaluate.perplexity(loss),
            "eval_seconds": time.perf_counter() - started,
        }  # fmt: skip
        self._write("eval", row)
        self.status = dataclasses.replace(self.status, val_loss=row["val_loss"], val_ppl=row["val_ppl"])

    def _begin(self) -> None:
        """Open the attempt's record and evaluate the untrained model."""
        row = {
            "restored_step": self.state.step, "world_size": self.rank.world_size, "host": socket.gethostname(),
            "device": self.rank.device, "started": time.time(), "versions": _versions(),
        }  # fmt: skip
        if self.writer:
            self.writer.write("attempt", row)
            self.status = status.write(
                self.run, self.status, state="RUNNING", attempt=self.attempt, steps=self.steps, error="",
                token_budget=self.config.token_budget, step=self.state.step,
                consumed_tokens=self.state.consumed_tokens,
            )  # fmt: skip
        log.info("attempt %d starts at step %d of %d", self.attempt, self.state.step, self.steps)
        if self.state.step == 0:
            self._evaluate()

    def _write(self, kind: records.Kind, row: dict[str, Any]) -> None:
        if self.writer and self.mirror:
            self.writer.write(kind, row)
            self.mirror.log({**row, "attempt": self.attempt})

    def _report(self, row: dict[str, Any]) -> None:
        """A heartbeat for whoever watches, twice a second at most."""
        if not self.writer or time.monotonic() - self._heartbeat < _HEARTBEAT_S:
            return
        self._heartbeat = time.monotonic()
        names = ("step", "consumed_tokens", "seqlen", "lr", "loss", "train_seconds", "tokens_per_second")
        self.status = status.write(self.run, self.status, durable=False, **{n: _finite(row[n]) for n in names})

    def _save(self) -> None:
        from cl_bench import checkpoint

        checkpoint.save(self.engine, self.state, self.run, self.rank.rank, self.config.checkpoint.keep)

    def _end(self, state: status.State, reason: str) -> None:
        log.info("%s at step %d%s", state, self.state.step, f": {reason}" if reason else "")
        if not self.writer or not self.mirror:
            return
        self.writer.close()
        self.mirror.finish()
        if state in FINISHED:
            records.compact(self.run)
        self.status = status.write(
            self.run, self.status, state=state, error=reason, step=self.state.step,
            consumed_tokens=self.state.consumed_tokens, train_seconds=self.state.train_seconds,
            val_loss=_finite(self.status.val_loss), val_ppl=_finite(self.status.val_ppl),
        )  # fmt: skip


def _finite(value: Any) -> Any:
    """None for a number JSON cannot hold."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _versions() -> dict[str, str]:
    names = ("cl-bench", "torch", "deepspeed", "numpy")
    return {"python": platform.python_version(), **{n: version(n) for n in names}}


def load_config(run: RunDir) -> RunConfig:
    """The run's configuration as it was written at submission."""
    return from_dict(yaml.safe_load(run.config.read_text()))


def _train(run: RunDir, config: RunConfig, place: Rank, store: Path, stop: StopRequest) -> None:
    """Set the process up, then train."""
    import torch

    from cl_bench import ds_config

    device = ds_config.choose_accelerator(config.resources.accelerator)
    torch.set_num_threads(config.resources.threads or max(1, (os.cpu_count() or 1) // place.world_size))
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    ds_config.init_distributed(place.rank, place.world_size, place.local_rank, store, device)
    rank = dataclasses.replace(place, device=f"cuda:{place.local_rank}" if device == "cuda" else "cpu")
    Trainer(config, run, rank, stop).train()


def run_job(root: str, place: Rank, store: str, threads: int | None = None) -> int:
    """Train the run whose folder is `root` as one of its ranks. Returns the exit code; the status file says the rest.

    `store` is a file that does not exist yet, through which the ranks of this attempt find each other. `threads` is
    used where the configuration leaves resources.threads open.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    run = RunDir.at(root)
    with StopRequest() as stop, only_trainer(run) if place.rank == 0 else contextlib.nullcontext(True) as mine:
        if not mine:
            log.info("another process is training %s; leaving it alone", run.run_id)
            return 0
        if status.read(run).state in FINISHED:
            log.info("%s is finished", run.run_id)
            return 0
        try:
            config = load_config(run)
            if config.resources.threads is None:
                config = dataclasses.replace(
                    config, resources=dataclasses.replace(config.resources, threads=threads)
                )
            _train(run, config, place, Path(store), stop)
        except UserError as error:
            status.write(run, status.read(run), state="FAILED", error=str(error))
            log.error("%s", error)
            return EXIT_USER_ERROR
        except BaseException:
            text = traceback.format_exc()
            log.error("%s", text)
            if status.read(run).state != "FAILED":  # the rank that broke first knows best
                last = "\n".join(text.strip().splitlines()[-_ERROR_LINES:])
                status.write(run, status.read(run), state="FAILED", error=last)
            return EXIT_FAILED
    return 0


def leave(code: int) -> None:
    """End the process at once: Python's finalisation races gloo's thread and may abort a finished run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
