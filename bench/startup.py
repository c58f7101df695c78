"""Seconds from launching a run to its first step, beside the import of torch and deepspeed alone."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import heading, ratio, result, size

TIMES = size(3, 1)


def first_step(outputs: str) -> float:
    """Launch one run; returns the seconds until its first training row."""
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "cl_bench.sweep", "sweeps=smoke", f"outputs={outputs}"], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        for path in Path(outputs).glob("runs/*/metrics/attempt_000.jsonl"):
            if b'"kind": "train"' in path.read_bytes():
                elapsed = time.time() - started
                process.wait()
                return elapsed
        time.sleep(0.01)
    raise SystemExit("the run ended before its first step was seen")


def main() -> None:
    """Measure and print."""
    heading("start-up")
    imports = []
    for _ in range(TIMES):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, deepspeed"], check=True, capture_output=True)
        imports.append(time.perf_counter() - started)
    launches = []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as outputs:
            launches.append(first_step(outputs))
    best, peer = statistics.median(launches), statistics.median(imports)
    print(f"  launches {json.dumps([round(s, 2) for s in launches])} s, imports {[round(s, 2) for s in imports]} s")
    result("seconds from launch to first step (median)", f"{best:.2f} s", "<= 5 s", best <= 5)
    ratio("`import torch, deepspeed`", best / peer)


if __name__ == "__main__":
    main()
