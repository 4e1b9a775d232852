# SPDX-License-Identifier: Apache-2.0
"""A kernel that somebody names: where its parts are (bzImage, modules, configuration), read and judged before use.

It may be a bzImage, alone or where a distribution or a build has it; a directory with one; Debian packages; the host's.
"""

from __future__ import annotations

import filecmp
import os
import platform
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import HostError, TestbedError, UsageError
from testbed.image.kernel import (
    MAX_CONFIG,
    MAX_FILE,
    BzImage,
    KernelError,
    config_inside,
    has,
    lacking,
    module_facts,
    read_bzimage,
    unpack_stream,
)
from testbed.image.model import KernelRecipe

#: Without these in the guest's kernel nothing that the runner says reaches anybody.
_BOOTS = ("CONFIG_BLK_DEV_INITRD=y", "CONFIG_DEVTMPFS=y", "CONFIG_SERIAL_8250_CONSOLE=y")
_SYMBOLS = {
    "i6300esb": "CONFIG_I6300ESB_WDT",
    "overlay": "CONFIG_OVERLAY_FS",
    "qemu_fw_cfg": "CONFIG_FW_CFG_SYSFS",
}
"""What builds a module that we ask for; a kernel without a list of what is built in may have a configuration."""
_LOST = {
    "overlay": "workloads can't mount an overlay",
    "qemu_fw_cfg": "crash and drgn get no vmcoreinfo from a dump",
}
"""What a guest can't do without a module. Without one that is not here there is no verdict."""
_MODULE = re.compile(r"([A-Za-z0-9_-]{1,64})\.ko(?:\.(?:xz|gz|zst))?")
_CONFIG_LINE = re.compile(rb"(?:#.*|CONFIG_[A-Za-z0-9_]+=.*|\s*)")
_USUAL = (
    "vmlinuz", "bzImage", "vmlinuz-*", "boot/vmlinuz", "boot/vmlinuz-*", "arch/x86/boot/bzImage",
    "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz",
)  # fmt: skip
_BUILT = ("arch", "x86", "boot")


@dataclass(frozen=True)
class Place:
    """Where a kernel is, before it is read.

    Attributes:
        tops: directories with `lib/modules/RELEASE` and `boot/config-RELEASE`, or trees that it was built in.
        who: makes the error that its owner gets.
    """

    kernel: Path
    tops: tuple[Path, ...]
    who: type[TestbedError] = UsageError


@dataclass(frozen=True)
class Given:
    """A kernel with what belongs to it.

    Attributes:
        image: the bzImage.
        config: None if it is nowhere.
        modules: those that the guest wants and what they depend on, unpacked, by name.
        builtin: what is built in, as `modules.builtin` lists it.
        lost: what the guest can't do for want of a module.
    """

    image: bytes
    header: BzImage
    config: bytes | None
    modules: Mapping[str, bytes]
    builtin: str
    lost: tuple[str, ...] = ()


def locate(path: Path) -> Place:
    """Find the kernel below a path.

    Raises:
        UsageError: there is none, or more than one.
    """
    if not path.is_dir():
        return Place(path, tuple(_around(path)))
    found: list[Path] = []
    for one in (one for pattern in _USUAL for one in sorted(path.glob(pattern)) if one.is_file()):
        # by two names, or copied to where the boot loader looks
        if not any(filecmp.cmp(one, other, shallow=False) for other in found):
            found.append(one)
    if not found:
        raise UsageError(
            f"`{path}` has no kernel in it",
            hint="expected `vmlinuz`, `boot/vmlinuz-RELEASE`, `arch/x86/boot/bzImage`, or Debian packages (`.deb`)",
        )
    if len(found) > 1:
        names = ", ".join(f"`{one.relative_to(path)}`" for one in found)
        raise UsageError(f"`{path}` has {len(found)} kernels: {names}", hint="name the one that is meant")
    return Place(found[0], tuple(dict.fromkeys((path, *_around(found[0])))))


def _around(kernel: Path) -> Iterator[Path]:
    """Directories that may hold what belongs to a kernel, from where it is."""
    folder = kernel.absolute().parent
    yield folder
    if folder.parts[-3:] == _BUILT:
        yield folder.parents[2]
    elif folder.name == "boot":
        yield folder.parent
    elif folder.parent.name == "modules":
        yield folder.parents[2] if folder.parents[1].name == "lib" else folder.parent


def host(root: Path = Path("/"), release: str = "") -> Place:
    """The running kernel's file.

    Raises:
        HostError: it isn't where distributions have it.
    """
    release = release or platform.release()
    for name in (f"boot/vmlinuz-{release}", f"lib/modules/{release}/vmlinuz", f"usr/lib/modules/{release}/vmlinuz"):
        if os.path.lexists(root / name):
            return Place(root / name, (root,), HostError)
    raise HostError(
        f"the running kernel's file is not here: no `/boot/vmlinuz-{release}`, no `/lib/modules/{release}/vmlinuz`",
        hint="in a container or a cloud guest the kernel is often kept outside: copy bzImage and /lib/modules/RELEASE "
        "from where they are, and name their directory",
    )


def read(place: Place, recipe: KernelRecipe, zstd: Callable[[bytes], bytes]) -> Given:
    """Read a kernel and what belongs to it, all but the vmlinux.

    Args:
        place: where it is.
        recipe: which modules and options are wanted.
        zstd: unpacks that format.

    Raises:
        TestbedError: it can't be used; says why.
    """
    data = _bytes(place.kernel, MAX_FILE, place)
    try:
        header = read_bzimage(data)
    except KernelError as error:
        raise refused(place, error) from error
    folders = [folder for top in place.tops for folder in _module_folders(top, header.release)]
    config = next(_configs(place, folders, header.release), None)
    _check(config, recipe, place)
    finder = _Finder(place, header.release, folders, config, zstd)
    for name in recipe.modules:
        finder.add(name, required=name not in _LOST)
    for name in recipe.optional_modules:
        finder.add(name, required=False)
    return Given(data, header, config, finder.found, finder.builtin_text, tuple(finder.lost))


def refused(place: Place, error: KernelError) -> TestbedError:
    """The error of a kernel that can't be used."""
    return place.who(f"the kernel `{place.kernel}` can't be used: {error}", hint=error.hint)


def config_of(given: Given, vmlinux: bytes, recipe: KernelRecipe, place: Place) -> bytes | None:
    """The configuration, from inside of the kernel if there was no other.

    Raises:
        TestbedError: it lacks an option that the guest needs.
    """
    if given.config is not None:
        return given.config
    config = config_inside(vmlinux)
    _check(config, recipe, place)
    return config


def _check(config: bytes | None, recipe: KernelRecipe, place: Place) -> None:
    if config is None:
        return
    missing = lacking(config, (*recipe.options, *_BOOTS))
    if any("SCHED_CLASS_EXT" in option for option in missing):
        raise refused(place, KernelError("it has no sched_ext: CONFIG_SCHED_CLASS_EXT is not set"))
    if missing:
        raise refused(place, KernelError(f"its configuration lacks {', '.join(missing)}"))


def _bytes(path: Path, limit: int, place: Place) -> bytes:
    """A whole regular file.

    Raises:
        TestbedError: it can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise place.who(f"`{path}` is no file")
            data = file.read(limit + 1)
    except PermissionError as error:
        raise HostError(
            f"`{path}` can't be read by this user (Ubuntu and others keep kernels for root)",
            hint=f"as root: chmod a+r {path}; or copy it, readable, and name the copy's directory",
        ) from error
    except OSError as error:
        raise place.who(f"`{path}` can't be read: {(error.strerror or '').lower()}") from error
    if len(data) > limit:
        raise place.who(f"`{path}` is larger than {limit >> 20} MiB")
    return data


def _module_folders(top: Path, release: str) -> list[Path]:
    own = [top / "lib/modules" / release, top / "usr/lib/modules" / release]
    if top.name == release and (top / "modules.order").is_file():
        own.append(top)
    found = [path for path in own if path.is_dir()]
    if not found and (top / "modules.order").is_file():
        found = [top]  # a tree that it was built in
    return list({path.resolve(): path for path in found}.values())


def _configs(place: Place, folders: Sequence[Path], release: str) -> Iterator[bytes]:
    """Files that are a kernel's configuration, the likeliest first."""
    for top in place.tops:
        for name in (f"boot/config-{release}", f"config-{release}", ".config", "config"):
            yield from _config(top / name, place)
    for folder in folders:
        for name in ("config", "build/.config"):
            yield from _config(folder / name, place)


def _config(path: Path, place: Place) -> Iterator[bytes]:
    """The file, if it is there and looks like one; another file is nothing that a guest should see."""
    if path.is_file():
        data = _bytes(path, MAX_CONFIG, place)
        if b"CONFIG_" in data and all(_CONFIG_LINE.fullmatch(line) for line in data.splitlines()):
            yield data


@dataclass
class _Finder:
    """Modules with what they depend on."""

    place: Place
    release: str
    folders: Sequence[Path]
    config: bytes | None
    zstd: Callable[[bytes], bytes]
    found: dict[str, bytes] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        texts = [_bytes(file, MAX_CONFIG, self.place) for file in self._files("modules.builtin")]
        self.builtin_text = b"".join(texts).decode("utf-8", "replace")
        self._builtin = {_name(line.rpartition("/")[2]) for line in self.builtin_text.splitlines()}
        self._files_by_name = dict(self._scan())

    def _files(self, name: str) -> Iterator[Path]:
        yield from (folder / name for folder in self.folders if (folder / name).is_file())

    def _scan(self) -> Iterator[tuple[str, Path]]:
        for top in self.folders:
            for folder, _, names in os.walk(top):
                for name in names:
                    if _MODULE.fullmatch(name):
                        yield _name(name), Path(folder, name)

    def add(self, name: str, *, required: bool, by: str = "") -> None:
        """Take a module and what it needs, unless it is built in.

        Raises:
            TestbedError: it is required and not there, or damaged, or of another kernel.
        """
        name = _name(name)
        if name in self.found or name in self._builtin or has(self.config, _SYMBOLS.get(name, "")):
            return
        file = self._files_by_name.get(name)
        if file is None:
            if not required:
                self.lost.append(f"it has no `{name}`: {_LOST.get(name, 'nobody can load it')}")
                return
            raise self._missing(name, by)
        try:
            data = self._unpacked(file)
            facts = module_facts(data)
        except KernelError as error:
            raise self.place.who(f"the kernel's module `{file}` can't be used: {error}") from error
        magic = facts.get("vermagic", "").split(" ")[0]
        if magic != self.release:
            raise self.place.who(
                f"the module `{file}` is of another kernel: {magic or 'it says none'}, expected {self.release}",
                hint="modules and bzImage must come from the same build",
            )
        self.found[name] = data
        for needed in facts.get("depends", "").split(","):
            if needed:
                self.add(needed, required=True, by=name)

    def _missing(self, name: str, by: str) -> TestbedError:
        needs = f", which `{by}` needs" if by else ", the watchdog that tells a guest that stands still"
        where = "" if self.folders else f" (no modules of {self.release} were found beside it)"
        symbol = _SYMBOLS.get(name)
        return self.place.who(
            f"the kernel `{self.place.kernel}` can't be used: it has no `{name}`{needs}{where}",
            hint=f"name a directory with the kernel and its modules: DIR/vmlinuz and DIR/lib/modules/{self.release}"
            + (f"; a kernel that you build needs {symbol}=y or =m" if symbol else ""),
        )

    def _unpacked(self, file: Path) -> bytes:
        data = _bytes(file, MAX_FILE, self.place)
        if file.suffix == ".zst":
            return self.zstd(data)
        return data if file.suffix == ".ko" else unpack_stream(data)


def _name(file: str) -> str:
    return file.split(".ko", maxsplit=1)[0].replace("-", "_")
