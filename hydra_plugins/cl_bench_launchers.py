"""Hydra loads launchers and sweepers from this namespace package only; the code is in cl_bench.launchers."""

from cl_bench import launchers


class LocalLauncher(launchers.LocalLauncher):
    """`hydra/launcher=local`."""


class SlurmLauncher(launchers.SlurmLauncher):
    """`hydra/launcher=slurm`."""


class GridSweeper(launchers.GridSweeper):
    """`hydra/sweeper=grid`."""
