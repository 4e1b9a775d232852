# SPDX-License-Identifier: Apache-2.0
"""BPF instructions, cut into functions, with what their relocations say; only reading, nothing is understood here.

The bytes are a candidate's: whatever they hold, nothing but `ElfError` and `BtfError` is raised, and the time is
proportional to their number.
"""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass, field

from testbed import elf
from testbed.btf import Btf, ExtTable, Kind, Line, ext_records, line_info

SLOT = 8
MAX_SLOTS = 300_000  # the largest scheduler in the wild has a fifth of that
_INSN = struct.Struct("<BBhi")

# classes: the low three bits of an opcode
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
LOAD_64 = 0x18
CALL, CALL_REGISTER, EXIT, JUMP, JUMP_LONG = 0x85, 0x8D, 0x95, 0x05, 0x06

_PSEUDO_CALL, _PSEUDO_FUNCTION = 1, 4
_FIELD_KINDS = range(0, 6)  # of CO-RE relocations: those that are about a field


@dataclass(frozen=True, slots=True)
class Insn:
    """One instruction; `imm` of a 64-bit load is all of it.

    Attributes:
        symbol: what the relocation names: a map, a section, a kernel function.
        function: the function that is called, or whose address is loaded.
        field: the kernel field that a CO-RE relocation names, e.g. `task_struct.scx.slice`.
    """

    opcode: int
    dst: int
    src: int
    offset: int
    imm: int
    symbol: str = ""
    external: bool = False
    function: str = ""
    field: str = ""


@dataclass(frozen=True)
class Function:
    """A function: instructions by the slot that they begin in, counted from the function's start."""

    name: str
    section: str
    start: int
    slots: int
    insns: dict[int, Insn]
    lines: tuple[Line, ...] = ()

    def line(self, slot: int) -> Line | None:
        """Where the instruction at `slot` comes from."""
        row = bisect.bisect_right(self.lines, self.start + slot * SLOT, key=lambda line: line.offset) - 1
        return self.lines[row] if row >= 0 and self.lines[row].offset >= self.start else None

    def before(self, slot: int) -> list[Line]:
        """The lines of this function up to `slot`, the nearest first."""
        end = bisect.bisect_right(self.lines, self.start + slot * SLOT, key=lambda line: line.offset)
        return [line for line in reversed(self.lines[:end]) if line.offset >= self.start]


@dataclass(frozen=True)
class Map:
    """A BPF map: its name and the number of its type in the kernel's UAPI."""

    name: str
    type: int


@dataclass(frozen=True)
class Code:
    """All functions of an object, and the data that they read."""

    functions: dict[str, Function]
    maps: dict[str, Map] = field(default_factory=dict)
    symbols: dict[str, tuple[str, int]] = field(default_factory=dict)  # data: name → section, offset
    read_only: dict[str, bytes] = field(default_factory=dict)  # section → content


def decode(data: bytes) -> dict[int, Insn]:
    """Instructions by slot; a 64-bit load takes two slots, and what is cut off at the end is left out."""
    found: dict[int, Insn] = {}
    slot, count = 0, len(data) // SLOT
    while slot < count:
        opcode, registers, offset, imm = _INSN.unpack_from(data, slot * SLOT)
        if opcode == LOAD_64:
            if slot + 1 >= count:
                break
            high = _INSN.unpack_from(data, (slot + 1) * SLOT)[3]
            imm = (imm & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32
            found[slot] = Insn(opcode, registers & 15, registers >> 4, offset, imm)
            slot += 2
        else:
            found[slot] = Insn(opcode, registers & 15, registers >> 4, offset, imm)
            slot += 1
    return found


def read_code(data: bytes) -> Code:
    """Read the functions of an object.

    Raises:
        ElfError: the file contradicts itself.
        BtfError: its type information does.
    """
    file = elf.Elf(data)
    btf_section, ext = file.section(".BTF"), file.section(".BTF.ext")
    btf = Btf(file.content(btf_section)) if btf_section is not None else None
    lines: dict[str, list[Line]] = {}
    fields: dict[str, dict[int, str]] = {}
    if btf is not None and ext is not None:
        content = file.content(ext)
        lines, fields = line_info(content, btf), _core_fields(content, btf)
    functions: dict[str, Function] = {}
    starts = _function_starts(file)
    slots = 0
    for section in file.sections:
        if not section.flags & elf.FLAG_EXECUTABLE or section.type == elf.SECTION_NOBITS:
            continue
        slots += section.size // SLOT
        if slots > MAX_SLOTS:
            raise elf.ElfError(f"more than {MAX_SLOTS} instructions")
        insns = decode(file.content(section))
        _relocate(file, section, insns, starts)
        for slot, name in fields.get(section.name, {}).items():
            if slot in insns:
                insns[slot] = _with(insns[slot], field=name)
        _cut(section, starts, insns, tuple(lines.get(section.name, ())), functions)
    return Code(functions, _maps(file, btf), _data_symbols(file), _read_only(file))


def _with(insn: Insn, *, symbol: str = "", external: bool = False, function: str = "", field: str = "") -> Insn:
    return Insn(
        insn.opcode, insn.dst, insn.src, insn.offset, insn.imm,
        symbol or insn.symbol, external or insn.external, function or insn.function, field or insn.field,
    )  # fmt: skip


def _function_starts(file: elf.Elf) -> dict[int, list[tuple[int, int, str]]]:
    """Section → (first byte, size, name) of its functions, in order."""
    found: dict[int, list[tuple[int, int, str]]] = {}
    for symbol in file.symbols:
        if symbol.type == elf.SYMBOL_FUNCTION and symbol.name and symbol.section != elf.UNDEFINED:
            found.setdefault(symbol.section, []).append((symbol.value, symbol.size, symbol.name))
    return {section: sorted(rows) for section, rows in found.items()}


def _at(rows: list[tuple[int, int, str]], place: int) -> str:
    """The function that begins at a byte of a section."""
    row = bisect.bisect_left(rows, (place, 0, ""))
    return rows[row][2] if row < len(rows) and rows[row][0] == place else ""


def _relocate(
    file: elf.Elf, section: elf.Section, insns: dict[int, Insn], starts: dict[int, list[tuple[int, int, str]]]
) -> None:
    """Put into the instructions what the relocations say of them."""
    names = {each.index: each.name for each in file.sections}
    done: set[int] = set()
    for relocation in file.relocations(section):
        slot = relocation.offset // SLOT
        insn = insns.get(slot)
        if insn is None or relocation.offset % SLOT:
            continue
        symbol = relocation.symbol
        rows = starts.get(symbol.section, [])
        done.add(slot)
        if symbol.section == elf.UNDEFINED:
            insns[slot] = _with(insn, symbol=symbol.name, external=True)
        elif insn.opcode == CALL:
            # libbpf: a call counts instructions from the next one
            target = symbol.value + (insn.imm + 1) * SLOT if symbol.type == elf.SYMBOL_SECTION else symbol.value
            insns[slot] = _with(insn, function=_at(rows, target))
        elif insn.opcode == LOAD_64 and (function := _at(rows, symbol.value + insn.imm)):
            insns[slot] = _with(insn, function=function)
        else:
            name = symbol.name if symbol.type != elf.SYMBOL_SECTION else names.get(symbol.section, "")
            insns[slot] = _with(insn, symbol=name)
    rows = starts.get(section.index, [])
    for slot, insn in insns.items():
        if slot not in done and insn.opcode == CALL and insn.src == _PSEUDO_CALL:
            insns[slot] = _with(insn, function=_at(rows, (slot + 1 + insn.imm) * SLOT))


def _cut(
    section: elf.Section,
    starts: dict[int, list[tuple[int, int, str]]],
    insns: dict[int, Insn],
    lines: tuple[Line, ...],
    into: dict[str, Function],
) -> None:
    # Functions do not overlap; a damaged table in which they do must not cost more than one that is whole.
    left = 2 * section.size // SLOT
    for start, size, name in starts.get(section.index, []):
        if start % SLOT or start > section.size:
            continue
        first, slots = start // SLOT, min(min(size, section.size - start) // SLOT, left)
        left -= slots
        own = {slot - first: insns[slot] for slot in range(first, first + slots) if slot in insns}
        into.setdefault(name, Function(name, section.name, start, slots, own, lines))


def _data_symbols(file: elf.Elf) -> dict[str, tuple[str, int]]:
    names = {each.index: each.name for each in file.sections}
    return {
        symbol.name: (names[symbol.section], symbol.value)
        for symbol in file.symbols
        if symbol.name and symbol.type != elf.SYMBOL_FUNCTION and symbol.section in names
    }


def _read_only(file: elf.Elf) -> dict[str, bytes]:
    return {each.name: file.content(each) for each in file.sections if each.name.startswith(".rodata")}


def _maps(file: elf.Elf, btf: Btf | None) -> dict[str, Map]:
    """Maps of the `.maps` section: their type stands in BTF as the length of an array."""
    section = btf.named(Kind.DATASEC, ".maps") if btf is not None else None
    if btf is None or section is None:
        return {}
    found = {}
    for variable in btf.variables(section):
        kind = btf.resolve(variable.type)
        for member in btf.members(kind) if kind.kind is Kind.STRUCT else ():
            if member.name == "type":
                found[variable.name] = Map(variable.name, btf.pointed_length(member.type))
    return found


def _core_fields(data: bytes, btf: Btf) -> dict[str, dict[int, str]]:
    """CO-RE relocations about fields: section → slot → `structure.field.field`."""
    found: dict[str, dict[int, str]] = {}
    for section, (offset, type_, access, kind) in ext_records(data, ExtTable.RELOCATIONS, btf):
        if kind in _FIELD_KINDS:
            found.setdefault(section, {})[offset // SLOT] = btf.path(type_, btf.string(access))
    return found
