"""The entry: `python -m cl_bench.sweep -m sweeps=NAME` trains a grid, without -m one run; `cl-bench tune` tunes one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl_bench import config
from cl_bench.cli import hydra_glue
from cl_bench.config import schema as validation
from cl_bench.config import tune as tune_config
from cl_bench.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, did_you_mean
from cl_bench.launch import display
from cl_bench.launch.prepare import RunsFailed
from cl_bench.runs.paths import config_root

EXIT_FAILED = 1
_TUNE_USAGE = """cl-bench tune [KEY=VALUE …]

Finds the start length and T of a curriculum for one run, given as for `cl-bench sweep` without -m, by short probes:
the shortest start that is steady at the beginning, then the longest T at which the validation perplexity does not
fluctuate. The same command goes on after an interruption; dry_run=true shows what it would cost.

keys, besides a run's own (explained in cl_bench/tune_config.py):"""
_GROUPS = ("model", "data", "curriculum", "optim", "batch_warmup", "deepspeed", "tracking", "sweeps")


def _sweep_files() -> dict[str, Path]:
    """Sweeps by name: those that come with cl_bench, and those in a sweeps/ folder where one stands."""
    folders = (config_root() / "sweeps", Path.cwd() / "sweeps")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _register(argv: Sequence[str] = (), *, tuning: bool = False) -> None:
    """Tell Hydra every key with its default, and the sweeps; tune.* only where it means something.

    The folders themselves must not be on Hydra's search path: it would take any folder beside sweeps/, such as
    outputs/, for a group of that name. Raises ConfigError when the sweep that `argv` asks for cannot be read.
    """
    store = ConfigStore.instance()
    schema = validation.schema(config.RunConfig) | validation.schema(config.LaunchConfig)
    store.store(name="schema", node=schema | tune_config.schema() if tuning else schema)
    for name, path in _sweep_files().items():
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


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Exit code: 0; 1 when runs failed; 2 for the user's mistakes; 130 interrupted."""
    return _run(sys.argv[1:] if argv is None else argv, hydra_glue.train_composed)


def tune(argv: list[str]) -> int:
    """`cl-bench tune`. Exit codes as those of main; 1 also when no curriculum was found."""
    if {"-h", "--help"} & set(argv):
        defaults = tune_config.schema()["tune"]
        print(_TUNE_USAGE, *(f"  tune.{key}={'null' if v is None else v}" for key, v in defaults.items()), sep="\n")
        return 0
    if {"-m", "--multirun"} & set(argv):
        return _refuse("-m makes a grid, and tune looks at one run; leave it out and give every key one value")
    return _run(argv, hydra_glue.tune_composed, tuning=True)


def _run(argv: list[str], act: Callable[[DictConfig, str], bool], *, tuning: bool = False) -> int:
    """Compose what the command line asks for; a grid is launched by Hydra, a single run handed to `act`."""
    # Hydra then raises instead of printing and leaving with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *argv]
    single: list[tuple[DictConfig, str]] = []

    @hydra.main(version_base="1.3", config_path=str(config_root() / "conf"), config_name="config")
    def remember(composed: DictConfig) -> None:
        # Hydra would print a line of its own about an exception in here.
        single.append((composed, hydra_glue.backend_name(HydraConfig.get().launcher)))

    try:
        _register(argv, tuning=tuning)
        remember()
        if single:
            return 0 if act(*single[0]) else EXIT_FAILED
    except UserError as error:
        return _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_explain(error, tuning=tuning))
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror or error}")
    except RunsFailed as error:
        display.console.print(str(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        display.console.print("interrupted; the same command goes on from the last save")
        return EXIT_INTERRUPTED
    return 0


def _refuse(message: str) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return EXIT_USER_ERROR


def _explain(error: BaseException, *, tuning: bool = False) -> str:
    """Hydra's message as one line with the nearest valid name."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; {did_you_mean(choice, error.options)}"
    text = str(error) or str(error.__cause__ or "")
    found = re.match(r"Could not override '([^']+)'", text)
    if found:
        name = found[1]
        return f"{name}: unknown key; {did_you_mean(name, _all_names(tuning))}"
    if text.startswith("Ambiguous value for argument"):
        remedy = "tune looks at one run: give one" if tuning else "add -m"
        name = text.splitlines()[0].removeprefix("Ambiguous value for argument ")
        return f"{name}: several values make a grid; {remedy}"
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]}: has no value; give it one"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    return " ".join(text.split("\n")[0:2]).strip()


def _all_names(tuning: bool) -> list[str]:
    names = [*validation.field_names(config.RunConfig), *validation.field_names(config.LaunchConfig), *_GROUPS]
    return [*names, *tune_config.field_names()] if tuning else names


if __name__ == "__main__":
    sys.exit(main())
