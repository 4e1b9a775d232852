# SPDX-License-Identifier: Apache-2.0
"""Latency, throughput and fairness of a candidate beside the baseline, as pictures.

The candidate is a filled circle, the baseline a hollow square: shape tells them apart, colour only helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from testbed.report import draw
from testbed.report.draw import WIDTH, Log, box, cut, duration, number, rule, text
from testbed.report.markup import Markup, tag
from testbed.verdict import Figure

LABEL = 250
VALUES = 250
PLOT = WIDTH - LABEL - VALUES
ROW = 26
TOP = 56
MAX_ROWS = 40


@dataclass(frozen=True)
class Both:
    """One figure of several runs on both sides.

    Attributes:
        candidate, baseline: a value for each run, in ns.
        resolution: differences below this mean nothing, in ns.
    """

    name: str
    candidate: Sequence[float]
    baseline: Sequence[float]
    resolution: float = 0.0


def latency(name: str, title: str, rows: Sequence[Both]) -> Markup:
    """Waiting times on a logarithmic axis; a line is the range over several runs, what is shaded can't be resolved."""
    rows = rows[:MAX_ROWS]
    finest = max((row.resolution for row in rows), default=0.0)
    values = [value for row in rows for value in (*row.candidate, *row.baseline)]
    axis = Log([*values, *([finest / 2] if finest else [])], LABEL, PLOT)
    foot = TOP + ROW * len(rows)
    parts = [*_key(title)]
    if finest:
        parts.append(box(LABEL, TOP, axis.x(finest) - LABEL, ROW * len(rows), "lane", f"below {duration(finest)}"))
    for value in axis.ticks():
        parts += [rule(axis.x(value), TOP, axis.x(value), foot, "grid")]
        parts += [text(axis.x(value), foot + 16, duration(value), anchor="middle", class_="faint", size=12)]
    if finest:
        words = f"shaded: below the resolution of simulated time, {duration(finest)}"
        parts.append(text(LABEL, foot + 34, words, class_="faint", size=12))
    for index, row in enumerate(rows):
        y = TOP + ROW * index + ROW / 2
        parts.append(text(LABEL - 12, y + 4.5, cut(row.name, LABEL - 16), anchor="end"))
        parts += _range(axis, row.baseline, y, "other-line")
        parts += _range(axis, row.candidate, y, "good-line")
        if row.baseline:
            parts.append(_square(axis.x(median(row.baseline)), y))
        if row.candidate:
            parts.append(_circle(axis.x(median(row.candidate)), y))
        parts.append(text(LABEL + PLOT + 14, y + 4.5, _values(row), size=12))
    description = "; ".join(f"{row.name}: {_values(row)}" for row in rows)
    return draw.svg(name, title, f"{description}.", foot + 46, *parts)


def _values(row: Both) -> str:
    told = [duration(median(side)) if side else "not measured" for side in (row.candidate, row.baseline)]
    return f"{told[0]}, EEVDF {told[1]}"


def _range(axis: Log, values: Sequence[float], y: float, class_: str) -> Iterator[Markup]:
    if len(values) > 1:
        yield rule(axis.x(min(values)), y, axis.x(max(values)), y, class_, stroke_width=2)


def _circle(x: float, y: float) -> Markup:
    return tag("circle", cx=x, cy=y, r=5.5, class_="good")


def _square(x: float, y: float) -> Markup:
    return tag("rect", x=x - 5, y=y - 5, width=10, height=10, class_="hollow other-line", stroke_width=2)


def _key(title: str) -> Iterator[Markup]:
    yield text(12, 22, cut(title, WIDTH - 300, 16), size=16)
    yield _circle(WIDTH - 240, 17)
    yield text(WIDTH - 228, 21.5, "candidate")
    yield _square(WIDTH - 130, 17)
    yield text(WIDTH - 118, 21.5, "EEVDF")


def ratios(name: str, title: str, figures: Sequence[Figure]) -> Markup:
    """Candidate / baseline of each figure around 1, towards better on the right; what is shaded can't be resolved."""
    shown = [figure for figure in figures if figure.ratio is not None and figure.ratio > 0][:MAX_ROWS]
    gains = [_gain(figure) for figure in shown]
    axis = Log(gains, LABEL, PLOT, around=1.0)
    foot = TOP + ROW * len(shown)
    parts = [text(12, 22, cut(title, WIDTH - 24, 16), size=16)]
    for value in axis.ticks():
        class_ = "axis" if value == 1 else "grid"
        parts.append(rule(axis.x(value), TOP, axis.x(value), foot, class_))
        parts.append(text(axis.x(value), foot + 16, _times(value), anchor="middle", class_="faint", size=12))
    parts.append(text(LABEL, foot + 34, "← worse than EEVDF", class_="faint", size=12))
    parts.append(text(LABEL + PLOT, foot + 34, "better than EEVDF →", anchor="end", class_="faint", size=12))
    for index, (figure, gain) in enumerate(zip(shown, gains, strict=True)):
        y = TOP + ROW * index + ROW / 2
        parts.append(text(LABEL - 12, y + 4.5, cut(f"{figure.scenario}: {figure.name}", LABEL - 16), anchor="end"))
        if figure.resolution and figure.baseline:
            band = 1 + figure.resolution / figure.baseline
            hint = f"differences below {number(figure.resolution)} {figure.unit} mean nothing"
            parts.append(box(axis.x(1 / band), y - 9, axis.x(band) - axis.x(1 / band), 18, "lane", hint))
        good = {"better": "good", "worse": "alarm"}.get(figure.judgement, "other")
        start, end = sorted((axis.x(1), axis.x(gain)))
        parts.append(box(start, y - 5, end - start, 10, good))
        parts.append(text(LABEL + PLOT + 14, y + 4.5, f"{_times(gain)}, {figure.judgement}", size=12))
    description = "; ".join(
        f"{figure.scenario}: {figure.name} {number(gain)} times as good, {figure.judgement}"
        for figure, gain in zip(shown, gains, strict=True)
    )
    return draw.svg(name, title, f"{description}.", foot + 46, *parts)


def _times(gain: float) -> str:
    """How many times better, or worse."""
    if round(gain, 2) == 1:
        return "the same"
    factor = max(gain, 1 / gain)
    return f"{'×' if gain > 1 else '÷'}{factor:.3g}" if factor < 1000 else f"{'×' if gain > 1 else '÷'}{factor:.0f}"


def _gain(figure: Figure) -> float:
    assert figure.ratio is not None  # only those are shown
    return figure.ratio if figure.better == "higher" else 1 / figure.ratio


@dataclass(frozen=True)
class Share:
    """A part of a whole, from 0 to 1, on both sides; None where it was not measured."""

    name: str
    candidate: float | None
    baseline: float | None


def shares(name: str, title: str, rows: Sequence[Share], *, equal: float | None = None) -> Markup:
    """Parts of a whole as bars; a line is what everybody would get if all got the same."""
    rows = rows[:MAX_ROWS]
    values = [value for row in rows for value in (row.candidate, row.baseline) if value is not None]
    scale = PLOT / max((*values, (equal or 0.0) * 1.2, 1e-6))
    foot = TOP + ROW * len(rows)
    parts = [
        text(12, 22, cut(title, WIDTH - 300, 16), size=16),
        box(WIDTH - 245, 11, 12, 12, "good"),
        text(WIDTH - 228, 21.5, "candidate"),
        box(WIDTH - 135, 14, 12, 6, "other"),
        text(WIDTH - 118, 21.5, "EEVDF"),
    ]
    for index, row in enumerate(rows):
        y = TOP + ROW * index
        parts.append(text(LABEL - 12, y + ROW / 2 + 4.5, cut(row.name, LABEL - 16), anchor="end"))
        parts.append(rule(LABEL, y + 3, LABEL, y + ROW - 4, "grid"))
        if row.candidate is not None:
            parts.append(box(LABEL, y + 3, max(1.0, row.candidate * scale), 12, "good"))
        if row.baseline is not None:
            parts.append(box(LABEL, y + 16, max(1.0, row.baseline * scale), 6, "other"))
        parts.append(text(LABEL + PLOT + 14, y + ROW / 2 + 4.5, _parts(row), size=12))
    if equal is not None:
        x = LABEL + equal * scale
        parts.append(rule(x, TOP - 4, x, foot, "axis", stroke_dasharray="4 3"))
        parts.append(text(x, foot + 16, f"equal: {equal:.1%}", anchor="middle", class_="faint", size=12))
    description = "; ".join(f"{row.name}: {_parts(row)}" for row in rows)
    return draw.svg(name, title, f"{description}.", foot + 28, *parts)


def _parts(row: Share) -> str:
    told = ["not measured" if part is None else f"{part:.1%}" for part in (row.candidate, row.baseline)]
    return f"{told[0]}, EEVDF {told[1]}"
