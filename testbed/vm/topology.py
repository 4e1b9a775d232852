# SPDX-License-Identifier: Apache-2.0
"""A topology as QEMU's options.

A node is a package of its own, a last-level cache a die of it. Dies reach the kernel by CPUID leaf 0x1F, which
`-cpu max` of QEMU's emulator has only when it is told to (docs/reference/topologies.md says what each vendor's CPUs
need). Whether it all arrived is not taken on trust: the runner's `hello` says what the kernel sees, and a run whose
kernel sees another machine is ERROR.
"""

from __future__ import annotations

from collections.abc import Callable

from testbed.spec import Topology

Backend = Callable[[int, int], str]
"""Node and its MiB → the `-object` that is its memory, without `id`: `memory-backend-ram,size=256M`."""

# One more than the leaf of the dies. A leaf beyond the last one is answered with the last one, and SeaBIOS asks for
# such a leaf with a sub-leaf that makes QEMU 10.0 abort in 0x1F; leaf 0x20 is empty and takes that question.
DIE_LEVEL = "level=0x20"


def ram(_node: int, size_mb: int) -> str:
    """Plain memory of QEMU's process."""
    return f"memory-backend-ram,size={size_mb}M"


def cpu(model: str, topology: Topology) -> str:
    """The value of `-cpu` under emulation: `model`, and what its kernel needs to see the topology."""
    dies = topology.llcs // topology.nodes
    return f"{model},{DIE_LEVEL}" if dies > 1 else model


def options(topology: Topology, backend: Backend | None = None) -> list[str]:
    """`-m`, `-smp`, and where there is more than one node or a `backend`, whose memory it is.

    Args:
        topology: the machine.
        backend: what each node's memory is made of; None is QEMU's own choice.
    """
    argv = ["-m", str(topology.memory_mb), "-smp", _smp(topology)]
    if topology.nodes == 1 and backend is None:
        return argv
    size_mb = topology.memory_mb // topology.nodes
    for node in range(topology.nodes):
        argv += ["-object", f"{(backend or ram)(node, size_mb)},id=memory{node}"]
    if topology.nodes == 1:
        return [*argv, "-machine", "memory-backend=memory0"]
    for node in range(topology.nodes):
        argv += ["-numa", f"node,nodeid={node},memdev=memory{node}", "-numa", f"cpu,node-id={node},socket-id={node}"]
    return argv


def _smp(topology: Topology) -> str:
    if topology.plain:
        return str(topology.cpus)
    dies = topology.llcs // topology.nodes
    cores = topology.cpus // (topology.llcs * topology.threads)
    return f"{topology.cpus},sockets={topology.nodes},dies={dies},cores={cores},threads={topology.threads}"
