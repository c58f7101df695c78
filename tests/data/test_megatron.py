"""Megatron's indexed datasets: equal to what DeepSpeed reads, split as Megatron splits, and wrong ones named."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_bench import config
from cl_bench.config import DataConfig, LaunchConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import batches, megatron, sources
from cl_bench.launch import plan
from tests.conftest import run_config

MAGIC = b"MMIDIDX\x00\x00"


def write(prefix: Path, documents: list[list[list[int]]], dtype: str = "uint16", code: int = 8) -> Path:
    """A dataset as Megatron-LM writes it: documents of sequences of ids; code 8 is its uint16."""
    sequences = [np.array(s, dtype) for d in documents for s in d]
    sizes = np.array([len(s) for s in sequences], "<i4")
    offsets = np.concatenate([[0], np.cumsum(sizes[:-1], dtype=np.int64) * np.dtype(dtype).itemsize]).astype("<i8")
    index = np.cumsum([0, *map(len, documents)]).astype("<i8")
    head = MAGIC + struct.pack("<QBQQ", 1, code, len(sizes), len(index))
    Path(f"{prefix}.idx").write_bytes(head + sizes.tobytes() + offsets.tobytes() + index.tobytes())
    Path(f"{prefix}.bin").write_bytes(np.concatenate(sequences).tobytes())
    return prefix


def random_documents(n: int, seed: int = 0, longest: int = 60) -> list[list[list[int]]]:
    generator = np.random.default_rng(seed)
    return [[generator.integers(0, 50257, generator.integers(1, longest)).tolist()] for _ in range(n)]


def source(prefix: Path | str, **options: Any) -> DataConfig:
    return config.DataConfig(source="megatron", path=str(prefix), **options)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64", "uint8"])
def test_the_same_tokens_as_deepspeeds_reader(tmp_path: Path, dtype: str) -> None:
    from deepspeed.runtime.data_pipeline.data_sampling import indexed_dataset

    documents = [[[t % np.iinfo(dtype).max for t in s] for s in d] for d in random_documents(40)]
    documents[3].append([5, 6, 7])  # a document of two sequences
    prefix = str(tmp_path / "their.own")
    builder = indexed_dataset.MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=getattr(np, dtype))
    for document in documents:
        for sequence in document:
            builder.add_item_numpy(np.array(sequence))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = indexed_dataset.MMapIndexedDataset(prefix, skip_warmup=True)
    whole = np.concatenate([theirs[i] for i in range(len(theirs))])
    index = megatron.read_index(Path(prefix))
    assert (index.dtype, index.n_tokens, index.n_documents) == (dtype, len(whole), 40)
    assert index.documents.tolist() == theirs.doc_idx.tolist()
    assert index.offsets.tolist() == [int(theirs._index[i][0]) for i in range(len(theirs))]
    megatron.fingerprint(index)
    split = megatron.dataset(Path(prefix), (70, 20, 10))
    (train,), (validation,) = split.train, split.validation
    first = theirs.doc_idx[28], theirs.doc_idx[36]  # documents 0 … 27, 28 … 35
    assert train.tokens.tolist() == np.concatenate([theirs[i] for i in range(first[0])]).tolist()
    assert validation.tokens.tolist() == np.concatenate([theirs[i] for i in range(first[0], first[1])]).tolist()


def test_megatron_lms_uint16_which_deepspeed_reads_as_uint64(tmp_path: Path) -> None:
    documents = random_documents(10)
    index = megatron.read_index(write(tmp_path / "d", documents))
    assert index.dtype == "uint16"
    wide = megatron.read_index(write(tmp_path / "w", documents, dtype="uint64"))
    assert wide.dtype == "uint64"
    assert index.n_tokens == wide.n_tokens == sum(len(s) for d in documents for s in d)


@pytest.mark.parametrize(
    ("shares", "documents", "bounds"),
    [
        ((949, 50, 1), 1000, (0, 949, 999, 1000)),
        ((949, 50, 1), 8_013_769, (0, 7_605_067, 8_005_755, 8_013_769)),  # 949/1000 of 8,013,769 is 7,605,066.8
        ((90, 10), 7, (0, 6, 7, 7)),
        ((1, 1, 1), 5, (0, 1, 3, 5)),  # 1.67 rounds to 2 each, 6 in all: every bound moves down by one
        ((969, 30, 1), 3, (0, 3, 3, 3)),
    ],
)
def test_documents_are_split_as_megatron_splits_them(
    shares: tuple[float, ...], documents: int, bounds: tuple[int, ...]
) -> None:
    assert megatron.split_documents(shares, documents) == bounds


def test_a_blend_in_its_shares(tmp_path: Path) -> None:
    for name, token in (("a", 1), ("b", 2), ("c", 3)):
        write(tmp_path / name, [[[token] * 50]] * 40)
    blend = DataConfig(
        source="megatron",
        paths=tuple(str(tmp_path / n) for n in "abc"),
        weights=(0.6, 0.4, 0),
        split=(50, 50, 0),
    )
    files = sources.inspect(blend)
    assert isinstance(files, sources.TokenFiles)
    assert files.describe() == "blend of 3: 2,000 tokens to train on, 2,000 held out"
    batch = batches.Batches(files.mixture, 8, seed=1).micro_batch(0, 50)
    assert [(batch == n).all(1).sum() for n in (1, 2, 3)] == [30, 20, 0]
    same = DataConfig(**{**vars(blend), "weights": (6, 4, 0)})
    assert sources.inspect(same).fingerprint == files.fingerprint
    other = DataConfig(**{**vars(blend), "weights": (7, 3, 0)})
    assert sources.inspect(other).fingerprint != files.fingerprint


def test_the_fingerprint_follows_index_split_and_sampled_tokens(tmp_path: Path) -> None:
    documents = random_documents(30)
    before = sources.inspect(source(write(tmp_path / "d", documents))).fingerprint
    assert sources.inspect(source(f"{tmp_path / 'd'}.bin")).fingerprint == before  # one of the two files was named
    assert sources.inspect(source(tmp_path / "d", split=(90, 10))).fingerprint != before
    documents[7][0][0] += 1
    assert sources.inspect(source(write(tmp_path / "d", documents))).fingerprint != before
    documents[7][0][0] -= 1
    (tmp_path / "moved").mkdir()
    assert sources.inspect(source(write(tmp_path / "moved" / "d", documents))).fingerprint == before


def damage(prefix: Path, suffix: str, at: int, new: bytes) -> None:
    path = Path(f"{prefix}{suffix}")
    raw = bytearray(path.read_bytes())
    raw[at : at + len(new)] = new
    path.write_bytes(raw)


def test_wrong_files_are_named_before_training(tmp_path: Path) -> None:
    prefix = tmp_path / "d"
    documents = random_documents(20)

    def refused(said: str, **options: Any) -> None:
        with pytest.raises(ConfigError, match=said) as error:
            sources.inspect(source(prefix, **options))
        assert "\n" not in str(error.value)
        write(prefix, documents)

    refused(r"d\.idx: cannot be read \(No such file")
    Path(f"{prefix}.bin").unlink()
    refused(r"d\.bin: cannot be read \(No such file")
    with Path(f"{prefix}.bin").open("ab") as file:
        file.write(b"\x00\x00")
    refused(r"d\.idx: its last sequence ends at byte \d+, but d\.bin holds \d+; the two belong to different datasets")
    damage(prefix, ".idx", 0, b"TNTIDX\x00\x00\x00")
    refused(r"d\.idx: not the index of a Megatron dataset")
    damage(prefix, ".idx", 9, struct.pack("<Q", 2))
    refused(r"d\.idx: index version 2; version 1 is supported")
    damage(prefix, ".idx", 17, b"\x09")
    refused(r"d\.idx: token type code 9; supported: 1, 2")
    Path(f"{prefix}.idx").write_bytes(Path(f"{prefix}.idx").read_bytes()[:-8])
    refused(r"d\.idx: \d+ bytes instead of the \d+ of its header")
    damage(prefix, ".idx", 34, struct.pack("<i", 59_000))
    refused(r"d\.idx: sequences 0 … 19 are not contiguous")
    damage(prefix, ".idx", 34 + 12 * 20 + 8, struct.pack("<q", 15))
    refused("out of order after document 0")
    damage(prefix, ".idx", 34 + 12 * 20 + 8 * 20, struct.pack("<q", 19))
    refused("its documents span sequences 0 to 19, not 0 to 20")
    damage(prefix, ".bin", 10, struct.pack("<H", 50_300))
    refused(r"d\.bin: token id 50300 at token 5 \(byte 10\) is beyond the vocabulary of 50257; set data\.vocab_size")
    refused(r"data\.split = \[1,100\] leaves no training documents of the 20", split=(1, 100))
    refused(r"data\.split = \[949,1\] leaves no validation documents of the 20", split=(949, 1))
    Path(f"{prefix}.idx").write_bytes(MAGIC + struct.pack("<QBQQ", 1, 8, 0, 1) + bytes(8))
    refused("holds no documents")
    assert sources.inspect(source(prefix)).vocab_size == 50257


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "a", "paths": ["a"], "weights": [1]}, "not both"),
        ({"paths": ["a", "b"], "weights": [1]}, r"1 weights for 2 data\.paths"),
        ({"paths": ["a", "b"], "weights": [0, 0]}, r"data\.weights = \[0\.0, 0\.0\]: weights are 0 or positive"),
        ({"paths": ["a", "b"], "weights": [2, -1]}, r"data\.weights = \[2\.0, -1\.0\]: weights are 0 or positive"),
        ({"path": "a", "split": [1]}, "two or three shares"),
        ({"path": "a", "split": [1, 0, 1]}, "those of training and validation above 0"),
        ({"path": "a", "vocab_file": "v"}, r"data\.merges_file is null"),
        ({"path": "a", "validation_documents": ["x"]}, "is for data=text"),
        ({"source": "text", "path": "a", "paths": ["b"]}, "a blend needs data=megatron"),
        ({"source": "text", "path": "a", "tokenizer": "gpt2"}, r"needs data\.vocab_file"),
        ({"source": "text", "path": "a", "vocab_file": "v", "merges_file": "m"}, r"set data\.tokenizer=gpt2"),
        ({"source": "text", "path": "a", "vocab_size": 300}, "whose tokenizer knows it"),
    ],
)
def test_contradictory_settings_are_named(options: dict[str, Any], said: str) -> None:
    from cl_bench.config import schema

    with pytest.raises(ConfigError, match=said) as error:
        schema.build(DataConfig, {"source": "megatron", **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"), [("megatron", "PREFIX of PREFIX.bin"), ("nanogpt", "FOLDER"), ("llmc", "FOLDER")]
)
def test_missing_data_can_be_planned_but_not_trained_on(tmp_path: Path, source: str, said: str) -> None:
    run = run_config(data={"source": source, "path": None})
    launch = LaunchConfig(outputs=str(tmp_path), dry_run=True)
    planned = plan.build([run], launch, plan.Corpora())
    assert planned.runs[0].config.model.vocab_size == 50257
    assert "planned without it" in planned.texts[0]
    with pytest.raises(ConfigError, match=rf"data=\w+ needs data.path={said}"):
        plan.build([run], LaunchConfig(outputs=str(tmp_path)), plan.Corpora())
