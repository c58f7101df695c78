"""The k-th sample of a sampler: a closed form that keeps to the weights, and counts each dataset's samples in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_bench.data.mixture import MixtureSampler


def greedy(weights: list[float], n: int) -> np.ndarray:
    """Megatron's build_blending_indices: each sample from the dataset that is furthest behind."""
    shares = np.array(weights) / sum(weights)
    counts = np.zeros(len(weights))
    chosen = []
    for k in range(n):
        chosen.append(int(np.argmax(shares * max(k, 1) - counts)))
        counts[chosen[-1]] += 1
    return np.array(chosen)


def furthest(weights: list[float], dataset: np.ndarray) -> float:
    """The largest distance of a count from its share of the samples so far, after every sample."""
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(dataset[:, None] == np.arange(len(weights)), axis=0)
    return float(np.abs(counts - shares * np.arange(1, len(dataset) + 1)[:, None]).max())


def test_two_datasets_by_hand() -> None:
    # round(0.75 k), halves up, of k = 0 … 8: 0 1 2 2 3 4 5 5 6
    dataset, index = MixtureSampler([3, 1]).at(np.arange(8))
    assert dataset.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert index.tolist() == [0, 1, 0, 2, 3, 4, 1, 5]


def test_one_dataset_gives_every_sample() -> None:
    dataset, index = MixtureSampler([0.3]).at(np.array([0, 5, 2**40]))
    assert dataset.tolist() == [0, 0, 0]
    assert index.tolist() == [0, 5, 2**40]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9).filter(lambda w: sum(w) > 0.01))
def test_shares_stay_near_the_weights_and_samples_in_order(weights: list[float]) -> None:
    dataset, index = MixtureSampler(weights).at(np.arange(3000))
    assert furthest(weights, dataset) <= 2
    for number, weight in enumerate(weights):
        mine = index[dataset == number]
        assert (mine == np.arange(len(mine))).all()  # every sample of a dataset once, in order
        assert weight > 0 or not len(mine)


@pytest.mark.parametrize("weights", [[0.7, 0.3], [0.5, 0.25, 0.25], [22.7, 18.1, 14.4, 11.2, 9.0, 1.3, 0.4], [1] * 40])
def test_as_near_as_megatrons_greedy_choice_within_a_sample(weights: list[float]) -> None:
    ours, theirs = MixtureSampler(weights).at(np.arange(5000))[0], greedy(weights, 5000)
    assert furthest(weights, ours) <= furthest(weights, theirs) + 1
    counts = [np.bincount(d, minlength=len(weights)) for d in (ours, theirs)]
    assert np.abs(counts[0] - counts[1]).max() <= 2


def test_the_order_does_not_depend_on_the_size_of_a_request() -> None:
    sampler = MixtureSampler([5, 2, 1])
    whole = np.stack(sampler.at(np.arange(1000)))
    ranks = np.concatenate(
        [np.stack(MixtureSampler([5, 2, 1]).at(np.arange(s, s + 8))) for s in range(0, 1000, 8)], axis=1
    )
    assert (whole == ranks).all()


def test_a_distant_sample_is_exact_and_cheap() -> None:
    far = 10**15
    dataset, index = MixtureSampler([2, 1]).at(np.arange(far, far + 3))
    assert sorted(dataset.tolist()) == [0, 0, 1]
    assert abs(int(index[dataset == 0][0]) - 2 * far / 3) < far * 2.0**-32  # weights are held to 2^-33
