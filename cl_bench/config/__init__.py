"""Configuration of runs and launches: dataclasses validated at construction, defaults and units in their fields."""

from cl_bench.config.curriculum import BatchWarmupConfig, CurriculumConfig
from cl_bench.config.data import DataConfig
from cl_bench.config.launch import LaunchConfig, SweepConfig, launch_from_dict
from cl_bench.config.resources import ResourcesConfig
from cl_bench.config.run import (
    DivergenceConfig,
    ModelConfig,
    Role,
    RunConfig,
    from_dict,
)

__all__ = [
    "BatchWarmupConfig",
    "CurriculumConfig",
    "DataConfig",
    "DivergenceConfig",
    "LaunchConfig",
    "ModelConfig",
    "ResourcesConfig",
    "Role",
    "RunConfig",
    "SweepConfig",
    "from_dict",
    "launch_from_dict",
]
