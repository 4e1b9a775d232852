# SPDX-License-Identifier: Apache-2.0
"""Follows a function's instructions over all its paths, with sets of values instead of values.

Paths that have put the task into a queue, paths that remember or excuse it, and paths that have done neither are kept
apart (`Custody`); everything else is joined where paths meet. Calls are followed with what is known of their arguments.
Time is bounded by a number of steps; whoever exceeds it gets an incomplete answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from testbed.lint.code import (
    ALU,
    ALU64,
    CALL,
    CALL_REGISTER,
    EXIT,
    JMP,
    JMP32,
    JUMP,
    JUMP_LONG,
    LDX,
    LOAD_64,
    ST,
    STX,
    Code,
    Function,
    Insn,
)
from testbed.lint.flow import Shape, shape
from testbed.lint.kernel import (
    COMM,
    COMM_BYTES,
    COMPARES,
    COPIES,
    CUSTODIANS,
    ERRORS,
    HELPERS,
    INSERTS,
    PF_KTHREAD,
    PRIORITIES,
    RESULTS,
    TASK_SOURCES,
    TODAY,
    Kernel,
)
from testbed.lint.state import State, after, forget, from_stack, is_comm, learn, possible, unpacked
from testbed.lint.values import (
    ADD,
    MASK_32,
    MOV,
    NEG,
    NO_TAGS,
    UNKNOWN,
    Value,
    arithmetic,
    constant,
    join,
    narrow,
    signed,
    tagged,
)

MAX_STEPS = 60_000
_MAX_DEPTH = 8
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_MAX_STACK_SLOTS = 128
_MAX_NEVER = 4


class Custody(IntEnum):
    """What has become of the callback's own task on a path."""

    NONE = 0
    EXCUSED = 1
    INSERTED = 2


@dataclass(slots=True)
class Event:
    """A call or a store at one place, with everything that its arguments may be.

    Attributes:
        root: the callback that it is reached from, e.g. `enqueue`.
        name: canonical name of the function; `store` and `compare` are no calls.
        custody: what has become of the task before.
        repeated: it happens in each turn of a loop.
        field: the kernel field that is written.
    """

    root: str
    function: str
    slot: int
    name: str
    args: tuple[Value, ...]
    custody: Custody
    repeated: bool
    raw_name: str = ""
    weak_missing: bool = False
    field: str = ""


@dataclass
class Findings:
    """Everything that was seen."""

    events: dict[tuple[str, str, int, str, int], Event] = field(default_factory=dict)
    fields: dict[str, set[str]] = field(default_factory=dict)  # root → kernel fields that are read
    returns: dict[tuple[str, Custody], Value] = field(default_factory=dict)
    lost_edges: dict[str, set[tuple[str, int, int]]] = field(default_factory=dict)  # function, jump, target
    timers: set[str] = field(default_factory=set)
    complete: bool = True


_KTHREAD = 11  # a register of ours: 1 where the task is surely a kernel thread


class Interpreter:
    """Follows callbacks and collects what happens on the way."""

    def __init__(
        self, code: Code, kernel: Kernel, excused: frozenset[str] = NO_TAGS, *, limit: int = MAX_STEPS
    ) -> None:
        """Work on `code` for at most `limit` steps.

        `excused` names lookups that surely find something (`null:storage`, `null:map:NAME`).
        """
        self.found = Findings()
        self._code, self._kernel, self._excused = code, kernel, excused
        self._shapes: dict[str, Shape] = {}
        self._memo: dict[tuple[object, ...], dict[Custody, Value]] = {}
        self._active: set[tuple[object, ...]] = set()
        self._steps, self._limit = 0, limit
        self._root = ""
        self._tracked = False
        self._arguments: tuple[Value, ...] = ()
        self._next_id = 1

    @property
    def steps(self) -> int:
        """How many instructions were followed."""
        return self._steps

    def shape(self, name: str) -> Shape:
        """The flow of a function."""
        if name not in self._shapes:
            self._shapes[name] = shape(self._code.functions[name])
        return self._shapes[name]

    def callback(self, root: str, name: str, arguments: tuple[Value, ...], *, direct: bool = False) -> None:
        """Follow a callback of the scheduler; `direct`: its arguments are in registers, as a timer's are."""
        if name not in self._code.functions:
            return
        self._root = root
        self._arguments = tuple(value._replace(id=-index) for index, value in enumerate(arguments, 1))
        self._tracked = root in CUSTODIANS
        self._memo.clear()
        first = self._arguments if direct else (Value(base="ctx"),)
        for custody, value in self._follow(name, first, Custody.NONE, repeated=False, depth=0).items():
            self.found.returns[root, custody] = value

    # --- one function ---------------------------------------------------------------------------------------

    def _follow(
        self, name: str, arguments: tuple[Value, ...], custody: Custody, *, repeated: bool, depth: int
    ) -> dict[Custody, Value]:
        """Possible results of a function, by what has become of the task."""
        key = (name, arguments, custody, repeated)
        if key in self._memo:
            return self._memo[key]
        function = self._code.functions.get(name)
        if function is None or depth > _MAX_DEPTH or key in self._active:
            return {custody: UNKNOWN}
        self._active.add(key)
        results = self._run(function, arguments, custody, repeated=repeated, depth=depth)
        self._active.discard(key)
        self._memo[key] = results
        return results

    def _run(
        self, function: Function, arguments: tuple[Value, ...], custody: Custody, *, repeated: bool, depth: int
    ) -> dict[Custody, Value]:
        flow = self.shape(function.name)
        registers = [UNKNOWN] * 12
        for index, value in enumerate(arguments[:5], 1):
            # a pointer to the caller's stack is somewhere else for the callee
            given = value if value.base != "stack" else value._replace(base="outer", offset=0)
            registers[index] = given._replace(id=-index, shifted=False)
        registers[10] = Value(base="stack")
        registers[_KTHREAD] = arguments[5] if len(arguments) > 5 else constant(0)
        states: dict[tuple[int, Custody], State] = {}
        results: dict[Custody, Value] = {}
        todo: list[tuple[int, Custody]] = []
        if 0 in function.insns:
            states[0, custody] = State(registers, {})
            todo.append((0, custody))
        while todo:
            place = heapq.heappop(todo)
            for target, held, state in self._block(
                function, flow, place, states[place].copy(), results, repeated=repeated, depth=depth
            ):
                known = states.get((target, held))
                if known is None:
                    states[target, held] = state
                elif not known.meet(state):
                    continue
                if (target, held) not in todo:
                    heapq.heappush(todo, (target, held))
            if self._steps > self._limit:
                self.found.complete = False
                break
        return results

    def _block(
        self,
        function: Function,
        flow: Shape,
        place: tuple[int, Custody],
        state: State,
        results: dict[Custody, Value],
        *,
        repeated: bool,
        depth: int,
    ) -> Iterator[tuple[int, Custody, State]]:
        """Follow instructions from `place` to the end of the block; yields the states that lead on."""
        slot, custody = place
        while True:
            insn = function.insns.get(slot)
            self._steps += 1
            if insn is None or self._steps > self._limit:
                return
            kind = insn.opcode & 7
            following = slot + (2 if insn.opcode == LOAD_64 else 1)
            if insn.opcode == EXIT:
                known = results.get(custody)
                results[custody] = join(known, state.registers[0]) if known is not None else state.registers[0]
                return
            if kind in (JMP, JMP32):
                if insn.opcode in (CALL, CALL_REGISTER):
                    outcomes = self._call(function, flow, slot, insn, state, custody, repeated=repeated, depth=depth)
                    if len(outcomes) != 1 or following in flow.leaders:
                        for held, after in outcomes:
                            if following in function.insns:
                                yield following, held, after
                        return
                    custody, state = outcomes[0]
                elif insn.opcode in (JUMP, JUMP_LONG):
                    for target in flow.successors[slot]:
                        yield target, custody, state
                    return
                else:
                    yield from self._branch(function, slot, following, insn, state, custody)
                    return
            else:
                self._plain(function, slot, insn, state, custody, repeated=repeated)
            slot = following
            if slot in flow.leaders:
                if slot in function.insns:
                    yield slot, custody, state
                return

    # --- jumps ----------------------------------------------------------------------------------------------

    def _branch(
        self, function: Function, slot: int, following: int, insn: Insn, state: State, custody: Custody
    ) -> Iterator[tuple[int, Custody, State]]:
        wide = insn.opcode & 7 == JMP
        left = state.registers[min(insn.dst, 10)]
        by_register = bool(insn.opcode & 0x08)
        right = (
            state.registers[min(insn.src, 10)] if by_register else constant(insn.imm if wide else insn.imm & MASK_32)
        )
        operation = insn.opcode & 0xF0
        self._compared(function, slot, left, right, state, custody)
        for taken, target in ((False, following), (True, following + insn.offset)):
            if target not in function.insns:
                continue
            numbers = possible(operation, left, right, taken, 64 if wide else 32)
            if numbers is not None and not numbers:
                continue
            after = state.copy()
            held = self._refine(after, min(insn.dst, 10), right, operation, taken, numbers, custody)
            if held is custody is Custody.NONE:
                self.found.lost_edges.setdefault(self._root, set()).add((function.name, slot, target))
            yield target, held, after

    def _compared(
        self, function: Function, slot: int, left: Value, right: Value, state: State, custody: Custody
    ) -> None:
        """A name that decides and that its owner chose: kernel threads get theirs from the kernel."""
        if state.registers[_KTHREAD].only == 1:
            return
        if left.has("comm-compared") or (left.has("comm") and right.constants is not None and right.only != 0):
            self._event(function, slot, "compare", (left, right), custody, repeated=False)

    def _refine(
        self,
        state: State,
        register: int,
        right: Value,
        operation: int,
        taken: bool,
        numbers: frozenset[int] | None,
        custody: Custody,
    ) -> Custody:
        """What is known behind a jump: smaller sets of constants, signs, pointers that are not NULL."""
        bound, left = right.only, state.registers[register]
        equal = (operation == 0x10) == taken and operation in (0x10, 0x50)
        drop = set()
        if (operation in (0xA0, 0xB0)) == taken and operation in (0x20, 0x30, 0xA0, 0xB0):
            drop.add("negative")  # below something, without sign
        greater = (operation in (0x60, 0x70)) == taken and operation in (0x60, 0x70, 0xC0, 0xD0)
        if bound is not None and greater and signed(bound, 32) >= -1:
            drop.add("negative")
        is_null = equal and bound == 0
        lookups = {tag for tag in left.tags if tag.startswith("null:")}
        if operation in (0x10, 0x50) and bound == 0:
            drop |= lookups
            if is_null and lookups and lookups <= self._excused and self._tracked:
                custody = max(custody, Custody.EXCUSED)
        replaced = left._replace(tags=left.tags - drop)
        if numbers is not None:
            replaced = replaced._replace(constants=numbers, ones=0)
        differs = operation in (0x10, 0x50) and not equal and left.constants is None
        if differs and bound is not None and len(left.never) < _MAX_NEVER:
            replaced = replaced._replace(never=left.never | {bound & MASK_32})
        if left.has("task-flags") and (
            numbers == frozenset({PF_KTHREAD}) or (operation == 0x40 and taken and right.only == PF_KTHREAD)
        ):
            state.registers[_KTHREAD] = constant(1)
        if replaced != left:
            state.registers[register] = replaced
            if left.id:
                learn(state, left, replaced, frozenset(drop))
        return custody

    # --- everything else ------------------------------------------------------------------------------------

    def _plain(
        self, function: Function, slot: int, insn: Insn, state: State, custody: Custody, *, repeated: bool
    ) -> None:
        kind = insn.opcode & 7
        registers = state.registers
        dst, src = min(insn.dst, 10), min(insn.src, 10)
        if insn.opcode == LOAD_64:
            registers[dst] = self._load_64(insn)
        elif kind in (ALU, ALU64):
            registers[dst] = self._arithmetic(insn, kind, registers[dst], registers[src])
            if insn.field:
                self._reads(insn.field)
                registers[dst] = registers[dst]._replace(tags=registers[dst].tags | {f"at:{insn.field}"})
        elif kind == LDX:
            registers[dst] = self._load(insn, registers[src], state)
        elif kind == STX and insn.opcode & 0xE0 == 0xC0:  # atomic
            pointer = registers[dst]
            if pointer.base == "stack":
                state.stack.pop(pointer.offset + insn.offset, None)
            if insn.imm == 0x100:  # a load with acquire
                registers[dst] = UNKNOWN
            elif insn.imm & 1:  # it fetches
                target = 0 if insn.imm == 0xF1 else src
                registers[target] = tagged("counter")
        elif kind in (ST, STX):
            value = constant(insn.imm) if kind == ST else registers[src]
            self._store(function, slot, insn, registers[dst], value, state, custody, repeated=repeated)
        else:
            registers[0] = UNKNOWN  # loads of packets

    def _load_64(self, insn: Insn) -> Value:
        if insn.function:
            return Value(base=f"function:{insn.function}")
        if insn.external:
            exists = self._kernel.has(insn.symbol)
            if exists is None:
                return Value(tags=frozenset({"ksym"}), id=self._fresh())
            return constant(1) if exists else constant(0)
        if not insn.symbol:
            return constant(insn.imm)
        if insn.symbol in self._code.maps:
            return Value(base=f"map:{insn.symbol}")
        if insn.symbol in self._code.symbols:
            if insn.symbol.startswith("__SCX_") and insn.symbol[2:] in self._kernel.constants:
                return Value(base=f"enum:{insn.symbol[2:]}", offset=insn.imm)
            section, offset = self._code.symbols[insn.symbol]
            return Value(base=f"data:{section}", offset=offset + insn.imm)
        return Value(base=f"data:{insn.symbol}", offset=insn.imm)

    def _fresh(self) -> int:
        self._next_id += 1
        return self._next_id

    def _arithmetic(self, insn: Insn, kind: int, one: Value, register: Value) -> Value:
        operation = insn.opcode & 0xF0
        wide = kind == ALU64
        other = register if insn.opcode & 0x08 else constant(insn.imm if wide else insn.imm & MASK_32)
        if operation == MOV:
            if insn.offset:  # sign extension
                return Value(tags=other.tags, id=other.id if insn.offset == 32 else 0)
            return other if wide else narrow(other)
        if operation == 0xD0 or (insn.offset and operation in (0x30, 0x90)):  # byte swap, signed division
            return Value(tags=one.tags)
        if operation == NEG:
            other = UNKNOWN
        result = arithmetic(operation, one, other, 64 if wide else 32)
        if operation == ADD and wide and insn.field and not result.base:
            return result._replace(tags=result.tags | {"task"})
        return result

    def _reads(self, name: str) -> None:
        self.found.fields.setdefault(self._root, set()).add(name)

    def _load(self, insn: Insn, pointer: Value, state: State) -> Value:
        size = _SIZES[insn.opcode & 0x18]
        place = pointer.offset + insn.offset
        if insn.field:
            self._reads(insn.field)
        tags = set(pointer.tags & {"task"})
        if pointer.base == "task":
            tags.add("task")
        fields = {insn.field, *(tag[3:] for tag in pointer.tags if tag.startswith("at:"))}
        if COMM in fields:
            tags.add("comm")
        elif fields & PRIORITIES:
            tags.add("priority")
        elif "task_struct.flags" in fields:
            tags.add("task-flags")
        if pointer.base == "ctx":
            index = place // 8
            if 0 <= index < len(self._arguments) and place % 8 == 0:
                return self._arguments[index]
            return UNKNOWN
        if pointer.base == "stack":
            return from_stack(state, place, size)
        if pointer.base.startswith("enum:"):
            value = self._kernel.constants[pointer.base[5:]]
            return constant(value & ((1 << 8 * size) - 1))
        section = pointer.base.removeprefix("data:")
        content = self._code.read_only.get(section) if section != pointer.base else None
        if content is not None and 0 <= place <= len(content) - size:
            return constant(int.from_bytes(content[place : place + size], "little"))
        if section != pointer.base:
            tags.add("global")
        return Value(tags=frozenset(tags), id=self._fresh(), short=size < 8)

    def _store(
        self,
        function: Function,
        slot: int,
        insn: Insn,
        pointer: Value,
        value: Value,
        state: State,
        custody: Custody,
        *,
        repeated: bool,
    ) -> None:
        size = _SIZES[insn.opcode & 0x18]
        if insn.field:
            self._event(function, slot, "store", (value,), custody, repeated=repeated, field_name=insn.field)
        if pointer.base != "stack":
            return
        place = pointer.offset + insn.offset
        for known in [at for at, (length, _) in state.stack.items() if at < place + size and place < at + length]:
            del state.stack[known]
        if size < 8 and value.constants is not None:
            value = constant(*(number & ((1 << 8 * size) - 1) for number in value.constants), tags=value.tags)
        if len(state.stack) < _MAX_STACK_SLOTS:
            state.stack[place] = (size, value)

    # --- calls ----------------------------------------------------------------------------------------------

    def _call(
        self,
        function: Function,
        flow: Shape,
        slot: int,
        insn: Insn,
        state: State,
        custody: Custody,
        *,
        repeated: bool,
        depth: int,
    ) -> list[tuple[Custody, State]]:
        arguments = tuple(state.registers[1:6])
        if insn.function:
            again = self._again(flow, slot, repeated=repeated)
            given = (*(_nameless(value) for value in arguments), state.registers[_KTHREAD])
            outcomes = self._follow(insn.function, given, custody, repeated=again, depth=depth + 1)
            forget(state, arguments, "")
            return [(held, after(state, value)) for held, value in outcomes.items()]
        raw = insn.symbol if insn.external else HELPERS.get(insn.imm, f"helper#{insn.imm}") if not insn.src else ""
        name = raw.split("___")[0] or raw
        name = TODAY.get(name, name)
        weak_missing = insn.external and self._kernel.has(insn.symbol) is False
        result = self._result(name, arguments)
        told = unpacked(raw, state, arguments)
        self._event(
            function, slot, name, told, custody,
            repeated=self._again(flow, slot, repeated=repeated), raw_name=raw, weak_missing=weak_missing,
        )  # fmt: skip
        held = {custody}
        for value in arguments:
            if value.base.startswith("function:"):
                held |= self._called_back(name, value.base[9:], arguments, custody, depth)
        if not self._tracked:
            held = {custody}
        elif name in ERRORS:
            held = {max(custody, Custody.EXCUSED)}
        elif name in INSERTS and not arguments[0].has("other-task"):
            held = {Custody.INSERTED if arguments[0].base == "task" else Custody.EXCUSED}
        self._copied(function, slot, name, arguments, state, custody)
        return [(one, after(state, result)) for one in sorted(held)]

    @staticmethod
    def _again(flow: Shape, slot: int, *, repeated: bool) -> bool:
        """Whether a call happens in each turn of a loop, of this function or of a caller."""
        return flow.each_turn(slot) or (repeated and flow.unavoidable(slot))

    def _result(self, name: str, arguments: tuple[Value, ...]) -> Value:
        value = RESULTS.get(name, UNKNOWN)
        if name in ("bpf_map_lookup_elem", "bpf_map_lookup_percpu_elem"):
            value = tagged(f"null:{arguments[0].base}")
        elif name in TASK_SOURCES:
            value = tagged("other-task")
        return value._replace(id=self._fresh())

    def _called_back(
        self, name: str, target: str, arguments: tuple[Value, ...], custody: Custody, depth: int
    ) -> set[Custody]:
        """Follow a function whose address is an argument."""
        if name in ("bpf_timer_set_callback", "bpf_wq_set_callback_impl", "bpf_wq_set_callback"):
            self.found.timers.add(target)
            return {custody}
        given = (tagged("index"), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
        if name == "bpf_loop":
            given = (tagged("index"), _nameless(arguments[2]), UNKNOWN, UNKNOWN, UNKNOWN)
        outcomes = self._follow(target, given, custody, repeated=True, depth=depth + 1)
        return {custody, *outcomes}

    def _copied(
        self, function: Function, slot: int, name: str, arguments: tuple[Value, ...], state: State, custody: Custody
    ) -> None:
        """Follow a process' name through copies on the stack, and tell where it is compared."""
        is_name = [is_comm(value, state) for value in arguments]
        if name in COMPARES and any(is_name) and state.registers[_KTHREAD].only != 1:
            self._event(function, slot, "compare", arguments, custody, repeated=False)
        forget(state, arguments, name)
        target = arguments[0]
        if target.base == "stack" and ((name in COPIES and is_name[2]) or name == "bpf_get_current_comm"):
            state.stack[target.offset] = (COMM_BYTES, tagged("comm"))

    def _event(
        self,
        function: Function,
        slot: int,
        name: str,
        arguments: tuple[Value, ...],
        custody: Custody,
        *,
        repeated: bool,
        raw_name: str = "",
        weak_missing: bool = False,
        field_name: str = "",
    ) -> None:
        key = (self._root, function.name, slot, name, int(custody))
        known = self.found.events.get(key)
        if known is None:
            self.found.events[key] = Event(
                self._root, function.name, slot, name, arguments, custody, repeated, raw_name, weak_missing, field_name
            )
        else:
            known.args = tuple(join(one, other) for one, other in zip(known.args, arguments, strict=True))
            known.repeated = known.repeated or repeated


def _nameless(value: Value) -> Value:
    """The value without its identity, which means nothing in another function."""
    return value._replace(id=0, shifted=False)
