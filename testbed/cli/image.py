# SPDX-License-Identifier: Apache-2.0
"""`testbed image build|list|export|import|kernel|schedulers|hosts|prune`."""

from __future__ import annotations

import argparse
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, verb
from testbed.cli.run import listen
from testbed.errors import ExitCode
from testbed.report import harmless

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = verb(verbs, "image", "build, list, export, import and remove guest images, fetch kernels for them")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build_ = verb(actions, "build", "make the image, if it is not there yet", build)
    build_.add_argument("--locked", action="store_true", help="fail where a package is not the lock file's")
    build_.add_argument("--update-lock", action="store_true", help="write the packages that were found to the lock")
    build_.add_argument("-v", "--verbose", action="store_true", help="show what the stages say")
    list_ = verb(actions, "list", "list the images of the cache, and the kernels that were fetched", list_images)
    add_json(list_)
    export_ = verb(actions, "export", "write an image to one file", export)
    export_.add_argument("file", type=Path, metavar="FILE")
    export_.add_argument("--id", help="which image (default: the one that `run` would use)")
    import_ = verb(actions, "import", "take an image from a file, after checking every hash", import_image)
    import_.add_argument("file", type=Path, metavar="FILE")
    import_.add_argument("--sha256", type=_hash, metavar="HASH", help="of FILE, e.g. its line of SHA256SUMS")
    kernel_ = verb(actions, "kernel", "fetch another packaged kernel, for `--kernel debian:VERSION`", fetch_kernel)
    kernel_.add_argument(
        "version", nargs="?", metavar="VERSION", help="e.g. 6.17 (default: the newest one of another series)"
    )
    kernel_.add_argument("-v", "--verbose", action="store_true", help="show what apt says")
    schedulers_ = verb(
        actions, "schedulers", "build scx_* schedulers of the crates registry, an extra", make_schedulers
    )
    schedulers_.add_argument("-v", "--verbose", action="store_true", help="show what cargo says")
    hosts_ = verb(actions, "hosts", "make the disk of guests that live long (`testbed shell`), an extra", make_hosts)
    hosts_.add_argument("-v", "--verbose", action="store_true", help="show what Debian's tools say")
    prune_ = verb(actions, "prune", "remove build stages, and all images but the one that `run` would use", prune)
    prune_.add_argument("--everything", action="store_true", help="that one too")


def _hash(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise argparse.ArgumentTypeError(f"expected 64 hexadecimal digits, found `{text}`")
    return text


def make_schedulers(options: Options) -> int:
    """Build the schedulers of the crates registry."""
    from testbed.image import schedulers

    with ExitStack() as stack:
        made = schedulers.build(listen((), options.verbose, stack))
    for name, program in made.facts.programs.items():
        print(f"{name} {program.crate.version}: sha256 {program.sha256[:16]}, run it by `testbed run -- {name}`")
    return int(ExitCode.PASS)


def fetch_kernel(options: Options) -> int:
    """Fetch a packaged kernel."""
    from testbed import image
    from testbed.image import kernels

    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)

        def with_kernel(word: str) -> image.Image:
            return image.with_kernel(word, listener)

        if options.version is None:
            made = kernels.fetch_other(listener, with_kernel).facts
        else:
            made = kernels.fetch(options.version, listener).facts
            with_kernel(kernels.PREFIX + made.release)  # says what it lacks now, and not when somebody waits
    print(f"linux {made.release}, {made.version}: run on it by `--kernel {made.word}`")
    return int(ExitCode.PASS)


def make_hosts(options: Options) -> int:
    """Make the disk of guests that live long."""
    from testbed.image import hosts

    with ExitStack() as stack:
        made = hosts.build(listen((), options.verbose, stack))
    print(f"disk {made.facts.disk_sha256[:16]}: {len(made.facts.packages)} packages, used by `testbed shell`")
    return int(ExitCode.PASS)


def build(options: Options) -> int:
    """Make the image."""
    from testbed import image

    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)
        if options.locked or options.update_lock:
            made = image.build(listener, locked=options.locked, update_lock=options.update_lock)
        else:
            made = image.ensure(listener)
    print(f"image {made.id[:16]}: linux {made.manifest.kernel.release}, qemu {made.manifest.qemu.version}")
    return int(ExitCode.PASS)


def list_images(options: Options) -> int:
    """List the images, and the kernels that were fetched."""
    from testbed import image
    from testbed.image import kernels

    found = image.list_images()
    if options.json:
        print(json.dumps([one.manifest.model_dump(mode="json", by_alias=True) for one in found], indent=2))
        return int(ExitCode.PASS)
    for one in found:
        locked = "locked" if one.manifest.locked else "not the lock file's packages"
        derived = one.manifest.derived
        if derived is not None:
            locked = f"{derived.base[:16]} with the kernel of {harmless(derived.origin)}"
        print(f"{one.id[:16]}  linux {one.manifest.kernel.release}  qemu {one.manifest.qemu.version}  {locked}")
    for kernel in kernels.kept():
        print(f"{kernel.facts.word:16}  linux {kernel.facts.release}  packages {kernel.facts.version}")
    return int(ExitCode.PASS)


def export(options: Options) -> int:
    """Write an image to a file."""
    from testbed import image

    image.export(image.load(options.id) if options.id else image.ensure(), options.file)
    return int(ExitCode.PASS)


def import_image(options: Options) -> int:
    """Take an image from a file."""
    from testbed import image

    made = image.import_(options.file, options.sha256)
    print(f"image {made.id[:16]}: linux {made.manifest.kernel.release}, qemu {made.manifest.qemu.version}")
    return int(ExitCode.PASS)


def prune(options: Options) -> int:
    """Remove what is not used."""
    from testbed import image

    removed = image.prune(everything=options.everything)
    for name in removed.images:
        print(f"removed image {name[:16]}")
    print(f"freed {removed.freed_bytes >> 20} MiB")
    return int(ExitCode.PASS)
