# SPDX-License-Identifier: Apache-2.0
"""The closed list of ways in which a scheduler can be bad, and which finding codes name each of them rightly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FailureClass:
    """One way to be bad.

    Attributes:
        meaning: of the class, in a line; bpf/README.md has the same.
        codes: findings that name it rightly where a header says no codes of its own; empty: any does, since the
            class says when something goes wrong and not what.
    """

    meaning: str
    codes: frozenset[str] = frozenset()


_WAITS = "runnable-task-stall task-starved canary-starved kworker-starved rcu-starved hung-task"
_STANDS = "soft-lockup hard-lockup rcu-stall machine-locked-up no-progress hung-task"
_WORK = "crawl no-progress throughput-collapse latency-collapse idle-while-runnable"


def _codes(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


CLASSES: dict[str, FailureClass] = {
    "lost-task": FailureClass("a task is put into no queue, or where nobody looks", _codes(_WAITS, _STANDS, "crawl")),
    "starvation": FailureClass(
        "a task waits without end, or far too long, while others have turn after turn", _codes(_WAITS, _STANDS, "crawl")
    ),
    "kernel-threads": FailureClass(
        "kernel workers, RCU or soft interrupts do not come to run", _codes(_WAITS, _STANDS, "slow-detach")
    ),
    "affinity": FailureClass(
        "a CPU is chosen that the task may not use", _codes(_WAITS, _STANDS, "scheduler-error step-failed")
    ),
    "idle-cpu": FailureClass("CPUs idle beside queued work", _codes(_WAITS, _WORK, "unfair-share")),
    "unfair": FailureClass("equals get unequal shares, or a weight is ignored", _codes(_WAITS, _WORK, "unfair-share")),
    "slice": FailureClass("slices that are too long, never end, or hardly begin", _codes(_WAITS, _STANDS, _WORK)),
    "lockup": FailureClass("a CPU or the machine stands still", _codes(_WAITS, _STANDS, "crawl kernel-panic")),
    "throughput": FailureClass("everybody runs, and little is done", _codes(_WAITS, _STANDS, _WORK)),
    "latency": FailureClass("who wakes up runs late, and the watchdog is content", _codes(_WAITS, "latency-collapse")),
    "load-failure": FailureClass(
        "it does not compile, or the kernel does not load it",
        _codes(
            "compile-error compile-limit verifier-rejected load-failed attach-failed unknown-kfunc ops-invalid",
            "not-a-scheduler several-schedulers license-not-gpl include-refused damaged-object init-failed",
            "lint-sleepable lint-flags lint-missing-kfunc scheduler-error",
        ),
    ),
    "init-failure": FailureClass(
        "it loads, and fails or is ejected while it begins", _codes("init-failed attach-failed load-failed lint-flags")
    ),
    "runtime-error": FailureClass(
        "it does what sched_ext forbids, and the kernel ejects it", _codes("scheduler-error self-ejected")
    ),
    "exit-path": FailureClass(
        "it leaves unasked, leaves late, or leaves a machine that is not well",
        _codes(
            "slow-detach detach-failed unhealthy-after-detach self-ejected unregistered-itself restart-loop",
            "unregistered-by-kernel attach-failed init-failed",
            _STANDS,
        ),
    ),
    "fork-or-cgroup": FailureClass(
        "fork, exec, or a change of cgroups fails or goes wrong",
        _codes(
            "fork-vetoed cgroup-vetoed",
            "step-failed scheduler-error self-ejected unhealthy-after-detach out-of-memory",
            _WAITS,
        ),
    ),
    "memory": FailureClass(
        "memory grows, or runs out", _codes("out-of-memory fork-vetoed init-failed self-ejected unhealthy-after-detach")
    ),
    "integrity": FailureClass(
        "it deceives the gate, or reaches for what no scheduler needs",
        _codes("tampering forbidden-helper forbidden-program tasks-rejected", _WAITS, _STANDS, "unfair-share"),
    ),
    "late": FailureClass("it is well for long, and fails then"),
    "topology": FailureClass("it fails on some machines only"),
    "race": FailureClass("it fails in some orders of events only"),
}
