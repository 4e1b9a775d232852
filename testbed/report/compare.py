# SPDX-License-Identifier: Apache-2.0
"""Writers over one Comparison: a table, a JSON document, and a picture of the ratios.

Names of candidates and cases are untrusted: see `harmless`. The picture is one SVG without outside resources.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from math import log
from xml.sax.saxutils import escape

from testbed.case import canonical_json
from testbed.compare import MIN_PAIRS, Compared, Comparison, Side
from testbed.report.escape import defused, harmless
from testbed.spec import Clock

WIDTH = 100

COLOURS = {"better": "#1a7f37", "worse": "#b42318", "not distinguishable": "#57606a"}
ROW_PX = 26
LABEL_PX, PLOT_PX, WORDS_PX = 330, 360, 270
TOP_PX, BOTTOM_PX = 64, 46
LONGEST = 60


def render(comparison: Comparison, name: str) -> str:
    """A comparison as `text` or `json`."""
    if name == "json":
        return canonical_json(comparison.model_dump(mode="json", by_alias=True)).decode("ascii")
    return defused("\n".join(_lines(comparison)) + "\n")


def _lines(comparison: Comparison) -> Iterator[str]:
    yield from (f"{which:7} {_side(side)}" for which, side in _sides(comparison))
    yield ""
    yield from _table(comparison.figures)
    yield ""
    yield from _wrapped(summary(comparison))
    yield from _remarks(comparison)
    for one in comparison.not_compared:
        yield from _wrapped(f"not compared: {harmless(one.scenario)} [{one.clock}]: {one.reason}")
        yield f"  hint: {harmless(one.hint)}"


def _sides(comparison: Comparison) -> tuple[tuple[str, Side], tuple[str, Side]]:
    return ("first", comparison.first), ("second", comparison.second)


def _side(side: Side) -> str:
    which = f", sha256 {side.sha256[:16]}" if side.sha256 else ""  # EEVDF has none
    return f"{_short(side.candidate)}{which}, case {_short(side.case)}"


def _short(name: str) -> str:
    known = harmless(name)
    return known if len(known) <= LONGEST else known[: LONGEST - 3] + "..."


COLUMNS = ("figure", "first", "second", "unit", "pairs", "ratio", "interval", "p", "judgement")
NUMBERS = frozenset(("first", "second", "pairs", "ratio", "p"))


def _table(figures: tuple[Compared, ...]) -> Iterator[str]:
    rows = [COLUMNS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if column in NUMBERS else f"{cell:{width}}"
            for column, cell, width in zip(COLUMNS, row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _cells(figure: Compared) -> tuple[str, ...]:
    return (
        _name(figure),
        _number(figure.first),
        _number(figure.second),
        harmless(figure.unit),
        str(figure.pairs),
        _number(figure.ratio, 3),
        _interval(figure),
        "-" if figure.p is None else f"{figure.p:.3f}",
        _judgement(figure),
    )


def _name(figure: Compared) -> str:
    return harmless(f"{figure.scenario}: {figure.name}") + (" [live]" if figure.clock is Clock.LIVE else "")


def _number(value: float | None, digits: int = 5) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _interval(figure: Compared) -> str:
    if figure.low is None or figure.high is None or figure.confidence is None:
        return "-"
    return f"{figure.low:.3g}..{figure.high:.3g} ({figure.confidence:.0%})"


def _judgement(figure: Compared) -> str:
    return figure.judgement if figure.basis == "not measured" else f"{figure.judgement} ({figure.basis})"


def summary(comparison: Comparison) -> str:
    """The whole in a sentence."""
    parts = []
    for word in ("better", "worse"):
        names = [_name(figure) for figure in comparison.figures if figure.judgement == word]
        if names:
            parts.append(f"{word} in {', '.join(names)}")
    if not parts:
        measured = any(figure.judgement != "not measured" for figure in comparison.figures)
        parts = ["not distinguishable" if measured else "not measured"]
    return f"first against second: {'; '.join(parts)}"


def _remarks(comparison: Comparison) -> Iterator[str]:
    """What the figures rest on."""
    simulated = [
        figure for figure in comparison.figures if figure.clock is Clock.SIM and figure.basis != "not measured"
    ]
    if any(figure.basis == "one sample" for figure in simulated):
        yield from _wrapped(
            f"One deterministic run is one sample: need --seeds {MIN_PAIRS} or more on both sides for an interval, "
            f"--seeds {comparison.needed} for a test of all figures."
        )
    elif any(figure.basis == "few pairs" for figure in simulated):
        yield from _wrapped(
            f"Too few pairs for a test of all figures (need --seeds {comparison.needed}): "
            "what is called better or worse is so in every pair."
        )
    if comparison.tests:
        yield from _wrapped(
            f"p: exact sign test over pairs of equal seed (live: exact rank test), raised for {comparison.tests} "
            "figures (Holm)."
        )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


# --- the picture ---------------------------------------------------------------------------------------------


def svg(comparison: Comparison) -> str:
    """A forest plot: the ratio of each figure with its interval, on a logarithmic axis around 1."""
    shown = comparison.figures
    width, height = LABEL_PX + PLOT_PX + WORDS_PX, TOP_PX + ROW_PX * len(shown) + BOTTOM_PX
    axis = _Axis(shown)
    foot = TOP_PX + ROW_PX * len(shown)
    title = f"{_short(comparison.first.candidate)} / {_short(comparison.second.candidate)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(12, 24, title, size=15),
        _text(12, 44, "first / second, median over pairs of equal seed; line: interval of the median", fill="#57606a"),
    ]
    for value in axis.ticks:
        x, colour = axis.x(value), "#24292f" if value == 1 else "#d0d7de"
        parts.append(f'<line x1="{x:.1f}" y1="{TOP_PX - 6}" x2="{x:.1f}" y2="{foot}" stroke="{colour}"/>')
        parts.append(_text(x, foot + 16, f"{value:.3g}", anchor="middle"))
    parts.append(_text(axis.x(1), foot + 34, "1: no difference", anchor="middle", fill="#57606a"))
    for index, figure in enumerate(shown):
        parts += _row(figure, axis, TOP_PX + ROW_PX * index + ROW_PX // 2)
    return "\n".join((*parts, "</svg>")) + "\n"


def _row(figure: Compared, axis: _Axis, y: int) -> Iterator[str]:
    colour = COLOURS.get(figure.judgement, "#57606a")
    yield _text(LABEL_PX - 12, y + 4, _short(f"{_name(figure)} ({figure.better} is better)"), anchor="end", size=11)
    if figure.ratio is not None and figure.ratio > 0:
        if figure.low is not None and figure.high is not None:
            low, high = axis.x(figure.low), axis.x(figure.high)
            yield f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
        x = axis.x(figure.ratio)
        # A hollow dot is one sample or a few; colour never carries a meaning alone.
        fill = colour if figure.basis == "tested" else "#ffffff"
        yield f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
    words = f"{_number(figure.ratio, 3)}  {_judgement(figure)}"
    yield _text(LABEL_PX + PLOT_PX + 14, y + 4, words, fill=colour)


def _text(x: float, y: float, words: str, *, anchor: str = "start", fill: str = "#24292f", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}"'
    return f"<text {place}>{escape(harmless(words))}</text>"


class _Axis:
    """Ratios on a logarithmic axis, as far to the left of 1 as to the right."""

    TICKS = (2.0, 1.5, 1.2, 1.1, 1.05)
    FARTHEST = 1e6

    def __init__(self, figures: tuple[Compared, ...]) -> None:
        values = [
            value for one in figures for value in (one.ratio, one.low, one.high) if value is not None and value > 0
        ]
        farthest = max((max(value, 1 / value) for value in values), default=1.0)
        self.limit = min(self.FARTHEST, max(1.1, farthest * 1.05))
        step = next((one for one in self.TICKS if one**2 <= self.limit), 1.05)
        while step**4 < self.limit:
            step *= step
        steps = [step**power for power in range(1, 5) if step**power <= self.limit]
        self.ticks = (*(1 / value for value in reversed(steps)), 1.0, *steps)

    def x(self, value: float) -> float:
        """Where a ratio lies, in pixels; what is off the axis lies at its end."""
        kept = min(self.limit, max(1 / self.limit, value))
        return LABEL_PX + PLOT_PX * (0.5 + 0.5 * log(kept) / log(self.limit))
