"""Made-up run folders with the settings of published cells, and of replicas of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_bench import config, schedules
from cl_bench.runs import identity
from cl_bench.runs.paths import RunDir, SweepDir, read_yaml, write_atomic
from tests.analysis.folders import BASELINE, make_run

_GPT2 = {"vocab_size": 50257, "dropout": 0.1}
LARGE = {"name": "gpt2_1558m", "n_layers": 48, "hidden_size": 1600, "n_heads": 25, "n_positions": 1024, **_GPT2}
SMALL_117M = {"name": "gpt2_117m", "n_layers": 12, "hidden_size": 768, "n_heads": 12, "n_positions": 1024, **_GPT2}
GPT3 = SMALL_117M | {"name": "gpt3_125m", "n_positions": 2048}
_OPTIM = {"min_lr": 1e-5, "warmup_tokens": None, "warmup_steps": 3000, "beta2": 0.999, "weight_decay": 0.01}


def linear(start: int, steps: int) -> dict[str, Any]:
    """A linear length warmup over so many steps."""
    return {
        "name": "fixed_linear",
        "schedule": "fixed_linear",
        "min_difficulty": start,
        "duration": steps,
        "duration_unit": "steps",
    }


def two_stage(first: int, until: float, unit: str = "steps") -> dict[str, Any]:
    """Two lengths."""
    return {
        "name": "two_stage",
        "schedule": "fixed_discrete",
        "difficulty": [first, None],
        "max_step": [until],
        "duration_unit": unit,
    }


def gpt2(batch: int, lr: float, **changes: Any) -> dict[str, Any]:
    """Settings of a cell of GPT-2 1.5B."""
    plain: dict[str, Any] = {
        "model": LARGE,
        "token_budget": 157_286_400_000,
        "global_batch_size": batch,
        "curriculum": BASELINE,
        "deepspeed": {"precision": "fp16", "zero_stage": 1},
        "optim": {**_OPTIM, "lr": lr},
        "seed": 1234,
    }
    for key, value in changes.items():
        plain[key] = plain[key] | value if key == "optim" else value
    return plain


CELLS: dict[str, dict[str, Any]] = {
    "baseline_512": gpt2(512, 1.5e-4),
    "baseline_4096": gpt2(4096, 6e-4),
    "cl_v1": gpt2(4096, 6e-4, curriculum=linear(64, 15_000)),
    "cl_later": gpt2(4096, 6e-4, curriculum=linear(64, 45_000)),
    "two_stage": gpt2(4096, 6e-4, curriculum=two_stage(128, 15_000)),
    "batch_warmup": gpt2(
        4096, 6e-4, batch_warmup={"start": 512, "increment": 512, "duration": 15_000, "duration_unit": "steps"}
    ),
    "lower_lr": gpt2(4096, 3e-4),
    "tighter_clip": gpt2(4096, 6e-4, optim={"grad_clip": 0.25}),
}
"""sweeps/gpt2_1558m.yaml."""


def gpt3(batch: int, lr: float, **changes: Any) -> dict[str, Any]:
    """Settings of a cell of GPT-3 125M."""
    rates = {"min_lr": 6e-5, "warmup_tokens": 375_000_000, "decay_tokens": 260_000_000_000}
    return {
        "model": GPT3,
        "token_budget": 300_000_000_000,
        "global_batch_size": batch,
        "curriculum": BASELINE,
        "optim": {"lr": lr, "weight_decay": 0.1, **rates},
        **changes,
    }


def made(
    outputs: Path, cell: str, losses: Sequence[float], settings: dict[str, Any] | None = None, **more: Any
) -> tuple[str, RunDir]:
    """(cell, run): a run of a cell of CELLS, or of `settings`."""
    return cell, make_run(outputs, losses, **{**(settings or CELLS[cell]), **more})


def named_sweep(outputs: Path, runs: Sequence[tuple[str, RunDir]], name: str = "s") -> Path:
    """A sweep folder as a launch writes it, with the sweep's own names of cells."""
    sweep = SweepDir(outputs, name)
    configs = [config.from_dict(read_yaml(run.config)) for _, run in runs]
    names = identity.curriculum_names([c.curriculum for c in configs])
    entries = [
        {
            "run_id": run.run_id,
            "cell": cell,
            "curriculum": full.method.replace(full.curriculum.name, names[full.curriculum], 1),
            "shape": schedules.describe(full),
            "variant": variant,
        }
        for (cell, run), full, variant in zip(runs, configs, identity.variants(configs), strict=True)
    ]
    write_atomic(sweep.manifest, json.dumps({"name": name, "question": "why?", "runs": entries}))
    return sweep.root
