# SPDX-License-Identifier: Apache-2.0
"""Which files belong to a candidate, and which ones it does not get."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.sources import VMLINUX_STUB, SourceTree, collect, printable


def tree(folder: Path, main: str, **files: str) -> SourceTree:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_h", ".h")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "main.bpf.c").write_text(main)
    return collect(folder / "main.bpf.c", main.encode())


def refusals(found: SourceTree) -> list[tuple[str, int, str, bool]]:
    return [(each.file, each.line, each.message, each.hard) for each in found.refusals]


def test_included_files_are_taken_transitively_and_nothing_else(tmp_path: Path) -> None:
    found = tree(
        tmp_path / "c",
        '#include <scx/common.bpf.h>\n#include "a.h"\n',
        a_h='#include "sub/b.h"\n',
        sub__b_h='#include "c.h"\n#include "../a.h"\n',
        sub__c_h="",
        unused_h="",
    )
    assert list(found.files) == ["a.h", "main.bpf.c", "sub/b.h", "sub/c.h"]
    assert found.refusals == ()


@pytest.mark.parametrize(
    "line",
    [
        '#include "a.h"',
        '  #  include   "a.h" // why',
        '%:include "a.h"',
        '#include /* x */ "a.h"',
        '#inc\\\nlude "a.h"',
        '#import "a.h"',
        '#if 0\n#include "a.h"\n#endif',
        '#define A "a.h"\n#include A',
        '#define A B\n#define B "a.h"\n#include A',
    ],
)
def test_every_way_to_write_an_include_is_found(tmp_path: Path, line: str) -> None:
    assert "a.h" in tree(tmp_path / "c", line + "\n", a_h="int a;").files


@pytest.mark.parametrize("line", ['// #include "a.h"', '/* \n#include "a.h"\n*/', 'char x[] = "\\\n#include a.h";'])
def test_comments_and_strings_include_nothing(tmp_path: Path, line: str) -> None:
    assert "a.h" not in tree(tmp_path / "c", line + "\n", a_h="int a;").files


@pytest.mark.parametrize(
    ("line", "message", "hard"),
    [
        ('#include "/etc/passwd"', 'absolute path "/etc/passwd" is refused', True),
        ("#include </etc/passwd>", "absolute path </etc/passwd> is refused", True),
        ('#define P "/etc/passwd"\n#include P', 'absolute path "/etc/passwd" is refused', True),
        ('#if __has_include("/etc/passwd")\n#endif', 'absolute path "/etc/passwd" is refused', True),
        ('char x[] = {\n#embed "x.h"\n};', "`#embed` is refused: a scheduler is source, not data", True),
        ('asm(".incbin \\"/etc/passwd\\"");', "the assembler may not read files", True),
        ('#include "../out.h"', '"../out.h" leads out of the candidate\'s folder', False),
        ('#include "sub/../../out.h"', '"sub/../../out.h" leads out of the candidate\'s folder', False),
        ('#include ".hidden/x.h"', "`.hidden/x.h` is hidden, and hidden files are not taken", False),
        ('#include "data.txt"', "`data.txt` is neither `.h` nor `.c`", False),
        ("#include NAME(x)", "`#include NAME(x)`: the macro names no file that can be found by reading", False),
        ('#include "link.h"', "`link.h` is a link that leads out of the candidate's folder", True),
        ('#include "folder/x.h"', "`folder/x.h` is a link that leads out of the candidate's folder", True),
    ],
)
def test_what_a_candidate_does_not_get_is_pointed_at(tmp_path: Path, line: str, message: str, hard: bool) -> None:
    (tmp_path / "out.h").write_text("secret")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.h").write_text("secret")
    folder = tmp_path / "c"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "x.h").write_text("")
    (folder / "data.txt").write_text("")
    (folder / "sub").mkdir()
    (folder / "link.h").symlink_to(tmp_path / "out.h")
    (folder / "folder").symlink_to(outside)
    found = tree(folder, line + "\n")
    assert [(message_, hard_) for _, _, message_, hard_ in refusals(found)] == [(message, hard)]
    assert list(found.files) == ["main.bpf.c"]


def test_a_link_inside_the_folder_is_taken_as_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "real.h").write_text("int a;")
    (folder / "link.h").symlink_to("real.h")
    assert tree(folder, '#include "link.h"\n').files["link.h"] == b"int a;"


def test_the_guests_own_types_take_the_place_of_a_copied_vmlinux_h(tmp_path: Path) -> None:
    found = tree(tmp_path / "c", '#include "vmlinux.h"\n', vmlinux_h="struct task_struct { int wrong; };")
    assert found.files["vmlinux.h"] == VMLINUX_STUB


def test_names_that_the_case_uses_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    (folder / "candidate.bpf.o").mkdir(parents=True)
    (folder / "candidate.bpf.o" / "x.h").write_text("")
    found = tree(folder, '#include "candidate.bpf.o/x.h"\n')
    assert refusals(found)[0][2] == "`candidate.bpf.o/x.h`: that name is used by the testbed"


def test_a_place_counts_lines_and_columns_from_one(tmp_path: Path) -> None:
    found = tree(tmp_path / "c", '\n/* a\n b */  #include "/x.h"\n')
    (refusal,) = found.refusals
    assert (refusal.line, refusal.column, refusal.length) == (3, 17, 6)


def test_a_circle_of_includes_ends(tmp_path: Path) -> None:
    found = tree(
        tmp_path / "c", '#include "a.h"\n#define X Y\n#define Y X\n#include X\n', a_h='#include "main.bpf.c"\n'
    )
    assert list(found.files) == ["a.h", "main.bpf.c"]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_scanned(text: str) -> None:
    data = text.encode("utf-8", "replace")
    found = collect(Path("/nonexistent/main.bpf.c"), data)
    assert found.files["main.bpf.c"] == data


@settings(deadline=None)
@given(st.text(max_size=200))
def test_printable_text_holds_no_control_characters(text: str) -> None:
    assert printable(text).replace("\N{REPLACEMENT CHARACTER}", "x").isprintable()


def test_terminal_escapes_vanish() -> None:
    assert printable("a\x1b[31mred\x1b]0;title\x07b\u202ec") == "aredb\N{REPLACEMENT CHARACTER}c"
