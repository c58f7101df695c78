"""Unigram cross-entropy by hand, and where it is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cl_bench.data.spans import Dataset, Mixture, whole_file
from cl_bench.data.unigram import ensure, measure
from cl_bench.runs import unigram


def test_by_hand() -> None:
    # Training: a 6 times, b 2 times, c never; half a count added to each of three: 6.5, 2.5, 0.5 of 9.5.
    train = unigram.counts([np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1])], 3)
    validation = np.array([1.0, 1.0, 0.0])
    expected = -(math.log(6.5 / 9.5) + math.log(2.5 / 9.5)) / 2
    assert unigram.cross_entropy(train, validation) == pytest.approx(expected)


def corpus(folder: Path, train: list[int], validation: list[int]) -> Path:
    folder.mkdir(parents=True)
    np.array(train, np.uint8).tofile(folder / "train.bin")
    np.array(validation, np.uint8).tofile(folder / "validation.bin")
    (folder / "meta.json").write_text(json.dumps({"dtype": "uint8", "vocab_size": 3}))
    return folder


def test_old_outputs_are_measured_from_their_tokens(tmp_path: Path) -> None:
    corpus(tmp_path / "data" / "abc", [0] * 6 + [1] * 2, [0, 1])
    assert unigram.read(tmp_path, "abc") == pytest.approx(-(math.log(6.5 / 9.5) + math.log(2.5 / 9.5)) / 2)
    assert unigram.read(tmp_path, "gone") is None
    unigram.write(tmp_path, "abc", 1.5)
    assert unigram.read(tmp_path, "abc") == 1.5


def test_unigram_loss_of_every_source(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "tokens", [0] * 6 + [1] * 2, [0, 1])
    spans = [(whole_file(folder / f"{part}.bin", "uint8"),) for part in ("train", "validation")]
    mixture = Mixture((Dataset("d", *spans),), (1.0,), 3)
    expected = -(math.log(6.5 / 9.5) + math.log(2.5 / 9.5)) / 2
    assert measure(mixture) == pytest.approx(expected)
    assert ensure(mixture, tmp_path / "out", "f") == pytest.approx(expected)
    assert unigram.read(tmp_path / "out", "f") == pytest.approx(expected)
