"""Text <-> token ids."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cl_bench.config import DataConfig


class Tokenizer(Protocol):
    """What the rest of the code asks of a tokenizer."""

    name: str
    vocab_size: int
    """Ids lie in 0 … vocab_size - 1."""
    eot: int | None
    """Id that separates documents, None where there is none."""

    def encode(self, text: str) -> np.ndarray:
        """int64 ids (n,)."""
        ...

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids (n,); bytes that are not UTF-8 become U+FFFD."""
        ...


class Bytes:
    """One token a byte of UTF-8."""

    name = "bytes"
    vocab_size = 256
    eot: int | None = None

    def encode(self, text: str) -> np.ndarray:
        """int64 ids (n,)."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids (n,)."""
        return np.asarray(ids, np.uint8).tobytes().decode(errors="replace")


def of(config: DataConfig) -> Tokenizer:
    """The tokenizer of a run's data."""
    return Bytes()
