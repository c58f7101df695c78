"""Training batches and validation blocks, read from tokens on disk.

The order of the blocks is a permutation computed from (seed, consumed_samples). It needs no state and O(1) memory, and
is the same for every world size and after every resume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cl_bench.config.schema import ConfigError
from cl_bench.data.mixture import MixtureSampler
from cl_bench.data.spans import Mixture, Span
from cl_bench.schedules import StepShape

IGNORED = -100
"""Label of padding: PyTorch's default ignore_index of cross_entropy."""


class Permutation:
    """A permutation of `n` blocks for every epoch, in O(1) memory: a keyed Feistel network with cycle walking.

    Sample k of a run is block perm_epoch(k mod n) with epoch = k div n, so an epoch visits every block once.
    """

    _ROUNDS = 4

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.seed = seed
        # Two halves of equal width; their product, the smallest even power of two >= n, is at most 4n, so cycle walking
        # takes few rounds on average.
        self._half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << self._half) - 1)

    def at(self, samples: np.ndarray) -> np.ndarray:
        """Block indices (n,), int64, of samples (n,)."""
        samples = np.asarray(samples, np.uint64)
        n = np.uint64(self.n)
        epochs, index = samples // n, samples % n
        keys = _mix(epochs + _mix(np.uint64(self.seed)))
        index = self._permute(index, keys)
        while (outside := index >= n).any():
            index[outside] = self._permute(index[outside], keys[outside])
        return index.astype(np.int64)

    def _permute(self, value: np.ndarray, keys: np.ndarray) -> np.ndarray:
        half = np.uint64(self._half)
        left, right = value >> half, value & self._mask
        for round_number in range(self._ROUNDS):
            left, right = right, left ^ (_mix(right + keys + np.uint64(round_number << 48)) & self._mask)
        return (left << half) | right


def _mix(value: np.ndarray | np.uint64) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al., 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        z = np.asarray(value, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Blocks:
    """Spans of tokens cut into blocks of seqlen + 1; within a span a block's last token is the next one's first."""

    def __init__(self, spans: Sequence[Span], seqlen: int, vocab_size: int) -> None:
        self.spans = spans
        self.seqlen = seqlen
        self.vocab_size = vocab_size
        self._ends = np.cumsum([(span.n - 1) // seqlen for span in spans])
        self.n = int(self._ends[-1])
        if self.n == 0:
            raise ConfigError(f"{spans[0].path}: holds no block of {seqlen + 1} tokens; give more data")

    def take(self, blocks: np.ndarray) -> np.ndarray:
        """int64 tokens (len(blocks), seqlen + 1). Raises ConfigError for an id beyond the vocabulary."""
        tokens = np.empty((len(blocks), self.seqlen + 1), np.int64)
        spans = np.searchsorted(self._ends, blocks, side="right")
        for number in np.unique(spans).tolist():
            span, in_span = self.spans[number], spans == number
            first = int(self._ends[number - 1]) if number else 0
            positions = (blocks[in_span] - first)[:, None] * self.seqlen + np.arange(self.seqlen + 1)
            tokens[in_span] = span.read(positions)
            span.check_ids(tokens[in_span], positions, self.vocab_size)
        return tokens


class Batches:
    """The training batches of one rank."""

    def __init__(self, mixture: Mixture, seqlen: int, seed: int) -> None:
        self.blocks = [Blocks(d.train, seqlen, mixture.vocab_size) for d in mixture.datasets]
        self.orders = [Permutation(b.n, _dataset_seed(seed, n)) for n, b in enumerate(self.blocks)]
        self.sampler = MixtureSampler(mixture.weights)

    def micro_batch(self, first_sample: int, count: int) -> np.ndarray:
        """int64 tokens (count, seqlen + 1) of samples first_sample … in the run's order.

        Raises ConfigError for an id beyond the vocabulary.
        """
        dataset, index = self.sampler.at(np.arange(first_sample, first_sample + count))
        return _gather(self.blocks, dataset, [o.at(index[dataset == n]) for n, o in enumerate(self.orders)])


def validation_blocks(mixture: Mixture, seqlen: int, n_blocks: int) -> np.ndarray:
    """int64 tokens (at most n_blocks, seqlen + 1): the same blocks for every run, spread evenly over the held-out data.

    Each dataset of a mixture contributes its share. Raises ConfigError for an id beyond the vocabulary.
    """
    blocks = [Blocks(d.validation, seqlen, mixture.vocab_size) for d in mixture.datasets]
    dataset, index = MixtureSampler(mixture.weights).at(np.arange(n_blocks))
    indices = []
    for number, held_out in enumerate(blocks):
        count = min(int((dataset == number).sum()), held_out.n)
        indices.append(np.arange(count) * held_out.n // max(count, 1))
    exists = index < np.array([len(i) for i in indices])[dataset]
    return _gather(blocks, dataset[exists], indices)


def _gather(blocks: Sequence[Blocks], dataset: np.ndarray, indices: Sequence[np.ndarray]) -> np.ndarray:
    """int64 tokens (len(dataset), seqlen + 1): row k is the next block in `indices[dataset[k]]` of that dataset."""
    tokens = np.empty((len(dataset), blocks[0].seqlen + 1), np.int64)
    for number, own in enumerate(indices):
        if len(own):
            tokens[dataset == number] = blocks[number].take(own)
    return tokens


def _dataset_seed(seed: int, dataset: int) -> int:
    """Seed of a dataset in a mixture; the first one has the run's own."""
    return (seed + (dataset << 32)) % 2**64


def cut(tokens: np.ndarray, shape: StepShape) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels (rows, padded length) of a step's shape out of full blocks (n, full + 1)."""
    return pad(*to_length(tokens, shape.seqlen, shape.mode), shape.padded_seqlen)


def pad(inputs: np.ndarray, labels: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels (n, seqlen) padded at the end to (n, length); the padding's labels are IGNORED.

    Attention is causal, so padding at the end does not change the outputs before it.
    """
    missing = ((0, 0), (0, length - inputs.shape[1]))
    if not missing[1][1]:
        return inputs, labels
    return np.pad(inputs, missing), np.pad(labels, missing, constant_values=IGNORED)


def to_length(tokens: np.ndarray, seqlen: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of length `seqlen` from full blocks (n, full + 1).

    truncate: (n, seqlen), the first tokens of each block. reshape: (n x ceil(full / seqlen), seqlen), every token of
    the batch; unless seqlen divides the full length, the last row of a block is padded, its labels IGNORED.
    """
    full = tokens.shape[1] - 1
    if mode == "truncate" or seqlen == full:
        return tokens[:, :seqlen], tokens[:, 1 : seqlen + 1]
    padding = -full % seqlen
    inputs = np.pad(tokens[:, :-1], ((0, 0), (0, padding)))
    labels = np.pad(tokens[:, 1:], ((0, 0), (0, padding)), constant_values=IGNORED)
    return inputs.reshape(-1, seqlen), labels.reshape(-1, seqlen)
