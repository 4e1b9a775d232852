# SPDX-License-Identifier: Apache-2.0
"""How schedulers fail, as users and developers of sched_ext have met it, and what shows each of the ways here.

The page docs/reference/failure-modes.md and a verdict's `not_checked` are made from this one table. A mode's number and
code never change and are never used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """One way to fail.

    Attributes:
        number: place in the table.
        code: the stable word, as in `not_checked`.
        what: what goes wrong, in a line.
        scenarios: each of them can show it; empty if no guest can.
        lint: rules of the lint that warn of it; advice, so they count for nothing in a verdict.
        open: what remains unseen when the scenarios ran, or why there is no scenario.
        how: how it can be looked for nevertheless, where no scenario does.
    """

    number: int
    code: str
    what: str
    scenarios: tuple[str, ...] = ()
    lint: tuple[str, ...] = ()
    open: str = ""
    how: str = ""


_HOST = "load it on the kernel that it is meant for, in a guest or on a spare machine"

MODES = (
    Mode(
        1,
        "real-time-hog-blamed",
        "a real-time task takes a CPU, what is pinned there starves, and the scheduler is ejected for it",
        ("rt-hog",),
        open="kernels without a reserve for sched_ext tasks; the guest's has one",
    ),
    Mode(
        2,
        "kworker-not-dispatched",
        "a kernel worker waits in a per-CPU queue that its own CPU never drains",
        ("kernel-threads", "starvation", "no-migration", "timers"),
        ("lint-undrained-queue", "lint-lost-task"),
    ),
    Mode(
        3,
        "kworkers-late-under-load",
        "kernel workers stall while much is being started, and nobody can log in",
        ("stall", "kernel-threads", "fork-exec"),
        ("lint-lost-task",),
    ),
    Mode(
        4,
        "queue-of-an-idle-cpu",
        "a task waits in the queue of a CPU that idles, because nobody told that CPU",
        ("idle-cpus", "quiet-wakeups", "first-look"),
        ("lint-no-wakeup", "lint-undrained-queue"),
    ),
    Mode(
        5,
        "cpu-left-out",
        "one CPU never looks at the shared queue, on a number of CPUs nobody thought of; or the second attach fails",
        ("odd-cpus", "idle-cpus", "attach-detach"),
        ("lint-one-cpu",),
    ),
    Mode(
        6,
        "stall-under-affinity",
        "tasks with narrow or changing affinity are queued where no CPU that looks may run them",
        ("affinity", "affinity-storm"),
        ("lint-affinity-ignored",),
    ),
    Mode(
        7,
        "throttled-for-ever",
        "a task that was throttled, stopped or frozen never runs again",
        ("cgroup-bandwidth", "stopped-tasks"),
    ),
    Mode(
        8,
        "rare-stall-of-a-release",
        "a release stalls every few minutes under one kind of load, where the one before did not in hours",
        ("soak", "stall"),
        open="hours under the very load: `testbed compare` tells two versions apart by the runs there are",
    ),
    Mode(
        9,
        "user-space-half-late",
        "the part of a scheduler that lives in user space is paged out, or waits itself, while processes are born",
        ("fork-exec", "memory-pressure"),
    ),
    Mode(
        10,
        "task-context-missing",
        "the context of a task is not found, under memory pressure or after a restart",
        ("memory-pressure", "many-tasks", "attach-detach", "loader-killed"),
        ("lint-init-fails",),
    ),
    Mode(
        11,
        "out-of-contexts",
        "a burst of forks exhausts what the scheduler allocates for each task",
        ("fork-exec", "many-tasks"),
        ("lint-map-grows",),
    ),
    Mode(
        12,
        "failed-fork",
        "a fork that comes to nothing leaves a task behind that the scheduler does not know",
        ("refused-forks",),
    ),
    Mode(
        13,
        "forbidden-cpu",
        "a task is sent to the local queue of a CPU that its affinity forbids",
        ("affinity", "class-churn", "affinity-storm"),
        ("lint-affinity-ignored",),
    ),
    Mode(
        14,
        "migration-disabled",
        "a task that must not migrate just now is sent to another CPU",
        ("affinity", "no-migration", "hackbench"),
    ),
    Mode(
        15,
        "migration-disabled-first",
        "tasks that must not migrate go before those that are pinned, for ever",
        ("no-migration",),
    ),
    Mode(
        16,
        "no-such-cpu",
        "ops.select_cpu() returns an error of a helper as if it were a CPU",
        ("first-look", "affinity", "stall"),
        ("lint-unchecked-cpu",),
    ),
    Mode(
        17,
        "holes-in-cpu-numbers",
        "queues and arrays are made for CPUs from 0 to a count, and CPU numbers have holes",
        ("siblings-offline", "odd-cpus"),
        ("lint-unknown-queue", "lint-unchecked-cpu"),
        open="a kernel with more possible CPUs than present ones: the image's never has any",
    ),
    Mode(
        18,
        "cpu-hotplug",
        "a CPU goes or comes while the scheduler is attached",
        ("cpu-hotplug",),
    ),
    Mode(
        19,
        "suspend",
        "tasks stall after the machine was suspended, or the scheduler is blamed for the time asleep",
        open="nothing in the emulated machine wakes its kernel, which is built without tests of suspending; "
        "`stopped-tasks` freezes and thaws tasks only",
        how="`echo freeze > /sys/power/state` on a spare machine with the scheduler attached",
    ),
    Mode(
        20,
        "attached-while-booting",
        "the machine freezes when the scheduler is attached while everything else is being started",
        ("attach-storm", "attach-detach"),
        open="a boot with all services of a host; a guest is saved seconds after its boot and attached from there",
    ),
    Mode(
        21,
        "many-cpus-one-queue",
        "many CPUs scan one queue, or fight for its lock, until the machine locks up",
        ("many-cpus", "soft-lockup", "soft-lockup-panic"),
        ("lint-long-loop",),
        open="dozens of CPUs; the cost of a contended cache line, which `sim` does not model",
    ),
    Mode(
        22,
        "core-scheduling",
        "core-scheduling cookies and SMT siblings lock each other up",
        open="the image's kernel is built without core scheduling (CONFIG_SCHED_CORE)",
        how="tasks with cookies (prctl PR_SCHED_CORE) on a spare SMT machine whose kernel has it",
    ),
    Mode(
        23,
        "attach-against-fork-lock",
        "attaching waits for a fork that waits for a kernel thread that waits for attaching",
        ("attach-storm",),
    ),
    Mode(
        24,
        "cgroup-moves",
        "the kernel warns or panics when tasks move between cgroups while a scheduler comes or goes",
        ("cgroup-churn", "refused-forks", "attach-storm"),
    ),
    Mode(
        25,
        "second-scheduler",
        "a second scheduler is attached while one is there, and the wrong one suffers",
        ("second-scheduler",),
        open="two different programs; only an object is registered twice",
    ),
    Mode(
        26,
        "detach-under-load",
        "the kernel warns or crashes when a scheduler is detached under load",
        ("attach-detach", "loader-killed", "cgroup-churn"),
    ),
    Mode(
        27,
        "deadlock-or-leak-on-attach",
        "attaching and detaching in turns ends in a deadlock, or loses memory each time",
        ("attach-detach", "attach-storm"),
        open="slow leaks of the kernel itself: nobody runs kmemleak in the guest",
    ),
    Mode(
        28,
        "loads-only-here",
        "it does not load on another kernel, which lacks a function or names it otherwise",
        lint=("lint-missing-kfunc",),
        open="only the guest's kernel is asked",
        how=_HOST,
    ),
    Mode(
        29,
        "verifier-of-another-kernel",
        "the verifier of another kernel or architecture finds it too long, or its stack too deep",
        open="only the guest's kernel and x86-64 are asked",
        how=_HOST,
    ),
    Mode(
        30,
        "kernel-built-otherwise",
        "it needs what the host's kernel was built without (function tracing, for one)",
        open="only the guest's configuration is asked",
        how=_HOST,
    ),
    Mode(
        31,
        "weight-of-a-cgroup",
        "cpu.weight and cpu.idle are ignored, or starve the light ones",
        ("cgroup-weights",),
        open="whether weights are honoured: told as a figure, demanded of nobody",
    ),
    Mode(
        32,
        "nice-ignored-or-inverted",
        "a nice value means nothing or the opposite, or its weight overflows and stalls",
        ("weights", "starvation"),
        ("lint-strict-priority",),
    ),
    Mode(
        33,
        "bandwidth-of-a-cgroup",
        "cpu.max is ignored, shared out wrongly among groups, or throttles the wrong ones",
        ("cgroup-bandwidth",),
        open="whether limits are kept: how much was done in a limited group is in the evidence, and demanded of nobody",
    ),
    Mode(
        34,
        "enqueue-without-kick",
        "a CPU idles beside queued work, or wakes up with the next tick only",
        ("idle-cpus", "quiet-wakeups"),
        ("lint-no-wakeup", "lint-idle-tracking-off"),
    ),
    Mode(
        35,
        "wake-up-on-an-idle-machine",
        "a wake-up is lost or late when all CPUs, or all but a core's second threads, are idle",
        ("quiet-wakeups", "siblings-offline"),
        ("lint-no-wakeup",),
    ),
    Mode(
        36,
        "stutter",
        "what wakes up every few milliseconds is late beside other work: sound crackles, pictures stutter",
        ("periodic", "cyclictest", "deadlines", "mixed", "starvation", "schbench"),
        ("lint-long-slice", "lint-newest-first"),
    ),
    Mode(
        37,
        "throughput",
        "messages, requests or computing take many times as long as under EEVDF",
        ("crawl", "hackbench", "schbench", "build", "messages", "many-cpus"),
        ("lint-kicks-everybody",),
        open="caches and lock contention, which `sim` does not model; machines of dozens of CPUs",
    ),
    Mode(
        38,
        "clock-frequency",
        "the CPUs stay at a low clock frequency, or waste power at a high one",
        open="a guest has no clock frequencies",
        how="compare frequency and power on the host, with and without the scheduler",
    ),
    Mode(
        39,
        "endless-slice",
        "a slice never ends, is filled up after each preemption, or is zero",
        ("one-cpu", "rt-hog", "starvation"),
        ("lint-infinite-slice", "lint-long-slice"),
    ),
    Mode(
        40,
        "virtual-time-drifts",
        "virtual times run ahead, underflow, or give who slept long an advantage for ever",
        ("long-sleepers", "soak", "weights"),
        open="clocks of a machine that has been up for weeks",
    ),
    Mode(
        41,
        "overload",
        "a storm of processes, far more than the machine can serve, stalls it for good",
        ("overload",),
    ),
    Mode(
        42,
        "allocator-corrupted",
        "what the scheduler keeps for a task is handed out twice or used after it was freed",
        ("cgroup-churn", "refused-forks", "many-tasks", "class-churn"),
        open="corruption without a consequence: the image's kernel has no KASAN",
    ),
    Mode(
        43,
        "cache-domain-drained-wrongly",
        "the queue of one cache domain is drained by CPUs that its tasks may not use, or by nobody",
        ("two-caches", "affinity-storm"),
        ("lint-affinity-ignored", "lint-undrained-queue"),
    ),
    Mode(
        44,
        "memory-of-the-scheduler",
        "the scheduler takes much memory for itself, or more with each task",
        ("many-tasks",),
        ("lint-map-grows",),
        open="what it takes from the start, which nobody has set a limit for",
    ),
    Mode(
        45,
        "freezes-after-hours",
        "a machine that ran well for hours or days freezes",
        ("soak",),
        open="more than minutes of guest time",
    ),
)
"""The failure modes, by number."""

CODES = frozenset(mode.code for mode in MODES)
ANY_MODE = "failure-modes"
"""What a promotion policy calls all of them together, where it accepts that some of them were not looked for."""

BESIDE = {
    "on-request": "a scheduler that takes only tasks that ask for it, and lets EEVDF do the work that it is judged by",
    "yield-storm": "tasks that run all the time and get nowhere, since each gives way to the other",
    "lock-handover": "priority inversion: all wait for one, who runs often enough for the kernel's watchdog",
}
"""Scenarios for what the watchdog of the kernel can't see and none of these reports was about, and what that is."""

PAGE_HEAD = """# Failure modes

<!-- Generated from testbed/judge/modes.py: `python -m testbed.judge.docs --write`. -->

How schedulers have failed on their users, and what shows that here. A scenario in the third column can show the mode;
a rule of the lint warns of it and decides nothing. The last column says what stays open even so. A verdict lists under
`not_checked` each mode that nothing of what ran could have shown.

| # | code | what goes wrong | scenarios | lint | stays open |
|---|---|---|---|---|---|
"""


def unseen(ran: frozenset[str]) -> Iterator[Mode]:
    """The modes that none of the scenarios of these names could have shown."""
    return (mode for mode in MODES if not ran.intersection(mode.scenarios))


def page() -> str:
    """The table as a page of the documentation."""
    rows = [
        f"| {mode.number} | `{mode.code}` | {mode.what} | {_links(mode.scenarios, '../../scenarios/{}.yaml')} | "
        f"{_links(mode.lint, 'lint.md#{}')} | {mode.open or '–'} |"
        for mode in MODES
    ]
    shown = sum(bool(mode.scenarios) for mode in MODES)
    tail = f"\nA guest can show {shown} of {len(MODES)}; of the others the last column says why not.\n"
    beside = "".join(f"- [{name}](../../scenarios/{name}.yaml): {what}.\n" for name, what in BESIDE.items())
    return PAGE_HEAD + "\n".join(rows) + "\n" + tail + f"\nScenarios for what no such report was about:\n\n{beside}"


def _links(names: tuple[str, ...], place: str) -> str:
    return ", ".join(f"[{name}]({place.format(name)})" for name in names) or "–"
