# SPDX-License-Identifier: Apache-2.0
"""Candidate against baseline: a difference must mean something before it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.stats import compare, holm, needed_samples, pairs_for, rank_test, sign_interval, sign_test
from tests.unit import case_builder  # noqa: F401 - its hypothesis profile

VALUES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.gap.p50", 20), ("a.gap.p99", 1000), ("a.gap.p99.9", 10_000), ("a.gap.max", 1), ("hogs.work", 1), ("p99", 1)],
)
def test_a_percentile_needs_ten_samples_beyond_it(name: str, expected: int) -> None:
    assert needed_samples(name) == expected


def test_the_rank_test_knows_the_textbook() -> None:
    assert rank_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert rank_test([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)
    assert rank_test([1, 2, 3], [1, 2, 3]) == 1.0
    assert rank_test([], [1]) == 1.0


@given(VALUES, VALUES)
def test_the_rank_test_is_symmetric_and_a_probability(first: list[float], second: list[float]) -> None:
    p = rank_test(first, second)
    assert 0 < p <= 1
    assert p == pytest.approx(rank_test(second, first))


@given(VALUES)
def test_equal_runs_are_not_distinguishable(values: list[float]) -> None:
    for noise in (False, True):
        assert compare(values, values, better="lower", noise=noise) == "not distinguishable"


@given(st.floats(1, 1e6), st.floats(0, 1))
def test_differences_below_the_resolution_mean_nothing(value: float, share: float) -> None:
    judged = compare([value + 10 * share], [value], better="lower", resolution=10.0001, noise=False)
    assert judged == "not distinguishable"


def test_direction_follows_what_is_better() -> None:
    assert compare([1], [2], better="lower", noise=False) == "better"
    assert compare([1], [2], better="higher", noise=False) == "worse"


def test_few_noisy_runs_say_nothing() -> None:
    assert compare([1, 1, 1], [9, 9, 9], better="lower", noise=True) == "not distinguishable"
    assert compare([1, 2, 3, 4, 5], [9, 8, 7, 6, 10], better="lower", noise=True) == "better"


def test_simulated_pairs_must_agree() -> None:
    assert compare([1, 9], [2, 3], better="lower", noise=False) == "not distinguishable"
    assert compare([], [1], better="lower", noise=False) == "not measured"


def test_the_sign_test_knows_the_textbook() -> None:
    assert sign_test([1, 2, 3, 4, 5], [2, 3, 4, 5, 6]) == pytest.approx(2 / 32)
    assert sign_test([1] * 9 + [3], [2] * 10) == pytest.approx(2 * 11 / 1024)
    assert sign_test([1] * 9 + [2], [2] * 10) == pytest.approx(2 * 11 / 1024)  # a tie counts as the weaker side
    assert sign_test([1.0] * 10, [1.5] * 10, resolution=0.5) == 1.0


def test_the_sign_interval_says_how_sure_it_is() -> None:
    assert sign_interval([5, 1, 4, 2, 3]) == (1, 5, 0.9375)
    low, high, confidence = sign_interval(list(range(1, 21)))
    assert (low, high) == (6, 15)  # the textbook's ranks for 20 values
    assert confidence == pytest.approx(0.9586, abs=1e-4)
    assert sign_interval([3]) == (3, 3, 0.0)


@given(VALUES, VALUES)
def test_the_sign_test_does_not_care_which_side_is_first(first: list[float], second: list[float]) -> None:
    count = min(len(first), len(second))
    assert sign_test(first[:count], second[:count]) == sign_test(second[:count], first[:count])


def test_holm_raises_p_values_and_keeps_their_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_more_figures_need_more_pairs() -> None:
    assert [pairs_for(count) for count in (0, 1, 2, 3, 14)] == [6, 6, 7, 7, 10]
