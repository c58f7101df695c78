"""Configuration of a run's resources: machines, GPUs, time, queue."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from pydantic.dataclasses import dataclass

from cl_bench.config.schema import STRICT, NonNegative, Positive, PositiveFloat

MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
"""A size in sbatch's notation: a number and an optional unit, megabytes by default."""

# Options of sbatch with an owner of their own, and the remedy.
_SBATCH_HAS_A_FIELD = {
    name: f"give resources.{field} instead"
    for field, names in {
        "nodes": ("nodes",),
        "gpus_per_node": ("gpus_per_node", "gpus", "gpus_per_task"),
        "tasks_per_node": ("ntasks", "ntasks_per_node"),
        "cpus_per_task": ("cpus_per_task",),
        "mem": ("mem",),
        "time_min": ("time",),
        "partition": ("partition",),
        "account": ("account",),
        "qos": ("qos",),
        "constraint": ("constraint",),
        "notice_s": ("signal",),
    }.items()
    for name in names
} | dict.fromkeys(
    ("array", "output", "error", "open_mode", "requeue", "no_requeue", "job_name", "chdir", "export"),
    "set by the launcher; it cannot be changed",
)


@dataclass(frozen=True, config=STRICT)
class ResourcesConfig:
    """Resources of one run; not part of its identity."""

    nodes: Positive = 1
    """Machines that train the run together; more than one needs hydra/launcher=slurm."""
    gpus_per_node: NonNegative = 0
    """GPUs per node, one rank each; 0: none requested (a local run uses those it finds)."""
    gpu_type: str | None = None
    """Slurm: model of GPU, as `sinfo -o %G` names it; null: any."""
    tasks_per_node: Positive | None = None
    """Ranks per node, one process each; null: one per GPU, or one."""
    threads: Positive | None = None
    """CPU threads of a rank; null: cpus_per_task on Slurm, else the cores divided by the ranks running at once."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA if PyTorch sees a GPU (on Slurm, if gpus_per_node requests one), else CPU."""
    tflops: PositiveFloat | None = None
    """Sustained TFLOP/s of a rank, for the plan's hours; null: as measured by finished runs, else assumed."""
    cpus_per_task: Positive | None = None
    """Slurm: CPU cores of a rank; null: the partition's default."""
    mem: str | None = None
    """Slurm: memory per node, in the notation of sbatch --mem ('64G'); null: the partition's default."""
    time_min: Positive | None = None
    """Slurm: time limit of one attempt, in minutes; a run may take several. null: the partition's limit."""
    partition: str | None = None
    """Slurm: partition; null: the cluster's default."""
    account: str | None = None
    """Slurm: account to charge."""
    qos: str | None = None
    """Slurm: quality of service."""
    constraint: str | None = None
    """Slurm: features that nodes must have."""
    setup: tuple[str, ...] = ()
    """Slurm: shell lines run before training ('module load cuda')."""
    sbatch: dict[str, str | int | float | bool | None] = dataclasses.field(default_factory=dict, hash=False)
    """Slurm: any other option of sbatch by its long name ('exclusive: true', 'nodelist: n[1-4]'); null drops one."""
    notice_s: Positive = 90
    """Slurm: seconds before the time limit at which the run is signalled to save and requeued."""
    max_restarts: NonNegative = 50
    """Slurm: restarts per submission, whatever the cause, after which the run counts as failed."""

    def __post_init__(self) -> None:
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise ValueError(
                f"resources.tasks_per_node = {self.tasks_per_node} and resources.gpus_per_node = {self.gpus_per_node}: "
                "a rank has one GPU; leave tasks_per_node at null"
            )
        if self.mem is not None and not MEMORY.fullmatch(self.mem):
            raise ValueError(f"resources.mem = {self.mem!r}: not a size in sbatch's notation; write '64G' or '4000M'")
        for name, value in self.sbatch.items():
            if name == "gres" and "gpu" in str(value):
                raise ValueError(f"resources.sbatch.gres = {value}: give resources.gpus_per_node and gpu_type instead")
            owner = _SBATCH_HAS_A_FIELD.get(name.lstrip("-").replace("-", "_"))
            if owner:
                raise ValueError(f"resources.sbatch.{name}: {owner}")

    @property
    def ranks_per_node(self) -> int:
        """Ranks per node."""
        return self.tasks_per_node or self.gpus_per_node or 1

    @property
    def ranks(self) -> int:
        """Ranks of the run, over all nodes."""
        return self.nodes * self.ranks_per_node
