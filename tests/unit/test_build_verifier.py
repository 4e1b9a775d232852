# SPDX-License-Identifier: Apache-2.0
"""What the verifier said, in plain words at the source line.

Each folder of `tests/golden/build/verifier` holds a source, what bpftool printed when a guest with Linux 7.3 refused to
load it, and the diagnosis that we expect. `TESTBED_UPDATE_GOLDEN=1` writes the diagnoses anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.build.verifier import explain_rejection
from testbed.status import Status
from testbed.verdict import EvidenceRef

GOLDEN = Path(__file__).parents[1] / "golden" / "build" / "verifier"
CASES = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("name", CASES)
def test_a_real_rejection_is_explained_at_its_source_line(name: str) -> None:
    folder = GOLDEN / name
    sources = {"candidate.bpf.c": (folder / "candidate.bpf.c").read_text()}
    found = explain_rejection((folder / "verifier.log").read_text(), sources)
    text = f"{found.title}\n\n{found.rendered}\n"
    expected = folder / "expected.txt"
    if os.environ.get("TESTBED_UPDATE_GOLDEN"):
        expected.write_text(text)
    assert text == expected.read_text()
    assert found.known
    assert found.program


def test_a_finding_points_at_source_and_log() -> None:
    folder = GOLDEN / "map_null"
    sources = {"candidate.bpf.c": (folder / "candidate.bpf.c").read_text()}
    log = (folder / "verifier.log").read_text()
    found = explain_rejection(log, sources)
    finding = found.finding((EvidenceRef(file="runs/000/stream", line=7),))
    assert finding.code == "verifier-rejected"
    assert finding.status is Status.FAIL
    assert finding.title == "the verifier rejects it: a pointer that may be NULL"
    assert [(each.file, each.line) for each in finding.evidence] == [
        ("candidate/candidate.bpf.c", found.line),
        ("runs/000/stream", 7),
    ]
    assert log.split("\n")[found.log_line - 1] == found.said


def classic(*said: str, program: str = "x_enqueue") -> str:
    """A log of a kernel that writes no report (6.12 to 7.2)."""
    lines = [
        f"libbpf: prog '{program}': BPF program load failed: Permission denied",
        f"libbpf: prog '{program}': -- BEGIN PROG LOAD LOG --",
        "0: R1=ctx() R10=fp0",
        "; u64 *count = lookup(p); @ part.h:2",
        "0: (79) r6 = *(u64 *)(r1 +0)          ; R1=ctx() R6_w=trusted_ptr_task_struct()",
        "; *count += 1; @ main.bpf.c:2",
        "9: (79) r1 = *(u64 *)(r0 +0)",
        *said,
        "processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
        "-- END PROG LOAD LOG --",
        f"libbpf: prog '{program}': failed to load: -13",
        "libbpf: failed to load object 'candidate.bpf.o'",
    ]
    return "\n".join(lines)


SOURCES = {"main.bpf.c": "int a;\n\t*count += 1;\n", "sub/part.h": "\nu64 *count = lookup(p);\n"}


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("R0 invalid mem access 'map_value_or_null'", "a pointer that may be NULL"),
        ("R1 type=ptr_or_null_ expected=ptr_, trusted_ptr_, rcu_ptr_", "a pointer that may be NULL"),
        ("Possibly NULL pointer passed to trusted arg0", "a pointer that may be NULL"),
        ("R2 invalid mem access 'scalar'", "a number is used as a pointer"),
        ("R7 invalid mem access 'inv'", "a number is used as a pointer"),
        ("R1 type=scalar expected=fp, pkt, pkt_meta, map_key, map_value", "an argument of the wrong type"),
        ("R1 must be referenced or trusted", "a pointer that is not trusted"),
        ("calling kernel function scx_bpf_create_dsq is not allowed", "a kernel function that is not allowed here"),
        ("program must be sleepable to call sleepable kfunc scx_x", "a call that may sleep where nothing may sleep"),
        ("Unreleased reference id=3 alloc_insn=12", "a reference is not given back"),
        ("back-edge from insn 12 to 4", "a loop without a known end"),
        ("infinite loop detected at insn 5", "a loop without a known end"),
        ("BPF program is too large. Processed 1000001 insn", "too complex"),
        ("The sequence of 8193 jumps is too complex.", "too complex"),
        ("combined stack size of 3 calls is 640. Too large", "too much stack"),
        ("invalid access to map value, value_size=64 off=64 size=8", "an access out of bounds"),
        ("R2 unbounded memory access, make sure to bounds check any such access", "an index or length without bound"),
        ("R6 !read_ok", "a value that was never set"),
        ("R2 memory, len pair leads to invalid memory access", "a buffer that is shorter than its length says"),
        ("R1 cannot write into ptr_task_struct at off=104 size=4", "writes to what is read-only"),
        ("At program exit the register R0 has smin=7 should have been in [-4095, 0]", "a return value out of range"),
        ("access beyond struct task_struct at off 99999 size 8", "an access beyond a structure"),
        ("unknown func bpf_foo#200", "a helper that is not allowed here"),
        ("struct ops programs must have a GPL compatible license", "the licence is not compatible with the GPL"),
        ("dereference of modified trusted_ptr_ ptr R1 off=8 disallowed", "arithmetic on a pointer"),
    ],
)  # fmt: skip
def test_a_known_message_is_told_in_plain_words(said: str, title: str) -> None:
    found = explain_rejection(classic(said), SOURCES)
    assert (found.title, found.said, found.known) == (title, said, True)
    assert (found.program, found.file, found.line) == ("x_enqueue", "main.bpf.c", 2)
    assert " 2 |     *count += 1;\n   |     ^^^^^^^^^^^^" in found.rendered
    assert found.hint
    assert "{" not in found.wanted.replace("= {}", "")


def test_an_unknown_message_is_told_in_the_verifiers_own_words() -> None:
    found = explain_rejection(classic("R3 has a mood 17 that nobody knows"), SOURCES)
    assert not found.known
    assert found.title == "RN has a mood N that nobody knows"
    assert found.wanted == "the verifier says: R3 has a mood 17 that nobody knows"


def test_a_store_that_is_refused_without_a_word_is_explained() -> None:
    log = classic().replace("9: (79) r1 = *(u64 *)(r0 +0)", "9: (63) *(u32 *)(r6 +104) = r1")
    found = explain_rejection(log, SOURCES)
    assert found.title == "writes to what is read-only"


def test_a_place_in_a_header_of_the_kernel_is_told_as_the_candidates_line_before_it() -> None:
    lines = ("; if (scx_bpf_x()) { @ compat.bpf.h:371", "R1 type=scalar expected=ptr_")
    found = explain_rejection(classic(*lines), SOURCES)
    assert (found.file, found.line) == ("main.bpf.c", 2)


def test_a_file_is_found_by_the_last_part_of_its_name() -> None:
    log = classic("R0 !read_ok").replace("; *count += 1; @ main.bpf.c:2", "")
    found = explain_rejection(log, SOURCES)
    assert (found.file, found.line) == ("sub/part.h", 2)


def test_a_name_of_an_older_kernel_is_told_the_new_one() -> None:
    found = explain_rejection(classic("kfunc 'scx_bpf_consume' is referenced but wasn't resolved"), SOURCES)
    assert "scx_bpf_dsq_move_to_local(dsq_id, 0)" in found.hint


def test_a_bare_verifier_log_without_libbpf_is_enough() -> None:
    found = explain_rejection("0: (79) r1 = 0\nR0 !read_ok\nprocessed 1 insns (limit 1)\n", {}, program="x_init")
    assert (found.program, found.title, found.file) == ("x_init", "a value that was never set", "")


def test_an_empty_log_is_no_reason_to_fall_over() -> None:
    found = explain_rejection("", {})
    assert found.title == "without a word"
    assert found.rendered


def test_terminal_escapes_of_a_log_do_not_come_through() -> None:
    found = explain_rejection(classic("R0 !read_ok \x1b[2J\x1b]0;x\x07"), SOURCES)
    assert "\x1b" not in found.rendered


@settings(deadline=None)
@given(st.text(max_size=400), st.dictionaries(st.text(max_size=5), st.text(max_size=40), max_size=3))
def test_any_text_is_taken_as_a_log(log: str, sources: dict[str, str]) -> None:
    found = explain_rejection(log, sources)
    found.finding()
    assert found.rendered


PARTS = (
    "Verification failed: x",
    "Reason:",
    "At:",
    "  a @ main.bpf.c:2:99",
    "  >>>  2 | x",
    "Suggestion:",
    "",
    "R0 !read_ok",
    "; x @ main.bpf.c:99999999",
    "-- END PROG LOAD LOG --",
    "prog 'a': -- BEGIN PROG LOAD LOG --",
    "9: (79) r1 = r2",
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=14))
def test_any_order_of_a_logs_parts_is_taken(lines: list[str]) -> None:
    explain_rejection("\n".join(lines), SOURCES).finding()
