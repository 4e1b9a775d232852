# SPDX-License-Identifier: Apache-2.0
"""Puts finished stages together: the guest's tree, QEMU's tree, the manifest and its id."""

from __future__ import annotations

import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from testbed.errors import Bug
from testbed.image.cpio import write_cpio
from testbed.image.elf import Roots
from testbed.image.kernel import module_facts
from testbed.image.model import (
    FILES,
    TREES,
    Component,
    Drift,
    Example,
    KernelRecipe,
    Manifest,
    Packages,
    QemuFacts,
    Recipe,
    pretty,
)
from testbed.image.tree import Entry, file_sha256, link_file, link_tree, listing, parse_listing, scan
from testbed.sandbox import MOUNT_POINTS
from testbed.verdict import KernelFacts

RUNNER = "testbed/runner"
_GUEST_DIRECTORIES = (
    "dev",
    "etc",
    "job",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib64",
    "var/tmp",
)
_GUEST_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/sbin": "bin",
    "init": RUNNER,
    "etc/mtab": "../proc/self/mounts",
    "var/run": "../run",
}
_GUEST_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hostname": "testbed\n",
    "etc/hosts": "127.0.0.1 localhost testbed\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True)
class Parts:
    """The finished stages, each a directory of the cache."""

    packages: Path
    found: Packages
    kernel: Path
    qemu: Path
    runner: Path
    programs: tuple[Path, ...]

    @property
    def roots(self) -> Roots:
        """Where programs and libraries come from."""
        return Roots((self.packages / "extra", self.packages / "builder"))


def assemble(parts: Parts, recipe: Recipe, image: Path, *, locked: bool, drift: tuple[Drift, ...]) -> Manifest:
    """Fill the directory `image` and write its manifest.

    Raises:
        Bug: the stages don't have what the recipe asks for.
    """
    image.mkdir()
    kernel = _kernel_facts(parts)
    link_tree(parts.packages / "builder", image / "builder")
    link_tree(parts.kernel / "include", image / "include")
    link_file(parts.kernel / "vmlinuz", image / "vmlinuz")
    link_file(parts.packages / "packages.json", image / "packages.json")
    programs = _guest_root(parts, recipe, kernel.release, image / "root")
    _qemu_root(parts, recipe, image / "qemu")
    examples = _examples(parts, image / "examples")

    entries = {name: scan(image / name) for name in TREES if name != "builder"}
    entries["builder"] = parse_listing((parts.packages / "builder.list").read_text())
    with (image / "initramfs.cpio").open("wb") as file:
        write_cpio(file, image / "root", entries["root"])
    (image / "lists").mkdir()
    components = {}
    for name in TREES:
        place = image / "lists" / name
        place.write_bytes(listing(entries[name]))
        components[name] = component(entries[name], file_sha256(place))
    for name in FILES:
        components[name] = Component(sha256=file_sha256(image / name), files=1, bytes=(image / name).stat().st_size)

    manifest = Manifest(
        id="",
        recipe=recipe.name,
        architecture="x86_64",
        kernel=kernel,
        qemu=_qemu_facts(parts, recipe, image),
        runner_sha256=file_sha256(image / "root" / RUNNER),
        clang=_clang(parts.found),
        packages=parts.found.digest(),
        locked=locked,
        drift=drift,
        programs=tuple(programs),
        examples=examples,
        components=components,
    )
    manifest = manifest.model_copy(update={"id": manifest.computed_id()})
    (image / "manifest.json").write_bytes(pretty(manifest))
    return manifest


def component(entries: list[Entry], digest: str) -> Component:
    """What the manifest says about a tree."""
    files = [entry for entry in entries if entry.kind in "fx"]
    return Component(sha256=digest, files=len(files), bytes=sum(entry.size for entry in files))


def _kernel_facts(parts: Parts) -> KernelFacts:
    _, release, version = (parts.packages / "testbed" / "kernel").read_text().split()
    return KernelFacts(release=release, version=version, sha256=file_sha256(parts.kernel / "vmlinuz"))


def _qemu_facts(parts: Parts, recipe: Recipe, image: Path) -> QemuFacts:
    version = next(source.version for source in parts.found.sources if source.name == recipe.qemu.source)
    return QemuFacts(version=version, sha256=file_sha256(image / "qemu/usr/bin/qemu-system-x86_64"))


def _clang(packages: Packages) -> str:
    for package in packages.installed:
        if package.name.removeprefix("clang-").isdigit():
            return f"{package.name} {package.version}"
    raise Bug("the builder root has no clang")


# --- the guest -------------------------------------------------------------------------------------------------


def _guest_root(parts: Parts, recipe: Recipe, release: str, root: Path) -> list[str]:
    """Make the guest's tree; returns the programs in it."""
    for name in _GUEST_DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name, target in _GUEST_LINKS.items():
        _link(root / name, target)
    for name, text in _GUEST_FILES.items():
        _write(root / name, text)

    programs: dict[str, Path] = {}
    for wanted in recipe.guest.programs:
        file = parts.roots.find(wanted)
        if file is None:
            raise Bug(f"no package of the recipe has `{wanted}`")
        programs[PurePosixPath(wanted).name] = file
    for directory in parts.programs:
        programs |= {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    for name, file in programs.items():
        _copy(file, root / "usr/bin" / name, executable=True)
    # The example schedulers' libraries too, so that they run in the guest as they are.
    examples = sorted((parts.kernel / "examples" / "bin").iterdir())
    for place, file in parts.roots.closure([*programs.values(), *examples]).items():
        _copy(file, root / _usr(place), executable=True)
    applets = (parts.packages / "applets").read_text().split()
    for applet in applets:
        if applet not in programs:
            _link(root / "usr/bin" / applet, "busybox")

    _copy(parts.runner / "testbed-runner", root / RUNNER, executable=True)
    install_kernel(parts.kernel, recipe.kernel, release, root)
    return sorted({*programs, *applets})


def install_kernel(kernel: Path, recipe: KernelRecipe, release: str, root: Path) -> None:
    """Put what belongs to a kernel into the guest's tree.

    Args:
        kernel: directory with `config` (or without), `modules.builtin` and `modules/`.
        recipe: which modules are wanted.
        release: of the kernel.
        root: the guest's tree.

    Raises:
        Bug: a module is not there.
    """
    if (kernel / "config").is_file():
        _copy(kernel / "config", root / "boot" / f"config-{release}")
    _modules(kernel, recipe, release, root)


def _modules(kernel: Path, recipe: KernelRecipe, release: str, root: Path) -> None:
    """Copy the wanted modules and what they depend on, uncompressed, and write down the order to load them."""
    files = {_module_name(path.name): path for path in (kernel / "modules").iterdir()}
    builtin = {_module_name(PurePosixPath(line).name) for line in (kernel / "modules.builtin").read_text().split()}
    place = root / "usr/lib/modules" / release
    (place / "kernel").mkdir(parents=True)
    requires: dict[str, list[str]] = {}
    order: list[str] = []

    def add(name: str) -> None:
        if name in requires or name in builtin:
            return
        if name not in files:
            raise Bug(f"the kernel has no module `{name}`, neither loadable nor built in")
        data = _uncompressed(files[name])
        requires[name] = [_module_name(item) for item in module_facts(data).get("depends", "").split(",") if item]
        for needed in requires[name]:
            add(needed)
        file = place / "kernel" / f"{name}.ko"
        file.write_bytes(data)
        file.chmod(0o644)
        order.append(name)

    for name in recipe.modules:
        add(_module_name(name))
    _write(root / "usr/lib/testbed/modules", "".join(f"/lib/modules/{release}/kernel/{name}.ko\n" for name in order))
    for name in recipe.optional_modules:
        if _module_name(name) in files:
            add(_module_name(name))
    dependencies = "".join(
        f"kernel/{name}.ko:{''.join(f' kernel/{item}.ko' for item in _all_required(requires, name))}\n"
        for name in sorted(requires)
    )
    _write(place / "modules.dep", dependencies)
    _write(place / "modules.builtin", (kernel / "modules.builtin").read_text())


def _all_required(requires: dict[str, list[str]], name: str) -> list[str]:
    """Modules that must be there before, nearest first, as modprobe wants them."""
    found: list[str] = []
    for needed in requires[name]:
        if needed in requires:
            found += [item for item in (needed, *_all_required(requires, needed)) if item not in found]
    return found


def _module_name(file: str) -> str:
    return file.split(".ko", maxsplit=1)[0].replace("-", "_")


def _uncompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".ko":
        return data
    raise Bug(f"kernel module `{path.name}` is compressed in a way that is not known here")


# --- QEMU, examples --------------------------------------------------------------------------------------------


def _qemu_root(parts: Parts, recipe: Recipe, root: Path) -> None:
    """Make the tree of the sandbox that runs QEMU: what its build gave, firmware, libraries."""
    for name in ("dev", "proc", "run", "tmp", "usr/bin", "usr/lib64", "usr/share/qemu", *MOUNT_POINTS):
        (root / name).mkdir(parents=True)
    for name, target in {
        "bin": "usr/bin",
        "sbin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "usr/sbin": "bin",
    }.items():
        _link(root / name, target)
    for name in ("qemu-system-x86_64", "qemu-img"):
        _copy(parts.qemu / name, root / "usr/bin" / name, executable=True)
    # A guest program that measures whether the virtual CPUs really run side by side.
    _copy(parts.qemu / "timing_probe", root / "usr/share/testbed/timing_probe", executable=True)
    for name in recipe.qemu.firmware:
        file = parts.roots.find(f"/usr/share/qemu/{name}") or parts.roots.find(f"/usr/share/seabios/{name}")
        if file is None:
            raise Bug(f"no package of the recipe has the firmware `{name}`")
        _copy(file, root / "usr/share/qemu" / name)
    for wanted in recipe.qemu.programs:
        file = parts.roots.find(wanted)
        if file is None:
            raise Bug(f"no package of the recipe has `{wanted}`")
        _copy(file, root / "usr/bin" / PurePosixPath(wanted).name, executable=True)
    for place, file in parts.roots.closure(sorted((root / "usr/bin").iterdir())).items():
        _copy(file, root / _usr(place), executable=True)


def _examples(parts: Parts, directory: Path) -> dict[str, Example]:
    """The example schedulers with their libraries; returns what the manifest says about them."""
    link_tree(parts.kernel / "examples", directory)
    (directory / "lib").mkdir()
    examples = {}
    for program in sorted((directory / "bin").iterdir()):
        closure = parts.roots.closure([program])
        for place, file in closure.items():
            _copy(file, directory / "lib" / PurePosixPath(place).name, executable=True)
        sonames = sorted(PurePosixPath(place).name for place in closure)
        examples[program.name] = Example(sha256=file_sha256(program), libraries=tuple(sonames))
    return examples


def _usr(place: str) -> str:
    """Where a path of an unmerged root lies in a merged one."""
    relative = place.lstrip("/")
    return relative if relative.startswith("usr/") else f"usr/{relative}"


def _copy(source: Path, target: Path, *, executable: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    shutil.copyfile(source, target)
    target.chmod(0o755 if executable else 0o644)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
