"""Zero-shot metrics of a model: WikiText-103's word-level perplexity and LAMBADA's last-word accuracy."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from cl_bench.data.batches import IGNORED
from cl_bench.errors import UserError
from cl_bench.evals.tasks import Passage, Text
from cl_bench.training.model import GPT2

STRIDE = 32
"""Default stride in tokens, as in Megatron-LM's --overlapping-eval."""
LARGEST_EXPONENT = 20.0
"""Megatron-LM's cap on the logarithm of a perplexity."""

Progress = Callable[[int, int], None]
"""Called with (forward passes done, forward passes in all)."""
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """A result on WikiText-103."""

    word_ppl: float
    """exp(min(20, loss x (tokens - 1) / (words - 1)))."""
    loss: float
    """Mean over all tokens but the first, in nats per token."""
    tokens: int
    words: int
    window: int
    """Longest input, in tokens."""
    stride: int
    """Tokens that each window but the first scores."""


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A result on LAMBADA."""

    accuracy: float
    """Share of the passages whose last word is predicted, every token being the most likely one."""
    correct: int
    passages: int
    window: int
    """Longest input, in tokens."""
    cut: int
    """Passages longer than the window, cut at their beginning."""
    strict: bool


@dataclasses.dataclass(frozen=True)
class Window:
    """One forward pass over the inputs tokens[start : start + length]; targets are shifted by one."""

    start: int
    length: int
    scored: int
    """Number of targets scored, at the end of the window."""


def windows(n_tokens: int, window: int, stride: int) -> list[Window]:
    """Windows that score each token but the first of `n_tokens` exactly once.

    The first window scores all of its targets, each later one the next `stride` targets with at least window - stride
    tokens of context (Megatron-LM, tasks/zeroshot_gpt/datasets.py). The last may be shorter.
    """
    targets = n_tokens - 1
    result = [Window(0, min(window, targets), min(window, targets))]
    for start in range(stride, targets - window + stride, stride):
        length = min(window, targets - start)
        result.append(Window(start, length, length - (window - stride)))
    return result


def check_stride(stride: int, window: int) -> None:
    """Raise UserError for a stride that leaves gaps between windows or does not advance."""
    if not 1 <= stride <= window:
        raise UserError(
            f"--stride = {stride}: must be 1 … {window}, the window (the run's max_seqlen), so that windows "
            "advance without gaps"
        )


@torch.inference_mode()
def perplexity(
    model: GPT2, text: Text, window: int, stride: int, batch: int, progress: Progress | None = None
) -> Perplexity:
    """Word-level perplexity of a text under a model in evaluation mode, `batch` windows at a time.

    Raises UserError unless the stride lies between 1 and the window.
    """
    check_stride(stride, window)
    tokens = torch.from_numpy(np.asarray(text.tokens, np.int64))
    device = model.tokens.weight.device
    by_shape = itertools.groupby(windows(len(tokens), window, stride), lambda w: (w.length, w.scored))
    batches = [group for _, same_shape in by_shape for group in _batched(list(same_shape), batch)]
    total = 0.0
    for done, group in enumerate(batches, 1):
        length, scored = group[0].length, group[0].scored
        blocks = torch.stack([tokens[w.start : w.start + length + 1] for w in group]).to(device)  # (b, length + 1)
        logits = model.head(model.features(blocks[:, :-1])[:, -scored:])  # (b, scored, V)
        losses = F.cross_entropy(logits.float().flatten(0, 1), blocks[:, -scored:].flatten(), reduction="none")
        total += losses.double().sum().item()
        if progress:
            progress(done, len(batches))
    loss = total / (len(tokens) - 1)
    per_word = loss * (len(tokens) - 1) / (text.words - 1)
    return Perplexity(math.exp(min(LARGEST_EXPONENT, per_word)), loss, len(tokens), text.words, window, stride)


@torch.inference_mode()
def accuracy(
    model: GPT2, passages: Sequence[Passage], window: int, batch: int, *, strict: bool, progress: Progress | None = None
) -> Accuracy:
    """Last-word accuracy of a model in evaluation mode, `batch` passages at a time.

    A passage longer than the window is cut at its beginning. Raises UserError for a last word longer than the window.
    """
    for passage in passages:
        if len(passage.word) > window:
            raise UserError(
                f"line {passage.line}: its last word has {len(passage.word)} tokens, more than the window of "
                f"{window}; are its words separated by spaces?"
            )
    device = model.tokens.weight.device
    correct = 0
    ordered = sorted(passages, key=lambda p: len(p.context) + len(p.word))  # similar lengths need little padding
    n_batches = math.ceil(len(ordered) / batch)
    for done, group in enumerate(_batched(ordered, batch), 1):
        inputs, labels = (torch.from_numpy(x).to(device) for x in _padded(group, window))
        of_word = labels != IGNORED
        right = model.head(model.features(inputs)[of_word]).argmax(-1) == labels[of_word]  # (tokens of the words,)
        missed = set(of_word.nonzero()[:, 0][~right].tolist())
        correct += len(group) - len(missed)
        if progress:
            progress(done, n_batches)
    cut = sum(len(p.context) + len(p.word) - 1 > window for p in passages)
    return Accuracy(correct / len(passages), correct, len(passages), window, cut, strict)


def _batched(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]


def _padded(passages: Sequence[Passage], window: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels (b, T), T <= window, padded at the end; labels are IGNORED but for the last words."""
    ids = [np.concatenate([p.context, p.word])[-(window + 1) :] for p in passages]
    longest = max(map(len, ids)) - 1
    inputs = np.zeros((len(ids), longest), np.int64)
    labels = np.full((len(ids), longest), IGNORED, np.int64)
    for row, (tokens, passage) in enumerate(zip(ids, passages, strict=True)):
        n = len(tokens) - 1
        inputs[row, :n] = tokens[:-1]
        labels[row, n - len(passage.word) : n] = passage.word
    return inputs, labels
