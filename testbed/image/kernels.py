# SPDX-License-Identifier: Apache-2.0
"""Kernels that Debian has beside the image's: fetched as the image's packages are, kept unpacked. An extra of no image.

made = fetch("6.17", listener)    # in the cache: release, version, packages with their hashes
made = fetch_other(listener)      # of another series than the image's, the newest that is sound
find("6.17")                      # what `--kernel debian:6.17` means
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from testbed.errors import UsageError
from testbed.image import debian
from testbed.image.builder import Builder
from testbed.image.cache import Cache, cache_root, disk_errors, remove_tree
from testbed.image.derive import unpack_packages
from testbed.image.events import Reporter, Stage
from testbed.image.model import Image, Package, Recipe, pretty
from testbed.image.recipe import KERNELS, Sources
from testbed.report.events import Listener
from testbed.sandbox import probe
from testbed.spec import Model

#: What a word of a packaged kernel begins with: `debian:6.17`.
PREFIX = "debian:"

_FACTS = "kernel.json"
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+~-]{0,63}")
_STAGE = "kernel"


class Fetched(Model):
    """`kernel.json`: which kernel it is, and of which packages."""

    schema_: Literal["testbed.kernel/1"] = Field(default="testbed.kernel/1", alias="schema")
    release: str = Field(description="as `uname -r` says it")
    version: str = Field(description="of the packages")
    suite: str = Field(description="of Debian, with its updates and backports")
    packages: tuple[Package, ...]

    @property
    def word(self) -> str:
        """What `--kernel` takes for the newest one of this series that is there."""
        return PREFIX + series(self.release)


@dataclass(frozen=True)
class Kept:
    """A kernel in the cache: a directory as `--kernel DIR` takes it, beside its facts."""

    path: Path
    facts: Fetched

    @property
    def tree(self) -> Path:
        """Where its files are."""
        return self.path / "tree"

    @property
    def origin(self) -> str:
        """Where it came from, for people."""
        facts = self.facts
        return f"Debian {facts.suite}: " + ", ".join(f"{one.name} {one.version}" for one in facts.packages)


def series(release: str) -> str:
    """`6.17` of `6.17.13+deb13-cloud-amd64`."""
    return ".".join(re.split(r"[.+~-]", release)[:2])


def kept() -> list[Kept]:
    """All kernels that were fetched, the newest release first. Writes nothing."""
    found = []
    for file in (cache_root() / KERNELS).glob(f"*/{_FACTS}"):
        try:
            found.append(Kept(file.parent, Fetched.model_validate_json(file.read_bytes())))
        except (OSError, ValidationError):
            continue  # of another version of the testbed: as if it were not there
    return sorted(found, key=lambda one: _order(one.facts.release), reverse=True)


def find(version: str) -> Kept:
    """The newest fetched kernel whose release is, or begins with, a version.

    Raises:
        UsageError: there is none.
    """
    version = _checked(version)
    there = kept()
    for one in there:
        if re.fullmatch(re.escape(version) + r"(?:[.+-].*)?", one.facts.release):
            return one
    names = ", ".join(f"`{PREFIX}{one.facts.release}`" for one in there)
    raise UsageError(
        f"no packaged kernel `{version}` is here" + (f"; there are {names}" if names else ""),
        hint=f"testbed image kernel {version}",
    )


def fetch_other(listener: Listener, image: Callable[[str], Image]) -> Kept:
    """Download the newest packaged kernel of another series than the image's on which schedulers can be judged.

    Args:
        listener: is told what happens.
        image: makes the image with a kernel, by the kernel's word.

    Raises:
        UsageError: Debian has none.
        HostError: it can't be fetched here, with the cure.
    """
    sources = Sources.load()
    avoid = [series(sources.lock.kernel)] if sources.lock is not None else []
    while True:
        made = fetch(None, listener, avoid)
        derived = image(PREFIX + made.facts.release).manifest.derived
        if derived is None or not derived.uncallable:
            return made
        # On a kernel that is built wrongly nearly everything is rejected, which tells nothing of a scheduler.
        avoid.append(series(made.facts.release))
        cache = Cache.open()
        with cache.workspace() as work:
            made.path.rename(work / "refused")


def fetch(version: str | None, listener: Listener, avoid: Sequence[str] = ()) -> Kept:
    """Download a packaged kernel that can run schedulers, the newest that there is.

    Args:
        version: its version, or how that begins; None: any.
        listener: is told what happens.
        avoid: series that are not asked for, if there is no version.

    Raises:
        UsageError: Debian has no such kernel, or it lacks sched_ext.
        HostError: it can't be fetched here, with the cure.
    """
    version = _checked(version) if version is not None else None
    probe()
    sources = Sources.load()
    cache = Cache.open()
    reporter = Reporter(listener, cache.root / "logs" / f"{KERNELS}.log")
    with (
        cache.lock("build", shared=True),
        cache.lock(KERNELS, lambda: reporter.line(_STAGE, "another process fetches a kernel, waiting for it")),
        reporter.stage(_STAGE, f"fetch linux {version or 'of another series'} from Debian") as stage,
        disk_errors("the kernel", cache.root),
        cache.workspace() as work,
    ):
        made = _download(
            sources, wanted(sources.recipe, version, avoid), Builder(sources, cache, reporter), work, stage
        )
        if isinstance(made, Fetched):
            place = cache.root / KERNELS / made.release
            place.parent.mkdir(exist_ok=True)
            if place.exists():
                place.rename(work / "old")  # another build of the same release
            cache.publish(work / "kernel", place)
            stage.summary = f"{made.release}, {made.version}"
            return Kept(place, made)
        stage.summary = "there is none that can be used"
    raise _none(version, sources.recipe, made)


def _download(sources: Sources, asked: str, builder: Builder, work: Path, stage: Stage) -> Fetched | str:
    """Fill `work/kernel`; if there is none, what packages.sh has against those that there are."""
    recipe, out, scratch, kernel = sources.recipe, work / "out", work / "scratch", work / "kernel"
    for folder in (out, scratch, kernel, kernel / "tree"):
        folder.mkdir()
    hooks = debian.hooks(sources.directory, sources.directory / KERNELS, wanted=asked)
    # apt alone, in a root that is thrown away; mmdebstrap wants the name of a package
    builder.make_root(recipe.debian.suite, ("ca-certificates",), hooks, out, scratch, stage)
    left = out / "testbed"
    if not (left / "kernel").is_file():
        return (left / "refused").read_text()
    release, package_version = (left / "kernel").read_text().split()
    packages = debian.read_downloaded(left)
    debian.check_downloads(packages, left / "debs")
    unpack_packages(out / "builder", sorted((left / "debs").glob("*.deb")), kernel / "tree")
    remove_tree(kernel / "tree/usr/share")
    made = Fetched(release=release, version=package_version, suite=recipe.debian.suite, packages=packages)
    (kernel / _FACTS).write_bytes(pretty(made))
    return made


def wanted(recipe: Recipe, version: str | None, avoid: Sequence[str]) -> str:
    """What packages.sh is asked for.

    Args:
        recipe: flavour and options are those of the image's kernel.
        version: see `fetch`.
        avoid: see `fetch`.
    """
    lines = [f"flavour {recipe.kernel.flavour}"]
    lines += [f"option {option}" for option in recipe.kernel.options]
    lines += [f"version {version}"] if version is not None else [f"other {one}" for one in avoid]
    return "\n".join(lines) + "\n"


def _none(version: str | None, recipe: Recipe, refused: str) -> UsageError:
    what = f"linux {version}" if version is not None else "other kernel"
    place = f"Debian {recipe.debian.suite} (with updates and backports)"
    lines = [line.split() for line in refused.splitlines()]
    if lines:
        release, *options = lines[0]
        return UsageError(
            f"the packaged kernel {release} can't be used: its configuration lacks {', '.join(options)}",
            hint="another one may have it: `testbed image kernel` takes the newest that does, also an older one",
        )
    return UsageError(
        f"{place} has no {what} of flavour `{recipe.kernel.flavour}`",
        hint="give a version or how it begins, e.g. 6.17; backports drop old ones",
    )


def _checked(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise UsageError(f"`{version}` is no version of a kernel", hint="e.g. 6.17 or 6.17.13+deb13")
    return version


def _order(release: str) -> list[tuple[int, str]]:
    """Numbers as numbers, words as words."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[^\d]+", release)]
