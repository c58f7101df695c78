"""Hydra loads launchers and sweepers from this namespace package only; the code is in cl_bench.cli.hydra_glue."""

from cl_bench.cli import hydra_glue


class LocalLauncher(hydra_glue.LocalLauncher):
    """`hydra/launcher=local`."""


class SlurmLauncher(hydra_glue.SlurmLauncher):
    """`hydra/launcher=slurm`."""


class GridSweeper(hydra_glue.GridSweeper):
    """`hydra/sweeper=grid`."""
