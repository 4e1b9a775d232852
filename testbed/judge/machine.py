# SPDX-License-Identifier: Apache-2.0
"""Whether the guest's kernel saw the machine that the run was to have.

A scheduler is judged on a topology, so a verdict that names one must not rest on a guest that had another: an emulator
or a host's CPU model can drop what it was asked for without a word. The runner says what the kernel sees before
anything is attached, so nothing in it can be a candidate's doing.
"""

from __future__ import annotations

from collections.abc import Iterator

from testbed.case import Event
from testbed.judge.view import View
from testbed.spec import Topology
from testbed.verdict import Finding


def findings(view: View) -> Iterator[Finding]:
    """What of the machine is not as asked."""
    hello = view.run.stream.first("hello")
    if hello is None:
        return
    asked = view.run.spec.topology
    wrong = "; ".join(contradictions(asked, hello))
    if wrong:
        yield view.found("other-machine", f"asked for {asked}; the guest's kernel sees {wrong}", [view.ref(hello)])


def contradictions(asked: Topology, hello: Event) -> Iterator[str]:
    """What the kernel sees otherwise, in words; what an older runner does not tell contradicts nothing."""
    wanted = {"cpus": asked.cpus, "present": asked.cpus, "possible": asked.cpus}
    words = {"cpus": "CPUs online", "present": "CPUs present", "possible": "CPUs possible"}
    for key, number in wanted.items():
        seen = hello.integer(key, number)
        if seen != number:
            yield f"{seen} {words[key]}"
    for key, size, name in (
        ("cores", asked.threads, "cores"),
        ("llcs", asked.cpus // asked.llcs, "last-level caches"),
        ("nodes", asked.cpus // asked.nodes, "NUMA nodes"),
    ):
        groups = hello.text(key).split()
        if not groups and (key not in hello.fields or size == asked.cpus):
            continue  # a kernel that knows of no cache, or no node, takes all CPUs as one
        sizes = [_members(group) for group in groups]
        if sizes != [size] * (asked.cpus // size):
            yield f"{len(groups)} {name} ({' '.join(groups) or 'none'})"


def _members(group: str) -> int:
    """How many CPUs a kernel's list such as `0-1,4` names; 0 if it is none."""
    total = 0
    for part in group.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return 0
        total += max(0, int(last or first) - int(first) + 1)
    return total
