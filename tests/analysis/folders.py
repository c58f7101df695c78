"""Run folders made of given curves, through the project's own writers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cl_bench.config.schema import to_dict
from cl_bench.runs import identity, records, status
from cl_bench.runs.paths import RunDir, SweepDir, write_atomic
from tests.conftest import LINEAR, resolved

BASELINE = {"name": "baseline", "schedule": "baseline"}
TOKENS_PER_SECOND = 100.0


def make_run(
    outputs: Path,
    losses: Sequence[float],
    *,
    tokens: Sequence[int] | None = None,
    seconds: Sequence[float] | None = None,
    train_losses: Sequence[float] = (),
    state: status.State = "DONE",
    **config: Any,
) -> RunDir:
    """A run with one evaluation per 1,000 tokens (and at 0), and training rows of `train_losses`."""
    cfg = resolved(**config)
    run = RunDir(outputs, identity.run_id(cfg))
    write_atomic(run.config, yaml.safe_dump(to_dict(cfg)))
    tokens = tokens or [1000 * i for i in range(len(losses))]
    seconds = seconds or [t / TOKENS_PER_SECOND for t in tokens]
    writer = records.RecordWriter(run, 0)
    writer.write(
        "attempt", {"restored_step": 0, "world_size": 1, "host": "h", "device": "cpu", "started": 0.0, "versions": {}}
    )
    smallest = math.inf
    for step, loss in enumerate(train_losses or [2.0], 1):
        ratio = loss / smallest if math.isfinite(smallest) else None
        smallest = min(smallest, loss)
        writer.write(
            "train",
            {
                "step": step,
                "consumed_tokens": step * 100,
                "consumed_samples": step,
                "seqlen": 64,
                "global_batch_size": cfg.global_batch_size,
                "lr": cfg.optim.lr,
                "loss": loss,
                "loss_ratio": ratio,
                "train_seconds": step * 1.0,
            },
        )
    for i, (t, s, loss) in enumerate(zip(tokens, seconds, losses, strict=True)):
        writer.write(
            "eval",
            {
                "step": i,
                "consumed_tokens": t,
                "train_seconds": s,
                "val_loss": loss,
                "val_ppl": math.exp(loss) if loss < 700 else None,
                "eval_seconds": 0.0,
            },
        )
    writer.close()
    status.write(run, status.Status(), state=state)
    return run


def make_sweep(outputs: Path, runs: Sequence[RunDir], name: str = "s") -> Path:
    """A sweep folder whose manifest names `runs`."""
    sweep = SweepDir(outputs, name)
    entries = [{"run_id": run.run_id} for run in runs]
    write_atomic(sweep.manifest, json.dumps({"name": name, "question": "why?", "runs": entries}))
    return sweep.root


def pair(outputs: Path, base: Sequence[float], cl: Sequence[float], **config: Any) -> list[RunDir]:
    """A baseline and a linear curriculum of the same cell."""
    return [
        make_run(outputs, base, curriculum=BASELINE, **config),
        make_run(outputs, cl, curriculum=LINEAR, **config),
    ]
