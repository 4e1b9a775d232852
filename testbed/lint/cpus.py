# SPDX-License-Identifier: Apache-2.0
"""Rules about CPUs: woken, chosen, kicked."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.lint.facts import HOT_CALLBACKS, Custody, Facts, Hit, Place, is_builtin
from testbed.lint.values import Value, join

_KICK = "scx_bpf_kick_cpu"
#: Functions that find or claim an idle CPU.
_IDLE = (
    "scx_bpf_select_cpu_dfl", "scx_bpf_select_cpu_and", "scx_bpf_pick_idle_cpu", "scx_bpf_pick_idle_cpu_node",
    "scx_bpf_pick_any_cpu", "scx_bpf_pick_any_cpu_node", "scx_bpf_test_and_clear_cpu_idle",
    "scx_bpf_get_idle_cpumask", "scx_bpf_get_idle_smtmask", "scx_bpf_get_idle_cpumask_node",
    "scx_bpf_get_idle_smtmask_node",
)  # fmt: skip
_SELECT = ("select_cpu", "select_cid")


def check(facts: Facts) -> Iterator[Hit]:
    """All rules of this family."""
    yield from nobody_woken(facts)
    yield from one_cpu(facts)
    yield from unchecked(facts)
    yield from kicks_everybody(facts)
    yield from idle_tracking_off(facts)


def _chosen(facts: Facts) -> Value | None:
    """Everything that the scheduler's CPU selection returns; None if it has none."""
    found: Value | None = None
    for root in _SELECT:
        for custody in Custody:
            value = facts.found.returns.get((root, custody))
            if value is not None:
                found = value if found is None else join(found, value)
    return found


def nobody_woken(facts: Facts) -> Iterator[Hit]:
    """A shared queue is filled, and no idle CPU is told."""
    chosen = _chosen(facts)
    if chosen is None or chosen.only is not None:
        return  # without ops.select_cpu() the kernel finds idle CPUs; one fixed CPU is another rule's
    if facts.calls(_KICK) or facts.calls(*_IDLE) or next(facts.inserts(*_SELECT), None) is not None:
        return
    local, global_ = facts.enum("SCX_DSQ_LOCAL"), facts.enum("SCX_DSQ_GLOBAL")
    for event in facts.inserts("enqueue"):
        queue = event.args[1]
        if is_builtin(facts, queue) and queue.only != global_:
            continue
        if local is not None and local in (queue.constants or ()):
            continue
        yield Hit(
            "lint-no-wakeup",
            "a task waits in a queue for all, and no idle CPU is looked for or kicked",
            facts.at(event, event.name),
        )
        return


def one_cpu(facts: Facts) -> Iterator[Hit]:
    """Everything is sent to one CPU."""
    chosen = _chosen(facts)
    if chosen is None or chosen.only is None or chosen.only >= 1 << 31 or facts.calls(_KICK):
        return
    local_on = facts.enum("SCX_DSQ_LOCAL_ON") or 0
    if any(event.args[1].sure & local_on == local_on for event in facts.inserts()):
        return
    root = next(name for name in _SELECT if name in facts.ops.callbacks)
    yield Hit(
        "lint-one-cpu",
        f"ops.{root}() returns CPU {chosen.only} for every task, and nothing brings work to the others",
        Place(facts.ops.callbacks[root], _last(facts, facts.ops.callbacks[root]), "return"),
    )


def _last(facts: Facts, name: str) -> int:
    return max(facts.code.functions[name].insns, default=0)


def unchecked(facts: Facts) -> Iterator[Hit]:
    """An error code that is used as if it were a CPU."""
    for root in _SELECT:
        values = [facts.found.returns[root, one] for one in Custody if (root, one) in facts.found.returns]
        if any(value.has("negative") for value in values):
            place = next(facts.events(*_IDLE, roots=(root,)), None)
            yield Hit(
                "lint-unchecked-cpu",
                f"ops.{root}() returns what it got without a test: it is negative when no CPU is idle",
                facts.at(place, place.name) if place is not None else None,
            )
            return
    for event in facts.events(_KICK):
        if event.args[0].has("negative"):
            yield Hit(
                "lint-unchecked-cpu",
                "a CPU is kicked that may be none: it is negative when no CPU is idle",
                facts.at(event, event.name),
            )
            return
    local_on = facts.enum("SCX_DSQ_LOCAL_ON")
    for event in facts.inserts():
        queue = event.args[1]
        if local_on is not None and queue.sure & local_on == local_on and queue.has("negative"):
            yield Hit(
                "lint-unchecked-cpu",
                "a task goes to a CPU that may be none: it is negative when no CPU is idle",
                facts.at(event, event.name),
            )
            return


def kicks_everybody(facts: Facts) -> Iterator[Hit]:
    """A kick in each turn of a loop, in a callback that runs all the time."""
    for event in facts.events(_KICK, roots=HOT_CALLBACKS):
        if event.repeated and not event.args[0].has("cpu"):  # one idle CPU after the other is no alarm
            yield Hit(
                "lint-kicks-everybody",
                f"ops.{event.root}() kicks a CPU in each turn of a loop, whether it has something to do or not",
                facts.at(event, event.name),
            )
            return


def idle_tracking_off(facts: Facts) -> Iterator[Hit]:
    """The kernel's record of idle CPUs is asked and switched off."""
    if not facts.has("update_idle") or facts.flag("SCX_OPS_KEEP_BUILTIN_IDLE"):
        return
    for event in facts.events(*_IDLE):
        yield Hit(
            "lint-idle-tracking-off",
            f"`{event.name}()` asks the kernel's record of idle CPUs, which `.update_idle` switches off",
            facts.at(event, event.name),
        )
        return
