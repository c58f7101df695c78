"""Tokens on disk as spans of memory-mapped files, read only where they are accessed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl_bench.config.schema import ConfigError

PAGE = 4096
"""Bytes of one sample of a file."""
_SAMPLES = 256
"""Pages sampled per part of a dataset, spread evenly over its files."""
_CHECKED_WHOLE = 1 << 26
"""Spans of up to this many bytes are checked completely before training, in 30 ms."""
_LARGE = 1 << 30
"""Files above this many bytes are read without read-ahead, which random access would waste."""


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of tokens within one file."""

    path: Path
    dtype: str
    """numpy's name of the token type, little-endian."""
    offset: int
    """Bytes before the first token."""
    n: int
    """Tokens."""

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """The tokens (n,), memory-mapped: they take address space, not memory."""
        dtype = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(self._mapped, dtype, count=self.n, offset=self.offset)

    @functools.cached_property
    def _mapped(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._is_large:
            mapped.madvise(mmap.MADV_RANDOM)
        return mapped

    @property
    def _is_large(self) -> bool:
        return self.n * np.dtype(self.dtype).itemsize > _LARGE

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Tokens at `positions`, in their shape: a copy."""
        tokens: np.ndarray = self.tokens[positions]
        if self._is_large:
            # The kernel may keep the pages, but they no longer count as this process's memory, which would grow to the
            # size of the file.
            self._mapped.madvise(mmap.MADV_DONTNEED)
        return tokens

    def check_ids(self, ids: np.ndarray, positions: np.ndarray, vocab_size: int) -> None:
        """Raise ConfigError naming the first of `ids`, read at `positions` of the span, beyond the vocabulary."""
        outside = (ids < 0) | (ids >= vocab_size)
        if not outside.any():
            return
        first = np.flatnonzero(outside.ravel())[0]
        position = self.offset // np.dtype(self.dtype).itemsize + int(positions.ravel()[first])
        byte = self.offset + int(positions.ravel()[first]) * np.dtype(self.dtype).itemsize
        raise ConfigError(
            f"{self.path}: token id {ids.ravel()[first]} at token {position} (byte {byte}) is beyond the vocabulary of "
            f"{vocab_size}; set data.vocab_size to the tokenizer's, or look for a file of another token type"
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One dataset, split into the spans of each part."""

    name: str
    """Name in messages."""
    train: tuple[Span, ...]
    validation: tuple[Span, ...]

    @property
    def n_train(self) -> int:
        """Training tokens."""
        return sum(s.n for s in self.train)

    @property
    def n_validation(self) -> int:
        """Validation tokens."""
        return sum(s.n for s in self.validation)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Training and validation data: one dataset, or several with the shares of samples that each contributes."""

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...]
    """One per dataset, in any unit."""
    vocab_size: int
    """Token ids are below this."""


def sample(spans: Sequence[Span], vocab_size: int) -> bytes:
    """SHA-256 of the spans' names and sizes and of pages spread evenly over them; reads one megabyte of any size.

    A change between the pages goes unnoticed; the alternative is to read up to 300 GB before every launch. Raises
    ConfigError for an id beyond the vocabulary in a sampled page or anywhere in a small span.
    """
    digest = hashlib.sha256()
    for span in spans:
        digest.update(f"{span.path.name}\0{span.dtype}\0{span.offset}\0{span.n}\0".encode())
        pages = max(2, _SAMPLES // len(spans))
        per_page = PAGE // np.dtype(span.dtype).itemsize
        starts = np.unique(np.linspace(0, max(0, span.n - per_page), pages).astype(np.int64))
        for start in starts.tolist():
            positions = np.arange(start, min(start + per_page, span.n))
            tokens = span.read(positions)
            span.check_ids(tokens, positions, vocab_size)
            digest.update(tokens.tobytes())
        small = span.n * np.dtype(span.dtype).itemsize <= _CHECKED_WHOLE
        if small and not 0 <= int(span.tokens.min()) <= int(span.tokens.max()) < vocab_size:
            span.check_ids(span.tokens, np.arange(span.n), vocab_size)
    return digest.digest()


def whole_file(path: Path, dtype: str, header_bytes: int = 0) -> Span:
    """All tokens of a file after its header. Raises ConfigError for a missing, empty or cut-off file."""
    try:
        size = path.stat().st_size - header_bytes
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    itemsize = np.dtype(dtype).itemsize
    if size <= 0:
        raise ConfigError(f"{path}: holds no tokens")
    if size % itemsize:
        raise ConfigError(
            f"{path}: {size} bytes are not a multiple of {itemsize}, the size of a {dtype} token; the file is cut "
            "short or of another type"
        )
    return Span(path, dtype, header_bytes, size // itemsize)
