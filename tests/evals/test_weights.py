"""Weights out of real DeepSpeed saves: every ZeRO stage, two ranks, and what evaluation and export make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from cl_bench.cli import main
from cl_bench.data import batches, sources
from cl_bench.evals import weights
from cl_bench.runs import identity, records, zeroshot_record
from cl_bench.runs.paths import RunDir
from tests.training.test_engine import TOLERANCE, train

pytestmark = pytest.mark.train

SHORT = {"token_budget": 6_000, "resources": {"tasks_per_node": 2}}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, text: Path) -> list[RunDir]:
    """The same run at ZeRO 0 … 3, and in bf16 at ZeRO 3."""
    settings = [{"zero_stage": stage} for stage in range(4)] + [{"zero_stage": 3, "precision": "bf16"}]
    return train(tmp_path_factory.mktemp("stages"), text, *({"deepspeed": s} for s in settings), **SHORT)


def validation_loss(run: RunDir) -> float:
    """The loss of the loaded model on the blocks that training evaluated on."""
    config = identity.load_config(run)
    mixture = sources.mixture(config.data, run.outputs)
    blocks = torch.from_numpy(batches.validation_blocks(mixture, config.seqlen, config.evaluation.n_blocks))
    with torch.no_grad():
        logits = weights.load(run, config).model(blocks[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten()).item()


@pytest.mark.parametrize("stage", range(4))
def test_a_loaded_model_has_the_last_validation_loss(stages: list[RunDir], stage: int) -> None:
    run = stages[stage]
    last = records.read(run).evals.iloc[-1]
    assert validation_loss(run) == pytest.approx(last["val_loss"], rel=1e-6)
    trained = weights.load(run, identity.load_config(run))
    assert trained.consumed_tokens == last["consumed_tokens"]


def test_stages_give_the_same_weights(stages: list[RunDir]) -> None:
    first, *others = [weights.load(run, identity.load_config(run)).model.state_dict() for run in stages[:4]]
    for other in others:
        assert other.keys() == first.keys()
        for name in first:
            torch.testing.assert_close(other[name], first[name], **TOLERANCE)


def test_gathered_bf16_weights_are_the_16_bit_ones(stages: list[RunDir]) -> None:
    run = stages[4]
    model = weights.load(run, identity.load_config(run)).model
    assert all(torch.equal(w, w.bfloat16().float()) for w in model.state_dict().values())
    # Training computes in bf16, 8 bits of mantissa.
    assert validation_loss(run) == pytest.approx(records.read(run).evals["val_loss"].iloc[-1], rel=1e-3)


def test_eval_and_export_of_partitioned_weights(
    stages: list[RunDir], text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ppl = []
    for run in (stages[0], stages[3]):
        assert main.main(["eval", str(run.root), "--task", "wikitext103", "--data", str(text), "--stride", "64"]) == 0
        ppl.append(zeroshot_record.entries(run)["wikitext103"][0]["loss"])
    assert ppl[0] == pytest.approx(ppl[1], rel=1e-4)
    assert main.main(["export", str(stages[3].root), str(tmp_path / "hf")]) == 0
    captured = capfd.readouterr()
    assert len(captured.out.splitlines()) == 3  # and nothing of what DeepSpeed prints
    assert captured.err == ""
    ours = weights.load(stages[3], identity.load_config(stages[3])).model
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()
    ids = torch.randint(0, 256, (2, 64))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_missing_partition_is_one_line(
    stages: list[RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stages[3]
    (lost,) = run.checkpoints.glob("step_*/*rank_1_*optim_states.pt")
    lost.rename(tmp_path / "aside")
    try:
        assert main.main(["export", str(run.root), str(tmp_path / "hf")]) == 2
    finally:
        (tmp_path / "aside").rename(lost)
    (line,) = capsys.readouterr().err.splitlines()
    assert "damaged, or not a save of this run (" in line
