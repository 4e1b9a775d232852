# SPDX-License-Identifier: Apache-2.0
"""Deterministic `newc` cpio archives: what the kernel unpacks as the guest's root."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from testbed.image.tree import Entry

_ALIGN = 4


def write_cpio(target: IO[bytes], root: Path, entries: Iterable[Entry]) -> None:
    """Write a tree as a newc archive: sorted as given, everything root's, no times, inode numbers by order.

    A console and a null device are added, which the kernel wants to have before anybody can make them.
    """
    writer = _Writer(target)
    for entry in entries:
        if entry.kind == "d":
            writer.add(entry.path, stat.S_IFDIR | 0o755)
        elif entry.kind == "l":
            writer.add(entry.path, stat.S_IFLNK | 0o777, os.fsencode(entry.value))
        else:
            mode = stat.S_IFREG | (0o755 if entry.kind == "x" else 0o644)
            writer.add(entry.path, mode, (root / entry.path).read_bytes())
    writer.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    writer.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    writer.end()


class _Target(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Writer:
    def __init__(self, target: _Target) -> None:
        self._target = target
        self._position = 0
        self._inode = 0

    def add(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        self._record(os.fsencode(path), mode, data, self._inode, device)

    def end(self) -> None:
        self._record(b"TRAILER!!!", 0, b"", 0, (0, 0))
        self._pad(512)

    def _record(self, name: bytes, mode: int, data: bytes, inode: int, device: tuple[int, int]) -> None:
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = [inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name) + 1, 0]
        self._write(b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0")
        self._pad(_ALIGN)
        self._write(data)
        self._pad(_ALIGN)

    def _write(self, data: bytes) -> None:
        self._target.write(data)
        self._position += len(data)

    def _pad(self, size: int) -> None:
        self._write(b"\0" * (-self._position % size))


def write_archive(path: Path, files: Mapping[str, Path]) -> str:
    """Write an archive of some files by their paths in it, with the directories that they need; returns its sha256."""
    with path.open("wb") as file:
        hashed = _HashingFile(file)
        writer = _Writer(hashed)
        directories: set[str] = set()
        for name in sorted(files):
            for parent in [*PurePosixPath(name).parents][-2::-1]:
                if str(parent) not in directories:
                    directories.add(str(parent))
                    writer.add(str(parent), stat.S_IFDIR | 0o755)
            executable = files[name].stat().st_mode & stat.S_IXUSR
            writer.add(name, stat.S_IFREG | (0o755 if executable else 0o644), files[name].read_bytes())
        writer.end()
        return hashed.digest.hexdigest()


class _HashingFile:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)
