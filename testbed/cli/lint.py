# SPDX-License-Identifier: Apache-2.0
"""`testbed lint`."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, verb
from testbed.cli.run import add_kernel, listen
from testbed.errors import ExitCode
from testbed.report import harmless
from testbed.status import Status

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.image import Image
    from testbed.lint.engine import Lint
    from testbed.verdict import Finding

EXAMPLES = """\
  testbed lint my.bpf.c                       compile it and say what will go wrong, run nothing
  testbed lint schedulers/*.bpf.c             several at once
  testbed lint my.bpf.o --format json         one JSON document on stdout
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "lint", "say what will go wrong, without running anything", lint, EXAMPLES)
    parser.add_argument("candidates", nargs="+", metavar="CANDIDATE", help="a `.bpf.c` or a compiled `.bpf.o`")
    add_kernel(parser)
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")


@dataclass
class _Answer:
    """What was found in one candidate; `refused` is what the build stage says against it."""

    name: str
    refused: list[Finding] = field(default_factory=list)
    lints: tuple[Lint, ...] = ()

    @property
    def errors(self) -> int:
        """How many things this kernel can't run."""
        return len(self.refused) + sum(one.rule.severity == "error" for one in self.lints)

    @property
    def warnings(self) -> int:
        """How many pieces of advice."""
        return sum(one.rule.severity == "warning" for one in self.lints)


def lint(options: Options) -> int:
    """Look at every candidate; 1 if one has an error, whatever the warnings."""
    from testbed import image as images

    with ExitStack() as stack:
        image = images.with_kernel(options.kernel, listen((), verbose=False, stack=stack))
        answers = [_look(word, image) for word in options.candidates]
    if options.format == "json":
        print(json.dumps(_document(answers), indent=2, sort_keys=True))
    else:
        for line in _lines(answers):
            sys.stdout.write(line + "\n")
    return int(ExitCode.REJECT if any(answer.errors for answer in answers) else ExitCode.PASS)


def _look(word: str, image: Image) -> _Answer:
    """Build a candidate in a directory of its own, and look at its object.

    Raises:
        UsageError: it is neither a source nor an object.
    """
    from testbed.build import build
    from testbed.build.compiler import OBJECT, SOURCE
    from testbed.build.hints import names_of
    from testbed.candidate import read_candidate
    from testbed.lint.engine import lint as check
    from testbed.lint.texts import PREFIX

    candidate = read_candidate(word)
    answer = _Answer(candidate.name)
    with tempfile.TemporaryDirectory(prefix="testbed-lint-") as folder:
        artifact = build(candidate, image, Path(folder))
        answer.refused = [
            one for one in artifact.findings if one.status is not Status.DONE and not one.code.startswith(PREFIX)
        ]
        object_ = Path(folder, OBJECT)
        if object_.is_file() and not answer.refused:
            names = names_of(image.vmlinux_h, image.include, image.include / "bpf")
            texts = candidate.sources.texts if candidate.sources is not None else {}
            answer.lints = check(object_.read_bytes(), texts, names, SOURCE)
    return answer


def _lines(answers: list[_Answer]) -> list[str]:
    """Text for people: each finding drawn, a blank line between them, the sum at the end."""
    parts: list[str] = []
    for answer in answers:
        for finding in answer.refused:
            place = "" if "\n" in finding.message else f"{answer.name}: error: "
            parts.append(f"{place}{finding.message}\nhint: {finding.hint} [{finding.code}]")
        parts += [one.text() for one in answer.lints]
    errors, warnings = sum(one.errors for one in answers), sum(one.warnings for one in answers)
    lines = [harmless(line) for part in parts for line in [*part.split("\n"), ""]]
    return [
        *lines,
        f"{_counted(len(answers), 'candidate')}: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}",
    ]


def _counted(number: int, noun: str) -> str:
    from testbed.build.diagnostics import counted

    return counted(number, noun)


def _document(answers: list[_Answer]) -> dict[str, object]:
    """`testbed.lint/1`: candidates with their findings."""
    return {
        "schema": "testbed.lint/1",
        "candidates": [
            {
                "name": answer.name,
                "errors": answer.errors,
                "warnings": answer.warnings,
                "findings": [
                    *(
                        {
                            "code": one.code, "severity": "error", "title": one.title, "message": one.message,
                            "file": one.evidence[0].file.removeprefix("candidate/") if one.evidence else "",
                            "line": (one.evidence[0].line or 0) if one.evidence else 0, "column": 0, "hint": one.hint,
                        }
                        for one in answer.refused
                    ),
                    *(one.document() for one in answer.lints),
                ],
            }
            for answer in answers
        ],
    }  # fmt: skip
