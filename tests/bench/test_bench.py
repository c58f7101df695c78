"""Every benchmark runs at toy size and prints its figures beside its peer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm import cluster

BENCH = Path(__file__).parents[2] / "bench"
PEERS = {
    "data": "random slices of a memory map",
    "page": "an empty page with the plotting library",
    "planning": "Hydra's composing",
    "prepare": "tiktoken",
    "report": "the loop",
    "slurm": "one sbatch per run",
    "startup": "`import torch, deepspeed`",
    "training": "the plain loop's tokens per second",
}
MARKS = {
    "page": [pytest.mark.browser, pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium")],
    "slurm": [pytest.mark.slurm, pytest.mark.xdist_group("slurm")],
    "startup": [pytest.mark.train],
    "training": [pytest.mark.train],
}


def test_every_benchmark_is_tested_documented_and_run_by_make() -> None:
    assert {path.stem for path in BENCH.glob("*.py")} - {"common"} == PEERS.keys()
    for text in ((BENCH.parent / "Makefile").read_text(), (BENCH.parent / "docs/performance.md").read_text()):
        assert set(re.findall(r"bench/([a-z]+)\.py", text)) == PEERS.keys()


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [pytest.mark.train])) for name in PEERS])
def test_a_benchmark_prints_its_ratio(name: str) -> None:
    if name == "slurm" and (problem := cluster.missing()):
        if os.environ.get("CI"):
            pytest.fail(f"the Slurm benchmark must run here: {problem}")
        pytest.skip(problem)
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "BENCH_SIZE": "toy"},
        cwd=BENCH.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "TOY SIZE" in done.stdout
    line = rf"^  as a ratio of {re.escape(PEERS[name])}.* +(\S+)   goal "
    ratio = re.search(line, done.stdout, re.MULTILINE)
    assert ratio, done.stdout
    assert 0 < float(ratio[1]) < 1e6
