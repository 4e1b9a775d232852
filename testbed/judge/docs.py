# SPDX-License-Identifier: Apache-2.0
"""Pages of docs/reference that are generated from what the code knows.

`python -m testbed.judge.docs --write` writes them, `--check` says which are stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from testbed.gate.document import schema_text as gate_schema_text
from testbed.judge import catalogue, modes, truth_table
from testbed.lint import texts as lint
from testbed.report.document import schema_text

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """File name → content."""
    return {
        "codes.md": catalogue.page(),
        "failure-modes.md": modes.page(),
        "gate.schema.json": gate_schema_text(),
        "lint.md": lint.page(),
        "truth-table.md": truth_table.page(),
        "verdict.schema.json": schema_text(),
    }


def stale(folder: Path = REFERENCE) -> list[str]:
    """Pages that are not what the code would write."""
    return [
        name
        for name, content in pages().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != content
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale."""
    if arguments == ["--write"]:
        for name, content in pages().items():
            (REFERENCE / name).write_text(content, encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        names = stale()
        for name in names:
            sys.stderr.write(f"docs/reference/{name} is stale: run `python -m testbed.judge.docs --write`\n")
        return 1 if names else 0
    sys.stderr.write("usage: python -m testbed.judge.docs --write|--check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
