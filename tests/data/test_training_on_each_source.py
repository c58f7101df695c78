"""Runs train on every source: real engines, real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.train

SMALL = [
    "model.n_layers=1",
    "model.hidden_size=32",
    "model.n_heads=2",
    "max_seqlen=32",
    "global_batch_size=4",
    "token_budget=1024",
    "optim.warmup_tokens=0",
    "evaluation.n_blocks=4",
    "tracking=none",
]


def sweep(outputs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cl_bench.sweep", *SMALL, *options, f"outputs={outputs}"]
    return subprocess.run(command, capture_output=True, text=True)


def status_of(outputs: Path) -> dict[str, object]:
    (path,) = outputs.glob("runs/*/status.json")
    status: dict[str, object] = json.loads(path.read_text())
    return status


def test_a_run_on_text_in_gpt2s_encoding(text: Path, gpt2_files: dict[str, str], tmp_path: Path) -> None:
    files = [f"data.{name}={path}" for name, path in gpt2_files.items()]
    done = sweep(tmp_path, "data=text_bpe", f"data.path={text}", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to be encoded as gpt2" in done.stdout
    assert status_of(tmp_path)["state"] == "DONE"
    again = sweep(tmp_path, "data=text_bpe", f"data.path={text}", *files)
    assert "1 done" in again.stdout


def test_an_unsampled_id_beyond_the_vocabulary_is_refused_with_its_position(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    # Larger than what is looked at whole before training: of such a file 256 pages are sampled, and those are clean.
    ids = np.full(40_000_000, 300, "<u2")
    for start in np.linspace(0, len(ids) - 2_048, 256).astype(int):
        ids[start : start + 2_048] = 0
    ids.tofile(folder / "train.bin")
    np.zeros(10_000, "<u2").tofile(folder / "val.bin")
    done = sweep(tmp_path, "data=nanogpt", f"data.path={folder}", "data.vocab_size=256")
    # Measuring the token frequencies looks at more than the sample that identifies the file.
    assert done.returncode == 2, done.stdout + done.stderr
    assert "train.bin: token id 300 at token " in done.stderr
    assert "beyond the vocabulary of 256; set data.vocab_size" in done.stderr
    assert not list(tmp_path.glob("runs/*/status.json"))  # nothing has started
