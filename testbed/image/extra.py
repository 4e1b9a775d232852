# SPDX-License-Identifier: Apache-2.0
"""What is built of a recipe beside the image, into the same cache: schedulers, the disk of a test host."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.data import data_directory
from testbed.image.builder import Builder
from testbed.image.cache import Cache, cache_root, disk_errors
from testbed.image.events import Reporter
from testbed.image.recipe import Sources
from testbed.report.events import Listener
from testbed.sandbox import probe


class Workshop(Protocol):
    """One build."""

    def make(self) -> None:
        """All that takes time, in parts of the cache's own."""

    def collect(self, out: Path) -> None:
        """Put the result into an empty directory."""


@dataclass(frozen=True)
class Extra:
    """One of them.

    Attributes:
        name: its folder below `vm_images/`, and in the cache.
        title: what it is, for people.
        facts: the file that says that it is whole.
        key: hash of everything that says what is made and how, of the recipes' folder.
    """

    name: str
    title: str
    facts: str
    key: Callable[[Path], str]

    def directory(self) -> Path | None:
        """Where this version's is; None if nobody has made it. Writes nothing."""
        place = cache_root() / self.name / self.key(data_directory("vm_images"))
        return place if (place / self.facts).is_file() else None

    def build(self, listener: Listener, workshop: Callable[[Path, Builder], Workshop]) -> Path:
        """Where it is, made now if it is not in the cache.

        Args:
            listener: hears how it goes.
            workshop: makes it, given the recipes' folder and a builder.

        Raises:
            HostError: it can't be made here, with the cure.
        """
        folder = data_directory("vm_images")
        cache = Cache.open()
        key = self.key(folder)
        place = cache.root / self.name / key
        if (place / self.facts).is_file():
            return place
        probe()
        reporter = Reporter(listener, cache.root / "logs" / f"{self.name}-{key[:12]}.log")
        with cache.lock("build", shared=True):  # `prune` must not run beside it
            at_work = workshop(folder, Builder(Sources.load(folder), cache, reporter))
            at_work.make()
            with disk_errors(self.title, cache.root), cache.workspace() as work:
                at_work.collect(work / "out")
                place.parent.mkdir(exist_ok=True)
                return cache.publish(work / "out", place)


def key_of(version: int, named: Iterable[tuple[str, str]]) -> str:
    """A key of names and hashes; `version` is raised by hand whenever the same recipe becomes something else."""
    return hashlib.sha256(json.dumps([version, list(named)]).encode()).hexdigest()[:32]
