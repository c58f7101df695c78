"""The training loop: one attempt at a run."""

from __future__ import annotations

import contextlib
import time

import torch

from cl_bench.config import RunConfig
from cl_bench.data import batches, sources
from cl_bench.runs.paths import RunDir
from cl_bench.runs.status import State
from cl_bench.schedules import LRSchedule, StepShape, StepShapes, check_fingerprint
from cl_bench.training import telemetry
from cl_bench.training.checkpoint import Checkpointer
from cl_bench.training.collectives import mean_loss_and_stop
from cl_bench.training.engine import Engine
from cl_bench.training.process import Rank, StopRequest
from cl_bench.training.recorder import Recorder, Row
from cl_bench.training.validation import Evaluator, perplexity


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a step's dropout, so that a resumed run needs no saved random state."""
    return (seed * 1_000_003 + step) * 65_537 + rank


class Trainer:
    """One attempt at a run: restores the newest checkpoint and trains until the token budget is consumed."""

    def __init__(
        self, config: RunConfig, run: RunDir, rank: Rank, stop: StopRequest, resources: contextlib.ExitStack
    ) -> None:
        """`resources` closes what the attempt opens, however it ends."""
        check_fingerprint(config)
        corpus = sources.mixture(config.data, run.outputs, verify=rank.rank == 0)
        self.config, self.rank, self.stop = config, rank, stop
        self.shapes = StepShapes(config, rank.world_size)
        self.lr_schedule = LRSchedule.from_config(config)
        self.batches = batches.Batches(corpus, config.seqlen, config.seed)
        self.engine = Engine(config, rank)
        self.evaluator = Evaluator(config, corpus, self.engine, rank)
        self.telemetry = telemetry.Telemetry(config, self.engine, rank)
        self.checkpointer = Checkpointer(config, run, self.engine, rank)
        self.state = self.checkpointer.restore()
        self.shapes.lengths.load_state(self.state.schedule)
        self.recorder = resources.enter_context(Recorder(config, run, rank, self.state))

    def train(self) -> State:
        """Train to the end, to divergence, or until told to stop; returns the run's state."""
        config, state = self.config, self.state
        outcome: State = "DONE"
        reason: str | None = None
        if state.step == 0:
            self.evaluate()
        while state.consumed_tokens < config.token_budget:
            shape = self.shapes.at(state.step + 1, state.consumed_samples, state.consumed_tokens)
            row, is_stopping = self.step(shape)
            self.recorder.train(row)
            if reason := telemetry.divergence(config.divergence, state.loss, state.steps_above):
                outcome = "DIVERGED"
                self.evaluate()
                break
            if self.evaluator.is_due(state.consumed_tokens, shape.tokens):
                self.evaluate()
            if is_stopping and state.consumed_tokens < config.token_budget:
                outcome, reason = "PREEMPTED", "told to stop; launch again to resume"
                break
            if self.checkpointer.is_due(state.step):
                self.checkpointer.save(state)
        self.checkpointer.save(state)
        self.recorder.finish(outcome, reason or "", state)
        return outcome

    def step(self, shape: StepShape) -> tuple[Row, bool]:
        """One optimizer update. Returns its metrics, and whether any rank is told to stop."""
        config, engine, state, rank = self.config, self.engine, self.state, self.rank
        started = time.perf_counter()
        step = state.step + 1
        lr = self.lr_schedule.at(step, state.consumed_tokens)
        torch.manual_seed(dropout_seed(config.seed, step, rank.rank))
        engine.begin_step(shape, lr)
        loss_sum = torch.zeros((), device=rank.device)
        for micro_step in range(shape.grad_accum_steps):
            first = (micro_step * rank.world_size + rank.rank) * shape.micro_batch_size
            tokens = self.batches.micro_batch(state.consumed_samples + first, shape.micro_batch_size)
            inputs, labels = batches.cut(tokens, shape)  # (rows, padded_seqlen) each
            loss_sum += engine.micro_step(inputs, labels, is_last=micro_step == shape.grad_accum_steps - 1)
        loss, is_stopping = mean_loss_and_stop(loss_sum / shape.grad_accum_steps, self.stop, rank)
        seconds = time.perf_counter() - started

        ratio = telemetry.loss_ratio(loss, state.min_loss)
        state.step = step
        state.consumed_tokens += shape.tokens
        state.consumed_samples += shape.global_batch_size
        state.train_seconds += seconds
        state.loss = loss
        state.min_loss = min(state.min_loss, loss)  # a NaN never becomes the minimum
        state.steps_above = telemetry.steps_above(config.divergence, ratio, state.steps_above)
        row: Row = {
            "step": step,
            "consumed_tokens": state.consumed_tokens,
            "consumed_samples": state.consumed_samples,
            "seqlen": shape.seqlen,
            "global_batch_size": shape.global_batch_size,
            "lr": lr,
            "loss": loss,
            "loss_ratio": ratio,
            "grad_norm": engine.grad_norm,
            "loss_scale": engine.loss_scale,
            "train_seconds": state.train_seconds,
            "tokens_per_second": shape.tokens / seconds,
        }
        variance = self.telemetry.adam_variance_if_due(step)
        self._observe("adam_var_max", variance.get("adam_var_max"))
        return row | variance, is_stopping

    def evaluate(self) -> None:
        """Validation loss at full length, outside the training time."""
        started = time.perf_counter()
        loss = self.evaluator.loss()
        self._observe("val_loss", loss)
        self.recorder.evaluation(
            {
                "step": self.state.step,
                "consumed_tokens": self.state.consumed_tokens,
                "train_seconds": self.state.train_seconds,
                "val_loss": loss,
                "val_ppl": perplexity(loss),
                "eval_seconds": time.perf_counter() - started,
            }
        )

    def _observe(self, signal: str, value: float | None) -> None:
        """Pass a measurement that all ranks share to the sequence-length schedule, which may be adaptive."""
        self.shapes.lengths.observe(signal, value)
        self.state.schedule = self.shapes.lengths.state()
