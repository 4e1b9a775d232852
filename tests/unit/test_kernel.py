# SPDX-License-Identifier: Apache-2.0
"""Kernels that somebody names: read, refused with the reason, put into an image of their own."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import image as images
from testbed.build.hints import names_of
from testbed.cli import main
from testbed.errors import ExitCode, HostError, TestbedError, UsageError
from testbed.image import Image, derive, given
from testbed.image.assemble import component
from testbed.image.cache import Cache
from testbed.image.kernel import (
    KFUNCS,
    KernelError,
    config_inside,
    declared,
    members_for,
    module_facts,
    read_bzimage,
    types_for,
    types_of,
    unpack,
    unpack_stream,
)
from testbed.image.kernels import Fetched
from testbed.image.model import FILES, TREES, Component, Manifest, Packages, QemuFacts, pretty
from testbed.image.recipe import Sources
from testbed.image.tree import file_sha256, listing, scan
from testbed.verdict import KernelFacts
from tests.unit.kernel_maker import CONFIG, MODULES, RELEASE, btf, bzimage, directory, elf, module, put

RECIPE = Sources.load().recipe.kernel
VMLINUX = elf({".BTF": btf("task_struct", "sched_ext_ops")})


def no_zstd(data: bytes) -> bytes:
    """Nothing here is packed by zstd."""
    raise AssertionError("zstd was not to be asked")


def read(path: Path) -> given.Given:
    return given.read(given.locate(path), RECIPE, no_zstd)


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_bzimage_says_its_release_and_version_and_has_a_vmlinux() -> None:
    found = read_bzimage(bzimage(VMLINUX))
    assert found.release == RELEASE
    assert found.version == "#1 SMP PREEMPT_DYNAMIC Thu Jan 1 00:00:00 UTC 2026"
    assert unpack(found.payload, no_zstd) == VMLINUX
    assert types_of(VMLINUX).data == btf("task_struct", "sched_ext_ops")


def test_debian_says_the_package_version_in_the_banner() -> None:
    banner = "6.17.13+deb13-cloud-amd64 (a@b) #1 SMP PREEMPT_DYNAMIC Debian 6.17.13-1~bpo13+1 (2026-01-01)"
    found = read_bzimage(bzimage(VMLINUX, banner=banner))
    assert (found.release, found.version) == ("6.17.13+deb13-cloud-amd64", "6.17.13-1~bpo13+1")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no bzImage: 0 bytes"),
        (b"#!/bin/sh\n" * 200, "without the header of one"),
        (VMLINUX + bytes(1024), "it is an ELF file"),
        (bytes(56) + b"ARM\x64" + bytes(1024), "for arm64"),
        (b"MZ\0\0zimg" + bytes(1024), "EFI image"),
        (gzip.compress(bytes(64)) + bytes(1024), "packed by gzip"),
        (bzimage(VMLINUX, flags=0), "32-bit x86"),
        (bzimage(VMLINUX)[:-1], "cut off"),
        (bzimage(VMLINUX, banner="../../etc #1"), "which release"),
        (bzimage(VMLINUX, banner=""), "which release"),
    ],
)
def test_another_file_is_refused_with_what_it_is(data: bytes, why: str) -> None:
    with pytest.raises(KernelError, match=why):
        read_bzimage(data)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_the_payload_is_unpacked_by_its_format(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(VMLINUX)
    assert unpack(packed + b"\x10\0\0\0", no_zstd) == VMLINUX
    with pytest.raises(KernelError, match="can't be unpacked"):
        unpack_stream(packed[:-9])
    with pytest.raises(KernelError, match="can't be unpacked"):
        unpack_stream(packed[:20] + bytes(60))


def test_zstd_gets_the_payload_without_the_size_behind_it() -> None:
    assert unpack(b"\x28\xb5\x2f\xfdpacked\1\2\3\4", lambda data: data[4:]) == b"packed"


@pytest.mark.parametrize("head", [b"\x02\x21\x4c\x18", b"\x89LZO", b"nothing"])
def test_formats_that_are_not_read_are_named(head: bytes) -> None:
    with pytest.raises(KernelError, match=r"LZ4 or LZO|not known here"):
        unpack(head + bytes(32), no_zstd)


@pytest.mark.parametrize(
    ("vmlinux", "why"),
    [
        (elf({".text": b"x"}), "no BTF"),
        (elf({".BTF": btf("task_struct")}), "no sched_ext"),
        (elf({".BTF": b"\x9f\xeb\0sched_ext_ops\0"}), "damaged"),
        (VMLINUX[:-70], "damaged"),
        (b"nothing", "damaged"),
    ],
)
def test_a_vmlinux_without_the_types_of_sched_ext_is_refused(vmlinux: bytes, why: str) -> None:
    with pytest.raises(KernelError, match=why):
        types_of(vmlinux)


def test_a_name_alone_is_no_type() -> None:
    with pytest.raises(KernelError, match="no sched_ext"):
        types_of(elf({".BTF": btf("other", words="sched_ext_ops")}))


def test_the_functions_of_sched_ext_are_known_by_their_names() -> None:
    functions = ("scx_bpf_kick_cpu", "__scx_bpf_select_cpu_and", "scx_enable", "schedule")
    found = types_of(elf({".BTF": btf("sched_ext_ops", functions=functions)}))
    assert found.functions == {"scx_bpf_kick_cpu", "__scx_bpf_select_cpu_and"}


def test_declared_functions_are_those_with_and_without_arguments() -> None:
    text = f"extern void scx_bpf_a(int x) __weak __ksym;\nextern int other;\n{KFUNCS}scx_bpf_b scx_bpf_c */\n"
    assert declared(text) == {"scx_bpf_a", "scx_bpf_b", "scx_bpf_c"}


def test_the_configuration_inside_of_a_kernel_is_found() -> None:
    assert config_inside(b"xxIKCFG_ST" + gzip.compress(CONFIG) + b"IKCFG_EDxx") == CONFIG
    assert config_inside(b"IKCFG_ST nonsense IKCFG_ED") is None
    assert config_inside(VMLINUX) is None


def test_what_is_no_module_says_so() -> None:
    assert module_facts(module("a", "b,c"))["depends"] == "b,c"
    for data in (b"", b"nothing", elf({".text": b""}), module("a")[:-80]):
        with pytest.raises(KernelError):
            module_facts(data)


def test_types_that_headers_name_and_a_kernel_lacks_come_with_what_they_hold() -> None:
    ours = (
        "struct a {\n\tint x;\n};\n\nstruct inner {\n\tint y;\n};\n\n"
        "struct newer {\n\tstruct inner *i;\n\tstruct newer *next;\n\tstruct a a;\n};\n\nenum unused {\n\tU = 0,\n};\n"
    )
    theirs = "struct a {\n\tint x;\n};\n"
    found = types_for("void f(struct newer *n, struct a *a, struct nobody *x);", ours, theirs)
    assert list(found) == ["inner", "newer"]
    assert found["inner"] == "struct inner {\n\tint y;\n};\n"
    assert types_for("struct a *a;", ours, theirs) == {}


def test_members_that_headers_ask_for_are_added_where_a_kernel_lacks_them() -> None:
    headers = "if (bpf_core_field_exists((__ei)->cpu)) x; bpf_core_field_exists(p->other)"
    ours = "struct scx_exit_info {\n\tint kind;\n\ts32 cpu;\n};\n\nstruct task_struct {\n\tint other;\n};\n"
    theirs = "struct task_struct {\n\tint x;\n};\n\nstruct scx_exit_info {\n\tint kind;\n};\n"
    text, added = members_for(headers, ours, theirs)
    assert added == ("scx_exit_info.cpu",)
    assert text == theirs.replace("kind;\n", "kind;\n\ts32 cpu;\n")
    assert members_for(headers, ours, ours) == (ours, ())


# --- where it is ---------------------------------------------------------------------------------------------------


def test_a_directory_with_a_kernel_is_read_whole(tmp_path: Path) -> None:
    found = read(directory(tmp_path))
    assert (found.header.release, found.config, found.lost) == (RELEASE, CONFIG, ())
    assert sorted(found.modules) == ["i6300esb", "overlay", "qemu_fw_cfg", "watchdog"]
    assert found.modules["qemu_fw_cfg"] == module("qemu_fw_cfg")


def test_the_file_alone_finds_what_lies_around_it(tmp_path: Path) -> None:
    directory(tmp_path)
    assert sorted(read(tmp_path / f"boot/vmlinuz-{RELEASE}").modules) == sorted(name for name, _ in MODULES)
    moved = tmp_path / "lib/modules" / RELEASE / "vmlinuz"
    (tmp_path / f"boot/vmlinuz-{RELEASE}").rename(moved)
    assert read(moved).config == CONFIG
    assert sorted(read(tmp_path).modules) == sorted(name for name, _ in MODULES)


def test_a_tree_that_a_kernel_was_built_in_has_everything(tmp_path: Path) -> None:
    kernel = put(tmp_path / "arch/x86/boot/bzImage", bzimage(VMLINUX))
    put(tmp_path / ".config", CONFIG)
    put(tmp_path / "modules.order", "")
    put(tmp_path / "modules.builtin", "kernel/drivers/watchdog/watchdog.ko\nkernel/drivers/watchdog/i6300esb.ko\n")
    put(tmp_path / "drivers/firmware/qemu_fw_cfg.ko", module("qemu_fw_cfg"))
    for path in (tmp_path, kernel):
        found = read(path)
        assert (found.config, sorted(found.modules)) == (CONFIG, ["qemu_fw_cfg"])
        assert found.lost == ("it has no `overlay`: workloads can't mount an overlay",)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_modules_are_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    directory(tmp_path)
    for file in sorted(tmp_path.glob("**/*.ko")):
        suffix = ".gz" if pack is gzip.compress else ".xz"
        put(file.with_name(file.name + suffix), pack(file.read_bytes()))
        file.unlink()
    assert read(tmp_path).modules["i6300esb"] == module("i6300esb", "watchdog")


def test_a_kernel_with_everything_built_in_needs_no_modules(tmp_path: Path) -> None:
    put(tmp_path / "config", CONFIG + b"CONFIG_I6300ESB_WDT=y\nCONFIG_FW_CFG_SYSFS=y\nCONFIG_OVERLAY_FS=y\n")
    found = read(put(tmp_path / "vmlinuz", bzimage(VMLINUX)))
    assert (found.modules, found.lost) == ({}, ())


def test_what_is_lost_without_a_module_is_said(tmp_path: Path) -> None:
    found = read(directory(tmp_path, modules=MODULES[:2]))
    assert found.lost == (
        "it has no `qemu_fw_cfg`: crash and drgn get no vmcoreinfo from a dump",
        "it has no `overlay`: workloads can't mount an overlay",
    )


def test_without_the_watchdog_there_is_no_guest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has no `i6300esb`, the watchdog") as error:
        read(directory(tmp_path, modules=MODULES[2:]))
    assert "CONFIG_I6300ESB_WDT=y" in error.value.hint
    with pytest.raises(UsageError, match="it has no `watchdog`, which `i6300esb` needs"):
        read(directory(tmp_path / "2", modules=MODULES[:1]))
    with pytest.raises(UsageError, match=f"no modules of {RELEASE} were found beside it"):
        read(put(tmp_path / "3" / "vmlinuz", bzimage(VMLINUX)))


def test_modules_of_another_kernel_are_refused(tmp_path: Path) -> None:
    directory(tmp_path)
    put(tmp_path / "lib/modules" / RELEASE / "kernel/drivers/i6300esb.ko", module("i6300esb", "", "1.2.3"))
    with pytest.raises(UsageError, match=f"of another kernel: 1.2.3, expected {RELEASE}"):
        read(tmp_path)


def test_a_damaged_module_is_named(tmp_path: Path) -> None:
    directory(tmp_path)
    put(tmp_path / "lib/modules" / RELEASE / "kernel/drivers/watchdog.ko", b"\x7fELF")
    with pytest.raises(UsageError, match=r"module `.*/watchdog.ko` can't be used: ELF file of 4 bytes"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (b"CONFIG_SCHED_CLASS_EXT=y", "no sched_ext: CONFIG_SCHED_CLASS_EXT is not set"),
        (b"CONFIG_DEBUG_INFO_BTF=y", "lacks CONFIG_DEBUG_INFO_BTF=y"),
        (b"CONFIG_BLK_DEV_INITRD=y", "lacks CONFIG_BLK_DEV_INITRD=y"),
    ],
)
def test_a_configuration_that_can_not_be_is_refused(tmp_path: Path, missing: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read(directory(tmp_path, config=CONFIG.replace(missing, b"# nothing")))


def test_a_file_that_is_no_configuration_never_reaches_a_guest(tmp_path: Path) -> None:
    directory(tmp_path, config=b"root:secret\nCONFIG_SCHED_CLASS_EXT=y\n")
    assert read(tmp_path).config is None


def test_no_kernel_and_two_kernels_are_for_the_user_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no kernel in it"):
        given.locate(tmp_path)
    directory(tmp_path)
    (tmp_path / "vmlinuz").symlink_to(f"boot/vmlinuz-{RELEASE}")
    assert given.locate(tmp_path).kernel == tmp_path / "vmlinuz"  # two names of one
    put(tmp_path / "lib/modules" / RELEASE / "vmlinuz", (tmp_path / "vmlinuz").read_bytes())
    assert given.locate(tmp_path).kernel == tmp_path / "vmlinuz"  # and a copy, as Fedora has it
    put(tmp_path / "bzImage", bzimage(VMLINUX))
    with pytest.raises(UsageError, match="has 2 kernels: `vmlinuz`, `bzImage`"):
        given.locate(tmp_path)


def test_the_kernel_of_the_host_is_where_distributions_have_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"no `/boot/vmlinuz-{RELEASE}`"):
        given.host(tmp_path, RELEASE)
    directory(tmp_path, config=CONFIG.replace(b"CONFIG_SCHED_CLASS_EXT=y", b""))
    with pytest.raises(HostError, match="no sched_ext"):
        given.read(given.host(tmp_path, RELEASE), RECIPE, no_zstd)


def test_a_kernel_that_only_root_may_read_tells_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = given.host(directory(tmp_path), RELEASE)

    def refuse(path: object, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("testbed.image.given.os.open", refuse)
    with pytest.raises(HostError, match="can't be read by this user") as error:
        given.read(place, RECIPE, no_zstd)
    assert f"chmod a+r {place.kernel}" in error.value.hint


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no file"):
        read(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "missing")


# --- the image -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """A small image in a cache of its own."""

    base: Image
    cache: Cache
    said: list[str]

    def derive(self, path: Path) -> Image:
        def use(image_id: str) -> Image:
            return images.load(image_id)

        named = derive.Named(path, str(path))
        return derive.derive(self.base, named, self.cache, RECIPE, lambda event: self.said.append(str(event)), use)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("testbed.image.derive.probe", lambda: None)
    header = b"struct sched_ext_ops {\n\tint x;\n};\n"
    monkeypatch.setattr("testbed.image.derive._Tools.types", lambda tools, types: header)
    cache, place = Cache.open(), tmp_path / "base"
    for name, text in {
        "builder/usr/bin/clang": "clang",
        "examples/bin/scx_simple": "example",
        "include/vmlinux.h": "struct sched_ext_ops {\n\tint y;\n};\n\nstruct scx_new {\n\tint z;\n};\n"
        "extern void scx_bpf_kick_cpu(int cpu) __weak __ksym;\n",
        "include/scx/common.bpf.h": "static void f(struct scx_new *n);",
        "qemu/usr/bin/qemu-system-x86_64": "qemu",
        "root/testbed/runner": "runner",
        "root/boot/config-1.2.3": "CONFIG_OLD=y",
        "root/usr/lib/modules/1.2.3/kernel/i6300esb.ko": "old",
        "root/usr/lib/testbed/modules": "/lib/modules/1.2.3/kernel/i6300esb.ko\n",
        "vmlinuz": "old kernel",
        "initramfs.cpio": "old root",
    }.items():
        put(place / name, text)
    packages = Packages(recipe="small", kernel="1.2.3", installed=(), downloaded=(), sources=())
    put(place / "packages.json", pretty(packages))
    (place / "lists").mkdir()
    components = {}
    for name in TREES:
        entries = scan(place / name)
        put(place / "lists" / name, listing(entries))
        components[name] = component(entries, file_sha256(place / "lists" / name))
    for name in FILES:
        components[name] = Component(sha256=file_sha256(place / name), files=1, bytes=(place / name).stat().st_size)
    manifest = Manifest(
        id="",
        recipe="small",
        architecture="x86_64",
        kernel=KernelFacts(release="1.2.3", version="1.2.3-1", sha256=components["vmlinuz"].sha256),
        qemu=QemuFacts(version="10", sha256=file_sha256(place / "qemu/usr/bin/qemu-system-x86_64")),
        runner_sha256="r",
        clang="clang-22",
        packages=packages.digest(),
        locked=True,
        programs=("sh",),
        examples={},
        components=components,
    )
    manifest = manifest.model_copy(update={"id": manifest.computed_id()})
    put(place / "manifest.json", pretty(manifest))
    cache.publish(place, cache.images / manifest.id)
    return Bench(images.load(manifest.id), cache, [])


def test_an_image_with_another_kernel_is_a_whole_image_of_its_own(bench: Bench, tmp_path: Path) -> None:
    made = bench.derive(directory(tmp_path / "kernel"))
    images.verify(made)
    images.verify(bench.base)  # they share files, and nothing of the base was written
    manifest = made.manifest
    assert made.id != bench.base.id
    assert (manifest.kernel.release, manifest.kernel.sha256) == (
        RELEASE,
        hashlib.sha256((tmp_path / f"kernel/boot/vmlinuz-{RELEASE}").read_bytes()).hexdigest(),
    )
    assert manifest.derived is not None
    assert (manifest.derived.base, manifest.derived.origin) == (bench.base.id, str(tmp_path / "kernel"))
    assert manifest.derived.btf_sha256 == hashlib.sha256(btf("sched_ext_ops")).hexdigest()
    assert (manifest.derived.types, manifest.derived.config) == (("scx_new",), True)
    assert (manifest.qemu, manifest.runner_sha256) == (bench.base.manifest.qemu, bench.base.manifest.runner_sha256)
    assert (made.root / "usr/lib/testbed/modules").read_text().split() == [
        f"/lib/modules/{RELEASE}/kernel/{name}.ko" for name in ("watchdog", "i6300esb", "qemu_fw_cfg")
    ]
    assert sorted(path.name for path in (made.root / "usr/lib/modules").iterdir()) == [RELEASE]
    assert (made.config.read_bytes(), list((made.root / "boot").iterdir())) == (CONFIG, [made.config])
    assert made.vmlinux_h.read_text().endswith('#include "vmlinux-newer.h"\n')
    assert "struct scx_new {" in (made.include / "vmlinux-newer.h").read_text()


def test_functions_that_bpftool_does_not_declare_are_there_by_name(bench: Bench, tmp_path: Path) -> None:
    vmlinux = elf({".BTF": btf("sched_ext_ops", functions=("scx_bpf_kick_cpu", "scx_bpf_now"))})
    made = bench.derive(directory(tmp_path, vmlinux=vmlinux))
    assert names_of(made.vmlinux_h, made.include, made.include / "bpf").kfuncs == {"scx_bpf_kick_cpu"}
    # `scx_bpf_now` is no function of the kernel that the headers are of, and may be an inner one
    assert made.manifest.derived is not None and made.manifest.derived.uncallable == ("scx_bpf_kick_cpu",)
    bench.derive(tmp_path)
    told = [line for line in bench.said if "no scheduler that calls one of them loads: scx_bpf_kick_cpu" in line]
    assert len(told) == 2, "each time that it is used"


def test_the_same_kernel_is_the_same_image_wherever_it_lies(bench: Bench, tmp_path: Path) -> None:
    made = bench.derive(directory(tmp_path / "a"))
    said = len(bench.said)
    assert bench.derive(directory(tmp_path / "b")).id == made.id
    assert len(bench.said) == said  # nothing was made
    other = directory(tmp_path / "c", config=CONFIG + b"CONFIG_OTHER=y\n")
    assert bench.derive(other).id != made.id


def test_a_damaged_image_is_made_again(bench: Bench, tmp_path: Path) -> None:
    made = bench.derive(directory(tmp_path / "kernel"))
    (made.path / "vmlinuz").write_bytes(b"evil")
    again = bench.derive(tmp_path / "kernel")
    assert again.id == made.id
    images.verify(again)
    assert any("is damaged: `vmlinuz`" in line for line in bench.said)


@pytest.mark.parametrize(
    "vmlinux", [elf({".text": b"x"}), elf({".BTF": btf("task_struct")})], ids=["no types", "no sched_ext"]
)
def test_a_kernel_that_can_not_be_used_leaves_nothing(bench: Bench, tmp_path: Path, vmlinux: bytes) -> None:
    with pytest.raises(TestbedError, match="can't be used: it has no"):
        bench.derive(directory(tmp_path / "kernel", vmlinux=vmlinux))
    assert list(bench.cache.tmp.iterdir()) == []
    assert [path.name for path in bench.cache.images.iterdir()] == [bench.base.id]


def test_a_kernel_without_a_configuration_lacks_an_option_only_if_it_says_so(bench: Bench, tmp_path: Path) -> None:
    inside = VMLINUX + b"IKCFG_ST" + gzip.compress(CONFIG.replace(b"CONFIG_BPF_JIT=y\n", b"")) + b"IKCFG_ED"
    with pytest.raises(UsageError, match="lacks CONFIG_BPF_JIT=y"):
        bench.derive(directory(tmp_path / "1", config=None, vmlinux=inside))
    made = bench.derive(directory(tmp_path / "2", config=None))
    assert made.manifest.derived is not None
    assert not made.manifest.derived.config
    assert not made.config.exists()


def test_an_image_with_another_kernel_can_be_exported_and_comes_back(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench.derive(directory(tmp_path / "kernel"))
    images.export(made, tmp_path / "image.tar")
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "other"))
    assert images.import_(tmp_path / "image.tar").manifest == made.manifest


def test_an_image_of_the_recipe_has_the_manifest_that_it_always_had(bench: Bench) -> None:
    text = (bench.base.path / "manifest.json").read_text()
    assert "derived" not in text
    assert Manifest.model_validate_json(text).computed_id() == bench.base.id


def test_words_for_kernels_mean_what_the_help_says(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ensure", lambda listener: bench.base)
    assert images.with_kernel(None) == images.with_kernel("image") == bench.base
    place = directory(tmp_path / "kernel")
    made = images.with_kernel(str(place))
    monkeypatch.setattr(given, "host", lambda: given.locate(place))
    assert images.with_kernel("host") == made
    with pytest.raises(UsageError, match=r"no packaged kernel `9\.8` is here") as error:
        images.with_kernel("debian:9.8")
    assert error.value.hint == "testbed image kernel 9.8"
    put(
        bench.cache.root / "kernels" / RELEASE / "kernel.json",
        pretty(Fetched(release=RELEASE, version="1-1", suite="trixie", packages=())),
    )
    place.rename(bench.cache.root / "kernels" / RELEASE / "tree")
    assert images.with_kernel("debian:9.8") == made
    assert [images.is_path(word) for word in ("image", "host", "debian:9.8", "./host", "x")] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("verb", ["run", "build", "lint"])
def test_a_kernel_that_is_not_there_is_a_usage_error_of_every_verb(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    monkeypatch.setattr(images, "ensure", lambda listener: bench.base)
    candidate = put(tmp_path / "a.bpf.c", "int a;\n")
    assert main([verb, str(candidate), "--kernel", str(tmp_path / "none")]) == ExitCode.USAGE
    assert "none` does not exist" in capsys.readouterr().err


def test_what_is_not_there_is_a_usage_error(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        bench.derive(tmp_path / "missing")
