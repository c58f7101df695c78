"""Tokens on disk -> the blocks of a step.

The order of the blocks is a permutation computed from (seed, consumed_samples): it needs no state and no memory, and is
the same for every number of ranks and after every resume.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

IGNORED = -100
"""Label of padding: PyTorch's default ignore_index of cross_entropy."""


class Order:
    """A permutation of `n` blocks for every epoch, in O(1) memory: a keyed Feistel network with cycle walking.

    Sample k of a run is block perm_epoch(k mod n) with epoch = k div n, so an epoch visits every block once.
    """

    _ROUNDS = 4

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.seed = seed
        # Two halves of equal width whose product is the smallest even power of two >= n: at most 4n, so walking back
        # into the domain takes a few rounds on average.
        self._half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << self._half) - 1)

    def blocks(self, first_sample: int, count: int) -> np.ndarray:
        """Block indices (count,) of samples first_sample … first_sample + count - 1."""
        samples = np.arange(first_sample, first_sample + count, dtype=np.uint64)
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
    """A memory-mapped token file seen as blocks of seqlen + 1 tokens; a block's last token is the next one's first."""

    def __init__(self, path: Path, seqlen: int) -> None:
        self.tokens = np.memmap(path, dtype=np.uint8, mode="r")
        self.seqlen = seqlen
        self.n = (len(self.tokens) - 1) // seqlen

    def take(self, blocks: np.ndarray) -> np.ndarray:
        """int64 tokens (len(blocks), seqlen + 1)."""
        positions = blocks[:, None] * self.seqlen + np.arange(self.seqlen + 1)
        return self.tokens[positions].astype(np.int64)


class Batches:
    """The training batches of one rank."""

    def __init__(self, folder: Path, seqlen: int, seed: int) -> None:
        self.blocks = Blocks(folder / "train.bin", seqlen)
        self.order = Order(self.blocks.n, seed)

    def micro_batch(self, first_sample: int, count: int) -> np.ndarray:
        """int64 tokens (count, seqlen + 1) of samples first_sample … in the run's order."""
        return self.blocks.take(self.order.blocks(first_sample, count))


def validation_blocks(folder: Path, seqlen: int, n_blocks: int) -> np.ndarray:
    """int64 tokens (at most n_blocks, seqlen + 1): the same blocks for every run, spread evenly over the text."""
    blocks = Blocks(folder / "validation.bin", seqlen)
    count = min(n_blocks, blocks.n)
    return blocks.take(np.arange(count) * blocks.n // count)


def pad(inputs: np.ndarray, labels: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels (n, seqlen) padded at their end to (n, length); the padding's labels are IGNORED.

    Attention is causal, so what comes before the padding is computed as without it.
    """
    missing = ((0, 0), (0, length - inputs.shape[1]))
    if not missing[1][1]:
        return inputs, labels
    return np.pad(inputs, missing), np.pad(labels, missing, constant_values=IGNORED)


def to_length(tokens: np.ndarray, seqlen: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut full blocks (n, full + 1) to inputs and labels of `seqlen`.

    truncate: (n, seqlen), the first tokens of each block. reshape: (n x ceil(full / seqlen), seqlen), every token of
    the batch; where seqlen does not divide the full length the last piece is padded, its labels IGNORED.
    """
    full = tokens.shape[1] - 1
    if mode == "truncate" or seqlen == full:
        return tokens[:, :seqlen], tokens[:, 1 : seqlen + 1]
    padding = -full % seqlen
    inputs = np.pad(tokens[:, :-1], ((0, 0), (0, padding)))
    labels = np.pad(tokens[:, 1:], ((0, 0), (0, padding)), constant_values=IGNORED)
    return inputs.reshape(-1, seqlen), labels.reshape(-1, seqlen)
