# SPDX-License-Identifier: Apache-2.0
"""The engine that boots the guest on this machine."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.case import KEY_BYTES, KEY_FILE, OUTCOME_FILE, SPEC_FILE, Ended, canonical_json, write_atomic, write_model
from testbed.engine import Executed
from testbed.errors import Bug
from testbed.image import Image
from testbed.spec import RunSpec
from testbed.vm.guest import Boot, Guest

HOST_FILE = "host.json"


@dataclass(frozen=True)
class LocalEngine:
    """One guest after the other; the pool decides how many side by side.

    Attributes:
        image: kernel, root and QEMU.
        inputs: archives that travel with a job, by their sha256.
        guest: makes the machine for a spec's clock.
        key: the key of every stream, None for a new random one each time; a replay has the key of what it repeats.
    """

    image: Image
    inputs: Mapping[str, Path]
    guest: Callable[[Boot], Guest]
    key: bytes | None = None

    def execute(
        self, spec: RunSpec, directory: Path, stop: threading.Event, line: Callable[[str], None]
    ) -> Executed | None:
        """Boot, run, keep what was said."""
        files = self.inputs.get(spec.files)
        if files is None:
            raise Bug(f"nobody has the files {spec.files[:16]} of {spec.name}")
        directory.mkdir(parents=True)
        key = self.key or secrets.token_bytes(KEY_BYTES)
        write_model(directory / SPEC_FILE, spec)
        write_atomic(directory / KEY_FILE, key.hex() + "\n")
        boot = Boot(spec=spec, image=self.image, directory=directory, files=files, key=key, cancelled=stop, line=line)
        guest = self.guest(boot)
        started = time.monotonic()
        try:
            guest.boot()
            outcome = guest.run()
        finally:
            guest.close()
        if outcome.ended is Ended.INTERRUPTED:
            shutil.rmtree(directory, ignore_errors=True)
            return None
        # Times of the host are for people; no judge reads them.
        write_atomic(directory / HOST_FILE, canonical_json({"seconds": round(time.monotonic() - started, 3)}))
        write_model(directory / OUTCOME_FILE, outcome)
        return Executed()
