# SPDX-License-Identifier: Apache-2.0
"""Rules about the table of callbacks: what must be there, what may sleep, what is kept for ever."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.build.hints import OLD_NAMES
from testbed.lint.facts import TASK_CALLBACKS, Custody, Event, Facts, Hit, Place

#: Callbacks that the kernel calls where it may sleep.
SLEEPABLE = frozenset({
    "init", "exit", "init_task", "cgroup_init", "cgroup_exit", "cgroup_prep_move", "cpu_online", "cpu_offline",
    "init_cids", "sub_attach", "sub_detach", "cpuctl_init", "cpuctl_exit", "cpuctl_prep_move",
})  # fmt: skip
#: Functions of sched_ext that may sleep.
_SLEEPS = ("scx_bpf_create_dsq", "scx_bpf_cid_override")
_HASHES = frozenset({1, 5})  # hash, per-CPU hash


def check(facts: Facts) -> Iterator[Hit]:
    """All rules of this family."""
    yield from always(facts)
    yield from missing_functions(facts)
    yield from exit_unrecorded(facts)
    yield from init_fails(facts)
    yield from map_grows(facts)


def always(facts: Facts) -> Iterator[Hit]:
    """The rules that are right even if not everything was followed."""
    yield from sleeping(facts)
    yield from combinations(facts)


def _may_sleep(facts: Facts, callback: str) -> bool:
    """Whether the callback's program was compiled as one that may sleep."""
    section = facts.code.functions[facts.ops.callbacks[callback]].section
    return section.removeprefix("?").startswith("struct_ops.s")


def sleeping(facts: Facts) -> Iterator[Hit]:
    """What may sleep where nothing may, and programs that may sleep where the kernel takes none."""
    for callback, name in sorted(facts.ops.callbacks.items()):
        if name not in facts.code.functions:
            continue
        if _may_sleep(facts, callback):
            if callback not in SLEEPABLE:
                yield Hit(
                    "lint-sleepable",
                    f"ops.{callback}() is compiled as a program that may sleep, and the kernel does not take one there",
                    Place(name),
                )
            continue
        for event in facts.events(*_SLEEPS, roots=(callback,)):
            yield Hit(
                "lint-sleepable",
                f"`{event.name}()` may sleep, and ops.{callback}() is compiled as a program that may not",
                facts.at(event, event.name),
            )
            break


def missing_functions(facts: Facts) -> Iterator[Hit]:
    """A call of a function that the kernel lacks, reached without asking."""
    told: set[str] = set()
    for event in sorted(facts.found.events.values(), key=lambda one: (one.function, one.slot)):
        name = event.raw_name.split("___")[0]
        # Names with underscores are what the headers call where types say that a kernel has them.
        if event.weak_missing and not name.startswith("__scx_bpf_") and name not in told:
            told.add(name)
            new = OLD_NAMES.get(name)
            yield Hit(
                "lint-missing-kfunc",
                f"this kernel has no `{name}()`, and it is called without `bpf_ksym_exists()`"
                + (f"; now: `{new}`" if new else ""),
                facts.at(event, name),
            )


def combinations(facts: Facts) -> Iterator[Hit]:
    """Flags that the kernel refuses beside these callbacks."""
    if facts.flag("SCX_OPS_ENQ_LAST") and not facts.has("enqueue"):
        yield Hit("lint-flags", "`SCX_OPS_ENQ_LAST` is set and there is no `.enqueue`", field="flags")
    if (
        facts.flag("SCX_OPS_BUILTIN_IDLE_PER_NODE")
        and facts.has("update_idle")
        and not facts.flag("SCX_OPS_KEEP_BUILTIN_IDLE")
    ):
        yield Hit(
            "lint-flags",
            "`SCX_OPS_BUILTIN_IDLE_PER_NODE` is set and `.update_idle` switches the kernel's record of idle CPUs off",
            field="flags",
        )


def exit_unrecorded(facts: Facts) -> Iterator[Hit]:
    """An ops.exit() that does not look at why it ends."""
    name = facts.ops.callbacks.get("exit", "")
    if name not in facts.code.functions or facts.reads("scx_exit_info.", root="exit"):
        return
    if any(value.base == "exit-info" or value.has("exit-info") for event in _of(facts, "exit") for value in event.args):
        return
    yield Hit("lint-exit-unrecorded", "ops.exit() does not look at why the scheduler ends", Place(name))


def _of(facts: Facts, root: str) -> Iterator[Event]:
    return (event for event in facts.found.events.values() if event.root == root)


def init_fails(facts: Facts) -> Iterator[Hit]:
    """An ops.init() that never succeeds."""
    ends = {custody: value for (root, custody), value in facts.found.returns.items() if root == "init"}
    value = ends.get(Custody.NONE)
    if (
        len(ends) == 1  # who complains with scx_bpf_error() knows what is missing, e.g. settings of its user space
        and value is not None
        and value.constants
        and all(number & 0xFFFFFFFF >= 1 << 31 for number in value.constants)
    ):
        yield Hit("lint-init-fails", "ops.init() returns an error on every path", Place(facts.ops.callbacks["init"]))


def map_grows(facts: Facts) -> Iterator[Hit]:
    """A table that gets an entry for each task and never loses one."""
    shrinks = {event.args[0].base for event in facts.events("bpf_map_delete_elem")}
    for event in facts.events("bpf_map_update_elem", roots=TASK_CALLBACKS):
        table, key = event.args[0].base, event.args[1]
        known = facts.code.maps.get(table.removeprefix("map:"))
        if known is None or known.type not in _HASHES or table in shrinks or "" in shrinks:
            continue
        if key.constants is None and not key.has("cpu") and key.has("task", "counter"):
            yield Hit(
                "lint-map-grows",
                f"ops.{event.root}() adds to the table `{known.name}`, and nothing ever takes an entry out",
                facts.at(event, "bpf_map_update_elem"),
            )
            return
