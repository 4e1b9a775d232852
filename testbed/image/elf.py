# SPDX-License-Identifier: Apache-2.0
"""ELF files: which libraries a program needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from testbed.errors import Bug

_LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64", "lib/x86_64-linux-gnu", "lib", "lib64")


@dataclass(frozen=True)
class Dependencies:
    """What the header of a program asks for."""

    interpreter: str | None
    needed: tuple[str, ...]


def dependencies(path: Path) -> Dependencies:
    """The dynamic section of an ELF file; empty for a static program, a script or anything else."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return Dependencies(None, ())
        file.seek(0)
        try:
            elf = ELFFile(file)
            interpreter = None
            needed: tuple[str, ...] = ()
            for segment in elf.iter_segments():
                if isinstance(segment, InterpSegment):
                    interpreter = segment.get_interp_name()
                elif isinstance(segment, DynamicSegment):
                    tags = [tag for tag in segment.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
                    needed = tuple(str(tag.needed) for tag in tags)  # type: ignore[attr-defined]  # set by pyelftools at run time
        except ELFError as error:
            raise Bug(f"`{path.name}` is not a sound ELF file: {error}") from error
    return Dependencies(interpreter, needed)


@dataclass(frozen=True)
class Roots:
    """Debian roots where programs and libraries are looked for, in this order."""

    directories: tuple[Path, ...]

    def find(self, path: str) -> Path | None:
        """The real file behind an absolute path of a root, links followed inside of that root."""
        for root in self.directories:
            found = resolve(root, path)
            if found is not None and found.is_file():
                return found
        return None

    def library(self, soname: str) -> Path | None:
        """The file behind the name of a library."""
        for directory in _LIBRARY_DIRECTORIES:
            found = self.find(f"/{directory}/{soname}")
            if found is not None:
                return found
        return None

    def closure(self, programs: Sequence[Path]) -> dict[str, Path]:
        """Everything that the ELF headers of the programs ask for, directly or not: place in the guest → file.

        Raises:
            Bug: a library is in none of the roots; the recipe has to name its package.
        """
        found: dict[str, Path] = {}
        todo = list(programs)
        seen: set[str] = set()
        while todo:
            program = todo.pop()
            wanted = dependencies(program)
            for name in (*([wanted.interpreter] if wanted.interpreter else []), *wanted.needed):
                # The loader is the interpreter, and a library that libc names; it is loaded once.
                if name in seen or (name.startswith("/") and PurePosixPath(name).name in seen):
                    continue
                seen |= {name, PurePosixPath(name).name}
                file = self.find(name) if name.startswith("/") else self.library(name)
                if file is None:
                    raise Bug(
                        f"`{program.name}` needs `{name}`, which no package of the recipe has",
                        hint="add its package to vm_images/image.toml",
                    )
                # The loader's place is written into every program; libraries are found below /usr/lib by default.
                place = name if name.startswith("/") else f"/usr/lib/x86_64-linux-gnu/{PurePosixPath(name).name}"
                found[place] = file
                todo.append(file)
        return found


def resolve(root: Path, path: str, depth: int = 40) -> Path | None:
    """Follow a path as it would be followed with `root` as `/`; None if something on it is missing."""
    done: list[str] = []
    todo = [part for part in PurePosixPath(path).parts if part != "/"][::-1]
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            depth -= 1
            if depth < 0:
                return None
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                done = []
            todo += [piece for piece in target.parts if piece != "/"][::-1]
        elif os.path.lexists(here):
            done.append(part)
        else:
            return None
    return root.joinpath(*done)
