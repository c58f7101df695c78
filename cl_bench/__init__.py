"""cl_bench: grids of baseline and curriculum training runs, from two CPU cores to a Slurm cluster."""

__version__ = "0.1.0"
