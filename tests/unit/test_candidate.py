# SPDX-License-Identifier: Apache-2.0
"""What is a candidate, and what is told to people whose file is none."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from testbed.candidate import Kind, read_candidate, resolve_in
from testbed.errors import ExitCode, UsageError
from testbed.spec import sha256

SOURCE = '#include <scx/common.bpf.h>\nchar _license[] SEC("license") = "GPL";\n'
PROGRAM = "/bin/true" if Path("/bin/true").exists() else "/usr/bin/true"


def elf_header(machine: int, kind: int = 1) -> bytes:
    return struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0)


def write(path: Path, data: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def refused(candidate: str | list[str], **options: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_candidate(candidate, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code is ExitCode.USAGE
    return caught.value


def test_a_source_is_named_by_content_and_not_by_place(tmp_path: Path) -> None:
    first = read_candidate(write(tmp_path / "a" / "x.bpf.c", SOURCE))
    second = read_candidate(write(tmp_path / "b" / "y.bpf.c", SOURCE))
    assert first.kind is Kind.SOURCE
    assert first.content_sha256 == sha256(SOURCE.encode()) == second.content_sha256
    assert first.name == "x.bpf.c"
    assert str(tmp_path) not in first.manifest.decode()


def test_an_included_header_is_part_of_the_name(tmp_path: Path) -> None:
    text = '#include "part.h"\n'
    write(tmp_path / "part.h", "int a;\n")
    before = read_candidate(write(tmp_path / "x.bpf.c", text))
    write(tmp_path / "part.h", "int b;\n")
    after = read_candidate(str(tmp_path / "x.bpf.c"))
    assert before.sources is not None
    assert list(before.sources.files) == ["part.h", "x.bpf.c"]
    assert before.content_sha256 == after.content_sha256
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.bpf.c", "", "is empty"),
        ("x.bpf.c", " \n\t\n", "is empty"),
        ("x.bpf.c", b"int x;\0", "holds NUL bytes"),
        ("x.bpf.c", b"/" * (2 << 20), "is larger than the 1024 KiB"),
        ("x.bpf.o", b"", "is empty"),
        ("x.bpf.o", b"no elf at all", "no ELF file"),
        ("x.bpf.o", b"\x7fELF\x02\x01", "cut off in its header"),
        ("x.bpf.o", elf_header(62), "is an ELF file for x86-64, expected one for BPF"),
        ("x.bpf.o", elf_header(247, kind=2), "is an ELF file of type 2, expected an object"),
        ("x.txt", "hello", "is not a candidate"),
        ("x", elf_header(62, kind=2), "is not a candidate"),
    ],
)
def test_what_is_no_candidate_is_a_usage_error(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    error = refused(write(tmp_path / name, data))
    assert message in error.message
    assert not error.message.endswith(".")


def test_a_missing_file_a_folder_and_a_pipe_are_usage_errors(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "x.bpf.c")).message
    (tmp_path / "d.bpf.c").mkdir()
    assert "is a directory" in refused(str(tmp_path / "d.bpf.c")).message
    os.mkfifo(tmp_path / "p.bpf.c")
    assert "is no regular file" in refused(str(tmp_path / "p.bpf.c")).message


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "x\x1b[31m.bpf.c", SOURCE))
    assert "\x1b" not in error.message


def test_a_program_without_the_dashes_is_told_how_to_say_it(tmp_path: Path) -> None:
    error = refused(PROGRAM)
    assert error.message == f"`{PROGRAM}` is a program"
    assert f"-- {PROGRAM}" in error.hint


def test_a_program_travels_with_its_libraries_and_its_interpreter() -> None:
    candidate = read_candidate([PROGRAM, "--slice-us", "5000"])
    assert candidate.kind is Kind.PROGRAM
    assert candidate.options == ("--slice-us", "5000")
    names = [library.soname for library in candidate.libraries]
    assert candidate.interpreter in names
    assert "libc.so.6" in names
    assert names == sorted(names)
    assert candidate.sha256 != read_candidate([PROGRAM]).sha256


def test_a_program_is_found_among_the_examples_before_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(PROGRAM, tmp_path / "bin" / "true")
    shutil.copy(PROGRAM, tmp_path / "bin" / "scx_simple")
    candidate = read_candidate(["true"], examples=tmp_path / "bin")
    assert candidate.path == tmp_path / "bin" / "true"
    error = refused(["scx_simpel"], examples=tmp_path / "bin")
    assert error.message == "no program `scx_simpel`, neither built at set-up nor on PATH"
    assert error.hint == "did you mean `scx_simple`? built at set-up: scx_simple, true"


def test_libraries_beside_the_examples_come_first(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    shutil.copy(PROGRAM, tmp_path / "bin" / "scx_simple")
    libc = next(each for each in read_candidate([PROGRAM]).libraries if each.soname == "libc.so.6")
    shutil.copy(libc.path, tmp_path / "lib" / "libc.so.6")
    found = read_candidate(["scx_simple"], examples=tmp_path / "bin")
    assert {each.soname: each.path for each in found.libraries}["libc.so.6"] == tmp_path / "lib" / "libc.so.6"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!/usr/bin/env python3\nprint()\n", "is a script (`#!/usr/bin/env python3`), expected a compiled program"),
        (b"plain text", "is no program: it is not an ELF file"),
        (b"", "is no program: it is not an ELF file"),
        (elf_header(183, kind=2), "is for ARM64, the guest is x86-64"),
        (elf_header(247), "is a BPF object, not a program"),
        (elf_header(62, kind=1), "is an ELF file of type 1, expected a program"),
        (elf_header(62, kind=2)[:50], "is cut off in its header"),
    ],
)
def test_what_is_no_program_is_a_usage_error(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refused([write(tmp_path / "prog", data)]).message


def test_no_program_at_all_is_a_usage_error() -> None:
    assert refused([]).message == "`--` is followed by no program"


def test_a_static_program_travels_alone(tmp_path: Path) -> None:
    candidate = read_candidate([write(tmp_path / "static", elf_header(62, kind=2))])
    assert candidate.libraries == ()
    assert candidate.interpreter == ""


def test_options_that_are_no_text_are_refused() -> None:
    assert "not UTF-8" in refused([PROGRAM, os.fsdecode(b"\xff")]).message


def test_links_of_another_root_stay_in_that_root(tmp_path: Path) -> None:
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "usr" / "lib" / "x.so").symlink_to("../../../../../etc/passwd")
    assert resolve_in(tmp_path, "/lib/y.so") == tmp_path / "usr" / "lib" / "y.so"
    assert resolve_in(tmp_path, "/lib/x.so") == tmp_path / "etc" / "passwd"
