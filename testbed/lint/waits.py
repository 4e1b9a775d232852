# SPDX-License-Identifier: Apache-2.0
"""Rules about time: slices, the watchdog's patience, loops."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.lint.facts import HOT_CALLBACKS, TIMER, Facts, Hit
from testbed.lint.values import Value

LONG_SLICE_NS = 500_000_000
LONG_TIMEOUT_MS = 10_000
LONG_LOOP = 1 << 16


def check(facts: Facts) -> Iterator[Hit]:
    """All rules of this family."""
    yield from slices(facts)
    yield from timeout(facts)
    yield from loops(facts)


def _given(facts: Facts) -> Iterator[tuple[Value, Hit, Hit]]:
    """Every slice that is given to a task, with what to say if it is infinite or long."""
    for event in facts.inserts():
        place = facts.at(event, event.name)
        yield (
            event.args[2],
            Hit("lint-infinite-slice", "a task gets an infinite slice, and nothing ever takes the CPU from it", place),
            Hit("lint-long-slice", f"a task gets a slice of {_seconds(event.args[2])} s", place),
        )
    for event in facts.events("scx_bpf_task_set_slice"):
        place = facts.at(event, event.name)
        yield (
            event.args[1],
            Hit("lint-infinite-slice", "a task gets an infinite slice, and nothing ever takes the CPU from it", place),
            Hit("lint-long-slice", f"a task gets a slice of {_seconds(event.args[1])} s", place),
        )


def _seconds(value: Value) -> str:
    longest = max(value.constants or (0,))
    return f"{longest / 1e9:.3g}"


def slices(facts: Facts) -> Iterator[Hit]:
    """Slices that keep others waiting, where nothing takes a CPU back."""
    infinite = facts.enum("SCX_SLICE_INF")
    if infinite is None or _preempts(facts):
        return
    told: set[str] = set()
    for value, endless, long in _given(facts):
        numbers = value.constants or frozenset()
        hit = endless if infinite in numbers else long if any(one > LONG_SLICE_NS for one in numbers) else None
        if hit is not None and hit.code not in told:
            told.add(hit.code)
            yield hit


def _preempts(facts: Facts) -> bool:
    """Whether something can take a CPU from a running task."""
    kick, enqueue = facts.enum("SCX_KICK_PREEMPT"), facts.enum("SCX_ENQ_PREEMPT")
    for event in facts.events("scx_bpf_kick_cpu"):
        flags = event.args[1]
        if flags.constants is None or (kick is not None and any(one & kick for one in flags.constants)):
            return True
    for event in facts.inserts():
        flags = event.args[4 if event.name.endswith("_vtime") else 3]
        if enqueue is not None and flags.sure & enqueue:
            return True
    shorter = [event.args[1] for event in facts.events("scx_bpf_task_set_slice", roots=("tick", "runnable"))]
    shorter += [event.args[0] for event in facts.events("store") if event.field == "task_struct.scx.slice"]
    infinite = facts.enum("SCX_SLICE_INF")
    return any(value.only != infinite for value in shorter)


def timeout(facts: Facts) -> Iterator[Hit]:
    """A watchdog that is asked to look away for long."""
    milliseconds = facts.ops.values.get("timeout_ms", 0)
    if milliseconds > LONG_TIMEOUT_MS:
        yield Hit(
            "lint-long-timeout",
            f"`.timeout_ms = {milliseconds}` lets a task wait for {milliseconds / 1000:.3g} s before the watchdog acts",
            field="timeout_ms",
        )


def loops(facts: Facts) -> Iterator[Hit]:
    """Loops that are bounded by a number that nobody lives to see."""
    own = {*facts.ops.callbacks.values(), *facts.found.timers}
    for event in sorted(facts.events("bpf_loop"), key=lambda one: one.function not in own):
        turns = event.args[0].only
        where = event.root.split(" ")[0]
        if turns is not None and turns >= LONG_LOOP and (where in HOT_CALLBACKS or where in (TIMER, "exit")):
            what = "a timer" if where == TIMER else f"ops.{event.root}()"
            yield Hit(
                "lint-long-loop",
                f"a loop of up to {turns} turns in {what}, where the machine waits for its end",
                facts.at(event, "bpf_loop"),
            )
            return
