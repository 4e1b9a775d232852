# SPDX-License-Identifier: Apache-2.0
"""Rules about what becomes of a task: lost, inserted twice, sent where it may not run, judged by its name."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.lint.code import Function
from testbed.lint.facts import HOT_CALLBACKS, Custody, Facts, Hit, Place, is_builtin

#: Ways to get hold of a task that ops.enqueue() kept somewhere else than in a DSQ.
_REMEMBERS = (
    "bpf_task_from_pid", "bpf_task_from_vpid", "scx_bpf_tid_to_task", "bpf_task_acquire", "bpf_kptr_xchg",
    "bpf_list_pop_front", "bpf_list_pop_back", "bpf_rbtree_remove", "bpf_iter_task_next",
)  # fmt: skip
_AFFINITY_FIELDS = (
    "task_struct.cpus_ptr", "task_struct.nr_cpus_allowed", "task_struct.cpus_mask",
    "task_struct.migration_disabled",
)  # fmt: skip
_ASKS_AFFINITY = (
    "bpf_cpumask_test_cpu", "scx_bpf_pick_idle_cpu", "scx_bpf_pick_idle_cpu_node", "scx_bpf_pick_any_cpu",
    "scx_bpf_pick_any_cpu_node", "scx_bpf_select_cpu_dfl", "scx_bpf_select_cpu_and",
)  # fmt: skip


def check(facts: Facts) -> Iterator[Hit]:
    """All rules of this family."""
    yield from lost(facts)
    yield from inserted_twice(facts)
    yield from affinity_ignored(facts)
    yield from by_name(facts)
    yield from strict_priority(facts)
    yield from newest_first(facts)


def lost(facts: Facts) -> Iterator[Hit]:
    """A way through ops.enqueue() on which nobody keeps the task."""
    if facts.calls(*_REMEMBERS) or ("enqueue", Custody.NONE) not in facts.found.returns:
        return
    callback = facts.code.functions[facts.ops.callbacks["enqueue"]]
    inserting = {event.function for event in facts.inserts("enqueue")}
    if not inserting:
        yield Hit("lint-lost-task", "ops.enqueue() never inserts its task into a queue", Place(callback.name))
        return
    edge = _turning_point(facts, callback, inserting)
    yield Hit(
        "lint-lost-task",
        "ops.enqueue() can return without inserting its task into a queue",
        Place(callback.name, edge, line=edge is not None),
    )


def _turning_point(facts: Facts, callback: Function, inserting: set[str]) -> int | None:
    """The jump behind which a lost task can't be inserted any more; None if there is no such one in the callback."""
    flow = facts.interpreter.shape(callback.name)
    calls = {event.slot for event in facts.inserts("enqueue") if event.function == callback.name}
    calls |= {slot for slot, insn in callback.insns.items() if insn.function in inserting}
    able = flow.reaching(calls)
    for name, slot, target in sorted(facts.found.lost_edges.get("enqueue", ())):
        if name == callback.name and target not in able and any(one in able for one in flow.successors[slot]):
            return slot
    return None


def inserted_twice(facts: Facts) -> Iterator[Hit]:
    """A way on which the same task is inserted again."""
    told: set[str] = set()
    for event in facts.inserts("select_cpu", "select_cid", "enqueue"):
        if event.custody is Custody.INSERTED and event.args[0].base == "task" and event.root not in told:
            told.add(event.root)
            yield Hit(
                "lint-double-insert",
                f"ops.{event.root}() can come here with a task that it has inserted already",
                facts.at(event, event.name),
            )


def affinity_ignored(facts: Facts) -> Iterator[Hit]:
    """A CPU chosen for a task without a look at the CPUs that the task may use."""
    if facts.has("set_cpumask") or facts.has("set_cmask"):
        return  # it keeps a mask of its own
    local_on = facts.enum("SCX_DSQ_LOCAL_ON")
    each_its_own = _drains_own_only(facts)
    for event in facts.inserts():
        if facts.reads(*_AFFINITY_FIELDS) or facts.calls(*_ASKS_AFFINITY, roots=(event.root,)):
            continue
        queue = event.args[1]
        if queue.has("cpu") or (queue.constants is None and not queue.has("counter", "index", "now", "task")):
            continue  # chosen by the kernel, or read from memory where a careful choice may have been kept
        on_cpu = local_on is not None and queue.constants is None and queue.sure & local_on == local_on
        fixed = local_on is not None and any(one & local_on == local_on for one in queue.constants or ())
        if on_cpu or fixed or (each_its_own and queue.constants is None and not is_builtin(facts, queue)):
            what = "`SCX_DSQ_LOCAL_ON` of a CPU" if on_cpu or fixed else "the queue of a CPU"
            yield Hit(
                "lint-affinity-ignored",
                f"a task goes to {what} that it may not be allowed to use: nobody looks at its CPU mask",
                facts.at(event, event.name),
            )
            return


def _drains_own_only(facts: Facts) -> bool:
    """Whether each CPU drains the queue with its own number and no other."""
    drains = list(facts.events("scx_bpf_dsq_move_to_local"))
    return (
        bool(drains)
        and not facts.calls("bpf_iter_scx_dsq_new")
        and all(
            event.args[0].has("own-cpu") and event.args[0].constants is None and not event.repeated for event in drains
        )
    )


def by_name(facts: Facts) -> Iterator[Hit]:
    """A decision by the name of the process."""
    for event in facts.events("compare", roots=HOT_CALLBACKS):
        yield Hit(
            "lint-by-name",
            "a decision depends on the name of the process (`comm`), which every process chooses itself",
            facts.at(event, "comm"),
        )
        return


def strict_priority(facts: Facts) -> Iterator[Hit]:
    """An order in which a better priority always wins."""
    for event in facts.events("scx_bpf_dsq_insert_vtime"):
        if event.args[3].has("priority-first"):
            yield Hit(
                "lint-strict-priority",
                "the priority stands above everything else in the order of the queue: a worse one never gets its turn "
                "while better ones come",
                facts.at(event, event.name),
            )
            return


def newest_first(facts: Facts) -> Iterator[Hit]:
    """An order in which who came last goes first."""
    for event in facts.events("scx_bpf_dsq_insert_vtime"):
        if event.args[3].has("minus-now") and not event.args[3].has("now"):
            yield Hit(
                "lint-newest-first",
                "the order of the queue falls with time: who came last goes first, who waits longest goes last",
                facts.at(event, event.name),
            )
            return
