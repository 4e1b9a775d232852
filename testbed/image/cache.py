# SPDX-License-Identifier: Apache-2.0
"""The cache on disk: what is in there is whole, and is never changed.

    images/ID/      finished images
    parts/KEY/      finished stages of builds
    keys/KEY        the id of the image that these inputs gave
    snapshots/KEY/  booted machines that wait for a job (testbed/vm/snapshot.py)
    builds/KEY/     compiled candidates (testbed/build/cache.py)
    runs/KEY/       evidence of sim runs (testbed/engine/cached.py)
    locks/, tmp/    work in progress

A directory is made below `tmp/` and appears at its place by one rename, after everything in it has reached the disk.
A process that builds something holds a lock, so that a second one waits for it instead of doing the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import HostError


def cache_root() -> Path:
    """Where images live: $TESTBED_CACHE, else below the user's cache directory."""
    own = os.environ.get("TESTBED_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "testbed"


@contextlib.contextmanager
def disk_errors(what: str, root: Path) -> Iterator[None]:
    """Turn the disk's refusals into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError(
                f"the disk is full: could not write {what}",
                hint=f"free some space (a build takes 5 GB), or set TESTBED_CACHE to another disk than `{root}`",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise HostError(
                f"can't write {what}: {error.strerror} (`{error.filename or root}`)",
                hint="set TESTBED_CACHE to a directory that you may write, or mend its owner",
            ) from error
        raise


@dataclass(frozen=True)
class Cache:
    """The cache below one directory."""

    root: Path

    @classmethod
    def open(cls, root: Path | None = None) -> Cache:
        """Make the directories if they are missing, and clean what dead builds left behind.

        Raises:
            HostError: the place can't be written.
        """
        cache = cls(root or cache_root())
        with disk_errors("the image cache", cache.root):
            for directory in (
                cache.images,
                cache.parts,
                cache.keys,
                cache.snapshots,
                cache.builds,
                cache.runs,
                cache.locks,
                cache.tmp,
            ):
                directory.mkdir(parents=True, exist_ok=True)
        return cache

    @property
    def images(self) -> Path:
        """Finished images."""
        return self.root / "images"

    @property
    def parts(self) -> Path:
        """Finished stages."""
        return self.root / "parts"

    @property
    def keys(self) -> Path:
        """Which inputs gave which image."""
        return self.root / "keys"

    @property
    def snapshots(self) -> Path:
        """Booted machines."""
        return self.root / "snapshots"

    @property
    def builds(self) -> Path:
        """Compiled candidates."""
        return self.root / "builds"

    @property
    def runs(self) -> Path:
        """Evidence of sim runs."""
        return self.root / "runs"

    @property
    def locks(self) -> Path:
        """One file per thing that is being built."""
        return self.root / "locks"

    @property
    def tmp(self) -> Path:
        """Work in progress."""
        return self.root / "tmp"

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock of a name; `waiting` is called once if somebody else has it.

        Those who share it exclude only those who don't.
        """
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with disk_errors("a lock file", self.root):
            descriptor = os.open(self.locks / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty directory on the cache's disk that is gone afterwards, whatever happens.

        Its owner holds a lock beside it, so that the next build knows whether a leftover is anybody's.
        """
        token = f"{os.getpid()}-{secrets.token_hex(4)}"
        lock = self.tmp / f"{token}.lock"
        with disk_errors("a temporary directory", self.root):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            directory = self.tmp / token
            directory.mkdir()
        try:
            yield directory
        finally:
            remove_tree(directory)
            lock.unlink(missing_ok=True)
            os.close(descriptor)

    def clean(self) -> list[Path]:
        """Remove the workspaces of builds that died."""
        removed = []
        for lock in self.tmp.glob("*.lock"):
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                directory = lock.with_suffix("")
                remove_tree(directory)
                lock.unlink(missing_ok=True)
                removed.append(directory)
            except OSError:
                continue
            finally:
                os.close(descriptor)
        return removed

    def publish(self, directory: Path, place: Path) -> Path:
        """Put a finished directory at its place; if an equal one is there already, that one stays."""
        with disk_errors(f"`{place.name}`", self.root):
            sync(directory)
            try:
                directory.rename(place)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            sync_directory(place.parent)
        return place

    def write_key(self, key: str, image_id: str) -> None:
        """Remember which image some inputs gave."""
        with disk_errors("the image index", self.root):
            write_atomically(self.keys / key, image_id.encode() + b"\n")

    def read_key(self, key: str) -> str | None:
        """The id of the image that these inputs gave, if it is there."""
        try:
            image_id = (self.keys / key).read_text().strip()
        except OSError:
            return None
        return image_id if (self.images / image_id / "manifest.json").is_file() else None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync(path: Path) -> None:
    """Bring everything on the path's file system to the disk (one call instead of one per file)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mounts_below(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[str]:
    """What is mounted at a path or below it."""
    place = os.fsencode(path.resolve())
    found = []
    for line in mountinfo.read_bytes().splitlines():
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        if point == place or point.startswith(place.rstrip(b"/") + b"/"):
            found.append(os.fsdecode(point))
    return found


def remove_tree(path: Path) -> None:
    """Remove a directory tree, also one with directories that can't be written.

    Raises:
        HostError: something is mounted in it. A killed tool may have left the machine's own /dev or /sys in there, and
            what is removed below a mount is removed from the machine.
    """
    if not os.path.lexists(path):
        return
    if not path.is_symlink() and (mounts := mounts_below(path)):
        raise HostError(
            f"`{path}` is not removed, because `{mounts[0]}` is mounted in it",
            hint=f"umount {' '.join(shlex.quote(point) for point in reversed(mounts))}",
        )
    for directory, _, _ in os.walk(path):
        mode = Path(directory).lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(OSError):
                Path(directory).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
