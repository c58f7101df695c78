"""The model is GPT-2: same logits as transformers' with the same weights, same parameter counts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from cl_bench.config import ModelConfig
from cl_bench.data.batches import IGNORED
from cl_bench.runs.paths import config_root, read_yaml
from cl_bench.training.model import GPT2, parameter_groups

SMALL = ModelConfig(name="t", n_layers=3, hidden_size=48, n_heads=4, n_positions=32, vocab_size=100)


def with_weights_of(theirs: GPT2LMHeadModel, config: ModelConfig) -> GPT2:
    """Our model with transformers' weights; its Conv1D stores (in, out)."""
    ours = GPT2(config)
    state = theirs.state_dict()
    names = {"tokens.weight": "transformer.wte.weight", "positions.weight": "transformer.wpe.weight"}
    for part in ("weight", "bias"):
        names[f"ln_f.{part}"] = f"transformer.ln_f.{part}"
        for i in range(config.n_layers):
            for mine, other in (
                ("ln_1", "ln_1"),
                ("ln_2", "ln_2"),
                ("attention.qkv", "attn.c_attn"),
                ("attention.out", "attn.c_proj"),
                ("mlp.up", "mlp.c_fc"),
                ("mlp.down", "mlp.c_proj"),
            ):
                names[f"blocks.{i}.{mine}.{part}"] = f"transformer.h.{i}.{other}.{part}"
    converted = {
        mine: state[other].T if "c_" in other and other.endswith("weight") else state[other]
        for mine, other in names.items()
    }
    ours.load_state_dict(converted | {"head.weight": converted["tokens.weight"]})
    return ours


@pytest.fixture(scope="module")
def pair() -> tuple[GPT2, GPT2LMHeadModel]:
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=32, n_embd=48, n_layer=3, n_head=4, attn_implementation="eager")
    ).eval()
    for parameter in theirs.parameters():  # biases and LayerNorms away from 0 and 1, so that they count
        torch.nn.init.normal_(parameter, std=0.2)
    return with_weights_of(theirs, SMALL).eval(), theirs


@pytest.mark.parametrize("length", [1, 7, 32])
def test_logits_equal_transformers(pair: tuple[GPT2, GPT2LMHeadModel], length: int) -> None:
    ours, theirs = pair
    ids = torch.randint(0, 100, (3, length))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_equal_transformers(pair: tuple[GPT2, GPT2LMHeadModel]) -> None:
    ours, theirs = pair
    ids = torch.randint(0, 100, (2, 17))
    our_loss = ours(ids[:, :-1], ids[:, 1:])
    their_loss = theirs(ids, labels=ids).loss
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=1e-6)
    our_loss.backward()
    their_loss.backward()
    torch.testing.assert_close(ours.tokens.weight.grad, theirs.transformer.wte.weight.grad, rtol=1e-4, atol=1e-5)


def test_padding_does_not_count(pair: tuple[GPT2, GPT2LMHeadModel]) -> None:
    ours, _ = pair
    ids = torch.randint(0, 100, (1, 9))
    labels = ids[:, 1:].clone()
    labels[:, 5:] = IGNORED
    torch.testing.assert_close(ours(ids[:, :-1], labels), ours(ids[:, :5], ids[:, 1:6]))


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        # openai/gpt-2's released checkpoints: 124,439,808 … 1,557,611,200
        ("gpt2_117m", 124_439_808),
        ("gpt2_345m", 354_823_168),
        ("gpt2_774m", 774_030_080),
        ("gpt2_1558m", 1_557_611_200),
        # GPT-2 small with 1,024 more positions of width 768
        ("gpt3_125m", 124_439_808 + 1024 * 768),
    ],
)
def test_parameter_counts_are_gpt2s(preset: str, parameters: int) -> None:
    config = ModelConfig(**read_yaml(config_root() / f"conf/model/{preset}.yaml")["model"])
    assert config.n_parameters() == parameters
    with torch.device("meta"):
        model = GPT2(config)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = GPT2(dataclasses.replace(SMALL, hidden_size=256, n_layers=8))
    block = model.blocks[0]
    assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)  # sqrt(2 x 8) = 4
    assert block.attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert float(block.mlp.up.bias.detach().abs().max()) == 0
    assert model.head.weight is model.tokens.weight


def test_dropout_acts_in_training_only() -> None:
    model = GPT2(dataclasses.replace(SMALL, dropout=0.5))
    ids = torch.randint(0, 100, (1, 8))
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_biases_and_layer_norms_do_not_decay() -> None:
    model = GPT2(SMALL)
    decay, none = parameter_groups(model, 0.1)
    assert (decay["weight_decay"], none["weight_decay"]) == (0.1, 0.0)
    assert all(p.dim() == 2 for p in decay["params"])  # type: ignore[attr-defined]
    counted = sum(p.numel() for group in (decay, none) for p in group["params"])  # type: ignore[attr-defined]
    assert counted == SMALL.n_parameters()
