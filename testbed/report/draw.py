# SPDX-License-Identifier: Apache-2.0
"""What all pictures of a report share: SVG with a title and a description, colours for light and dark, numbers.

Colours are Okabe and Ito's, which colour-blind people can tell apart, and never carry a meaning alone. They are classes
and not attributes, so that a page's policy can forbid styles of anybody else, and the same picture fits day and night.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10

from testbed.report.markup import Markup, style, tag

WIDTH = 1000
TEXT_PX = 13

_COLOURS = {
    # class: (property, by day, at night)
    "paper": ("fill", "#ffffff", "#0d1117"),
    "ink": ("fill", "#1f2328", "#e6edf3"),
    "dark": ("fill", "#1f2328", "#0d1117"),
    "faint": ("fill", "#59636e", "#9198a1"),
    "lane": ("fill", "#eef1f4", "#1c2129"),
    "grid": ("stroke", "#d1d9e0", "#30363d"),
    "axis": ("stroke", "#1f2328", "#e6edf3"),
    "edge": ("stroke", "#ffffff", "#0d1117"),
    "alarm": ("fill", "#c0392b", "#ff8f7a"),
    "alarm-line": ("stroke", "#c0392b", "#ff8f7a"),
    "alarm-soft": ("fill", "#fbe3de", "#4a1d17"),
    "none": ("fill", "#c3cad1", "#444c56"),
    "good": ("fill", "#0072b2", "#56b4e9"),
    "good-line": ("stroke", "#0072b2", "#56b4e9"),
    "other": ("fill", "#8c959f", "#8b949e"),
    "other-line": ("stroke", "#59636e", "#9198a1"),
    "t0": ("fill", "#0072b2", "#3a9bdc"),
    "t1": ("fill", "#e69f00", "#e69f00"),
    "t2": ("fill", "#009e73", "#2bbf95"),
    "t3": ("fill", "#cc79a7", "#d690b7"),
    "t4": ("fill", "#56b4e9", "#9ad4f5"),
    "t5": ("fill", "#b8a800", "#f0e442"),
}
TASKS = ("t0", "t1", "t2", "t3", "t4", "t5")
"""Classes for tasks, in the order in which they are given away."""


def _rules(night: bool) -> str:
    return "".join(f".{name}{{{what}:{dark if night else light}}}" for name, (what, light, dark) in _COLOURS.items())


STYLE = (
    "svg{font-family:system-ui,sans-serif;max-width:100%;height:auto}"
    ".hollow{fill:none}"
    f"{_rules(night=False)}@media (prefers-color-scheme:dark){{{_rules(night=True)}}}"
)
"""The style sheet of every picture; a page has it once for all of them."""


def svg(name: str, title: str, description: str, height: float, *content: Markup, alone: bool = False) -> Markup:
    """A picture, `WIDTH` wide.

    Args:
        name: unique in its page, a word of ours.
        description: what it shows, for those who don't see it.
        alone: a file of its own, which brings its style along.
    """
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *([style(STYLE), tag("rect", width=WIDTH, height=height, class_="paper")] if alone else []),
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}",
        width=WIDTH,
        height=height,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        font_size=TEXT_PX,
    )


def text(
    x: float, y: float, words: str, *, anchor: str | None = None, class_: str = "ink", size: float | None = None
) -> Markup:
    """Words at a place; `anchor` is start, middle or end."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_, font_size=size)


def box(x: float, y: float, width: float, height: float, class_: str | None, *hint: str, **more: str | float) -> Markup:
    """A rectangle; `hint` is what shows when a mouse rests on it."""
    content = [tag("title", one) for one in hint]
    return tag("rect", *content, x=x, y=y, width=max(0.0, width), height=height, class_=class_, **more)


def rule(x1: float, y1: float, x2: float, y2: float, class_: str, **more: str | float) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **more)


def cut(words: str, width: float, size: float = TEXT_PX) -> str:
    """Words that fit into so many pixels, more or less; nothing where three letters don't."""
    fits = int(width / (size * 0.58))
    if len(words) <= fits:
        return words
    return words[: fits - 1] + "…" if fits >= 4 else ""


def steps(low: float, high: float, about: int = 8) -> list[float]:
    """Round numbers between two others, about so many."""
    span = (high - low) / max(1, about)
    if span <= 0:
        return []
    power = 10.0 ** floor(log10(span))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span * 0.999)
    return [index * step for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def duration(ns: float) -> str:
    """A time in words, with a unit that suits it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size * 0.9995:
            return f"{ns / size:.3g} {unit}" if abs(ns) < 999.5 * size else f"{ns / size:.0f} {unit}"
    return f"{ns:.3g} ns"


def number(value: float | None) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"


class Log:
    """A logarithmic axis: values to pixels."""

    def __init__(self, values: Iterable[float], left: float, width: float, *, around: float | None = None) -> None:
        """Hold `values` (those above 0); `around` is a value that lies in the middle."""
        known = [value for value in values if value > 0]
        low, high = (min(known), max(known)) if known else (1.0, 10.0)
        if around is not None:
            far = max(high / around, around / low, 1.2) * 1.1
            low, high = around / far, around * far
        elif high / low < 10:
            low, high = low / 2, high * 2
        self.low, self.high = log10(low), log10(high)
        self.left, self.width, self.around = left, width, around

    def x(self, value: float) -> float:
        """Where a value lies; what is off the axis lies at its end."""
        place = (log10(value) - self.low) / (self.high - self.low) if value > 0 else 0.0
        return self.left + self.width * min(1.0, max(0.0, place))

    def ticks(self) -> list[float]:
        """Round values on the axis; around a middle, as many times more as less."""
        factors: Sequence[float] = (1,) if self.high - self.low > 2.5 else (1, 2, 5)
        if self.high - self.low < 0.7:
            factors = (1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
        powers = range(floor(self.low), ceil(self.high) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors]
        chosen = [value for value in found if self.low - 1e-9 <= log10(value) <= self.high + 1e-9]
        if self.around is None:
            return chosen[:: ceil(len(chosen) / 9)] if chosen else []
        more = [value for value in chosen if value > self.around * 1.001]
        more = more[:: ceil(len(more) / 4)] if more else []
        return [*(self.around**2 / value for value in reversed(more)), self.around, *more]
