"""Unigram cross-entropy of a corpus: the loss of a model that has learned token frequencies and nothing else.

Small models fail by collapsing to it: the loss stays finite, without spikes, at the entropy of single tokens. It is
measured once per corpus, training counts on validation tokens, and kept in `outputs/data/<fingerprint>.unigram.json`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cl_bench.runs.paths import data_cache, write_atomic

Counts = npt.NDArray[np.float64]
SAMPLED = 1 << 24
"""Tokens counted at most per part of a corpus; larger ones are sampled, which moves the result by thousandths."""
_STRETCH = 1 << 16
"""Tokens read at once."""
_PSEUDO_COUNT = 0.5
"""Added to every token's training count, so that a validation token unseen in training has a finite cost."""


def counts(chunks: Iterable[npt.NDArray[np.integer]], vocab_size: int) -> Counts:
    """Occurrences of each token id, shape (vocab_size,), over arrays of tokens."""
    total = np.zeros(vocab_size)
    for tokens in chunks:
        total += np.bincount(np.asarray(tokens).ravel(), minlength=vocab_size)
    return total


def cross_entropy(train: Counts, validation: Counts) -> float:
    """Nats per validation token under the smoothed training frequencies; counts of shape (vocab_size,)."""
    smoothed = train + _PSEUDO_COUNT
    return -float((validation / validation.sum()) @ np.log(smoothed / smoothed.sum()))


def stretches(n: int, quota: int) -> list[tuple[int, int]]:
    """(first, end) of stretches of `n` tokens to count: all of them, or evenly spread ones of about `quota` in all."""
    if n <= quota:
        return [(start, min(start + _STRETCH, n)) for start in range(0, n, _STRETCH)]
    size = min(_STRETCH, quota)
    starts = np.linspace(0, n - size, -(-quota // size)).astype(np.int64).tolist()
    return [(start, start + size) for start in starts]


def path_of(outputs: str | Path, fingerprint: str) -> Path:
    """File that holds a corpus's unigram cross-entropy."""
    return data_cache(outputs) / f"{fingerprint}.unigram.json"


def write(outputs: str | Path, fingerprint: str, loss: float) -> None:
    """Keep a corpus's unigram cross-entropy (nats per token)."""
    write_atomic(path_of(outputs, fingerprint), json.dumps({"validation_unigram_loss": loss}))


def read(outputs: str | Path, fingerprint: str) -> float | None:
    """A corpus's unigram cross-entropy (nats per token).

    Measured from the tokens in `outputs/data/<fingerprint>` if it is not recorded, as in outputs of versions before
    0.2; None if there are no tokens either.
    """
    try:
        loss = float(json.loads(path_of(outputs, fingerprint).read_text())["validation_unigram_loss"])
    except (OSError, ValueError, KeyError, TypeError):
        meta = data_cache(outputs) / fingerprint / "meta.json"
        return _measured(meta.parent, meta.stat().st_mtime_ns) if meta.is_file() else None
    return loss if math.isfinite(loss) else None


@functools.lru_cache(maxsize=64)
def _measured(folder: Path, _changed_ns: int) -> float | None:
    """Measured from a folder of tokens, once per change of its meta.json: a watched report is written again often."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        train, validation = (
            counts(_chunks(folder / f"{part}.bin", meta["dtype"]), int(meta["vocab_size"]))
            for part in ("train", "validation")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return cross_entropy(train, validation) if validation.sum() else None


def _chunks(path: Path, dtype: str) -> Iterable[npt.NDArray[np.integer]]:
    tokens = np.memmap(path, np.dtype(dtype).newbyteorder("<"), mode="r")
    return (tokens[first:end] for first, end in stretches(len(tokens), SAMPLED))
