"""Export of a trained model as a Hugging Face GPT-2 folder, for transformers and libraries built on it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from cl_bench.config import DataConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import tokenizer as tokenizers
from cl_bench.data.tokenizer import Tokenizer
from cl_bench.errors import UserError
from cl_bench.evals import weights
from cl_bench.evals.weights import Trained
from cl_bench.runs.paths import RunDir
from cl_bench.training.model import GPT2

_BLOCK = {
    "ln_1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "ln_2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
"""Modules of our block -> transformers' names; those named c_… are Conv1D, with weights (in, out)."""


def export(run: RunDir, config: RunConfig, folder: Path) -> tuple[Trained, str]:
    """Export a run's newest checkpoint; returns it, and why the folder holds no tokenizer ("" if it holds one).

    Raises UserError if there is no checkpoint, or if the folder is not empty or cannot be written.
    """
    check_folder(folder)
    reason = "its tokenizer is not two files, vocab.json and merges.txt"
    try:
        tokenizer = tokenizers.from_config(config.data)
    except ConfigError as error:  # the weights are useful without a tokenizer
        tokenizer, reason = None, str(error)
    trained = weights.load(run, config)
    note = {"run": run.run_id, "step": trained.step, "consumed_tokens": trained.consumed_tokens}
    files = _tokenizer_files(config.data) if tokenizer is not None else None
    has_tokenizer = write(folder, trained.model, config, tokenizer, files, note)
    return trained, "" if has_tokenizer else reason


def _tokenizer_files(config: DataConfig) -> tuple[Path, Path] | None:
    """The vocab.json and merges.txt of a run's tokenizer; None unless both are given."""
    if not config.vocab_file or not config.merges_file:
        return None
    return Path(config.vocab_file).expanduser(), Path(config.merges_file).expanduser()


def state_dict(model: GPT2, n_positions: int) -> dict[str, Tensor]:
    """The weights under transformers' names and in its layout, with the first `n_positions` positions.

    The tied head is left out, as by transformers, which ties it again on loading.
    """
    ours = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    theirs = {
        "transformer.wte.weight": ours["tokens.weight"],
        "transformer.wpe.weight": ours["positions.weight"][:n_positions],
        "transformer.ln_f.weight": ours["ln_f.weight"],
        "transformer.ln_f.bias": ours["ln_f.bias"],
    }
    for i in range(model.config.n_layers):
        for our_name, their_name in _BLOCK.items():
            weight = ours[f"blocks.{i}.{our_name}.weight"]
            theirs[f"transformer.h.{i}.{their_name}.weight"] = weight.T if ".c_" in their_name else weight
            theirs[f"transformer.h.{i}.{their_name}.bias"] = ours[f"blocks.{i}.{our_name}.bias"]
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def hf_config(config: RunConfig, eot: int | None) -> dict[str, Any]:
    """The contents of config.json. Positions end at the run's max_seqlen: later ones were never trained."""
    model = config.model
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": model.vocab_size,
        "n_positions": config.seqlen,
        "n_embd": model.hidden_size,
        "n_layer": model.n_layers,
        "n_head": model.n_heads,
        "n_inner": None,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": model.init_std,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
        "resid_pdrop": model.dropout,
        "tie_word_embeddings": True,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "dtype": "float32",
    }


def byte_vocabulary() -> dict[str, int]:
    """GPT-2's vocabulary without merges: the 256 byte symbols, each the token of its byte.

    A GPT-2 tokenizer needs an end-of-text token, which replaces byte 0: no text contains it.
    """
    symbols = sorted(tokenizers.byte_of_character().items(), key=lambda item: item[1])
    return {tokenizers.EOT if byte == 0 else symbol: byte for symbol, byte in symbols}


def check_folder(folder: Path) -> None:
    """Raise UserError unless the folder is missing or empty."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists and is not empty; name another folder, or empty it")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder that does not exist yet")


def write(
    folder: Path,
    model: GPT2,
    config: RunConfig,
    tokenizer: Tokenizer | None,
    files: tuple[Path, Path] | None,
    note: dict[str, Any],
) -> bool:
    """Write the folder, whole or not at all; returns whether it holds a tokenizer.

    `files` are the vocab.json and merges.txt of the run's tokenizer, if it has them; `note` goes into config.json
    under the key cl_bench. Raises UserError if the folder is not empty or cannot be written.
    """
    check_folder(folder)
    folder = folder.absolute()
    is_bytes = tokenizer is not None and tokenizer.name == "bytes"
    eot = byte_vocabulary()[tokenizers.EOT] if is_bytes else tokenizer.eot if tokenizer is not None else None
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": config.seqlen, "add_prefix_space": False}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            staging = Path(temporary) / folder.name
            staging.mkdir()
            _write_json(staging / "config.json", hf_config(config, eot) | {"cl_bench": note})
            save_file(state_dict(model, config.seqlen), staging / "model.safetensors", metadata={"format": "pt"})
            if files is not None:
                shutil.copyfile(files[0], staging / "vocab.json")
                shutil.copyfile(files[1], staging / "merges.txt")
            elif is_bytes:
                _write_json(staging / "vocab.json", byte_vocabulary())
                (staging / "merges.txt").write_text("#version: 0.2\n")
            if files is not None or is_bytes:
                _write_json(staging / "tokenizer_config.json", settings)
            staging.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); name another folder, or free some space") from None
    return files is not None or is_bytes


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
