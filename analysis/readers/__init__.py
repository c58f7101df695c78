"""Curves from wherever they live -> one tidy schema (analysis.schema)."""

from analysis.readers.outputs import load_runs

__all__ = ["load_runs"]
