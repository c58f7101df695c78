"""Configuration of one training run, as validated dataclasses.

Defaults live here and nowhere else; the YAML files under conf/ hold differences only. Every value is checked when an
object is built; a message names the field, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import annotated_types as at
from pydantic.dataclasses import dataclass

from cl_bench.config import schema
from cl_bench.config.curriculum import BatchWarmupConfig, CurriculumConfig
from cl_bench.config.data import DataConfig
from cl_bench.config.resources import ResourcesConfig
from cl_bench.config.schema import STRICT, Fraction, NonNegative, NonNegativeFloat, Positive, PositiveFloat

Role = Literal["baseline", "curriculum"]


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """A GPT-2 architecture (pre-LN, learned positions, tied embedding)."""

    name: str
    """Label in run names and tables."""
    n_layers: Positive
    """Transformer blocks."""
    hidden_size: Positive
    """Width of the residual stream."""
    n_heads: Positive
    """Attention heads; must divide hidden_size."""
    n_positions: Positive
    """Longest sequence the model can embed, in tokens."""
    vocab_size: Positive | None = None
    """Rows of the embedding; null: the data's vocabulary."""
    dropout: Fraction = 0.0
    """Probability of dropping an activation (embedding, attention, residual)."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of the initial weights; residual projections are divided by sqrt(2 n_layers)."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.n_heads:
            raise ValueError(
                f"model.n_heads = {self.n_heads} does not divide model.hidden_size = {self.hidden_size}; "
                "choose a divisor, so that every head has the same width"
            )

    def n_parameters(self, vocab_size: int | None = None) -> int:
        """Trainable parameters, embeddings included and the tied output layer counted once."""
        vocab = vocab_size or self.vocab_size
        if vocab is None:
            raise ValueError("model.vocab_size is null: pass the data's vocabulary")
        h = self.hidden_size
        block = 12 * h * h + 13 * h  # qkv 3h²+3h, attention out h²+h, MLP 8h²+5h, two LayerNorms 4h
        return vocab * h + self.n_positions * h + self.n_layers * block + 2 * h


@dataclass(frozen=True, config=STRICT)
class OptimConfig:
    """AdamW with a linear warmup and a cosine decay, by default over tokens (schedules/learning_rate.py)."""

    lr: PositiveFloat
    """Peak learning rate."""
    min_lr: NonNegativeFloat = 1e-5
    """Learning rate once decay_tokens are consumed."""
    warmup_steps: NonNegative | None = None
    """Linear warmup, in steps; exclusive with warmup_tokens."""
    warmup_tokens: NonNegative | None = None
    """Linear warmup, in tokens; exclusive with warmup_steps."""
    decay_tokens: Positive | None = None
    """Tokens at which the decay ends; null: the token budget."""
    decay: Literal["tokens", "steps"] = "tokens"
    """Unit of the decay. Steps confound a comparison of curricula; they are there to show how much."""
    decay_steps: Positive | None = None
    """With decay=steps, the step at which it ends; null: the baseline's last."""
    beta1: Fraction = 0.9
    """Decay of Adam's first moment."""
    beta2: Fraction = 0.95
    """Decay of Adam's second moment."""
    eps: PositiveFloat = 1e-8
    """Adam's denominator offset."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of matrices and embeddings; biases and LayerNorms have none."""
    grad_clip: NonNegativeFloat = 1.0
    """Largest global gradient L2 norm; 0: no clipping."""

    def __post_init__(self) -> None:
        if self.min_lr > self.lr:
            raise ValueError(f"optim.min_lr = {self.min_lr:g} is above optim.lr = {self.lr:g}; lower it")
        if self.warmup_steps is not None and self.warmup_tokens is not None:
            raise ValueError(
                f"optim.warmup_steps = {self.warmup_steps} and optim.warmup_tokens = {self.warmup_tokens} are both "
                "set; set one to null"
            )
        if self.decay == "tokens" and self.decay_steps is not None:
            raise ValueError(f"optim.decay_steps = {self.decay_steps} is ignored by optim.decay = tokens; use steps")


@dataclass(frozen=True, config=STRICT)
class DeepSpeedConfig:
    """How DeepSpeed shards and computes."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """What is partitioned over ranks: nothing, optimizer state, + gradients, + parameters."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward and backward pass; fp16 uses a dynamic loss scale."""
    offload_optimizer: bool = False
    """Keep the optimizer's state and step in CPU memory (ZeRO 1 and up)."""
    offload_parameters: bool = False
    """Keep parameters in CPU memory while they are not used (ZeRO 3)."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    compile: bool = False
    """Compile the model with torch.compile; a compiler is needed on CPU. Set length_buckets with a curriculum."""
    length_buckets: Positive | None = None
    """Largest number of distinct lengths on the device; others are padded to the next, padding not counted. With
    curriculum.mode=reshape each length still has its own number of sequences. null: every length as it is."""

    def __post_init__(self) -> None:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("deepspeed.offload_optimizer = true needs deepspeed.zero_stage = 1, 2 or 3")
        if self.offload_parameters and self.zero_stage < 3:
            raise ValueError(
                f"deepspeed.offload_parameters = true needs deepspeed.zero_stage = 3, not {self.zero_stage}"
            )


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Validation on a grid of tokens, always at full length and on the same blocks."""

    interval_tokens: Positive | None = None
    """Consumed tokens between evaluations; null: a fortieth of the token budget."""
    n_blocks: Positive = 64
    """Validation blocks of max_seqlen tokens, spread evenly over the held-out text."""


@dataclass(frozen=True, config=STRICT)
class DivergenceConfig:
    """Divergence, which ends a run: a non-finite loss, or a loss ratio that stays above a threshold.

    A report judges outcomes again from the records, by shares of the token budget (analysis.stats.outcome), so that
    short runs are judged like long ones; what ends a run is part of its identity and stays as it is.
    """

    loss_ratio: Annotated[float, at.Gt(1)] = 2.0
    """Training loss over the smallest training loss so far."""
    steps: Positive = 100
    """Consecutive steps above loss_ratio that end the run."""


@dataclass(frozen=True, config=STRICT)
class TelemetryConfig:
    """Measurements besides loss, learning rate and gradient norm."""

    adam_variance_interval: NonNegative = 10
    """Steps between measurements of Adam's second moment; 0: never."""


@dataclass(frozen=True, config=STRICT)
class CheckpointConfig:
    """Checkpoints, from which an interrupted run resumes."""

    interval_steps: NonNegative = 1000
    """Steps between saves; 0: only when the run is interrupted or ends."""
    keep: Positive = 2
    """Newest checkpoints kept on disk."""


@dataclass(frozen=True, config=STRICT)
class TrackingConfig:
    """The mirror of the records in Weights & Biases; never the record itself."""

    mode: Literal["wandb_offline", "wandb_online", "none"] = "wandb_offline"
    """wandb_offline writes into the run's folder, for a later `wandb sync`."""
    project: str = "cl_bench"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null: that of the API key."""


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """One run: an experiment, which determines the run_id, and the way it is carried out."""

    model: ModelConfig
    data: DataConfig
    curriculum: CurriculumConfig
    optim: OptimConfig
    deepspeed: DeepSpeedConfig
    token_budget: Positive
    """The run ends when this many tokens are consumed."""
    global_batch_size: Positive
    """Sequences per step, over all ranks; with batch_warmup, after the warmup."""
    cell: str = ""
    """Name of the run's cell in a sweep of named cells; a label only."""
    seed: NonNegative = 1
    """Seed of the initial weights, the order of the data, and dropout."""
    micro_batch_size: Positive | None = None
    """Sequences per rank in one forward pass at every length; null: as many as micro_batch_tokens allows."""
    micro_batch_tokens: Positive = 16384
    """Upper bound of an automatic micro-batch, in tokens at the step's length, padding included, but at
    least one sequence: shorter sequences come in larger micro-batches and keep the device as busy."""
    max_seqlen: Positive | None = None
    """Tokens per sequence; null: the model's n_positions."""
    batch_warmup: BatchWarmupConfig = dataclasses.field(default_factory=BatchWarmupConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    divergence: DivergenceConfig = dataclasses.field(default_factory=DivergenceConfig)
    telemetry: TelemetryConfig = dataclasses.field(default_factory=TelemetryConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    resources: ResourcesConfig = dataclasses.field(default_factory=ResourcesConfig)

    def __post_init__(self) -> None:
        seqlen = self.seqlen
        if seqlen > self.model.n_positions:
            raise ValueError(
                f"max_seqlen = {seqlen} is longer than the model's positions (model.n_positions = "
                f"{self.model.n_positions}); shorten it or raise model.n_positions"
            )
        if self.max_difficulty > seqlen:
            raise ValueError(
                f"curriculum.max_difficulty = {self.max_difficulty} is longer than max_seqlen = {seqlen}; shorten it"
            )
        ranks = self.resources.ranks
        if self.global_batch_size % ranks:
            raise ValueError(
                f"global_batch_size = {self.global_batch_size} does not divide over {ranks} ranks "
                "(resources.nodes x gpus_per_node or tasks_per_node); choose a multiple, or other resources"
            )
        if self.micro_batch_size is not None and (self.global_batch_size // ranks) % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size = {self.global_batch_size} is not a multiple of micro_batch_size x ranks = "
                f"{self.micro_batch_size} x {ranks}; change one of them"
            )

        self._check_batch_warmup()

    def _check_batch_warmup(self) -> None:
        warmup, full = self.batch_warmup, self.global_batch_size
        if warmup.start is None:
            return
        if warmup.start >= full:
            raise ValueError(f"batch_warmup.start = {warmup.start} is not below global_batch_size = {full}; lower it")
        if (full - warmup.start) % warmup.increment:
            raise ValueError(
                f"batch_warmup.increment = {warmup.increment} never leads from batch_warmup.start = {warmup.start} to "
                f"global_batch_size = {full}; choose a divisor of {full - warmup.start}"
            )
        for name, value in (("start", warmup.start), ("increment", warmup.increment)):
            per_rank = self.resources.ranks * (self.micro_batch_size or 1)
            if value % per_rank:
                raise ValueError(
                    f"batch_warmup.{name} = {value} does not divide over {self.resources.ranks} ranks"
                    + (f" in micro-batches of {self.micro_batch_size}" if self.micro_batch_size else "")
                    + "; choose a multiple, or other resources"
                )

    @property
    def is_baseline(self) -> bool:
        """Whether this is a baseline: full length and full batch from the first step."""
        return self.curriculum.is_baseline and self.batch_warmup.start is None

    @property
    def role(self) -> Role:
        """Role in comparisons."""
        return "baseline" if self.is_baseline else "curriculum"

    @property
    def method(self) -> str:
        """Label of what is compared: the curriculum's name, batch_warmup, or both."""
        if self.batch_warmup.start is None:
            return self.curriculum.name
        return "batch_warmup" if self.curriculum.is_baseline else f"{self.curriculum.name}+batch_warmup"

    @property
    def seqlen(self) -> int:
        """Full sequence length in tokens."""
        return self.max_seqlen or self.model.n_positions

    @property
    def max_difficulty(self) -> int:
        """Length at the end of the curriculum, in tokens."""
        return self.curriculum.max_difficulty or self.seqlen

    @property
    def baseline_steps(self) -> int:
        """Steps that a full-length run of the same batch takes to consume the token budget."""
        return math.ceil(self.token_budget / (self.global_batch_size * self.seqlen))

    @property
    def eval_interval_tokens(self) -> int:
        """Tokens between evaluations."""
        return self.evaluation.interval_tokens or max(1, self.token_budget // 40)

    def micro_batch(self, world_size: int, batch: int | None = None, seqlen: int | None = None) -> int:
        """Sequences per rank in one forward pass of a step of `batch` sequences that take `seqlen` tokens each.

        The largest divisor of the rank's share that holds at most micro_batch_tokens; both default to the full size.
        """
        per_rank = (batch or self.global_batch_size) // world_size
        if self.micro_batch_size is not None:
            return self.micro_batch_size
        fits = max(1, self.micro_batch_tokens // (seqlen or self.seqlen))
        return max(m for m in range(1, min(per_rank, fits) + 1) if per_rank % m == 0)


def from_dict(data: Mapping[str, Any]) -> RunConfig:
    """Build a RunConfig from nested plain values. Raises ConfigError, one line per mistake."""
    return schema.build(RunConfig, data)
