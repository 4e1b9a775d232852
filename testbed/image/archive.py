# SPDX-License-Identifier: Apache-2.0
"""An image as one file: a plain or zstd-compressed tar archive, the same bytes each time."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from testbed.errors import HostError, UsageError
from testbed.image.model import FILES, TREES, Image
from testbed.image.tree import Entry, Extractor, extract_tar, parse_listing, write_tar

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_BYTES = 16 << 30
_MAX_ENTRIES = 1_000_000
_PARTS = {"manifest.json", "lists", *FILES, *TREES}


def write(image: Image, file: Path) -> None:
    """Write an image; compressed if the file's name ends in `.zst`. It appears under its name when it is whole.

    Raises:
        HostError: zstd is missing.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as target:
            if file.suffix == ".zst":
                with _zstd(["-q", "-T0", "-3", "-c"], target) as compressed:
                    write_tar(compressed, _items(image))
            else:
                write_tar(target, _items(image))
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _items(image: Image) -> Iterator[tuple[str, Path, Entry]]:
    single = ["manifest.json", *FILES]
    for name in sorted(single):
        path = image.path / name
        yield name, path, Entry(name, "f", size=path.stat().st_size)
    yield "lists", image.path / "lists", Entry("lists", "d")
    for name in sorted(TREES):
        path = image.path / "lists" / name
        yield f"lists/{name}", path, Entry(name, "f", size=path.stat().st_size)
    for name in sorted(TREES):
        yield name, image.path / name, Entry(name, "d")
        for entry in parse_listing((image.path / "lists" / name).read_text()):
            yield f"{name}/{entry.path}", image.path / name / entry.path, entry


@contextlib.contextmanager
def _zstd(arguments: list[str], target: IO[bytes]) -> Iterator[IO[bytes]]:
    process = subprocess.Popen([_program(), *arguments], stdin=subprocess.PIPE, stdout=target)
    if process.stdin is None:
        raise OSError("no pipe to zstd")
    try:
        yield process.stdin
        process.stdin.close()
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
    if process.returncode != 0:
        raise HostError(f"zstd ended with {process.returncode}", hint="is the disk full?")


def _program() -> str:
    found = shutil.which("zstd")
    if found is None:
        raise HostError("zstd is not installed", hint="apt-get install zstd, or use a plain `.tar`")
    return found


def read(file: Path, directory: Path) -> None:
    """Unpack an exported image into a new directory; nothing is believed yet.

    Raises:
        UsageError: the file is missing, no archive, or tries to write elsewhere.
    """
    try:
        with file.open("rb") as source:
            magic = source.read(4)
    except OSError as error:
        raise UsageError(f"can't read `{file}`: {error.strerror}") from error
    directory.mkdir()
    extractor = Extractor(directory, max_bytes=_MAX_BYTES, max_entries=_MAX_ENTRIES, contain_links=False)
    try:
        if magic == _ZSTD_MAGIC:
            with subprocess.Popen([_program(), "-q", "-dc", str(file)], stdout=subprocess.PIPE) as process:
                try:
                    if process.stdout is not None:
                        extract_tar(process.stdout, extractor, _belongs)
                finally:
                    process.kill()
        else:
            with file.open("rb") as source:
                extract_tar(source, extractor, _belongs)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UsageError(f"`{file}` is no exported image: {error}") from error


def _belongs(path: str, member: tarfile.TarInfo) -> bool:
    if path.split("/", maxsplit=1)[0] not in _PARTS:
        raise UsageError(f"the archive has `{path}`, which is no part of an image")
    if not (member.isdir() or member.isreg() or member.issym()):
        raise UsageError(f"the archive has `{path}`, which is neither a file nor a directory nor a link")
    return True
