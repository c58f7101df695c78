"""Comparison of a sweep with the published experiment."""
