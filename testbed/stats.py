# SPDX-License-Identifier: Apache-2.0
"""Candidate against baseline: medians, and whether a difference means anything.

Small numbers of runs and no assumption about their distribution: an exact rank test where there are enough runs,
agreement of all pairs where there are few, and "not distinguishable" where neither says something.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb, inf
from statistics import median
from typing import Literal

Judgement = Literal["better", "worse", "not distinguishable", "not measured"]

SIGNIFICANCE = 0.05
CHANCE = 0.01
"""How often chance alone may reach a noise floor."""
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


def share(first: float, second: float) -> float:
    """How much larger the first value is, in shares of the smaller one; negative where it is smaller.

    Of figures that can't be negative. Exchanging the values changes the sign only.
    """
    if first == second:
        return 0.0
    smaller = min(first, second)
    size = abs(first - second) / smaller if smaller > 0 else inf
    return size if first > second else -size


def compare(
    candidate: Sequence[float],
    baseline: Sequence[float],
    *,
    better: Literal["lower", "higher"],
    resolution: float = 0.0,
    floor: float = 0.0,
    noise: bool,
) -> Judgement:
    """Judge one figure over paired runs.

    Args:
        candidate: one value a run.
        baseline: the values of the runs that they are paired with, in the same order.
        better: which direction is good.
        resolution: absolute differences up to this mean nothing.
        floor: differences up to this share mean nothing.
        noise: whether the clock is noisy (live). Without noise, the pairs must agree.
    """
    if not candidate or not baseline:
        return "not measured"
    if noise:
        first, second = median(candidate), median(baseline)
        difference, apart = first - second, share(first, second)
        agree = rank_test(candidate, baseline) <= SIGNIFICANCE
    else:
        pairs = list(zip(candidate, baseline, strict=True))
        difference = median(one - two for one, two in pairs)
        apart = median(share(one, two) for one, two in pairs)
        agree = pairs_agree(candidate, baseline)
    if abs(difference) <= resolution or abs(apart) <= floor or not agree:
        return "not distinguishable"
    return "better" if (apart < 0) == (better == "lower") else "worse"


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


def agreement(count: int) -> int:
    """How many of so many pairs must agree: so many that a sign test is significant, or all where it can't be."""
    return next(
        (count - against for against in range(count // 2, 0, -1) if 2 * _tail(count, against) <= SIGNIFICANCE), count
    )


def pairs_agree(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether enough pairs differ in one direction; a tie agrees with nobody."""
    above = sum(1 for one, two in zip(first, second, strict=True) if one > two)
    below = sum(1 for one, two in zip(first, second, strict=True) if one < two)
    return max(above, below) >= agreement(len(first))


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


# --- the noise floor -----------------------------------------------------------------------------------------


def chance_floor(differences: Sequence[float], count: int) -> float:
    """What the median of `count` differences that chance makes hardly ever exceeds (`CHANCE`), in either direction.

    Exact for differences drawn from the given ones, each as likely with its sign turned. Of an even number the next
    smaller one is taken: the mean of the two in the middle is no farther out.

    Args:
        differences: of pairs that differ by nothing but chance; their signs don't matter.
        count: how many the median is over.
    """
    odd = count - 1 + count % 2
    sizes = sorted(abs(one) for one in differences)
    for place, size in enumerate(sizes):
        beyond = sum(1 for one in sizes[place:] if one > size) / (2 * len(sizes))
        if 2 * _at_least(odd // 2 + 1, odd, beyond) <= CHANCE:
            return size
    return sizes[-1]


def power(differences: Sequence[float], loss: float, floor: float, count: int) -> float:
    """How probably a true loss is called one, over `count` pairs, with chance as in `chance_floor`.

    Args:
        differences: of pairs that differ by nothing but chance; their signs don't matter.
        loss: the share that every pair differs by, beside chance.
        floor: of medians over so many pairs.
        count: pairs of runs.
    """
    drawn = [loss + sign * abs(one) for one in differences for sign in (1, -1)]
    high = sum(1 for one in drawn if one > floor) / len(drawn)
    against = sum(1 for one in drawn if one <= 0) / len(drawn)
    odd = count - 1 + count % 2
    need, allowed = odd // 2 + 1, odd - agreement(odd)
    return sum(
        comb(odd, above)
        * comb(odd - above, below)
        * high**above
        * against**below
        * max(0.0, 1 - high - against) ** (odd - above - below)
        for above in range(need, odd + 1)
        for below in range(min(allowed, odd - above) + 1)
    )


def _at_least(most: int, count: int, probability: float) -> float:
    """Probability of `most` hits or more in `count` throws."""
    return float(
        sum(
            comb(count, hits) * probability**hits * (1 - probability) ** (count - hits)
            for hits in range(most, count + 1)
        )
    )
