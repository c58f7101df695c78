"""GPT-2 (Radford et al., 2019): pre-LN blocks, learned positions, tied embedding, scaled initialisation.

Shapes: B sequences, T tokens, C hidden size, H heads, V vocabulary. Weights are (out, in), PyTorch's layout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cl_bench.config import ModelConfig
from cl_bench.data.batches import IGNORED


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        batch, length, width = x.shape
        # (B, T, 3C) -> 3 x (B, H, T, C/H)
        q, k, v = self.qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        x = self.out(x.transpose(1, 2).reshape(batch, length, width))
        return F.dropout(x, self.dropout, self.training)


class MLP(nn.Module):
    """Two layers with GPT-2's tanh approximation of GELU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.up = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.down = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.down(F.gelu(self.up(x), approximate="tanh"))
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP, each pair on a residual branch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.ln_2 = nn.LayerNorm(config.hidden_size)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attention(self.ln_1(x))
        mixed: Tensor = x + self.mlp(self.ln_2(x))
        return mixed


class GPT2(nn.Module):
    """The model. `config.vocab_size` must be set."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("model.vocab_size is null: resolve the config first")
        self.config = config
        self.recompute = False
        """Whether the backward pass recomputes each block's activations instead of keeping them."""
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.n_positions, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        self._initialise()

    def _initialise(self) -> None:
        std = self.config.init_std
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                # Each block adds two residual terms; this keeps the stream's variance at depth (GPT-2, section 2.3).
                nn.init.normal_(parameter, std=std / math.sqrt(2 * self.config.n_layers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def features(self, inputs: Tensor) -> Tensor:
        """Input of the head, (B, T, C), for token ids (B, T)."""
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        x = self.tokens(inputs) + self.positions(positions)  # (B, T, C)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            keeps = not (self.recompute and self.training)
            x = block(x) if keeps else checkpoint(block, x, use_reentrant=False)
        normed: Tensor = self.ln_f(x)
        return normed

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of token ids (B, T); with labels (B, T), the mean loss in nats per labelled token."""
        logits: Tensor = self.head(self.features(inputs))
        if labels is None:
            return logits
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """AdamW's two groups: matrices and embeddings decay, biases and LayerNorms do not (as in Megatron-LM)."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
