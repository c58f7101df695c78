"""Measurement of the unigram cross-entropy of a corpus from any source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cl_bench.data.spans import Mixture, Span
from cl_bench.runs import unigram


def ensure(mixture: Mixture, outputs: str | Path, fingerprint: str) -> float:
    """The corpus's unigram cross-entropy (nats per token), measured and written unless it is on disk."""
    loss = unigram.read(outputs, fingerprint)
    if loss is None or not unigram.path_of(outputs, fingerprint).exists():
        loss = measure(mixture) if loss is None else loss
        unigram.write(outputs, fingerprint, loss)
    return loss


def measure(mixture: Mixture) -> float:
    """Nats per validation token under training frequencies; datasets count by their weights.

    Raises ConfigError for a token id beyond the vocabulary.
    """
    size = mixture.vocab_size
    train, validation = np.zeros(size), np.zeros(size)
    total = 0
    quota = max(1, unigram.SAMPLED // len(mixture.datasets))
    for dataset, weight in zip(mixture.datasets, mixture.weights, strict=True):
        parts = (dataset.train, dataset.validation)
        ours, theirs = (unigram.counts(_sample(part, quota, size), size) for part in parts)
        train += weight * ours / ours.sum()
        validation += weight * theirs / theirs.sum()
        total += int(ours.sum())
    return unigram.cross_entropy(train * total / train.sum(), validation)


def _sample(spans: Sequence[Span], quota: int, vocab_size: int) -> Iterator[np.ndarray]:
    """Tokens of spans in stretches: all of them, or evenly spread ones of about `quota` tokens in total."""
    total = sum(span.n for span in spans)
    for span in spans:
        share = span.n if total <= quota else max(1, quota * span.n // total)
        for first, end in unigram.stretches(span.n, share):
            positions = np.arange(first, end)
            tokens = span.read(positions)
            span.check_ids(tokens, positions, vocab_size)
            yield tokens
