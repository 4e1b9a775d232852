# SPDX-License-Identifier: Apache-2.0
"""What was compiled once need not be compiled again: artifacts under the hash of all that they are made of."""

from __future__ import annotations

import functools
import hashlib
import shutil
from pathlib import Path

from pydantic import Field, ValidationError

import testbed.build as builds
from testbed.build import Artifact, Toolchain, build
from testbed.candidate import Candidate, Kind
from testbed.case import canonical_json
from testbed.errors import TestbedError
from testbed.image.cache import Cache, disk_errors
from testbed.spec import Model, sha256

ENTRY_FILE = "entry.json"
FILES = "files"


class Entry(Model):
    """`entry.json`: which image built it, and sha256 of every file of the artifact by its path below `candidate/`."""

    schema_: str = Field(default="testbed.cached-build/1", alias="schema")
    image: str
    files: dict[str, str]


@functools.cache
def _ourselves() -> str:
    """Hash of the code that builds and looks at candidates."""
    digest = hashlib.sha256()
    folder = Path(builds.__file__).parent
    for file in sorted([*folder.glob("*.py"), *(folder.parent / "lint").glob("*.py")]):
        digest.update(file.name.encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()


def build_key(candidate: Candidate, image_id: str) -> str:
    """Hash of everything that an artifact is made of."""
    return sha256(canonical_json([_ourselves(), image_id, candidate.kind, candidate.name, candidate.sha256]))


def cached_build(candidate: Candidate, image: Toolchain, image_id: str, out_dir: Path, cache: Cache) -> Artifact:
    """`build`, or a copy of what it made of the same candidate before.

    Only sources are kept: an object or a program is not compiled, so nothing is gained.

    Raises:
        HostError: the sandbox or the image does not work.
    """
    if candidate.kind is not Kind.SOURCE:
        return build(candidate, image, out_dir)
    place = cache.builds / build_key(candidate, image_id)
    if _take(place, out_dir):
        return builds.load(out_dir)
    artifact = build(candidate, image, out_dir)
    _keep(out_dir, place, image_id, cache)
    return artifact


def _take(place: Path, out_dir: Path) -> bool:
    """Copy a kept artifact, if every byte is what it was."""
    try:
        entry = Entry.model_validate_json((place / ENTRY_FILE).read_bytes())
        found = {name: (place / FILES / name).read_bytes() for name in entry.files}
    except (OSError, ValidationError):
        return False
    names = (Path(name) for name in found)
    if any(name.is_absolute() or ".." in name.parts for name in names):
        return False
    if any(sha256(found[name]) != digest for name, digest in entry.files.items()):
        shutil.rmtree(place, ignore_errors=True)
        return False
    for name, data in found.items():
        (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (out_dir / name).write_bytes(data)
    return True


def _keep(out_dir: Path, place: Path, image_id: str, cache: Cache) -> None:
    """Keep an artifact; a cache that can't be written costs time the next time and nothing now."""
    names = sorted(path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file())
    try:
        with disk_errors("a compiled candidate", cache.root), cache.workspace() as work:
            fresh = work / "build"
            entry = Entry(schema="testbed.cached-build/1", image=image_id, files={})
            for name in names:
                data = (out_dir / name).read_bytes()
                target = fresh / FILES / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                entry.files[name] = sha256(data)
            (fresh / ENTRY_FILE).write_bytes(canonical_json(entry.model_dump(mode="json", by_alias=True)))
            cache.publish(fresh, place)
    except TestbedError:
        return
