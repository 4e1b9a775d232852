# SPDX-License-Identifier: Apache-2.0
"""Rules about dispatch queues: created, filled, drained, ordered."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.lint.facts import Custody, Event, Facts, Hit, is_builtin, queue_name, user_queues

_DRAINS = ("scx_bpf_dsq_move_to_local", "bpf_iter_scx_dsq_new", "scx_bpf_dsq_reenq")
_LOOKS = {"scx_bpf_create_dsq": 0, "scx_bpf_dsq_move_to_local": 0, "bpf_iter_scx_dsq_new": 1}


def check(facts: Facts) -> Iterator[Hit]:
    """All rules of this family."""
    yield from undrained(facts)
    yield from never_created(facts)
    yield from builtin_as_own(facts)
    yield from vtime_into_builtin(facts)
    yield from mixed_order(facts)


def _target(event: Event) -> int:
    """Index of the argument that is the DSQ."""
    return 1 if event.name == "bpf_iter_scx_dsq_new" else 0


def undrained(facts: Facts) -> Iterator[Hit]:
    """A DSQ that tasks go into and never come out of."""
    drained: set[int] = set()
    for event in facts.events(*_DRAINS):
        value = event.args[_target(event)]
        if value.constants is None:
            return  # it may be any queue
        drained |= value.constants
    told: set[int] = set()
    for event in facts.inserts():
        for number in sorted(user_queues(facts, event.args[1]) - drained - told):
            told.add(number)
            yield Hit(
                "lint-undrained-queue",
                f"tasks are inserted into {queue_name(facts, number)}, and nothing ever takes them out",
                facts.at(event, event.name),
            )


def never_created(facts: Facts) -> Iterator[Hit]:
    """A DSQ that is used and was never created."""
    if facts.has("init") and ("init", Custody.NONE) not in facts.found.returns:
        return  # without its user space it complains before it creates anything
    created: set[int] = set()
    for event in facts.events("scx_bpf_create_dsq"):
        if event.args[0].constants is None:
            return
        created |= event.args[0].constants
    told: set[int] = set()
    moves = list(facts.events("scx_bpf_dsq_move", "scx_bpf_dsq_move_vtime"))
    drains = list(facts.events("scx_bpf_dsq_move_to_local"))
    for event in [*facts.inserts(), *drains, *moves]:
        index = 0 if event in drains else 2 if event in moves else 1
        for number in sorted(user_queues(facts, event.args[index]) - created - told):
            told.add(number)
            yield Hit(
                "lint-unknown-queue",
                f"{queue_name(facts, number)} is used and never created",
                facts.at(event, event.name),
            )


def builtin_as_own(facts: Facts) -> Iterator[Hit]:
    """A DSQ of the kernel where only one of the scheduler's own can stand."""
    for name, index in _LOOKS.items():
        for event in facts.events(name):
            if is_builtin(facts, event.args[index]):
                yield Hit(
                    "lint-builtin-queue",
                    f"`{name}()` knows only queues that the scheduler created itself, and gets "
                    f"{_one(facts, event.args[index].constants)}",
                    facts.at(event, name),
                )


def vtime_into_builtin(facts: Facts) -> Iterator[Hit]:
    """An order by vtime in a DSQ that knows no order."""
    for event in facts.events("scx_bpf_dsq_insert_vtime"):
        if is_builtin(facts, event.args[1]):
            yield Hit(
                "lint-vtime-builtin",
                f"a task is inserted by vtime into {_one(facts, event.args[1].constants)}, which knows no order",
                facts.at(event, event.name),
            )


def mixed_order(facts: Facts) -> Iterator[Hit]:
    """A DSQ that is filled in both orders."""
    by_vtime: dict[int, Event] = {}
    in_turn: dict[int, Event] = {}
    for event in facts.inserts():
        into = by_vtime if event.name == "scx_bpf_dsq_insert_vtime" else in_turn
        for number in user_queues(facts, event.args[1]):
            into.setdefault(number, event)
    for number in sorted(by_vtime.keys() & in_turn.keys()):
        yield Hit(
            "lint-mixed-order",
            f"{queue_name(facts, number)} is filled both by vtime and first in, first out",
            facts.at(in_turn[number], "scx_bpf_dsq_insert"),
        )


def _one(facts: Facts, numbers: frozenset[int] | None) -> str:
    return queue_name(facts, min(numbers)) if numbers else "a built-in queue"
