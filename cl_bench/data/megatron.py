"""Megatron's indexed datasets: PREFIX.bin holds the tokens, PREFIX.idx the start of each sequence and document.

DeepSpeed's reader (deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset) is not used: it imports torch, which
planning must not; it prints; and it reads type code 8 as uint64, although Megatron-LM writes uint16. A test compares
this reader with DeepSpeed's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl_bench.config.schema import ConfigError
from cl_bench.data.spans import Dataset, Span

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
"""Magic, version, type code, sequences, documents + 1; then int32 sizes, int64 byte offsets, int64 document index."""
_DTYPES: dict[int, tuple[str, ...]] = {
    1: ("uint8",),
    2: ("int8",),
    3: ("int16",),
    4: ("int32",),
    5: ("int64",),
    6: ("uint16",),  # DeepSpeed; a float type, so never tokens, in Megatron-LM
    7: ("uint32",),  # DeepSpeed
    8: ("uint16", "uint64"),  # Megatron-LM; DeepSpeed
}
_CHUNK = 1 << 20
"""Entries of the index that are checked at a time."""


@dataclasses.dataclass(frozen=True)
class Index:
    """The contents of an .idx; `offsets` and `documents` are memory-mapped."""

    prefix: Path
    dtype: str
    n_tokens: int
    offsets: np.ndarray
    """int64 (sequences,): start of each sequence in the .bin, in bytes."""
    documents: np.ndarray
    """int64 (documents + 1,): the first sequence of each document, and the end."""

    @property
    def n_documents(self) -> int:
        """Documents in the dataset."""
        return len(self.documents) - 1

    def first_token(self, document: int) -> int:
        """Start of a document in the .bin, in tokens; the end of the .bin for one past the last document."""
        sequence = int(self.documents[document])
        if sequence == len(self.offsets):
            return self.n_tokens
        return int(self.offsets[sequence]) // np.dtype(self.dtype).itemsize


def prefix_of(path: str) -> Path:
    """The prefix of a dataset named by its prefix or by one of its two files."""
    return Path(path.removesuffix(".bin").removesuffix(".idx")).expanduser()


def _file(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def read_index(prefix: Path) -> Index:
    """The index of a dataset, checked against the size of its .bin; reads the header only.

    Raises ConfigError for missing files, another format, and files that do not belong together.
    """
    idx, data = _file(prefix, ".idx"), _file(prefix, ".bin")
    try:
        size, n_bytes = idx.stat().st_size, data.stat().st_size
        with idx.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be read ({error.strerror}); data=megatron reads PREFIX.idx and PREFIX.bin"
        ) from None
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise ConfigError(f"{idx}: not the index of a Megatron dataset (it does not begin with {_MAGIC[:7].decode()})")
    _, version, code, sequences, documents = _HEADER.unpack(head)
    if version != 1:
        raise ConfigError(f"{idx}: index version {version}; version 1 is supported")
    if code not in _DTYPES:
        raise ConfigError(f"{idx}: token type code {code}; supported: {', '.join(map(str, _DTYPES))}")
    expected = _HEADER.size + 12 * sequences + 8 * documents
    if size != expected:
        raise ConfigError(f"{idx}: {size} bytes instead of the {expected} of its header; it is cut short or damaged")
    if sequences == 0 or documents < 2:
        raise ConfigError(f"{idx}: holds no documents")
    offsets = np.memmap(idx, "<i8", mode="r", offset=_HEADER.size + 4 * sequences, shape=sequences)
    last_size = np.memmap(idx, "<i4", mode="r", offset=_HEADER.size + 4 * (sequences - 1), shape=1)
    for dtype in _DTYPES[code]:
        itemsize = np.dtype(dtype).itemsize
        if int(offsets[-1]) + int(last_size[0]) * itemsize == n_bytes:
            break
    else:
        ends = int(offsets[-1]) + int(last_size[0]) * np.dtype(_DTYPES[code][0]).itemsize
        raise ConfigError(
            f"{idx}: its last sequence ends at byte {ends}, but {data.name} holds {n_bytes}; the two belong to "
            "different datasets, or one of them is cut short"
        )
    doc_index = np.memmap(idx, "<i8", mode="r", offset=_HEADER.size + 12 * sequences, shape=documents)
    return Index(prefix, dtype, n_bytes // itemsize, offsets, doc_index)


def fingerprint(index: Index) -> bytes:
    """SHA-256 of the whole index, which is also checked.

    Raises ConfigError unless the sequences are contiguous in the .bin and the documents in order in the index.
    """
    idx = _file(index.prefix, ".idx")
    digest = hashlib.sha256(idx.open("rb").read(_HEADER.size))
    n, itemsize, end = len(index.offsets), np.dtype(index.dtype).itemsize, 0
    sizes = np.memmap(idx, "<i4", mode="r", offset=_HEADER.size, shape=n)
    for start in range(0, n, _CHUNK):
        lengths = np.array(sizes[start : start + _CHUNK])
        offsets = np.array(index.offsets[start : start + _CHUNK])
        ends = offsets[0] + np.cumsum(lengths, dtype=np.int64) * itemsize
        if offsets[0] != end or lengths.min() < 0 or (offsets[1:] != ends[:-1]).any():
            raise ConfigError(f"{idx}: sequences {start} … {start + len(lengths) - 1} are not contiguous in the .bin")
        end = int(ends[-1])
        digest.update(lengths.tobytes())
    documents = index.documents
    if int(documents[0]) != 0 or int(documents[-1]) != n:
        raise ConfigError(f"{idx}: its documents span sequences {documents[0]} to {documents[-1]}, not 0 to {n}")
    for start in range(0, len(documents), _CHUNK):
        chunk = np.array(documents[start : start + _CHUNK + 1])
        if (np.diff(chunk) < 0).any():
            raise ConfigError(f"{idx}: its documents are out of order after document {start}")
        digest.update(chunk[:_CHUNK].tobytes())
    return digest.digest()


def split_documents(shares: Sequence[float], n_documents: int) -> tuple[int, ...]:
    """First document of training, validation and test data, and the end, by Megatron's split (949,50,1).

    The arithmetic, with its rounding, is that of get_train_valid_test_split_ (Megatron-DeepSpeed,
    megatron/data/dataset_utils.py).
    """
    three = [*map(float, shares), 0.0, 0.0][:3]
    total = sum(three)
    ends = [0]
    for share in three:
        ends.append(ends[-1] + round(share / total * n_documents))
    excess = ends[-1] - n_documents
    return (0, *(end - excess for end in ends[1:]))


def dataset(prefix: Path, shares: Sequence[float]) -> Dataset:
    """The spans of a dataset's parts; reads the header and a few entries of the index.

    Raises ConfigError like read_index(), and for a split that leaves a part without documents or tokens.
    """
    index = read_index(prefix)
    bounds = split_documents(shares, index.n_documents)
    parts = {}
    for number, part in enumerate(("training", "validation")):
        first, last = bounds[number], bounds[number + 1]
        begin, end = index.first_token(max(0, first)), index.first_token(max(0, last))
        if last <= first or end <= begin:
            raise ConfigError(
                f"data.split = [{','.join(f'{s:g}' for s in shares)}] leaves no {part} documents of the "
                f"{index.n_documents} in {prefix}; give that part a larger share"
            )
        itemsize = np.dtype(index.dtype).itemsize
        parts[part] = Span(_file(prefix, ".bin"), index.dtype, begin * itemsize, end - begin)
    return Dataset(prefix.name, (parts["training"],), (parts["validation"],))
