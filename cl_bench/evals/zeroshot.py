"""Zero-shot metrics of a model: WikiText-103's word-level perplexity and LAMBADA's last-word accuracy."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from cl_bench.data.batches import IGNORED
from cl_bench.errors import UserError
from cl_bench.evals.tasks import Passage, Text
from cl_bench.training.model import GPT2

STRIDE = 32
"""Default stride, in tokens, where the window is not shorter: Megatron-LM's --overlapping-eval."""
LARGEST_EXPONENT = 20.0
"""Megatron-LM's cap on the logarithm of a perplexity."""

Progress = Callable[[int, int], None]
"""Called with (forward passes done, of all)."""


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """WikiText-103."""

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
    """LAMBADA."""

    accuracy: float
    """Share of the passages whose last word's tokens are all the likeliest."""
    correct: int
    passages: int
    window: int
    """Longest input, in tokens."""
    cut: int
    """Passages longer than the window, which lost their beginning."""
    strict: bool


@dataclasses.dataclass(frozen=True)
class Window:
    """One forward pass over inputs tokens[start : start + length] with targets one further."""

    start: int
    length: int
    scored: int
    """Targets that count: the last so many."""


def windows(n_tokens: int, window: int, stride: int) -> list[Window]:
    """Windows that score each token but the first of `n_tokens` exactly once.

    The first scores all of its targets, each later one the `stride` after those, with at least window - stride tokens
    before them (Megatron-LM, tasks/zeroshot_gpt/datasets.py). The last may be shorter.
    """
    targets = n_tokens - 1
    found = [Window(0, min(window, targets), min(window, targets))]
    for start in range(stride, targets - window + stride, stride):
        length = min(window, targets - start)
        found.append(Window(start, length, length - (window - stride)))
    return found


def check_stride(stride: int, window: int) -> None:
    """Raise UserError when windows would not meet, or not move on."""
    if not 1 <= stride <= window:
        raise UserError(
            f"--stride = {stride}: must be 1 … {window}, the window (the run's max_seqlen), so that windows meet "
            "and move on"
        )


@torch.inference_mode()
def perplexity(
    model: GPT2, text: Text, window: int, stride: int, batch: int, progress: Progress | None = None
) -> Perplexity:
    """Word-level perplexity of a text under a model in evaluation mode, `batch` windows at a time.

    Raises UserError when the stride does not lie between 1 and the window.
    """
    check_stride(stride, window)
    tokens = torch.from_numpy(np.asarray(text.tokens, np.int64))
    device = model.tokens.weight.device
    alike = [
        list(group)
        for _, group in itertools.groupby(windows(len(tokens), window, stride), lambda w: (w.length, w.scored))
    ]
    batches = [group[i : i + batch] for group in alike for i in range(0, len(group), batch)]
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

    A passage longer than the window loses its beginning. Raises UserError for a word that alone is longer.
    """
    for passage in passages:
        if len(passage.word) > window:
            raise UserError(
                f"line {passage.line}: its last word makes {len(passage.word)} tokens, more than the window of "
                f"{window}; are its words separated by spaces?"
            )
    device = model.tokens.weight.device
    correct = 0
    ordered = sorted(passages, key=lambda p: len(p.context) + len(p.word))  # alike lengths need little padding
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


def _batched(passages: Sequence[Passage], size: int) -> Iterator[Sequence[Passage]]:
    for i in range(0, len(passages), size):
        yield passages[i : i + size]


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
