"""What we tell DeepSpeed of a run that no test machine can train, judged by DeepSpeed's own check of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from cl_bench.config import RunConfig, from_dict
from cl_bench.launch import estimate
from cl_bench.runs.paths import config_root, read_yaml
from cl_bench.training import engine
from cl_bench.training.model import GPT2
from tests.conftest import small

pytestmark = pytest.mark.train


class Ranks:
    """Stands where DeepSpeed asks how many ranks there are."""

    def __init__(self, count: int) -> None:
        self.get_data_parallel_world_size = lambda: count


def published(**deepspeed: Any) -> RunConfig:
    """GPT-2 1.5B at batch 4096 on the preset's 128 GPUs."""
    preset = read_yaml(config_root() / "conf/model/gpt2_1558m.yaml")
    return from_dict(
        small(
            data={"source": "shakespeare", "path": None},
            global_batch_size=4096,
            micro_batch_tokens=4096,
            deepspeed=deepspeed,
        )
        | preset
    )


@pytest.mark.parametrize(
    ("stage", "precision", "offload"),
    [c for c in itertools.product((0, 1, 2, 3), ("fp32", "bf16", "fp16"), (False, True)) if c[0] or not c[2]],
)
def test_deepspeed_accepts_our_configuration(
    stage: int, precision: str, offload: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.runtime import config as deepspeed_config

    monkeypatch.setattr(deepspeed_config.dist, "get_rank", lambda: 0)  # as if 128 ranks had met
    run = published(
        zero_stage=stage, precision=precision, offload_optimizer=offload, offload_parameters=offload and stage == 3
    )
    assert run.resources.ranks == 128
    checked = deepspeed_config.DeepSpeedConfig(engine.deepspeed_config(run, 128), mpu=Ranks(128))
    assert checked.train_batch_size == 4096
    assert checked.train_micro_batch_size_per_gpu == 4
    assert checked.gradient_accumulation_steps == 8
    assert checked.zero_optimization_stage == stage
    assert (checked.zero_config.offload_optimizer is not None) == offload


def test_the_largest_model_matches_its_memory_estimate() -> None:
    run = published(zero_stage=1, precision="fp16")
    with torch.device("meta"):
        model = GPT2(run.model)
    n = sum(p.numel() for p in model.parameters())
    need = estimate.memory(run)
    assert need.weights == 2 * n
    assert need.gradients == 2 * n
    assert need.optimizer == pytest.approx(12 * n / 128)
    # 48 blocks x 34 bytes x width x tokens, and logits in half and twice in single precision.
    assert need.activations == 48 * 34 * 1600 * 4096 + 4096 * 50257 * 10
    sharded = estimate.memory(published(zero_stage=3, precision="fp16", activation_checkpointing=True))
    assert sharded.weights == pytest.approx(2 * n / 128 + 2 * n / 48)
    assert sharded.activations < need.activations / 4
    offloaded = estimate.memory(published(zero_stage=2, precision="fp16", offload_optimizer=True))
    assert offloaded.optimizer == 0
    assert offloaded.total < need.total
