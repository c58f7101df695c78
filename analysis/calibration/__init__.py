"""Calibration of the statistics on synthetic sweeps."""
