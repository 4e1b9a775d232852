# SPDX-License-Identifier: Apache-2.0
"""Small kernels for tests: a bzImage whose vmlinux has nothing but types, modules with nothing but .modinfo."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

RELEASE = "9.8.7-test"
BANNER = f"{RELEASE} (somebody@somewhere) #1 SMP PREEMPT_DYNAMIC Thu Jan 1 00:00:00 UTC 2026"
CONFIG = (
    b"#\n# Automatically generated file; DO NOT EDIT.\n#\nCONFIG_SCHED_CLASS_EXT=y\nCONFIG_DEBUG_INFO_BTF=y\n"
    b"CONFIG_BPF_JIT=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"
    b"# CONFIG_OVERLAY_FS is not set\n"
)
MODULES = (("i6300esb", "watchdog"), ("watchdog", ""), ("qemu_fw_cfg", ""), ("overlay", ""))


def btf(*structures: str, words: str = "", functions: Sequence[str] = ()) -> bytes:
    """BTF with an integer, structures of one member of it, functions of nothing, and words that name nothing."""
    strings = bytearray(b"\0int\0x\0" + words.encode() + b"\0")
    types = struct.pack("<IIII", 1, 1 << 24, 4, 32)
    for name in structures:
        at = len(strings)
        strings += name.encode() + b"\0"
        types += struct.pack("<III", at, 4 << 24 | 1, 4) + struct.pack("<III", 5, 1, 0)
    for name in functions:
        types += struct.pack("<III", len(strings), 12 << 24, 0)
        strings += name.encode() + b"\0"
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def elf(sections: dict[str, bytes]) -> bytes:
    """A 64-bit ELF file that is nothing but sections."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    body, rows, at = bytearray(), [struct.pack("<IIQQQQIIQQ", *[0] * 10)], 1
    for name, data in (*sections.items(), (".shstrtab", names)):
        rows.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 64 + len(body), len(data), 0, 0, 1, 0))
        body += data
        at += len(name) + 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 56, 0, 64, len(rows),
        len(rows) - 1,
    )  # fmt: skip
    return header + bytes(body) + b"".join(rows)


def bzimage(vmlinux: bytes, *, banner: str = BANNER, payload: bytes | None = None, flags: int = 0x7F) -> bytes:
    """A bzImage around a vmlinux, packed by gzip if `payload` does not say otherwise."""
    packed = gzip.compress(vmlinux, mtime=0) if payload is None else payload
    setup = bytearray(1024)
    setup[0x1F1] = 1
    struct.pack_into("<H", setup, 0x1FE, 0xAA55)
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x020F)
    struct.pack_into("<H", setup, 0x20E, 0x100)
    struct.pack_into("<H", setup, 0x236, flags)
    struct.pack_into("<II", setup, 0x248, 0x20, len(packed))
    setup[0x300 : 0x300 + len(banner)] = banner.encode()
    return bytes(setup) + bytes(0x20) + packed


def module(name: str, depends: str = "", release: str = RELEASE) -> bytes:
    """Something that looks like a kernel module."""
    words = [f"name={name}", f"depends={depends}", f"vermagic={release} SMP preempt mod_unload "]
    return elf({".modinfo": b"\0".join(word.encode() for word in words) + b"\0"})


def put(path: Path, data: bytes | str) -> Path:
    """Write a file with the directories that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def directory(
    place: Path,
    *,
    vmlinux: bytes | None = None,
    release: str = RELEASE,
    modules: Sequence[tuple[str, str]] = MODULES,
    config: bytes | None = CONFIG,
) -> Path:
    """A directory with a kernel and its modules, as `make install modules_install` leaves them."""  # fmt: skip
    whole = elf({".BTF": btf("sched_ext_ops")}) if vmlinux is None else vmlinux
    put(place / f"boot/vmlinuz-{release}", bzimage(whole, banner=BANNER.replace(RELEASE, release)))
    if config is not None:
        put(place / f"boot/config-{release}", config)
    folder = place / "lib/modules" / release
    put(folder / "modules.builtin", "kernel/drivers/virtio/virtio.ko\n")
    for name, depends in modules:
        put(folder / "kernel/drivers" / f"{name.replace('_', '-')}.ko", module(name, depends, release))
    return place
