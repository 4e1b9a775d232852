# SPDX-License-Identifier: Apache-2.0
"""Whether the evidence can be believed: forged lines, holes, attacks on the runner."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.case import Ended
from testbed.judge.view import View
from testbed.verdict import Finding


def findings(view: View) -> Iterator[Finding]:
    """What is wrong with the stream itself.

    A line with the shape of an event and a wrong MAC, or one that is sent again, can only be made on purpose. Lines
    without that shape and holes in the sequence may be a fault of ours, so they blame nobody. After a panic or a reset
    the firmware may speak on the same port again.
    """
    stream, outcome = view.run.stream, view.run.outcome
    forged = stream.damaged("forged")
    if forged:
        refs = [view.stream_ref(damage.line, damage.detail) for damage in forged[:4]]
        code = "tampering" if view.has_candidate else "guest-nonsense"
        lines = f"{len(forged)} line" + ("s" if len(forged) != 1 else "")
        yield view.found(code, f"{lines} of the stream with a wrong code: the runner did not write them", refs)
    told = [event for event in stream.of("tampered") if "enable_seq" not in event.text("what")]
    # A load that ends by itself has failed, which nobody need have done to it.
    ended = [event for event in told if "exited with status" in event.text("what")]
    if ended:
        yield view.found("step-failed", f"the runner reports: {ended[0].text('what')}", [view.ref(ended[0])])
    attacks = [event for event in told if event not in ended]
    if attacks and not _out_of_memory(view):
        code = "tampering" if view.has_candidate else "guest-nonsense"
        yield view.found(code, f"the runner reports: {attacks[0].text('what')}", [view.ref(one) for one in attacks[:4]])
    for index, event in enumerate(stream.events):
        if event.name == "hello" and index > 0:
            yield view.found("guest-nonsense", "the runner said `hello` twice", [view.ref(event)])
            break
    if stream.events and stream.events[0].name != "hello":
        yield view.found(
            "guest-nonsense", "the stream does not begin with the runner's `hello`", [view.ref(stream.events[0])]
        )
    if not stream.events and outcome.ended is Ended.FINISHED:
        yield view.found("guest-nonsense", "the guest finished and its stream has no event", [view.outcome_ref()])
    broken = [damage for damage in stream.damage if damage.kind != "forged"]
    last = stream.events[-1].line if stream.events else 0
    if outcome.ended in (Ended.PANIC, Ended.POWEROFF, Ended.WATCHDOG):
        broken = [damage for damage in broken if damage.line < last]
    if broken:
        yield view.found(
            "guest-nonsense",
            f"the stream is damaged in {len(broken)} place{'s' if len(broken) > 1 else ''}, first: {broken[0].detail}",
            [view.stream_ref(damage.line, damage.detail) for damage in broken[:4]],
        )
    if outcome.stream_lost:
        yield view.found("guest-nonsense", f"{outcome.stream_lost} bytes of the stream were lost", [view.outcome_ref()])


def _out_of_memory(view: View) -> bool:
    """Whether the kernel itself killed processes, as the kernel's checks tell."""
    return any(b"Out of memory: Killed process" in line for line in view.run.console.lines)
