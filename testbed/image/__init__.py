# SPDX-License-Identifier: Apache-2.0
"""Guest images: kernel, guest root, QEMU and the builder root, made once and found again by their hash.

image = ensure(listener)          # the image of this version of the testbed, built if it is not there
image = with_kernel(word)         # the same with another kernel
image.kernel, image.initramfs, image.qemu, image.builder, image.include, image.examples
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from testbed.errors import HostError, UsageError
from testbed.image.cache import Cache, disk_errors, remove_tree, write_atomically
from testbed.image.events import Reporter
from testbed.image.model import FILES, KEY_FILES, TREES, Image, Manifest, Packages, pretty
from testbed.image.recipe import HOSTS, KERNELS, SCHEDULERS, Sources
from testbed.image.tree import Entry, file_sha256, listing, parse_listing, scan
from testbed.report.events import Listener, StageLine

__all__ = [
    "Image",
    "Manifest",
    "Pruned",
    "btf_sha256",
    "build",
    "ensure",
    "export",
    "import_",
    "list_images",
    "load",
    "prune",
    "verify",
    "with_kernel",
]

#: Words for kernels that are no paths.
IMAGE_KERNEL, HOST_KERNEL = "image", "host"


def _silent(event: object) -> None:
    """Tell nobody."""


def ensure(listener: Listener = _silent) -> Image:
    """The image that belongs to this version of the testbed; built now if it is not in the cache.

    Raises:
        HostError: it can't be built here, with the cure.
    """
    sources = Sources.load()
    cache = Cache.open()
    known = cache.read_key(sources.key())
    if known is not None:
        try:
            return _use(cache, known)
        except HostError as damage:
            _discard(cache, known, listener, damage)
    return _build(sources, cache, listener, require_locked=False)


def btf_sha256(image: Image) -> str:
    """Hash of the bytes of `/sys/kernel/btf/vmlinux` where the image's kernel runs.

    Raises:
        HostError: the sandbox does not work.
    """
    from testbed.image import derive

    return derive.btf_sha256(image, Cache.open())


def with_kernel(word: str | None, listener: Listener = _silent) -> Image:
    """The image with the kernel that somebody names.

    Args:
        word: None or `image`: its own. `host`: the running one. `debian:VERSION`: one that `image kernel` fetched. Else
            a path: bzImage, directory or Debian package.
        listener: is told what happens.

    Raises:
        UsageError: the kernel can't be used, or is not there; with the reason.
        HostError: the image can't be built here, or the host's kernel can't be used.
    """
    base = ensure(listener)
    if word is None or word == IMAGE_KERNEL:
        return base
    from testbed.image import derive, kernels

    cache = Cache.open()
    if word == HOST_KERNEL:
        named = derive.Named(None, HOST_KERNEL)
    elif word.startswith(kernels.PREFIX):
        kernel = kernels.find(word.removeprefix(kernels.PREFIX))
        named = derive.Named(kernel.tree, kernel.origin)
    else:
        named = derive.Named(Path(word), word)
    recipe = Sources.load().recipe.kernel
    return derive.derive(base, named, cache, recipe, listener, lambda image_id: _use(cache, image_id))


def is_path(word: str) -> bool:
    """Whether a word for a kernel is a file's or a directory's."""
    from testbed.image.kernels import PREFIX

    return word not in (IMAGE_KERNEL, HOST_KERNEL) and not word.startswith(PREFIX)


def _discard(cache: Cache, image_id: str, listener: Listener, damage: HostError) -> None:
    """Remove a damaged image, and the stages, whose files are the same files."""
    listener(StageLine(stage="image", text=f"warning: {damage.message}; it is built again from the beginning"))
    with cache.lock("build"):
        for path in (cache.images / image_id, *cache.parts.iterdir()):
            if path.exists():
                _remove(cache, path)


def build(listener: Listener = _silent, *, locked: bool = False, update_lock: bool = False) -> Image:
    """Build the image, from cached stages where their inputs are unchanged.

    Args:
        listener: is told what happens.
        locked: packages that differ from the lock file are an error.
        update_lock: take the newest packages and write them into the lock file (of a clone).

    Raises:
        HostError: it can't be built here, with the cure.
        UsageError: `locked` together with `update_lock`.
    """
    if locked and update_lock:
        raise UsageError("`--locked` and `--update-lock` contradict each other")
    sources = Sources.load()
    cache = Cache.open()
    if not update_lock:
        return _build(sources, cache, listener, require_locked=locked)
    newest = Sources(sources.directory, sources.recipe, None)
    unlocked = cache.parts / f"packages-{newest.packages_key()}"
    if unlocked.exists():
        _remove(cache, unlocked)  # what was the newest then may not be it now
    image = _build(newest, cache, listener, require_locked=False)
    packages = Packages.model_validate_json((image.path / "packages.json").read_bytes())
    with disk_errors("the lock file", sources.directory):
        write_atomically(sources.directory / "lock.json", pretty(packages))
    # The same stages and the same id, now known to be locked.
    sources = Sources.load(sources.directory)
    with contextlib.suppress(OSError):
        unlocked.rename(cache.parts / f"packages-{sources.packages_key()}")
    return _build(sources, cache, listener, require_locked=True)


def _build(sources: Sources, cache: Cache, listener: Listener, *, require_locked: bool) -> Image:
    reporter = Reporter(listener, cache.root / "logs" / f"{sources.key()[:12]}.log")
    # Builders wait for each other stage by stage; only `prune` must not run beside them.
    from testbed.image.builder import Builder

    with cache.lock("build", lambda: reporter.line("image", "`image prune` is at work, waiting for it"), shared=True):
        return Builder(sources, cache, reporter, require_locked).build()


def load(image_id: str) -> Image:
    """An image of the cache, by its id or an unambiguous beginning of it.

    Raises:
        UsageError: there is none, or more than one.
        HostError: it is damaged.
    """
    cache = Cache.open()
    found = [path.name for path in cache.images.iterdir() if path.name.startswith(image_id)] if image_id else []
    if not found:
        raise UsageError(f"there is no image `{image_id}`", hint="`testbed image list` shows those that there are")
    if len(found) > 1:
        raise UsageError(f"`{image_id}` is the beginning of {len(found)} images' ids", hint="give more of the id")
    return _use(cache, found[0])


def list_images() -> list[Image]:
    """All whole images of the cache, the newest first."""
    cache = Cache.open()
    places = [path for path in cache.images.iterdir() if (path / "manifest.json").is_file()]
    places.sort(key=lambda path: (path / "manifest.json").stat().st_mtime, reverse=True)
    return [_read(path) for path in places]


def _read(path: Path) -> Image:
    try:
        manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise _damaged(path, "manifest.json") from error
    if manifest.id != path.name or manifest.computed_id() != manifest.id:
        raise _damaged(path, "manifest.json")
    return Image(path, manifest)


def _use(cache: Cache, image_id: str) -> Image:
    """Read an image and look at the files that every run needs."""
    image = _read(cache.images / image_id)
    expected = {name: image.manifest.components[name].sha256 for name in FILES}
    expected["qemu/usr/bin/qemu-system-x86_64"] = image.manifest.qemu.sha256
    for name in KEY_FILES:
        try:
            actual = file_sha256(image.path / name)
        except OSError:
            actual = ""
        if actual != expected[name]:
            raise _damaged(image.path, name)
    return image


def _damaged(path: Path, name: str) -> HostError:
    return HostError(
        f"image {path.name[:12]} is damaged: `{name}` is not what it was when the image was made",
        hint=f"remove `{path}` and run `testbed image build`, or import the image again",
    )


def verify(image: Image) -> None:
    """Hash everything in an image and compare.

    Raises:
        HostError: something differs; names it.
    """
    from testbed.image.assemble import component

    for name in FILES:
        if file_sha256(image.path / name) != image.manifest.components[name].sha256:
            raise _damaged(image.path, name)
    for name in TREES:
        text = (image.path / "lists" / name).read_bytes()
        digest = image.manifest.components[name].sha256
        if hashlib.sha256(text).hexdigest() != digest:
            raise _damaged(image.path, f"lists/{name}")
        expected = parse_listing(text.decode())
        actual = scan(image.path / name)
        if component(actual, digest) != image.manifest.components[name] or listing(actual) != text:
            raise _damaged(image.path, f"{name}/{_first_difference(actual, expected)}")


def _first_difference(actual: list[Entry], expected: list[Entry]) -> str:
    return min((entry.path for entry in set(actual) ^ set(expected)), default="")


def export(image: Image, file: Path) -> None:
    """Write an image into one file, the same bytes each time.

    Raises:
        HostError: it can't be written.
    """
    from testbed.image import archive

    with disk_errors(f"`{file}`", file.parent):
        archive.write(image, file)


def import_(file: Path, sha256: str | None = None) -> Image:
    """Take an exported image into the cache; every hash is checked first.

    If it is of this version of the testbed (the same recipe and packages), `ensure` finds it from now on.

    Args:
        file: what `export` wrote.
        sha256: of the file, known from elsewhere; looked at before anything is unpacked.

    Raises:
        UsageError: the file is no image, another one than was meant, or a damaged or malicious one.
        HostError: the cache can't be written.
    """
    from testbed.image import archive

    if sha256 is not None:
        _need_hash(file, sha256)
    cache = Cache.open()
    with disk_errors("the image", cache.root), cache.workspace() as work:
        directory = work / "image"
        archive.read(file, directory)
        try:
            manifest = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
            image = Image(directory, manifest)
            if manifest.computed_id() != manifest.id:
                raise UsageError(f"`{file}` is no sound image: its id does not belong to its manifest")
            verify(image)
        except (HostError, OSError, ValidationError, KeyError, UnicodeError) as error:
            raise UsageError(f"`{file}` is no sound image: {error}") from error
        place = cache.publish(directory, cache.images / manifest.id)
    sources = Sources.load()
    if sources.recipe.name == manifest.recipe and (sources.lock is None or sources.lock.digest() == manifest.packages):
        cache.write_key(sources.key(), manifest.id)
    return Image(place, manifest)


def _need_hash(file: Path, sha256: str) -> None:
    try:
        found = file_sha256(file)
    except OSError as error:
        raise UsageError(f"can't read `{file}`: {error.strerror}") from error
    if found != sha256.lower():
        raise UsageError(
            f"`{file}` has the hash {found}, expected {sha256}", hint="it is damaged, or not the file that was meant"
        )


@dataclass(frozen=True)
class Pruned:
    """What `prune` removed."""

    images: tuple[str, ...]
    parts: tuple[str, ...]
    freed_bytes: int


def prune(*, everything: bool = False, in_use: Callable[[str], bool] = lambda image_id: False) -> Pruned:
    """Remove images and extras that this version does not use, what was made with them, stages and leftovers.

    Args:
        everything: those in use too, and kernels that were fetched.
        in_use: says of an id whether somebody still needs it.
    """
    from testbed.image import hosts, schedulers

    cache = Cache.open()
    keep = None if everything else cache.read_key(Sources.load().key())
    before = shutil.disk_usage(cache.root).free
    images, parts = [], []
    with cache.lock("build"):
        cache.clean()
        for path in sorted(cache.images.iterdir()):
            if path.name != keep and not in_use(path.name):
                _remove(cache, path)
                images.append(path.name)
        for path in sorted(cache.parts.iterdir()):
            _remove(cache, path)
            parts.append(path.name)
        for extra, used in ((SCHEDULERS, schedulers.directory()), (HOSTS, hosts.directory())):
            for path in sorted((cache.root / extra).glob("*")):
                if everything or path != used:
                    _remove(cache, path)
        for path in (cache.root / KERNELS).glob("*") if everything else ():
            _remove(cache, path)
        for key in cache.keys.iterdir():
            if cache.read_key(key.name) is None:
                key.unlink(missing_ok=True)
        for path in _orphans(cache):
            _remove(cache, path)
    return Pruned(tuple(images), tuple(parts), max(0, shutil.disk_usage(cache.root).free - before))


def _orphans(cache: Cache) -> Iterator[Path]:
    """Snapshots, compiled candidates and runs of images that are not there."""
    for folder, file in ((cache.snapshots, "manifest.json"), (cache.builds, "entry.json"), (cache.runs, "entry.json")):
        for path in sorted(folder.iterdir()):
            try:
                image_id = str(json.loads((path / file).read_bytes())["image"])
            except (OSError, ValueError, KeyError, TypeError):
                image_id = ""
            if not image_id or not (cache.images / image_id / "manifest.json").is_file():
                yield path


def _remove(cache: Cache, path: Path) -> None:
    """Take a directory out of sight first, so that nobody finds half of it."""
    with disk_errors(f"`{path.name}`", cache.root), cache.workspace() as work:
        path.rename(work / "gone")
        remove_tree(work / "gone")
