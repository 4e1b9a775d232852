# SPDX-License-Identifier: Apache-2.0
"""Every rule of the lint: what it says, why that matters, an example, the smallest fix.

`testbed explain CODE` prints an entry and docs/reference/lint.md is generated from them. A code is never renamed and
never gets a new meaning. Nothing is imported here, so that the catalogue of codes costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "lint-"
MAX_LINTS = 20


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        code: the stable word.
        title: the finding in a few words, without anything that varies.
        severity: `error`: this kernel can't run it at all; `warning`: advice, which never decides a verdict.
        meaning: what was found.
        why: why that matters.
        cause: how that usually comes about.
        fix: the smallest change that helps; the hint of a finding.
        example: bad code.
        better: the same, mended.
    """

    code: str
    title: str
    severity: Literal["error", "warning"]
    meaning: str
    why: str
    cause: str
    fix: str
    example: str
    better: str


def _code(*lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines)


_ALL = (
    # --- queues --------------------------------------------------------------------------------------------------
    Rule(
        "lint-undrained-queue",
        "a queue that nobody drains",
        "warning",
        "Tasks are inserted into a DSQ whose id is never given to scx_bpf_dsq_move_to_local() or to an iterator.",
        "Who is inserted there never runs again: a stall as soon as the first task takes that way.",
        "two queues of which ops.dispatch() knows one, or a queue that was renumbered in one place",
        "give the queue to scx_bpf_dsq_move_to_local() in ops.dispatch()",
        _code(
            "scx_bpf_dsq_insert(p, EXPIRED, SCX_SLICE_DFL, enq_flags);", "…", "scx_bpf_dsq_move_to_local(ACTIVE, 0);"
        ),
        _code("if (!scx_bpf_dsq_move_to_local(ACTIVE, 0))", "        scx_bpf_dsq_move_to_local(EXPIRED, 0);"),
    ),
    Rule(
        "lint-unknown-queue",
        "a queue that nobody creates",
        "warning",
        "A DSQ is used by its number, and scx_bpf_create_dsq() is never called with that number.",
        "The kernel ejects the scheduler at the first use: the verifier can't know which queues there are.",
        "a forgotten scx_bpf_create_dsq(), or two names for one queue",
        "create it in ops.init(): `return scx_bpf_create_dsq(ID, -1);`",
        _code("#define QUEUE 42", "scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);   /* no ops.init() */"),
        _code("s32 BPF_STRUCT_OPS_SLEEPABLE(my_init)", "{", "        return scx_bpf_create_dsq(QUEUE, -1);", "}"),
    ),
    Rule(
        "lint-builtin-queue",
        "a built-in queue where an own one is needed",
        "warning",
        "SCX_DSQ_GLOBAL or SCX_DSQ_LOCAL is created, moved from or iterated.",
        "Only queues that the scheduler created can be: the kernel answers with an error, or ejects the scheduler.",
        "the kernel drains its built-in queues by itself, so there is nothing to do for them in ops.dispatch()",
        "leave the call out, or create a queue of your own and insert into that",
        _code("scx_bpf_dsq_move_to_local(SCX_DSQ_GLOBAL, 0);"),
        _code("scx_bpf_dsq_move_to_local(MY_QUEUE, 0);   /* created in ops.init() */"),
    ),
    Rule(
        "lint-vtime-builtin",
        "an order by vtime in a built-in queue",
        "warning",
        "scx_bpf_dsq_insert_vtime() into SCX_DSQ_GLOBAL, SCX_DSQ_LOCAL or SCX_DSQ_LOCAL_ON.",
        "Built-in queues are first in, first out; the kernel ejects the scheduler at the first insertion.",
        "a FIFO scheduler that was turned into a fair one by changing the call only",
        "create a queue of your own in ops.init(), and drain it in ops.dispatch()",
        _code("scx_bpf_dsq_insert_vtime(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, vtime, enq_flags);"),
        _code("scx_bpf_dsq_insert_vtime(p, MY_QUEUE, SCX_SLICE_DFL, vtime, enq_flags);"),
    ),
    Rule(
        "lint-mixed-order",
        "one queue in two orders",
        "warning",
        "The same DSQ is filled with scx_bpf_dsq_insert() in one place and scx_bpf_dsq_insert_vtime() in another.",
        "A DSQ is first in, first out, or ordered: the kernel ejects the scheduler when tasks of both kinds meet.",
        "a special case (kernel threads, new tasks) that takes a shortcut into the ordered queue",
        "use one kind of insertion per queue, or a second queue for the special case",
        _code(
            "if (p->flags & PF_KTHREAD)",
            "        scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);",
            "else",
            "        scx_bpf_dsq_insert_vtime(p, QUEUE, SCX_SLICE_DFL, vtime, enq_flags);",
        ),
        _code(
            "if (p->flags & PF_KTHREAD)",
            "        scx_bpf_dsq_insert_vtime(p, QUEUE, SCX_SLICE_DFL, 0, enq_flags);",
            "…",
        ),
    ),
    # --- tasks ---------------------------------------------------------------------------------------------------
    Rule(
        "lint-lost-task",
        "a task that ops.enqueue() loses",
        "warning",
        "There is a way through ops.enqueue() on which the task is inserted into no queue, no error is reported, and "
        "nothing in the program could find the task again later.",
        "The task stays runnable and never runs: a stall.",
        "an early return, e.g. for kernel threads or after a lookup that failed",
        "insert it before the return, if need be into SCX_DSQ_GLOBAL, or call scx_bpf_error()",
        _code(
            "if (p->flags & PF_KTHREAD)",
            "        return;",
            "scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);",
        ),
        _code(
            "if (p->flags & PF_KTHREAD) {",
            "        scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);",
            "        return;",
            "}",
        ),
    ),
    Rule(
        "lint-double-insert",
        "a task that is inserted twice",
        "warning",
        "There is a way through one callback on which the same task is inserted into a queue again.",
        "The kernel ejects the scheduler: a task can wait in one queue only.",
        "a missing `return` or `else` behind the first insertion",
        "return after the first insertion",
        _code(
            "if (p->nr_cpus_allowed == 1)",
            "        scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);",
            "scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);",
        ),
        _code(
            "if (p->nr_cpus_allowed == 1) {",
            "        scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);",
            "        return;",
            "}",
        ),
    ),
    Rule(
        "lint-affinity-ignored",
        "a CPU chosen without a look at the CPU mask",
        "warning",
        "A task goes to SCX_DSQ_LOCAL_ON of a CPU, or to the queue that only one CPU drains, and the callback looks "
        "neither at the task's CPU mask nor asks the kernel for a CPU.",
        "The kernel ejects the scheduler at the first pinned task (SCX_DSQ_LOCAL_ON), or the task never runs: its CPU "
        "does not look into that queue.",
        "CPUs dealt out in turn, by number or by load, as if every task could use all of them",
        "ask `bpf_cpumask_test_cpu(cpu, p->cpus_ptr)` and `is_migration_disabled(p)` first, else use SCX_DSQ_LOCAL",
        _code("scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | next_cpu++ % nr_cpus, SCX_SLICE_DFL, enq_flags);"),
        _code(
            "if (bpf_cpumask_test_cpu(cpu, p->cpus_ptr) && !is_migration_disabled(p))",
            "        queue = SCX_DSQ_LOCAL_ON | cpu;",
        ),
    ),
    Rule(
        "lint-by-name",
        "a decision by the name of a process",
        "warning",
        "A callback that runs at every decision compares the name of a process (`comm`) with something.",
        "Every process chooses its own name: whoever knows the list gets what it gives, and a measurement of programs "
        "with these names says nothing about others.",
        "a list of programs that are to be preferred",
        "decide by what a task does (how long it runs, how often it sleeps), by its weight or by its cgroup",
        _code('if (!bpf_strncmp(p->comm, 8, "schbench"))', "        queue = FIRST;"),
        _code("if (p->scx.weight > 100)", "        queue = FIRST;"),
    ),
    Rule(
        "lint-strict-priority",
        "a priority that always wins",
        "warning",
        "The vtime of an insertion is the task's priority shifted above every difference of time.",
        "While tasks of a better priority come, a worse one never gets its turn: it starves, however long it waits.",
        "a sort key `priority << 48 | time`",
        "let time outweigh the priority: `now + (priority - 100) * SOME_MS`",
        _code("u64 key = (u64)p->static_prio << 48 | now >> 8;"),
        _code("u64 key = now + (u64)(p->static_prio - 100) * NSEC_PER_MSEC;"),
    ),
    Rule(
        "lint-newest-first",
        "last come, first served",
        "warning",
        "The vtime of an insertion is a constant minus the time: it falls as time passes.",
        "A DSQ gives the smallest vtime first, so whoever waits longest is served last, and starves while others come.",
        "a stack on purpose (warm caches), or a sign that was turned round",
        "use the time itself, or a deadline: `now + patience`",
        _code("u64 key = (1ULL << 62) - scx_bpf_now();"),
        _code("u64 key = scx_bpf_now() + PATIENCE_NS;"),
    ),
    # --- CPUs ----------------------------------------------------------------------------------------------------
    Rule(
        "lint-no-wakeup",
        "no idle CPU is woken",
        "warning",
        "ops.enqueue() inserts into a queue for several CPUs, ops.select_cpu() looks for no idle CPU and inserts "
        "nothing, and nobody calls scx_bpf_kick_cpu().",
        "Only the CPU that ops.select_cpu() names looks at the queue. If it is busy the task waits beside idle CPUs.",
        "an ops.select_cpu() that returns `prev_cpu`",
        "leave ops.select_cpu() out (the kernel's own finds an idle CPU), or kick one: "
        "`scx_bpf_kick_cpu(scx_bpf_pick_idle_cpu(p->cpus_ptr, 0), SCX_KICK_IDLE)` if that is not negative",
        _code("s32 BPF_STRUCT_OPS(my_select_cpu, …) { return prev_cpu; }"),
        _code(
            "cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);",
            "if (cpu >= 0)",
            "        scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);",
        ),
    ),
    Rule(
        "lint-one-cpu",
        "everything on one CPU",
        "warning",
        "ops.select_cpu() returns the same number for every task, and nobody kicks or fills another CPU.",
        "All that wakes up queues at one CPU, however many idle beside it.",
        "a stub that was never filled in",
        "leave ops.select_cpu() out, or return what scx_bpf_select_cpu_dfl() says",
        _code("s32 BPF_STRUCT_OPS(my_select_cpu, …) { return 0; }"),
        _code("return scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);"),
    ),
    Rule(
        "lint-unchecked-cpu",
        "an error code used as a CPU",
        "warning",
        "What scx_bpf_pick_idle_cpu() or its like returned is used as a CPU without a test for a negative number.",
        "It is -EBUSY when no CPU is idle: the kernel ejects the scheduler as soon as the machine is busy.",
        "tests on a machine that always had an idle CPU",
        "test it: `if (cpu < 0) return prev_cpu;`",
        _code("return scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);"),
        _code("cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);", "return cpu >= 0 ? cpu : prev_cpu;"),
    ),
    Rule(
        "lint-kicks-everybody",
        "a kick in each turn of a loop",
        "warning",
        "A callback that runs at every decision calls scx_bpf_kick_cpu() in each turn of a loop.",
        "Every kick is an interrupt or a wake-up. CPUs that do it to each other are busy with themselves.",
        "one CPU should be woken, and it seemed simplest to wake all",
        "kick one idle CPU that the task may use, with SCX_KICK_IDLE, and leave the loop",
        _code("bpf_for(cpu, 0, nr_cpus)", "        scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);"),
        _code(
            "cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);",
            "if (cpu >= 0)",
            "        scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);",
        ),
    ),
    Rule(
        "lint-idle-tracking-off",
        "asks for idle CPUs that nobody records",
        "warning",
        "The scheduler has ops.update_idle(), which switches the kernel's record of idle CPUs off, and calls a "
        "function that asks that record.",
        "The kernel ejects the scheduler at the first such call.",
        "an ops.update_idle() that was added to a working scheduler",
        "set `.flags = SCX_OPS_KEEP_BUILTIN_IDLE`",
        _code(
            "SCX_OPS_DEFINE(my_ops, .update_idle = (void *)my_update_idle, …);",
            "…",
            "cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);",
        ),
        _code("SCX_OPS_DEFINE(my_ops, …, .flags = SCX_OPS_KEEP_BUILTIN_IDLE);"),
    ),
    # --- waits ---------------------------------------------------------------------------------------------------
    Rule(
        "lint-infinite-slice",
        "an infinite slice that nothing ends",
        "warning",
        "A task gets SCX_SLICE_INF, and nothing in the scheduler preempts, kicks with SCX_KICK_PREEMPT or shortens "
        "slices.",
        "A task that does not sleep keeps its CPU for good, and who waits behind it waits for ever.",
        "SCX_SLICE_INF taken for `no limit needed`",
        "use SCX_SLICE_DFL, or preempt from a timer with `scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT)`",
        _code("scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_INF, enq_flags);"),
        _code("scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);"),
    ),
    Rule(
        "lint-long-slice",
        "a slice of more than half a second",
        "warning",
        "A task gets a slice above 500 ms, and nothing in the scheduler preempts it.",
        "Whoever wakes up beside N such tasks can wait N slices. The default is 20 ms.",
        "throughput bought with waits, or microseconds taken for nanoseconds",
        "use SCX_SLICE_DFL or less; slices are in nanoseconds",
        _code("scx_bpf_dsq_insert(p, QUEUE, 1500 * 1000 * 1000ULL, enq_flags);"),
        _code("scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);"),
    ),
    Rule(
        "lint-long-timeout",
        "a watchdog that looks away for long",
        "warning",
        "`.timeout_ms` is above 10 s.",
        "So long may a task wait, e.g. sshd or a kernel worker, before the kernel takes the scheduler away.",
        "a stall that was cured by patience",
        "use 5000 or less, and find out who waits",
        _code(".timeout_ms = 30000,"),
        _code(".timeout_ms = 5000,"),
    ),
    Rule(
        "lint-long-loop",
        "a loop that may be very long",
        "warning",
        "bpf_loop() with 65536 turns or more in a callback, a timer or ops.exit().",
        "The verifier only wants a bound. Callbacks hold a lock with interrupts off: the machine waits for the end.",
        "waiting for a time or a condition in a callback, or a search over everything",
        "bound the loop by what there is to do in one call, e.g. 32 tasks, and go on at the next call",
        _code("bpf_loop(1 << 23, is_it_time, &until, 0);"),
        _code("bpf_for(i, 0, 32)", "        …"),
    ),
    # --- the table -----------------------------------------------------------------------------------------------
    Rule(
        "lint-sleepable",
        "sleeps where nothing may sleep, or the other way round",
        "error",
        "A function that may sleep (scx_bpf_create_dsq()) is called from a program that was not compiled as sleepable, "
        "or a callback that runs under a lock was compiled as sleepable.",
        "The kernel does not load it.",
        "BPF_STRUCT_OPS() and BPF_STRUCT_OPS_SLEEPABLE() mixed up",
        "BPF_STRUCT_OPS_SLEEPABLE() for init, init_task, exit and cgroup callbacks, BPF_STRUCT_OPS() for all others",
        _code("s32 BPF_STRUCT_OPS(my_init)", "{", "        return scx_bpf_create_dsq(QUEUE, -1);", "}"),
        _code("s32 BPF_STRUCT_OPS_SLEEPABLE(my_init)", "{", "        return scx_bpf_create_dsq(QUEUE, -1);", "}"),
    ),
    Rule(
        "lint-missing-kfunc",
        "calls a function that this kernel lacks, without asking",
        "warning",
        "A kernel function that was declared `__weak` and is not in this kernel is called on a way that no "
        "bpf_ksym_exists() guards.",
        "The kernel does not load a program that can call nothing.",
        "a function that was renamed or removed; a declaration copied from another kernel's headers",
        "use the new name, or ask `bpf_ksym_exists()` before the call",
        _code("struct rq *rq = scx_bpf_cpu_rq(cpu);   /* removed in 7.3 */"),
        _code("struct task_struct *curr = scx_bpf_cpu_curr(cpu);"),
    ),
    Rule(
        "lint-flags",
        "flags that the kernel refuses together",
        "error",
        "SCX_OPS_ENQ_LAST without ops.enqueue(), or SCX_OPS_BUILTIN_IDLE_PER_NODE with an ops.update_idle() that "
        "switches the record of idle CPUs off.",
        "The kernel ejects the scheduler while it attaches.",
        "flags copied from another scheduler",
        "take the flag out",
        _code("SCX_OPS_DEFINE(my_ops, .flags = SCX_OPS_ENQ_LAST, .dispatch = (void *)my_dispatch, …);"),
        _code("SCX_OPS_DEFINE(my_ops, .dispatch = (void *)my_dispatch, …);"),
    ),
    Rule(
        "lint-exit-unrecorded",
        "an exit that forgets its reason",
        "warning",
        "The scheduler has ops.exit(), which reads nothing of its scx_exit_info.",
        "The reason and the message of an ejection are told there, and nowhere else to the scheduler's own user space.",
        "ops.exit() used for clean-up only",
        "begin it with `UEI_RECORD(uei, ei);`, and `UEI_DEFINE(uei);` above",
        _code("void BPF_STRUCT_OPS(my_exit, struct scx_exit_info *ei) { running = false; }"),
        _code("void BPF_STRUCT_OPS(my_exit, struct scx_exit_info *ei) { UEI_RECORD(uei, ei); running = false; }"),
    ),
    Rule(
        "lint-init-fails",
        "an ops.init() that always fails",
        "warning",
        "ops.init() returns a negative number on every path, and complains with no scx_bpf_error().",
        "It never attaches; the attach call itself succeeds all the same.",
        "a stub, or a sign that was turned round",
        "return 0 where all is well",
        _code("s32 BPF_STRUCT_OPS_SLEEPABLE(my_init) { return -EINVAL; }"),
        _code("s32 BPF_STRUCT_OPS_SLEEPABLE(my_init) { return 0; }"),
    ),
    Rule(
        "lint-map-grows",
        "a table that only grows",
        "warning",
        "A callback of a task adds entries to a hash map, by a key that comes from the task or a counter, and nothing "
        "deletes from that map.",
        "When it is full the update fails, for every task from then on; from ops.init_task() that fails every fork.",
        "no ops.exit_task() that takes the entry out again",
        "use BPF_MAP_TYPE_TASK_STORAGE, which ends with its task, or delete in ops.exit_task()",
        _code("bpf_map_update_elem(&tasks, &pid, &zero, BPF_ANY);   /* in ops.init_task(), and no delete */"),
        _code("bpf_task_storage_get(&tasks, p, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);"),
    ),
)

RULES: dict[str, Rule] = {rule.code: rule for rule in _ALL}
"""Every rule, in the order of the documentation."""


def page() -> str:
    """The rules as a page of the documentation."""
    parts = [
        "<!-- Generated from testbed/lint/texts.py by `python -m testbed.judge.docs --write`. -->\n",
        "# Lint rules\n",
        "`testbed lint CANDIDATE…` prints what these rules find, `testbed explain CODE` one of the texts below. A "
        "warning is advice and never decides a verdict; an error is something that this kernel can't run at all. See "
        "[the guide](../guides/lint.md).\n",
    ]
    for rule in RULES.values():
        parts.append(
            f"## `{rule.code}`\n\n*{rule.title}* ({rule.severity})\n\n{rule.meaning}\n\n"
            f"**Why it matters.** {rule.why}\n\n**Usual cause.** {_sentence(rule.cause)}\n\n"
            f"**Example.**\n\n{rule.example}\n\n**Smallest fix.** {_sentence(rule.fix)}\n\n{rule.better}\n"
        )
    return "\n".join(parts)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
