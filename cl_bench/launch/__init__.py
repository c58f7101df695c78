"""Launching of grids: plan, estimates, and the backends that train the runs."""
