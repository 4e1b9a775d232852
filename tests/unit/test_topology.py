# SPDX-License-Identifier: Apache-2.0
"""Topologies: what adds up, what QEMU is told, and whether a guest that saw another machine is noticed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from testbed.case import Event
from testbed.errors import UsageError
from testbed.judge.machine import contradictions
from testbed.spec import Topology
from testbed.topology import PRESETS, instead, wanted
from testbed.vm import topology


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cpus": 3, "threads": 2}, "`cpus` must be a multiple of 2"),
        ({"cpus": 4, "nodes": 2}, "1 last-level caches on 2 nodes"),
        ({"cpus": 2, "llcs": 2, "nodes": 2, "memory_mb": 513}, "can't be shared out evenly among 2 nodes"),
    ],
)
def test_a_machine_that_does_not_add_up_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Topology(**{"memory_mb": 512, **fields})


def test_a_plain_machine_is_what_it_always_was() -> None:
    plain = Topology(cpus=2, memory_mb=512)
    assert topology.options(plain) == ["-m", "512", "-smp", "2"]
    assert topology.cpu("max", plain) == "max"


def test_each_preset_has_as_many_places_as_qemu_is_told_of() -> None:
    for machine in PRESETS.values():
        words = topology.options(machine)
        smp = words[words.index("-smp") + 1]
        if "=" not in smp:
            assert smp == str(machine.cpus)
            continue
        parts = {key: int(value) for key, _, value in (part.partition("=") for part in smp.split(",")[1:])}
        assert parts["sockets"] * parts["dies"] * parts["cores"] * parts["threads"] == machine.cpus


def test_memory_of_each_node_may_be_made_of_something_else() -> None:
    def file(node: int, size_mb: int) -> str:
        return f"memory-backend-file,size={size_mb}M,mem-path=/m{node}"

    one = topology.options(PRESETS["two"], file)
    assert one[-4:] == ["-object", "memory-backend-file,size=512M,mem-path=/m0,id=memory0", "-machine",
                        "memory-backend=memory0"]  # fmt: skip
    two = topology.options(PRESETS["two-nodes"], file)
    assert "memory-backend-file,size=256M,mem-path=/m1,id=memory1" in two
    assert "node,nodeid=1,memdev=memory1" in two


def test_cpus_and_topology_must_not_contradict_each_other() -> None:
    assert wanted("smt", 4) == PRESETS["smt"]
    assert wanted(None, None) is None
    with pytest.raises(UsageError, match="contradicts"):
        wanted("smt", 2)
    with pytest.raises(UsageError, match="there is no topology `smtt`"):
        wanted("smtt", None)
    assert instead(Topology(cpus=2, memory_mb=701), PRESETS["two-nodes"]).memory_mb == 702


def _hello(**fields: Any) -> Event:
    return Event(line=1, seq=0, t=1, name="hello", fields=fields)


def test_a_guest_that_saw_what_was_asked_for_contradicts_nothing() -> None:
    said = _hello(cpus=4, present=4, possible=4, cores="0 1 2 3", llcs="0-1 2-3", nodes="0-3")
    assert list(contradictions(PRESETS["two-llcs"], said)) == []
    assert list(contradictions(PRESETS["two-llcs"], _hello(cpus=4))) == []


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("two-llcs", {"llcs": "0-3"}, "1 last-level caches (0-3)"),
        ("two-llcs", {"llcs": ""}, "0 last-level caches (none)"),
        ("two-nodes", {"nodes": "0-3"}, "1 NUMA nodes (0-3)"),
        ("smt", {"cores": "0 1 2 3"}, "4 cores (0 1 2 3)"),
        ("four", {"llcs": "0-1 2-3"}, "2 last-level caches (0-1 2-3)"),
        ("four", {"possible": 2}, "2 CPUs possible"),
    ],
)
def test_a_guest_that_saw_another_machine_is_noticed(name: str, fields: dict[str, Any], message: str) -> None:
    assert list(contradictions(PRESETS[name], _hello(**fields))) == [message]
