# SPDX-License-Identifier: Apache-2.0
"""Who changed a verdict: the candidate, the image, or the testbed itself. Only what is still there is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One candidate on one image."""

    candidate: str
    image: str


def path(candidates: Sequence[str], images: Sequence[str]) -> list[Point]:
    """From the oldest pair to the newest, one step at a time: images first, then candidates."""
    points = [Point(candidates[0], image) for image in images]
    return points + [Point(candidate, images[-1]) for candidate in candidates[1:]]


def search(
    points: Sequence[Point], there: Callable[[Point], bool], bad: Callable[[Point], bool], rules: str = ""
) -> str:
    """What made the difference between the first point, which was good once, and the last one, which is bad now.

    Args:
        points: neighbours differ in one thing; see `path`.
        there: whether a point can still be asked.
        bad: asks it, by the rules of tonight.
        rules: what the testbed itself changed since then; empty: nothing.
    """
    if len(points) == 1:
        changed = rules or "its policies or scenarios, or the scheduler's header"
        return f"the testbed: {changed}; candidate and image are the same bytes"
    if len(points) == 2 and not rules:
        return _step(points[0], points[1], "all else that is recorded is as it was")
    known = [*(point for point in points[:-1] if there(point)), points[-1]]
    if len(known) == 1:
        return "not known: more than one thing has changed, and the earlier versions are not there any more"
    low, high = 0, len(known) - 1
    if bad(known[0]):
        if known[0] == points[0]:
            changed = rules or "its policies or scenarios"
            return f"the testbed: {changed}; the earlier candidate on the earlier image is as bad now"
        return f"earlier than {_words(known[0])}, which is bad already; what came before is not there any more"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bad(known[middle]) else (middle, high)
    return _step(known[low], known[high], f"found by judging both ({len(known)} of {len(points)} versions are there)")


def _step(good: Point, bad: Point, how: str) -> str:
    parts = []
    if good.image != bad.image:
        parts.append(f"the image, {good.image[:12]} → {bad.image[:12]}")
    if good.candidate != bad.candidate:
        parts.append(f"the candidate, {good.candidate[:12]} → {bad.candidate[:12]}")
    return f"{' or '.join(parts)}: {how}"


def _words(point: Point) -> str:
    return f"candidate {point.candidate[:12]} on image {point.image[:12]}"
