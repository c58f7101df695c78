"""Holm's adjustment against values made by hand."""

from __future__ import annotations

import math

import pytest

from analysis.stats.holm import holm


def test_holm_by_hand() -> None:
    # ascending: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 -> 0.02, 0.03, 0.06, 0.04 -> the last may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_equal_single_and_large_values() -> None:
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.3]) == [0.3]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.0, 1.0]) == [0.0, 1.0]
    assert holm([]) == []


def test_tests_that_were_not_made_are_not_counted() -> None:
    assert holm([0.03, math.nan, 0.02]) == [pytest.approx(0.04), pytest.approx(math.nan, nan_ok=True), 0.04]
