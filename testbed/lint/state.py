# SPDX-License-Identifier: Apache-2.0
"""What is known at one point of a path: registers, stack, and what a call, a store or a jump changes of it."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.lint.kernel import COMM, ONLY_READ
from testbed.lint.values import MASK_32, UNKNOWN, Value, join, signed


@dataclass(slots=True)
class State:
    """Registers 0 to 10, one of ours behind them, and the stack: offset → size and value."""

    registers: list[Value]
    stack: dict[int, tuple[int, Value]]

    def copy(self) -> State:
        """One that can change by itself."""
        return State(self.registers.copy(), self.stack.copy())

    def meet(self, other: State) -> bool:
        """Join `other` into this one; whether that changed anything."""
        changed = False
        for index, value in enumerate(other.registers):
            if value is self.registers[index]:
                continue
            joined = join(self.registers[index], value)
            if joined != self.registers[index]:
                self.registers[index] = joined
                changed = True
        for place in list(self.stack):
            size, value = self.stack[place]
            theirs = other.stack.get(place)
            if theirs is None or theirs[0] != size:
                del self.stack[place]
                changed = True
            elif theirs[1] is not value and (joined := join(value, theirs[1])) != value:
                self.stack[place] = (size, joined)
                changed = True
        return changed


def is_comm(value: Value, state: State) -> bool:
    """Whether it points to the name of a task, in its structure or in a copy on the stack."""
    if value.has(f"at:{COMM}"):
        return True
    if value.base != "stack":
        return False
    return any(at <= value.offset < at + size and held.has("comm") for at, (size, held) in state.stack.items())


def unpacked(raw: str, state: State, arguments: tuple[Value, ...]) -> tuple[Value, ...]:
    """The arguments as the function without the structure takes them."""
    packed = raw.startswith("__scx_bpf_dsq_insert_vtime")
    if packed and arguments[1].base == "stack":
        at = arguments[1].offset
        return (arguments[0], *(from_stack(state, at + 8 * index, 8) for index in range(4)))
    if packed:
        return (arguments[0], UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    if arguments[1].base == "stack" and raw in ("bpf_map_update_elem", "bpf_map_delete_elem"):
        key = [held for at, (_, held) in state.stack.items() if at == arguments[1].offset]
        return (arguments[0], key[0] if key else UNKNOWN, *arguments[2:])
    return arguments


def after(state: State, result: Value) -> State:
    """The state behind a call: the caller's registers 1 to 5 are gone."""
    after = state.copy()
    after.registers[0] = result
    after.registers[1:6] = [UNKNOWN] * 5
    return after


def forget(state: State, arguments: tuple[Value, ...], name: str) -> None:
    """Forget what a call may have written on the stack; how much behind the pointer nobody knows."""
    if name in ONLY_READ:
        return
    for value in arguments:
        if value.base == "stack":
            for at in [at for at, (size, _) in state.stack.items() if value.offset < at + size <= value.offset + 64]:
                del state.stack[at]


def from_stack(state: State, place: int, size: int) -> Value:
    """What is read of the stack: of a part of something only the tags are known."""
    known = state.stack.get(place)
    if known is not None and known[0] == size:
        return known[1]
    for at, (length, value) in state.stack.items():
        if at <= place and place + size <= at + length:
            return Value(tags=value.tags)
    return UNKNOWN


def learn(state: State, old: Value, new: Value, drop: frozenset[str]) -> None:
    """Put what was learned of a value wherever a copy of it is."""

    def learned(value: Value) -> Value:
        if value == old:
            return new
        return value._replace(tags=value.tags - drop) if value.id == old.id else value

    state.registers = [learned(value) for value in state.registers]
    for at, (size, value) in list(state.stack.items()):
        state.stack[at] = (size, learned(value))


def _holds(operation: int, one: int, other: int, bits: int) -> bool:
    mask = (1 << bits) - 1
    one, other = one & mask, other & mask
    left, right = signed(one, bits), signed(other, bits)
    match operation:
        case 0x10:
            return one == other
        case 0x20:
            return one > other
        case 0x30:
            return one >= other
        case 0x40:
            return bool(one & other)
        case 0x50:
            return one != other
        case 0x60:
            return left > right
        case 0x70:
            return left >= right
        case 0xA0:
            return one < other
        case 0xB0:
            return one <= other
        case 0xC0:
            return left < right
        case 0xD0:
            return left <= right
    return True


def possible(operation: int, left: Value, right: Value, taken: bool, bits: int) -> frozenset[int] | None:
    """The numbers that `left` can be behind a jump: none means that nobody comes there, None that nobody knows."""
    if right.constants is None:
        return left.constants
    known = operation in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
    if left.constants is None:
        # A pointer to something of ours is never NULL.
        if left.base and right.only == 0 and operation in (0x10, 0x50) and (operation == 0x10) == taken:
            return frozenset()
        if operation not in (0x10, 0x50) or (operation == 0x10) != taken:
            return None
        left_over = frozenset(number for number in right.constants if number & MASK_32 not in left.never)
        return left_over if bits == 64 or left.short or not left_over else None
    if not known:
        return left.constants
    return frozenset(
        number
        for number in left.constants
        if any(_holds(operation, number, other, bits) == taken for other in right.constants)
    )
