"""`cl-bench eval` and `export` on a run folder with a save in DeepSpeed's form, made without training."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer, GPT2LMHeadModel

from cl_bench.cli import main
from cl_bench.config import RunConfig
from cl_bench.config.schema import to_dict
from cl_bench.data.tokenizer import Bytes
from cl_bench.errors import UserError
from cl_bench.evals import hf_export, tasks, weights, zeroshot
from cl_bench.runs import identity, zeroshot_record
from cl_bench.runs.paths import RunDir
from cl_bench.training.model import GPT2
from tests.conftest import resolved

CONFIG = resolved(max_seqlen=48)


def saved_run(outputs: Path, config: RunConfig = CONFIG, step: int = 40) -> tuple[RunDir, GPT2]:
    """A run folder with one save of random weights, biases and LayerNorms included."""
    run = RunDir(outputs, identity.run_id(config))
    torch.manual_seed(step)
    model = GPT2(config.model).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save = run.checkpoints / f"step_{step:09d}"
    save.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(to_dict(config)))
    state = {"step": step, "consumed_tokens": step * 384}
    torch.save({"module": model.state_dict(), "state": state}, save / "mp_rank_00_model_states.pt")
    (run.checkpoints / "latest").write_text(save.name)
    return run, model


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunDir, GPT2]:
    return saved_run(tmp_path / "out")


@pytest.fixture
def wiki(tmp_path: Path) -> Path:
    path = tmp_path / "wiki.test.tokens"
    path.write_text(" \n = Cats = \n \n the cat @-@ flap is open , and the cats are out . \n" * 3)
    return path


@pytest.fixture
def lambada(tmp_path: Path) -> Path:
    path = tmp_path / "lambada.jsonl"
    passages = ["he saw a cat and then he stroked the cat", "no one in all of the wide world is as fast as an owl"]
    path.write_text("".join(json.dumps({"text": p}) + "\n" for p in passages))
    return path


def cl_bench(*words: object) -> int:
    return main.main([str(word) for word in words])


# --- eval -------------------------------------------------------------------------------------------------------------


def test_eval_prints_and_records(
    run: tuple[RunDir, GPT2], wiki: Path, lambada: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = run
    for more in ((), ("--stride", 5, "--batch", 2), ("--stride", 5)):
        assert cl_bench("eval", folder.root, "--task", "wikitext103", "--data", wiki, *more) == 0
    assert cl_bench("eval", folder.run_id, "--outputs", folder.outputs, "--task", "lambada", "--data", lambada) == 0
    assert cl_bench("eval", folder.root, "--task", "lambada", "--strict", "--data", lambada, "--json") == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5
    # Thrice 55 bytes without the spaces that WikiText adds; thrice 18 words and line ends, and 2 x 2 line ends between.
    assert "nats per token; 165 bytes tokens, 58 words; window 48, stride 32; step 40 of tiny_" in out[0]
    assert "window 48, stride 5;" in out[1]
    assert out[3].startswith("lambada, detokenized: last-word accuracy 0.00% (0 of 2; bytes tokens; window 48, 1 pass")

    entries = zeroshot_record.entries(folder)
    expected = zeroshot.perplexity(model, tasks.wikitext(wiki, Bytes()), 48, 5, 1)
    assert [e["stride"] for e in entries["wikitext103"]] == [32, 5]  # the same measurement is kept once
    assert entries["wikitext103"][1]["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert entries["wikitext103"][1]["data_sha256"] == hashlib.sha256(wiki.read_bytes()).hexdigest()
    assert entries["wikitext103"][1]["consumed_tokens"] == 40 * 384
    assert [e["strict"] for e in entries["lambada"]] == [False, True]
    assert json.loads(out[4]) == {"run": folder.run_id, "task": "lambada"} | entries["lambada"][1]


def test_a_newer_save_is_another_result(run: tuple[RunDir, GPT2], wiki: Path) -> None:
    folder, _ = run
    cl_bench("eval", folder.root, "--task", "wikitext103", "--data", wiki)
    shutil.rmtree(folder.checkpoints)
    saved_run(folder.outputs, step=80)
    cl_bench("eval", folder.root, "--task", "wikitext103", "--data", wiki)
    assert [e["step"] for e in zeroshot_record.entries(folder)["wikitext103"]] == [40, 80]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride", 0], "--stride = 0: must be 1 … 48, the window"),
        (["--stride", 49], "--stride = 49: must be 1 … 48, the window"),
        (["--batch", 0], "--batch = 0: must be at least 1"),
        (["--strict"], "--strict: only for --task lambada"),
        (["--data", "nowhere"], "--data = nowhere: cannot be read (No such file or directory)"),
        (["--task", "lambada", "--stride", 4], "--stride = 4: only for --task wikitext103"),
        (["--task", "lambada", "--data", "EMPTY"], "EMPTY: empty; give the evaluation file"),
    ],
)
def test_bad_options_are_one_line(
    run: tuple[RunDir, GPT2],
    wiki: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("EMPTY").touch()
    assert cl_bench("eval", run[0].root, "--task", "wikitext103", "--data", wiki, *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not run[0].zeroshot.exists()


@pytest.mark.parametrize("command", ["eval", "export"])
def test_runs_that_cannot_be_loaded(
    run: tuple[RunDir, GPT2], wiki: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder, _ = run

    def fails_with(name: object = folder.root) -> str:
        rest = ["--task", "wikitext103", "--data", wiki] if command == "eval" else [tmp_path / "hf"]
        assert cl_bench(command, name, *rest, "--outputs", folder.outputs) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "hf").exists()
        return line

    assert "nobody: neither a run nor a sweep; valid: tiny_" in fails_with("nobody")
    save = folder.checkpoints / "step_000000040/mp_rank_00_model_states.pt"
    whole = save.read_bytes()
    save.write_bytes(whole[: len(whole) // 2])
    assert "step_000000040: damaged, or not a save of this run (" in fails_with()
    torch.save({"module": {}, "state": {"step": 1}}, save)
    assert "damaged, or not a save of this run (unexpected or missing weights" in fails_with()
    save.unlink()
    assert "damaged, or not a save of this run (" in fails_with()
    shutil.rmtree(folder.checkpoints)
    assert f"{folder.run_id}: has no checkpoint in {folder.checkpoints}; train it" in fails_with()
    folder.config.write_text(folder.config.read_text().replace("lr: 0.002", "lr: 0.004"))
    assert "a run's configuration is never edited" in fails_with()


def test_damaged_results_are_not_overwritten(
    run: tuple[RunDir, GPT2], wiki: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run[0].zeroshot.write_text("[]")
    assert cl_bench("eval", run[0].root, "--task", "wikitext103", "--data", wiki) == 2
    assert "zeroshot.json: not zero-shot results; delete it" in capsys.readouterr().err
    assert run[0].zeroshot.read_text() == "[]"


# --- export -----------------------------------------------------------------------------------------------------------


def test_transformers_loads_the_export_with_equal_logits(
    run: tuple[RunDir, GPT2], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = run
    (tmp_path / "hf").mkdir()  # an empty folder will do
    assert cl_bench("export", folder.root, tmp_path / "hf") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"step 40 of {folder.run_id}, for transformers' GPT2LMHeadModel and AutoTokenizer")
    theirs, info = GPT2LMHeadModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.n_positions == 48  # max_seqlen; the model's other 16 positions were never trained
    assert theirs.config.cl_bench == {"run": folder.run_id, "step": 40, "consumed_tokens": 40 * 384}
    assert theirs.lm_head.weight.data_ptr() == theirs.transformer.wte.weight.data_ptr()
    ids = torch.randint(0, 256, (3, 48))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs.eval()(ids).logits, rtol=1e-5, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "out"]  # nothing left beside it


def test_the_exported_byte_tokenizer_is_ours(run: tuple[RunDir, GPT2], tmp_path: Path) -> None:
    cl_bench("export", run[0].root, tmp_path / "hf")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    every_byte = "".join(map(chr, range(1, 128))) + "é ÿ Ā Ċ 𝄞 — ‘x’  two\n\n\tlines \r\n"
    for text in (every_byte, "To be, or not to be", " a", "<|endof"):
        ids = theirs(text)["input_ids"]
        assert ids == Bytes().encode(text).tolist()
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(theirs) == 256  # no id beyond the model's vocabulary
    assert theirs.eos_token_id == 0
    assert theirs.model_max_length == 48


class Gpt2Like:
    """What export asks of a tokenizer of two files."""

    name = "gpt2"
    vocab_size = 50257
    eot = 50256


def test_a_tokenizer_of_two_files_is_copied(run: tuple[RunDir, GPT2], tmp_path: Path) -> None:
    files = (tmp_path / "encoder.json", tmp_path / "vocab.bpe")
    for file in files:
        file.write_text(file.name)
    assert hf_export.write(tmp_path / "hf", run[1], CONFIG, Gpt2Like(), files, {})  # type: ignore[arg-type]
    assert (tmp_path / "hf/vocab.json").read_text() == "encoder.json"
    assert (tmp_path / "hf/merges.txt").read_text() == "vocab.bpe"
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (50256, 50256)
    assert not hf_export.write(tmp_path / "bare", run[1], CONFIG, None, None, {})
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == ["config.json", "model.safetensors"]


def test_an_export_overwrites_nothing(
    run: tuple[RunDir, GPT2], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken, file = tmp_path / "taken", tmp_path / "file"
    taken.mkdir()
    (taken / "x").touch()
    file.touch()
    for folder, message in (
        (taken, "exists and is not empty; name another folder"),
        (file, "is a file; name a folder"),
        (file / "below", "cannot be written"),
    ):
        assert cl_bench("export", run[0].root, folder) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {folder}: {message}")
    assert [p.name for p in taken.iterdir()] == ["x"]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_are_those_of_the_forward_pass(tmp_path: Path) -> None:
    config = resolved(deepspeed={"precision": "bf16"})
    run, model = saved_run(tmp_path, config)
    trained = weights.load(run, config)
    assert (trained.step, trained.consumed_tokens) == (40, 40 * 384)
    assert not trained.model.training
    assert trained.model.head.weight is trained.model.tokens.weight
    mine = trained.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert mine[name].dtype == torch.float32
        assert torch.equal(mine[name], tensor.bfloat16().float())


def test_a_deleted_save_is_not_used(run: tuple[RunDir, GPT2]) -> None:
    shutil.rmtree(run[0].checkpoints / "step_000000040")
    with pytest.raises(UserError, match="has no checkpoint"):
        weights.load(run[0], CONFIG)
