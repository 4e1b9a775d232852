# SPDX-License-Identifier: Apache-2.0
"""Numbers from night to night as lines; each line has a mark of its own, so that colour only helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from testbed.report import draw
from testbed.report.draw import WIDTH, cut, rule, text
from testbed.report.markup import Markup, points, tag

LEFT, RIGHT = 70, 250
TOP, HEIGHT = 44, 150
_MARKS = (("good", "good-line"), ("alarm", "alarm-line"), ("other", "other-line"))


@dataclass(frozen=True)
class Series:
    """One line; None where a night has no such number."""

    name: str
    values: Sequence[float | None]


def lines(
    name: str, title: str, nights: Sequence[int], series: Sequence[Series], words: Callable[[float], str]
) -> Markup:
    """A picture of at most three series over the same nights, from 0 up.

    Args:
        words: how a value is told.
    """
    highest = max((value for one in series for value in one.values if value is not None), default=0.0) or 1.0
    plot = WIDTH - LEFT - RIGHT
    foot = TOP + HEIGHT

    def x(index: int) -> float:
        return LEFT + plot * (index + 0.5) / len(nights)

    def y(value: float) -> float:
        return foot - HEIGHT * value / highest

    parts = [text(12, 22, cut(title, WIDTH - 24, 16), size=16)]
    for value in draw.steps(0.0, highest, 3):
        parts.append(rule(LEFT, y(value), LEFT + plot, y(value), "axis" if value == 0 else "grid"))
        parts.append(text(LEFT - 8, y(value) + 4, words(value), anchor="end", class_="faint", size=12))
    for index in range(0, len(nights), -(-len(nights) // 15)):
        parts.append(text(x(index), foot + 18, str(nights[index]), anchor="middle", class_="faint", size=12))
    told = []
    for place, (one, (fill, stroke)) in enumerate(zip(series, _MARKS, strict=False)):
        known = [(x(index), y(value)) for index, value in enumerate(one.values) if value is not None]
        parts += [rule(*a, *b, stroke, stroke_width=2) for a, b in pairwise(known)]
        parts += [_mark(place, *spot, fill) for spot in known]
        last = next((value for value in reversed(one.values) if value is not None), None)
        label = f"{one.name}: {words(last) if last is not None else 'not known'}"
        key = TOP + 14 + 24 * place
        parts += [
            _mark(place, WIDTH - RIGHT + 18, key, fill),
            text(WIDTH - RIGHT + 32, key + 4.5, cut(label, RIGHT - 36)),
        ]
        told.append(label)
    description = f"Nights {nights[0]} to {nights[-1]}; the last: {'; '.join(told)}."
    return draw.svg(name, title, description, foot + 30, *parts)


def _mark(place: int, x: float, y: float, class_: str) -> Markup:
    if place == 0:
        return tag("circle", cx=x, cy=y, r=4.5, class_=class_)
    if place == 1:
        return tag("rect", x=x - 4, y=y - 4, width=8, height=8, class_=class_)
    return tag("polygon", points=points(_diamond(x, y)), class_=class_)


def _diamond(x: float, y: float) -> Iterator[tuple[float, float]]:
    yield from ((x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y))
