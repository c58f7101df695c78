"""The training loop: one attempt at one run."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import platform
import signal
import socket
import time
from importlib.metadata import version
from types import FrameType
from typing import Any

from cl_bench import __version__
from cl_bench.config import RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.runs import provenance, records, status
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import FINISHED
from cl_bench.schedules import adaptive, batch_size, learning_rate
from cl_bench.schedules import seqlen as pacing
from cl_bench.training.wandb_mirror import Mirror

log = logging.getLogger("cl_bench")

_HEARTBEAT_S = 0.5


@dataclasses.dataclass(frozen=True)
class Rank:
    """This process's place among the processes of the run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: str = "cpu"
    nodes: int = 1
    """Machines that the ranks are spread over."""
    node: str = ""
    """Name of this rank's machine."""
    job: str = ""
    """Slurm's id of the job; empty outside Slurm."""
    restarts: int = 0
    """Times that Slurm has started the job again."""


class StopRequest:
    """Remembers that the process was asked to leave; the ranks agree on it at a step boundary."""

    def __init__(self) -> None:
        self.signals: set[int] = set()

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # a second signal must not break the last writes

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.signals.add(number)


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a step's dropout, so that a resumed run needs no saved random state."""
    return (seed * 1_000_003 + step) * 65_537 + rank


class Trainer:
    """One attempt at one run: builds the engine, restores, and steps through the token budget."""

    def __init__(self, config: RunConfig, run: RunDir, rank: Rank, stop: StopRequest) -> None:
        import torch

        from cl_bench.data import batches, sources
        from cl_bench.training import checkpoint
        from cl_bench.training import engine as ds_config

        self.config, self.run, self.rank, self.stop = config, run, rank, stop
        self.pacing = pacing.of(config)
        self.batch_size = batch_size.of(config)
        self.adaptive = adaptive.Adaptive(config) if config.curriculum.schedule == "adaptive" else None
        self.buckets = pacing.buckets(config)
        if pacing.custom_fingerprint(config) != config.curriculum.fingerprint:
            raise ConfigError(
                f"curriculum.function = {config.curriculum.function}: returns other lengths than when the run was "
                "planned; launch again, which makes it a run of its own"
            )
        self.lr_schedule = learning_rate.of(config)
        self.steps = pacing.extent(config).steps
        tokens = sources.mixture(config.data, run.outputs, verify=rank.rank == 0)
        self.batches = batches.Batches(tokens, config.seqlen, config.seed)
        self.validation = batches.validation_blocks(tokens, config.seqlen, config.evaluation.n_blocks)
        self.engine = ds_config.make_engine(config, rank.world_size, rank.device)
        self.micro_batch = functools.cache(config.micro_batch)
        self.state = checkpoint.restore(self.engine, run, rank.world_size)
        if self.adaptive and not self.state.pace.length:
            self.state.pace = self.adaptive.first()
        self.attempt = records.next_attempt(run)
        torch.distributed.barrier()  # every rank has counted the attempts before rank 0 adds one
        self.writer = records.RecordWriter(run, self.attempt) if rank.rank == 0 else None
        self.mirror: Mirror | None = None
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

        from cl_bench.data import batches
        from cl_bench.training import engine as ds_config
        from cl_bench.training import telemetry

        config, engine, state, rank = self.config, self.engine, self.state, self.rank
        step = state.step + 1
        seqlen = state.pace.length if self.adaptive else self.pacing.seqlen(step)
        size = self.batch_size.at(step, state.consumed_samples, state.consumed_tokens)
        padded = self.buckets.get(seqlen, seqlen)
        micro_batch = self.micro_batch(rank.world_size, size, pacing.tokens_on_device(config, seqlen, padded))
        grad_accum_steps = size // (micro_batch * rank.world_size)
        lr = self.lr_schedule.at(step, state.consumed_tokens)
        started = time.perf_counter()
        for group in ds_config.base_optimizer(engine).param_groups:
            group["lr"] = lr
        torch.manual_seed(dropout_seed(config.seed, step, rank.rank))
        loss_sum = torch.zeros((), device=rank.device)
        grad_norm = None
        ds_config.set_batch(engine, micro_batch, grad_accum_steps, rank.world_size)
        for micro_step in range(grad_accum_steps):
            is_last = micro_step == grad_accum_steps - 1
            first = (micro_step * rank.world_size + rank.rank) * micro_batch
            tokens = self.batches.micro_batch(state.consumed_samples + first, micro_batch)
            inputs, labels = batches.to_length(tokens, seqlen, config.curriculum.mode)
            inputs, labels = batches.pad(inputs, labels, padded)
            engine.set_gradient_accumulation_boundary(is_last)
            loss = engine(torch.from_numpy(inputs).to(rank.device), torch.from_numpy(labels).to(rank.device))
            engine.backward(loss)
            if is_last and not ds_config.clips_itself(config):
                grad_norm = telemetry.clip_gradients(engine, config.optim.grad_clip)
            engine.step()
            loss_sum += loss.detach()
        train_loss, asked_to_stop = self._agree(loss_sum / grad_accum_steps)
        if ds_config.clips_itself(config):
            norm = engine.get_global_grad_norm()
            grad_norm = None if norm is None else float(norm)
        seconds = time.perf_counter() - started

        tokens_in_step = pacing.tokens_per_step(config, seqlen, size)
        state.step = step
        state.consumed_tokens += tokens_in_step
        state.consumed_samples += size
        state.train_seconds += seconds
        ratio = telemetry.loss_ratio(train_loss, state.min_loss)
        state.min_loss = min(state.min_loss, train_loss)  # a NaN never becomes the minimum
        state.steps_above = telemetry.steps_above(config.divergence, ratio, state.steps_above)
        row = {
            "step": step,
            "consumed_tokens": state.consumed_tokens,
            "consumed_samples": state.consumed_samples,
            "seqlen": seqlen,
            "global_batch_size": size,
            "lr": lr,
            "loss": train_loss,
            "loss_ratio": ratio,
            "grad_norm": grad_norm,
            "loss_scale": ds_config.loss_scale(engine),
            "train_seconds": state.train_seconds,
            "tokens_per_second": tokens_in_step / seconds,
        }
        interval = config.telemetry.adam_variance_interval
        if interval and step % interval == 0:
            row |= telemetry.adam_variance(engine, rank.world_size, config.deepspeed.zero_stage > 0)
            self._observe("adam_var_max", row.get("adam_var_max"))
        return row, asked_to_stop

    def _observe(self, signal: str, value: float | None) -> None:
        """Let an adaptive schedule see a number that all ranks share."""
        if self.adaptive:
            self.adaptive.observe(self.state.pace, signal, value)

    def _agree(self, loss: Any) -> tuple[float, bool]:
        """Mean loss over the ranks, and whether any of them was asked to stop, in one collective."""
        import torch
        import torch.distributed as dist

        asked, noticed = bool(self.stop.signals), signal.SIGUSR2 in self.stop.signals
        if self.rank.world_size == 1:
            return float(loss), asked
        flags = torch.tensor([float(asked), float(noticed)], device=loss.device)
        total = torch.cat([loss.reshape(1), flags])
        dist.all_reduce(total)
        if total[2] > 0:
            self.stop.signals.add(signal.SIGUSR2)  # a notice that came to one rank came to the run
        return float(total[0]) / self.rank.world_size, bool(total[1] > 0)

    def _diverged(self, row: dict[str, Any]) -> str | None:
        from cl_bench.training import telemetry

        return telemetry.divergence(self.config.divergence, row["loss"], self.state.steps_above)

    def _evaluate_if_due(self, row: dict[str, Any]) -> None:
        """Evaluate where consumed_tokens crosses the grid of evaluation.interval_tokens, and at the end."""
        interval = self.config.eval_interval_tokens
        before = row["consumed_tokens"] - pacing.tokens_per_step(self.config, row["seqlen"], row["global_batch_size"])
        crossed = row["consumed_tokens"] // interval > before // interval
        if crossed or row["consumed_tokens"] >= self.config.token_budget:
            self._evaluate()

    def _evaluate(self) -> None:
        from cl_bench.training import validation

        started = time.perf_counter()
        rank = self.rank
        loss = validation.validation_loss(
            self.engine, self.validation, self.micro_batch(rank.world_size), rank.rank, rank.world_size, rank.device
        )
        self._observe("val_loss", loss)
        row = {
            "step": self.state.step,
            "consumed_tokens": self.state.consumed_tokens,
            "train_seconds": self.state.train_seconds,
            "val_loss": loss,
            "val_ppl": validation.perplexity(loss),
            "eval_seconds": time.perf_counter() - started,
        }
        self._write("eval", row)
        self.status = dataclasses.replace(self.status, val_loss=row["val_loss"], val_ppl=row["val_ppl"])

    def _begin(self) -> None:
        """Open the attempt's record and evaluate the untrained model."""
        from cl_bench.training import hardware

        node = self.rank.node or socket.gethostname()
        row = {
            "restored_step": self.state.step,
            "world_size": self.rank.world_size,
            "host": node,
            "device": self.rank.device,
            "started": time.time(),
            "versions": _versions(self.run),
            "hardware": hardware.name(self.rank.device),
        }
        if self.writer:
            self.writer.write("attempt", row)
            self.mirror = Mirror(self.config, self.run, {"attempt": self.attempt, "planned_steps": self.steps, **row})
            self.status = status.write(
                self.run,
                self.status,
                state="RUNNING",
                attempt=self.attempt,
                steps=self.steps,
                error="",
                job=self.rank.job,
                restarts=self.rank.restarts,
                node=node,
                token_budget=self.config.token_budget,
                step=self.state.step,
                consumed_tokens=self.state.consumed_tokens,
            )
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
        if self.adaptive:  # how many steps it takes is known in the end only
            left = max(0, self.config.token_budget - row["consumed_tokens"])
            self.steps = row["step"] + math.ceil(left / max(1, row["seqlen"] * row["global_batch_size"]))
        names = ("step", "consumed_tokens", "seqlen", "lr", "loss", "train_seconds", "tokens_per_second")
        changes = {n: _finite(row[n]) for n in names}
        self.status = status.write(self.run, self.status, durable=False, steps=self.steps, **changes)

    def _save(self) -> None:
        from cl_bench.training import checkpoint

        checkpoint.save(self.engine, self.state, self.run, self.rank.rank, self.config.checkpoint.keep)

    def _end(self, state: status.State, reason: str) -> None:
        log.info("%s at step %d%s", state, self.state.step, f": {reason}" if reason else "")
        if not self.writer or not self.mirror:
            return
        self.writer.close()
        self.mirror.finish(state)
        if state in FINISHED:
            records.compact(self.run)
        self.status = status.write(
            self.run,
            self.status,
            state=state,
            error=reason,
            step=self.state.step,
            consumed_tokens=self.state.consumed_tokens,
            train_seconds=self.state.train_seconds,
            val_loss=_finite(self.status.val_loss),
            val_ppl=_finite(self.status.val_ppl),
        )


def _finite(value: Any) -> Any:
    """None for a number JSON cannot hold."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _versions(run: RunDir) -> dict[str, str]:
    names = ("torch", "deepspeed", "numpy")
    found = {"cl_bench": __version__, "python": platform.python_version(), **{n: version(n) for n in names}}
    return found | {"commit": commit} if (commit := provenance.commit_of(run)) else found
