"""A made-up sweep with everything a report must survive: spikes, a divergence, a failure, a target never reached."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.answer import Answer, analyse
from analysis.page.data import ReportData
from analysis.report import page_data
from analysis.schema import Runs

METHODS = {"baseline": "constant 256", "fixed_linear": "8→256 over 40% of baseline steps", "fixed_root": "8→256, root"}
SPIKE_STEP = 137
SPIKE_LOSS = 7.654


def make_report(
    methods: int = 2, batches: tuple[int, ...] = (16, 64), lrs: tuple[float, ...] = (2e-3, 8e-3), seeds: int = 2
) -> ReportData:
    """The page's input for `make_answer`."""
    command = "cl-bench report outputs/sweeps/demo"
    return page_data(make_answer(methods, batches, lrs, seeds), command, "2025-11-22T14:03:00")


def make_answer(
    methods: int = 2, batches: tuple[int, ...] = (16, 64), lrs: tuple[float, ...] = (2e-3, 8e-3), seeds: int = 2
) -> Answer:
    """A sweep of methods × batches × lrs × seeds runs; the baseline at the largest LR and last seed diverges."""
    grid = list(product(list(METHODS)[:methods], batches, lrs, range(1, seeds + 1)))
    made = [_run(*point, bad=point == ("baseline", min(batches), max(lrs), seeds)) for point in grid]
    runs = pd.DataFrame([run for run, _, _ in made])
    train = pd.concat([t for _, t, _ in made], ignore_index=True)
    evals = pd.concat([e for _, _, e in made], ignore_index=True)
    question = "Does a linear length warmup save tokens on Shakespeare, at 1x and 4x batch and learning rate?"
    return analyse(Runs("demo", question, Path("demo"), runs, train, evals, _attempts(runs)))


def _run(
    method: str, batch: int, lr: float, seed: int, *, bad: bool
) -> tuple[dict[str, object], pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng([len(method), batch, seed, round(lr * 1e6)])
    run_id = f"tiny_{method}_b{batch}_lr{lr:g}_s{seed}"
    steps = np.arange(1, (600 if batch == 16 else 300) + 1)
    ramp = np.minimum(1.0, steps / (0.4 * len(steps)))
    seqlen = np.full(len(steps), 256) if method == "baseline" else 8 * np.maximum(1, np.round(32 * ramp)).astype(int)
    tokens = np.cumsum(batch * seqlen)
    budget = 2_000_000
    tokens = (tokens * (budget / tokens[-1])).astype(int)
    seconds = tokens / (80_000 if method == "baseline" else 92_000)
    pace = {"baseline": 1.0, "fixed_linear": 1.5 - 60 * lr, "fixed_root": 1.25}[method]
    floor = 2.15 + 25 * lr + 0.002 * batch / 16

    def curve(at: np.ndarray) -> np.ndarray:
        return floor + (5.5 - floor) * np.exp(-6.5 * pace * (at / budget) ** 0.6)

    loss = curve(tokens) + rng.normal(0, 0.03, len(steps))
    if method == "baseline" and lr > 4e-3:
        loss[SPIKE_STEP] = SPIKE_LOSS
    if bad:
        cut = len(steps) // 2
        steps, tokens, seconds, seqlen, loss = (column[:cut] for column in (steps, tokens, seconds, seqlen, loss))
        loss[-12:] = np.geomspace(3.2, 40, 12)
        loss[-1] = math.nan
    ratio = loss / np.minimum.accumulate(np.fmin(loss, 99))
    train = pd.DataFrame(
        {
            "run_id": run_id,
            "step": steps,
            "consumed_tokens": tokens,
            "seqlen": seqlen,
            "lr": lr,
            "loss": loss,
            "loss_ratio": ratio,
            "grad_norm": np.abs(rng.normal(1, 0.2, len(steps))),
            **_adam_variance(ratio, rng),
            "train_seconds": seconds,
            "tokens_per_second": 80_000.0,
        }
    )
    at = np.linspace(0, tokens[-1], 21)
    val = curve(at) + 0.03 + rng.normal(0, 0.004, 21)
    if bad:
        val[-1] = math.nan
        val[-2] = 4.9
    evals = pd.DataFrame(
        {
            "run_id": run_id,
            "step": np.searchsorted(tokens, at),
            "consumed_tokens": at.astype(int),
            "train_seconds": np.interp(at, [0, *tokens], [0.0, *seconds]),
            "val_loss": val,
            "val_ppl": np.exp(val),
        }
    )
    row: dict[str, object] = {
        "run_id": run_id,
        "cell": f"b{batch}_lr{lr:g}",
        "named": "",
        "role": "baseline" if method == "baseline" else "curriculum",
        "curriculum": method,
        "shape": METHODS[method],
        "variant": "",
        "setting": "0",
        "model": "tiny",
        "global_batch_size": batch,
        "lr": lr,
        "seed": seed,
        "state": "DIVERGED" if bad else "DONE",
        "token_budget": budget,
        "max_seqlen": 256,
        "consumed_tokens": int(tokens[-1]),
        "train_seconds": float(seconds[-1]),
        "final_loss": float(val[-1]),
        "final_ppl": float(np.exp(val[-1])),
        "best_ppl": float(np.exp(np.nanmin(val))),
        "tokens_per_second": float(tokens[-1] / seconds[-1]),
        "hardware": "cpu",
        "world_size": 1,
        "precision": "fp32",
    }
    return row, train, evals


def _adam_variance(ratio: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Larger where the loss ratio was, and measured at every tenth step."""
    size = np.exp(np.nan_to_num(ratio, nan=1.0, posinf=9.0).clip(0, 9) + rng.normal(0, 0.02, len(ratio)))
    size[np.arange(len(ratio)) % 10 != 0] = np.nan
    return {
        "adam_var_l1": 20 * size,
        "adam_var_max": 1e-3 * size,
        "adam_var_sqrt_l1": np.sqrt(900 * size),
        "adam_var_sqrt_max": np.sqrt(1e-3 * size),
    }


def _attempts(runs: pd.DataFrame) -> pd.DataFrame:
    once = {"attempt": 0, "restored_step": 0, "world_size": 1, "host": "node1", "device": "cpu", "started": 0.0}
    return pd.DataFrame([{"run_id": run_id, **once, "versions": "{}"} for run_id in runs["run_id"]])
