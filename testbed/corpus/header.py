# SPDX-License-Identifier: Apache-2.0
"""The header of a scheduler of the corpus: what it is, and what must become of it (bpf/README.md)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import scenario
from testbed.corpus.classes import CLASSES
from testbed.errors import UsageError
from testbed.judge.catalogue import ALL
from testbed.lint.texts import RULES
from testbed.sources import MAX_FILE, read_bounded
from testbed.spec import Topology
from testbed.topology import MEMORY_MB, PRESETS
from testbed.verdict import Outcome
from testbed.yamlfile import did_you_mean

POLICIES = ("quick", "default", "full")
"""Each asks everything that the one before it asks."""

KEYS = ("class", "expect", "lint", "needs", "policy", "scenario", "seeds", "worse")
# In two parts: a licence tool would take it for this file's own.
_SPDX = "// SPDX-" + "License-Identifier: GPL-2.0-only"
_FIELD = re.compile(r" \* ([a-z]+): ?(.*)")
_EXPECT = re.compile(r"(pass|reject)(?: ([a-z0-9-]+(?:,[a-z0-9-]+)*))?")
_SEEDS = re.compile(r"([1-9][0-9]{0,2}) of ([a-z0-9-]+)")
_CODES = re.compile(r"[a-z0-9-]+(?:,[a-z0-9-]+)*")
_CPUS = re.compile(r"([1-9][0-9]?) CPUs?")


@dataclass(frozen=True)
class Header:
    """What the first comment of a scheduler says.

    Attributes:
        outcome: the verdict that it must get.
        failure_class: of a bad one, of CLASSES; empty for a good one.
        codes: one of them must be among the findings; empty: one of the class's.
        policy: the least policy that can see the fault, all of it is run; empty: any.
        scenario: the fault needs this one, and it alone is run; empty: all of the policy.
        seeds: orders of events that the fault needs.
        needs: what it needs to show, as it is written.
        lint: what the lint finds, exactly.
    """

    name: str
    outcome: Outcome
    failure_class: str = ""
    codes: tuple[str, ...] = ()
    policy: str = ""
    scenario: str = ""
    seeds: int | None = None
    needs: str = ""
    lint: tuple[str, ...] = ()

    @property
    def machine(self) -> tuple[str, Topology] | None:
        """The machine among what it needs, with its name; None: any machine will do."""
        for word in re.split(r"[|,;]", self.needs):
            name = word.strip()
            if name in PRESETS:
                return name, PRESETS[name]
            if (found := _CPUS.fullmatch(name)) and int(found[1]) <= 64:
                return f"{found[1]}-cpus", Topology(cpus=int(found[1]), memory_mb=MEMORY_MB)
        return None

    def named_rightly(self, found: Sequence[str]) -> bool:
        """Whether the codes of a rejection name what is wrong with it."""
        wanted = set(self.codes) or CLASSES[self.failure_class].codes
        return not wanted or bool(wanted & set(found))


def read(file: Path, *, good: bool) -> Header:
    """Read and check the header of a file that lies among the good or among the bad ones.

    Raises:
        UsageError: it lacks something, or says what can't be true; with file and line.
    """
    try:
        text = read_bounded(file, MAX_FILE, "a source file").decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"`{file}` is not UTF-8") from None
    return parse(text, str(file), name=file.name.removesuffix(".c").removesuffix(".bpf"), good=good)


def parse(text: str, file: str, *, name: str, good: bool) -> Header:
    """Check a header; `file` is how messages name it, `name` is what the header must call it."""
    return _Reader(file, text.split("\n")).header(name, good=good)


class _Reader:
    """One header with its line numbers."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self._file = file
        if lines[0] != _SPDX:
            raise self._error(1, f"expected `{_SPDX}`")
        if lines[1:2] != ["/*"]:
            raise self._error(2, "expected the header, one comment that begins with `/*` on a line of its own")
        try:
            self._end = lines.index(" */", 2)
        except ValueError:
            raise self._error(2, "the header does not end: expected ` */` on a line of its own") from None
        self._lines = lines

    def header(self, name: str, *, good: bool) -> Header:
        """Everything that it says, checked."""
        if not re.fullmatch(rf" \* {re.escape(name)}: \S.*", self._lines[2]):
            raise self._error(3, f"the header must begin with ` * {name}: ` and say in a line what it is")
        fields = self._fields()
        line, word = self._need(fields, "expect", "a verdict, ` * expect: pass` or ` * expect: reject CODE[,CODE…]`")
        expected = _EXPECT.fullmatch(word)
        if expected is None:
            raise self._error(line, f"`expect: {word}`: expected `pass`, or `reject` and codes with commas between")
        outcome = Outcome(expected[1])
        if (outcome is Outcome.PASS) != good:
            raise self._error(line, f"`expect: {outcome}` in the folder of the {'good' if good else 'bad'} ones")
        codes = self._known(line, expected[2] or "", ALL, "finding code")
        if good and codes:
            raise self._error(line, "a scheduler that must pass has no codes")
        if not good and not any(one.startswith(" * Failure mode: ") for one in self._lines[2 : self._end]):
            raise self._error(3, "the header has no ` * Failure mode: `")
        scenario_line, scenario_name, seeds = self._scenario(fields)
        policy_line, policy_name = fields.get("policy", (0, ""))
        if policy_name:
            self._known(policy_line, policy_name, POLICIES, "policy")
        if scenario_name:
            self._known(scenario_line, scenario_name, scenario.load_all(), "scenario")
        return Header(
            name=name,
            outcome=outcome,
            failure_class="" if good else self._class(fields),
            codes=codes,
            policy=policy_name,
            scenario=scenario_name,
            seeds=seeds,
            needs=fields.get("needs", (0, ""))[1],
            lint=self._lint(fields),
        )

    def _class(self, fields: dict[str, tuple[int, str]]) -> str:
        line, word = self._need(fields, "class", "a failure class, ` * class: NAME`")
        self._known(line, word, CLASSES, "failure class")
        return word

    def _scenario(self, fields: dict[str, tuple[int, str]]) -> tuple[int, str, int | None]:
        """Line and name of the one scenario that is run, and how many orders of events."""
        if "seeds" not in fields:
            return *fields.get("scenario", (0, "")), None
        line, word = fields["seeds"]
        found = _SEEDS.fullmatch(word)
        if found is None:
            raise self._error(line, f"`seeds: {word}`: expected `N of SCENARIO`")
        if "scenario" in fields:
            raise self._error(fields["scenario"][0], "`seeds:` names the scenario already")
        return line, found[2], int(found[1])

    def _lint(self, fields: dict[str, tuple[int, str]]) -> tuple[str, ...]:
        if "lint" not in fields:
            return ()
        line, word = fields["lint"]
        if not _CODES.fullmatch(word):
            raise self._error(line, f"`lint: {word}`: expected codes with commas between")
        return self._known(line, word, RULES, "rule of the lint")

    def _fields(self) -> dict[str, tuple[int, str]]:
        """Line number and text of each `key: value`; the first line is the name's."""
        found: dict[str, tuple[int, str]] = {}
        block: list[tuple[int, str]] = []
        for number, key, value in self._words():
            block.append((number, key))
            if key not in KEYS:
                continue
            if key in found:
                raise self._error(number, f"a second `{key}:`; the first is in line {found[key][0]}")
            found[key] = (number, value.strip())
        # A misspelt key stands among the others; anywhere else a word with a colon is prose.
        place = found.get("expect", (0, ""))[0]
        for number, key in block:
            if key not in KEYS and self._same_block(number, place):
                raise self._error(number, f"unknown key `{key}`", did_you_mean(key, KEYS))
        return found

    def _words(self) -> Iterator[tuple[int, str, str]]:
        for index in range(3, self._end):
            if found := _FIELD.fullmatch(self._lines[index]):
                yield index + 1, found[1], found[2]

    def _same_block(self, one: int, other: int) -> bool:
        """Whether no blank line is between two lines."""
        return other > 0 and all(line.strip() != "*" for line in self._lines[min(one, other) - 1 : max(one, other)])

    def _need(self, fields: dict[str, tuple[int, str]], key: str, what: str) -> tuple[int, str]:
        if key not in fields:
            raise self._error(self._end + 1, f"the header has no `{key}:` line, expected {what}")
        return fields[key]

    def _known(self, line: int, words: str, known: Collection[str], what: str) -> tuple[str, ...]:
        """The words of a list with commas, each once and known."""
        found = tuple(word for word in words.split(",") if word)
        for index, word in enumerate(found):
            if word not in known:
                raise self._error(line, f"there is no {what} `{word}`", did_you_mean(word, known))
            if word in found[:index]:
                raise self._error(line, f"`{word}` is named twice")
        return found

    def _error(self, line: int, message: str, hint: str = "") -> UsageError:
        return UsageError(f"{self._file}:{line}: {message}", hint=hint)
