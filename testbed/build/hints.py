# SPDX-License-Identifier: Apache-2.0
"""What to try when the compiler does not know a name: the name's successor, or the nearest one that exists."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from testbed.build.diagnostics import Diagnostic
from testbed.image.kernel import declared

#: Names of older kernels and headers → what to write instead. Most were renamed in Linux 6.13 ("the verb `dispatch` was
#: too overloaded", compat.bpf.h); scx_bpf_cpu_rq() went in 7.3.
OLD_NAMES = {
    "scx_bpf_dispatch": "scx_bpf_dsq_insert(p, dsq_id, slice, enq_flags)",
    "scx_bpf_dispatch_vtime": "scx_bpf_dsq_insert_vtime(p, dsq_id, slice, vtime, enq_flags)",
    "scx_bpf_consume": "scx_bpf_dsq_move_to_local(dsq_id, 0)",
    "scx_bpf_consume_task": "scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0)",
    "scx_bpf_dispatch_from_dsq": "scx_bpf_dsq_move(it, p, dsq_id, enq_flags)",
    "scx_bpf_dispatch_vtime_from_dsq": "scx_bpf_dsq_move_vtime(it, p, dsq_id, enq_flags)",
    "scx_bpf_dispatch_from_dsq_set_slice": "scx_bpf_dsq_move_set_slice(it, slice)",
    "scx_bpf_dispatch_from_dsq_set_vtime": "scx_bpf_dsq_move_set_vtime(it, vtime)",
    "__COMPAT_scx_bpf_consume_task": "scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0)",
    "__COMPAT_scx_bpf_dsq_move": "scx_bpf_dsq_move(it, p, dsq_id, enq_flags)",
    "__COMPAT_scx_bpf_dsq_move_vtime": "scx_bpf_dsq_move_vtime(it, p, dsq_id, enq_flags)",
    "__COMPAT_scx_bpf_dispatch_from_dsq": "scx_bpf_dsq_move(it, p, dsq_id, enq_flags)",
    "__COMPAT_scx_bpf_dispatch_vtime_from_dsq": "scx_bpf_dsq_move_vtime(it, p, dsq_id, enq_flags)",
    "__COMPAT_scx_bpf_dsq_insert": "scx_bpf_dsq_insert(p, dsq_id, slice, enq_flags)",
    "__COMPAT_scx_bpf_kick_cpu_IDLE": "scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE)",
    "__COMPAT_scx_bpf_switch_all": "nothing: without SCX_OPS_SWITCH_PARTIAL all tasks are switched",
    "scx_bpf_switch_all": "nothing: without SCX_OPS_SWITCH_PARTIAL all tasks are switched",
    "scx_bpf_switch_partial": ".flags = SCX_OPS_SWITCH_PARTIAL",
    "scx_bpf_cpu_rq": "scx_bpf_cpu_curr(cpu) for the running task, or scx_bpf_locked_rq()",
    "scx_bpf_error_type": "scx_bpf_error(fmt, …)",
    "scx_bpf_find_task_by_pid": "bpf_task_from_pid(pid)",
    "SCX_OPS_CGROUP_KNOB_WEIGHT": "nothing: define `.cgroup_set_weight` instead",
    "SCX_OPS_HAS_CGROUP_WEIGHT": "nothing: define `.cgroup_set_weight` instead",
    "SCX_OPS_ENQ_DSQ_PRIQ": "scx_bpf_dsq_insert_vtime(…)",
    "SCX_KICK_CPU_IDLE": "SCX_KICK_IDLE",
    "prep_enable": ".init_task",
    "cancel_enable": ".exit_task",
}

_UNDECLARED = re.compile(
    r"(?:call to undeclared function|call to undeclared library function|use of undeclared identifier"
    r"|unknown type name|field designator) '([\w.]+)'"
)
_NO_MEMBER = re.compile(r"no member named '(\w+)' in '(?:const )?(?:struct |union )?(\w+)'")
_NO_FIELD = re.compile(r"field designator '(\w+)' does not refer to any field in type '(?:struct |union )?(\w+)'")
_NO_FILE = re.compile(r"'([^']+)' file not found")
_FEW_MACRO = re.compile(r"too (?:few|many) arguments provided to function-like macro invocation")
_MACRO_NOTE = re.compile(r"macro '(\w+)' defined here")
_DID_YOU_MEAN = re.compile(r"did you mean '([^']+)'\?")


def suggestion(name: str, known: list[str]) -> str:
    """The nearest known name, empty if none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return close[0] if close else ""


@dataclass(frozen=True)
class Names:
    """What the guest's kernel and headers offer."""

    functions: frozenset[str] = frozenset()
    kfuncs: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    text: str = field(default="", repr=False, compare=False)

    def lacks_kfunc(self, name: str) -> bool:
        """Whether the kernel surely has no such kernel function: only asked of names of sched_ext."""
        return len(self.kfuncs) > 20 and name.startswith("scx_bpf_") and name not in self.kfuncs

    def members(self, structure: str) -> list[str]:
        """Members of a structure of the kernel."""
        match = re.search(rf"^struct {re.escape(structure)} {{\n(.*?)^}}", self.text, re.MULTILINE | re.DOTALL)
        return (
            re.findall(r"^\t[^\t].*?\(?\*?(\w+)\)?(?:\[\w*\]|\([^;]*\)| : \d+)*;$", match.group(1), re.MULTILINE)
            if match
            else []
        )


@lru_cache(maxsize=4)
def names_of(vmlinux_h: Path, include: Path, libbpf: Path) -> Names:
    """Read the names from the headers that candidates are compiled against."""

    def read(path: Path) -> str:
        try:
            return path.read_text(errors="replace")
        except OSError:
            return ""

    types_text = read(vmlinux_h)
    headers = "\n".join(read(path) for path in sorted(include.glob("scx/*.h")))
    helpers = read(libbpf / "bpf_helper_defs.h")
    kfuncs = declared(types_text)
    in_headers = re.findall(r"\b(\w+)\s*\([^;{}]*\)\s*__ksym\b", headers)
    functions = {
        *kfuncs,
        *(name for name in in_headers if "___" not in name),
        *re.findall(r"^#define (\w+)\(", headers, re.MULTILINE),
        *re.findall(r"^(?:static )?(?:__always_inline |inline )[^;{}\n]*?\b(\w+)\(", headers, re.MULTILINE),
        *re.findall(r"\(\* ?(?:const )?(bpf_\w+)\)", helpers),
    }
    constants = {
        *re.findall(r"^\t((?:SCX|BPF)_\w+) = ", types_text, re.MULTILINE),
        *re.findall(r"^#define (\w+)[ \t]", headers, re.MULTILINE),
    }
    types = set(re.findall(r"^(?:struct|union|enum) (\w+) {", types_text, re.MULTILINE))
    return Names(frozenset(functions), frozenset(kfuncs), frozenset(constants), frozenset(types), types_text)


def hint_for(message: str, notes: tuple[str, ...], names: Names, files: frozenset[str] = frozenset()) -> str:
    """A hint for a compiler's message, empty if nothing sensible is known.

    Args:
        message: what the compiler says.
        notes: the notes below it.
        names: what exists.
        files: base names of the header files in the candidate's folder that were taken.
    """
    match = _NO_FILE.search(message)
    if match:
        return _missing_file(match.group(1), files)
    match = _NO_FIELD.search(message)
    if match:
        return _member(match.group(1), match.group(2), names, "field")
    match = _NO_MEMBER.search(message)
    if match:
        return _member(match.group(1), match.group(2), names, "member")
    if _FEW_MACRO.search(message):
        macro = next((found.group(1) for note in notes if (found := _MACRO_NOTE.search(note))), "")
        if macro == "scx_bpf_dsq_move_to_local":
            return "since Linux 7.1 it has a second argument: `scx_bpf_dsq_move_to_local(dsq_id, 0)`"
        return f"look at the definition of `{macro}`" if macro else ""
    match = _UNDECLARED.search(message)
    if match:
        name = match.group(1)
        if name in OLD_NAMES:
            return f"`{name}` is the name of an older kernel, now: {OLD_NAMES[name]}"
        everything = names.functions | names.constants | names.types
        if name in names.types and "unknown type" in message:
            return f"write `struct {name}`"
        meant = next((found.group(1) for text in (message, *notes) if (found := _DID_YOU_MEAN.search(text))), "")
        close = suggestion(name, sorted(everything)) or ("" if "___" in meant else meant)
        if close:
            return f"did you mean `{close}`?"
        if "vmlinux.h" not in name and name in ("u64", "u32", "s32", "s64", "bool", "SEC", "BPF_STRUCT_OPS"):
            return "`#include <scx/common.bpf.h>` first"
        return ""
    if "stack limit" in message:
        return "a BPF program has 512 bytes of stack: put large data into a map, e.g. a per-CPU array"
    if "incompatible function pointer types" in message or "incompatible pointer types initializing" in message:
        return "cast callbacks: `.enqueue = (void *)my_enqueue`"
    return ""


def old_name(message: str) -> str:
    """The name of an older kernel that the message is about, empty if there is none."""
    match = _UNDECLARED.search(message)
    return match.group(1) if match and match.group(1) in OLD_NAMES else ""


def misused_macro(error: Diagnostic) -> str:
    """The macro that an error says was called with the wrong number of arguments."""
    if not _FEW_MACRO.search(error.message):
        return ""
    return next((found.group(1) for note in error.notes if (found := _MACRO_NOTE.search(note.message))), "")


def _missing_file(name: str, files: frozenset[str]) -> str:
    base = name.rsplit("/", 1)[-1]
    if base in files:
        return f'write `#include "{base}"` for a file of your own folder'
    if name.startswith("linux/") or name.startswith("asm/"):
        return "a BPF program includes `vmlinux.h` instead of the kernel's own headers: `#include <scx/common.bpf.h>`"
    if name.startswith("bpf/") or name.startswith("scx/"):
        return "headers there are: `<scx/common.bpf.h>`, `<scx/compat.bpf.h>`, `<bpf/bpf_helpers.h>`, …"
    if name.startswith("lib/"):
        return "that header belongs to the sched-ext/scx repository: copy it below the candidate's folder"
    return 'files are taken from the candidate\'s folder and below, when an `#include "…"` names them'


def _member(name: str, structure: str, names: Names, what: str) -> str:
    if name in OLD_NAMES:
        return f"`{name}` is the name of an older kernel, now: {OLD_NAMES[name]}"
    close = suggestion(name, names.members(structure))
    if close:
        return f"did you mean `{close}`?"
    if structure.startswith("sched_ext_ops"):
        return f"the guest's kernel has no such {what}; it was removed, or is newer than the guest's kernel"
    return ""
