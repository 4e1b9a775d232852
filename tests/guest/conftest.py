# SPDX-License-Identifier: Apache-2.0
"""What tests with real guests share: the image, and the command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed import image as images
from testbed.image import Image

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "import sys; from testbed.cli import main; sys.exit(main())"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.guest)


@pytest.fixture(scope="session")
def image() -> Image:
    """The image of this clone; `make setup` has built it."""
    return images.ensure()


@dataclass(frozen=True)
class Answer:
    """What `testbed run` said."""

    code: int
    document: dict[str, Any]
    errors: str
    case: Path

    @property
    def failures(self) -> set[str]:
        return {finding["code"] for finding in self.document["findings"] if finding["status"] == "FAIL"}

    def about(self) -> str:
        """For a failed assertion: what was found, and where it lies."""
        found = [(one["code"], one["message"]) for one in self.document.get("findings", ())]
        return f"{self.document.get('title')}: {found}\n{self.case}\n{self.errors[-2000:]}"


def environment(cases: Path) -> dict[str, str]:
    return {**os.environ, "TESTBED_CASES": str(cases), "PYTHONPATH": str(ROOT)}


def testbed(cases: Path, *words: str) -> Answer:
    """Run the command with `--format json`."""
    options = ["run", "--out", str(cases / "case"), "--format", "json"]
    result = subprocess.run(
        [*COMMAND, *options, *words], capture_output=True, text=True, check=False, env=environment(cases), cwd=ROOT
    )
    return Answer(result.returncode, json.loads(result.stdout or "{}"), result.stderr, cases / "case")


testbed.__test__ = False  # type: ignore[attr-defined]  # a helper, whatever its name begins with
