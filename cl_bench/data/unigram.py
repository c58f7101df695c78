"""Measurement of the unigram cross-entropy of a corpus from any source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cl_bench.data.spans import Mixture, Span
from cl_bench.runs import unigram

_SAMPLED = 1 << 26
"""Tokens counted at most per dataset and part; larger ones are sampled in evenly spread stretches."""
_STRETCH = 1 << 20


def ensure(mixture: Mixture, outputs: str | Path, fingerprint: str) -> float:
    """The corpus's unigram cross-entropy (nats per token), measured and written unless it is on disk."""
    loss = unigram.read(outputs, fingerprint)
    if loss is None or not unigram.path_of(outputs, fingerprint).exists():
        loss = measure(mixture) if loss is None else loss
        unigram.write(outputs, fingerprint, loss)
    return loss


def measure(mixture: Mixture) -> float:
    """Nats per validation token under training frequencies; datasets count by their weights."""
    train, validation = np.zeros(mixture.vocab_size), np.zeros(mixture.vocab_size)
    total = 0
    for dataset, weight in zip(mixture.datasets, mixture.weights, strict=True):
        own, held_out = (unigram.counts(_sample(spans), len(train)) for spans in (dataset.train, dataset.validation))
        train += weight * own / own.sum()
        validation += weight * held_out / held_out.sum()
        total += int(own.sum())
    return unigram.cross_entropy(train * total / train.sum(), validation)


def _sample(spans: Sequence[Span]) -> Iterator[np.ndarray]:
    """Tokens of spans in stretches: all of them, or evenly spread ones of about _SAMPLED tokens in total."""
    total = sum(span.n for span in spans)
    for span in spans:
        quota = span.n if total <= _SAMPLED else max(1, _SAMPLED * span.n // total)
        starts = np.linspace(0, max(0, span.n - _STRETCH), max(1, -(-quota // _STRETCH))).astype(np.int64)
        if quota == span.n:
            starts = np.arange(0, span.n, _STRETCH)
        for start in starts.tolist():
            yield span.read(np.arange(start, min(start + _STRETCH, span.n)))
