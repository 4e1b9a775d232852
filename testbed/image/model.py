# SPDX-License-Identifier: Apache-2.0
"""The values of an image: recipe, lock, packages, manifest, and the image itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from testbed.spec import Model
from testbed.verdict import KernelFacts

SCHEMA = "testbed.image/1"

#: Trees of an image, each with a listing of its own.
TREES = ("builder", "examples", "include", "qemu", "root")
#: Single files of an image.
FILES = ("initramfs.cpio", "packages.json", "vmlinuz")
#: Files that are hashed each time an image is used.
KEY_FILES = ("initramfs.cpio", "packages.json", "vmlinuz", "qemu/usr/bin/qemu-system-x86_64")


class DebianRecipe(Model):
    """Which Debian."""

    suite: str
    backports: tuple[str, ...] = ()
    source_date_epoch: int


class KernelRecipe(Model):
    """Which kernel, and what of it the guest gets."""

    flavour: str
    options: tuple[str, ...]
    modules: tuple[str, ...]
    optional_modules: tuple[str, ...] = ()


class BuilderRecipe(Model):
    """What is installed into the builder root."""

    install: tuple[str, ...]


class GuestRecipe(Model):
    """What the guest's tree is made of."""

    packages: tuple[str, ...]
    programs: tuple[str, ...]


class QemuRecipe(Model):
    """What QEMU's tree is made of."""

    source: str
    packages: tuple[str, ...]
    programs: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()


class Recipe(Model):
    """`vm_images/image.toml`."""

    schema_: Literal["testbed.recipe/1"] = Field(alias="schema")
    name: str
    debian: DebianRecipe
    kernel: KernelRecipe
    builder: BuilderRecipe
    guest: GuestRecipe
    qemu: QemuRecipe


class Package(Model):
    """One Debian package, exactly."""

    name: str
    version: str
    architecture: str
    sha256: str


class SourceFile(Model):
    """One file of a Debian source package."""

    name: str
    sha256: str


class SourcePackage(Model):
    """One Debian source package, exactly."""

    name: str
    version: str
    files: tuple[SourceFile, ...]


class Packages(Model):
    """Everything that an image is made of: vm_images/lock.json, and packages.json of an image."""

    schema_: Literal["testbed.lock/1"] = Field(default="testbed.lock/1", alias="schema")
    recipe: str
    kernel: str = Field(description="release without flavour and architecture, e.g. `7.3.4+deb13`")
    installed: tuple[Package, ...]
    downloaded: tuple[Package, ...]
    sources: tuple[SourcePackage, ...]

    def digest(self) -> str:
        """Hash of the whole list."""
        return hashlib.sha256(canonical(self)).hexdigest()

    def used_by(self, stage: str) -> str:
        """Hash of the packages that a stage of the build uses: the builder root, and QEMU's source or the kernel."""
        kernel = [package for package in self.downloaded if package.name.startswith("linux-")]
        own = self.sources if stage == "qemu" else kernel
        values = [canonical(item).decode() for item in (*self.installed, *own)]
        return hashlib.sha256("\n".join(values).encode()).hexdigest()


class Drift(Model):
    """A package that differs from the lock; None where it is missing on one side."""

    name: str
    locked: str | None
    found: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.found or 'is missing'} (locked: {self.locked or 'none'})"


class Component(Model):
    """One part of an image."""

    sha256: str = Field(description="of the file, or of its listing in `lists/`")
    files: int
    bytes: int


class QemuFacts(Model):
    """The QEMU of the image."""

    version: str
    sha256: str


class Example(Model):
    """One of the kernel's example schedulers."""

    sha256: str
    libraries: tuple[str, ...] = Field(description="sonames; the files are in `examples/lib`, also in the guest")


class Derived(Model):
    """What an image with another kernel than its recipe's was made of."""

    base: str = Field(description="id of the image that all but the kernel is of: headers and examples too")
    origin: str = Field(description="where the kernel came from, for people; no part of the identity")
    btf_sha256: str = Field(description="of the kernel's types, the bytes of /sys/kernel/btf/vmlinux")
    modules: dict[str, str] = Field(description="modules of the guest, unpacked: name → sha256")
    config: bool = Field(description="the kernel's configuration was found")
    types: tuple[str, ...] = Field(
        default=(), description="types and members that the kernel lacks and the headers name"
    )
    uncallable: tuple[str, ...] = Field(
        default=(), description="functions of sched_ext that no scheduler can call: BTF describes them wrongly"
    )
    lost: tuple[str, ...] = Field(default=(), description="what the guest can't do for want of a module")


class Manifest(Model):
    """`manifest.json` of an image (`testbed.image/1`)."""

    schema_: Literal["testbed.image/1"] = Field(default="testbed.image/1", alias="schema")
    id: str = Field(description="hash of everything in here but `id`, `locked`, `drift` and `derived.origin`")
    recipe: str
    architecture: str
    kernel: KernelFacts
    qemu: QemuFacts
    runner_sha256: str
    clang: str
    packages: str = Field(description="digest of packages.json")
    locked: bool = Field(description="the packages are exactly those of the lock file")
    drift: tuple[Drift, ...] = ()
    programs: tuple[str, ...] = Field(description="programs of the guest, as paths in it")
    examples: dict[str, Example]
    components: dict[str, Component]
    derived: Derived | None = Field(default=None, description="of an image with another kernel; else left out")

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `derived` where there is nothing, so that images keep the ids that they had before there was one."""
        data: dict[str, Any] = handler(self)
        if self.derived is None:
            data.pop("derived", None)
        return data

    def computed_id(self) -> str:
        """What `id` has to be."""
        # Where a kernel came from says nothing about what it is.
        left_out: dict[str, Any] = {"id": True, "locked": True, "drift": True, "derived": {"origin"}}
        data = self.model_dump(by_alias=True, mode="json", exclude=left_out)
        return hashlib.sha256(canonical(data)).hexdigest()


@dataclass(frozen=True)
class Image:
    """An image on disk. Everything below `path` is read-only for everybody."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Hash that names the image."""
        return self.manifest.id

    @property
    def kernel(self) -> Path:
        """The guest's kernel (bzImage)."""
        return self.path / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The guest's root as a newc archive."""
        return self.path / "initramfs.cpio"

    @property
    def root(self) -> Path:
        """The guest's root as a directory, the same content."""
        return self.path / "root"

    @property
    def qemu(self) -> Path:
        """Root directory for the sandbox that runs QEMU."""
        return self.path / "qemu"

    @property
    def builder(self) -> Path:
        """Root directory for the sandbox that compiles."""
        return self.path / "builder"

    @property
    def include(self) -> Path:
        """Headers for schedulers: scx/, bpf/, bpf-compat/, uapi/, vmlinux.h."""
        return self.path / "include"

    @property
    def vmlinux_h(self) -> Path:
        """Types of the guest's kernel."""
        return self.path / "include" / "vmlinux.h"

    @property
    def config(self) -> Path:
        """Configuration of the guest's kernel."""
        return self.root / "boot" / f"config-{self.manifest.kernel.release}"

    @property
    def examples(self) -> Path:
        """The kernel's example schedulers: bin/, lib/, obj/, src/; and selftests/, sources of those in its tests."""
        return self.path / "examples"

    @property
    def log(self) -> Path:
        """What the build said; no part of the identity."""
        return self.path / "build.log"


def canonical(value: BaseModel | dict[str, Any]) -> bytes:
    """JSON with one way to write a value, for hashing."""
    data = value.model_dump(by_alias=True, mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def pretty(value: BaseModel) -> bytes:
    """JSON for a file that people look at; stable too."""
    text = json.dumps(value.model_dump(by_alias=True, mode="json"), indent=1, sort_keys=True)
    return text.encode() + b"\n"
