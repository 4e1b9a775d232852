# SPDX-License-Identifier: Apache-2.0
"""HTML and SVG, made of tags: what is no `Markup` is a stranger's text and is escaped, so nothing can be forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.report.escape import markup

VOID = frozenset(("meta",))
"""Tags of HTML that have no end."""
SHAPES = frozenset(("circle", "line", "path", "polygon", "rect"))
"""Tags of SVG that end at once."""


class Markup(str):
    """Text that is HTML or SVG already. Only this file makes it; joined with a `str` it is a `str` again."""

    __slots__ = ()


LINE_END = Markup("\n")


def tag(name: str, /, *content: str, **attributes: str | float | None) -> Markup:
    """An element.

    Args:
        name: as HTML or SVG has it.
        content: what stands inside; all but `Markup` is escaped.
        attributes: `_` stands for `-`, and one at the end is dropped (`class_`); None is left out; numbers have at
            most two decimals.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.removesuffix("_").replace("_", "-")}="{_value(value)}"')
    head = " ".join(words)
    if name in VOID:
        return Markup(f"<{head}>")
    if name in SHAPES and not content:
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{joined(*content)}</{name}>")


def joined(*content: str) -> Markup:
    """Pieces behind one another."""
    return Markup("".join(one if isinstance(one, Markup) else markup(one) for one in content))


def points(places: Iterable[tuple[float, float]]) -> Markup:
    """Corners of a polygon, however many."""
    return Markup(" ".join(f"{_value(float(x))},{_value(float(y))}" for x, y in places))


def style(text: str) -> Markup:
    """A style sheet of ours; never with a word of a stranger's in it."""
    if "<" in text:
        raise ValueError("a style sheet holds no tags")
    return Markup(f"<style>{text}</style>")


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return value if isinstance(value, Markup) else markup(value)
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
