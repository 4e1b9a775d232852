# SPDX-License-Identifier: Apache-2.0
"""The recipe: where it lies, what it says, and the keys that its parts have."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from testbed.data import data_directory
from testbed.errors import Bug
from testbed.image.model import Packages, Recipe, canonical
from testbed.image.tree import file_sha256
from testbed.spec import Model

#: Raised by hand whenever this package makes something else of the same inputs.
FORMAT = 1

#: Extras that no image is made of: `testbed.image.schedulers`, `testbed.image.kernels`, `testbed.image.hosts`.
SCHEDULERS = "schedulers"
KERNELS = "kernels"
HOSTS = "hosts"

_IGNORED_SUFFIXES = (".md", ".pyc")

T = TypeVar("T", bound=Model)


def read_recipe(file: Path, kind: type[T]) -> T:
    """A recipe's file.

    Raises:
        Bug: it is ours, so it is our fault if it can't be read.
    """
    try:
        return kind.model_validate(tomllib.loads(file.read_text()))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise Bug(f"the recipe `{file}` can't be read: {error}") from error


@dataclass(frozen=True)
class Sources:
    """The recipe and everything that lies beside it."""

    directory: Path
    recipe: Recipe
    lock: Packages | None

    @classmethod
    def load(cls, directory: Path | None = None) -> Sources:
        """Read image.toml and lock.json.

        Raises:
            Bug: they are ours, so it is our fault if they can't be read.
        """
        directory = directory or data_directory("vm_images")
        try:
            recipe = Recipe.model_validate(tomllib.loads((directory / "image.toml").read_text()))
            place = directory / "lock.json"
            lock = Packages.model_validate_json(place.read_bytes()) if place.is_file() else None
        except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
            raise Bug(f"the image recipe in `{directory}` can't be read: {error}") from error
        return cls(directory, recipe, lock)

    @property
    def programs(self) -> list[Path]:
        """Directories of the guest programs that we build ourselves."""
        return sorted(path.parent for path in (self.directory / "programs").glob("*/build.sh"))

    def key(self) -> str:
        """Hash of every input of an image."""
        lock = None if self.lock is None else self.lock.digest()
        return _hash(FORMAT, canonical(self.recipe).decode(), lock, self.files())

    def packages_key(self) -> str:
        """Hash of the inputs of the packages stage."""
        data = canonical(self.recipe).decode()
        scripts = [file_sha256(self.directory / name) for name in ("packages.sh", "sources.sh")]
        return _hash(FORMAT, "packages", data, None if self.lock is None else self.lock.digest(), scripts)

    def stage_key(self, stage: str, packages: str, *directories: Path) -> str:
        """Hash of the inputs of a stage that runs a `build.sh` in the builder root."""
        files = [self._directory_files(directory) for directory in directories]
        return _hash(FORMAT, stage, packages, files)

    def files(self) -> dict[str, str]:
        """Every file of the recipe that can change an image, with its hash; the lock is not among them."""
        files = self._directory_files(self.directory)
        extras = tuple(f"{name}/" for name in (SCHEDULERS, KERNELS, HOSTS))
        return {name: digest for name, digest in files.items() if not name.startswith(extras)}

    def _directory_files(self, directory: Path) -> dict[str, str]:
        return {
            path.relative_to(self.directory).as_posix(): file_sha256(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
            and path.suffix not in _IGNORED_SUFFIXES
            and not any(part.startswith((".", "__")) for part in path.relative_to(self.directory).parts)
            and path != self.directory / "lock.json"
        }


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
