"""Schedules of a run (sequence length, batch size, learning rate), and the resulting shape and number of steps.

Usable as a library: importing this package loads neither torch nor Hydra.
"""

from cl_bench.schedules import builtin
from cl_bench.schedules.batch_size import BatchSize
from cl_bench.schedules.learning_rate import LRSchedule, decay_steps
from cl_bench.schedules.length import LengthSchedule, build, describe, names, register, resolve
from cl_bench.schedules.shape import StepShape, StepShapes, buckets, max_shapes
from cl_bench.schedules.walk import (
    Extent,
    Stretch,
    check,
    check_fingerprint,
    extent,
    fingerprint,
    tokens_after,
    tokens_per_step,
    walk,
)

__all__ = [
    "BatchSize",
    "Extent",
    "LRSchedule",
    "LengthSchedule",
    "StepShape",
    "StepShapes",
    "Stretch",
    "buckets",
    "build",
    "builtin",
    "check",
    "check_fingerprint",
    "decay_steps",
    "describe",
    "extent",
    "fingerprint",
    "max_shapes",
    "names",
    "register",
    "resolve",
    "tokens_after",
    "tokens_per_step",
    "walk",
]
