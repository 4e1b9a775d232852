# SPDX-License-Identifier: Apache-2.0
"""What virtme-ng starts in the place of QEMU: our sandbox, with QEMU in it.

virtme-ng makes a machine for somebody who sits before it: a terminal, ports for a script's output, the host's root
as file system. A testbed guest has one way in and one way out, and both are ours. So this takes from virtme-ng what
makes the machine, drops the doors that it is known to add, and refuses everything else: a new version of virtme-ng
can't give a guest a network, a disk or a second accelerator without somebody reading this file.

Run as a script by path, with an isolated interpreter, so it knows nothing but the standard library.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Our own options begin with this one, which virtme-ng never writes.
FIRST_OF_OURS = "-nodefaults"
# The machine itself: kept as virtme-ng says it.
KEEP = frozenset({"-name", "-m", "-smp", "-machine", "-cpu", "-parallel", "-net", "-vga", "-display", "-append"})
# Kept only with these values: no network, no accelerator but the one that we name.
ONLY = {"-net": "none", "-machine": "q35"}
# Doors for people and scripts, and what our own options say better: dropped, each with its value.
DROP = frozenset({"-chardev", "-serial", "-mon", "-echr", "-kernel", "-fsdev"})
DROP_DEVICES = ("virtio-9p-", "virtio-serial-", "virtconsole,", "virtserialport,", "i6300esb,")
# Words of the kernel's command line that are meant for virtme-ng's own init, or name files of the host.
DROP_WORDS = ("virtme", "nr_open=", "init=", "root", "TERM=", "console=hvc", "loglevel=1", "quiet", "ro")
REFUSED = 64


class RefusedError(Exception):
    """virtme-ng asks for something that no guest of ours has."""


def translate(arguments: Sequence[str]) -> list[str]:
    """QEMU's arguments, made of those that virtme-ng gives it.

    Raises:
        RefusedError: an option that is neither known nor ours.
    """
    if FIRST_OF_OURS not in arguments:
        raise RefusedError("virtme-ng lost our own options on the way to QEMU")
    border = arguments.index(FIRST_OF_OURS)
    theirs, ours = list(arguments[:border]), list(arguments[border:])
    kept: list[str] = []
    while theirs:
        option = theirs.pop(0)
        if not theirs:
            raise RefusedError(f"virtme-ng gives QEMU `{option}` without a value")
        value = theirs.pop(0)
        if option in DROP or (option == "-device" and value.startswith(DROP_DEVICES)):
            continue
        if option not in KEEP or ONLY.get(option, value) != value:
            raise RefusedError(f"virtme-ng asks QEMU for `{option} {value}`, which a guest of ours never has")
        kept += [option, kernel_words(value) if option == "-append" else value]
    return [*kept, *ours]


def kernel_words(line: str) -> str:
    """The kernel's command line without what is meant for virtme-ng's own init."""
    exact = {"quiet", "ro", "loglevel=1"}
    prefixes = tuple(word for word in DROP_WORDS if word not in exact)
    words = [word for word in line.split() if word not in exact and not word.startswith(prefixes)]
    return " ".join(words)


def main(argv: Sequence[str]) -> int:
    """Answer `--version`, or run QEMU and say in its log how it ended, which virtme-ng would keep to itself."""
    config: dict[str, Any] = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    arguments = list(argv[1:])
    if arguments == ["--version"]:
        sys.stdout.write(f"QEMU emulator version {config['version']}\n")
        return 0
    try:
        command = [*config["sandbox"], *translate(arguments)]
    except RefusedError as error:
        sys.stderr.write(f"testbed: {error}\n")
        return REFUSED
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        sys.stderr.write(f"testbed: `{command[0]}` can't be started: {error.strerror}\n")
        return REFUSED
    if status != 0:
        sys.stderr.write(f"testbed: QEMU {ending(status)}\n")
    return status


def ending(status: int) -> str:
    """How a sandboxed program ended; bubblewrap says 128 and the signal."""
    number = status - 128 if status > 128 else -status
    if number > 0 and number in set(signal.Signals):
        return f"was ended by {signal.Signals(number).name}"
    return f"ended with status {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
