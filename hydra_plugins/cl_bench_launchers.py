"""Launcher and sweeper, where Hydra looks for plugins; their code is in cl_bench.cli.hydra_glue."""

from cl_bench.cli import hydra_glue


class GridLauncher(hydra_glue.GridLauncher):
    """`hydra/launcher=NAME`: the preset conf/hydra/launcher/NAME.yaml names the backend."""


class GridSweeper(hydra_glue.GridSweeper):
    """`hydra/sweeper=grid`."""
