# SPDX-License-Identifier: Apache-2.0
"""Where the files that travel with the package are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from testbed.errors import Bug


def data_directory(kind: Literal["scenarios", "policies", "vm_images", "bpf", "host"]) -> Path:
    """A folder of such files: inside a wheel, or at the top of a clone.

    Raises:
        Bug: it is in neither.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "data" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise Bug(f"`{kind}` is missing from this installation", hint="install testbed again")
