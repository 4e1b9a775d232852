# SPDX-License-Identifier: Apache-2.0
"""Writers over one Comparison: a table, a JSON document, and a picture of the ratios.

Names of candidates and cases are untrusted: see `harmless`. The picture is one SVG without outside resources.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from testbed.case import canonical_json
from testbed.compare import MIN_PAIRS, Compared, Comparison, Side
from testbed.report import draw
from testbed.report.escape import cut, defused, harmless
from testbed.report.markup import Markup, tag
from testbed.spec import Clock

WIDTH = 100

COLOURS = {
    "better": ("good-line", "good"),
    "worse": ("alarm-line", "alarm"),
    "not distinguishable": ("other-line", "other"),
}
ROW_PX = 26
LABEL_PX, PLOT_PX = 330, 390
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
    return f"{cut(harmless(side.candidate), LONGEST)}{which}, case {cut(harmless(side.case), LONGEST)}"


COLUMNS = ("figure", "first", "second", "unit", "pairs", "ratio", "floor", "interval", "p", "judgement")
NUMBERS = frozenset(("first", "second", "pairs", "ratio", "floor", "p"))


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
        f"{figure.floor:.1%}",
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
    if simulated:
        yield from _wrapped("floor: differences up to it are chance with so many seeds, see docs/reference/noise.md.")
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
    foot = TOP_PX + ROW_PX * len(shown)
    values = [value for one in shown for value in (one.ratio, one.low, one.high) if value is not None]
    axis = draw.Log(values, LABEL_PX, PLOT_PX, around=1.0)
    title = (
        f"{cut(harmless(comparison.first.candidate), LONGEST)} / {cut(harmless(comparison.second.candidate), LONGEST)}"
    )
    words = "first / second, median over pairs of equal seed; line: interval of the median"
    parts = [draw.text(12, 24, title, size=15), draw.text(12, 44, words, class_="faint")]
    for value in axis.ticks():
        x, colour = axis.x(value), "axis" if value == 1 else "grid"
        parts.append(draw.rule(x, TOP_PX - 6, x, foot, colour))
        parts.append(draw.text(x, foot + 16, f"{value:.3g}", anchor="middle"))
    parts.append(draw.text(axis.x(1), foot + 34, "1: no difference", anchor="middle", class_="faint"))
    for index, figure in enumerate(shown):
        parts += _row(figure, axis, TOP_PX + ROW_PX * index + ROW_PX / 2)
    return draw.svg("ratios", title, summary(comparison), foot + BOTTOM_PX, *parts, alone=True) + "\n"


def _row(figure: Compared, axis: draw.Log, y: float) -> Iterator[Markup]:
    line, fill = COLOURS.get(figure.judgement, COLOURS["not distinguishable"])
    name = f"{_name(figure)} ({figure.better} is better)"
    yield draw.text(LABEL_PX - 12, y + 4, draw.cut(name, LABEL_PX - 16, 11), anchor="end", size=11)
    if figure.ratio is not None and figure.ratio > 0:
        if figure.low is not None and figure.high is not None:
            yield draw.rule(axis.x(figure.low), y, axis.x(figure.high), y, line, stroke_width=2)
        # A hollow dot is one sample or a few; colour never carries a meaning alone.
        inside = fill if figure.basis == "tested" else "paper"
        yield tag("circle", cx=axis.x(figure.ratio), cy=y, r=5, class_=f"{inside} {line}", stroke_width=2)
    yield draw.text(LABEL_PX + PLOT_PX + 14, y + 4, f"{_number(figure.ratio, 3)}  {_judgement(figure)}")
