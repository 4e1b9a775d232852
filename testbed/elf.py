# SPDX-License-Identifier: Apache-2.0
"""Reader of 64-bit little-endian ELF files: BPF objects, and the programs and libraries of a host.

Files are untrusted: every offset and count is checked against the file, nothing is decompressed, and
nothing but `ElfError` is raised.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

MACHINE_X86_64 = 62
MACHINE_BPF = 247
TYPE_RELOCATABLE = 1
TYPE_EXECUTABLE = 2
TYPE_SHARED = 3

SECTION_NOBITS = 8
SECTION_REL = 9
SECTION_SYMTAB = 2
FLAG_EXECUTABLE = 0x4
FLAG_COMPRESSED = 0x800

SYMBOL_FUNCTION = 2
SYMBOL_SECTION = 3
BIND_WEAK = 2
UNDEFINED = 0

_SEGMENT_LOAD = 1
_SEGMENT_DYNAMIC = 2
_SEGMENT_INTERPRETER = 3
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_MAX_STRING = 4096
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F else ord("?") for byte in range(256))
_MAX_DYNAMIC = 65536


class ElfError(ValueError):
    """The bytes are no ELF file that this reader understands."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section header."""

    index: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """One entry of the symbol table."""

    name: str
    value: int
    size: int
    bind: int
    type: int
    section: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """One REL entry: at `offset` of the section that it applies to stands something about `symbol`."""

    offset: int
    symbol: Symbol
    type: int


@dataclass(frozen=True, slots=True)
class Dynamic:
    """What a dynamic program or library says of itself."""

    needed: tuple[str, ...]
    soname: str
    rpath: str
    runpath: str


class Elf:
    """One ELF file in memory (bytes or a memory map)."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        """Check the header; everything else is read when it is asked for."""
        self._data = data
        if bytes(self._data[:4]) != b"\x7fELF":
            raise ElfError("no ELF file")
        if len(self._data) < _HEADER.size:
            raise ElfError(f"ELF file of {len(self._data)} bytes is cut off in its header")
        fields = _HEADER.unpack_from(self._data)
        ident: bytes = fields[0]
        if ident[4] != 2 or ident[5] != 1:
            raise ElfError("ELF file is not 64-bit little-endian")
        self.type: int = fields[1]
        self.machine: int = fields[2]
        self._segments_at, self._segment_count = fields[5], fields[10]
        self._sections_at, self._section_count, self._names_index = fields[6], fields[12], fields[13]
        if self._segment_count and fields[9] != _SEGMENT.size:
            raise ElfError(f"ELF program headers of {fields[9]} bytes, expected {_SEGMENT.size}")
        if self._section_count and fields[11] != _SECTION.size:
            raise ElfError(f"ELF section headers of {fields[11]} bytes, expected {_SECTION.size}")

    def _slice(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > len(self._data):
            raise ElfError(f"{what} ends at byte {offset + size}, but the file has {len(self._data)}: it is truncated")
        return bytes(self._data[offset : offset + size])

    @staticmethod
    def _text(strings: bytes, offset: int) -> str:
        if offset >= len(strings):
            raise ElfError(f"ELF string offset {offset} beyond {len(strings)}")
        end = strings.find(b"\0", offset, offset + _MAX_STRING)
        if end < 0:
            raise ElfError("ELF string does not end")
        return strings[offset:end].translate(_PRINTABLE).decode("ascii")

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections; the first one is the empty one."""
        table = self._slice(self._sections_at, self._section_count * _SECTION.size, "section table")
        rows = list(_SECTION.iter_unpack(table))
        if not rows:
            return ()
        if self._names_index >= len(rows):
            raise ElfError(f"ELF section {self._names_index} for names of {len(rows)}")
        names = self._slice(rows[self._names_index][4], rows[self._names_index][5], "section names")
        found = []
        for index, row in enumerate(rows):
            name = self._text(names, row[0]) if index else ""
            found.append(Section(index, name, row[1], row[2], row[4], row[5], row[6], row[7]))
        return tuple(found)

    def section(self, name: str) -> Section | None:
        """The first section with this name."""
        return next((section for section in self.sections if section.name == name), None)

    def content(self, section: Section) -> bytes:
        """Bytes of a section (none if it occupies none in the file)."""
        if section.type == SECTION_NOBITS:
            return b""
        if section.flags & FLAG_COMPRESSED:
            raise ElfError(f"section `{section.name}` is compressed")
        return self._slice(section.offset, section.size, f"section `{section.name}`")

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbol table."""
        table = next((section for section in self.sections if section.type == SECTION_SYMTAB), None)
        if table is None:
            return ()
        if table.link >= len(self.sections):
            raise ElfError(f"ELF section {table.link} for symbol names of {len(self.sections)}")
        strings, data = self.content(self.sections[table.link]), self.content(table)
        whole = data[: len(data) // _SYMBOL.size * _SYMBOL.size]
        return tuple(
            Symbol(self._text(strings, name) if name else "", value, size, info >> 4, info & 15, section)
            for name, info, _other, section, value, size in _SYMBOL.iter_unpack(whole)
        )

    def relocations(self, section: Section) -> Iterator[Relocation]:
        """REL entries that apply to `section`."""
        for table in self.sections:
            if table.type != SECTION_REL or table.info != section.index:
                continue
            data = self.content(table)
            for offset, info in _REL.iter_unpack(data[: len(data) // _REL.size * _REL.size]):
                index = info >> 32
                if index >= len(self.symbols):
                    raise ElfError(f"ELF symbol {index} of {len(self.symbols)}")
                yield Relocation(offset, self.symbols[index], info & 0xFFFFFFFF)

    @cached_property
    def _segments(self) -> list[tuple[int, ...]]:
        table = self._slice(self._segments_at, self._segment_count * _SEGMENT.size, "program headers")
        return list(_SEGMENT.iter_unpack(table))

    @cached_property
    def interpreter(self) -> str:
        """Path of the ELF interpreter; empty for a static program."""
        for row in self._segments:
            if row[0] == _SEGMENT_INTERPRETER:
                raw = self._slice(row[2], min(row[5], _MAX_STRING), "interpreter's name")
                return self._text(raw + b"\0", 0)
        return ""

    def _file_offset(self, address: int) -> int:
        for row in self._segments:
            if row[0] == _SEGMENT_LOAD and row[3] <= address < row[3] + row[5]:
                return row[2] + address - row[3]
        raise ElfError(f"ELF address {address:#x} is in no segment")

    @cached_property
    def dynamic(self) -> Dynamic | None:
        """The dynamic section, or None for a static file."""
        for row in self._segments:
            if row[0] == _SEGMENT_DYNAMIC:
                break
        else:
            return None
        data = self._slice(row[2], min(row[5], _MAX_DYNAMIC), "dynamic section")
        entries: list[tuple[int, int]] = []
        for tag, value in _DYNAMIC.iter_unpack(data[: len(data) // _DYNAMIC.size * _DYNAMIC.size]):
            if tag == 0:
                break
            entries.append((tag, value))
        values = dict(entries)
        if 5 not in values:  # DT_STRTAB
            return Dynamic((), "", "", "")
        at = self._file_offset(values[5])
        strings = self._slice(at, min(values.get(10, 0), len(self._data) - at), "dynamic strings")

        def texts(wanted: int) -> list[str]:
            return [self._text(strings, value) for tag, value in entries if tag == wanted]

        return Dynamic(
            needed=tuple(texts(1)),
            soname="".join(texts(14)[:1]),
            rpath="".join(texts(15)[:1]),
            runpath="".join(texts(29)[:1]),
        )
