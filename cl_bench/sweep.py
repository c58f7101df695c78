"""The entry: `python -m cl_bench.sweep -m sweeps=NAME` trains a grid, without -m one run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl_bench import config, display, launchers, local, validation
from cl_bench.errors import EXIT_USER_ERROR, UserError, did_you_mean
from cl_bench.paths import config_root

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
_GROUPS = ("model", "data", "curriculum", "optim", "deepspeed", "tracking", "sweeps")


def _own_root() -> str:
    """Where the user's own sweeps/ folder is looked for: the working directory, if it has one."""
    return str(Path.cwd() if (Path.cwd() / "sweeps").is_dir() else config_root())


def _register() -> None:
    """Tell Hydra every key with its default, and where sweeps are."""
    OmegaConf.register_new_resolver("config_root", lambda _="": str(config_root()), replace=True)
    OmegaConf.register_new_resolver("own_root", lambda _="": _own_root(), replace=True)
    schema = validation.schema(config.RunConfig) | validation.schema(config.LaunchConfig)
    ConfigStore.instance().store(name="schema", node=schema)


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Exit code: 0; 1 when runs failed; 2 for the user's mistakes; 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    _register()
    # Hydra then raises instead of printing and leaving with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *argv]

    @hydra.main(version_base="1.3", config_path=str(config_root() / "conf"), config_name="config")
    def train_one(composed: DictConfig) -> None:
        launchers.train_composed(composed)

    try:
        train_one()
    except UserError as error:
        return _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_explain(error))
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror or error}")
    except local.RunsFailed as error:
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


def _explain(error: BaseException) -> str:
    """Hydra's message as one line with the nearest valid name."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; {did_you_mean(choice, error.options)}"
    text = str(error) or str(error.__cause__ or "")
    found = re.match(r"Could not override '([^']+)'", text)
    if found:
        name = found[1]
        return f"{name}: unknown key; {did_you_mean(name, _all_names())}"
    if text.startswith("Ambiguous value for argument"):
        return (
            f"{text.splitlines()[0].removeprefix('Ambiguous value for argument ')}: several values make a grid; add -m"
        )
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]}: has no value; give it one"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    return " ".join(text.split("\n")[0:2]).strip()


def _all_names() -> list[str]:
    return [*validation.field_names(config.RunConfig), *validation.field_names(config.LaunchConfig), *_GROUPS]


if __name__ == "__main__":
    sys.exit(main())
