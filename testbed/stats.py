# SPDX-License-Identifier: Apache-2.0
"""Candidate against baseline: medians, and whether a difference means anything.

Small numbers of runs and no assumption about their distribution: an exact rank test where there are enough runs,
agreement of all pairs where there are few, and "not distinguishable" where neither says something.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
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
