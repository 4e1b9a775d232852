# SPDX-License-Identifier: Apache-2.0
"""Machines by name, and which one a run gets (docs/reference/topologies.md)."""

from __future__ import annotations

from testbed.errors import UsageError
from testbed.spec import Topology
from testbed.yamlfile import did_you_mean

MEMORY_MB = 512

PRESETS: dict[str, Topology] = {
    "one": Topology(cpus=1, memory_mb=MEMORY_MB),
    "two": Topology(cpus=2, memory_mb=MEMORY_MB),
    "four": Topology(cpus=4, memory_mb=MEMORY_MB),
    "six": Topology(cpus=6, memory_mb=MEMORY_MB),
    "eight": Topology(cpus=8, memory_mb=MEMORY_MB),
    "smt": Topology(cpus=4, memory_mb=MEMORY_MB, threads=2),
    "two-llcs": Topology(cpus=4, memory_mb=MEMORY_MB, llcs=2),
    "two-nodes": Topology(cpus=4, memory_mb=MEMORY_MB, llcs=2, nodes=2),
}
"""Machines that `--topology` and scenario files know by name."""


def preset(name: str) -> Topology:
    """The machine of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no topology `{name}`", hint=did_you_mean(name, PRESETS))
    return PRESETS[name]


def wanted(name: str | None, cpus: int | None) -> Topology | None:
    """What `--topology` and `--cpus` say together, None for the scenarios' own machines.

    Raises:
        UsageError: they contradict each other, or there is no such topology.
    """
    if name is None:
        return None if cpus is None else Topology(cpus=cpus, memory_mb=MEMORY_MB)
    machine = preset(name)
    if cpus not in (None, machine.cpus):
        raise UsageError(
            f"`--cpus {cpus}` contradicts `--topology {name}`, which has {machine.cpus}", hint="leave one of them out"
        )
    return machine


def instead(own: Topology, other: Topology | None) -> Topology:
    """The machine of a run: a scenario's own, or `other` with the memory that the scenario needs, rounded up."""
    if other is None:
        return own
    memory_mb = -(-own.memory_mb // other.nodes) * other.nodes
    return other.model_copy(update={"memory_mb": memory_mb})
