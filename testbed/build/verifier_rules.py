# SPDX-License-Identifier: Apache-2.0
"""The verifier's messages, what they mean, and what usually helps.

Taken from the messages in the kernel's `kernel/bpf/` (6.12 to 7.3) and libbpf's own lines inside the log. To teach the
testbed a message, add a rule here and a golden log to `tests/golden/build/verifier/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A message of the verifier; the groups of `pattern` fill `{0}`, `{1}`, … of `wanted` and `hint`."""

    pattern: re.Pattern[str]
    title: str
    wanted: str
    hint: str


def _rule(pattern: str, title: str, wanted: str, hint: str) -> Rule:
    return Rule(re.compile(pattern), title, wanted, hint)


_NULL_HINT = "check it first: `if (!ptr) return …;`, in the same function and before each use"
_SLEEP_HINT = (
    "make the program sleepable (`BPF_STRUCT_OPS_SLEEPABLE`, only init, exit and cgroup callbacks may), "
    "or leave the call out"
)
_BOUND_HINT = "bound the index just before the access: `if (i >= MAX) return …;`, or `i &= MAX - 1` for a power of two"

#: The best explanation first.
RULES = (
    # names and relocations: libbpf writes these into the verifier's log
    _rule(
        r"kfunc '([\w.]+)' is referenced but wasn't resolved",
        "the kernel lacks a function",
        "the guest's kernel has no function `{0}`, and the program calls it",
        "ask `bpf_ksym_exists({0})` before the call, or use what this kernel has",
    ),
    _rule(
        r"extern \((?:func|var) ksym\) '([\w.]+)'.*not found in kernel",
        "the kernel lacks a function",
        "the guest's kernel has no `{0}`",
        "declare it `__weak` and ask `bpf_ksym_exists({0})`, or use what this kernel has",
    ),
    _rule(
        r"extern \(func ksym\) '([\w.]+)': func_proto .* incompatible with",
        "a kernel function is declared differently",
        "the candidate declares `{0}` with other arguments than the kernel has",
        "leave the declaration to `<scx/common.bpf.h>`",
    ),
    _rule(
        r"failed to resolve CO-RE relocation <\w+> (?:\[\d+\] )?(.+?)(?: \([^)]*\))?$",
        "a field that the kernel lacks",
        "the guest's kernel has no `{0}`",
        "ask `bpf_core_field_exists()` before the access, or compile against the guest's own types",
    ),
    _rule(
        r"missing BPF prog type, check ELF section name '([^']*)'",
        "a section that tells no program type",
        "section `{0}` names no type of program",
        "callbacks belong in `struct_ops/…` (`BPF_STRUCT_OPS`)",
    ),
    _rule(
        r"struct_ops init_kern \S+: Cannot find member (\S+) in",
        "a callback that the kernel lacks",
        "the guest's kernel has no `.{0}` in `sched_ext_ops`",
        "leave `.{0}` out",
    ),
    _rule(
        r"attach to unsupported member (\S+) of struct (\S+)",
        "a callback that can't be set",
        "`.{0}` of `{1}` can't be implemented in BPF on this kernel",
        "leave `.{0}` out",
    ),
    _rule(
        r"unknown func (\S+?)#(\d+)|program of this type cannot use helper (\S+?)#(\d+)",
        "a helper that is not allowed here",
        "this type of program may not call that helper",
        "look for a kernel function (`scx_bpf_…`, `bpf_…`) that does it",
    ),
    _rule(
        r"calling kernel function (\S+) is not allowed",
        "a kernel function that is not allowed here",
        "`{0}` may not be called from this callback: sched_ext ties most functions to the callbacks where "
        "they make sense",
        "e.g. dispatch from `.enqueue`, `.dispatch` and `.select_cpu` only, create queues in `.init` only",
    ),
    _rule(
        r"(?:cannot call GPL-restricted function|must have a GPL compatible license)",
        "the licence is not compatible with the GPL",
        "the kernel wants a GPL-compatible licence",
        'add `char _license[] SEC("license") = "GPL";`',
    ),
    # sleeping, locks, references
    _rule(
        r"program must be sleepable to call sleepable kfunc|kernel func \S+ is sleepable within"
        r"|sleepable helper \S+ in "
        r"|sleepable global function \S+ called in|helper call (?:might|may) sleep|\S+ is not sleepable",
        "a call that may sleep where nothing may sleep",
        "the call may sleep, and this program runs where sleeping is forbidden (under a lock of the scheduler)",
        _SLEEP_HINT,
    ),
    _rule(
        r"Unreleased reference id=(\d+)|would lead to reference leak",
        "a reference is not given back",
        "something that was acquired (a task, a cpumask, an iterator) is not released on every way out",
        "release it on all paths, early returns too: `bpf_task_release()`, `scx_bpf_put_cpumask()`, "
        "`bpf_cpumask_release()`, …",
    ),
    _rule(
        r"release (?:helper|kernel function|kfunc) \S+ expects|is an unacquired reference"
        r"|reference has not been acquired before",
        "releases what it does not own",
        "only a pointer that this program acquired may be released",
        "release exactly what an acquire function (`bpf_task_from_pid()`, …) returned, once",
    ),
    _rule(
        r"bpf_spin_lock-ed region|bpf_(?:res_)?spin_unlock (?:is )?missing"
        r"|_unlock (?:without taking a lock|of different lock"
        r"|cannot be out of order)|same lock again|calls are not allowed while holding a lock",
        "a lock is held too long",
        "a spin lock must be released in the same function, with no call of a function between",
        "unlock before every return and before every call",
    ),
    _rule(
        r"bpf_rcu_read_unlock is missing|unmatched rcu read unlock|rcu_read_lock-ed region"
        r"|preempt_disable-ed region|local_irq_save-ed region",
        "a critical section is not closed",
        "a read lock, or disabled preemption, must be given back on every way out",
        "pair `bpf_rcu_read_lock()` with `bpf_rcu_read_unlock()`, before each return too",
    ),
    # loops and size
    _rule(
        r"back-edge from insn \d+ to \d+|infinite loop detected at insn|loop detected",
        "a loop without a known end",
        "the verifier found no bound for this loop",
        "use `bpf_for(i, 0, MAX)`, `bpf_repeat(MAX)` or `bpf_loop()`",
    ),
    _rule(
        r"BPF program is too large\. Processed \d+ insn|The sequence of \d+ jumps is too complex"
        r"|bpf_loop iteration limit",
        "too complex",
        "the verifier looked at a million instructions without coming to the end: it follows every branch "
        "of every iteration",
        "put loop bodies into `bpf_for()` or `bpf_loop()`, move parts into `__noinline` global functions, cut branches",
    ),
    _rule(
        r"combined stack size of \d+ calls is \d+\. Too large|stack size of subprog \d+ is"
        r"|stack depth \d+ exceeds|the call stack of \d+ frames is too deep",
        "too much stack",
        "a program and the functions that it calls have 512 bytes of stack and 8 frames together",
        "put large data into a map, e.g. a per-CPU array; call less deeply",
    ),
    # NULL
    _rule(
        r"(R\d+|\*\(R11-\d+\)) invalid mem access '((?:\w*_)?or_null\w*|\w*ptr_or_null_\w*)'",
        "a pointer that may be NULL",
        "{0} may be NULL here (the verifier calls it `{1}`)",
        _NULL_HINT,
    ),
    _rule(
        r"Possibly NULL pointer passed to (?:trusted |helper )?(\S+)|(\S+) is expected to be non-NULL",
        "a pointer that may be NULL",
        "the function does not take NULL, and its argument {0}{1} may be NULL here",
        _NULL_HINT,
    ),
    _rule(
        r"(R\d+|\*\(R11-\d+\)) type=(\w*or_null\w*) expected=(.*)",
        "a pointer that may be NULL",
        "{0} may be NULL here (`{1}`), expected {2}",
        _NULL_HINT,
    ),
    _rule(
        r"(R\d+) pointer arithmetic on (\w*or_null\w*) prohibited, null-check it first",
        "a pointer that may be NULL",
        "{0} (`{1}`) may be NULL, so nothing may be added to it",
        _NULL_HINT,
    ),
    # trust
    _rule(
        r"(R\d+|\*\(R11-\d+\)|arg#\d+) must be (?:referenced or trusted|a (?:rcu|trusted) pointer)",
        "a pointer that is not trusted",
        "the function wants a pointer that surely is valid; {0} was read from memory and may be stale",
        "use the callback's own argument, or acquire one: `bpf_task_acquire()`, `bpf_task_from_pid()`, or "
        "read it under `bpf_rcu_read_lock()`",
    ),
    _rule(
        r"(R\d+|\*\(R11-\d+\)) invalid mem access '(?:scalar|inv)'",
        "a number is used as a pointer",
        "{0} is a number to the verifier here, not a pointer: it came from memory without a type, from "
        "arithmetic, or from a failed check",
        "read kernel memory with `BPF_CORE_READ()` or `bpf_probe_read_kernel()`, keep pointers as typed "
        "pointers (`bpf_core_cast()`), mark arena pointers `__arena`",
    ),
    _rule(
        r"(R\d+|\*\(R11-\d+\)) invalid mem access '([^']+)'",
        "an access that this pointer does not allow",
        "{0} is a `{1}`, through which this access is not allowed",
        "read with `bpf_probe_read_kernel()`; write only to your own maps",
    ),
    # types of arguments
    _rule(
        r"(R\d+|\*\(R11-\d+\)) (?:type=|is )(\S+) ?expected[= ](.*)",
        "an argument of the wrong type",
        "{0} is `{1}`, expected {2}",
        "look at the function's arguments: numbers and pointers, or two pointers, are swapped or missing",
    ),
    _rule(
        r"kernel function (\S+) args#(\d+) expected pointer to (.+?) but R\d+ has a pointer to (.+)",
        "an argument of the wrong type",
        "`{0}` wants a pointer to {2} as argument {1} (counted from 0), but gets one to {3}",
        "look at the function's declaration",
    ),
    _rule(
        r"memory, len pair leads to invalid memory access",
        "a buffer that is shorter than its length says",
        "the length that is passed may be larger than the memory before it",
        "pass `sizeof` of the buffer, and a buffer on the stack or in a map",
    ),
    _rule(
        r"(?:arg#?(\d+)|R(\d+)) (?:is not|expected|pointer type|doesn't|must)\b.*",
        "an argument of the wrong type",
        "the function wants another kind of argument",
        "look at the function's declaration in `<scx/common.bpf.h>` or vmlinux.h",
    ),
    _rule(
        r"Caller passes invalid args into func#\d+(?: \('(\S+)'\))?",
        "an argument of the wrong type",
        "a global function is checked by itself, for any arguments: pointers may be NULL there",
        "check pointers inside the function, mark them `__arg_nonnull`, `__arg_trusted`, or make the function `static`",
    ),
    # bounds
    _rule(
        r"math between (?:\w*trusted|rcu_|\w*ptr_)\w* pointer and",
        "arithmetic on a pointer",
        "this pointer may only be used as it is: nothing may be added to it",
        "read the field by its name; index arrays of your own maps only",
    ),
    _rule(
        r"invalid access to (?:map value|memory|kernel memory).*(?:value_size"
        r"|mem_size)=(\d+) off=(-?\d+) size=(\d+)",
        "an access out of bounds",
        "{2} bytes at offset {1} of something that has {0} bytes",
        _BOUND_HINT,
    ),
    _rule(
        r"(?:unbounded memory access|min value is negative|min value is outside|max value is outside"
        r"|invalid zero-sized)"
        r"|with unbounded (?:min|max) value is not allowed|makes \S+ pointer be out of bounds",
        "an index or length without bound",
        "the verifier does not know how large the index or length can be",
        _BOUND_HINT,
    ),
    _rule(
        r"access beyond (?:struct|the end of) (\S+)|access beyond (\S+) at off",
        "an access beyond a structure",
        "the access ends beyond the structure",
        "look at the cast before the access: it names the wrong type",
    ),
    _rule(
        r"invalid\S* ?(?:indirect )?(?:read|write|access)?\w* ?(?:from|to|of)? ?(?:the )?stack",
        "a bad access to the stack",
        "the program reads stack that it never wrote, or goes beyond its variable",
        "initialise the variable (`= {}`, with padding: `__builtin_memset`); a length may not exceed the buffer",
    ),
    _rule(
        r"(R\d+) !read_ok|unexpected __bpf_trap\(\) due to uninitialized variable",
        "a value that was never set",
        "a value is missing here: a variable without initial value, or a function that should return "
        "something and does not",
        "initialise the variable; return a value on every path",
    ),
    # what may be written, returned, reached
    _rule(
        r"only read is supported|cannot write into|no write support|write into \S+ disallowed"
        r"|only (?:reads?|read access) (?:is|are) (?:allowed|supported)",
        "writes to what is read-only",
        "of a task only `scx.slice`, `scx.dsq_vtime` and `scx.disallow` may be written, nothing else of the kernel",
        "use `scx_bpf_task_set_slice()`, `scx_bpf_task_set_dsq_vtime()`, or keep the value in task storage of your own",
    ),
    _rule(
        r"At program exit the register R0 .*should have been in .?(-?\w+)[;,] ?(-?\w+)",
        "a return value out of range",
        "the callback must return something from {0} to {1}",
        "return a plain number on every path; 0 is success, a negative errno is an error",
    ),
    _rule(
        r"R0 leaks addr as return value|At program exit the register R0 is not a known value|R0 must be ",
        "a return value of the wrong kind",
        "the callback must return a number",
        "return a plain number on every path",
    ),
    _rule(
        r"(?:invalid bpf_context access off=\d+ size=\d+|func '(\S+)' doesn't have \d+-th argument)",
        "an argument that the callback does not have",
        "the callback's signature differs from the kernel's",
        "compare it with `struct sched_ext_ops` in vmlinux.h",
    ),
    _rule(
        r"dereference of modified (\S+) ptr|negative offset (\S+) ptr|variable (\S+) access var_off"
        r"|R\d+ pointer arithmetic"
        r"|math between (\S+) pointer and register|bitwise operator .* on pointer",
        "arithmetic on a pointer",
        "this pointer may only be used as it is: nothing may be added to it",
        "read the field by its name; index arrays of your own maps only",
    ),
    _rule(
        r"misaligned \w+ access",
        "an access that is not aligned",
        "the address must be a multiple of the size",
        "do not use `__attribute__((packed))`, or read with `bpf_probe_read_kernel()`",
    ),
    _rule(
        r"unreachable insn|last insn is not an exit or jmp|jump out of range",
        "a program that does not end well",
        "there is code that can't be reached, or no return at the end",
        "look for endless loops and for functions without `return`",
    ),
    _rule(
        r"reg type unsupported for arg#(\d+)|Global function \S+ (?:doesn't return|has)"
        r"|Function \S+ has \d+ > \d+ args",
        "a global function with an argument that it can't have",
        "global functions take numbers, pointers to context and pointers to structures of known size",
        "make it `static`, or `static __always_inline`",
    ),
    _rule(
        r"verifier (?:bug|internal error)",
        "a bug of the kernel's verifier",
        "the kernel says that its verifier contradicts itself",
        "change the source line a little; tell bpf@vger.kernel.org",
    ),
)
