"""Composition by Hydra of the runs that `cl-bench sweep` trains and `cl-bench tune` tunes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl_bench import config
from cl_bench.cli import hydra_glue, presets
from cl_bench.config import schema as validation
from cl_bench.config import tune as tune_config
from cl_bench.errors import EXIT_RUNS_FAILED, UserError, did_you_mean
from cl_bench.runs.paths import config_root


def train(arguments: Sequence[str]) -> int:
    """Train the grid (with -m) or the run that Hydra composes from `arguments`; returns the exit code.

    Raises UserError for arguments that cannot be composed, RunsFailed when all other runs have been trained.
    """
    return _run(arguments, hydra_glue.train_composed)


def tune(arguments: Sequence[str]) -> int:
    """Tune the run that Hydra composes from `arguments`; returns 1 if no curriculum was found. Raises as `train`."""
    return _run(arguments, hydra_glue.tune_composed, tuning=True)


def _register(argv: Sequence[str] = (), *, tuning: bool = False) -> None:
    """Register all keys with their defaults, and the sweeps, with Hydra; tune.* for `cl-bench tune` only.

    Folders of sweeps cannot be on Hydra's search path, where their neighbours, such as outputs/, would become groups.
    Raises ConfigError if the sweep named in `argv` cannot be read.
    """
    store = ConfigStore.instance()
    schema = validation.schema(config.RunConfig) | validation.schema(config.LaunchConfig)
    node = OmegaConf.create(schema | tune_config.schema() if tuning else schema)
    for key in validation.free_form_keys(config.RunConfig):
        OmegaConf.set_struct(OmegaConf.select(node, key), False)  # takes any key, also without Hydra's +
    store.store(name="schema", node=node)
    for name, path in presets.sweep_files().items():
        node, problem = OmegaConf.create(), ""
        try:
            loaded = OmegaConf.load(path)
            if isinstance(loaded, DictConfig):
                node = loaded
            else:
                problem = "must be a group of keys"
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            problem = f"not YAML: {' '.join(str(error).split())}"
        if problem and f"sweeps={name}" in argv:
            raise validation.ConfigError(f"{path}: {problem}")
        store.store(group="sweeps", name=name, node=node, package="_global_")


def _run(arguments: Sequence[str], act: Callable[[DictConfig, str], bool], *, tuning: bool = False) -> int:
    """Compose the configuration; Hydra launches a grid itself, and `act` gets a single run."""
    _check_flags(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1
    sys.argv = [sys.argv[0], *arguments]
    single: list[tuple[DictConfig, str]] = []

    @hydra.main(version_base="1.3", config_path=str(config_root() / "conf"), config_name="config")
    def remember(composed: DictConfig) -> None:
        # Acting outside Hydra, which would print a line of its own about an exception.
        single.append((composed, hydra_glue.backend_name(HydraConfig.get().launcher)))

    try:
        _register(arguments, tuning=tuning)
        remember()
        return 0 if not single or act(*single[0]) else EXIT_RUNS_FAILED
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, tuning=tuning)) from None
    except KeyboardInterrupt as interruption:
        message = str(interruption) or "interrupted; the same command resumes from the last save"
        raise KeyboardInterrupt(message) from None


def _check_flags(arguments: Sequence[str]) -> None:
    """Raise UserError for arguments that Hydra's parser would answer with its usage."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        _, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; `cl-bench sweep --hydra-help` lists Hydra's options") from None
    if rest and rest[0].startswith("-"):
        raise UserError(f"{rest[0]}: no such option; see `cl-bench sweep --help`")
    if rest:
        raise UserError(f"{rest[0]}: apart from the other overrides; write all of them before the options")


def _explain(error: BaseException, *, tuning: bool) -> str:
    """Hydra's message as one line with the remedy."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; {did_you_mean(choice, error.options)}"
    text = str(error) or str(error.__cause__ or "")
    if override := re.match(r"Could not override '([^']+)'", text):
        name = override[1]
        return f"{name}: unknown key; {did_you_mean(name, presets.all_keys(tuning=tuning))}"
    if text.startswith("Ambiguous value for argument"):
        remedy = "tune takes one run: give one value" if tuning else "add -m"
        name = text.splitlines()[0].removeprefix("Ambiguous value for argument ")
        return f"{name}: several values make a grid; {remedy}"
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]}: has no value; give it one"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    return " ".join(text.split("\n")[0:2]).strip()
