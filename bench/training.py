"""Throughput of the training loop beside a plain PyTorch loop with the same model and batch; telemetry's share.

The two alternate in blocks of steps within one process, so that load on the machine affects both. The peer is a loop
without a framework: batches sliced from a memory-mapped file, forward, backward, clip, AdamW, loss.item().
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from common import heading, ratio, result, size

from cl_bench.config import RunConfig, from_dict
from cl_bench.config.schema import schema, to_dict
from cl_bench.data import sources
from cl_bench.runs import identity, paths
from cl_bench.runs.paths import RunDir
from cl_bench.schedules import LRSchedule
from cl_bench.training import engine, loop, telemetry
from cl_bench.training.model import GPT2, parameter_groups
from cl_bench.training.process import Rank, StopRequest
from cl_bench.training.rendezvous import Rendezvous

BLOCKS, STEPS = size((12, 15), (2, 2))


def demo_config() -> RunConfig:
    """The demo's baseline at batch 16."""
    plain = schema(RunConfig)
    conf = paths.config_root() / "conf"
    for group, preset in (
        ("model", "tiny"),
        ("data", "shakespeare"),
        ("curriculum", "baseline"),
        ("optim", "adamw"),
        ("deepspeed", "zero0"),
        ("tracking", "wandb_offline"),
    ):
        plain[group] |= paths.read_yaml(conf / group / f"{preset}.yaml")
    config = from_dict(plain | {"token_budget": 2_000_000, "global_batch_size": 16})
    text = sources.inspect(config.data)
    return identity.resolve(config, vocab_size=text.vocab_size, fingerprint=text.fingerprint)


def make_trainer(config: RunConfig, outputs: str, resources: contextlib.ExitStack) -> loop.Trainer:
    """A trainer as a job makes it, in this process."""
    run = RunDir(outputs, identity.run_id(config))
    paths.write_atomic(run.config, yaml.safe_dump(to_dict(config)))
    rank = Rank(device=engine.choose_accelerator("cpu"))
    engine.init_distributed(rank, Rendezvous(0, 1, Path(outputs) / "rendezvous").wait_for_all())
    return loop.Trainer(config, run, rank, StopRequest(), resources)


class PlainLoop:
    """The peer: training without a framework."""

    def __init__(self, config: RunConfig, tokens: Path) -> None:
        self.config, self.step = config, 0
        self.tokens = np.memmap(tokens, dtype=np.uint8, mode="r")
        self.model = GPT2(config.model)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, 0.01), lr=2e-3, fused=True)
        self.lr = LRSchedule.from_config(config)
        self.random = np.random.default_rng(0)

    def train(self, steps: int) -> None:
        """Take `steps` optimizer steps."""
        length, batch = self.config.seqlen, self.config.global_batch_size
        for _ in range(steps):
            starts = self.random.integers(0, len(self.tokens) - length - 1, batch)
            blocks = np.stack([self.tokens[s : s + length + 1] for s in starts]).astype(np.int64)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr.at(self.step + 1, self.step * batch * length)
            loss = self.model(torch.from_numpy(blocks[:, :-1]), torch.from_numpy(blocks[:, 1:]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()
            self.step += 1


def main() -> None:
    """Measure and print."""
    logging.disable(logging.INFO)
    heading("training at the demo's size (133K parameters, batch 16 x 256)")
    with tempfile.TemporaryDirectory() as outputs, contextlib.ExitStack() as resources:
        config = demo_config()
        trainer = make_trainer(config, outputs, resources)
        plain = PlainLoop(config, paths.data_cache(outputs) / str(config.data.fingerprint) / "train.bin")
        telemetry_s = [0.0]

        def ours(steps: int) -> None:
            for _ in range(steps):
                state = trainer.state
                row, _ = trainer.step(trainer.shapes.at(state.step + 1, state.consumed_samples, state.consumed_tokens))
                started = time.perf_counter()
                trainer.recorder.train(row)
                telemetry_s[0] += time.perf_counter() - started

        variance = telemetry.adam_variance

        def timed_variance(*arguments: object) -> dict[str, float]:
            started = time.perf_counter()
            values = variance(*arguments)  # type: ignore[arg-type]
            telemetry_s[0] += time.perf_counter() - started
            return values

        telemetry.adam_variance = timed_variance  # type: ignore[assignment]
        ours(STEPS)
        plain.train(STEPS)
        telemetry_s[0] = 0.0
        seconds = {"ours": 0.0, "plain": 0.0}
        for block in range(BLOCKS):
            order = (("ours", ours), ("plain", plain.train))
            for name, run in order if block % 2 else reversed(order):
                started = time.perf_counter()
                run(STEPS)
                seconds[name] += time.perf_counter() - started
        tokens = BLOCKS * STEPS * config.global_batch_size * config.seqlen
        print(f"  cl_bench {tokens / seconds['ours']:,.0f} tokens/s, plain PyTorch {tokens / seconds['plain']:,.0f}")
        throughput = seconds["plain"] / seconds["ours"]
        ratio("the plain loop's tokens per second", throughput, ">= 0.95", throughput >= 0.95)
        share = telemetry_s[0] / seconds["ours"]
        result("telemetry's share of a step", f"{share:.2%}", "<= 1%", share <= 0.01)
        trainer.recorder.finish("PREEMPTED", "", trainer.state)


if __name__ == "__main__":
    from cl_bench.training.worker import leave

    main()
    leave(0)
