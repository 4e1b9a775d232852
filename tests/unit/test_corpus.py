# SPDX-License-Identifier: Apache-2.0
"""Every scheduler of `bpf/` says what it is and what must become of it; no guest is needed to check that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.judge.catalogue import ALL
from testbed.lint.texts import RULES

BPF = Path(__file__).resolve().parents[2] / "bpf"
GOOD = sorted(BPF.glob("good/*.bpf.c"))
BAD = sorted(BPF.glob("bad/*.bpf.c"))
PROGRAMS = sorted(path for path in BPF.glob("bad/*") if path.is_dir())
SCHEDULERS = [*GOOD, *BAD]

SPDX = "// SPDX-License-Identifier: GPL-2.0-only\n"
HEADER = re.compile(r"\A// SPDX-License-Identifier: GPL-2\.0-only\n/\*\n(?P<text>( \*.*\n)+?) \*/\n")
EXPECT = re.compile(r"^ \* expect: (?P<verdict>pass|reject)(?: (?P<codes>[a-z-]+(?:,[a-z-]+)*))?$", re.MULTILINE)


LINT = re.compile(r"^ \* lint: (?P<codes>[a-z0-9-]+(?:,[a-z0-9-]+)*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.name.removesuffix(".bpf.c")


def header_of(path: Path) -> str:
    found = HEADER.match(path.read_text())
    assert found, f"{path.name}: no SPDX line followed by one comment"
    return found["text"]


def expectation_of(path: Path) -> tuple[str, list[str]]:
    found = EXPECT.findall(header_of(path))
    assert len(found) == 1, f"{path.name}: expected one `expect:` line, found {len(found)}"
    verdict, codes = found[0]
    return verdict, codes.split(",") if codes else []


def lint_of(path: Path) -> list[str]:
    """What the lint must find, exactly."""
    found = LINT.findall(header_of(path))
    assert len(found) <= 1, f"{path.name}: several `lint:` lines"
    return found[0].split(",") if found else []


def main_source(program: Path) -> Path:
    return program / f"{program.name}.c"


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(GOOD) >= 5
    assert len(BAD) >= 14
    assert PROGRAMS


def test_names_are_unique_over_both_folders() -> None:
    names = [name_of(path) for path in SCHEDULERS] + [path.name for path in PROGRAMS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", [*SCHEDULERS, *map(main_source, PROGRAMS)], ids=lambda path: path.name)
def test_the_header_begins_with_the_name(path: Path) -> None:
    name = name_of(path).removesuffix(".c")
    assert re.match(rf" \* {re.escape(name)}: \S.*\.\n \*\n", header_of(path))


@pytest.mark.parametrize("path", GOOD, ids=name_of)
def test_a_good_scheduler_is_expected_to_pass(path: Path) -> None:
    assert expectation_of(path) == ("pass", [])


@pytest.mark.parametrize("path", [*BAD, *map(main_source, PROGRAMS)], ids=lambda path: path.name)
def test_a_bad_scheduler_tells_its_failure_mode_and_known_codes(path: Path) -> None:
    verdict, codes = expectation_of(path)
    assert verdict == "reject"
    assert codes
    assert len(set(codes)) == len(codes)
    assert set(codes) <= set(ALL), f"unknown: {sorted(set(codes) - set(ALL))}"
    assert "\n * Failure mode: " in header_of(path)


@pytest.mark.parametrize("path", SCHEDULERS, ids=name_of)
def test_the_lint_line_names_known_rules_and_no_good_scheduler_has_one(path: Path) -> None:
    codes = lint_of(path)
    assert codes == sorted(set(codes))
    assert set(codes) <= set(RULES)
    assert not (codes and path in GOOD)


def test_every_rule_of_the_lint_has_a_bad_scheduler() -> None:
    assert {code for path in BAD for code in lint_of(path)} == set(RULES)


@pytest.mark.parametrize("path", SCHEDULERS, ids=name_of)
def test_file_ops_and_callbacks_have_one_name(path: Path) -> None:
    name = name_of(path)
    text = path.read_text()
    assert re.findall(r'\.name\s*=\s*"([^"]*)"', text) == [name]
    assert re.findall(r"SCX_OPS_DEFINE\((\w+)", text) == [name]
    callbacks = re.findall(r"BPF_STRUCT_OPS(?:_SLEEPABLE)?\((\w+)", text)
    assert callbacks
    assert all(callback.startswith(f"{name}_") for callback in callbacks)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_has_its_source_its_scheduler_and_a_recipe(program: Path) -> None:
    assert main_source(program).is_file()
    assert list(program.glob("*.bpf.c"))
    recipe = program / "build.sh"
    assert recipe.stat().st_mode & 0o111
    assert "SPDX-License-Identifier: GPL-2.0-only" in recipe.read_text()
    assert all(path.read_text().startswith(SPDX) for path in program.glob("*.c"))


@pytest.mark.parametrize("path", sorted(BPF.rglob("*.c")), ids=lambda path: path.name)
def test_lines_are_tidy(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("}\n") or text.endswith(");\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert len(line.expandtabs(8)) <= 100 or line.startswith((" * expect: ", " * lint: "))
