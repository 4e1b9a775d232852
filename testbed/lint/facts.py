# SPDX-License-Identifier: Apache-2.0
"""What a scheduler does, as far as its instructions tell: the ground that all rules stand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from testbed.build.object import BpfObject, Ops
from testbed.lint.code import Code
from testbed.lint.interpret import Custody, Event, Findings, Interpreter
from testbed.lint.kernel import Kernel
from testbed.lint.values import NO_TAGS, UNKNOWN, Value, tagged

#: Callbacks whose first argument is the task that they are about.
TASK_CALLBACKS = frozenset({
    "select_cpu", "select_cid", "enqueue", "dequeue", "runnable", "running", "stopping", "quiescent", "tick",
    "core_sched_before", "set_weight", "set_cpumask", "set_cmask", "init_task", "exit_task", "enable", "disable",
    "dump_task",
})  # fmt: skip
#: Callbacks that run with the run queue locked, again and again, while the machine waits.
HOT_CALLBACKS = frozenset({
    "select_cpu", "select_cid", "enqueue", "dequeue", "dispatch", "runnable", "running", "stopping", "quiescent",
    "tick", "yield", "core_sched_before", "set_weight", "set_cpumask", "set_cmask", "update_idle", "enable",
    "disable",
})  # fmt: skip
TIMER = "timer"

_OWN_CPU = frozenset({"dispatch", "update_idle", "cpu_online", "cpu_offline", "cpu_acquire", "cpu_release"})
_ARRAYS = frozenset({2, 6, 12})  # array, per-CPU array, array of maps
_CREATE = 1  # BPF_LOCAL_STORAGE_GET_F_CREATE
_SETUP = ("init_task", "enable", "cgroup_init", "init")


@dataclass(frozen=True)
class Place:
    """An instruction of a function.

    Attributes:
        slot: None is the function itself.
        token: the word of the source that is meant, e.g. a function's name.
        line: the whole line is meant, e.g. a condition.
    """

    function: str
    slot: int | None = None
    token: str = ""
    line: bool = False


@dataclass(frozen=True)
class Hit:
    """A rule that fired: its code, what was found, and where. `field` is a field of the scheduler's table instead."""

    code: str
    message: str
    place: Place | None = None
    field: str = ""


@dataclass(frozen=True)
class Facts:
    """One scheduler, followed."""

    ops: Ops
    object: BpfObject
    code: Code
    kernel: Kernel
    found: Findings
    interpreter: Interpreter

    @cached_property
    def _ordered(self) -> list[Event]:
        return sorted(self.found.events.values(), key=lambda one: (one.function, one.slot, one.custody))

    def events(self, *names: str, roots: Iterable[str] | None = None) -> Iterator[Event]:
        """Events with one of these names, in order of function and instruction."""
        wanted = frozenset(roots) if roots is not None else None
        for event in self._ordered:
            if event.name in names and (wanted is None or event.root in wanted):
                yield event

    def inserts(self, *roots: str) -> Iterator[Event]:
        """Insertions into a DSQ: their arguments are task, queue, slice, and flags, or vtime and flags."""
        yield from self.events("scx_bpf_dsq_insert", "scx_bpf_dsq_insert_vtime", roots=roots or None)

    def calls(self, *names: str, roots: Iterable[str] | None = None) -> bool:
        """Whether something is called at all."""
        return next(self.events(*names, roots=roots), None) is not None

    def reads(self, *fields: str, root: str = "") -> bool:
        """Whether one of these kernel fields is read, by `root` or by anybody."""
        sets = [self.found.fields.get(root, set())] if root else list(self.found.fields.values())
        return any(name.startswith(fields) for names in sets for name in names)

    def has(self, callback: str) -> bool:
        """Whether the scheduler implements a callback."""
        return callback in self.ops.callbacks

    def flag(self, name: str) -> bool:
        """Whether a flag `SCX_OPS_…` is set."""
        bit = self.kernel.constants.get(name, 0)
        return bool(bit and self.ops.values.get("flags", 0) & bit)

    def enum(self, name: str) -> int | None:
        """A constant of the kernel."""
        return self.kernel.constants.get(name)

    @staticmethod
    def at(event: Event, token: str = "") -> Place:
        """The place of an event."""
        return Place(event.function, event.slot, token)


def arguments_of(callback: str) -> tuple[Value, ...]:
    """What is known of a callback's arguments."""
    if callback in TASK_CALLBACKS:
        task = Value(base="task", tags=frozenset({"task"}))
        second = tagged("cpu") if callback in ("select_cpu", "select_cid") else UNKNOWN
        if callback == "core_sched_before":
            second = task
        return (task, second, UNKNOWN, UNKNOWN)
    if callback in _OWN_CPU:
        return (tagged("cpu", "own-cpu"), UNKNOWN, UNKNOWN, UNKNOWN)
    if callback == "exit":
        return (Value(base="exit-info", tags=frozenset({"exit-info"})), UNKNOWN)
    return (UNKNOWN,) * 4


def gather(ops: Ops, object_: BpfObject, code: Code, kernel: Kernel) -> Facts:
    """Follow every callback of a scheduler, and the timers that it starts."""
    setup = Interpreter(code, kernel)
    for name in _SETUP:
        if name in ops.callbacks:
            setup.callback(name, ops.callbacks[name], arguments_of(name))
    interpreter = Interpreter(code, kernel, _surely_found(setup.found, code))
    for name in sorted(ops.callbacks):
        interpreter.callback(name, ops.callbacks[name], arguments_of(name))
    done: set[str] = set()
    while waiting := sorted(interpreter.found.timers - done):
        for name in waiting:
            done.add(name)
            interpreter.callback(f"{TIMER} {name}", name, (UNKNOWN,) * 3, direct=True)
    return Facts(ops, object_, code, kernel, interpreter.found, interpreter)


def _surely_found(setup: Findings, code: Code) -> frozenset[str]:
    """Lookups whose failure is no path of a living scheduler: arrays, and what is made for each task beforehand."""
    sure = {f"null:map:{each.name}" for each in code.maps.values() if each.type in _ARRAYS}
    for event in setup.events.values():
        if event.name.endswith("_storage_get") and _creates(event.args[3]):
            sure.add("null:storage")
        elif event.name == "bpf_map_update_elem" and event.args[0].base:
            sure.add(f"null:{event.args[0].base}")
    return frozenset(sure) or NO_TAGS


def _creates(flags: Value) -> bool:
    return flags.constants is None or any(number & _CREATE for number in flags.constants)


def queue_name(facts: Facts, number: int) -> str:
    """A DSQ as a person knows it."""
    for name in ("SCX_DSQ_GLOBAL", "SCX_DSQ_LOCAL"):
        if facts.enum(name) == number:
            return f"`{name}`"
    local_on = facts.enum("SCX_DSQ_LOCAL_ON")
    if local_on is not None and number & local_on == local_on:
        return f"`SCX_DSQ_LOCAL_ON | {number & 0xFFFFFFFF}`"
    return f"queue {number}" if number < 1 << 32 else f"queue {number:#x}"


def is_builtin(facts: Facts, value: Value) -> bool:
    """Whether a DSQ id surely is one of the kernel's own."""
    bit = facts.enum("SCX_DSQ_FLAG_BUILTIN")
    return bit is not None and bool(value.sure & bit)


def user_queues(facts: Facts, value: Value) -> frozenset[int]:
    """The scheduler's own DSQs among the possible values of an id."""
    bit = facts.enum("SCX_DSQ_FLAG_BUILTIN")
    if value.constants is None or bit is None:
        return frozenset()
    return frozenset(number for number in value.constants if not number & bit)


__all__ = [
    "HOT_CALLBACKS",
    "TASK_CALLBACKS",
    "TIMER",
    "Custody",
    "Event",
    "Facts",
    "Hit",
    "Place",
    "arguments_of",
    "gather",
    "is_builtin",
    "queue_name",
    "user_queues",
]
