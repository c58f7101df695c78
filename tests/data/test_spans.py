"""157 billion tokens are planned and begun on without being read; pages are sampled, whatever the size of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cl_bench.config.schema import ConfigError
from cl_bench.data import spans
from cl_bench.data.spans import Span

PAPER_TOKENS = 157_286_400_000
"""What the paper's GPT-2 runs consume."""

PLAN_AND_START = """
import json, resource, sys, time
from cl_bench import config
from cl_bench.data import batches, sources
def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began, memory = time.monotonic(), megabytes()
source = config.DataConfig(source="nanogpt", path=sys.argv[1])
files = sources.inspect(source)
sources.check_length(files, 1024)
planned = config.DataConfig(source="nanogpt", path=sys.argv[1], fingerprint=files.fingerprint)
mixture = sources.mixture(planned, "unused")
training = batches.Batches(mixture, 1024, seed=1234)
first = training.micro_batch(0, 512)
last = training.micro_batch(153_600_000 - 512, 512)
validation = batches.validation_blocks(mixture, 1024, 64)
print(json.dumps({"seconds": time.monotonic() - began, "megabytes": megabytes() - memory,
                  "blocks": training.blocks[0].n, "words": files.describe(),
                  "shapes": [first.shape, last.shape, validation.shape],
                  "heavy": sorted({"torch", "deepspeed"} & set(sys.modules))}))
"""


def sparse_nanogpt(folder: Path, train: int = PAPER_TOKENS, val: int = 8_000_000_000) -> Path:
    """A folder of token files of the right size that take no room on disk."""
    folder.mkdir()
    for name, n in (("train", train), ("val", val)):
        (folder / f"{name}.bin").touch()
        os.truncate(folder / f"{name}.bin", 2 * n)
    return folder


@pytest.mark.train
def test_training_on_300_gb_starts_without_reading_them(tmp_path: Path) -> None:
    folder = sparse_nanogpt(tmp_path / "openwebtext")
    out = subprocess.run(
        [sys.executable, "-c", PLAN_AND_START, str(folder)], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(out)
    assert found["blocks"] == (PAPER_TOKENS - 1) // 1024
    assert found["shapes"] == [[512, 1025], [512, 1025], [64, 1025]]
    assert found["words"].endswith(": 157,286,400,000 tokens to train on, 8,000,000,000 held out")
    assert found["heavy"] == []
    assert found["seconds"] < 10  # 0.1 s where nothing else runs
    assert found["megabytes"] < 64  # of 315 GB; two batches of int64 are 8 MB
    assert sum(f.stat().st_blocks for f in folder.iterdir()) == 0


@pytest.mark.train
def test_a_plan_of_the_papers_size(tmp_path: Path) -> None:
    folder = sparse_nanogpt(tmp_path / "openwebtext")
    grid = ["model=gpt2_1558m", "data=nanogpt", f"data.path={folder}", f"token_budget={PAPER_TOKENS}"]
    options = [
        "global_batch_size=512,4096",
        "max_seqlen=1024",
        "optim=gpt2",
        "dry_run=true",
        "resources.gpus_per_node=0",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "cl_bench.sweep", "-m", *grid, *options, f"outputs={tmp_path / 'outputs'}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "157,286,400,000 tokens to train on" in done.stdout
    rows = (tmp_path / "outputs" / "sweeps" / "sweep" / "plan.csv").read_text()
    assert ",300000," in rows
    assert ",37500," in rows


def test_pages_are_sampled_evenly_from_the_first_to_the_last(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.zeros(10_000_000, "<u2").tofile(path)
    span = Span(path, "uint16", 0, 10_000_000)
    before = spans.sample([span], 100)
    with path.open("r+b") as file:
        file.seek(2 * 9_999_999)
        file.write(b"\x01\x00")
    after = spans.sample([Span(path, "uint16", 0, 10_000_000)], 100)
    assert after != before
    with path.open("r+b") as file:
        file.seek(2 * 9_999_999)
        file.write(b"\x64\x00")
    with pytest.raises(ConfigError, match=r"token id 100 at token 9999999 \(byte 19999998\) is beyond .* of 100"):
        spans.sample([Span(path, "uint16", 0, 10_000_000)], 100)


def test_negative_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.array([3, -1, 2], "<i4").tofile(path)
    with pytest.raises(ConfigError, match="token id -1 at token 1"):
        spans.sample([Span(path, "int32", 0, 3)], 100)
