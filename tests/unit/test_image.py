# SPDX-License-Identifier: Apache-2.0
"""Images: put together from stages, named by their content, moved as a file, checked when used."""

from __future__ import annotations

import hashlib
import inspect
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import image as images
from testbed.cli import main
from testbed.errors import ExitCode, HostError, TestbedError, UsageError
from testbed.image import Image
from testbed.image.assemble import Parts, assemble
from testbed.image.builder import Builder
from testbed.image.cache import Cache
from testbed.image.elf import Roots, dependencies, resolve
from testbed.image.model import Drift, Package, Packages, SourceFile, SourcePackage, pretty
from testbed.image.recipe import Sources
from testbed.image.tree import listing, scan

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to make a small program")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dynamic program."""
    place = tmp_path_factory.mktemp("program")
    (place / "p.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-o", place / "p", place / "p.c"], check=True)
    return place / "p"


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], bytes]:
    """Makes something that looks like a kernel module."""

    def make(name: str, depends: str) -> bytes:
        place = tmp_path_factory.mktemp("module")
        text = f'__attribute__((section(".modinfo"))) char info[] = "name={name}\\0depends={depends}";\n'
        (place / "m.c").write_text(text)
        subprocess.run(["gcc", "-c", "-o", place / "m.o", place / "m.c"], check=True)
        return (place / "m.o").read_bytes()

    return make


def _put(path: Path, data: bytes | str = b"x", mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)


def make_parts(place: Path, program: Path, module: Callable[[str, str], bytes]) -> Parts:
    """Stages as a build leaves them, with small things in the place of large ones."""
    recipe = Sources.load().recipe
    packages, kernel, qemu, runner = (place / name for name in ("packages", "kernel", "qemu", "runner"))
    root = packages / "builder"
    binary = program.read_bytes()
    for name in (*recipe.guest.programs, *recipe.qemu.programs):
        _put(packages / "extra" / name.lstrip("/"), binary, 0o755)
    for name in recipe.qemu.firmware:
        _put(packages / "extra/usr/share/qemu" / name, name)
    _put(root / "usr/lib/x86_64-linux-gnu/libc.so.6", _host_library("libc.so.6"), 0o755)
    _put(root / "usr/lib64/ld-linux-x86-64.so.2", Path("/lib64/ld-linux-x86-64.so.2").read_bytes(), 0o755)
    (root / "lib64").symlink_to("usr/lib64")
    _put(root / "usr/bin/clang", "clang", 0o755)
    _put(packages / "builder.list", listing(scan(root)))
    _put(packages / "applets", "sh\nls\nhackbench\n")
    _put(packages / "testbed" / "kernel", "7.3.4+deb13 7.3.4+deb13-cloud-amd64 7.3.4-1\n")
    found = Packages(
        recipe=recipe.name,
        kernel="7.3.4+deb13",
        installed=(Package(name="clang-22", version="22.1", architecture="amd64", sha256="a"),),
        downloaded=(),
        sources=(SourcePackage(name="qemu", version="10.0.13", files=(SourceFile(name="a", sha256="b"),)),),
    )
    _put(packages / "packages.json", pretty(found))
    for name in ("vmlinuz", "config", "include/vmlinux.h", "include/scx/common.bpf.h"):
        _put(kernel / name, name)
    _put(kernel / "modules.builtin", "kernel/drivers/virtio/virtio.ko\nkernel/fs/fuse/virtiofs.ko\n")
    _put(kernel / "modules/i6300esb.ko.xz", lzma.compress(module("i6300esb", "watchdog")))
    _put(kernel / "modules/watchdog.ko.xz", lzma.compress(module("watchdog", "")))
    _put(kernel / "modules/qemu_fw_cfg.ko.xz", lzma.compress(module("qemu_fw_cfg", "")))
    _put(kernel / "modules/overlay.ko.xz", lzma.compress(module("overlay", "i6300esb,virtio")))
    _put(kernel / "examples/bin/scx_simple", binary, 0o755)
    for name in ("qemu-system-x86_64", "qemu-img", "timing_probe"):
        _put(qemu / name, binary, 0o755)
    _put(runner / "testbed-runner", b"runner", 0o755)
    return Parts(packages, found, kernel, qemu, runner, ())


def _host_library(name: str) -> bytes:
    for directory in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64"):
        if (Path(directory) / name).exists():
            return (Path(directory) / name).read_bytes()
    pytest.skip(f"no {name} on this host")


@pytest.fixture
def cached(
    tmp_path: Path, program: Path, module: Callable[[str, str], bytes], monkeypatch: pytest.MonkeyPatch
) -> Image:
    """A small image in a cache of its own."""
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    cache = Cache.open()
    parts = make_parts(tmp_path / "parts", program, module)
    manifest = assemble(parts, Sources.load().recipe, tmp_path / "made", locked=True, drift=())
    cache.publish(tmp_path / "made", cache.images / manifest.id)
    return images.load(manifest.id)


def test_two_builds_of_the_same_packages_have_the_same_id(
    tmp_path: Path, program: Path, module: Callable[[str, str], bytes]
) -> None:
    recipe = Sources.load().recipe
    first = make_parts(tmp_path / "1", program, module)
    time.sleep(0.01)
    second = make_parts(tmp_path / "2" / "deeper", program, module)
    os.utime(second.kernel / "vmlinuz", (1, 1))
    one = assemble(first, recipe, tmp_path / "one", locked=True, drift=())
    drift = (Drift(name="gcc", locked="1", found="2"),)
    two = assemble(second, recipe, tmp_path / "two", locked=False, drift=drift)
    assert one.id == two.id  # also: what the lock file says is no part of an image
    assert (tmp_path / "one/initramfs.cpio").read_bytes() == (tmp_path / "two/initramfs.cpio").read_bytes()


@pytest.mark.parametrize("name", ["kernel/vmlinuz", "kernel/include/scx/common.bpf.h", "runner/testbed-runner"])
def test_another_byte_anywhere_is_another_image(
    tmp_path: Path, program: Path, module: Callable[[str, str], bytes], name: str
) -> None:
    recipe = Sources.load().recipe
    parts = make_parts(tmp_path / "1", program, module)
    one = assemble(parts, recipe, tmp_path / "one", locked=True, drift=())
    (tmp_path / "1" / name).unlink()  # the first image has the old file by a second name
    _put(tmp_path / "1" / name, "other", 0o755 if name.startswith("runner") else 0o644)
    assert assemble(parts, recipe, tmp_path / "two", locked=True, drift=()).id != one.id


def test_the_guest_has_programs_libraries_modules_and_the_runner(cached: Image) -> None:
    root, release = cached.root, cached.manifest.kernel.release
    assert (root / "usr/bin/stress-ng").is_file()
    assert os.readlink(root / "usr/bin/sh") == "busybox"
    assert not (root / "usr/bin/hackbench").is_symlink()  # a program of a package beats an applet
    assert (root / "lib64/ld-linux-x86-64.so.2").is_file()
    assert (root / "usr/lib/x86_64-linux-gnu/libc.so.6").is_file()
    assert os.readlink(root / "init") == "testbed/runner"
    assert cached.config.read_text() == "config"
    assert (root / "lib/testbed/modules").read_text().split() == [
        f"/lib/modules/{release}/kernel/watchdog.ko",
        f"/lib/modules/{release}/kernel/i6300esb.ko",
        f"/lib/modules/{release}/kernel/qemu_fw_cfg.ko",
    ]
    assert (
        "kernel/overlay.ko: kernel/i6300esb.ko kernel/watchdog.ko\n"
        in (root / "usr/lib/modules" / release / "modules.dep").read_text()
    )
    assert "scx_simple" in cached.manifest.examples
    assert (cached.examples / "lib/libc.so.6").is_file()
    assert (cached.qemu / "usr/bin/prlimit").is_file()


def test_a_library_that_no_package_has_is_named(tmp_path: Path, program: Path) -> None:
    with pytest.raises(TestbedError, match=r"`p` needs `.*`, which no package of the recipe has"):
        Roots((tmp_path,)).closure([program])


def test_a_static_or_foreign_file_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert dependencies(tmp_path / "script").needed == ()


def test_links_are_followed_inside_of_the_root_only(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/file").touch()
    (tmp_path / "link").symlink_to("/usr/file")
    (tmp_path / "up").symlink_to("../../../usr/file")
    (tmp_path / "loop").symlink_to("loop")
    assert resolve(tmp_path, "/link") == tmp_path / "usr/file"
    assert resolve(tmp_path, "/up") == tmp_path / "usr/file"
    assert resolve(tmp_path, "/loop") is None
    assert resolve(tmp_path, "/etc/passwd") is None


def test_an_image_is_found_by_the_beginning_of_its_id(cached: Image) -> None:
    assert images.load(cached.id[:8]) == cached
    assert images.list_images() == [cached]
    with pytest.raises(UsageError, match="there is no image `nothing`"):
        images.load("nothing")


def test_verify_passes_and_then_names_what_differs(cached: Image) -> None:
    images.verify(cached)
    place = cached.root / "etc/passwd"
    place.write_text("evil")
    with pytest.raises(HostError, match="`root/etc/passwd` is not what it was"):
        images.verify(cached)


def test_verify_sees_files_that_were_added(cached: Image) -> None:
    (cached.qemu / "usr/bin/extra").touch()
    with pytest.raises(HostError, match="`qemu/usr/bin/extra`"):
        images.verify(cached)


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs.cpio", "qemu/usr/bin/qemu-system-x86_64", "manifest.json"])
def test_a_damaged_key_file_is_noticed_on_use(cached: Image, name: str) -> None:
    data = (cached.path / name).read_bytes()
    (cached.path / name).unlink()
    (cached.path / name).write_bytes(data[:-1] + b"?")
    with pytest.raises(HostError, match=f"is damaged: `{name}`"):
        images.load(cached.id)


def test_ensure_takes_the_image_of_these_inputs_without_building(cached: Image) -> None:
    Cache.open().write_key(Sources.load().key(), cached.id)
    assert images.ensure() == cached


def test_ensure_builds_a_damaged_image_again_from_the_beginning(cached: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache.open()
    cache.write_key(Sources.load().key(), cached.id)
    (cache.parts / "kernel-1").mkdir()
    (cached.path / "vmlinuz").write_bytes(b"evil")  # in place, so in the stage that shares the file too
    left: list[list[str]] = []

    def build(builder: Builder) -> Image:
        left.append([path.name for folder in (cache.images, cache.parts) for path in folder.iterdir()])
        return cached

    monkeypatch.setattr(Builder, "build", build)
    said: list[object] = []
    assert images.ensure(said.append) == cached
    assert left == [[]]
    assert "is damaged: `vmlinuz`" in str(said[0])


@pytest.mark.parametrize("suffix", [".tar", ".tar.zst"])
def test_an_exported_image_is_the_same_bytes_and_comes_back(
    cached: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    if suffix.endswith("zst") and shutil.which("zstd") is None:
        pytest.skip("no zstd")
    first, second = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    images.export(cached, first)
    images.export(cached, second)
    assert first.read_bytes() == second.read_bytes()
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "other"))
    back = images.import_(first)
    assert back.id == cached.id
    assert back.path.is_relative_to(tmp_path / "other")
    images.verify(images.load(cached.id))
    assert list((tmp_path / "other" / "tmp").iterdir()) == []


def _rewrite(
    source: Path, target: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]
) -> None:
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member) if member.isreg() else None
            changed, data = change(member, file.read() if file else b"")
            changed.size = len(data)
            new.addfile(changed, io.BytesIO(data))


def test_an_import_can_be_told_the_files_hash(
    cached: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "image.tar"
    images.export(cached, file)
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "other"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert main(["image", "import", str(file), "--sha256", "0" * 64]) == ExitCode.USAGE
    assert f"has the hash {digest}, expected 000" in capsys.readouterr().err
    assert main(["image", "import", str(file), "--sha256", "abc"]) == ExitCode.USAGE
    assert not list((tmp_path / "other").glob("images/*"))
    assert images.import_(file, digest.upper()).id == cached.id


@pytest.mark.parametrize("name", ["vmlinuz", "root/etc/passwd", "lists/root", "manifest.json"])
def test_an_import_with_another_byte_is_refused_and_leaves_nothing(
    cached: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def change(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        return member, data + b" " if member.name == name else data

    images.export(cached, tmp_path / "good.tar")
    _rewrite(tmp_path / "good.tar", tmp_path / "bad.tar", change)
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "other"))
    if name == "manifest.json":  # white space says nothing
        images.import_(tmp_path / "bad.tar")
        return
    with pytest.raises(UsageError, match="no sound image"):
        images.import_(tmp_path / "bad.tar")
    assert images.list_images() == []


def test_an_import_with_a_forged_manifest_is_refused(
    cached: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        return member, data.replace(b"22.1", b"99.9") if member.name == "manifest.json" else data

    images.export(cached, tmp_path / "good.tar")
    _rewrite(tmp_path / "good.tar", tmp_path / "bad.tar", change)
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "other"))
    with pytest.raises(UsageError, match="its id does not belong to its manifest"):
        images.import_(tmp_path / "bad.tar")


@pytest.mark.parametrize("data", [b"", b"not an archive at all" * 100, b"\x28\xb5\x2f\xfd nonsense"])
def test_an_import_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UsageError):
        images.import_(tmp_path / "file")
    with pytest.raises(UsageError, match="can't read"):
        images.import_(tmp_path / "missing")


def test_prune_keeps_the_image_in_use(cached: Image) -> None:
    cache = Cache.open()
    cache.write_key(Sources.load().key(), cached.id)
    (cache.parts / "qemu-1").mkdir()
    pruned = images.prune()
    assert (pruned.images, pruned.parts) == ((), ("qemu-1",))
    images.verify(images.load(cached.id))  # parts share files with images
    assert images.prune(everything=True).images == (cached.id,)
    assert list(cache.keys.iterdir()) == []


def test_prune_keeps_what_somebody_needs(cached: Image) -> None:
    assert images.prune(in_use=lambda image_id: image_id == cached.id).images == ()


def test_the_key_of_a_recipe_is_a_function_of_its_content(tmp_path: Path) -> None:
    sources = Sources.load()
    copy = tmp_path / "vm_images"
    shutil.copytree(sources.directory, copy)
    assert Sources.load(copy).key() == sources.key()
    (copy / "README.md").write_text("other words")
    assert Sources.load(copy).key() == sources.key()
    (copy / "runner" / "new.c").write_text("int x;")
    assert Sources.load(copy).key() != sources.key()


def test_no_mirror_is_named_in_the_recipe() -> None:
    for path in Sources.load().directory.rglob("*"):
        if path.suffix in (".toml", ".json", ".sh"):
            assert "http://" not in path.read_text(), path


@pytest.mark.slow
@pytest.mark.guest
def test_two_whole_builds_have_the_same_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = set()
    for name in ("first", "second"):
        monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / name))
        built = images.build()
        images.verify(built)
        ids.add(built.id)
        shutil.rmtree(tmp_path / name)
    assert len(ids) == 1
    assert len(ids.pop()) == hashlib.sha256().digest_size * 2


def test_no_module_takes_the_place_of_a_function_of_the_package() -> None:
    # `import testbed.image.NAME` puts the module under NAME into the package, over a function of that name.
    modules = {path.stem for path in Path(images.__file__).parent.glob("*.py")}
    assert not modules & {name for name, what in vars(images).items() if inspect.isfunction(what)}
    assert inspect.isfunction(images.build)
