# SPDX-License-Identifier: Apache-2.0
"""What a BPF object says of itself: its scheduler, its programs, whom they call and from which source line.

Only reading; what may be in there is decided in `rules`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed import elf
from testbed.btf import Btf, BtfError, Kind, Line, Type, essential_name, line_info

MAX_INSTRUCTION_BYTES = 8 << 20  # the verifier refuses a program of more than a million instructions
STRUCT_OPS_SECTIONS = (".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link")
SCHEDULER_TYPES = ("sched_ext_ops", "sched_ext_ops_cid")

_CALL = 0x85
_LOAD_64 = 0x18


class ObjectError(ValueError):
    """The object contradicts itself."""


@dataclass(frozen=True, slots=True)
class Program:
    """A BPF program: a function with a section of its own."""

    name: str
    section: str
    instructions: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a kernel helper (by number) or of a kernel function (by name)."""

    caller: str
    helper: int | None
    kfunc: str
    weak: bool
    where: Line | None


@dataclass(frozen=True, slots=True)
class Ops:
    """A struct_ops map: a table of callbacks with a few plain fields."""

    symbol: str
    type: str
    optional: bool
    name: str
    values: dict[str, int]
    callbacks: dict[str, str]


@dataclass(frozen=True)
class BpfObject:
    """Everything that is looked at."""

    ops: tuple[Ops, ...]
    programs: tuple[Program, ...]
    calls: tuple[Call, ...]
    license: str
    has_btf: bool
    externs: dict[str, bool] = field(default_factory=dict)  # undefined symbols: weak?


def inspect_object(data: bytes) -> BpfObject:
    """Read a BPF object.

    Raises:
        ObjectError: it is damaged.
    """
    try:
        file = elf.Elf(data)
        return _inspect(file)
    except (elf.ElfError, BtfError) as error:
        raise ObjectError(str(error)) from None


def _inspect(file: elf.Elf) -> BpfObject:
    btf_section = file.section(".BTF")
    btf = Btf(file.content(btf_section)) if btf_section is not None else None
    ext = file.section(".BTF.ext")
    lines = line_info(file.content(ext), btf) if btf is not None and ext is not None else {}
    license_section = file.section("license")
    license_text = file.content(license_section).split(b"\0")[0] if license_section is not None else b""
    programs: list[Program] = []
    calls: list[Call] = []
    for section in file.sections:
        if not section.flags & elf.FLAG_EXECUTABLE or section.type == elf.SECTION_NOBITS or not section.size:
            continue
        functions = sorted(
            (symbol for symbol in file.symbols if symbol.section == section.index and _is_function(symbol)),
            key=lambda symbol: symbol.value,
        )
        if section.name != ".text":
            programs += [Program(each.name, section.name, each.size // 8) for each in functions]
        calls += _calls(file, section, functions, lines.get(section.name, []))
    return BpfObject(
        ops=tuple(_ops(file, btf)) if btf is not None else (),
        programs=tuple(programs),
        calls=tuple(calls),
        license=license_text[:64].decode("ascii", "replace"),
        has_btf=btf is not None,
        externs={
            symbol.name: symbol.bind == elf.BIND_WEAK
            for symbol in file.symbols
            if symbol.section == elf.UNDEFINED and symbol.name
        },
    )


def _is_function(symbol: elf.Symbol) -> bool:
    return symbol.type == elf.SYMBOL_FUNCTION and bool(symbol.name)


def _calls(file: elf.Elf, section: elf.Section, functions: list[elf.Symbol], lines: list[Line]) -> Iterator[Call]:
    if section.size > MAX_INSTRUCTION_BYTES:
        raise ObjectError(f"section `{section.name}` has more than a million instructions")
    code = file.content(section)
    targets = {relocation.offset: relocation.symbol for relocation in file.relocations(section)}
    starts = [function.value for function in functions]
    offsets = [line.offset for line in lines]
    at = 0
    while at + 8 <= len(code):
        opcode, registers = code[at], code[at + 1]
        if opcode == _LOAD_64:
            at += 16
            continue
        if opcode == _CALL:
            source = registers >> 4
            index = bisect.bisect_right(starts, at) - 1
            caller = functions[index].name if index >= 0 else section.name
            row = bisect.bisect_right(offsets, at) - 1
            where = lines[row] if row >= 0 else None
            target = targets.get(at)
            if target is not None and target.section == elf.UNDEFINED:
                yield Call(caller, None, target.name, target.bind == elf.BIND_WEAK, where)
            elif source == 0:
                yield Call(caller, int.from_bytes(code[at + 4 : at + 8], "little", signed=True), "", False, where)
        at += 8


def _ops(file: elf.Elf, btf: Btf) -> Iterator[Ops]:
    for name in STRUCT_OPS_SECTIONS:
        section, types = file.section(name), btf.named(Kind.DATASEC, name)
        if section is None or types is None:
            continue
        data = file.content(section)
        pointers = {relocation.offset: relocation.symbol.name for relocation in file.relocations(section)}
        places = {symbol.name: symbol.value for symbol in file.symbols if symbol.section == section.index}
        for variable in btf.variables(types):
            # clang leaves the offsets in BTF to relocations; the symbol table has them
            at = places.get(variable.name, variable.offset)
            yield _one_ops(btf, variable.name, btf.resolve(variable.type), data, at, pointers, name[0] == "?")


def _one_ops(btf: Btf, symbol: str, type_: Type, data: bytes, at: int, pointers: dict[int, str], optional: bool) -> Ops:
    values: dict[str, int] = {}
    callbacks: dict[str, str] = {}
    text = ""
    members = btf.members(type_) if type_.kind is Kind.STRUCT else ()
    for member in members:
        target = btf.resolve(member.type)
        place = at + member.offset
        if btf.is_function_pointer(member.type):
            if place in pointers:
                callbacks[member.name] = pointers[place]
        elif target.kind in (Kind.INT, Kind.ENUM, Kind.ENUM64) and target.size_or_type in (1, 2, 4, 8):
            values[member.name] = int.from_bytes(data[place : place + target.size_or_type], "little")
        elif target.kind is Kind.ARRAY and member.name == "name":
            raw = data[place : place + 128].split(b"\0")[0]
            text = raw.decode("ascii", "replace")
    return Ops(symbol, essential_name(type_.name), optional, text, values, callbacks)
