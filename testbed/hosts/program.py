# SPDX-License-Identifier: Apache-2.0
"""The one program that a host gets: built in the image's builder root, found again by what it is made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from testbed import image as images
from testbed.data import data_directory
from testbed.image.builder import Builder
from testbed.image.cache import Cache
from testbed.image.events import Reporter, Stage
from testbed.image.recipe import Sources
from testbed.image.tree import file_sha256
from testbed.report.events import Listener
from testbed.sandbox import Bind, Limits, Sandbox

NAME = "testbed-host"
UNIT = "testbed-host.service"
_LIMIT_S = 600.0
#: Sources that it shares with the guest's runner.
_SHARED = ("eu_search.c", "loader.c", "loader.h")


@dataclass(frozen=True)
class Program:
    """What `host install` installs."""

    program: Path
    unit: Path

    @property
    def sha256(self) -> str:
        """Of the program; `testbed-host facts` tells the same."""
        return file_sha256(self.program)


def build(listener: Listener) -> Program:
    """The program, built now if it is not in the cache.

    Raises:
        HostError: it can't be built here.
    """
    folder, runner = data_directory("host"), data_directory("vm_images") / "runner"
    image = images.ensure(listener)
    compiler = image.manifest.components["builder"].sha256

    def key() -> str:
        files = [*sorted(path for path in folder.iterdir() if path.is_file()), *(runner / name for name in _SHARED)]
        named = [(path.name, file_sha256(path)) for path in files]
        return hashlib.sha256(json.dumps([compiler, named]).encode()).hexdigest()[:32]

    def make(out: Path, scratch: Path, stage: Stage) -> None:
        sandbox = Sandbox(
            root=image.builder,
            read_only=(Bind(folder, "/src"), Bind(runner, "/work")),
            writable=(Bind(scratch, "/build"), Bind(out, "/out")),
            cwd="/build",
            limits=Limits(wall_s=_LIMIT_S),
        )
        Builder.run(sandbox, ["sh", "/src/build.sh", "/src", "/out", "/work"], stage)

    cache = Cache.open()
    builder = Builder(Sources.load(), cache, Reporter(listener, cache.root / "logs" / f"{NAME}.log"))
    with cache.lock("build", shared=True):  # `prune` must not run beside it
        made = builder.part(NAME, "build the program for hosts", key, make)
    return Program(made / NAME, folder / UNIT)
