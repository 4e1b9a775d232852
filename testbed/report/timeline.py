# SPDX-License-Identifier: Apache-2.0
"""The picture of a failure: a lane for each CPU, who had it, and the task that waited meanwhile.

Time runs to the right and is counted from the moment when the task began to wait. Below the waiting task's own lane
lies a lane for each CPU. What is hatched in it was idle although the task could have run there. Where switches are
closer than the picture can show, a column holds several: tasks are stacked by their parts of its time, and what is left
free was idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from testbed.report import draw
from testbed.report.draw import WIDTH, box, cut, duration, rule, text
from testbed.report.markup import Markup, joined, points, tag
from testbed.timeline import IDLE, UNKNOWN, Focus, Piece, Timeline, shares, within

LEFT, RIGHT = 118, 30
PLOT = WIDTH - LEFT - RIGHT
LANE, GAP = 34, 10
TOP, MARKS = 56, 40
MAX_BOXES = 6000
MAX_LANES = 64
MARGIN = 0.06
"""Part of the wait that is shown before and after it."""

_ON = {"t0": "paper", "alarm": "paper", "other": "paper"}
"""Class of words on a colour that dark ones can't be read on."""

Describe = Callable[[int], str]
"""How a task is called in a picture."""


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        start, end: ns of the guest's clock.
        focus: whose wait is marked, None if nobody's.
        describe: a task's name and what it belongs to.
        name: unique in a page.
    """

    timeline: Timeline
    start: int
    end: int
    focus: Focus | None
    describe: Describe
    name: str = "timeline"
    title: str = "who ran where"

    def x(self, t: float) -> float:
        """Where a moment lies."""
        return LEFT + PLOT * (t - self.start) / (self.end - self.start)

    @property
    def lanes(self) -> range:
        """The CPUs that are drawn."""
        return range(min(self.timeline.cpus, MAX_LANES))

    @property
    def top(self) -> float:
        """Where the lanes begin; above them stand the moments of the wait."""
        return TOP + (MARKS if self.focus is not None else 0)

    @property
    def waited(self) -> tuple[int, int] | None:
        """The part of the wait that is to be seen."""
        if self.focus is None:
            return None
        start, end = max(self.start, self.focus.since), min(self.end, self.focus.until)
        return (start, end) if start < end else None

    def may_use(self, cpu: int) -> bool:
        """Whether the waiting task may use a CPU, as far as anybody knows."""
        return self.focus is not None and (self.focus.allowed is None or cpu in self.focus.allowed)


def whole(timeline: Timeline, focus: Focus | None, describe: Describe, name: str = "timeline") -> Scene:
    """All of a wait, with a little before and after it."""
    start, end = timeline.start, timeline.end
    title = "who ran where"
    if focus is not None:
        margin = max(1000, round((focus.until - max(focus.since, start)) * MARGIN))
        start, end = max(start, focus.since - margin), min(end, focus.until + margin)
        title = f"who ran where while {describe(focus.pid)} waited"
    return Scene(timeline, start, max(end, start + 1000), focus, describe, name, title)


def beginning(timeline: Timeline, focus: Focus | None, describe: Describe, name: str) -> Scene | None:
    """The moment when the wait began; None where the trace does not show it, or all is short enough to be seen."""
    if focus is None or not focus.seen:
        return None
    switches = sorted(abs(piece.end - focus.since) for lane in timeline.pieces for piece in lane)
    near = switches[min(len(switches) - 1, 12 * timeline.cpus)] if switches else 0
    half = max(50_000, near)
    if half * 6 > focus.until - focus.since:
        return None
    start, end = max(timeline.start, focus.since - half), min(timeline.end, focus.since + half)
    return Scene(timeline, start, end, focus, describe, name, f"the moment when {describe(focus.pid)} began to wait")


def render(scene: Scene, *, alone: bool = False) -> Markup:
    """A scene as SVG."""
    colours = _colours(scene)
    foot = scene.top + (LANE + GAP) * (len(scene.lanes) + (scene.focus is not None) + 1)
    legend, legend_height = _legend(scene, colours, foot + 44)
    parts = [
        _pattern(scene.name),
        text(LEFT, 24, cut(_upper(scene.title), PLOT, 17), size=17),
        *_axis(scene, foot),
        *_queue(scene, foot - LANE - GAP),
    ]
    y = scene.top
    if scene.focus is not None:
        parts += _waiter(scene, scene.focus, y)
        y += LANE + GAP
    for cpu in scene.lanes:
        parts += _lane(scene, cpu, y, colours)
        y += LANE + GAP
    if scene.focus is not None:
        parts += _marks(scene, scene.focus, foot)
    height = foot + 44 + legend_height
    return draw.svg(scene.name, scene.title, description(scene), height, *parts, legend, alone=alone)


def description(scene: Scene) -> str:
    """What a picture shows, in sentences."""
    words = []
    if scene.focus is not None:
        focus = scene.focus
        length = duration(focus.until - focus.since)
        words.append(f"The task {scene.describe(focus.pid)} was runnable and did not run for {length}, until")
        words.append(f"{focus.noticed}.")
        if not focus.seen:
            words.append("The trace begins later than its wait.")
    start, end = scene.waited or (scene.start, scene.end)
    for cpu in scene.lanes:
        words.append(
            f"CPU {cpu}: {'; '.join(_share(scene, pid, part) for pid, part in _most(scene, cpu, start, end))}."
        )
    if scene.timeline.cpus > MAX_LANES:
        words.append(f"{scene.timeline.cpus - MAX_LANES} more CPUs are not drawn.")
    return " ".join(words)


def _most(scene: Scene, cpu: int, start: int, end: int) -> list[tuple[int, float]]:
    found = list(shares(scene.timeline, cpu, start, end).items())
    return found[:4]


def _share(scene: Scene, pid: int, part: float) -> str:
    words = "<1 %" if part < 0.01 else f"{part:.0%}".replace("%", " %")
    return f"{_called(scene, pid)} {words}"


def _called(scene: Scene, pid: int) -> str:
    return {IDLE: "idle", UNKNOWN: "no switch recorded"}.get(pid) or scene.describe(pid)


def _colours(scene: Scene) -> dict[int, str]:
    """A class for each of the tasks that ran most during the wait, the same in all pictures of it."""
    start, end = scene.timeline.start, scene.timeline.end
    if scene.focus is not None:
        start, end = max(start, scene.focus.since), min(end, scene.focus.until)
    total: dict[int, int] = {}
    for lane in scene.timeline.pieces:
        for piece in within(lane, start, end):
            total[piece.pid] = total.get(piece.pid, 0) + piece.end - piece.start
    focus = scene.focus.pid if scene.focus is not None else IDLE
    ranked = sorted((pid for pid in total if pid not in (IDLE, UNKNOWN, focus)), key=lambda pid: (-total[pid], pid))
    found = dict(zip(ranked, draw.TASKS, strict=False))
    return {**found, focus: "alarm"} if focus != IDLE else found


def _pattern(name: str) -> Markup:
    lines = tag("path", d="M-2 2l4-4M0 8l8-8M6 10l4-4", class_="alarm-line", stroke_width=1.5)
    back = tag("rect", width=8, height=8, class_="alarm-soft")
    return tag("defs", tag("pattern", back, lines, id=f"{name}-idle", width=8, height=8, patternUnits="userSpaceOnUse"))


def _axis(scene: Scene, foot: float) -> Iterator[Markup]:
    zero = scene.focus.since if scene.focus is not None else scene.start
    for value in draw.steps(scene.start - zero, scene.end - zero):
        x = scene.x(zero + value)
        yield rule(x, scene.top - 8, x, foot, "grid")
        yield text(x, foot + 16, duration(value) if value else "0", anchor="middle", class_="faint", size=12)
    what = "since it began to wait" if scene.focus is not None else "of the recorded part"
    yield text(LEFT + PLOT, foot + 34, f"guest time {what}", anchor="end", class_="faint", size=12)


def _waiter(scene: Scene, focus: Focus, y: float) -> Iterator[Markup]:
    name = scene.describe(focus.pid)
    yield text(LEFT - 10, y + LANE / 2 - 2, "waiting:", anchor="end", class_="alarm", size=12)
    yield text(
        LEFT - 10, y + LANE / 2 + 13, cut(scene.timeline.task(focus.pid).name, LEFT - 14, 12), anchor="end", size=12
    )
    yield box(LEFT, y, PLOT, LANE, "lane")
    if scene.waited is None:
        return
    start, end = scene.waited
    x, width = scene.x(start), scene.x(end) - scene.x(start)
    length = duration(focus.until - focus.since)
    yield box(x, y + 8, width, LANE - 16, "alarm", f"{name}: runnable for {length}")
    words = cut(f"runnable, not running: {length}", width - 16)
    if focus.since < scene.start:
        # An arrow: its wait is longer than the picture.
        arrow = points([(x, y + 2), (x - 11, y + LANE / 2), (x, y + LANE - 2)])
        yield tag("polygon", points=arrow, class_="alarm")
    if words:
        yield text(x + width / 2, y + LANE / 2 + 4.5, words, anchor="middle", class_="paper")
    for lane in scene.timeline.pieces:
        for piece in within(lane, scene.start, scene.end):
            if piece.pid == focus.pid:
                x, width = scene.x(piece.start), scene.x(piece.end) - scene.x(piece.start)
                yield box(x, y, max(1.0, width), LANE, "ink", f"{name} ran on CPU {piece.cpu}")
                if words := cut(f"runs on CPU {piece.cpu}", width - 8, 12):
                    yield text(x + width / 2, y + LANE / 2 + 4, words, anchor="middle", class_="paper", size=12)


def _lane(scene: Scene, cpu: int, y: float, colours: dict[int, str]) -> Iterator[Markup]:
    start, end = scene.waited or (scene.start, scene.end)
    idle = shares(scene.timeline, cpu, start, end).get(IDLE, 0.0)
    yield text(LEFT - 10, y + LANE / 2 - 2, f"CPU {cpu}", anchor="end")
    allowed = "" if scene.focus is None or scene.may_use(cpu) else ", forbidden"
    yield text(LEFT - 10, y + LANE / 2 + 13, f"idle {idle:.0%}{allowed}", anchor="end", class_="faint", size=12)
    yield box(LEFT, y, PLOT, LANE, "lane")
    if scene.waited is not None and scene.may_use(cpu):
        first, last = scene.waited
        yield box(
            scene.x(first), y, scene.x(last) - scene.x(first), LANE, None,
            f"CPU {cpu} idle while a task waited", fill=f"url(#{scene.name}-idle)",
        )  # fmt: skip
    finest = max(2.0, PLOT * len(scene.lanes) / MAX_BOXES)
    for column in _columns(scene, list(within(scene.timeline.pieces[cpu], scene.start, scene.end)), finest):
        if len(column) == 1:
            yield from _one(scene, column[0], y, colours)
        else:
            yield from _stack(scene, column, y, colours)


def _columns(scene: Scene, pieces: Sequence[Piece], finest: float) -> Iterator[list[Piece]]:
    """Pieces that are wide enough for themselves, and runs of others that are together."""
    column: list[Piece] = []
    for piece in pieces:
        wide = scene.x(piece.end) - scene.x(piece.start) >= finest
        if column and (wide or scene.x(column[-1].end) - scene.x(column[0].start) >= finest):
            yield column
            column = []
        if wide:
            yield [piece]
        else:
            column.append(piece)
    if column:
        yield column


def _one(scene: Scene, piece: Piece, y: float, colours: dict[int, str]) -> Iterator[Markup]:
    x, width = scene.x(piece.start), scene.x(piece.end) - scene.x(piece.start)
    lasted = duration(piece.end - piece.start)
    if piece.pid == IDLE:
        if words := cut("idle", width - 8, 12):
            yield box(x + width / 2 - 16, y + LANE / 2 - 9, 32, 18, "lane")
            yield text(x + width / 2, y + LANE / 2 + 4, words, anchor="middle", class_="ink", size=12)
        return
    name = _called(scene, piece.pid)
    class_ = "none" if piece.pid == UNKNOWN else colours.get(piece.pid, "other")
    yield box(x, y, width, LANE, class_, f"CPU {piece.cpu}: {name}, {lasted}")
    if words := cut(name, width - 8, 12):
        yield text(x + width / 2, y + LANE / 2 + 4, words, anchor="middle", class_=_ON.get(class_, "dark"), size=12)


def _stack(scene: Scene, column: Sequence[Piece], y: float, colours: dict[int, str]) -> Iterator[Markup]:
    x, right = scene.x(column[0].start), scene.x(column[-1].end)
    total = column[-1].end - column[0].start
    parts: dict[str, int] = {}
    for piece in column:
        if piece.pid != IDLE:
            class_ = "none" if piece.pid == UNKNOWN else colours.get(piece.pid, "other")
            parts[class_] = parts.get(class_, 0) + piece.end - piece.start
    foot = y + LANE
    for class_ in sorted(parts):
        height = LANE * parts[class_] / total
        foot -= height
        if height >= 0.3:
            yield box(x, foot, right - x, height, class_)


def _queue(scene: Scene, y: float) -> Iterator[Markup]:
    """How many tasks waited, at every moment."""
    changes = sorted(
        [(wait.start, 1) for wait in scene.timeline.waits] + [(wait.end, -1) for wait in scene.timeline.waits]
    )
    columns = [0] * PLOT
    level, place = 0, 0
    for t, change in (*changes, (scene.end, 0)):
        until = min(PLOT - 1, max(0, int(scene.x(t)) - LEFT))
        if t > scene.start:
            for column in range(place, until + 1):
                columns[column] = max(columns[column], level)
            place = until
        level += change
    most = max(columns)
    yield text(LEFT - 10, y + LANE / 2 - 2, "all tasks", anchor="end")
    yield text(LEFT - 10, y + LANE / 2 + 13, f"at most {most} wait", anchor="end", class_="faint", size=12)
    yield box(LEFT, y, PLOT, LANE, "lane")
    if not most:
        return
    outline: list[tuple[float, float]] = [(LEFT, y + LANE)]
    for column, waiting in enumerate(columns):
        if 0 < column < PLOT - 1 and columns[column - 1] == waiting == columns[column + 1]:
            continue
        height = y + LANE - LANE * waiting / most
        outline += [(LEFT + column, height), (LEFT + column + 1, height)]
    outline.append((LEFT + PLOT, y + LANE))
    hint = tag("title", f"runnable tasks that wait, at most {most}")
    yield tag("polygon", hint, points=points(outline), class_="other")


def _marks(scene: Scene, focus: Focus, foot: float) -> Iterator[Markup]:
    """The moments that count, as lines through all lanes."""
    if focus.seen and scene.start <= focus.since <= scene.end:
        x = scene.x(focus.since)
        yield rule(x, scene.top - 26, x, foot, "alarm-line", stroke_width=1.5, stroke_dasharray="5 3")
        yield text(x, scene.top - 34, "begins to wait", anchor=_anchor(x), class_="alarm")
    if scene.start <= focus.until <= scene.end:
        x = scene.x(focus.until)
        yield rule(x, scene.top - 26, x, foot, "alarm-line", stroke_width=2)
        words = f"{focus.noticed}, {duration(focus.until - focus.since)} later"
        yield text(x, scene.top - 34, words, anchor=_anchor(x), class_="alarm")


def _anchor(x: float) -> str:
    return "start" if x < LEFT + PLOT / 3 else "end" if x > LEFT + PLOT * 2 / 3 else "middle"


def _legend(scene: Scene, colours: dict[int, str], y: float) -> tuple[Markup, float]:
    shown = {piece.pid for lane in scene.timeline.pieces for piece in within(lane, scene.start, scene.end)}
    entries: list[tuple[str, str, str | None]] = [
        (class_, scene.describe(pid), None) for pid, class_ in colours.items() if class_ != "alarm" and pid in shown
    ]
    if any(pid not in colours and pid not in (IDLE, UNKNOWN) for pid in shown):
        entries.append(("other", "other tasks", None))
    if UNKNOWN in shown:
        entries.append(("none", "no switch recorded", None))
    if _wasted(scene):
        entries.append(("", "idle while the task waits", f"url(#{scene.name}-idle)"))
    parts: list[Markup] = []
    x, row = float(LEFT), 0
    for class_, words, fill in entries:
        shown_words = cut(words, 300, 12)
        width = 34 + len(shown_words) * 12 * 0.58
        if x + width > WIDTH:
            x, row = float(LEFT), row + 1
        top = y + 12 + row * 20
        parts.append(box(x, top, 14, 12, class_ or None, **({"fill": fill} if fill else {})))
        parts.append(text(x + 20, top + 10.5, shown_words, size=12))
        x += width
    return joined(*parts), 20.0 * (row + 1) + 20


def _wasted(scene: Scene) -> bool:
    """Whether a CPU that the task may use was idle while it waited."""
    if scene.waited is None:
        return False
    start, end = scene.waited
    return any(scene.may_use(cpu) and IDLE in shares(scene.timeline, cpu, start, end) for cpu in scene.lanes)


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
