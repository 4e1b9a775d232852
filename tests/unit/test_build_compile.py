# SPDX-License-Identifier: Apache-2.0
"""What the compiler said, pointed at and hinted at.

Each folder of `tests/golden/build/compile` holds a source, what clang 22 printed in the sandbox, and the findings that
we expect. `TESTBED_UPDATE_GOLDEN=1` writes the findings anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.build.compiler import INCLUDE, SOURCE, Compiled
from testbed.build.diagnostics import Diagnostic, parse_clang, render
from testbed.build.faults import compile_findings, refused
from testbed.build.hints import Names, hint_for, suggestion
from testbed.sources import SourceTree, collect
from testbed.status import Status
from testbed.verdict import Finding

GOLDEN = Path(__file__).parents[1] / "golden" / "build" / "compile"
CASES = sorted(path.name for path in GOLDEN.iterdir())
NAMES = Names(
    functions=frozenset({"scx_bpf_dsq_insert", "scx_bpf_kick_cpu", "scx_bpf_dsq_move_to_local", "bpf_task_release"}),
    constants=frozenset({"SCX_DSQ_GLOBAL", "SCX_SLICE_DFL"}),
    types=frozenset({"task_struct"}),
    text="struct sched_ext_ops {\n\ts32 (*select_cpu)(struct task_struct *, s32, u64);\n"
    "\tvoid (*enqueue)(struct task_struct *, u64);\n\tu32 timeout_ms;\n\tchar name[128];\n};\n",
)


def told(findings: list[Finding]) -> str:
    parts = []
    for finding in findings:
        evidence = ", ".join(f"{each.file}:{each.line}" if each.line else each.file for each in finding.evidence)
        parts.append(
            f"{finding.status} {finding.code}: {finding.title}\n{finding.message}\n"
            f"cause: {finding.cause}\nhint: {finding.hint}\nevidence: {evidence}\n"
        )
    return "\n".join(parts)


def findings_of(tree: SourceTree, said: str) -> list[Finding]:
    diagnostics = tuple(parse_clang(said, tree.texts, SOURCE, f"{INCLUDE}/"))
    return list(compile_findings(tree, Compiled(None, diagnostics, "", (), said), NAMES))


@pytest.mark.parametrize("name", CASES)
def test_what_clang_said_is_pointed_at(name: str) -> None:
    folder = GOLDEN / name
    source = folder / "candidate.bpf.c"
    tree = collect(source, source.read_bytes())
    hard = [refused(tree, each) for each in tree.refusals if each.hard]
    said = folder / "clang.txt"
    text = told(hard or findings_of(tree, said.read_text() if said.exists() else ""))
    expected = folder / "expected.txt"
    if os.environ.get("TESTBED_UPDATE_GOLDEN"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("call to undeclared function 'scx_bpf_consume'", "now: scx_bpf_dsq_move_to_local(dsq_id, 0)"),
        ("call to undeclared function 'scx_bpf_dispatch_vtime'", "now: scx_bpf_dsq_insert_vtime("),
        ("call to undeclared function 'scx_bpf_dispatch_from_dsq'", "now: scx_bpf_dsq_move("),
        ("call to undeclared function 'scx_bpf_cpu_rq'", "scx_bpf_cpu_curr(cpu)"),
        ("call to undeclared function 'scx_bpf_kick_cpuu'", "did you mean `scx_bpf_kick_cpu`?"),
        ("use of undeclared identifier 'SCX_DSQ_GLOBALL'", "did you mean `SCX_DSQ_GLOBAL`?"),
        ("unknown type name 'task_struct'", "write `struct task_struct`"),
        ("no member named 'timeout' in 'struct sched_ext_ops'", "did you mean `timeout_ms`?"),
        ("field designator 'enqeue' does not refer to any field in type 'sched_ext_ops'", "did you mean `enqueue`?"),
        ("'linux/sched.h' file not found", "a BPF program includes `vmlinux.h`"),
        ("'lib/sdt_task.h' file not found", "belongs to the sched-ext/scx repository"),
        ("the stack limit of 512 bytes is exceeded", "put large data into a map"),
        ("expected ';' after expression", ""),
    ],
)  # fmt: skip
def test_a_name_that_the_compiler_does_not_know_gets_a_hint(message: str, hint: str) -> None:
    assert hint in hint_for(message, (), NAMES)
    assert bool(hint) == bool(hint_for(message, (), NAMES))


def test_a_header_of_the_own_folder_in_angle_brackets_is_told_to_take_quotes() -> None:
    assert hint_for("'mine.h' file not found", (), NAMES, frozenset({"mine.h"})) == (
        'write `#include "mine.h"` for a file of your own folder'
    )


def test_the_same_message_on_many_lines_is_one_finding_with_all_places() -> None:
    text = "a();\na();\na();\n"
    tree = SourceTree("x.bpf.c", {"x.bpf.c": text.encode()})
    said = "".join(f"/src/x.bpf.c:{line}:1: error: call to undeclared function 'a'\n" for line in (1, 2, 3))
    (finding,) = findings_of(tree, said)
    assert [each.line for each in finding.evidence] == [1, 2, 3]
    assert finding.cause == "clang stopped at 3 errors, 3 of them like this one"


def test_a_compiler_that_fails_without_a_message_is_told() -> None:
    tree = SourceTree("x.bpf.c", {"x.bpf.c": b"int a;\n"})
    (finding,) = findings_of(tree, "")
    assert finding.title == "does not compile"


@pytest.mark.parametrize(
    ("what", "status"), [("time", Status.ERROR), ("processor time", Status.FAIL), ("memory", Status.FAIL)]
)
def test_only_the_hosts_clock_is_not_the_candidates_fault(what: str, status: Status) -> None:
    tree = SourceTree("x.bpf.c", {"x.bpf.c": b"int a;\n"})
    (finding,) = compile_findings(tree, Compiled(None, (), what, (), ""), NAMES)
    assert (finding.code, finding.status) == ("compile-limit", status)


def test_columns_count_characters_where_clang_counts_bytes() -> None:
    sources = {"x.bpf.c": 'char *s = "é"; undefd = 3;\n'}
    (found,) = parse_clang("/src/x.bpf.c:1:17:{1:17-1:23}: error: no\n", sources, "/src/", "/tmp/include/")
    assert (found.column, found.length) == (16, 6)
    assert render(found, sources).split("\n")[2] == "   |                ^^^^^^"


def test_an_endless_line_is_shown_around_its_place() -> None:
    sources = {"x.bpf.c": "a" * 5000 + "bad" + "c" * 5000}
    lines = render(Diagnostic("error", "no", "x.bpf.c", 1, 5001, 3), sources).split("\n")
    assert all(len(line) < 300 for line in lines)
    assert lines[1][lines[2].index("^") : lines[2].index("^") + 3] == "bad"


def test_control_characters_of_a_source_line_are_not_drawn() -> None:
    sources = {"x.bpf.c": "int \x1b[31mred\x07;\n"}
    drawn = render(Diagnostic("error", "no", "x.bpf.c", 1, 5, 1), sources)
    assert "\x1b" not in drawn
    assert "\x07" not in drawn


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_taken_as_the_compilers(said: str) -> None:
    sources = {"a": "x\ny\n"}
    for found in parse_clang(said + "\na:2:99999: error: x\na:0:0:{9:9-9:9}: note: y\n", sources, "/src/", "/h/"):
        render(found, sources)


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(-3, 80), st.integers(-3, 80))
def test_any_place_can_be_drawn(line: str, column: int, length: int) -> None:
    render(Diagnostic("error", "m", "f", 1, column, length), {"f": line})


def test_a_suggestion_is_near_or_none() -> None:
    assert suggestion("scx_bpf_dsq_inserted", sorted(NAMES.functions)) == "scx_bpf_dsq_insert"
    assert suggestion("printf", sorted(NAMES.functions)) == ""
