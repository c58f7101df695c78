"""Order in which the datasets of a mixture contribute samples, in closed form.

Megatron takes each sample from the dataset that is furthest behind its share, which needs a table as long as the
training. Here two datasets share samples as a line of slope w crosses a grid: the first contributes round(k w) of the
first k samples. More datasets are joined in a tree, the two lightest first (Huffman). The rounding error at a node is
at most 1/2 and reaches a child multiplied by the child's share of the node. In such a tree two consecutive shares
multiply to at most 1/2, so a dataset's count is within 1/2 (1 + 1 + 1/2 + 1/2 + 1/4 + …) = 2 samples of its weight's
share of k, and mostly within one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

_UNIT_BITS = 32
_UNIT = 1 << _UNIT_BITS
_Node = tuple["_Node", "_Node", int] | int
"""The heavier child, the lighter one and the heavier one's share in units of 2^-32; or a dataset."""


class MixtureSampler:
    """Sample k -> (dataset, index within it), a function of k and the weights: no state, O(datasets) memory."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._tree = _tree(weights)
        self.n = len(weights)

    def at(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Dataset (n,) and index within it (n,), both int64, of samples (n,); exact up to 2^62 samples."""
        dataset = np.empty(len(samples), np.int64)
        index = np.empty(len(samples), np.int64)
        self._descend(self._tree, np.asarray(samples, np.uint64), np.arange(len(samples)), dataset, index)
        return dataset, index

    def _descend(self, node: _Node, k: np.ndarray, where: np.ndarray, dataset: np.ndarray, index: np.ndarray) -> None:
        if isinstance(node, int):
            dataset[where], index[where] = node, k.astype(np.int64)
            return
        heavier, lighter, share = node
        before = _share_of(k, share)
        taken = _share_of(k + np.uint64(1), share) > before
        if taken.any():
            self._descend(heavier, before[taken], where[taken], dataset, index)
        if not taken.all():
            self._descend(lighter, (k - before)[~taken], where[~taken], dataset, index)


def _share_of(k: np.ndarray, share: int) -> np.ndarray:
    """round(k share / 2^32), halves up, in integers; the halves of k are multiplied apart, which avoids overflow."""
    bits, w = np.uint64(_UNIT_BITS), np.uint64(share)
    high, low = k >> bits, k & np.uint64(_UNIT - 1)
    return high * w + ((low * w + np.uint64(_UNIT // 2)) >> bits)


def _tree(weights: Sequence[float]) -> _Node:
    """Huffman tree of the datasets of positive weight."""
    heap: list[tuple[float, int, _Node]] = [(float(w), n, n) for n, w in enumerate(weights) if w > 0]
    heapq.heapify(heap)
    number = len(weights)
    while len(heap) > 1:
        light, _, lighter = heapq.heappop(heap)
        heavy, _, heavier = heapq.heappop(heap)
        # Rounding to a whole unit would exclude the lighter one, if the weights differ by 2^32.
        share = min(_UNIT - 1, round(heavy / (heavy + light) * _UNIT))
        heapq.heappush(heap, (light + heavy, number, (heavier, lighter, share)))
        number += 1
    return heap[0][2]
