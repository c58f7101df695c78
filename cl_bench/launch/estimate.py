"""Estimates for a plan, from configurations alone: FLOPs, hours and memory of a run."""

from __future__ import annotations

import dataclasses

from cl_bench import schedules
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import UserError, plural
from cl_bench.runs import status
from cl_bench.runs.paths import all_runs, read_yaml

# Sustained TFLOP/s per rank without a measurement: the tiny model on two CPU cores; GPT-2 in half precision on a
# data-centre GPU, untuned.
_ASSUMED = {"CPU": 0.07, "GPU": 40.0}
_RUNS_TO_MEASURE = 20
_BLOCK_BYTES = 34
"""Bytes kept for the backward pass per block, token and unit of width, at two bytes per number."""


def training_flops(config: RunConfig, extent: schedules.Extent) -> float:
    """FLOPs of a run: 6 N + 12 L C T per token (PaLM, arXiv 2204.02311, appendix B), T the step's length."""
    model = config.model
    total = 0.0
    for length, sequences in extent.sequences:
        per_token = 6 * model.n_parameters() + 12 * model.n_layers * model.hidden_size * length
        total += per_token * schedules.tokens_per_step(config, length, sequences)
    return total


class Rates:
    """Sustained TFLOP/s per rank: configured, else measured in the latest finished runs of `outputs`, else assumed."""

    def __init__(self, outputs: str) -> None:
        self._measured: dict[str, list[float]] = {"CPU": [], "GPU": []}
        self._used: dict[str, None] = {}  # an ordered set
        finished = sorted(all_runs(outputs), key=lambda r: r.config.stat().st_mtime, reverse=True)
        for run in finished[:_RUNS_TO_MEASURE]:
            latest = status.read(run)
            if latest.state == "DONE" and latest.train_seconds > 0:
                try:
                    config = from_dict(read_yaml(run.config))
                except (UserError, OSError):
                    continue  # a run of an incompatible version
                flops = training_flops(config, schedules.extent(config))
                self._measured[_kind(config)].append(flops / latest.train_seconds / 1e12 / config.resources.ranks)

    def hours(self, config: RunConfig, flops: float) -> float:
        """Hours of training on all of the run's ranks."""
        kind = _kind(config)
        rates = sorted(self._measured[kind])
        rank = f"{kind} rank" if kind == "CPU" else kind
        if config.resources.tflops:
            rate, basis = config.resources.tflops, f"at {config.resources.tflops:g} TFLOP/s per {rank}"
        elif rates:
            rate = rates[len(rates) // 2]
            basis = f"as measured in {plural(len(rates), 'finished run')}"
        else:
            rate, basis = _ASSUMED[kind], f"assuming {_ASSUMED[kind]:g} TFLOP/s per {rank}; set resources.tflops"
        self._used[basis] = None
        return flops / (rate * 1e12 * config.resources.ranks) / 3600

    @property
    def basis(self) -> str:
        """Basis of the hours estimated so far."""
        return "; ".join(self._used)


def _kind(config: RunConfig) -> str:
    return "GPU" if config.resources.gpus_per_node and config.resources.accelerator != "cpu" else "CPU"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one rank's device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Sum, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory(config: RunConfig) -> Memory:
    """Memory per rank of a resolved run at its largest step: full length, full batch.

    Model states as ZeRO shards them (Rajbhandari et al., arXiv 1910.02054, section 3); activations of a block as
    Korthikanti et al. count them (arXiv 2205.05198, section 4.1), without the attention matrices, which PyTorch's fused
    attention does not store. Allocator overhead, communication buffers and the CUDA context add about 20%.
    """
    ds, model = config.deepspeed, config.model
    ranks = config.resources.ranks
    n = float(model.n_parameters())
    number = 4 if ds.precision == "fp32" else 2
    # Half precision keeps a master copy in fp32 beside Adam's two moments.
    per_parameter = 8 if ds.precision == "fp32" else 12
    weights = n * number / (ranks if ds.zero_stage == 3 else 1)
    gradients = n * number / (ranks if ds.zero_stage >= 2 else 1)
    optimizer = n * per_parameter / (ranks if ds.zero_stage >= 1 else 1)
    block = weights * ranks / model.n_layers if ds.zero_stage == 3 else 0.0  # gathered while it computes
    return Memory(
        weights=block if ds.offload_parameters else weights + block,
        gradients=0.0 if ds.offload_optimizer and ds.zero_stage >= 2 else gradients,
        optimizer=0.0 if ds.offload_optimizer else optimizer,
        activations=_activations(config, config.micro_batch(ranks) * config.seqlen, number),
    )


def _activations(config: RunConfig, tokens: int, number: int) -> float:
    """Bytes kept from a forward pass over `tokens` tokens, including the logits and their gradient in fp32."""
    model = config.model
    block = tokens * model.hidden_size * _BLOCK_BYTES * number / 2
    logits = tokens * (model.vocab_size or 0) * (number + 4 + 4)
    if config.deepspeed.activation_checkpointing:
        return model.n_layers * tokens * model.hidden_size * number + block + logits
    return model.n_layers * block + logits
