# SPDX-License-Identifier: Apache-2.0
"""What may be in a scheduler's object: one scheduler, programs that look on, no helper that reaches out.

A scheduler's callbacks are `struct_ops` programs. Schedulers in the wild add programs that *observe* (tracepoints,
fentry, kprobes, perf events, iterators, timers) and `syscall` programs that their user space runs; these pass.
What changes the machine past the scheduler interface does not: program types that decide about packets, sockets,
devices or system calls, tracing that alters return values, and helpers that write, signal or lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.btf import essential_name
from testbed.build.diagnostics import Diagnostic, joined, render
from testbed.build.hints import OLD_NAMES, Names, suggestion
from testbed.build.object import SCHEDULER_TYPES, BpfObject, Call, Ops
from testbed.sources import printable
from testbed.status import Status
from testbed.verdict import EvidenceRef, Finding

MAX_FINDINGS = 20
MAX_TIMEOUT_MS = 30_000

#: Section prefixes of programs that a scheduler may carry, and why.
ALLOWED_PROGRAMS = {
    "struct_ops": "the callbacks themselves",
    "syscall": "run on request of the scheduler's own user space",
    "tp_btf": "observes",
    "raw_tp": "observes",
    "raw_tracepoint": "observes",
    "tp": "observes",
    "tracepoint": "observes",
    "fentry": "observes",
    "fexit": "observes",
    "fsession": "observes",
    "kprobe": "observes; changing a return value needs `bpf_override_return`, which is refused",
    "kretprobe": "observes",
    "ksyscall": "observes",
    "kretsyscall": "observes",
    "uprobe": "observes",
    "uretprobe": "observes",
    "usdt": "observes",
    "perf_event": "observes",
    "iter": "lists kernel objects",
}
_VARIANTS = (".s", ".multi.s", ".multi", ".session.s", ".session")

#: Prefixes that libbpf knows and no scheduler needs: prefix → what such a program does.
FORBIDDEN_PROGRAMS = {
    "fmod_ret": "changes what a kernel function returns",
    "lsm": "decides about security",
    "lsm_cgroup": "decides about security",
    "freplace": "replaces functions of other BPF programs",
    "raw_tp.w": "writes into the arguments of a tracepoint",
    "raw_tracepoint.w": "writes into the arguments of a tracepoint",
    "xdp": "decides about network packets",
    "tc": "decides about network packets",
    "tcx": "decides about network packets",
    "classifier": "decides about network packets",
    "action": "decides about network packets",
    "netkit": "decides about network packets",
    "netfilter": "decides about network packets",
    "socket": "filters a socket",
    "sk_reuseport": "decides about sockets",
    "sk_skb": "decides about sockets",
    "sk_msg": "decides about sockets",
    "sk_lookup": "decides about sockets",
    "sockops": "decides about sockets",
    "flow_dissector": "takes network packets apart",
    "lwt_in": "decides about network packets",
    "lwt_out": "decides about network packets",
    "lwt_xmit": "decides about network packets",
    "lwt_seg6local": "decides about network packets",
    "cgroup": "decides about a control group's system calls and packets",
    "cgroup_skb": "decides about a control group's packets",
    "lirc_mode2": "decodes infrared signals",
}

#: Helpers by number in the kernel's UAPI: (name, what it would do).
FORBIDDEN_HELPERS = {
    36: ("bpf_probe_write_user", "writes into the memory of any process"),
    58: ("bpf_override_return", "makes kernel functions fail"),
    109: ("bpf_send_signal", "kills processes"),
    117: ("bpf_send_signal_thread", "kills threads"),
    166: ("bpf_sys_bpf", "loads further BPF programs"),
    168: ("bpf_sys_close", "closes file descriptors"),
    179: ("bpf_kallsyms_lookup_name", "looks up addresses of the kernel"),
}

FORBIDDEN_KFUNCS = {
    "crash_kexec": "crashes the machine",
    "bpf_send_signal_task": "kills processes",
    "bpf_set_dentry_xattr": "writes to file systems",
    "bpf_remove_dentry_xattr": "writes to file systems",
    "bpf_modify_return_test": "is a test of the kernel",
}
_FORBIDDEN_KFUNC_PREFIXES = {
    "hid_bpf_": "changes input devices",
    "bpf_xdp_": "changes network packets",
    "bpf_skb_": "changes network packets",
    "bpf_sock_": "changes sockets",
    "bpf_ct_": "changes connection tracking",
    "bpf_skb_ct_": "changes connection tracking",
    "bpf_xdp_ct_": "changes connection tracking",
    "bpf_qdisc_": "changes network queues",
    "bpf_kfunc_call_test": "is a test of the kernel",
}

_GPL = frozenset({"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"})


def check(found: BpfObject, sources: Mapping[str, str], names: Names, prefix: str) -> Iterator[Finding]:
    """Findings about an object.

    Args:
        found: what was read from it.
        sources: the candidate's source files by relative path, where they are known.
        names: what the guest's kernel offers.
        prefix: directory of the sources in the compiler's sandbox.
    """
    yield from _schedulers(found)
    yield from _license(found)
    yield from _programs(found)
    yield from _called(found, sources, names, prefix)


def _finding(code: str, title: str, message: str, cause: str, hint: str, evidence: EvidenceRef | None) -> Finding:
    return Finding(
        code=code,
        status=Status.FAIL,
        title=title,
        message=message,
        evidence=(evidence,) if evidence is not None else (EvidenceRef(file="candidate/artifact.json"),),
        cause=cause,
        hint=hint,
    )


def schedulers(found: BpfObject) -> list[Ops]:
    """The tables of callbacks that the object wants to register as schedulers."""
    return [ops for ops in found.ops if ops.type in SCHEDULER_TYPES and not ops.optional]


def _schedulers(found: BpfObject) -> Iterator[Finding]:
    ours = schedulers(found)
    others = [ops for ops in found.ops if ops.type not in SCHEDULER_TYPES]
    hint = 'define one with `SCX_OPS_DEFINE(NAME, .enqueue = (void *)…, .name = "…")`'
    if not ours:
        if not found.has_btf:
            message = "the object has no type information (BTF), so no scheduler can be found in it"
            hint = "compile it with `clang -g`, and strip it with `llvm-strip -g` only"
        elif others:
            kinds = joined(sorted({printable(ops.type, 80) for ops in others}))
            message = f"found struct_ops of type {kinds}, expected one of type `sched_ext_ops`"
        elif found.ops:
            message = "its `sched_ext_ops` is in an optional section (`?.struct_ops`), which is not loaded by itself"
            hint = 'put it into `SEC(".struct_ops.link")`, as `SCX_OPS_DEFINE` does'
        else:
            message = "the object has no struct_ops, expected one of type `sched_ext_ops`"
        yield _finding(
            "not-a-scheduler",
            "no scheduler in the object",
            message,
            "without a table of callbacks nothing can be registered with sched_ext",
            hint,
            None,
        )
    elif len(ours) > 1:
        symbols = joined(printable(ops.symbol, 80) for ops in ours)
        yield _finding(
            "several-schedulers",
            "several schedulers in the object",
            f"found {len(ours)} tables of type `sched_ext_ops`, expected one: {symbols}",
            "only one scheduler can be attached, and which one would be a guess",
            "keep one `SCX_OPS_DEFINE`, or make a candidate of each",
            None,
        )
    elif others:
        kinds = joined(sorted({printable(ops.type, 80) for ops in others}))
        yield _finding(
            "forbidden-program",
            "struct_ops that no scheduler needs",
            f"beside the scheduler there is struct_ops of type {kinds}",
            "it would be registered with another part of the kernel",
            "take it out of the candidate",
            None,
        )
    for ops in ours[:1] if len(ours) == 1 else ():
        yield from _fields(ops)


def _fields(ops: Ops) -> Iterator[Finding]:
    symbol = printable(ops.symbol, 80)
    if not ops.name:
        yield _finding(
            "ops-invalid",
            "the scheduler has no name",
            f"`{symbol}` has an empty `.name`, expected a short name",
            "the kernel refuses a scheduler without a name (EINVAL)",
            'add `.name = "my_scheduler"`',
            None,
        )
    elif not all(char.isascii() and (char.isalnum() or char in "_.") for char in ops.name):
        yield _finding(
            "ops-invalid",
            "the scheduler's name has characters that the kernel refuses",
            f"`{symbol}` has the name `{printable(ops.name, 128)}`, expected letters, digits, `_` and `.` only",
            "the kernel takes the names of BPF objects only (EINVAL)",
            "give it a plain name",
            None,
        )
    timeout = ops.values.get("timeout_ms", 0)
    if timeout > MAX_TIMEOUT_MS:
        yield _finding(
            "ops-invalid",
            "the scheduler's timeout is longer than the kernel allows",
            f"`{symbol}` has `.timeout_ms = {timeout}`, expected at most {MAX_TIMEOUT_MS}",
            "the kernel's watchdog must be able to take a stalled scheduler away (E2BIG)",
            "lower `.timeout_ms`, or leave it out",
            None,
        )


def _license(found: BpfObject) -> Iterator[Finding]:
    if found.license in _GPL or not schedulers(found):
        return
    what = f"`{printable(found.license, 64)}`" if found.license else "none"
    yield _finding(
        "license-not-gpl",
        "the licence is not compatible with the GPL",
        f"licence: {what}, expected a GPL one",
        "the kernel lets only GPL-compatible programs be schedulers",
        'add `char _license[] SEC("license") = "GPL";`',
        None,
    )


def _base(section: str) -> str:
    """The part of a section's name that tells the program's type."""
    head = section.removeprefix("?").split("/")[0].split("+")[0]
    if head in FORBIDDEN_PROGRAMS:
        return head
    for variant in _VARIANTS:
        if head.endswith(variant):
            return head.removesuffix(variant)
    return head


def _programs(found: BpfObject) -> Iterator[Finding]:
    for program in found.programs[:4096]:
        base = _base(program.section)
        if base in ALLOWED_PROGRAMS:
            continue
        section, name = printable(program.section, 100), printable(program.name, 100)
        does = FORBIDDEN_PROGRAMS.get(base)
        if does is not None:
            yield _finding(
                "forbidden-program",
                f"a program of type {printable(base, 40)}, which no scheduler needs",
                f"`{name}` in section `{section}`: such a program {does}",
                "a scheduler decides which task runs where, and nothing else",
                "take the program out; to observe, use `tp_btf`, `fentry` or `fexit`",
                None,
            )
        else:
            close = suggestion(base, list(ALLOWED_PROGRAMS))
            yield _finding(
                "forbidden-program",
                "a program of unknown type",
                f"`{name}` in section `{section}`: the section's name tells no type of program",
                "the loader takes the type of a program from its section's name",
                f"did you mean `{close}`?" if close else "callbacks belong in `struct_ops/…` (`BPF_STRUCT_OPS`)",
                None,
            )


def _called(found: BpfObject, sources: Mapping[str, str], names: Names, prefix: str) -> Iterator[Finding]:
    told: set[tuple[str, object]] = set()
    for call in found.calls:
        key = (call.caller, call.kfunc or call.helper)
        if key in told:
            continue
        if call.helper is not None:
            name, does = FORBIDDEN_HELPERS.get(call.helper, ("", ""))
        else:
            name = essential_name(call.kfunc)
            does = FORBIDDEN_KFUNCS.get(name, "") or next(
                (text for start, text in _FORBIDDEN_KFUNC_PREFIXES.items() if name.startswith(start)), ""
            )
        if does:
            told.add(key)
            yield _pointed(
                call,
                sources,
                prefix,
                "forbidden-helper",
                f"calls {printable(name, 80)}",
                f"`{printable(name, 80)}` {does}, which no scheduler needs",
                "a scheduler decides which task runs where, and nothing else",
                "take the call out" if call.helper != 58 else "take the probe out; to observe, use `fentry` or `fexit`",
            )
        elif call.kfunc and not call.weak and names.lacks_kfunc(name) and names.lacks_kfunc(call.kfunc):
            told.add(key)
            new = OLD_NAMES.get(name)
            close = suggestion(name, sorted(names.kfuncs))
            yield _pointed(
                call,
                sources,
                prefix,
                "unknown-kfunc",
                f"calls {printable(name, 80)}, which the kernel lacks",
                f"the guest's kernel has no function `{printable(name, 80)}`",
                "it was renamed or removed, is misspelt, or belongs to another kernel",
                f"now `{new}`"
                if new
                else f"did you mean `{close}`?"
                if close
                else "declare it `__weak` and ask `bpf_ksym_exists()` before the call",
            )


def _pointed(
    call: Call, sources: Mapping[str, str], prefix: str, code: str, title: str, message: str, cause: str, hint: str
) -> Finding:
    """A finding about a call, with its source line drawn where it is known."""
    caller = printable(call.caller, 100)
    if call.where is None:
        return _finding(code, title, f"{message} (called by `{caller}`)", cause, hint, None)
    where = call.where
    file = where.file.removeprefix(prefix)
    length = max(1, len(where.text.rstrip()) - max(0, where.column - 1))
    if file in sources:
        evidence = EvidenceRef(file=f"candidate/{file}", line=max(1, where.line), text=where.text.strip()[:400])
        texts = sources
    else:  # a header of the kernel, or an object whose source we do not have: the object carries the line
        file = printable(file.rsplit("/", 1)[-1], 100)
        evidence = EvidenceRef(file="candidate/artifact.json")
        texts = {file: "\n" * (where.line - 1) + where.text} if where.line < 1 << 20 else {}
    drawn = render(
        Diagnostic("error", f"{message} (called by `{caller}`)", file, where.line, where.column, length), texts
    )
    return _finding(code, title, drawn, cause, hint, evidence)
