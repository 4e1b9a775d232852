# SPDX-License-Identifier: Apache-2.0
"""`testbed shell`."""

from __future__ import annotations

import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, count, verb
from testbed.cli.run import add_kernel, listen

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs

EXAMPLES = """\
  testbed shell                                    a root shell in a fresh guest, which is gone afterwards
  testbed shell -- cat /sys/kernel/sched_ext/state one command; the exit code is its own
  testbed shell --cpus 4 --memory 2048             a larger machine
  testbed shell --kernel debian:6.17 -- uname -r   on another kernel, if it has NVMe and ext4 built in
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "shell", "give a person an ssh session in a guest; never part of a verdict", shell, EXAMPLES)
    parser.usage = "testbed shell [OPTION]… [-- COMMAND [ARG]…]"
    parser.add_argument("--user", choices=["root", "promoter"], default="root", help="default: root")
    parser.add_argument("--cpus", type=count(1, 64), default=2, metavar="N", help="vCPUs (default: 2)")
    parser.add_argument("--memory", type=count(256, 65536), default=512, metavar="MIB", help="default: 512")
    add_kernel(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the stages")


def shell(options: Options) -> int:
    """Boot a guest, hold a session in it, end it."""
    from testbed import image as images
    from testbed.hosts import session
    from testbed.hosts.guest import HostGuest
    from testbed.image import hosts
    from testbed.spec import Topology

    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)
        image, disk = images.with_kernel(options.kernel, listener), hosts.build(listener)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="testbed-shell-")))
        guest = HostGuest(image, disk, directory, machine=Topology(cpus=options.cpus, memory_mb=options.memory))
        stack.callback(guest.power_cut)
        print("booting…", file=sys.stderr)
        guest.start()
        transport = guest.connect(options.user)
        stack.callback(transport.close)
        command = shlex.join(options.program or ())
        return session.hold(transport, command, sys.stdin.fileno(), sys.stdout.buffer, sys.stderr.buffer)
