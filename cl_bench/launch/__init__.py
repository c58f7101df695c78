"""Launching of grids: plan, estimates and the backends that carry runs out."""
