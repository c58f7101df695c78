"""Readers of curves: each turns one kind of source into the tidy schema (analysis.schema)."""

from analysis.readers.outputs import load_runs
from analysis.readers.table import load_table
from analysis.readers.tensorboard import load_tensorboard
from analysis.readers.wandb_offline import load_wandb_dir
from analysis.readers.wandb_online import load_wandb

__all__ = ["load_runs", "load_table", "load_tensorboard", "load_wandb", "load_wandb_dir"]
