"""nanoGPT's and llm.c's files: read as they are written, and wrong ones named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import batches, sources


def nanogpt(folder: Path, train: int = 1000, val: int = 100, dtype: str = "<u2") -> DataConfig:
    folder.mkdir(exist_ok=True)
    for name, n in (("train", train), ("val", val)):
        (np.arange(n) % 200).astype(dtype).tofile(folder / f"{name}.bin")
    return DataConfig(source="nanogpt", path=str(folder))


def shard(path: Path, ids: np.ndarray, magic: int = 20240520, version: int = 1, dtype: str = "<u2") -> None:
    """As llm.c's dev/data/data_common.py writes it."""
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(header.tobytes() + ids.astype(dtype).tobytes())


def mixture(config: DataConfig) -> sources.Mixture:
    files = sources.inspect(config)
    assert isinstance(files, sources.TokenFiles)
    return files.mixture


def test_nanogpts_folder(tmp_path: Path) -> None:
    config = nanogpt(tmp_path / "owt")
    files = sources.inspect(config)
    assert files.describe() == f"{tmp_path}/owt: 1,000 tokens to train on, 100 held out"
    assert files.vocab_size == 50257
    (dataset,) = mixture(config).datasets
    assert dataset.train[0].tokens.tolist() == (np.arange(1000) % 200).tolist()
    assert batches.validation_blocks(mixture(config), 9, 3)[:, 0].tolist() == [0, 27, 63]  # of 11: 0, 11/3, 22/3


def test_tokens_changed_since_the_plan_are_noticed_by_the_verifying_rank(tmp_path: Path) -> None:
    config = nanogpt(tmp_path / "owt")
    planned = dataclasses.replace(config, fingerprint=sources.inspect(config).fingerprint)
    assert sources.mixture(planned, tmp_path) == sources.mixture(planned, tmp_path, verify=False)
    nanogpt(tmp_path / "owt", train=1001)
    sources.mixture(planned, tmp_path, verify=False)
    with pytest.raises(ConfigError, match="the tokens of data=nanogpt changed since the run was planned"):
        sources.mixture(planned, tmp_path)


def test_meta_json_beside_the_tokens_is_read(tmp_path: Path) -> None:
    config = nanogpt(tmp_path / "b", dtype="u1")
    meta = {"dtype": "uint8", "vocab_size": 256, "train": {"tokens": 1000}, "validation": {"tokens": 100}}
    (tmp_path / "b" / "meta.json").write_text(json.dumps(meta))
    assert (sources.inspect(config).vocab_size, mixture(config).datasets[0].n_train) == (256, 1000)
    (tmp_path / "b" / "meta.json").write_text(json.dumps(meta | {"train": {"tokens": 999}}))
    with pytest.raises(ConfigError, match=r"train\.bin: 1000 tokens instead of the 999 in meta\.json"):
        sources.inspect(config)
    for wrong in (
        {"dtype": "no such"},
        meta | {"dtype": "float32"},
        meta | {"dtype": "object"},
        meta | {"vocab_size": -1},
        meta | {"train": "many"},
        [],
    ):
        (tmp_path / "b" / "meta.json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"meta\.json: not written by `cl-bench prepare`"):
            sources.inspect(config)


def test_wrong_files_of_nanogpt_are_named(tmp_path: Path) -> None:
    config = nanogpt(tmp_path / "d")
    with (tmp_path / "d" / "val.bin").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(ConfigError, match=r"val\.bin: 201 bytes are not a multiple of 2"):
        sources.inspect(config)
    (tmp_path / "d" / "val.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"val\.bin: holds no tokens"):
        sources.inspect(config)
    (tmp_path / "d" / "val.bin").unlink()
    with pytest.raises(ConfigError, match=r"val\.bin: cannot be read \(No such file"):
        sources.inspect(config)
    with pytest.raises(ConfigError, match=r"no such folder; data=nanogpt reads train\.bin and val\.bin"):
        sources.inspect(DataConfig(source="nanogpt", path=str(tmp_path / "nowhere")))
    with pytest.raises(
        ConfigError, match=r"token id 100 at token 100 .* beyond the vocabulary of 100; set data.vocab_size"
    ):
        sources.inspect(DataConfig(source="nanogpt", path=str(nanogpt(tmp_path / "e").path), vocab_size=100))


def test_llmcs_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "fineweb"
    for number in (2, 1):
        shard(folder / f"fineweb_train_{number:06d}.bin", np.arange(50) + 1000 * number)
    shard(folder / "fineweb_val_000000.bin", np.arange(30))
    for path in (folder, folder / "fineweb_"):
        (dataset,) = mixture(DataConfig(source="llmc", path=str(path))).datasets
        assert [s.tokens[0] for s in dataset.train] == [1000, 2000]
        assert (dataset.n_train, dataset.n_validation) == (100, 30)
        assert dataset.validation[0].tokens.tolist() == list(range(30))


def test_llama_3s_shards_are_uint32(tmp_path: Path) -> None:
    for name in ("a_train.bin", "a_val.bin"):
        shard(tmp_path / name, np.arange(128_000, 128_040), 20240801, 7, "<u4")
    config = DataConfig(source="llmc", path=str(tmp_path), vocab_size=128_256)
    assert mixture(config).datasets[0].train[0].tokens[-1] == 128_039


def test_wrong_shards_are_named(tmp_path: Path) -> None:
    config = DataConfig(source="llmc", path=str(tmp_path))
    shard(tmp_path / "x_train.bin", np.arange(50))
    with pytest.raises(ConfigError, match=r"no file \*val\*\.bin in "):
        sources.inspect(config)
    shard(tmp_path / "x_val.bin", np.arange(50), magic=123)
    with pytest.raises(ConfigError, match=r"x_val\.bin: begins with 123, not llm\.c's magic number \(20240520 or 2024"):
        sources.inspect(config)
    shard(tmp_path / "x_val.bin", np.arange(50), version=3)
    with pytest.raises(ConfigError, match=r"x_val\.bin: version 3 of llm\.c's format; version 1 is supported"):
        sources.inspect(config)
    shard(tmp_path / "x_val.bin", np.arange(50))
    raw = (tmp_path / "x_val.bin").read_bytes()
    (tmp_path / "x_val.bin").write_bytes(raw[:-2])
    with pytest.raises(ConfigError, match=r"x_val\.bin: 49 tokens instead of the 50 in its header; it is cut short"):
        sources.inspect(config)
    (tmp_path / "x_val.bin").write_bytes(raw[:-1])
    with pytest.raises(ConfigError, match="99 bytes are not a multiple of 2"):
        sources.inspect(config)
    for n_bytes in (100, 3, 0):
        (tmp_path / "x_val.bin").write_bytes(raw[:n_bytes])
        with pytest.raises(ConfigError, match=r"x_val\.bin: begins with .*, not llm\.c's magic number"):
            sources.inspect(config)


def test_a_shard_is_not_trained_on_and_held_out(tmp_path: Path) -> None:
    shard(tmp_path / "medieval_train.bin", np.arange(50))
    shard(tmp_path / "medieval_val.bin", np.arange(50))
    with pytest.raises(ConfigError, match=r"medieval_train\.bin: matches both training and validation data; rename it"):
        sources.inspect(DataConfig(source="llmc", path=str(tmp_path)))


def test_an_id_beyond_the_vocabulary_anywhere_is_named_before_training(tmp_path: Path) -> None:
    config = nanogpt(tmp_path / "d", train=4_000_000)  # 8 MB: sampled pages are an eighth of it
    tokens = np.memmap(tmp_path / "d" / "train.bin", "<u2", mode="r+")
    tokens[3_000] = 60_000
    tokens.flush()
    with pytest.raises(ConfigError, match=r"train\.bin: token id 60000 at token 3000 \(byte 6000\) is beyond the"):
        sources.inspect(config)
