"""Megatron's indexed datasets: PREFIX.bin holds the tokens, PREFIX.idx where each sequence and document begins.

DeepSpeed's reader (deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset) is not used: it imports torch, which
a plan must not; it prints; and it takes type code 8 for uint64 where Megatron-LM writes uint16. What is read here is
tested to be equal to what DeepSpeed reads.
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
    6: ("uint16",),  # DeepSpeed; a float in Megatron-LM, which no tokens are
    7: ("uint32",),  # DeepSpeed
    8: ("uint16", "uint64"),  # Megatron-LM; DeepSpeed
}
_STRETCH = 1 << 20
"""Sequences of the index that are checked at a time."""


@dataclasses.dataclass(frozen=True)
class Index:
    """What an .idx says: `first_token` and `documents` are memory-mapped."""

    prefix: Path
    dtype: str
    n_tokens: int
    offsets: np.ndarray
    """int64 (sequences,): byte in the .bin at which each sequence begins."""
    documents: np.ndarray
    """int64 (documents + 1,): the first sequence of each document, and the end."""

    @property
    def n_documents(self) -> int:
        """Documents in the dataset."""
        return len(self.documents) - 1

    def first_token(self, document: int) -> int:
        """Position in the .bin, in tokens, at which a document begins; of one past the last: the end."""
        sequence = int(self.documents[document])
        if sequence == len(self.offsets):
            return self.n_tokens
        return int(self.offsets[sequence]) // np.dtype(self.dtype).itemsize


def prefix_of(path: str) -> Path:
    """The prefix that a user means, who may have named one of its two files."""
    return Path(path.removesuffix(".bin").removesuffix(".idx")).expanduser()


def read_index(prefix: Path) -> Index:
    """The index of a dataset, checked against the size of its .bin and no further: reads the header alone.

    Raises ConfigError for files that are missing, of another format, or that do not belong together.
    """
    idx, data = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
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
        raise ConfigError(f"{idx}: index version {version}; version 1 is known")
    if code not in _DTYPES:
        raise ConfigError(f"{idx}: token type code {code}; known: {', '.join(map(str, _DTYPES))}")
    expected = _HEADER.size + 12 * sequences + 8 * documents
    if size != expected:
        raise ConfigError(f"{idx}: {size} bytes, where its header announces {expected}; it is cut short or damaged")
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
            f"{idx}: its last sequence ends at byte {ends}, but {data.name} holds {n_bytes}; the two are not of one "
            "dataset, or one of them is cut short"
        )
    doc_index = np.memmap(idx, "<i8", mode="r", offset=_HEADER.size + 12 * sequences, shape=documents)
    return Index(prefix, dtype, n_bytes // itemsize, offsets, doc_index)


def fingerprint(index: Index) -> bytes:
    """SHA-256 of the whole index, which is checked on the way.

    Raises ConfigError where sequences do not follow one another in the .bin, or documents do not in the index.
    """
    idx = index.prefix.with_name(index.prefix.name + ".idx")
    digest = hashlib.sha256(idx.open("rb").read(_HEADER.size))
    n, itemsize, end = len(index.offsets), np.dtype(index.dtype).itemsize, 0
    sizes = np.memmap(idx, "<i4", mode="r", offset=_HEADER.size, shape=n)
    for start in range(0, n, _STRETCH):
        lengths = np.array(sizes[start : start + _STRETCH])
        offsets = np.array(index.offsets[start : start + _STRETCH])
        ends = offsets[0] + np.cumsum(lengths, dtype=np.int64) * itemsize
        if offsets[0] != end or lengths.min() < 0 or (offsets[1:] != ends[:-1]).any():
            raise ConfigError(
                f"{idx}: sequences {start} … {start + len(lengths) - 1} do not follow one another in the .bin"
            )
        end = int(ends[-1])
        digest.update(lengths.tobytes())
    documents = index.documents
    if int(documents[0]) != 0 or int(documents[-1]) != n:
        raise ConfigError(f"{idx}: its documents span sequences {documents[0]} to {documents[-1]}, not 0 to {n}")
    for start in range(0, len(documents), _STRETCH):
        piece = np.array(documents[start : start + _STRETCH + 1])
        if (np.diff(piece) < 0).any():
            raise ConfigError(f"{idx}: its documents are out of order after document {start}")
        digest.update(piece[:_STRETCH].tobytes())
    return digest.digest()


def split_documents(shares: Sequence[float], n_documents: int) -> tuple[int, ...]:
    """First documents of training, validation and testing, and the end: as Megatron splits 949,50,1.

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
    """Where the tokens of a dataset's parts lie; reads the header and a few entries of the index.

    Raises ConfigError as read_index() does, and for a split that leaves a part without documents or tokens.
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
        parts[part] = Span(prefix.with_name(prefix.name + ".bin"), index.dtype, begin * itemsize, end - begin)
    return Dataset(prefix.name, (parts["training"],), (parts["validation"],))
