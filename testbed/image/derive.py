# SPDX-License-Identifier: Apache-2.0
"""An image with another kernel: the same builder, QEMU, runner and programs, named by its own id like every image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from testbed.errors import HostError, UsageError
from testbed.image import given as givens
from testbed.image.assemble import component, install_kernel
from testbed.image.cache import Cache, disk_errors, remove_tree
from testbed.image.cpio import write_cpio
from testbed.image.events import Reporter
from testbed.image.given import Given, Place
from testbed.image.kernel import (
    KFUNCS,
    MAX_UNPACKED,
    KernelError,
    Types,
    declared,
    members_for,
    read_bzimage,
    types_for,
    types_of,
    unpack,
)
from testbed.image.model import FILES, TREES, Component, Derived, Image, KernelRecipe, canonical, pretty
from testbed.image.tree import file_sha256, link_file, link_tree, listing, parse_listing, scan
from testbed.report.events import Listener
from testbed.sandbox import Bind, Limits, Sandbox, probe
from testbed.verdict import KernelFacts

#: Raised by hand whenever this module makes something else of the same kernel.
FORMAT = 1

_STAGE = "kernel"
_LIMIT_S = 300.0
_MEMORY = 4 << 30
_NEWER = "vmlinux-newer.h"
"""Beside `vmlinux.h`, which includes it: what the kernel has is what is in the other one."""
_PUSH = """\
#pragma once
/* Types that this kernel lacks; the headers of sched_ext name them to ask whether a kernel has them. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

"""
_POP = "\n#pragma clang attribute pop\n"
_DEB_MAGIC = b"!<arch>\ndebian-binary"


@dataclass(frozen=True)
class Named:
    """A kernel: where it is (None: the host's own), and what is said of where it came from."""

    path: Path | None
    origin: str


def derive(
    base: Image, named: Named, cache: Cache, recipe: KernelRecipe, listener: Listener, use: Callable[[str], Image]
) -> Image:
    """The image `base` with another kernel, from the cache or made now.

    Args:
        base: whose everything else it is.
        named: the kernel.
        cache: where images are.
        recipe: modules and options that a guest's kernel needs.
        listener: is told what the kernel lacks, and that it takes a while.
        use: reads an image of the cache; HostError if it is damaged.

    Raises:
        TestbedError: the kernel can't be used, with the reason.
    """
    probe()
    with ExitStack() as stack:
        work = stack.enter_context(cache.workspace())
        tools = _Tools(base.builder, work)
        place = givens.host() if named.path is None else givens.locate(tools.unpacked(named.path))
        found = givens.read(place, recipe, tools.zstd)
        key = _key(base, found, recipe)
        reporter = Reporter(listener, cache.root / "logs" / f"{_STAGE}-{key[:12]}.log")
        stack.enter_context(cache.lock("build", shared=True))  # `prune` must not run beside it
        stack.enter_context(cache.lock(f"{_STAGE}-{key}"))
        known = cache.read_key(key)
        if known is not None:
            try:
                return _told(use(known), reporter)
            except HostError as damage:
                reporter.line(_STAGE, f"warning: {damage.message}; it is made again")
                (cache.images / known).rename(work / "damaged")
        with reporter.stage(_STAGE, f"put linux {found.header.release} into the image") as told:
            with disk_errors("the image", cache.root):
                made = _make(base, place, found, named.origin, recipe, tools, work)
                shutil.copyfile(reporter.path, work / "image" / "build.log")
                cache.publish(work / "image", cache.images / made)
                cache.write_key(key, made)
            told.summary = made[:12]
        return _told(use(made), reporter)


def btf_sha256(image: Image, cache: Cache) -> str:
    """Hash of the types of an image's kernel: of the bytes of `/sys/kernel/btf/vmlinux` where that kernel runs.

    Raises:
        HostError: the sandbox does not work.
    """
    if image.manifest.derived is not None:
        return image.manifest.derived.btf_sha256
    with cache.workspace() as work:
        payload = read_bzimage(image.kernel.read_bytes()).payload
        return _sha256(types_of(unpack(payload, _Tools(image.builder, work).zstd)).data)


def _told(image: Image, reporter: Reporter) -> Image:
    """The image; what is missing in its kernel is said each time."""
    derived = image.manifest.derived
    assert derived is not None
    lost = list(derived.lost)
    if derived.uncallable:
        lost.append(
            f"it was built with wrong types for {len(derived.uncallable)} functions of sched_ext, so that no scheduler "
            f"that calls one of them loads: {', '.join(derived.uncallable)}"
        )
    for text in lost:
        # as a stage's end, which is on the screen without `-v`
        with reporter.stage(_STAGE, f"look at linux {image.manifest.kernel.release}") as stage:
            stage.summary = f"warning: {text}"
    return image


def _key(base: Image, found: Given, recipe: KernelRecipe) -> str:
    """Hash of everything that the image will be a function of."""
    values = [
        FORMAT,
        base.id,
        canonical(recipe).decode(),
        _sha256(found.image),
        _sha256(found.config) if found.config is not None else None,
        _hashes(found),
        found.builtin,
        found.lost,
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def _make(base: Image, place: Place, found: Given, origin: str, recipe: KernelRecipe, tools: _Tools, work: Path) -> str:
    """Fill `work/image`; returns its id."""
    image, stage, release = work / "image", work / "stage", found.header.release
    try:
        vmlinux = unpack(found.header.payload, tools.zstd)
        types = types_of(vmlinux)
        header = tools.types(types.data)
    except KernelError as error:
        raise givens.refused(place, error) from error
    config = givens.config_of(found, vmlinux, recipe, place)

    image.mkdir()
    for name in TREES:
        link_tree(base.path / name, image / name)
    link_file(base.path / "packages.json", image / "packages.json")
    _new(image / "vmlinuz", found.image)
    newer, uncallable = _headers(base, image / "include", header, types)
    root = image / "root"
    remove_tree(root / "usr/lib/modules")
    (root / "usr/lib/testbed/modules").unlink()
    for old in (root / "boot").glob("config-*"):
        old.unlink()
    _lay_out(stage, found, config)
    install_kernel(stage, _those_that_are_there(recipe, found), release, root)

    components = _components(base, image)
    manifest = base.manifest.model_copy(
        update={
            "id": "",
            "kernel": KernelFacts(release=release, version=found.header.version, sha256=_sha256(found.image)),
            "components": components,
            "derived": Derived(
                base=base.id,
                origin=origin,
                btf_sha256=_sha256(types.data),
                modules=_hashes(found),
                config=config is not None,
                types=newer,
                uncallable=uncallable,
                lost=found.lost,
            ),
        }
    )
    manifest = manifest.model_copy(update={"id": manifest.computed_id()})
    (image / "manifest.json").write_bytes(pretty(manifest))
    return manifest.id


def _headers(base: Image, include: Path, header: bytes, types: Types) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write `vmlinux.h`.

    Returns:
        Names of what the kernel lacks and the image's headers can't do without; functions that nobody can call.
    """
    headers = "\n".join(path.read_text(errors="replace") for path in sorted((base.include / "scx").glob("*.h")))
    ours = base.vmlinux_h.read_text(errors="replace")
    text, members = members_for(headers, ours, header.decode("utf-8", "replace"))
    newer = types_for(headers, ours, text)
    # bpftool declares the functions that BTF tags as callable. Debian's builds of 7.2 tag only half of them, and
    # what is not tagged has an argument there of which its callers know nothing.
    uncallable = sorted((types.functions - declared(text)) & declared(ours))
    more = f"\n{KFUNCS}{' '.join(uncallable)} */\n" if uncallable else ""
    more += f'\n#include "{_NEWER}"\n' if newer else ""
    _new(include / "vmlinux.h", (text + more).encode())
    if newer:
        _new(include / _NEWER, (_PUSH + "\n".join(newer.values()) + _POP).encode())
    return (*newer, *members), tuple(uncallable)


def _lay_out(stage: Path, found: Given, config: bytes | None) -> None:
    """The kernel's files as the image's own build has them."""
    (stage / "modules").mkdir(parents=True)
    for name, data in found.modules.items():
        (stage / "modules" / f"{name}.ko").write_bytes(data)
    (stage / "modules.builtin").write_text(found.builtin)
    if config is not None:
        (stage / "config").write_bytes(config)


def _those_that_are_there(recipe: KernelRecipe, found: Given) -> KernelRecipe:
    """The recipe without modules that are built in, or that the kernel lacks."""

    def there(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name.replace("-", "_") in found.modules)

    return recipe.model_copy(
        update={"modules": there(recipe.modules), "optional_modules": there(recipe.optional_modules)}
    )


def _components(base: Image, image: Path) -> dict[str, Component]:
    """Listings and hashes; trees that are the base's keep theirs."""
    (image / "lists").mkdir()
    components = {}
    for name in TREES:
        place = image / "lists" / name
        if name in ("include", "root"):
            entries = scan(image / name)
            place.write_bytes(listing(entries))
            if name == "root":
                with (image / "initramfs.cpio").open("wb") as file:
                    write_cpio(file, image / "root", entries)
        else:
            link_file(base.path / "lists" / name, place)
            entries = parse_listing(place.read_text())
        components[name] = component(entries, file_sha256(place))
    for name in FILES:
        components[name] = Component(sha256=file_sha256(image / name), files=1, bytes=(image / name).stat().st_size)
    return components


def _new(path: Path, data: bytes) -> None:
    """Write a file whose name may be the second one of a file of the base."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hashes(found: Given) -> dict[str, str]:
    return {name: _sha256(data) for name, data in sorted(found.modules.items())}


@dataclass(frozen=True)
class _Tools:
    """Programs of the builder root that read what a stranger made, in a sandbox."""

    builder: Path
    work: Path

    def _sandbox(self, output_bytes: int) -> Sandbox:
        limits = Limits(wall_s=_LIMIT_S, output_bytes=output_bytes, memory_bytes=_MEMORY)
        return Sandbox(root=self.builder, limits=limits)

    def zstd(self, data: bytes) -> bytes:
        """Unpack.

        Raises:
            KernelError: it is damaged or too large.
        """
        result = self._sandbox(MAX_UNPACKED).run(["zstd", "-qdc"], stdin=data)
        if not result.ok or result.lost:
            raise KernelError(f"zstd can't unpack it: {_last(result.stderr) or 'too large'}")
        return result.stdout

    def types(self, btf: bytes) -> bytes:
        """BTF as C: `vmlinux.h`.

        Raises:
            KernelError: bpftool can't read it.
        """
        file = self.work / "btf"
        file.write_bytes(btf)
        sandbox = self._sandbox(1 << 28)
        sandbox = replace(sandbox, read_only=(Bind(file, "/tmp/btf"),))
        result = sandbox.run(["bpftool", "btf", "dump", "file", "/tmp/btf", "format", "c"])
        if not result.ok or result.lost:
            raise KernelError(f"bpftool can't print its types: {_last(result.stderr)}")
        return result.stdout

    def unpacked(self, path: Path) -> Path:
        """A directory or a kernel's file as it is; Debian packages (one, or a directory of them) unpacked.

        Raises:
            UsageError: there is nothing, or a package is damaged.
        """
        packages = sorted(path.glob("*.deb")) if path.is_dir() else [path] if _is_package(path) else []
        if not packages:
            if not os.path.lexists(path):
                raise UsageError(
                    f"`{path}` does not exist", hint="--kernel takes image, host, debian:VERSION or a path"
                )
            return path
        out = self.work / "packages"
        out.mkdir()
        unpack_packages(self.builder, packages, out)
        return out


def unpack_packages(root: Path, packages: Sequence[Path], out: Path) -> None:
    """Unpack Debian packages over each other, in a sandbox; links are left out.

    Args:
        root: with dpkg-deb.
        packages: files.
        out: an empty directory.

    Raises:
        UsageError: one is damaged.
    """
    for package in packages:
        sandbox = Sandbox(
            root=root,
            read_only=(Bind(package, "/tmp/package.deb"),),
            writable=(Bind(out, "/out"),),
            limits=Limits(wall_s=_LIMIT_S, memory_bytes=_MEMORY),
        )
        result = sandbox.run(["dpkg-deb", "-x", "/tmp/package.deb", "/out"])
        if not result.ok:
            raise UsageError(f"the package `{package}` can't be unpacked: {_last(result.stderr)}")
    # A stranger's links may lead anywhere; a kernel needs none.
    for folder, folders, files in os.walk(out):
        for name in (*folders, *files):
            place = Path(folder, name)
            if place.is_symlink():
                place.unlink()


def _is_package(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(_DEB_MAGIC)) == _DEB_MAGIC
    except OSError:
        return False


def _last(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
