# SPDX-License-Identifier: Apache-2.0
"""The lint's decoder and interpreter, on instructions that are written here; the corpus is in tests/guest."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.btf import Btf, BtfError
from testbed.build.hints import Names
from testbed.judge.catalogue import ALL, CODES
from testbed.lint.code import Code, Function, decode, read_code
from testbed.lint.engine import constants, lint
from testbed.lint.facts import arguments_of
from testbed.lint.flow import shape
from testbed.lint.interpret import Custody, Event, Interpreter
from testbed.lint.kernel import PF_KTHREAD, Kernel
from testbed.lint.texts import RULES, page
from testbed.lint.values import (
    ADD,
    AND,
    LSH,
    MASK,
    OR,
    SUB,
    UNKNOWN,
    Value,
    arithmetic,
    constant,
    join,
    narrow,
    tagged,
)
from tests.unit.test_build_object import EXIT, BtfMaker, ElfMaker, call, make

TASK_CPU, INSERT, ERROR, PICK = "scx_bpf_task_cpu", "scx_bpf_dsq_insert", "scx_bpf_error_bstr", "scx_bpf_pick_idle_cpu"


def insn(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, dst | src << 4, offset, imm)


def mov(dst: int, imm: int) -> bytes:
    return insn(0xB7, dst, imm=imm)


def load(dst: int, src: int, offset: int) -> bytes:
    return insn(0x79, dst, src, offset)


def jump_if(dst: int, imm: int, offset: int, operation: int = 0x10) -> bytes:
    return insn(0x05 | operation, dst, offset=offset, imm=imm)


class Program:
    """A function whose calls of kernel functions are given by name."""

    def __init__(self, *parts: bytes | str) -> None:
        self.code = b"".join(insn(0x85, 0, 1, imm=-1) if isinstance(part, str) else part for part in parts)
        insns = decode(self.code)
        slot = 0
        for part in parts:
            if isinstance(part, str):
                old = insns[slot]
                insns[slot] = type(old)(old.opcode, old.dst, old.src, old.offset, old.imm, part, external=True)
            slot += 1 if isinstance(part, str) else len(part) // 8
        self.function = Function("f", "struct_ops/f", 0, len(self.code) // 8, insns)

    def follow(self, root: str = "enqueue", *, limit: int = 10_000) -> Interpreter:
        interpreter = Interpreter(Code({"f": self.function}), Kernel(), limit=limit)
        interpreter.callback(root, "f", arguments_of(root))
        return interpreter


def calls(interpreter: Interpreter, name: str) -> list[Event]:
    return [event for event in interpreter.found.events.values() if event.name == name]


# --- values ------------------------------------------------------------------------------------------------------


def test_constants_are_computed_for_every_combination() -> None:
    assert arithmetic(ADD, constant(1, 2), constant(10), 64).constants == frozenset({11, 12})
    assert arithmetic(SUB, constant(0), constant(1), 64).constants == frozenset({MASK})
    assert arithmetic(SUB, constant(0), constant(1), 32).constants == frozenset({0xFFFFFFFF})


def test_an_unknown_value_masked_by_few_bits_is_a_small_set() -> None:
    assert arithmetic(AND, UNKNOWN, constant(1), 64).constants == frozenset({0, 1})
    assert arithmetic(AND, UNKNOWN, constant(0xFF), 64).constants is None


def test_bits_that_are_surely_set_survive_an_unknown_part() -> None:
    high = 3 << 62
    assert arithmetic(OR, UNKNOWN, constant(high), 64).sure == high
    assert join(Value(ones=high), constant(high | 5)).sure == high


def test_where_a_value_comes_from_is_known_after_a_join_and_a_copy() -> None:
    both = join(tagged("now"), tagged("cpu"))
    assert both.has("now")
    assert narrow(both).has("cpu")


def test_a_constant_minus_the_time_falls_and_a_time_minus_something_does_not() -> None:
    now = tagged("now")
    assert arithmetic(SUB, constant(1 << 62), now, 64).has("minus-now")
    assert not arithmetic(SUB, now, constant(5), 64).has("minus-now")
    assert not arithmetic(SUB, tagged("cpu"), now, 64).has("minus-now")


def test_only_a_priority_that_is_shifted_far_outranks_the_time() -> None:
    assert arithmetic(LSH, tagged("priority"), constant(48), 64).has("priority-first")
    assert not arithmetic(LSH, tagged("priority"), constant(20), 64).has("priority-first")


numbers = st.integers(0, MASK)
values = st.one_of(
    st.builds(lambda chosen: constant(*chosen), st.lists(numbers, min_size=1, max_size=4)),
    st.builds(lambda bits: Value(ones=bits), numbers),
    st.builds(lambda never: Value(never=never), st.frozensets(st.integers(0, 3), max_size=3)),
    st.just(UNKNOWN),
)


@settings(deadline=None)
@given(values, values)
def test_a_join_holds_what_both_sides_hold(one: Value, other: Value) -> None:
    both = join(one, other)
    for side in (one, other):
        assert both.sure & ~side.sure == 0
        if both.constants is not None:
            assert side.constants is not None
            assert side.constants <= both.constants
    assert join(both, one) == join(one, both) == both
    assert both.never <= {number for side in (one, other) for number in side.never}


# --- the decoder -------------------------------------------------------------------------------------------------


def test_a_64_bit_load_takes_two_slots() -> None:
    code = insn(0x18, 2, imm=-1) + insn(0, imm=1) + EXIT
    found = decode(code)
    assert sorted(found) == [0, 2]
    assert found[0].imm == 0x1_FFFFFFFF


def test_a_load_that_is_cut_off_is_left_out() -> None:
    assert decode(mov(0, 1) + insn(0x18, 2)) == {0: decode(mov(0, 1))[0]}


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_decoded(data: bytes) -> None:
    found = decode(data)
    assert all(0 <= slot < len(data) // 8 for slot in found)


opcodes = st.sampled_from(
    [0x05, 0x07, 0x0F, 0x15, 0x16, 0x18, 0x1D, 0x55, 0x61, 0x63, 0x6D, 0x79, 0x7B, 0x85, 0x95, 0xB4, 0xB7, 0xBF, 0xDB]
)
random_insns = st.builds(
    insn, opcodes, st.integers(0, 11), st.integers(0, 11), st.integers(-12, 12), st.integers(-(1 << 31), (1 << 31) - 1)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(random_insns, st.binary(min_size=8, max_size=8)), max_size=60))
def test_any_program_is_followed_to_an_end_in_bounded_time(parts: list[bytes]) -> None:
    interpreter = Program(*parts).follow(limit=2000)
    assert interpreter.steps <= 2000 + len(parts)
    assert interpreter.found.complete or interpreter.steps > 2000


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=160), st.integers(0, 4000), st.binary(min_size=1, max_size=8))
def test_any_damage_to_an_object_is_survived(code: bytes, place: int, damage: bytes) -> None:
    data = bytearray(make(programs={"struct_ops/test_enqueue": code[: len(code) // 8 * 8] + EXIT}))
    at = place % len(data)
    data[at : at + len(damage)] = damage[: len(data) - at]
    for found in lint(bytes(data), {}, Names()):
        assert found.rule.code in RULES


def test_what_is_no_object_has_no_lint() -> None:
    assert lint(b"", {}, Names()) == ()
    assert lint(b"\x7fELF" + bytes(100), {}, Names()) == ()


def test_a_table_of_overlapping_functions_costs_no_more_than_twice_the_code() -> None:
    maker = ElfMaker()
    index = maker.section("struct_ops/f", EXIT * 100, flags=0x6)
    maker.symbols = [(f"f{number}", 1, 2, index, 8 * (number % 50), 400) for number in range(1000)]
    functions = read_code(maker.data()).functions
    assert sum(len(function.insns) for function in functions.values()) <= 200


def test_functions_calls_and_addresses_are_read_from_relocations() -> None:
    maker = ElfMaker()
    body = insn(0x85, 0, 1, imm=-1) + insn(0x85, 0, 1, imm=0) + EXIT
    index = maker.section("struct_ops/f", body, flags=0x6)
    text = maker.section(".text", EXIT + EXIT, flags=0x6)
    maker.symbols = [("kfunc", 1, 0, 0, 0, 0), ("f", 1, 2, index, 0, len(body)), ("g", 0, 2, text, 8, 8)]
    maker.symbols.append(("", 0, 3, text, 0, 0))
    rows = struct.pack("<QQ", 0, 1 << 32 | 10) + struct.pack("<QQ", 8, 4 << 32 | 10)
    maker.section(".relstruct_ops/f", rows, kind=9, info=index)
    found = read_code(maker.data()).functions["f"].insns
    assert (found[0].symbol, found[0].external) == ("kfunc", True)
    assert found[1].function == "g"


def test_the_field_that_an_access_string_leads_to_is_named() -> None:
    maker = BtfMaker()
    u64 = maker.add("u64", 1, 0, 8, struct.pack("<I", 64))
    inner = maker.add("inner___old", 4, 1, 8, struct.pack("<III", maker.text("slice"), u64, 0))
    rows = struct.pack("<III", maker.text("pid"), u64, 0) + struct.pack("<III", maker.text("scx"), inner, 64)
    outer = maker.add("task_struct", 4, 2, 16, rows)
    btf = Btf(maker.data())
    assert btf.path(outer, "0:1:0") == "task_struct.scx.slice"
    assert btf.path(outer, "0:7") == "task_struct"
    assert btf.path(inner, "0:x") == "inner"
    with pytest.raises(BtfError):
        btf.path(99, "0")


# --- the interpreter ---------------------------------------------------------------------------------------------


def test_the_arguments_of_a_call_are_known_over_both_ways_of_a_branch() -> None:
    program = Program(load(6, 1, 8), load(1, 1, 0), mov(2, 3), jump_if(6, 0, 1), mov(2, 4), INSERT, EXIT)
    (event,) = calls(program.follow(), INSERT)
    assert event.args[1].constants == frozenset({3, 4})
    assert event.args[0].base == "task"


def test_a_branch_on_a_constant_is_followed_one_way_only() -> None:
    program = Program(mov(6, 0), load(1, 1, 0), mov(2, 3), jump_if(6, 0, 1), mov(2, 4), INSERT, EXIT)
    (event,) = calls(program.follow(), INSERT)
    assert event.args[1].only == 3


def test_a_way_around_the_insertion_ends_without_custody() -> None:
    around = Program(load(6, 1, 8), load(1, 1, 0), jump_if(6, 0, 1), INSERT, EXIT).follow()
    assert set(around.found.returns) == {("enqueue", Custody.NONE), ("enqueue", Custody.INSERTED)}
    straight = Program(load(1, 1, 0), INSERT, EXIT).follow()
    assert set(straight.found.returns) == {("enqueue", Custody.INSERTED)}


def test_a_way_that_reports_an_error_is_excused() -> None:
    found = Program(load(6, 1, 8), load(1, 1, 0), jump_if(6, 0, 2), INSERT, EXIT, ERROR, EXIT).follow().found
    assert set(found.returns) == {("enqueue", Custody.EXCUSED), ("enqueue", Custody.INSERTED)}


def test_a_flag_that_remembers_the_insertion_is_followed_with_it() -> None:
    # inserted = 0; if (…) { insert(); inserted = 1; }  if (!inserted) insert();
    program = Program(
        mov(7, 0), load(6, 1, 8), load(8, 1, 0), jump_if(6, 0, 3), insn(0xBF, 1, 8), INSERT, mov(7, 1),
        jump_if(7, 0, 2, 0x50), insn(0xBF, 1, 8), INSERT, EXIT,
    )  # fmt: skip
    found = program.follow()
    assert set(found.found.returns) == {("enqueue", Custody.INSERTED)}
    assert all(event.custody is Custody.NONE for event in calls(found, INSERT))


def test_what_a_jump_has_excluded_is_excluded_later() -> None:
    # if (x != 1) …; the same test again: clang joins both ways between them
    test = insn(0x56, 6, offset=1, imm=1)  # if w6 != 1
    again = insn(0x16, 6, offset=1, imm=1)  # if w6 == 1
    program = Program(
        load(1, 1, 0), insn(0x61, 6, 1, 8), test, INSERT, mov(0, 1), again, mov(0, 0), EXIT
    )  # fmt: skip
    found = program.follow().found.returns
    assert found["enqueue", Custody.NONE].only == 0
    assert found["enqueue", Custody.INSERTED].only == 1


def test_a_number_that_may_be_negative_is_safe_behind_a_test() -> None:
    unchecked = Program(PICK, EXIT).follow("select_cpu").found.returns["select_cpu", Custody.NONE]
    assert unchecked.has("negative")
    test = insn(0xC6, 0, offset=1, imm=0)  # if w0 s< 0
    checked = Program(PICK, test, EXIT, mov(0, 0), EXIT).follow("select_cpu").found.returns["select_cpu", Custody.NONE]
    assert not checked.has("negative")


def test_a_widened_copy_is_safe_behind_a_test_of_the_original() -> None:
    program = Program(
        PICK, insn(0xBF, 6, 0), insn(0x67, 6, imm=32), insn(0xC7, 6, imm=32), insn(0xC6, 0, offset=2, imm=0),
        insn(0xBF, 0, 6), EXIT, mov(0, 0), EXIT,
    )  # fmt: skip
    assert not program.follow("select_cpu").found.returns["select_cpu", Custody.NONE].has("negative")


def test_the_name_of_a_kernel_thread_may_decide_and_that_of_a_process_may_not() -> None:
    def compares(*guard: bytes) -> int:
        program = Program(load(1, 1, 0), insn(0x61, 2, 1, 8), *guard, insn(0x69, 3, 1, 16), jump_if(3, 0x666F, 0), EXIT)
        for slot, name in ((1, "task_struct.flags"), (2 + sum(len(part) for part in guard) // 8, "task_struct.comm")):
            old = program.function.insns[slot]
            program.function.insns[slot] = type(old)(old.opcode, old.dst, old.src, old.offset, old.imm, field=name)
        return len(calls(program.follow(), "compare"))

    assert compares() == 1
    assert compares(insn(0x57, 2, imm=PF_KTHREAD), jump_if(2, 0, 2)) == 0
    assert compares(insn(0x57, 2, imm=PF_KTHREAD), jump_if(2, 0, 2, 0x50)) == 1


def test_only_a_call_in_each_turn_of_a_loop_is_repeated() -> None:
    each = Program(load(6, 1, 8), TASK_CPU, jump_if(6, 0, -2), EXIT).follow()
    assert [event.repeated for event in calls(each, TASK_CPU)] == [True]
    some = Program(load(6, 1, 8), load(7, 1, 8), jump_if(7, 0, 1), TASK_CPU, jump_if(6, 0, -3), EXIT).follow()
    assert [event.repeated for event in calls(some, TASK_CPU)] == [False]


def test_a_function_that_the_kernel_has_or_lacks_is_decided_as_the_kernel_would() -> None:
    kernel = Kernel(kfuncs=frozenset({INSERT, *(f"scx_bpf_{number}" for number in range(30))}))
    assert kernel.has("scx_bpf_dsq_insert___compat") is True
    assert kernel.has("scx_bpf_cpu_rq") is False
    assert kernel.has("bpf_other") is None
    assert Kernel().has("scx_bpf_cpu_rq") is None


def test_the_flow_of_a_function_ignores_jumps_that_lead_out_of_it() -> None:
    flow = shape(Program(insn(0x05, offset=1000), EXIT).function)
    assert flow.successors[0] == ()
    assert not flow.each_turn(0)


def test_helpers_are_followed_by_their_number() -> None:
    found = Program(mov(1, 1 << 20), call(181), EXIT).follow("dispatch")
    (event,) = calls(found, "bpf_loop")
    assert event.args[0].only == 1 << 20


# --- texts -------------------------------------------------------------------------------------------------------


def test_constants_of_the_kernel_are_read_from_its_types() -> None:
    names = Names(text="enum x {\n\tSCX_DSQ_LOCAL = 9223372036854775810ULL,\n\tSCX_KICK_IDLE = 1,\n\tSCX_N = -1,\n};\n")
    assert constants(names) == {"SCX_DSQ_LOCAL": 1 << 63 | 2, "SCX_KICK_IDLE": 1, "SCX_N": MASK}


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_explained(code: str) -> None:
    rule = RULES[code]
    assert code.startswith("lint-")
    assert code not in CODES
    assert ALL[code].fix == rule.fix
    for text in (rule.title, rule.meaning, rule.why, rule.cause, rule.fix, rule.example, rule.better):
        assert text.strip()
    assert not rule.fix.endswith(".")
    assert f"## `{code}`" in page()
