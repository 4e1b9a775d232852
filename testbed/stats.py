# SPDX-License-Identifier: Apache-2.0
"""Candidate against baseline: medians, and whether a difference means anything.

Small numbers of runs and no assumption about their distribution: an exact rank test where there are enough runs,
agreement of all pairs where there are few, and "not distinguishable" where neither says something.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb
from statistics import median
from typing import Literal

Judgement = Literal["better", "worse", "not distinguishable", "not measured"]

SIGNIFICANCE = 0.05
EXACT_LIMIT = 20
MIN_TAIL_SAMPLES = 10
"""So many samples must lie beyond a percentile before it is a figure."""


def needed_samples(name: str) -> int:
    """Samples that a figure of this name needs: 10 beyond a percentile, 1 for anything else."""
    last = name.rpartition(".p")[2]
    if not name.rpartition(".p")[0] or not last.replace(".", "", 1).isdigit():
        return 1
    beyond = max(1e-6, 1 - float(last) / 100)
    return round(MIN_TAIL_SAMPLES / beyond)


@lru_cache(maxsize=4096)
def _orders(first: int, second: int, u: int) -> int:
    """Orders of `first` + `second` values in which the rank statistic is exactly `u`."""
    if u < 0:
        return 0
    if first == 0 or second == 0:
        return 1 if u == 0 else 0
    return _orders(first - 1, second, u - second) + _orders(first, second - 1, u)


def rank_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p value of the exact Mann-Whitney test; ties are counted against a difference."""
    count, other = len(first), len(second)
    if not count or not other or max(count, other) > EXACT_LIMIT:
        return 1.0
    above = sum(1 for one in first for two in second if one > two)
    below = sum(1 for one in first for two in second if one < two)
    # A tie goes to the weaker side, so that ties never make a difference significant.
    u = count * other - max(above, below)
    total = sum(_orders(count, other, value) for value in range(count * other + 1))
    return min(1.0, 2 * sum(_orders(count, other, value) for value in range(u + 1)) / total)


def compare(
    candidate: Sequence[float],
    baseline: Sequence[float],
    *,
    better: Literal["lower", "higher"],
    resolution: float = 0.0,
    indistinct: float = 0.0,
    noise: bool,
) -> Judgement:
    """Judge one figure over paired runs.

    Args:
        candidate: one value a run.
        baseline: the values of the runs that they are paired with, in the same order.
        better: which direction is good.
        resolution: absolute differences up to this mean nothing.
        indistinct: relative differences up to this mean nothing.
        noise: whether the clock is noisy (live). Without noise, all pairs must agree.
    """
    if not candidate or not baseline:
        return "not measured"
    first, second = median(candidate), median(baseline)
    difference = first - second
    if abs(difference) <= max(resolution, indistinct * abs(second)):
        return "not distinguishable"
    if noise:
        if rank_test(candidate, baseline) > SIGNIFICANCE:
            return "not distinguishable"
    else:
        signs = {(one > two) - (one < two) for one, two in zip(candidate, baseline, strict=False)}
        if len(signs) > 1:
            return "not distinguishable"
    return "better" if (difference < 0) == (better == "lower") else "worse"


# --- runs paired by seed -------------------------------------------------------------------------------------


def _tail(count: int, most: int) -> float:
    """Probability of `most` heads or fewer in `count` throws of a fair coin."""
    return float(sum(comb(count, heads) for heads in range(most + 1)) / 2**count)


def sign_test(first: Sequence[float], second: Sequence[float], resolution: float = 0.0) -> float:
    """Two-sided p value of the exact sign test over pairs; ties are counted against a difference.

    The binomial test of Conover, Practical Nonparametric Statistics, 3rd edition (1999), section 3.4. It assumes
    nothing of the distribution, not even symmetry.

    Args:
        first: one value a pair.
        second: the other value of each pair, in the same order.
        resolution: differences up to this are ties.
    """
    pairs = list(zip(first, second, strict=True))
    above = sum(1 for one, two in pairs if one - two > resolution)
    below = sum(1 for one, two in pairs if two - one > resolution)
    # A tie goes to the weaker side, as in `rank_test`.
    return min(1.0, 2 * _tail(len(pairs), len(pairs) - max(above, below)))


def sign_interval(values: Sequence[float], confidence: float = 1 - SIGNIFICANCE) -> tuple[float, float, float]:
    """An interval for the median: low, high and the confidence that it really has.

    Order statistics, the sign test turned round (Conover, as above, section 3.2): the narrowest pair that reaches
    `confidence`, or the smallest and largest value where none does, as with five values (0.9375).
    """
    ordered = sorted(values)
    count = len(ordered)
    depth = max(
        (depth for depth in range(1, count // 2 + 1) if 1 - 2 * _tail(count, depth - 1) >= confidence), default=1
    )
    return ordered[depth - 1], ordered[count - depth], max(0.0, 1 - 2 * _tail(count, depth - 1))


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """P values of a family of tests, each raised for how many were asked.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    adjusted = [0.0] * len(values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def pairs_for(tests: int) -> int:
    """Pairs that a family of so many sign tests needs, so that pairs that all agree can be significant."""
    count = 1
    while 2 * max(1, tests) / 2**count > SIGNIFICANCE:
        count += 1
    return count
