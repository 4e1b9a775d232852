# SPDX-License-Identifier: Apache-2.0
"""Directory trees as values: taken out of archives safely, copied, listed and hashed.

A tree has directories, regular files and symbolic links, nothing else. Only what matters counts: paths, contents, link
targets, and whether a file may be run; owners, times and the finer points of modes don't.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote, unquote

from testbed.errors import UsageError

_SAFE = "/!$&'()*+,-.:;=@_~[]{}^#"  # printable in a listing as it is
_HASH_THREADS = 4
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One line of a listing.

    Attributes:
        path: relative, with slashes.
        kind: `d` directory, `f` file, `x` file that may be run, `l` link.
        value: sha256 of a file, target of a link.
        size: bytes of a file.
    """

    path: str
    kind: str
    value: str = ""
    size: int = 0

    def line(self) -> str:
        """The entry as text, without spaces inside of words."""
        value, path = (quote(os.fsencode(text), safe=_SAFE) for text in (self.value, self.path))
        value = {"": "-", "-": "%2D"}.get(value, value)
        return f"{self.kind} {self.size} {value} {path}\n"


def parse_listing(text: str) -> list[Entry]:
    """Read what `listing` wrote.

    Raises:
        UsageError: it is no listing.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(" ")
        if len(words) != 4 or words[0] not in ("d", "f", "x", "l") or not words[1].isdigit():
            raise UsageError(f"line {number} of a listing is malformed")
        value = "" if words[2] == "-" else unquote(words[2], errors="surrogateescape")
        entries.append(Entry(unquote(words[3], errors="surrogateescape"), words[0], value, int(words[1])))
    return entries


def listing(entries: Iterable[Entry]) -> bytes:
    """The canonical text of a tree; its hash is the tree's hash."""
    return "".join(entry.line() for entry in entries).encode()


def scan(root: Path, skip: Callable[[str], bool] = lambda path: False) -> list[Entry]:
    """Everything below a directory, sorted by path, files with their hashes.

    Raises:
        UsageError: there is something else than directories, files and links.
    """
    paths = sorted(_walk(root, "", skip), key=lambda item: os.fsencode(item[0]))
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(lambda item: _entry(root, *item), paths))


def _walk(root: Path, prefix: str, skip: Callable[[str], bool]) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(root / prefix) as directory:
        children = list(directory)
    for child in children:
        path = f"{prefix}{child.name}"
        if skip(path):
            continue
        info = child.stat(follow_symlinks=False)
        yield path, info
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(root, path + "/", skip)


def _entry(root: Path, path: str, info: os.stat_result) -> Entry:
    if stat.S_ISDIR(info.st_mode):
        return Entry(path, "d")
    if stat.S_ISLNK(info.st_mode):
        return Entry(path, "l", os.readlink(root / path))
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"`{path}` is neither a file nor a directory nor a link")
    return Entry(path, "x" if info.st_mode & stat.S_IXUSR else "f", file_sha256(root / path), info.st_size)


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(path: str, target: str) -> str:
    """A link target as a relative one that stays inside the tree, as the tree's own root would resolve it.

    Links of a Debian root are often absolute (`/etc/alternatives/cc`); on the host they would lead out.
    """
    base = [] if target.startswith("/") else list(PurePosixPath(path).parent.parts)
    resolved: list[str] = []
    for part in [*base, *PurePosixPath(target).parts]:
        if part == "..":
            del resolved[-1:]
        elif part not in ("/", "."):
            resolved.append(part)
    if not target.startswith("/") and not escapes(path, target):
        return target
    up = len(PurePosixPath(path).parent.parts)
    return "/".join([".."] * up + resolved) or "."


def escapes(path: str, target: str) -> bool:
    """Would this link, taken by its text, leave the tree?"""
    if target.startswith("/"):
        return True
    depth = len(PurePosixPath(path).parent.parts)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


class Extractor:
    """Writes entries below a directory and never outside of it, whatever they are called.

    Args:
        root: an existing directory.
        max_bytes: content of all files together.
        max_entries: how many files, directories and links.
        contain_links: rewrite links that would lead out; otherwise refuse them.
    """

    def __init__(self, root: Path, *, max_bytes: int, max_entries: int, contain_links: bool) -> None:
        self._root = root
        self._bytes_left = max_bytes
        self._entries_left = max_entries
        self._contain_links = contain_links
        self._directories: set[str] = {""}

    def directory(self, path: str) -> None:
        """Make a directory and those above it."""
        self._count(path)
        self._make_directories(self._check(path))

    def file(self, path: str, content: IO[bytes], size: int, *, executable: bool) -> str:
        """Write a file; returns its sha256."""
        self._count(path)
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise UsageError("the archive is larger than an image can be")
        place = self._place(path)
        digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(place, flags, 0o755 if executable else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o755 if executable else 0o644)
            left = size
            while left:
                chunk = content.read(min(left, _CHUNK))
                if not chunk:
                    raise UsageError(f"the archive ends in the middle of `{path}`")
                digest.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        return digest.hexdigest()

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        self._count(path)
        if self._contain_links:
            target = inside(path, target)
        elif escapes(path, target):
            raise UsageError(f"link `{path}` leads out of the archive (`{target}`)")
        self._place(path).symlink_to(target)

    def hardlink(self, path: str, target: str) -> None:
        """Make a second name for a file that is there already."""
        self._count(path)
        source = self._root / self._check(target)
        self._parents_are_directories(self._check(target))
        if not stat.S_ISREG(source.lstat().st_mode):
            raise UsageError(f"link `{path}` does not lead to a file (`{target}`)")
        os.link(source, self._place(path), follow_symlinks=False)

    def _count(self, path: str) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise UsageError("the archive has more entries than an image can have")
        if len(path) > 4096:
            raise UsageError("the archive has a path of more than 4096 characters")

    @staticmethod
    def _check(path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
            raise UsageError(f"the archive has an entry outside of itself (`{path}`)")
        return "/".join(parts)

    def _place(self, path: str) -> Path:
        path = self._check(path)
        parent = path.rpartition("/")[0]
        self._make_directories(parent)
        place = self._root / path
        if os.path.lexists(place):
            if stat.S_ISDIR(place.lstat().st_mode):
                raise UsageError(f"the archive has `{path}` twice, once as a directory")
            place.unlink()
        return place

    def _make_directories(self, path: str) -> None:
        if path in self._directories:
            return
        self._make_directories(path.rpartition("/")[0])
        place = self._root / path
        try:
            place.mkdir()
        except FileExistsError:
            # A link here would take everything below it somewhere else.
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise UsageError(f"the archive uses `{path}` as a directory, and it is none") from None
        place.chmod(0o755)
        self._directories.add(path)

    def _parents_are_directories(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent not in self._directories:
            raise UsageError(f"the archive links to `{path}`, which is not in it")


def extract_tar(
    stream: IO[bytes],
    extractor: Extractor,
    select: Callable[[str, tarfile.TarInfo], bool] = lambda path, member: True,
) -> None:
    """Take a tar stream apart; devices and fifos are left out, modes are reduced to "may be run"."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./").strip("/")
            if path in ("", ".") or not select(path, member):
                continue
            if member.name.startswith("/"):
                raise UsageError(f"the archive has an absolute path (`{member.name}`)")
            if member.isdir():
                extractor.directory(path)
            elif member.issym():
                extractor.symlink(path, member.linkname)
            elif member.islnk():
                extractor.hardlink(path, member.linkname.removeprefix("./"))
            elif member.isreg():
                content = archive.extractfile(member)
                if content is None:
                    raise UsageError(f"the archive's `{path}` can't be read")
                extractor.file(path, content, member.size, executable=bool(member.mode & stat.S_IXUSR))


def link_tree(source: Path, target: Path) -> None:
    """The same tree at a second place, files as hard links where the file system allows it."""
    target.mkdir(parents=True, exist_ok=True)
    for path, info in _walk(source, "", lambda path: False):
        place = target / path
        if stat.S_ISDIR(info.st_mode):
            place.mkdir(exist_ok=True)
        elif stat.S_ISLNK(info.st_mode):
            place.symlink_to(os.readlink(source / path))
        else:
            link_file(source / path, place)


def link_file(source: Path, target: Path) -> None:
    """A second name for a file, a copy if there can be none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_tar(target: IO[bytes], items: Iterable[tuple[str, Path, Entry]]) -> None:
    """A tar archive that depends on nothing but the entries (name in the archive, file, entry)."""
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, path, entry in items:
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if entry.kind in "dx" else 0o644
            if entry.kind == "d":
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif entry.kind == "l":
                member.type = tarfile.SYMTYPE
                member.linkname = entry.value
                archive.addfile(member)
            else:
                member.size = entry.size
                with path.open("rb") as file:
                    archive.addfile(member, file)
