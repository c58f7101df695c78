"""A report on 1,000 runs of 10,000 rows: seconds, memory, and their growth, beside a hand-written loop in pandas."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from common import heading, ratio, result, size

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import report
from analysis.readers import load_runs
from analysis.stats.savings import run_savings
from analysis.stats.stability import stability
from cl_bench.config import RunConfig
from cl_bench.config.schema import to_dict
from cl_bench.runs import identity, records, status
from cl_bench.runs.paths import RunDir, SweepDir, write_atomic
from tests.conftest import LINEAR, resolved

STEPS, EVALUATIONS = size((10_000, 50), (200, 10))
RUNS = size(1000, 40)
BUDGET = 10_000_000


def main() -> None:
    """Measure and print."""
    if len(sys.argv) == 3:
        _measure(Path(sys.argv[1]), sys.argv[2])
        return
    heading(f"report on runs of {STEPS:,} training rows and {EVALUATIONS} evaluations each")
    with tempfile.TemporaryDirectory() as place:
        folders = {n: make_sweep(Path(place) / str(n), n) for n in (RUNS // 2, RUNS)}
        whole = {n: _apart(folders[n], "report") for n in folders}
        ours, loop = (_apart(folders[RUNS], how)["seconds"] for how in ("same", "loop"))
    seconds, memory = whole[RUNS]["seconds"], whole[RUNS]["gib"]
    result(f"{RUNS:,} runs, from files to a written report", f"{seconds:.1f} s", "<= 30 s", seconds <= 30)
    result("peak memory", f"{memory:.2f} GiB", "<= 2 GiB", memory <= 2)
    growth = seconds / whole[RUNS // 2]["seconds"]
    result(f"twice the runs ({RUNS // 2:,} -> {RUNS:,}), times as long", f"{growth:.2f}", "<= 2.4", growth <= 2.4)
    print(f"  page of {RUNS:,} runs: {whole[RUNS]['page_mb']:.1f} MB")
    print(f"  tokens to target and loss ratios alone: {ours:.1f} s; a plain pandas loop {loop:.1f} s")
    ratio("the loop", ours / loop, "<= 0.2", ours <= loop / 5)


def make_sweep(outputs: Path, n_runs: int) -> Path:
    """A sweep of `n_runs` finished runs, as training leaves them."""
    per_cell = 5
    cells = n_runs // per_cell // 2
    batches = [2**i for i in range(2, 12)]
    rates = [1e-4 * 1.5**i for i in range(math.ceil(cells / len(batches)))]
    grid = list(product(batches, rates))[:cells]
    entries = []
    for (batch, lr), method, seed in product(grid, ("baseline", "linear"), range(1, per_cell + 1)):
        curriculum = {"name": "baseline", "schedule": "baseline"} if method == "baseline" else LINEAR
        config = resolved(
            curriculum=curriculum, global_batch_size=batch, optim={"lr": lr}, seed=seed, token_budget=BUDGET
        )
        run = RunDir(outputs, identity.run_id(config))
        _write_run(run, config, method == "linear")
        entries.append({"run_id": run.run_id})
    sweep = SweepDir(outputs, "large")
    write_atomic(sweep.manifest, json.dumps({"name": "large", "question": "how long?", "runs": entries}))
    return sweep.root


def _write_run(run: RunDir, config: RunConfig, linear: bool) -> None:
    rng = np.random.default_rng([config.seed, config.global_batch_size, int(linear)])
    write_atomic(run.config, yaml.safe_dump(to_dict(config)), durable=False)
    steps = np.arange(1, STEPS + 1)
    tokens = steps * (BUDGET // STEPS)
    pace = (1.3 if linear else 1.0) * math.exp(rng.normal(0, 0.03))

    def curve(at: np.ndarray) -> np.ndarray:
        return 2 + 3.5 * np.exp(-6 * pace * (at / BUDGET) ** 0.6)

    loss = curve(tokens) + rng.normal(0, 0.05, STEPS)
    lowest = np.minimum.accumulate(loss)
    train: dict[str, object] = {
        "step": steps,
        "consumed_tokens": tokens,
        "consumed_samples": steps * config.global_batch_size,
        "seqlen": np.minimum(64, 8 + steps // 100 * 8) if linear else np.full(STEPS, 64),
        "global_batch_size": np.full(STEPS, config.global_batch_size),
        "lr": np.full(STEPS, config.optim.lr),
        "loss": loss,
        "loss_ratio": np.append(np.nan, loss[1:] / lowest[:-1]),
        "grad_norm": np.abs(rng.normal(1, 0.2, STEPS)),
        # Every tenth step, as telemetry.adam_variance_interval has it by default.
        **{
            c: np.where(steps % 10 == 0, np.abs(rng.normal(1, 0.2, STEPS)), np.nan)
            for c in records.TRAIN_COLUMNS
            if c.startswith("adam_")
        },
        "loss_scale": np.full(STEPS, np.nan),
        "train_seconds": np.cumsum(rng.uniform(0.01, 0.012, STEPS)),
        "tokens_per_second": np.full(STEPS, 90_000.0),
        "attempt": np.zeros(STEPS, dtype=int),
    }
    at = np.linspace(0, BUDGET, EVALUATIONS + 1).astype(int)
    val = curve(at) + rng.normal(0, 0.005, len(at))
    evals: dict[str, object] = {
        "step": at // (BUDGET // STEPS),
        "consumed_tokens": at,
        "train_seconds": at / 90_000,
        "val_loss": val,
        "val_ppl": np.exp(val),
        "eval_seconds": np.full(len(at), 0.1),
        "attempt": np.zeros(len(at), dtype=int),
    }
    writer = records.RecordWriter(run, 0)
    once = {"restored_step": 0, "world_size": 1, "host": "h", "device": "cpu", "started": 0.0, "versions": {}}
    writer.write("attempt", once)
    writer.close()
    records.compact(run)
    tables: list[tuple[records.Kind, dict[str, object]]] = [("train", train), ("eval", evals)]
    for kind, rows in tables:
        frame = pd.DataFrame(rows).astype(records.COLUMNS[kind])
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), run.table(kind), compression="zstd")
    status.write(run, status.Status(), state="DONE", steps=STEPS, durable=False)


def _apart(folder: Path, how: str) -> dict[str, float]:
    """Measure in a separate process, for a peak memory of its own."""
    command = [sys.executable, __file__, str(folder), how]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures


def _measure(folder: Path, how: str) -> None:
    started = time.perf_counter()
    page_mb = 0.0
    if how == "report":
        page_mb = report.write(folder).path.stat().st_size / 1e6
    elif how == "same":  # the same as the loop
        runs = load_runs(folder)
        run_savings(runs)
        stability(runs)
    else:
        _loop(folder)
    took = time.perf_counter() - started
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": took, "gib": gib, "page_mb": page_mb}))


def _loop(folder: Path) -> None:
    """Compute tokens to the baseline's final loss and the largest loss ratio of each run, as in a first notebook."""
    outputs = SweepDir.at(folder).outputs
    run_ids = [r["run_id"] for r in json.loads(SweepDir.at(folder).manifest.read_text())["runs"]]
    configs, trains, evals = {}, [], []
    for run_id in run_ids:
        run = RunDir(outputs, run_id)
        configs[run_id] = yaml.safe_load(run.config.read_text())
        trains.append(pd.read_parquet(run.table("train")).assign(run_id=run_id))
        evals.append(pd.read_parquet(run.table("eval")).assign(run_id=run_id))
    train, evaluations = pd.concat(trains), pd.concat(evals)
    rows = []
    for run_id in run_ids:
        own = train[train["run_id"] == run_id]
        ratio = own["loss"] / own["loss"].cummin().shift()
        config = configs[run_id]
        baseline = next(
            other
            for other in run_ids
            if configs[other]["curriculum"]["schedule"] == "baseline"
            and all(configs[other][k] == config[k] for k in ("global_batch_size", "seed"))
            and configs[other]["optim"]["lr"] == config["optim"]["lr"]
        )
        target = evaluations[evaluations["run_id"] == baseline]["val_loss"].iloc[-1]
        reached = None
        for _, row in evaluations[evaluations["run_id"] == run_id].iterrows():
            if row["val_loss"] <= target:
                reached = row["consumed_tokens"]
                break
        rows.append((run_id, ratio.max(), (ratio > 1.2).sum(), reached))
    pd.DataFrame(rows)


if __name__ == "__main__":
    main()
