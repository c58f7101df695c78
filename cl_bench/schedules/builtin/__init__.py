"""The built-in sequence-length schedules; each module of this package registers its own."""

import importlib
import pkgutil


def load() -> None:
    """Import every module of the package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


load()
