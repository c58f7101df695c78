"""What a rank needs in memory: an estimate from the configuration alone, for a plan made where there is no GPU.

Model states as ZeRO shards them (Rajbhandari et al., arXiv 1910.02054, section 3); activations of a block as
Korthikanti et al. count them (arXiv 2205.05198, section 4.1) without the attention matrices, which PyTorch's fused
attention never stores. Allocator overhead, communication buffers and the CUDA context come on top: allow a fifth more.
"""

from __future__ import annotations

import dataclasses

from cl_bench.config import RunConfig

_BLOCK_BYTES = 34
"""Bytes kept for the backward pass of one block, for each token and unit of width, at two bytes a number."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one rank's device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate(config: RunConfig) -> Memory:
    """What one rank of a resolved run needs at its largest step: full length, full batch."""
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
    """Bytes kept of a forward pass of `tokens` tokens, its logits and their gradient in fp32 included."""
    model = config.model
    block = tokens * model.hidden_size * _BLOCK_BYTES * number / 2
    logits = tokens * (model.vocab_size or 0) * (number + 4 + 4)
    if config.deepspeed.activation_checkpointing:
        return model.n_layers * tokens * model.hidden_size * number + block + logits
    return model.n_layers * block + logits
