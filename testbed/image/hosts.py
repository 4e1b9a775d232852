# SPDX-License-Identifier: Apache-2.0
"""The disk of a guest that lives long: a small Debian with systemd and sshd (`testbed image hosts`). Part of no image.

made = build(listener)      # in the cache, built now if it is not there
made.disk                   # a raw ext4 file system; guests write to a layer above it

The kernel is the image's, which has the disk's drivers built in, so there is no initramfs and no module.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import Field

from testbed.data import data_directory
from testbed.image import debian
from testbed.image.builder import Builder
from testbed.image.events import Stage
from testbed.image.extra import Extra, key_of
from testbed.image.model import BuilderRecipe, DebianRecipe, Package, pretty
from testbed.image.recipe import HOSTS, read_recipe
from testbed.image.tree import file_sha256, link_file, scan
from testbed.report.events import Listener
from testbed.sandbox import MOUNT_POINTS, Bind, Limits, Sandbox
from testbed.spec import Model

#: Raised by hand whenever this module makes something else of the same recipe.
FORMAT = 1
#: Who logs in and is not root; made by packages.sh.
USER = "promoter"

_FACTS = "hosts.json"
_DISK = "disk.ext4"
_LIMIT_S = 600.0
_USER_ID = 1000
# What is different on each host comes with its own second disk.
_LEFT_OUT = (*MOUNT_POINTS, "testbed", "etc/ssh/ssh_host_")
_MODES = {
    "etc/gshadow": 0o600,
    "etc/shadow": 0o600,
    "etc/sudoers": 0o440,
    "root": 0o700,
    "tmp": 0o1777,
    "usr/bin/sudo": 0o4755,
    "var/tmp": 0o1777,
}
# Fixed, so that the same tree gives the same bytes.
_UUID = "7e57bed0-0000-4000-8000-000000000001"


class HostsRecipe(Model):
    """`vm_images/hosts/hosts.toml`."""

    schema_: Literal["testbed.hosts/1"] = Field(alias="schema")
    disk_mb: int = Field(ge=256, le=8192)
    masked: tuple[str, ...]
    debian: DebianRecipe
    builder: BuilderRecipe


class HostsFacts(Model):
    """`hosts.json`: what the disk was made of."""

    schema_: Literal["testbed.hosts/1"] = Field(default="testbed.hosts/1", alias="schema")
    disk_sha256: str
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Made:
    """The disk in the cache."""

    path: Path
    facts: HostsFacts

    @property
    def disk(self) -> Path:
        """A raw ext4 file system, never written to."""
        return self.path / _DISK


def load_recipe(folder: Path | None = None) -> HostsRecipe:
    """Read the recipe.

    Raises:
        Bug: it is ours, so it is our fault if it can't be read.
    """
    return read_recipe((folder or data_directory("vm_images") / HOSTS) / "hosts.toml", HostsRecipe)


def directory() -> Path | None:
    """Where the disk of this version's recipe is; None if nobody has made it. Writes nothing."""
    return _EXTRA.directory()


def build(listener: Listener) -> Made:
    """The disk, made now if it is not in the cache.

    Raises:
        HostError: it can't be made here, with the cure.
    """
    place = _EXTRA.build(listener, _Workshop)
    return Made(place, HostsFacts.model_validate_json((place / _FACTS).read_bytes()))


def _key(folder: Path) -> str:
    return key_of(FORMAT, [*_packages(folder), *((str(path), digest) for path, digest in _overlay(folder))])


def _packages(folder: Path) -> list[tuple[str, str]]:
    files = (folder / HOSTS / "hosts.toml", folder / HOSTS / "packages.sh", folder / "sources.sh")
    return [(path.name, file_sha256(path)) for path in files]


def _overlay(folder: Path) -> Iterator[tuple[Path, str]]:
    """Our own files of the disk, with their hashes."""
    root = folder / HOSTS / "root"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root), file_sha256(path)


_EXTRA = Extra(HOSTS, "the host's disk", _FACTS, _key)


class _Workshop:
    """One build of the disk: a Debian root, then a file system of it."""

    def __init__(self, folder: Path, builder: Builder) -> None:
        self._folder = folder
        self._builder = builder
        self._recipe = load_recipe(folder / HOSTS)

    def make(self) -> None:
        def packages() -> str:
            return key_of(FORMAT, _packages(self._folder))

        title = "make a Debian root with systemd and sshd"
        self._root = self._builder.part("host-root", title, packages, self._make_root)
        self._disk = self._builder.part("host-disk", "make a disk of it", lambda: _key(self._folder), self._make_disk)

    def collect(self, out: Path) -> None:
        link_file(self._disk / _DISK, out / _DISK)
        packages = debian.read_installed(self._root / "testbed")
        facts = HostsFacts(disk_sha256=file_sha256(out / _DISK), packages=packages)
        (out / _FACTS).write_bytes(pretty(facts))

    def _make_root(self, out: Path, scratch: Path, stage: Stage) -> None:
        recipe = self._recipe
        hooks = debian.hooks(self._folder, self._folder / HOSTS, debian.preferences(recipe.debian, None))
        self._builder.make_root(recipe.debian.suite, recipe.builder.install, hooks, out, scratch, stage)

    def _make_disk(self, out: Path, scratch: Path, stage: Stage) -> None:
        with (scratch / "root.tar").open("wb") as file:
            write_tree(file, self._root / "builder", self._folder / HOSTS / "root", self._recipe)
        sandbox = Sandbox(
            root=self._root / "builder",
            read_only=(Bind(scratch, "/build"),),
            writable=(Bind(out, "/out"),),
            env=(
                ("SOURCE_DATE_EPOCH", str(self._recipe.debian.source_date_epoch)),
                ("E2FSPROGS_FAKE_TIME", str(self._recipe.debian.source_date_epoch)),
            ),
            limits=Limits(wall_s=_LIMIT_S),
        )
        options = ["-q", "-t", "ext4", "-m", "0", "-U", _UUID, "-E", f"hash_seed={_UUID},root_owner=0:0"]
        argv = ["mke2fs", *options, "-d", "/build/root.tar", f"/out/{_DISK}", f"{self._recipe.disk_mb}M"]
        self._builder.run(sandbox, argv, stage)


def write_tree(target: IO[bytes], root: Path, overlay: Path, recipe: HostsRecipe) -> None:
    """The host's files as a tar archive, with the owners and modes that the extracted root does not have.

    Args:
        target: gets the archive.
        root: what Debian's packages gave.
        overlay: our own files, which take the place of the packages' own.
        recipe: says which units are masked.
    """
    units = "etc/systemd/system"
    links = {f"{units}/{name}": "/dev/null" for name in recipe.masked}
    links |= {f"{units}/default.target": "host.target", "etc/mtab": "../proc/self/mounts"}
    own = {path.relative_to(overlay).as_posix(): path for path in sorted(overlay.rglob("*")) if path.is_file()}
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for entry in scan(root, lambda path: path.startswith(_LEFT_OUT)):
            if entry.path in links or entry.path in own:
                continue
            member = _member(entry.path, recipe, executable=entry.kind in "dx")
            if entry.kind == "d":
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif entry.kind == "l":
                member.type, member.linkname = tarfile.SYMTYPE, entry.value
                archive.addfile(member)
            else:
                _add(archive, member, root / entry.path)
        for name, value in links.items():
            member = _member(name, recipe, executable=True)
            member.type, member.linkname = tarfile.SYMTYPE, value
            archive.addfile(member)
        for name, path in own.items():
            _add(archive, _member(name, recipe), path)


def _member(name: str, recipe: HostsRecipe, *, executable: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = _MODES.get(name, 0o755 if executable else 0o644)
    member.mtime = recipe.debian.source_date_epoch
    if name == f"home/{USER}" or name.startswith(f"home/{USER}/"):
        member.uid = member.gid = _USER_ID
    return member


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    member.size = path.stat().st_size
    with path.open("rb") as file:
        archive.addfile(member, file)
