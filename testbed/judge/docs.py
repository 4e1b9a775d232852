# SPDX-License-Identifier: Apache-2.0
"""Pages of docs/reference that are generated from what the code knows, and the catch rate from what was measured.

`python -m testbed.judge.docs --write` writes them, `--check` says which are stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from testbed.corpus import document as corpus
from testbed.corpus.header import POLICIES
from testbed.gate.document import schema_text as gate_schema_text
from testbed.judge import catalogue, modes, noise, truth_table
from testbed.lint import texts as lint
from testbed.nightly.document import schema_text as nightly_schema_text
from testbed.report import corpus as corpus_report
from testbed.report.document import schema_text

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
README = ROOT / "README.md"
CATCH_RATES = [ROOT / "bpf" / "catch-rate" / f"{name}{part}.json" for name in POLICIES for part in ("", "-good")]
"""What was published, for each policy for which it was; the good ones may have been judged apart."""
_BLOCK = re.compile(r"(<!-- catch rate: .*? -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages() -> dict[str, str]:
    """File name → content."""
    return {
        "catch-rate.md": corpus_report.page(_catch_rates()),
        "codes.md": catalogue.page(),
        "failure-modes.md": modes.page(),
        "gate.schema.json": gate_schema_text(),
        "lint.md": lint.page(),
        "nightly.schema.json": nightly_schema_text(),
        "noise.md": noise.page(),
        "truth-table.md": truth_table.page(),
        "verdict.schema.json": schema_text(),
    }


def _catch_rates() -> list[corpus.Document]:
    return [corpus.read(file) for file in CATCH_RATES if file.is_file()]


def readme(text: str) -> str:
    """README with its table of the catch rate made anew.

    Raises:
        ValueError: there is no place for it.
    """
    table = corpus_report.summary(_catch_rates())
    made, count = _BLOCK.subn(lambda found: f"{found[1]}{table}{found[3]}", text)
    if count != 1:
        raise ValueError(f"README has {count} places for the catch rate, expected 1")
    return made


def stale(folder: Path = REFERENCE) -> list[str]:
    """Pages that are not what the code would write."""
    return [
        name
        for name, content in pages().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != content
    ] + ([README.name] if readme(text := README.read_text(encoding="utf-8")) != text else [])


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale."""
    if arguments == ["--write"]:
        for name, content in pages().items():
            (REFERENCE / name).write_text(content, encoding="utf-8")
        README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        names = stale()
        for name in names:
            sys.stderr.write(f"{name} is stale: run `python -m testbed.judge.docs --write`\n")
        return 1 if names else 0
    sys.stderr.write("usage: python -m testbed.judge.docs --write|--check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
