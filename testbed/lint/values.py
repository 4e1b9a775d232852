# SPDX-License-Identifier: Apache-2.0
"""What may be in a register: a few constants, a pointer with an offset, and where it came from."""

from __future__ import annotations

from typing import NamedTuple

MASK = (1 << 64) - 1
MASK_32 = (1 << 32) - 1
MAX_CONSTANTS = 8
NO_TAGS: frozenset[str] = frozenset()

#: A shift of nanoseconds by so many bits is longer than any watchdog's patience (2^36 ns are 69 s).
OUTRANKS_BITS = 36

# operations: the high four bits of an arithmetic opcode
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH = (index << 4 for index in range(13))


class Value(NamedTuple):
    """A set of possible values.

    Attributes:
        constants: all that it can be, at most eight numbers of 64 bits; None: anything.
        ones: bits that are surely set.
        base: what it points into: `ctx`, `stack`, `task`, `map:NAME`, `data:SECTION`, `function:NAME`; empty: unknown.
        offset: bytes behind that.
        tags: where it may come from, e.g. `now`, `cpu`, `comm`.
        id: equal for copies of one value, 0 if nobody knows.
        shifted: it stands 32 bits higher than the value with this id.
        never: numbers that its low 32 bits surely are not, at most four.
        short: its high 32 bits are zero.
    """

    constants: frozenset[int] | None = None
    ones: int = 0
    base: str = ""
    offset: int = 0
    tags: frozenset[str] = NO_TAGS
    id: int = 0
    shifted: bool = False
    never: frozenset[int] = frozenset()
    short: bool = False

    @property
    def only(self) -> int | None:
        """The one number that it is."""
        return next(iter(self.constants)) if self.constants is not None and len(self.constants) == 1 else None

    @property
    def sure(self) -> int:
        """Bits that are set, whatever it is."""
        if self.constants is None:
            return self.ones
        found = MASK
        for number in self.constants:
            found &= number
        return found if self.constants else 0

    def has(self, *tags: str) -> bool:
        """Whether it may come from one of these."""
        return not self.tags.isdisjoint(tags)


UNKNOWN = Value()


def constant(*numbers: int, tags: frozenset[str] = NO_TAGS) -> Value:
    """One of these numbers."""
    return Value(frozenset(number & MASK for number in numbers), tags=tags)


def tagged(*tags: str) -> Value:
    """Anything, but it is known where it comes from."""
    return Value(tags=frozenset(tags))


def join(one: Value, other: Value) -> Value:
    """What it may be when it is one or the other."""
    if one == other:
        return one
    constants = None
    if one.constants is not None and other.constants is not None:
        both = one.constants | other.constants
        constants = both if len(both) <= MAX_CONSTANTS else None
    same = one.base == other.base and one.offset == other.offset
    return Value(
        constants,
        0 if constants is not None else one.sure & other.sure,
        one.base if same else "",
        one.offset if same else 0,
        one.tags | other.tags,
        one.id if one.id == other.id and one.shifted == other.shifted else 0,
        one.shifted,
        frozenset(number for number in one.never | other.never if _excludes(one, number) and _excludes(other, number)),
        _is_short(one) and _is_short(other),
    )


def _excludes(value: Value, number: int) -> bool:
    if value.constants is not None:
        return all(one & MASK_32 != number for one in value.constants)
    return number in value.never


def _is_short(value: Value) -> bool:
    return value.short if value.constants is None else all(number <= MASK_32 for number in value.constants)


def signed(number: int, bits: int = 64) -> int:
    """The number read as two's complement."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def narrow(value: Value) -> Value:
    """The low 32 bits."""
    if value.constants is not None:
        return value._replace(constants=frozenset(number & MASK_32 for number in value.constants), base="", offset=0)
    return value._replace(ones=value.ones & MASK_32, base="", offset=0, shifted=False, short=True)


def _compute(operation: int, one: int, other: int, bits: int) -> int | None:
    mask = (1 << bits) - 1
    one, other = one & mask, other & mask
    shift = other & (bits - 1)
    match operation:
        case 0x00:  # ADD
            return (one + other) & mask
        case 0x10:  # SUB
            return (one - other) & mask
        case 0x20:  # MUL
            return (one * other) & mask
        case 0x30:  # DIV
            return one // other if other else 0
        case 0x40:  # OR
            return one | other
        case 0x50:  # AND
            return one & other
        case 0x60:  # LSH
            return (one << shift) & mask
        case 0x70:  # RSH
            return one >> shift
        case 0x80:  # NEG
            return -one & mask
        case 0x90:  # MOD
            return one % other if other else one
        case 0xA0:  # XOR
            return one ^ other
        case 0xC0:  # ARSH
            return (signed(one, bits) >> shift) & mask
    return None


def arithmetic(operation: int, one: Value, other: Value, bits: int) -> Value:
    """`one OPERATION other` in 32 or 64 bits; signed division and byte swaps are unknown."""
    result = _arithmetic(operation, one, other, bits)
    return result._replace(short=True) if bits == 32 else result


def _arithmetic(operation: int, one: Value, other: Value, bits: int) -> Value:
    tags = _tags(operation, one, other)
    if one.constants is not None and (other.constants is not None or operation == NEG):
        numbers: set[int] = set()
        for left in one.constants:
            for right in other.constants if other.constants is not None else (0,):
                result = _compute(operation, left, right, bits)
                if result is None:
                    return Value(tags=tags)
                numbers.add(result)
        if len(numbers) <= MAX_CONSTANTS:
            return Value(frozenset(numbers), tags=tags)
        return Value(tags=tags)
    amount = other.only
    if operation in (ADD, SUB) and one.base and amount is not None and bits == 64:
        distance = signed(amount)
        return one._replace(
            never=frozenset(), offset=one.offset + (distance if operation == ADD else -distance), tags=tags
        )
    if operation == ADD and other.base and one.only is not None and bits == 64:
        return other._replace(offset=other.offset + signed(one.only), tags=tags)
    if operation == AND:
        return _masked(one, other, tags)
    if operation == OR:
        return Value(ones=(one.sure | other.sure) & ((1 << bits) - 1), tags=tags)
    if amount == 32 and bits == 64 and one.id and operation in (LSH, RSH, ARSH):
        # clang widens a 32-bit number by shifting it up and down
        if operation == LSH and not one.shifted:
            return Value(tags=tags, id=one.id, shifted=True)
        if operation != LSH and one.shifted:
            return Value(tags=tags, id=one.id)
    return Value(tags=tags)


def _masked(one: Value, other: Value, tags: frozenset[str]) -> Value:
    mask = one.only if one.only is not None else other.only
    if mask is None or mask.bit_count() > 3:
        return Value(tags=tags)
    bits = [1 << place for place in range(64) if mask >> place & 1]
    numbers = [0]
    for bit in bits:
        numbers += [number | bit for number in numbers]
    return Value(frozenset(numbers), tags=tags)


def _tags(operation: int, one: Value, other: Value) -> frozenset[str]:
    if not one.tags and not other.tags:
        return NO_TAGS
    tags = one.tags | other.tags
    negates = operation == NEG or (operation == XOR and other.only == MASK)
    if operation == SUB:
        tags = one.tags | (other.tags - {"now", "minus-now"})
        if "now" in other.tags and one.constants is not None and not one.tags:
            tags |= {"minus-now"}
    elif negates and "now" in tags:
        tags = tags - {"now"} | {"minus-now"}
    elif operation == ADD and "now" in tags and "minus-now" in tags:
        tags = tags - {"minus-now"}
    elif operation == LSH and "priority" in tags and (other.only or 0) >= OUTRANKS_BITS:
        tags |= {"priority-first"}
    elif operation in (RSH, DIV, MOD):
        tags = tags - {"priority-first", "minus-now"}
    if operation == XOR and "comm" in tags and not (one.only == 0 or other.only == 0):
        tags |= {"comm-compared"}
    return tags
