# SPDX-License-Identifier: Apache-2.0
"""The way in: an object and what is known of its source, to findings that point at lines.

for found in lint(data, tree.texts, names):
    print(found.text())
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from testbed import elf
from testbed.btf import BtfError, Line
from testbed.build.diagnostics import Diagnostic, render
from testbed.build.hints import Names
from testbed.build.object import BpfObject, ObjectError, inspect_object
from testbed.build.rules import schedulers
from testbed.lint import cpus, queues, table, tasks, waits
from testbed.lint.code import Code, read_code
from testbed.lint.facts import Facts, Hit, Place, gather
from testbed.lint.kernel import Kernel
from testbed.lint.texts import MAX_LINTS, RULES, Rule
from testbed.sources import printable
from testbed.status import Status
from testbed.verdict import EvidenceRef, Finding

FAMILIES = (queues, tasks, cpus, waits, table)
_CONSTANT = re.compile(r"^\t(SCX_\w+) = (-?\d{1,20})[UL]*,", re.MULTILINE)


@dataclass(frozen=True)
class Lint:
    """One thing that a rule found.

    Attributes:
        where: message and place; `severity` is the rule's.
        sources: the texts that the place may be in.
        own: whether the place is in a file of the candidate that we have.
    """

    rule: Rule
    where: Diagnostic
    sources: Mapping[str, str]
    own: bool

    def text(self) -> str:
        """Several lines: place, message, code; the source line with an underline; a hint."""
        head, *rest = render(self.where, self.sources).split("\n")
        return "\n".join([f"{head} [{self.rule.code}]", *rest, f"hint: {self.rule.fix}"])

    def finding(self) -> Finding:
        """The same as a finding of the build stage: advice (DONE), or FAIL for what this kernel can't run."""
        lines = self.sources.get(self.where.file, "").split("\n")
        evidence = EvidenceRef(file="candidate/artifact.json")
        if self.own and 1 <= self.where.line <= len(lines):
            text = printable(lines[self.where.line - 1].strip(), 400)
            evidence = EvidenceRef(file=f"candidate/{self.where.file}", line=self.where.line, text=text)
        return Finding(
            code=self.rule.code,
            status=Status.FAIL if self.rule.severity == "error" else Status.DONE,
            title=self.rule.title,
            message=render(self.where, self.sources),
            evidence=(evidence,),
            cause=self.rule.cause,
            hint=self.rule.fix,
        )

    def document(self) -> dict[str, object]:
        """The same for a script."""
        return {
            "code": self.rule.code,
            "severity": self.rule.severity,
            "title": self.rule.title,
            "message": self.where.message,
            "file": self.where.file,
            "line": self.where.line,
            "column": self.where.column,
            "hint": self.rule.fix,
        }


def lint(data: bytes, sources: Mapping[str, str], names: Names, prefix: str = "/src/") -> tuple[Lint, ...]:
    """What the rules find in an object, at most twenty things, errors first; none in what is no scheduler.

    Args:
        data: the object.
        sources: the candidate's source files by relative path, where they are known.
        names: what the guest's kernel offers.
        prefix: directory of the sources in the compiler's sandbox.
    """
    try:
        seen, code = inspect_object(data), read_code(data)
    except (ObjectError, elf.ElfError, BtfError):
        return ()  # the build stage says what is wrong with it
    ours = schedulers(seen)
    if len(ours) != 1:
        return ()
    facts = _facts(seen, code, names)
    checks = [family.check for family in FAMILIES] if facts.found.complete else [table.always]
    hits = dict.fromkeys(hit for check in checks for hit in check(facts))
    found = [_point(hit, facts, sources, prefix) for hit in hits]
    ranked = sorted(found, key=lambda one: (one.rule.severity != "error", one.where.file, one.where.line))
    return tuple(ranked[:MAX_LINTS])


def _facts(seen: BpfObject, code: Code, names: Names) -> Facts:
    return gather(schedulers(seen)[0], seen, code, Kernel(constants(names), names.kfuncs))


def constants(names: Names) -> dict[str, int]:
    """The constants of sched_ext, from the kernel's types."""
    return dict(_constants(names.text))


@lru_cache(maxsize=4)
def _constants(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, int(number) & (1 << 64) - 1) for name, number in _CONSTANT.findall(text))


# --- places ----------------------------------------------------------------------------------------------------


def _point(hit: Hit, facts: Facts, sources: Mapping[str, str], prefix: str) -> Lint:
    rule = RULES[hit.code]
    placed = _of_field(hit, facts, sources) if hit.field else None
    if placed is None and hit.place is not None:
        placed = _of_instruction(hit.place, facts.code, sources, prefix)
    if placed is None:
        return Lint(rule, Diagnostic(rule.severity, hit.message), {}, own=False)
    file, line, column, length, text = placed
    own = file in sources
    texts = sources if own else {file: "\n" * (line - 1) + text} if line < 1 << 20 else {}
    shown = printable(file, 200)
    return Lint(
        rule, Diagnostic(rule.severity, hit.message, shown, line, column, length), {shown: texts.get(file, "")}, own
    )


_Placed = tuple[str, int, int, int, str]


def _of_field(hit: Hit, facts: Facts, sources: Mapping[str, str]) -> _Placed | None:
    """The line where a field of the table is set, by its spelling."""
    for file, text in sources.items():
        for number, line in enumerate(text.split("\n"), 1):
            match = re.search(rf"\.{hit.field}\s*=[^,)]*", line)
            if match:
                return file, number, match.start() + 1, len(match.group().rstrip()), line
    return None


def _of_instruction(place: Place, code: Code, sources: Mapping[str, str], prefix: str) -> _Placed | None:
    """The candidate's own line that an instruction comes from.

    The instructions of the kernel's inline functions carry the lines of its headers; the line that is meant is the
    nearest own one before them, or the next one that spells the function's name.
    """
    function = code.functions.get(place.function)
    if function is None or not function.lines:
        return None
    before = function.before(place.slot or 0)
    first = before[-1].file if before else ""
    own = [line for line in before if _relative(line, prefix) in sources] or [
        line for line in before if line.file == first
    ]
    if not own:
        return None
    line = own[0] if place.slot is not None else own[-1]
    file = _relative(line, prefix)
    known = sources.get(file)
    if known is None:
        shown = file.rsplit("/", 1)[-1]
        return shown, line.line, line.column, _length(line.text, line.column), line.text
    lines = known.split("\n")
    if place.token:
        for number, match in _spelled(lines, line.line, place.token):
            return file, number, match.start() + 1, _length(lines[number - 1], match.start() + 1), lines[number - 1]
    text = lines[line.line - 1] if 1 <= line.line <= len(lines) else line.text
    if place.line:
        return file, line.line, len(text) - len(text.lstrip()) + 1, len(text.strip()), text
    return file, line.line, line.column, _length(text, line.column), text


def _spelled(lines: list[str], start: int, token: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Places from a line to the end of its function where a word stands."""
    pattern = re.compile(rf"\b{re.escape(token)}\b")
    for number in range(max(1, start), len(lines) + 1):
        match = pattern.search(lines[number - 1])
        if match:
            yield number, match
        if lines[number - 1].startswith("}"):
            return


def _relative(line: Line, prefix: str) -> str:
    return line.file.removeprefix(prefix).removeprefix("./")


def _length(text: str, column: int) -> int:
    """How much to underline: to the end of the call that begins there, else the word."""
    rest = text[max(0, column - 1) :]
    word = re.match(r"\w+", rest)
    if word is None:
        return 1
    depth = 0
    for index in range(word.end(), len(rest)):
        char = rest[index]
        if index == word.end() and char != "(":
            return word.end()
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return index + 1
    return len(rest.rstrip())
