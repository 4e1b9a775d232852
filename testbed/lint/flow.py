# SPDX-License-Identifier: Apache-2.0
"""Where the instructions of a function lead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from testbed.lint.code import EXIT, JMP, JMP32, JUMP, JUMP_LONG, LOAD_64, Function


@dataclass(frozen=True)
class Shape:
    """A function's flow: where each instruction leads, where blocks begin, what lies in a loop."""

    successors: dict[int, tuple[int, ...]]
    leaders: frozenset[int]
    _known: dict[tuple[str, int], bool] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def predecessors(self) -> dict[int, list[int]]:
        """Which instructions lead to each."""
        found: dict[int, list[int]] = {}
        for source, targets in self.successors.items():
            for target in targets:
                found.setdefault(target, []).append(source)
        return found

    def each_turn(self, slot: int) -> bool:
        """Whether the instruction lies in a loop and no turn of that loop goes around it."""
        key = ("each turn", slot)
        if key not in self._known:
            loop = self.loops.get(slot)
            self._known[key] = loop is not None and not self._cyclic(loop - {slot})
        return self._known[key]

    def unavoidable(self, slot: int) -> bool:
        """Whether every way through the function passes the instruction."""
        key = ("unavoidable", slot)
        if key not in self._known:
            seen, todo, around = {slot}, [0], False
            while todo and not around:
                here = todo.pop()
                if here not in seen:
                    seen.add(here)
                    around = not self.successors.get(here)
                    todo += self.successors.get(here, ())
            self._known[key] = not around
        return self._known[key]

    def reaching(self, slots: set[int]) -> set[int]:
        """The instructions from which one of `slots` can be reached, themselves among them."""
        return slots | {one for slot in slots for one in _reach(slot, self.predecessors)}

    @cached_property
    def loops(self) -> dict[int, frozenset[int]]:
        """Instructions that lie in a loop → its strongly connected part (by the two walks of Kosaraju)."""
        found: dict[int, frozenset[int]] = {}
        done: set[int] = set()
        for slot in reversed(self._finished()):
            if slot in done:
                continue
            part, todo = set(), [slot]
            while todo:
                here = todo.pop()
                if here not in done:
                    done.add(here)
                    part.add(here)
                    todo += self.predecessors.get(here, ())
            if len(part) > 1 or slot in self.successors[slot]:
                found.update(dict.fromkeys(part, frozenset(part)))
        return found

    def _finished(self) -> list[int]:
        """All instructions, each behind what can only be reached from it."""
        order: list[int] = []
        seen: set[int] = set()
        for start in self.successors:
            if start in seen:
                continue
            seen.add(start)
            path = [(start, iter(self.successors[start]))]
            while path:
                here, targets = path[-1]
                target = next((one for one in targets if one not in seen), None)
                if target is None:
                    order.append(here)
                    path.pop()
                else:
                    seen.add(target)
                    path.append((target, iter(self.successors[target])))
        return order

    def _cyclic(self, slots: frozenset[int]) -> bool:
        """Whether one can go round within these instructions: take away, again and again, what leads nowhere."""
        leading = {slot: sum(target in slots for target in self.successors[slot]) for slot in slots}
        todo = [slot for slot, count in leading.items() if not count]
        left = len(slots) - len(todo)
        while todo:
            for source in self.predecessors.get(todo.pop(), ()):
                if leading.get(source):
                    leading[source] -= 1
                    if not leading[source]:
                        left -= 1
                        todo.append(source)
        return left > 0


def _reach(slot: int, edges: Mapping[int, tuple[int, ...] | list[int]]) -> frozenset[int]:
    """What can be reached in one step or more."""
    seen: set[int] = set()
    todo = list(edges.get(slot, ()))
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo += edges.get(here, ())
    return frozenset(seen)


def shape(function: Function) -> Shape:
    """The flow of a function; jumps that lead out of it lead nowhere."""
    successors: dict[int, tuple[int, ...]] = {}
    leaders = {0}
    for slot, insn in function.insns.items():
        following = slot + (2 if insn.opcode == LOAD_64 else 1)
        kind, operation = insn.opcode & 7, insn.opcode & 0xF0
        targets: tuple[int, ...] = (following,)
        if insn.opcode == EXIT:
            targets = ()
        elif insn.opcode in (JUMP, JUMP_LONG):
            targets = (following + (insn.offset if insn.opcode == JUMP else insn.imm),)
        elif kind in (JMP, JMP32) and operation not in (0x80, 0x90):
            targets = (following, following + insn.offset)
        kept = tuple(target for target in targets if target in function.insns)
        successors[slot] = kept
        if targets != (following,):
            leaders.update(kept)
    return Shape(successors, frozenset(leaders))
