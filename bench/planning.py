"""Planning a grid of 200 runs, beside Hydra composing every job twice (to validate, then to launch)."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time

from common import heading, ratio, result, size
from hydra import compose, initialize_config_dir

from cl_bench.cli import sweep
from cl_bench.runs.paths import config_root

GRID = {
    "curriculum": ["baseline", "fixed_linear"],
    "global_batch_size": size([8, 16, 32, 64, 128], [8]),
    "optim.lr": [1e-3, 2e-3, 4e-3, 8e-3],
    "seed": size([1, 2, 3, 4, 5], [1]),
}


def main() -> None:
    """Measure and print."""
    jobs = [
        [f"{key}={value}" for key, value in zip(GRID, values, strict=True)]
        for values in itertools.product(*GRID.values())
    ]
    heading(f"planning {len(jobs)} runs")
    axes = [f"{key}={','.join(map(str, values))}" for key, values in GRID.items()]
    with tempfile.TemporaryDirectory() as outputs:
        started = time.perf_counter()
        command = [sys.executable, "-m", "cl_bench.sweep", "-m", *axes, "dry_run=true", f"outputs={outputs}"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        ours = time.perf_counter() - started
    assert f"{len(jobs)} runs: {len(jobs)} new" in out, out
    sweep._register()
    with initialize_config_dir(str(config_root() / "conf"), version_base="1.3"):
        started = time.perf_counter()
        for job in jobs:
            for _ in range(2):
                compose("config", job)
        hydra = time.perf_counter() - started
    print(f"  composing alone, as Hydra's grid sweeper and launchers do: {hydra:.1f} s")
    result("seconds, from the shell to the printed plan", f"{ours:.2f} s", "<= 5 s", ours <= 5)
    ratio("Hydra's composing", ours / hydra, "< 1", ours < hydra)


if __name__ == "__main__":
    main()
