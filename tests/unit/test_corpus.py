# SPDX-License-Identifier: Apache-2.0
"""Every scheduler of `bpf/` says what it is and what must become of it; no guest is needed to check that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.noise_floor import CONTROL, worse
from testbed.corpus import Header, header
from testbed.lint.texts import RULES
from testbed.scenario import load_all

BPF = Path(__file__).resolve().parents[2] / "bpf"
GOOD = sorted(BPF.glob("good/*.bpf.c"))
BAD = sorted(BPF.glob("bad/*.bpf.c"))
PROGRAMS = sorted(path for path in BPF.glob("bad/*") if path.is_dir())
SCHEDULERS = [*GOOD, *BAD]

SPDX = "// SPDX-License-Identifier: GPL-2.0-only\n"


def name_of(path: Path) -> str:
    return path.name.removesuffix(".bpf.c")


def header_of(path: Path) -> Header:
    return header.read(path, good=path in GOOD)


def lint_of(path: Path) -> list[str]:
    """What the lint must find, exactly."""
    return list(header_of(path).lint)


def main_source(program: Path) -> Path:
    return program / f"{program.name}.c"


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(GOOD) >= 15
    assert len(BAD) >= 60
    assert PROGRAMS


def test_names_are_unique_over_both_folders() -> None:
    names = [name_of(path) for path in SCHEDULERS] + [path.name for path in PROGRAMS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", [*SCHEDULERS, *map(main_source, PROGRAMS)], ids=lambda path: path.name)
def test_the_header_can_be_read_and_names_codes_for_a_bad_one(path: Path) -> None:
    found = header_of(path)
    assert bool(found.codes) == (path not in GOOD)


@pytest.mark.parametrize("path", SCHEDULERS, ids=name_of)
def test_the_lint_line_is_in_order_and_no_good_scheduler_has_one(path: Path) -> None:
    codes = lint_of(path)
    assert codes == sorted(codes)
    assert not (codes and path in GOOD)


def test_the_worse_line_is_for_good_schedulers_and_names_what_there_is() -> None:
    controls = [path for path in SCHEDULERS if " * worse: " in path.read_text()]
    assert CONTROL in controls
    assert set(controls) <= set(GOOD)
    for path in controls:
        figure, place, original = worse(path)
        assert figure in {one.name for one in load_all()[place].figures}
        assert original in map(name_of, GOOD)


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


@pytest.mark.parametrize("path", sorted({*BPF.rglob("*.c")} - {*BPF.glob("blind/**/*.c")}), ids=lambda path: path.name)
def test_lines_are_tidy(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("}\n") or text.endswith(");\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert len(line.expandtabs(8)) <= 100 or line.startswith((" * expect: ", " * lint: "))
