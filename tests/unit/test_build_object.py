# SPDX-License-Identifier: Apache-2.0
"""What may be in an object, tried on objects that are made here byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.btf import Btf, BtfError, essential_name, line_info
from testbed.build.hints import Names
from testbed.build.object import ObjectError, inspect_object
from testbed.build.rules import ALLOWED_PROGRAMS, FORBIDDEN_HELPERS, FORBIDDEN_PROGRAMS, check, schedulers
from testbed.elf import Elf, ElfError
from testbed.verdict import Finding

EXIT = bytes([0x95, 0, 0, 0, 0, 0, 0, 0])
NO_NAMES = Names()


def call(helper: int) -> bytes:
    return struct.pack("<BBhi", 0x85, 0, 0, helper)


KFUNC_CALL = struct.pack("<BBhi", 0x85, 0x10, 0, -1)


@dataclass
class BtfMaker:
    """Types, one after the other; ids count from 1."""

    types: bytearray = field(default_factory=bytearray)
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    count: int = 0

    def text(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, name: str, kind: int, vlen: int, size_or_type: int, tail: bytes = b"") -> int:
        self.types += struct.pack("<III", self.text(name) if name else 0, kind << 24 | vlen, size_or_type) + tail
        self.count += 1
        return self.count

    def data(self) -> bytes:
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return head + bytes(self.types) + bytes(self.strings)


@dataclass
class ElfMaker:
    """A relocatable object for BPF."""

    sections: list[tuple[str, int, int, bytes, int, int]] = field(
        default_factory=list
    )  # name type flags data link info
    symbols: list[tuple[str, int, int, int, int, int]] = field(
        default_factory=list
    )  # name bind type section value size

    def section(self, name: str, data: bytes, kind: int = 1, flags: int = 0, link: int = 0, info: int = 0) -> int:
        self.sections.append((name, kind, flags, data, link, info))
        return len(self.sections)

    def data(self) -> bytes:
        strings, rows = bytearray(b"\0"), bytearray(24)
        for name, bind, kind, section, value, size in self.symbols:
            rows += struct.pack("<IBBHQQ", len(strings), bind << 4 | kind, 0, section, value, size)
            strings += name.encode() + b"\0"
        sections = [*self.sections, (".symtab", 2, 0, bytes(rows), len(self.sections) + 2, 0)]
        sections += [(".strtab", 3, 0, bytes(strings), 0, 0)]
        names = bytearray(b"\0")
        offsets = []
        for name, *_ in sections:
            offsets.append(len(names))
            names += name.encode() + b"\0"
        offsets.append(len(names))
        names += b".shstrtab\0"
        sections.append((".shstrtab", 3, 0, bytes(names), 0, 0))
        body, headers = bytearray(), bytearray(64)
        for offset, (_, kind, flags, data, link, info) in zip(offsets, sections, strict=True):
            headers += struct.pack("<IIQQQQIIQQ", offset, kind, flags, 0, 64 + len(body), len(data), link, info, 8, 0)
            body += data
        at, count = 64 + len(body), len(sections) + 1
        head = struct.pack(
            "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 247, 1, 0, 0, at, 0, 64, 0, 0, 64, count, count - 1
        )
        return head + bytes(body) + bytes(headers)


def make(
    *,
    programs: dict[str, bytes] | None = None,
    ops: tuple[str, ...] = ("sched_ext_ops",),
    name: str = "test",
    timeout_ms: int = 0,
    license_text: str = "GPL",
    section: str = ".struct_ops.link",
    externs: tuple[str, ...] = (),
    btf: bool = True,
) -> bytes:
    """An object with a table of callbacks per type in `ops`; every extern is called by the first program."""
    maker, types = ElfMaker(), BtfMaker()
    programs = programs if programs is not None else {"struct_ops/test_enqueue": EXIT}
    first = True
    for title, code in programs.items():
        program = title.rsplit("/", 1)[-1].strip("?")
        body = KFUNC_CALL * len(externs) + code if first else code
        index = maker.section(title, body, flags=0x6)
        if first and externs:
            rows = b"".join(struct.pack("<QQ", 8 * at, (at + 1) << 32 | 10) for at in range(len(externs)))
            maker.symbols = [(extern, 1, 0, 0, 0, 0) for extern in externs]
            maker.section(".rel" + title, rows, kind=9, info=index)
        maker.symbols.append((program, 1, 2, index, 0, len(body)))
        first = False
    maker.section("license", license_text.encode() + b"\0")
    if ops:
        size = 8 + 4 + 4 + 128
        void = types.add("", 13, 0, 0)  # FUNC_PROTO
        pointer = types.add("", 2, 0, void)
        u32 = types.add("u32", 1, 0, 4, struct.pack("<I", 32))
        char = types.add("char", 1, 0, 1, struct.pack("<I", 8))
        array = types.add("", 3, 0, 0, struct.pack("<III", char, u32, 128))
        members = [("enqueue", pointer, 0), ("timeout_ms", u32, 8), ("flags", u32, 12), ("name", array, 16)]
        variables = b""
        data = b""
        index = len(maker.sections) + 1
        for number, kind in enumerate(ops):
            tail = b"".join(struct.pack("<III", types.text(each), type_, 8 * at) for each, type_, at in members)
            structure = types.add(kind, 4, len(members), size, tail)
            variable = types.add(f"ops{number}", 14, 0, structure, struct.pack("<I", 1))
            variables += struct.pack("<III", variable, 0, size)
            maker.symbols.append((f"ops{number}", 1, 1, index, len(data), size))
            data += struct.pack("<QII128s", 0, timeout_ms, 5, name.encode())
        types.add(section, 15, len(ops), len(data), variables)
        maker.section(section, data, flags=0x3)
        enqueue = next((at for at, each in enumerate(maker.symbols) if each[0] == "test_enqueue"), None)
        if enqueue is not None:
            maker.section(".rel" + section, struct.pack("<QQ", 0, (enqueue + 1) << 32 | 2), kind=9, info=index)
    if btf:
        maker.section(".BTF", types.data())
    return maker.data()


def findings(data: bytes, names: Names = NO_NAMES) -> list[Finding]:
    return list(check(inspect_object(data), {}, names, "/src/"))


def codes(data: bytes, names: Names = NO_NAMES) -> list[str]:
    return [finding.code for finding in findings(data, names)]


def test_a_scheduler_is_read_from_its_table_of_callbacks() -> None:
    found = inspect_object(make(timeout_ms=3000))
    (ops,) = schedulers(found)
    assert (ops.symbol, ops.type, ops.name) == ("ops0", "sched_ext_ops", "test")
    assert ops.values == {"timeout_ms": 3000, "flags": 5}
    assert ops.callbacks == {"enqueue": "test_enqueue"}
    assert [(each.name, each.section, each.instructions) for each in found.programs] == [
        ("test_enqueue", "struct_ops/test_enqueue", 1)
    ]
    assert codes(make()) == []


def test_the_form_with_compact_cpu_ids_is_a_scheduler_too() -> None:
    assert codes(make(ops=("sched_ext_ops_cid",))) == []


def test_a_flavour_of_the_type_is_the_type() -> None:
    assert codes(make(ops=("sched_ext_ops___old",))) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make(ops=()), "the object has no struct_ops, expected one of type `sched_ext_ops`"),
        (make(ops=("tcp_congestion_ops",)), "found struct_ops of type `tcp_congestion_ops`, expected one of type"),
        (make(section="?.struct_ops.link"), "its `sched_ext_ops` is in an optional section"),
        (make(btf=False), "the object has no type information (BTF)"),
    ],
)
def test_an_object_without_a_scheduler_says_what_it_has_instead(data: bytes, message: str) -> None:
    (finding,) = findings(data)
    assert finding.code == "not-a-scheduler"
    assert finding.message.startswith(message)


def test_two_schedulers_are_one_too_many() -> None:
    (finding,) = findings(make(ops=("sched_ext_ops", "sched_ext_ops")))
    assert finding.code == "several-schedulers"
    assert finding.message == "found 2 tables of type `sched_ext_ops`, expected one: `ops0` and `ops1`"


def test_struct_ops_of_another_kind_beside_the_scheduler_are_refused() -> None:
    assert codes(make(ops=("sched_ext_ops", "tcp_congestion_ops"))) == ["forbidden-program"]


@pytest.mark.parametrize(
    ("data", "title"),
    [
        (make(name=""), "the scheduler has no name"),
        (make(name="a b"), "the scheduler's name has characters that the kernel refuses"),
        (make(timeout_ms=30_001), "the scheduler's timeout is longer than the kernel allows"),
    ],
)
def test_fields_that_the_kernel_refuses_are_told_before_a_guest_boots(data: bytes, title: str) -> None:
    assert [(each.code, each.title) for each in findings(data)] == [("ops-invalid", title)]


def test_thirty_seconds_are_not_too_long() -> None:
    assert codes(make(timeout_ms=30_000)) == []


@pytest.mark.parametrize("text", ["Proprietary", "", "MIT"])
def test_a_licence_that_is_not_gpl_is_told(text: str) -> None:
    assert codes(make(license_text=text)) == ["license-not-gpl"]


@pytest.mark.parametrize("text", ["GPL", "GPL v2", "Dual BSD/GPL"])
def test_a_gpl_licence_passes(text: str) -> None:
    assert codes(make(license_text=text)) == []


@pytest.mark.parametrize("base", sorted(ALLOWED_PROGRAMS))
@pytest.mark.parametrize("form", ["{0}/x", "?{0}/x", "{0}.s/x"])
def test_programs_that_only_observe_pass(base: str, form: str) -> None:
    assert codes(make(programs={"struct_ops/test_enqueue": EXIT, form.format(base): EXIT})) == []


@pytest.mark.parametrize("base", sorted(FORBIDDEN_PROGRAMS))
def test_programs_that_change_something_else_are_refused(base: str) -> None:
    (finding,) = findings(make(programs={"struct_ops/test_enqueue": EXIT, f"{base}/x": EXIT}))
    assert finding.code == "forbidden-program"
    assert FORBIDDEN_PROGRAMS[base] in finding.message


def test_a_section_without_a_type_of_program_gets_the_nearest_one() -> None:
    (finding,) = findings(make(programs={"struct_ops/test_enqueue": EXIT, "fentri/x": EXIT}))
    assert finding.title == "a program of unknown type"
    assert finding.hint == "did you mean `fentry`?"


@pytest.mark.parametrize("helper", sorted(FORBIDDEN_HELPERS))
def test_helpers_that_reach_out_are_refused(helper: int) -> None:
    name, does = FORBIDDEN_HELPERS[helper]
    (finding,) = findings(make(programs={"struct_ops/test_enqueue": call(helper) + EXIT}))
    assert (finding.code, finding.title) == ("forbidden-helper", f"calls {name}")
    assert does in finding.message
    assert "`test_enqueue`" in finding.message


def test_a_kprobe_that_overrides_is_refused_for_overriding() -> None:
    code = {"struct_ops/test_enqueue": EXIT, "kprobe/do_exit": call(58) + EXIT}
    assert codes(make(programs=code)) == ["forbidden-helper"]


def test_a_number_beside_a_wide_load_is_no_call() -> None:
    wide = struct.pack("<BBhi", 0x18, 0, 0, 1) + struct.pack("<BBhi", 0x85, 0, 0, 109)
    assert codes(make(programs={"struct_ops/test_enqueue": wide + EXIT})) == []


@pytest.mark.parametrize("name", ["crash_kexec", "bpf_send_signal_task", "hid_bpf_hw_request", "bpf_sock_destroy___v1"])
def test_kernel_functions_that_reach_out_are_refused(name: str) -> None:
    assert codes(make(externs=("scx_bpf_kick_cpu", name))) == ["forbidden-helper"]


KERNEL = Names(kfuncs=frozenset({f"scx_bpf_fn{number}" for number in range(30)} | {"scx_bpf_kick_cpu"}))


def test_a_kernel_function_that_the_kernel_lacks_is_told_with_its_new_name() -> None:
    (finding,) = findings(make(externs=("scx_bpf_consume",)), KERNEL)
    assert finding.code == "unknown-kfunc"
    assert finding.hint == "now `scx_bpf_dsq_move_to_local(dsq_id, 0)`"
    (finding,) = findings(make(externs=("scx_bpf_kick_cpuu",)), KERNEL)
    assert finding.hint == "did you mean `scx_bpf_kick_cpu`?"


def test_functions_of_others_are_not_looked_up() -> None:
    assert codes(make(externs=("bpf_task_from_pid", "scx_bpf_kick_cpu")), KERNEL) == []


def test_a_cut_object_is_told_where_it_ends() -> None:
    data = make()
    with pytest.raises(ObjectError, match="it is truncated"):
        inspect_object(data[:-100])


@settings(deadline=None)
@given(st.data())
def test_a_damaged_object_never_crashes_the_reader(data: st.DataObject) -> None:
    blob = bytearray(make(programs={"struct_ops/test_enqueue": call(109) + EXIT}, externs=("scx_bpf_kick_cpu",)))
    for _ in range(data.draw(st.integers(1, 12))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    for one in (bytes(blob), bytes(blob[:cut])):
        try:
            found = inspect_object(one)
        except ObjectError:
            continue
        for finding in check(found, {}, KERNEL, "/src/"):
            assert "\x1b" not in finding.message


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(blob: bytes) -> None:
    for start in (b"", b"\x7fELF\x02\x01\x01" + bytes(9)):
        try:
            file = Elf(start + blob)
            _ = file.sections, file.symbols, file.interpreter, file.dynamic
        except ElfError:
            pass
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(blob), 0, len(blob))
    try:
        btf = Btf(head + blob)
        line_info(head + bytes(8) + blob, btf)
        for each in btf.types:
            btf.resolve(each.id)
    except BtfError:
        pass


@pytest.mark.parametrize(
    ("name", "essential"),
    [("a___b", "a"), ("a", "a"), ("a___v2___compat", "a___v2"), ("___a", "___a"), ("a___", "a___")],
)
def test_a_flavour_is_cut_off_as_libbpf_does(name: str, essential: str) -> None:
    assert essential_name(name) == essential
