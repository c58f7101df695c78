"""Durations and lengths of curricula: conversion to steps, display, checks."""

from __future__ import annotations

from cl_bench.config import CurriculumConfig, RunConfig
from cl_bench.config.schema import ConfigError


def in_steps(config: RunConfig, amount: float, mean_length: float) -> int:
    """`amount` of curriculum.duration_unit in whole steps of `mean_length` tokens per sequence."""
    unit = config.curriculum.duration_unit
    if unit == "steps":
        return int(amount)
    if unit == "baseline_fraction":
        return int(amount * config.baseline_steps)
    length = config.seqlen if config.curriculum.mode == "reshape" else mean_length
    return int(amount / (config.global_batch_size * length))


def label(curriculum: CurriculumConfig, amount: float) -> str:
    """An `amount` of curriculum.duration_unit for tables: '40%' (of the baseline's steps), '15,000 steps'."""
    if curriculum.duration_unit == "baseline_fraction":
        return f"{amount:.0%}"
    if curriculum.duration_unit == "tokens" and amount >= 1e9:
        return f"{amount / 1e9:,.4g}B tokens"
    return f"{amount:,.0f} {curriculum.duration_unit}"


def check_start(config: RunConfig) -> None:
    """Raise ConfigError if the curriculum starts above its end."""
    start, end = config.curriculum.min_difficulty, config.max_difficulty
    check_length(config, "min_difficulty", start)
    if start > end:
        raise ConfigError(
            f"curriculum.min_difficulty = {start} is above curriculum.max_difficulty = {end}; a curriculum grows from "
            "the smaller to the larger"
        )


def check_length(config: RunConfig, name: str, length: int) -> None:
    """Raise ConfigError if curriculum.`name` = `length` is longer than the full length."""
    if length > config.seqlen:
        raise ConfigError(
            f"curriculum.{name} = {length} is longer than max_seqlen = {config.seqlen}; a curriculum ends at the full "
            "length at the latest"
        )


def first_multiple(minimum: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `minimum`."""
    return -(-minimum // step) * step
