# SPDX-License-Identifier: Apache-2.0
"""Reader of BTF, the type information of BPF objects and of the kernel.

Only what the testbed asks for: names, structure members, variables of a section, enumerators. Everything
that is read is untrusted: offsets are checked, chains of types are followed a bounded number of steps.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAX_CHAIN = 64
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F or byte == 0x09 else ord("?") for byte in range(256))


class BtfError(ValueError):
    """The bytes are no BTF that this reader understands."""


class Kind(IntEnum):
    """Kinds of types, as numbered in the kernel's UAPI."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# bytes that follow the common part: (fixed, per element of `vlen`)
_TRAILING: dict[Kind, tuple[int, int]] = {
    Kind.INT: (4, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.DECL_TAG: (4, 0),
    Kind.ENUM64: (0, 12),
}

_ALIASES = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})


@dataclass(frozen=True, slots=True)
class Type:
    """One type as it is stored; `size_or_type` is a size or the id of another type, depending on `kind`."""

    id: int
    kind: Kind
    name: str
    vlen: int
    flag: bool
    size_or_type: int
    at: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a structure; `offset` in bytes (bit fields: of the byte that they begin in)."""

    name: str
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a section."""

    name: str
    type: int
    offset: int
    size: int


class Btf:
    """All types of one BTF blob."""

    def __init__(self, data: bytes) -> None:
        """Read all types.

        Raises:
            BtfError: this is no BTF, or not all of it.
        """
        if len(data) < _HEADER.size:
            raise BtfError(f"BTF of {len(data)} bytes, expected at least {_HEADER.size}")
        magic, _version, _flags, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise BtfError(f"BTF magic {magic:#x}, expected {MAGIC:#x} (little-endian)")
        if header + type_off + type_len > len(data) or header + str_off + str_len > len(data):
            raise BtfError("BTF ends before its types or its strings do")
        self._types_data = data[header + type_off : header + type_off + type_len]
        self._strings = data[header + str_off : header + str_off + str_len]
        self._known: dict[int, str] = {}
        self.types: list[Type] = [Type(0, Kind.VOID, "", 0, False, 0, 0)]
        self._parse()

    def _parse(self) -> None:
        data, at = self._types_data, 0
        while at < len(data):
            if at + _TYPE.size > len(data):
                raise BtfError("BTF type is cut off")
            name_off, info, size_or_type = _TYPE.unpack_from(data, at)
            number, vlen, flag = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
            try:
                kind = Kind(number)
            except ValueError:
                raise BtfError(f"BTF kind {number}, which this reader does not know") from None
            fixed, each = _TRAILING.get(kind, (0, 0))
            end = at + _TYPE.size + fixed + each * vlen
            if end > len(data):
                raise BtfError("BTF type is cut off")
            name = self.string(name_off)
            self.types.append(Type(len(self.types), kind, name, vlen, flag, size_or_type, at + _TYPE.size))
            at = end

    def string(self, offset: int) -> str:
        """The string at `offset` of the string section; what is neither printable ASCII nor a tab is replaced."""
        known = self._known.get(offset)
        if known is not None:
            return known
        if offset >= len(self._strings):
            raise BtfError(f"BTF string offset {offset} beyond {len(self._strings)}")
        end = self._strings.find(b"\0", offset)
        raw = self._strings[offset : end if end >= 0 else len(self._strings)]
        found = self._known[offset] = raw.translate(_PRINTABLE).decode("ascii")
        return found

    def type(self, number: int) -> Type:
        """The type with this id."""
        if not 0 <= number < len(self.types):
            raise BtfError(f"BTF type id {number} of {len(self.types)}")
        return self.types[number]

    def resolve(self, number: int) -> Type:
        """The type with this id behind typedefs and qualifiers."""
        for _ in range(_MAX_CHAIN):
            found = self.type(number)
            if found.kind not in _ALIASES:
                return found
            number = found.size_or_type
        raise BtfError("BTF types refer to each other in a circle")

    def named(self, kind: Kind, name: str) -> Type | None:
        """The first type of this kind with this name."""
        return next((found for found in self.types if found.kind is kind and found.name == name), None)

    def of_kind(self, *kinds: Kind) -> Iterator[Type]:
        """All types of these kinds."""
        return (found for found in self.types if found.kind in kinds)

    def members(self, found: Type) -> tuple[Member, ...]:
        """Members of a structure or union, in order."""
        if found.kind not in (Kind.STRUCT, Kind.UNION):
            raise BtfError(f"`{found.name}` is no structure")
        rows = struct.iter_unpack("<III", self._types_data[found.at : found.at + 12 * found.vlen])
        mask = 0xFFFFFF if found.flag else 0xFFFFFFFF
        return tuple(Member(self.string(name), type_, (offset & mask) // 8) for name, type_, offset in rows)

    def variables(self, section: Type) -> tuple[Variable, ...]:
        """Variables (and functions) of a DATASEC."""
        rows = struct.iter_unpack("<III", self._types_data[section.at : section.at + 12 * section.vlen])
        result = []
        for number, offset, size in rows:
            found = self.type(number)
            target = found.size_or_type if found.kind is Kind.VAR else number
            result.append(Variable(found.name, target, offset, size))
        return tuple(result)

    def enumerators(self, found: Type) -> dict[str, int]:
        """Names and values of an enumeration."""
        result: dict[str, int] = {}
        if found.kind is Kind.ENUM:
            code = "<Ii" if found.flag else "<II"
            pairs = struct.iter_unpack(code, self._types_data[found.at : found.at + 8 * found.vlen])
            for name, value in pairs:
                result[self.string(name)] = value
        elif found.kind is Kind.ENUM64:
            rows = struct.iter_unpack("<III", self._types_data[found.at : found.at + 12 * found.vlen])
            for name, low, high in rows:
                value = high << 32 | low
                result[self.string(name)] = value - (1 << 64) if found.flag and value >> 63 else value
        else:
            raise BtfError(f"`{found.name}` is no enumeration")
        return result

    def pointed_length(self, number: int) -> int:
        """Length of the array that the type points to: how libbpf's `__uint(NAME, LENGTH)` keeps a number; else 0."""
        found = self.resolve(number)
        target = self.resolve(found.size_or_type) if found.kind is Kind.PTR else found
        if target.kind is not Kind.ARRAY:
            return 0
        length: int = struct.unpack_from("<III", self._types_data, target.at)[2]
        return length

    def path(self, number: int, access: str) -> str:
        """The field that a CO-RE access string such as `0:12:3` leads to, as `structure.field.field`.

        What can't be followed ends the path early; bit positions and array indices are left out.
        """
        found = self.resolve(number)
        names = [essential_name(found.name)]
        for word in access.split(":")[1:_MAX_CHAIN]:
            index = int(word) if word.isascii() and word.isdigit() else -1
            if found.kind in (Kind.STRUCT, Kind.UNION):
                members = self.members(found)
                if not 0 <= index < len(members):
                    break
                if members[index].name:
                    names.append(members[index].name)
                found = self.resolve(members[index].type)
            elif found.kind is Kind.ARRAY:
                found = self.resolve(struct.unpack_from("<I", self._types_data, found.at)[0])
            else:
                break
        return ".".join(names)

    def is_function_pointer(self, number: int) -> bool:
        """Whether the type is a pointer to a function."""
        found = self.resolve(number)
        return found.kind is Kind.PTR and self.resolve(found.size_or_type).kind is Kind.FUNC_PROTO


def essential_name(name: str) -> str:
    """`name` without libbpf's flavour: `scx_x___old` is `scx_x`, `scx_x___v2___compat` is `scx_x___v2`."""
    head, separator, tail = name.rpartition("___")
    return head if separator and head and tail else name


@dataclass(frozen=True, slots=True)
class Line:
    """Where in the source the instruction at `offset` (bytes in its section) comes from."""

    offset: int
    file: str
    text: str
    line: int
    column: int


class ExtTable(IntEnum):
    """The tables of a `.BTF.ext` section, in the order of its header."""

    FUNCTIONS = 0
    LINES = 1
    RELOCATIONS = 2


_EXT_HEADER = struct.Struct("<HBBI")
_EXT_TABLE = struct.Struct("<II")
_EXT_RECORD = struct.Struct("<IIII")


def ext_records(data: bytes, table: ExtTable, btf: Btf) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """The records of a table of `.BTF.ext`: name of the program's section, and the first four words of each.

    A header from before the table was invented has none.

    Raises:
        BtfError: it is cut off, or is none.
    """
    place = _EXT_HEADER.size + table * _EXT_TABLE.size
    if len(data) < _EXT_HEADER.size:
        raise BtfError(f"BTF.ext of {len(data)} bytes, expected at least {_EXT_HEADER.size}")
    magic, _version, _flags, header = _EXT_HEADER.unpack_from(data)
    if magic != MAGIC or header > len(data):
        raise BtfError("BTF.ext is cut off")
    if header < place + _EXT_TABLE.size:
        return
    start, length = _EXT_TABLE.unpack_from(data, place)
    part = data[header + start : header + start + length]
    if len(part) < length:
        raise BtfError("BTF.ext is cut off")
    if length < 4:
        return
    (record,) = struct.unpack_from("<I", part)
    if record < _EXT_RECORD.size:
        raise BtfError(f"BTF.ext records of {record} bytes, expected at least {_EXT_RECORD.size}")
    at = 4
    while at + 8 <= len(part):
        name, count = struct.unpack_from("<II", part, at)
        at += 8
        if at + count * record > len(part):
            raise BtfError("BTF.ext records are cut off")
        section = btf.string(name)
        for index in range(count):
            yield section, _EXT_RECORD.unpack_from(part, at + index * record)
        at += count * record


def line_info(data: bytes, btf: Btf) -> dict[str, list[Line]]:
    """Source lines from a `.BTF.ext` section, by name of the program's section, in order of instructions."""
    result: dict[str, list[Line]] = {}
    for section, (offset, file, text, place) in ext_records(data, ExtTable.LINES, btf):
        line = Line(offset, btf.string(file), btf.string(text), place >> 10, place & 0x3FF)
        result.setdefault(section, []).append(line)
    for lines in result.values():
        lines.sort(key=lambda line: line.offset)
    return result
