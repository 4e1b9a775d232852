# SPDX-License-Identifier: Apache-2.0
"""What the kernel says: exit kinds of sched_ext, and the kernel log.

The kernel's word comes on two roads, the runner's `exit` event and the console. Parts of both are the candidate's
own text: the message of scx_bpf_error(), the figures in its own user_exit_info, names of tasks. So text of the
candidate is never searched for patterns, patterns of the console are anchored behind the kernel's time stamp, and
what the console says of an exit counts even where the `exit` event sounds better.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed.case import Ended, Event, printable
from testbed.judge.view import NS_PER_S, UNREG, UNREG_BPF, View, clean_exit
from testbed.verdict import Finding

ERROR = 1024
ERROR_BPF = 1025
ERROR_STALL = 1026
_STALLED_TASK = re.compile(r"\[(\d{1,9})\] failed to run for ")
KIND_NAMES = {
    64: "unregistered from user space",
    65: "unregistered from BPF",
    66: "unregistered from the main kernel",
    67: "disabled by sysrq-S",
    68: "parent exiting",
    69: "killed by parent scheduler",
    1024: "runtime error",
    1025: "scx_bpf_error",
    1026: "runnable task stall",
    1027: "reenqueue limit",
    1028: "rescue bandwidth overload",
}
"""scx_exit_reason() of the kernel, by the value of `enum scx_exit_kind`; 1024 and above is a fault."""

CLOCK_SLACK_S = 1.0
"""printk's clock and CLOCK_MONOTONIC start a moment apart."""

_RECORD = re.compile(rb"(?:<(\d{1,4})>)?\[ {0,4}(\d{1,6})\.(\d{6})\](?:\[ {0,6}[TC]\d+\])? (.*)", re.DOTALL)
_USER_FACILITY = 8


@dataclass(frozen=True)
class Record:
    """A console line that begins as a kernel message does."""

    index: int
    time_s: float
    text: str
    quoted: bool
    """Whether it continues a message that carries the candidate's own words."""


def records(view: View) -> tuple[Record, ...]:
    """The kernel's messages on the console.

    A message with line breaks in it is printed with the same time stamp before each of its lines, so a line that
    shares its stamp with the scheduler's own message right before it is a part of that message. With
    `console_msg_format=syslog` the facility is told too, and what user space wrote to /dev/kmsg is left out.
    """
    found: list[Record] = []
    speaking: tuple[bytes, bytes] | None = None
    for index, line in enumerate(view.run.console.lines):
        match = _RECORD.fullmatch(line[:2000])
        if match is None:
            continue
        level, seconds, micros, text = match.groups()
        stamp = (seconds, micros)
        if level is not None and int(level) >= _USER_FACILITY:
            continue
        quoted = speaking == stamp
        if not quoted:
            speaking = stamp if re.match(rb"sched_ext: [\w.]+: |sched_ext: .*\[\d+\] ", text) else None
        time_s = int(seconds) + int(micros) / 1e6
        found.append(Record(index, time_s, printable(text, 1000), quoted))
    return tuple(found)


@dataclass(frozen=True)
class Pattern:
    """A message of the kernel, matched from its first letter on."""

    expression: re.Pattern[str]
    code: str
    fatal: bool = False


def _pattern(expression: str, code: str, *, fatal: bool = False) -> Pattern:
    return Pattern(re.compile(expression), code, fatal)


# Order matters: the first that matches names the finding. Messages are the kernel's own (kernel/watchdog.c,
# kernel/rcu/tree_stall.h, kernel/hung_task.c, arch/x86/kernel/dumpstack.c, kernel/panic.c, kernel/sched/ext/ext.c).
PATTERNS = (
    _pattern(r"(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for ", "soft-lockup"),
    _pattern(r"sched_ext: Soft lockup - CPU ?\d+ stuck for ", "soft-lockup"),
    _pattern(r"sched_ext: Hard lockup - CPU ?\d+", "hard-lockup"),
    _pattern(r"(?:NMI watchdog: |watchdog: )?(?:CPU ?\d+: )?Watchdog detected hard LOCKUP on cpu \d+", "hard-lockup"),
    _pattern(r"rcu: INFO: rcu_\w+ (?:self-detected stall|detected (?:expedited )?stalls) on ", "rcu-stall"),
    _pattern(r"rcu: (?:\t| *)rcu_\w+ kthread (?:starved|timer wakeup didn't happen) for \d+", "rcu-stall"),
    _pattern(r"INFO: task .{1,40}:\d+ (?:<.*> )?(?:is )?blocked ", "hung-task"),
    _pattern(r"Out of memory: Killed process ", "out-of-memory"),
    _pattern(r"BUG: workqueue lockup - pool ", "kworker-starved"),
    _pattern(r"Kernel panic - not syncing: softlockup: ", "soft-lockup", fatal=True),
    _pattern(r"Kernel panic - not syncing: (?:Hard LOCKUP|Watchdog detected hard LOCKUP)", "hard-lockup", fatal=True),
    _pattern(r"Kernel panic - not syncing: RCU Stall", "rcu-stall", fatal=True),
    _pattern(r"Kernel panic - not syncing: hung_task: ", "hung-task", fatal=True),
    _pattern(r"Kernel panic - not syncing: (?:Fatal exception|Oops|Fatal Machine)", "kernel-oops", fatal=True),
    _pattern(r"Kernel panic - not syncing: ", "kernel-panic", fatal=True),
    _pattern(r"Oops: ", "kernel-oops"),
    _pattern(
        r"BUG: (?:unable to handle|kernel NULL pointer|scheduling while atomic|sleeping function) ?", "kernel-oops"
    ),
    _pattern(r"BUG: (?:KASAN|KCSAN|KFENCE|spinlock|using |Bad |corrupted )", "kernel-oops"),
    _pattern(r"kernel BUG at ", "kernel-oops"),
    _pattern(r"(?:general protection fault|double fault|stack segment|divide error)\b", "kernel-oops"),
    _pattern(r"traps: PANIC: double fault", "kernel-oops"),
    _pattern(r"list_(?:add|del) corruption", "kernel-oops"),
    _pattern(r"WARNING: (?:CPU: \d+ PID: \d+ at |.{1,80}:\d+ at |possible )", "kernel-warning"),
    _pattern(r"sched_ext: .{1,40}\[\d+\] has zero slice in ", "zero-slice"),
)

_RUNNER_DIED = re.compile(r"Kernel panic - not syncing: Attempted to kill init")
_INT3 = re.compile(r"Oops: int3\b")
_DISABLED = re.compile(r'sched_ext: BPF (?:sub-)?scheduler "([\w.]*)" disabled \((.*)\)')
_ENABLED = re.compile(r'sched_ext: BPF (?:sub-)?scheduler "([\w.]*)" enabled')

# Of a message that the kernel itself worded (kind 1024). scx_bpf_error() texts (1025) are the candidate's.
_RUNTIME = (
    (re.compile(r"soft lockup - CPU ?\d+ stuck for "), "soft-lockup"),
    (re.compile(r"hard lockup - CPU ?\d+"), "hard-lockup"),
    (re.compile(r"RCU CPU stall on CPUs "), "rcu-stall"),
    (re.compile(r"ops\.(?:init|init_cids|init_task|cgroup_init)\(\) failed "), "init-failed"),
    (re.compile(r"scx_(?:root|sub)_enable\(\) failed "), "init-failed"),
)

_ADVICE = (
    (
        re.compile(r"SCX_DSQ_LOCAL\[_ON\] target CPU \d+ not allowed"),
        "a task was sent to the local DSQ of a CPU that its affinity forbids",
        "test bpf_cpumask_test_cpu(cpu, p->cpus_ptr) right before SCX_DSQ_LOCAL_ON, and fall back to a shared DSQ",
    ),
    (
        re.compile(r"SCX_DSQ_LOCAL\[_ON\] cannot move migration disabled"),
        "a task with migration disabled was sent to another CPU's local DSQ",
        "where is_migration_disabled(p), dispatch to its own CPU (scx_bpf_task_cpu(p)) only",
    ),
    (
        re.compile(r"non-existent DSQ"),
        "a DSQ was used that nobody created, or that was destroyed",
        "create it in ops.init() with scx_bpf_create_dsq(), and use the same id",
    ),
    (
        re.compile(r"invalid CPU"),
        "a CPU number out of range was returned or passed",
        "clamp CPU numbers to scx_bpf_nr_cpu_ids(), and check for negative errors of pick functions",
    ),
    (
        re.compile(r"dispatch buffer overflow"),
        "more tasks were dispatched in one ops.dispatch() than `dispatch_max_batch` allows",
        "stop when scx_bpf_dispatch_nr_slots() is 0, or raise `dispatch_max_batch`",
    ),
    (
        re.compile(r"already direct-dispatched|but trying to direct-dispatch"),
        "a task was inserted twice, or another one than the task at hand, in select_cpu/enqueue",
        "insert exactly the task that was passed, once",
    ),
    (
        re.compile(r"FIFO-enqueued|PRIQ-enqueued|vtime ordering"),
        "FIFO and vtime insertions were mixed in one DSQ",
        "use scx_bpf_dsq_insert() or scx_bpf_dsq_insert_vtime() for a DSQ, never both",
    ),
)


def findings(view: View) -> Iterator[Finding]:
    """Everything that the kernel said against the run."""
    seen = records(view)
    yield from _exits(view, seen)
    yield from _log(view, seen)


# --- exits ---------------------------------------------------------------------------------------------------


def _exits(view: View, seen: tuple[Record, ...]) -> Iterator[Finding]:
    exits = [event for event in view.run.stream.of("exit") if view.has_candidate]
    told = False
    asked: list[Event] = []
    for event in exits:
        kind = event.integer("kind")
        if clean_exit(event):
            continue
        if view.asks_for_restart(event):
            asked.append(event)
            continue
        told = True
        yield _exit_finding(view, event, kind, seen)
        break  # what follows an ejection is its consequence
    if asked:
        words = f"exit kind {asked[0].integer('kind')}, {view.since_attach(asked[0])}: {asked[0].text('message')}"
        yield view.found("restart-requested", words.removesuffix(": "), [view.ref(event) for event in asked[:3]])
    reason, index = _console_exit(view, seen, asked)
    if reason is not None and not told:
        code = {
            "runnable task stall": "runnable-task-stall",
            "unregistered from BPF": "self-ejected",
            "scx_bpf_error": "self-ejected",
            "unregistered from the main kernel": "unregistered-by-kernel",
            "disabled by sysrq-S": "unregistered-by-kernel",
        }.get(reason, "scheduler-error")
        following = next((one for one in seen if one.index == index + 1), None)
        words = f": {following.text}" if following and following.text.startswith("sched_ext: ") else ""
        if code == "scheduler-error" and reason == "runtime error" and following:
            code = _runtime_code(following.text.partition(": ")[2].partition(": ")[2])
        refs = [view.console_ref(index)] + ([view.console_ref(index + 1)] if words else [])
        cause, hint = _advice(words)
        note = "; the scheduler's own record of its exit does not say so" if exits else ""
        yield view.found(
            code, f"the kernel disabled the scheduler ({reason}){words}{note}", refs, cause=cause, hint=hint
        )


def _exit_finding(view: View, event: Event, kind: int, seen: tuple[Record, ...]) -> Finding:
    message = event.text("message")
    code = {
        0: "unregistered-itself",
        1: "unregistered-itself",
        UNREG: "unregistered-itself",
        UNREG_BPF: "self-ejected",
        ERROR_STALL: "runnable-task-stall",
        ERROR: _runtime_code(message),
        ERROR_BPF: "self-ejected",
    }.get(kind, "scheduler-error" if kind >= ERROR else "unregistered-by-kernel")
    reason = KIND_NAMES.get(kind) or event.text("name") or "unknown reason"
    words = f"exit kind {kind} ({reason}) {view.since_attach(event)}"
    if message:
        named = _STALLED_TASK.search(message)
        words += f": {message}{view.owner(int(named[1])) if named else ''}"
    refs = [view.ref(event)]
    refs += [view.console_ref(one.index) for one in seen if not one.quoted and _DISABLED.match(one.text)][:1]
    cause, hint = _advice(message) if kind == ERROR else ("", "")
    if kind == ERROR_BPF:
        cause = "the scheduler called scx_bpf_error() itself; the message is its own"
        hint = "find the call by its text in the source, and see which assumption did not hold"
    if kind == ERROR_STALL and message.startswith("watchdog failed to check in"):
        cause = "the kernel's own watchdog worker did not run: kernel workers starve"
        hint = "insert kernel threads into SCX_DSQ_LOCAL from ops.enqueue(), and drain every DSQ on every CPU"
    return view.found(code, words, refs, cause=cause, hint=hint)


def _runtime_code(message: str) -> str:
    return next((code for expression, code in _RUNTIME if expression.match(message)), "scheduler-error")


def _advice(message: str) -> tuple[str, str]:
    return next(((cause, hint) for expression, cause, hint in _ADVICE if expression.search(message)), ("", ""))


def _console_exit(view: View, seen: tuple[Record, ...], asked: Sequence[Event]) -> tuple[str | None, int]:
    """The first reason other than a wish of user space for which the console says that a scheduler was disabled.

    Nor a request for a restart: of a program that starts itself again the runner tells the first one only. The reason
    alone makes no request: scx_bpf_exit() gives the same one at any time, and so does an outdated `hotplug_seq`.
    """
    if not view.has_candidate:
        return None, 0
    restarts = {KIND_NAMES[event.integer("kind")] for event in asked}
    for record in seen:
        match = None if record.quoted else _DISABLED.match(record.text)
        if match is None or match[2] == KIND_NAMES[UNREG]:
            continue
        if match[2] in restarts and view.cpus_moved(int(record.time_s * NS_PER_S), int(CLOCK_SLACK_S * NS_PER_S)):
            continue
        return match[2], record.index
    return None, 0


# --- the log -------------------------------------------------------------------------------------------------


def _log(view: View, seen: tuple[Record, ...]) -> Iterator[Finding]:
    emulator = emulator_fault(view, seen)
    by_code: dict[str, list[Record]] = {}
    for record in seen:
        if record.quoted or not _relevant(view, record) or _RUNNER_DIED.match(record.text):
            continue
        if emulator is not None and record.time_s >= emulator.time_s:
            break
        pattern = next((one for one in PATTERNS if one.expression.match(record.text)), None)
        if pattern is not None:
            by_code.setdefault(pattern.code, []).append(record)
    if emulator is not None:
        yield view.found(
            "emulator-fault",
            f"`{emulator.text}` under `{view.run.outcome.accelerator}`: the emulator ran a half-patched instruction",
            [view.console_ref(emulator.index)],
        )
    for code, hits in by_code.items():
        # A panic, oops or warning that only repeats a lock-up's own report is the same thing.
        if code in ("kernel-panic", "kernel-oops", "kernel-warning") and _LOCKUPS & by_code.keys() - {code}:
            continue
        yield view.found(code, f"the kernel says: {hits[0].text}", [view.console_ref(hit.index) for hit in hits[:3]])


_LOCKUPS = {"soft-lockup", "hard-lockup", "rcu-stall", "hung-task"}


def _relevant(view: View, record: Record) -> bool:
    """Whether a message may be the candidate's doing: not before it was attached. All of them in a baseline."""
    if not view.has_candidate:
        return True
    begun = view.attach_begun
    return begun is not None and record.time_s >= begun.t / NS_PER_S - CLOCK_SLACK_S


def emulator_fault(view: View, seen: tuple[Record, ...] | None = None) -> Record | None:
    """`Oops: int3` where the emulator itself makes it: several CPUs emulated by several threads.

    Text that imitates it excuses nothing: it needs that accelerator, a guest that really ended, and an oops that goes
    on as oopses do, in messages of their own (a time stamp each).
    """
    if "multi" not in view.run.outcome.accelerator or view.run.outcome.ended not in (Ended.PANIC, Ended.POWEROFF):
        return None
    seen = records(view) if seen is None else seen
    for position, record in enumerate(seen):
        if record.quoted or not _INT3.match(record.text):
            continue
        before = seen[position - 1].time_s if position else -1.0
        following = [one for one in seen[position + 1 : position + 16] if one.time_s > record.time_s]
        if record.time_s > before and all(
            any(one.text.startswith(start) for one in following) for start in ("CPU: ", "RIP: 0010:")
        ):
            return record
    return None


def panic_line(view: View) -> Record | None:
    """The kernel's last word, if it is one of panic."""
    return next(
        (one for one in records(view) if not one.quoted and one.text.startswith("Kernel panic - not syncing: ")),
        None,
    )


def runner_died(view: View) -> bool:
    """Whether the guest went down because its init, the runner, ended: a fault of ours."""
    return any(not one.quoted and _RUNNER_DIED.match(one.text) for one in records(view))
