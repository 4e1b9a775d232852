# SPDX-License-Identifier: Apache-2.0
"""An engine that does not run twice what can only have one answer.

A sim run is a pure function of its spec and the bytes that the spec names, so its evidence is kept under the hash of
them. What another run of the same inputs could change is guarded: an entry is confirmed once a second execution gave
the same digest, and thrown away, loudly, when one gave another.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from testbed.case import (
    CONSOLE_FILE,
    KEY_FILE,
    OUTCOME_FILE,
    QEMU_LOG_FILE,
    SPEC_FILE,
    STREAM_FILE,
    TRACE_FILE,
    GuestOutcome,
    canonical_json,
    read_model,
    write_atomic,
    write_model,
)
from testbed.engine import Engine, Executed
from testbed.engine.local import HOST_FILE
from testbed.errors import HostError, TestbedError
from testbed.image.cache import Cache, disk_errors
from testbed.spec import Clock, Model, RunSpec, sha256
from testbed.vm import snapshot

#: Raised when the same spec would be run in another way than its machine's options tell.
VERSION = 1
ENTRY_FILE = "entry.json"
EVIDENCE = (STREAM_FILE, CONSOLE_FILE, TRACE_FILE, KEY_FILE, OUTCOME_FILE, QEMU_LOG_FILE, HOST_FILE)
#: What of a spec says where a run stands in its case, and nothing about what happens in it.
_PLACE = {"number", "role", "scenario", "repeats", "wall_limit_s"}
#: One of so many passing runs is repeated, to see whether it is repeatable.
SPOT_CHECKS = 16


class Entry(Model):
    """`entry.json`: what an entry holds.

    Attributes:
        key: hash of the inputs; also the name of its directory.
        image: id of the image.
        digest: of the evidence.
        confirmed: a second execution gave the same digest.
        files: sha256 of each file.
    """

    schema_: str = Field(default="testbed.cached-run/1", alias="schema")
    key: str
    image: str
    digest: str
    confirmed: bool
    files: dict[str, str]


def run_key(spec: RunSpec) -> str:
    """Hash of everything that a sim run is a function of."""
    inputs = spec.model_dump(mode="json", by_alias=True, exclude=_PLACE)
    rate = snapshot.rate_of(spec)
    begin = snapshot.key_of(spec.image, spec.topology, rate, snapshot.prefix_of(spec))
    return sha256(canonical_json([VERSION, inputs, begin, *snapshot.machine(spec.topology, rate)]))


def holds(cache: Cache, spec: RunSpec) -> bool:
    """Whether the cache has something for a spec; what it is worth is seen when it is taken."""
    return (cache.runs / run_key(spec) / ENTRY_FILE).is_file()


def spot_check(spec: RunSpec) -> bool:
    """Whether this run is repeated although nothing failed; chosen by its hash, so always the same ones."""
    return spec.clock is Clock.SIM and int(run_key(spec)[:8], 16) % SPOT_CHECKS == 0


@dataclass(frozen=True)
class CachedEngine:
    """Asks the cache, and lets `engine` run what is not in it.

    Attributes:
        told: called with a line for people about what is wrong with an entry.
    """

    engine: Engine
    cache: Cache
    told: Callable[[str], None]
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def execute(
        self, spec: RunSpec, directory: Path, stop: threading.Event, line: Callable[[str], None]
    ) -> Executed | None:
        """Evidence from the cache, or from a run that then goes into it."""
        if spec.clock is not Clock.SIM:
            return self.engine.execute(spec, directory, stop, line)
        place = self.cache.runs / run_key(spec)
        entry = self._read(place)
        if entry is not None and (spec.repeats is None or entry.confirmed):
            if self._take(place, entry, spec, directory):
                return Executed(cached=True, confirmed=entry.confirmed)
            entry = None
        executed = self.engine.execute(spec, directory, stop, line)
        if executed is not None:
            self._keep(place, entry, spec, directory)
        return executed

    def _read(self, place: Path) -> Entry | None:
        try:
            return Entry.model_validate_json((place / ENTRY_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            self._discard(place, f"its entry can't be read ({type(error).__name__})")
            return None

    def _take(self, place: Path, entry: Entry, spec: RunSpec, directory: Path) -> bool:
        """Copy an entry's evidence into a case, if it is what it was."""
        found: dict[str, bytes] = {}
        for name, digest in entry.files.items():
            try:
                found[name] = (place / name).read_bytes()
            except OSError:
                found[name] = b""
            if name not in EVIDENCE or sha256(found[name]) != digest:
                self._discard(place, f"`{name}` is not what it was")
                return False
        directory.mkdir(parents=True)
        for name, data in found.items():
            if name not in (OUTCOME_FILE, HOST_FILE):
                (directory / name).write_bytes(data)
        write_model(directory / SPEC_FILE, spec)
        host = json.loads(found[HOST_FILE])
        write_atomic(directory / HOST_FILE, canonical_json({**host, "cached": True, "confirmed": entry.confirmed}))
        write_atomic(directory / OUTCOME_FILE, found[OUTCOME_FILE])  # last: a run without it is none
        return True

    def _keep(self, place: Path, known: Entry | None, spec: RunSpec, directory: Path) -> None:
        """Put a run's evidence into the cache, or compare it with what is there."""
        outcome = read_model(directory / OUTCOME_FILE, GuestOutcome)
        if not outcome.digest:
            return  # the host had a hand in how it ended
        if known is None:
            known = self._read(place)  # the run that this one repeats ran beside it, and has ended first
        if known is not None and known.digest != outcome.digest:
            self._discard(place, f"{spec.name} had the same inputs and another digest; please report this")
            return
        confirmed = known is not None
        files = {name: sha256((directory / name).read_bytes()) for name in EVIDENCE if (directory / name).is_file()}
        entry = Entry(
            schema="testbed.cached-run/1",
            key=place.name,
            image=spec.image,
            digest=outcome.digest,
            confirmed=confirmed,
            files=files,
        )
        try:
            with disk_errors("a cached run", self.cache.root), self.cache.workspace() as work:
                fresh = work / "run"
                fresh.mkdir()
                for name in files:
                    shutil.copyfile(directory / name, fresh / name)
                write_model(fresh / ENTRY_FILE, entry)
                with self._guard:
                    if known is not None and place.exists():
                        place.rename(work / "old")
                    self.cache.publish(fresh, place)
        except HostError as error:
            self.told(f"warning: the run is not cached: {error.message}")

    def _discard(self, place: Path, why: str) -> None:
        self.told(f"warning: cached run {place.name[:12]} is thrown away: {why}")
        try:
            with disk_errors("the cache", self.cache.root), self._guard, self.cache.workspace() as work:
                if place.exists():
                    place.rename(work / "gone")
        except TestbedError as error:
            self.told(f"warning: {error.message}")
