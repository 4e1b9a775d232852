# SPDX-License-Identifier: Apache-2.0
"""A kernel as a file: what a bzImage says of itself, the vmlinux in it, and whether a guest can use it.

Everything that is read is somebody's: bounds are checked, sizes limited, and nothing but `KernelError` is raised.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from testbed.btf import Btf, BtfError, Kind
from testbed.elf import Elf, ElfError

#: More than any kernel has, packed and unpacked.
MAX_FILE = 512 << 20
MAX_UNPACKED = 2 << 30
MAX_CONFIG = 16 << 20

_RELEASE = re.compile(r"[0-9][0-9A-Za-z.+~_-]{0,63}")
_SIZE_BEHIND = 4
"""All formats but gzip are followed by the size of what is in there."""
_XZ_MEMORY = 1 << 30
# Documentation/arch/x86/boot.rst: places in the file, and the first version of the protocol that has the last of them.
_SETUP_SECTS, _BOOT_FLAG, _HEADER, _VERSION, _NAME, _XLOADFLAGS = 0x1F1, 0x1FE, 0x202, 0x206, 0x20E, 0x236
_PAYLOAD = 0x248
_PROTOCOL = 0x020C
_KERNEL_64 = 1


class KernelError(ValueError):
    """These bytes can't be used as a guest's kernel; says why, and what to do where that is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class BzImage:
    """What the header of a bzImage says.

    Attributes:
        release: as `uname -r` will say it.
        version: of the package where it is Debian's (`6.17.13-1~bpo13+1`), else as `uname -v` says it.
        payload: the vmlinux, packed.
    """

    release: str
    version: str
    payload: bytes


def read_bzimage(data: bytes) -> BzImage:
    """Read the header.

    Raises:
        KernelError: this is no bzImage for x86-64, or not all of it.
    """
    if len(data) < 0x270 or data[_BOOT_FLAG : _BOOT_FLAG + 2] != b"\x55\xaa" or data[_HEADER:_VERSION] != b"HdrS":
        raise KernelError(
            f"it is no bzImage: {_what_else(data)}", "name the bzImage (`vmlinuz`), not the vmlinux in it"
        )
    (protocol,) = struct.unpack_from("<H", data, _VERSION)
    (flags,) = struct.unpack_from("<H", data, _XLOADFLAGS)
    if protocol < _PROTOCOL or not flags & _KERNEL_64:
        raise KernelError("it is a kernel for 32-bit x86, the guests are x86-64")
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = ((data[_SETUP_SECTS] or 4) + 1) * 512 + offset
    if not length or start + length > len(data):
        raise KernelError(f"the bzImage is cut off: {len(data)} bytes, and its payload ends at {start + length}")
    at = struct.unpack_from("<H", data, _NAME)[0] + 0x200
    banner = data[at : at + 512].split(b"\0")[0].decode("ascii", "replace")
    release = banner.split(" ")[0]
    if not _RELEASE.fullmatch(release):
        raise KernelError("the bzImage does not say which release it is")
    return BzImage(release, _version(banner), data[start : start + length])


def _version(banner: str) -> str:
    debian = re.search(r" Debian ([0-9][0-9A-Za-z.+~:-]{0,63})(?: |$)", banner)
    if debian is not None:
        return debian[1]
    at = banner.find("#")
    return "".join(char if " " <= char <= "~" else "?" for char in banner[at:] if at >= 0)[:128]


def _what_else(data: bytes) -> str:
    if data[:4] == b"\x7fELF":
        return "it is an ELF file"
    if data[56:60] == b"ARM\x64":
        return "it is a kernel for arm64, and the guests are x86-64"
    if data[4:8] == b"zimg":
        return "it is a packed EFI image, as other architectures than x86-64 have"
    if data[:2] == b"\x1f\x8b":
        return "it is packed by gzip"
    return f"{len(data)} bytes without the header of one"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def unpack(data: bytes, zstd: Callable[[bytes], bytes]) -> bytes:
    """The vmlinux of a bzImage's payload, by the format that its first bytes tell.

    Args:
        data: the payload.
        zstd: unpacks that format, for which Python has nothing.

    Raises:
        KernelError: it is damaged, or packed in a way that is not known here.
    """
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return zstd(data[:-_SIZE_BEHIND])
    if data[:4] in (b"\x02\x21\x4c\x18", b"\x89LZO"):
        raise KernelError("its payload is packed by LZ4 or LZO, which is not read here", "build it with KERNEL_ZSTD=y")
    return unpack_stream(data)


def unpack_stream(data: bytes) -> bytes:
    """What one of Python's own formats (gzip, xz, lzma, bzip2) has in it; what lies behind its end is left alone.

    Raises:
        KernelError: it is damaged, too large, or of another format.
    """
    decompressor: _Decompressor
    try:
        if data[:3] == b"\x1f\x8b\x08":
            # zlib counts its own way
            found = zlib.decompressobj(31)
            result, whole = found.decompress(data, MAX_UNPACKED), found.eof
        else:
            if data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
                decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            elif data[:3] == b"BZh":
                decompressor = bz2.BZ2Decompressor()
            else:
                raise KernelError(f"it is packed in a way that is not known here ({data[:4].hex()})")
            result, whole = decompressor.decompress(data, MAX_UNPACKED), decompressor.eof
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise KernelError(f"it can't be unpacked: {error}") from error
    if not whole:
        raise KernelError("it can't be unpacked: it ends too early, or is larger than any kernel")
    return result


def config_inside(vmlinux: bytes) -> bytes | None:
    """The configuration that a kernel with CONFIG_IKCONFIG has in it."""
    start, end = vmlinux.find(b"IKCFG_ST"), vmlinux.find(b"IKCFG_ED")
    if start < 0 or end < start:
        return None
    try:
        return zlib.decompressobj(31).decompress(vmlinux[start + 8 : end], MAX_CONFIG)
    except zlib.error:
        return None


def lacking(config: bytes, options: tuple[str, ...]) -> list[str]:
    """Which of these lines (`CONFIG_X=y`) a configuration does not have."""
    lines = set(config.decode("ascii", "replace").splitlines())
    return [option for option in options if option not in lines]


def has(config: bytes | None, symbol: str) -> bool:
    """Whether something is built in, by a configuration; None is no answer."""
    return config is not None and not lacking(config, (f"{symbol}=y",))


@dataclass(frozen=True)
class Types:
    """A kernel's types.

    Attributes:
        data: BTF, the bytes of /sys/kernel/btf/vmlinux.
        functions: names of the functions of sched_ext that it has.
    """

    data: bytes
    functions: frozenset[str]


def types_of(vmlinux: bytes) -> Types:
    """The types of a kernel that has sched_ext.

    Raises:
        KernelError: it has no BTF, no sched_ext, or is damaged.
    """
    try:
        elf = Elf(vmlinux)
        section = elf.section(".BTF")
        data = elf.content(section) if section is not None else b""
        if not data:
            raise KernelError("it has no BTF, which every sched_ext scheduler needs", "build it with DEBUG_INFO_BTF=y")
        btf = Btf(data)
        if btf.named(Kind.STRUCT, "sched_ext_ops") is None:
            raise KernelError(
                "it has no sched_ext: its types know no `sched_ext_ops`", "build it with SCHED_CLASS_EXT=y"
            )
    except (ElfError, BtfError) as error:
        raise KernelError(f"the vmlinux in it is damaged: {error}") from error
    functions = (one.name for one in btf.of_kind(Kind.FUNC))
    return Types(data, frozenset(name for name in functions if name.startswith(("scx_bpf_", "__scx_bpf_"))))


def module_facts(data: bytes) -> dict[str, str]:
    """`.modinfo` of a kernel module; of keys that come more than once the last.

    Raises:
        KernelError: it is no module.
    """
    try:
        elf = Elf(data)
        section = elf.section(".modinfo")
        if section is None:
            raise KernelError("it has no .modinfo")
        pairs = (item.partition(b"=") for item in elf.content(section).split(b"\0") if b"=" in item)
        return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, _, value in pairs}
    except ElfError as error:
        raise KernelError(str(error)) from error


#: A line of `vmlinux.h` with the names of functions that the kernel has, and that its BTF describes wrongly.
KFUNCS = "/* kernel functions that can't be declared: "


def declared(vmlinux_h: str) -> set[str]:
    """Kernel functions that a `vmlinux.h` declares, or names behind `KFUNCS`."""
    found = set(re.findall(r"^extern [^;\n]*?\b(\w+)\([^;\n]*__ksym;", vmlinux_h, re.MULTILINE))
    for names in re.findall(rf"^{re.escape(KFUNCS)}([\w ]+) \*/$", vmlinux_h, re.MULTILINE):
        found.update(names.split())
    return found


_DEFINITION = re.compile(r"^(struct|union|enum) (\w+) {\n.*?^}[^\n]*;\n", re.MULTILINE | re.DOTALL)
_USE = re.compile(r"\b(?:struct|union|enum) (\w+)")
_ASKED = re.compile(r"\bbpf_core_field_exists\([^\n]*?->(\w+)\)")


def types_for(headers: str, ours: str, theirs: str) -> dict[str, str]:
    """Types that headers use and a kernel lacks, as the kernel that the headers are of has them.

    Headers of sched_ext ask at run time which of its forms a kernel has, so they name types of all of them. A type that
    the kernel lacks is not there when a program is loaded either, which is just what they ask.

    Args:
        headers: their text.
        ours: `vmlinux.h` of the kernel that they are of.
        theirs: `vmlinux.h` of the other kernel.

    Returns:
        Definitions by name, each behind what it is made of.
    """
    known = {match[2]: match[0] for match in _DEFINITION.finditer(ours)}
    there = {match[2] for match in _DEFINITION.finditer(theirs)}
    found: dict[str, str] = {}

    def add(name: str) -> None:
        if name in there or name in found or name not in known:
            return
        text = known[name]
        there.add(name)  # it may hold a pointer to its own kind
        for used in _USE.findall(text):
            add(used)
        found[name] = text

    for name in sorted(set(_USE.findall(headers))):
        add(name)
    return found


def members_for(headers: str, ours: str, theirs: str) -> tuple[str, tuple[str, ...]]:
    """Members of sched_ext's structures by which headers tell kernels apart, where the other kernel lacks them.

    Args:
        headers: their text.
        ours: `vmlinux.h` of the kernel that they are of.
        theirs: `vmlinux.h` of the other kernel.

    Returns:
        `theirs` with these members, and their names as `structure.member`. No program is laid out by that: where a
        member is, and whether it is, libbpf finds out when it loads one.
    """
    asked = set(_ASKED.findall(headers))
    known = {match[2]: match[0] for match in _DEFINITION.finditer(ours) if match[2].startswith("scx_")}
    added: list[str] = []

    def complete(match: re.Match[str]) -> str:
        text = match[0]
        for name in sorted(asked):
            line = re.search(rf"^\t[^\t\n]*\b{name}(?:\[\w*\])?;$", known.get(match[2], ""), re.MULTILINE)
            if line is not None and re.search(rf"\b{name}\b", text) is None:
                text = text.replace("\n}", f"\n{line[0]}\n}}", 1)
                added.append(f"{match[2]}.{name}")
        return text

    return _DEFINITION.sub(complete, theirs), tuple(added)
