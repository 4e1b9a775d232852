# SPDX-License-Identifier: Apache-2.0
"""Silence and lost guests: how the host saw the guest end, and whether that can be the candidate's doing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from testbed.case import Ended, Event
from testbed.judge import kernel
from testbed.judge.view import NS_PER_MS, View
from testbed.spec import Clock
from testbed.verdict import EvidenceRef, Finding

HOST_SIDE = {
    Ended.NEVER_CONNECTED: "guest-never-started",
    Ended.WALL_LIMIT: "wall-limit",
    Ended.PAUSED: "guest-paused",
    Ended.QEMU_DIED: "emulator-fault",
    Ended.INTERRUPTED: "guest-no-status",
}
"""Ends that say nothing about a candidate, whatever it did."""

JUMP_MS = 2_000
"""The runner is a real-time task with locked memory: a beat so late was not the scheduler's doing."""


def findings(view: View) -> Iterator[Finding]:
    """What the end of the guest says."""
    outcome = view.run.outcome
    yield from _clock(view)
    if outcome.ended in HOST_SIDE:
        yield view.found(
            HOST_SIDE[outcome.ended],
            f"the host saw `{outcome.ended}`" + (f": {outcome.reason}" if outcome.reason else ""),
            [view.outcome_ref(), *_last(view)],
        )
        return
    if kernel.emulator_fault(view) is not None:
        return  # told by the kernel's checks
    if kernel.runner_died(view):
        yield view.found(
            "guest-no-status",
            "the runner, init of the guest, ended before its job did",
            [view.outcome_ref(), *_last(view)],
            cause="a fault of the runner",
            hint="send the case: this is a bug of the testbed",
        )
        return
    blamed = view.attach_begun is not None
    match outcome.ended:
        case Ended.FINISHED:
            if view.end is None:
                yield view.found(
                    "guest-no-status", "the guest powered off and its stream has no `end`", [view.outcome_ref()]
                )
        case Ended.WATCHDOG:
            yield view.found(
                "machine-locked-up" if blamed else "guest-no-status",
                "the virtual watchdog expired: the runner, a real-time task, had not run for its whole period"
                + ("" if blamed else ", before anything was attached"),
                [view.outcome_ref(), *_last(view)],
            )
        case Ended.PANIC:
            last = kernel.panic_line(view)
            refs = [view.outcome_ref()] + ([view.console_ref(last.index)] if last else [])
            if not blamed and not view.has_candidate and last is not None:
                return  # the kernel's checks have told it
            if not blamed:
                yield view.found(
                    "guest-no-status",
                    "the guest's kernel panicked" + ("" if not view.has_candidate else " before anything was attached"),
                    refs,
                )
            elif last is None:
                # Without the kernel's words, which the kernel's checks would have told.
                yield view.found("kernel-panic", "the guest panicked, and its console does not say why", refs)
        case Ended.POWEROFF:
            yield view.found(
                "machine-reset" if blamed else "guest-no-status",
                "the guest powered off or rebooted in the middle of its job",
                [view.outcome_ref(), *_last(view)],
            )


def _last(view: View) -> list[EvidenceRef]:
    """The last thing that was heard, if anything was."""
    events = view.run.stream.events
    return [view.ref(events[-1])] if events else []


def _clock(view: View) -> Iterator[Finding]:
    """Guest time that goes back, or that passed without the guest."""
    events = view.run.stream.events
    for earlier, later in pairwise(events):
        if later.t < earlier.t:
            yield view.found(
                "clock-jumped",
                f"guest time went back by {(earlier.t - later.t) // NS_PER_MS} ms",
                [view.ref(earlier), view.ref(later)],
            )
            return
    if view.run.clock is not Clock.LIVE:
        return
    stopped = "STOP" in view.run.outcome.qmp
    late = jumped_beat(view)
    if stopped and view.run.outcome.ended is not Ended.PAUSED:
        yield view.found("guest-paused", "the guest was stopped and went on", [view.outcome_ref()])
    elif late is not None:
        yield view.found(
            "clock-jumped",
            f"the real-time runner came {late.integer('late_us') // 1000} ms late, and no lock-up was reported",
            [view.ref(late)],
        )


def jumped_beat(view: View) -> Event | None:
    """A beat that came far too late although nothing in the guest explains it (live only)."""
    late = next(
        (beat for beat in view.run.stream.of("beat") if beat.integer("late_us") > JUMP_MS * 1000),
        None,
    )
    if late is None:
        return None
    lockups = ("soft-lockup", "hard-lockup", "rcu-stall")
    told = any(
        pattern.code in lockups and pattern.expression.match(record.text)
        for record in kernel.records(view)
        for pattern in kernel.PATTERNS
    )
    return None if told else late
