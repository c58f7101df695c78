"""Resolution of a run's config, and the run_id: one per experiment, the same in every sweep."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cl_bench import schedules
from cl_bench.config import CurriculumConfig, RunConfig, from_dict
from cl_bench.config.schema import ConfigError, to_dict
from cl_bench.runs.paths import RunDir, read_yaml

# Settings that do not change the experiment: queue, paths, tracking. Section -> keys; () means all.
_NOT_IDENTITY: dict[str, tuple[str, ...]] = {
    "resources": (),
    "checkpoint": (),
    "tracking": (),
    # Covered by the fingerprint.
    "data": ("path", "paths", "weights", "split", "tokenizer", "vocab_file", "merges_file", "vocab_size"),
    "curriculum": ("name",),
    "cell": (),
}


def resolve(config: RunConfig, *, vocab_size: int, fingerprint: str) -> RunConfig:
    """Replace values that follow from others, so that equal experiments have equal configs.

    Durations become steps, null sizes become numbers, and fields unused by the schedule get their defaults.
    `vocab_size` and `fingerprint` are the data's. Raises ConfigError if the model's vocabulary is the smaller one.
    """
    if config.model.vocab_size is not None and config.model.vocab_size < vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size} is smaller than the data's vocabulary of {vocab_size}; "
            "raise it or set it to null"
        )
    curriculum = dataclasses.replace(schedules.resolve(config), fingerprint=schedules.fingerprint(config))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=config.model.vocab_size or vocab_size),
        data=dataclasses.replace(config.data, fingerprint=fingerprint),
        curriculum=curriculum,
        max_seqlen=config.seqlen,
        evaluation=dataclasses.replace(config.evaluation, interval_tokens=config.eval_interval_tokens),
        optim=dataclasses.replace(
            config.optim,
            decay_tokens=config.optim.decay_tokens or config.token_budget,
            decay_steps=schedules.decay_steps(config),
        ),
    )


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of a resolved config that identifies the experiment."""
    plain = to_dict(config)
    for section, keys in _NOT_IDENTITY.items():
        if not keys:
            del plain[section]
        for key in keys:
            del plain[section][key]
    return plain


def run_id(config: RunConfig) -> str:
    """Readable prefix + hash of the resolved config, e.g. 'tiny_linear_b16_lr2e-3_s1-3fa9c2d1'."""
    if config.data.fingerprint is None:
        raise ValueError("run_id needs a resolved config: call resolve() first")
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
    shape = config.curriculum.schedule.removeprefix("fixed_")
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in config.model.name)
    return f"{name}_{shape}_b{config.global_batch_size}_lr{short_float(config.optim.lr)}_s{config.seed}-{digest}"


def load_config(run: RunDir) -> RunConfig:
    """The run's configuration as written at submission. Raises ConfigError if it was edited since."""
    config = from_dict(read_yaml(run.config))
    if run_id(config) != run.run_id:
        raise ConfigError(
            f"{run.config}: describes {run_id(config)}, not the run of its folder; a run's configuration is never "
            "edited: launch the other experiment instead, and delete the folder to train this one anew"
        )
    return config


def short_float(value: float) -> str:
    """Usual notation of learning rates: 2e-3 for 0.002, 1.5e-4 for 0.00015."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def setting(config: RunConfig) -> str:
    """Hash of the settings that comparable runs share: all but curriculum, batch (warmup), learning rate and seed."""
    compared = ("curriculum", "batch_warmup", "global_batch_size", "seed")
    shared = {k: v for k, v in identity(config).items() if k not in compared}
    shared["optim"] = {k: v for k, v in shared["optim"].items() if k != "lr"}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]


def curriculum_names(curricula: Sequence[CurriculumConfig]) -> dict[CurriculumConfig, str]:
    """A name per distinct curriculum: its own, followed by the differing fields if several share it."""
    distinct = list(dict.fromkeys(curricula))
    names = {}
    for curriculum in distinct:
        namesakes = [to_dict(c) for c in distinct if c.name == curriculum.name]
        plain = to_dict(curriculum)
        differing = [k for k in plain if any(c[k] != plain[k] for c in namesakes)]
        details = ", ".join(f"{k}={_short(plain[k])}" for k in differing)
        names[curriculum] = f"{curriculum.name}({details})" if details else curriculum.name
    return names


def variants(configs: Sequence[RunConfig]) -> list[str]:
    """The settings of each run that differ within the grid, besides curriculum, batch, learning rate and seed."""
    flat = [flatten(identity(c)) for c in configs]
    expected = {"seed", "global_batch_size", "optim.lr"}
    differing = [k for k in flat[0] if any(f.get(k) != flat[0][k] for f in flat)] if flat else []
    keys = [k for k in differing if k not in expected and not k.startswith(("curriculum.", "batch_warmup."))]
    if "model.name" in keys:  # a preset's name stands for its sizes
        keys = ["model.name", *(k for k in keys if not k.startswith("model.") and k != "max_seqlen")]
    if "data.fingerprint" in keys:
        keys = [k for k in keys if not k.startswith("data.")] + ["data.fingerprint"]
    return [", ".join(f"{k}={_short(f.get(k))}" for k in keys) for f in flat]


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as a flat one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
