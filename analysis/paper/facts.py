"""The verified facts of arXiv 2108.06084 (v1 to v4) and of its public scripts.

They include no perplexity and no accuracy of a cell. Settings have the names of this project's configuration keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

ABSTRACT = "the paper's abstract"
SCRIPTS = "the public scripts (Megatron-DeepSpeed, examples_deepspeed/curriculum_learning)"
NAMED = "named in the paper"

Standing = Literal["published", "named", "derived"]
"""published: values and (where given) end step; named: compared in the paper, with values left open; derived:
arithmetic on published values, not a published run."""
Method = Literal["baseline", "length", "two_stage", "batch_warmup"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a published grid; None if a value is not a verified fact."""

    name: str
    """Its name in this project's sweeps."""
    method: Method
    """baseline; length: linear length warmup, truncating; two_stage: two lengths; batch_warmup: a growing batch."""
    batch: int
    """Sequences per step, at the end of a warmup."""
    lr: float | None = None
    """Peak learning rate."""
    start: int | None = None
    """Length or, for batch_warmup, batch of the first step."""
    by: int | None = None
    """The length's multiple or, for batch_warmup, the batch's increment."""
    until: int | None = None
    """End of the warmup (T), in `until_unit`."""
    until_unit: Literal["steps", "samples"] = "steps"
    end_step: int | None = None
    """Step at which the token budget is consumed."""
    standing: Standing = "published"
    source: str = SCRIPTS
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Settings of this cell alone."""
    below: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Settings known only to be below a value."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A published model, the settings that its cells share, and the cells."""

    name: str
    """The model's name in this project."""
    title: str
    series: Literal["GPT-2", "GPT-3"]
    n_layers: int
    hidden_size: int
    n_heads: int
    seqlen: int
    token_budget: int
    settings: Mapping[str, float | str]
    cells: tuple[Cell, ...]
    machine: str = ""
    """Hardware and validation of the published runs; not part of a cell."""
    precision: str = ""
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """One figure of an abstract."""

    version: Literal["v1", "v2", "v3", "v4"]
    series: Literal["GPT-2", "GPT-3"]
    at: Literal["stability", "validation", "zero-shot", "11 tasks"]
    """The quality held equal: final validation perplexity, zero-shot WikiText-103 and LAMBADA, or 99% of the original
    accuracy on 11 tasks. stability: not a cost, but divergence of the baseline."""
    what: Literal["", "tokens", "time"]
    published: str
    """In the abstract's words."""
    form: Literal["percent", "factor"] = "percent"
    """The version's form of a saving."""
    source: str = ABSTRACT


_GPT2_SETTINGS: dict[str, float | str] = {
    "optim.min_lr": 1e-5,
    "optim.warmup_steps": 3000,
    "optim.decay": "tokens",
    "optim.decay_tokens": 157_286_400_000,
    "optim.weight_decay": 0.01,
    "optim.grad_clip": 1.0,
    "optim.eps": 1e-8,
    "optim.beta2": 0.999,  # of the client Adam, which won over the DeepSpeed configuration's 0.95
    "model.dropout": 0.1,
    "model.init_std": 0.02,
}
_GPT2_MACHINE = "128 GPUs, ZeRO-1, fp16; validation every 100 steps on 10 batches; data split 949/50/1"
_GPT3_RATES = {"optim.min_lr": 6e-5, "optim.warmup_tokens": 375_000_000, "optim.decay_tokens": 260_000_000_000}

GPT2_1558M = Experiment(
    name="gpt2_1558m",
    title="GPT-2 1.5B",
    series="GPT-2",
    n_layers=48,
    hidden_size=1600,
    n_heads=25,
    seqlen=1024,
    token_budget=157_286_400_000,
    settings=_GPT2_SETTINGS,
    machine=_GPT2_MACHINE,
    precision="fp16",
    seed=1234,
    cells=(
        Cell("baseline_512", "baseline", 512, 1.5e-4, end_step=300_000),
        Cell("baseline_4096", "baseline", 4096, 6e-4, end_step=37_500),
        Cell("cl_v1", "length", 4096, 6e-4, start=64, by=8, until=15_000, end_step=44_589),
        Cell("cl_later", "length", 4096, 6e-4, start=64, by=8, until=45_000, end_step=58_769),
        Cell("two_stage", "two_stage", 4096, until=15_000, standing="named", source=NAMED),
        Cell("batch_warmup", "batch_warmup", 4096, until=15_000, standing="named", source=NAMED),
        Cell("lower_lr", "baseline", 4096, standing="named", source=NAMED, below={"optim.lr": 6e-4}),
        Cell("tighter_clip", "baseline", 4096, standing="named", source=NAMED, below={"optim.grad_clip": 1.0}),
    ),
)
GPT2_117M = Experiment(
    name="gpt2_117m",
    title="GPT-2 117M",
    series="GPT-2",
    n_layers=12,
    hidden_size=768,
    n_heads=12,
    seqlen=1024,
    token_budget=157_286_400_000,
    settings=_GPT2_SETTINGS,
    machine=_GPT2_MACHINE,
    precision="fp16",
    seed=1234,
    cells=(Cell("cl_example", "length", 512, 1.5e-4, start=8, by=8, until=60_000, end_step=330_000),),
)
GPT3_125M = Experiment(
    name="gpt3_125m",
    title="GPT-3 125M",
    series="GPT-3",
    n_layers=12,
    hidden_size=768,
    n_heads=12,
    seqlen=2048,
    token_budget=300_000_000_000,
    settings={"optim.beta1": 0.9, "optim.beta2": 0.95, "optim.weight_decay": 0.1, "optim.grad_clip": 1.0},
    cells=(
        Cell(
            "baseline",
            "batch_warmup",
            256,
            6e-4,
            start=16,
            by=16,
            until=1_953_125,
            until_unit="samples",
            end_step=591_581,
            settings=_GPT3_RATES,
        ),
        Cell(
            "baseline_fixed_batch",
            "baseline",
            256,
            6e-4,
            end_step=572_205,
            standing="derived",
            source="the baseline's tokens, batch and length without its ramp",
            settings=_GPT3_RATES,
        ),
        Cell("cl_60b", "length", 2048, 2.4e-3, start=72, until=27_638),
        Cell("cl_45b", "length", 2048, 2.4e-3, start=72, until=20_728, end_step=81_566),
    ),
)
EXPERIMENTS = (GPT2_1558M, GPT2_117M, GPT3_125M)

CLAIMS = (
    Claim("v1", "GPT-2", "stability", "", "8x batch and 4x LR stable where the baseline diverges"),
    Claim("v1", "GPT-2", "validation", "tokens", "up to −59%"),
    Claim("v1", "GPT-2", "validation", "time", "up to −54%"),
    Claim("v1", "GPT-2", "zero-shot", "tokens", "−13%"),
    Claim("v1", "GPT-2", "zero-shot", "time", "−61%"),
    Claim("v2", "GPT-2", "validation", "tokens", "−61%"),
    Claim("v2", "GPT-2", "validation", "time", "−49%"),
    Claim("v2", "GPT-2", "zero-shot", "tokens", "−54%"),
    Claim("v2", "GPT-2", "zero-shot", "time", "−70%"),
    Claim("v3", "GPT-2", "zero-shot", "tokens", "−55%"),
    Claim("v3", "GPT-2", "zero-shot", "time", "−73%"),
    Claim("v4", "GPT-2", "zero-shot", "tokens", "up to 2.2x fewer", "factor"),
    Claim("v4", "GPT-2", "zero-shot", "time", "up to 3.7x less", "factor"),
    Claim("v4", "GPT-3", "stability", "", "8x batch and 40x LR stable where the baseline diverges"),
    Claim("v4", "GPT-3", "11 tasks", "tokens", "10x fewer", "factor"),
    Claim("v4", "GPT-3", "11 tasks", "time", "17x less", "factor"),
)
