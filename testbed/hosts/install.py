# SPDX-License-Identifier: Apache-2.0
"""What an administrator does once: program, unit, trusted keys and policy are put on a host, or taken away again.

Each step is one command of fixed words; root's rights are needed on the host, by `sudo -n` unless one logs in as root.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testbed.errors import HostError, UsageError
from testbed.hosts.program import NAME, UNIT, Program
from testbed.hosts.reach import Answer, Reached
from testbed.hosts.resident import PROGRAM, Resident, section
from testbed.promote import envelope, law
from testbed.promote.policy import PromotionPolicy

CONFIG = "/etc/testbed"
TRUSTED = f"{CONFIG}/trusted.d"
STATE = "/var/lib/testbed"
UNITS = "/etc/systemd/system"
SUDOERS = "/etc/sudoers.d/testbed"
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_OWNED = ("-o", "root", "-g", "root")


@dataclass(frozen=True)
class Wanted:
    """What a host is to have.

    Attributes:
        program: the program and its unit.
        policy: the promotion policy that the host obeys from now on.
        trusted: files of public keys whose attestations count, and no others.
        promoter: a user of the host who may promote by the sudo rules; None: root alone.
        health: the user's own health command; None: there is none.
    """

    program: Program
    policy: PromotionPolicy
    trusted: Sequence[Path]
    promoter: str | None = None
    health: Path | None = None


def sudo_rules(user: str) -> str:
    """The rights that a promoter needs: these command lines and no others.

    Raises:
        UsageError: it is no user's name.
    """
    if _USER.fullmatch(user) is None:
        raise UsageError(f"`{user}` is no name of a user", hint="letters, digits, `-` and `_`")
    commands = (
        "^stage /tmp/testbed-[a-z0-9_]{8}$",
        "^(check|start) [0-9a-f]{64}$",
        "^(follow|stop|status|history)$",
    )
    return "".join(f"{user} ALL=(root) NOPASSWD: {PROGRAM} {command}\n" for command in commands)


def install(host: Reached, wanted: Wanted) -> Resident:
    """Install or renew; what a running watcher does goes on under the old program.

    Raises:
        UsageError: a key or a name can't be meant.
        HostError: the host refuses a step.
    """
    files = _files(wanted)
    root = _Root(host)
    place = host.upload(files)
    try:
        for words in _steps(place, files, wanted):
            root.must(words)
    finally:
        host.discard(place, files)
    resident = Resident(host)
    told = section(resident.facts, "program").get("sha256")
    if told != wanted.program.sha256:
        raise HostError(f"`{host.name}` has another {PROGRAM} than was installed")
    return resident


def remove(host: Reached, *, everything: bool) -> None:
    """Take back what runs, and remove what was installed.

    Args:
        host: to remove it from.
        everything: log and evidence too.

    Raises:
        HostError: what runs can't be taken back, or the host refuses a step.
    """
    root = _Root(host)
    stopped = root.may([PROGRAM, "stop"])
    if stopped.code not in (0, 1, 127):
        raise HostError(f"`{host.name}` can't take back what runs", hint=f"testbed status --host {host.name}")
    root.may(["systemctl", "disable", "--now", NAME])
    root.must(["rm", "-f", PROGRAM, f"{UNITS}/{UNIT}", SUDOERS])
    root.must(["rm", "-rf", CONFIG])
    if everything:
        root.may(["chattr", "-a", f"{STATE}/audit.jsonl"])
        root.must(["rm", "-rf", STATE])
    root.must(["systemctl", "daemon-reload"])


def _files(wanted: Wanted) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {
        NAME: wanted.program.program,
        UNIT: wanted.program.unit,
        "promotion.json": law.document(wanted.policy),
    }
    if not wanted.trusted:
        raise UsageError("no key is trusted", hint="--trust KEY.pub, which `testbed attest` wrote beside its key")
    for path in wanted.trusted:
        key = envelope.read_public(path)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        files[f"{envelope.key_id(key)[:32]}.pub"] = pem
    if wanted.promoter is not None:
        files["sudoers"] = sudo_rules(wanted.promoter).encode("ascii")
    if wanted.health is not None:
        files["health"] = wanted.health
    return files


def _steps(place: str, files: Mapping[str, bytes | Path], wanted: Wanted) -> Iterator[list[str]]:
    folder = ["install", "-d", *_OWNED, "-m", "0755"]
    file = ["install", *_OWNED]
    if wanted.promoter is not None:
        # A file that sudo can't read would lock everybody out of sudo.
        yield ["visudo", "-c", "-q", "-f", f"{place}/sudoers"]
    yield [*folder, CONFIG]
    yield ["rm", "-rf", TRUSTED]  # for a moment nobody is trusted, and that is the safe side
    yield [*folder, TRUSTED]
    yield [*file, "-m", "0755", f"{place}/{NAME}", PROGRAM]
    yield [*file, "-m", "0644", f"{place}/{UNIT}", f"{UNITS}/{UNIT}"]
    yield [*file, "-m", "0644", f"{place}/promotion.json", f"{CONFIG}/promotion.json"]
    for name in files:
        if name.endswith(".pub"):
            yield [*file, "-m", "0644", f"{place}/{name}", f"{TRUSTED}/{name}"]
    if wanted.health is not None:
        yield [*file, "-m", "0755", f"{place}/health", f"{CONFIG}/health"]
    else:
        yield ["rm", "-f", f"{CONFIG}/health"]
    if wanted.promoter is not None:
        yield [*file, "-m", "0440", f"{place}/sudoers", SUDOERS]
    yield ["systemctl", "daemon-reload"]
    yield ["systemctl", "enable" if wanted.policy.persist else "disable", "--quiet", NAME]


class _Root:
    """Commands with root's rights."""

    def __init__(self, host: Reached) -> None:
        self._host = host
        told = host.run(["id", "-u"])
        self._before = () if told.out.strip() == b"0" else ("sudo", "-n")

    def may(self, words: Sequence[str]) -> Answer:
        """Run a command that may fail."""
        return self._host.run([*self._before, *words])

    def must(self, words: Sequence[str]) -> None:
        """Run a command.

        Raises:
            HostError: it failed.
        """
        answer = self.may(words)
        if answer.code:
            raise HostError(
                f"`{self._host.name}` refuses `{' '.join(words[:2])}`: {answer.complaint[:300]}",
                hint="its administrator must do this: log in as root, or as a user with `sudo -n` for everything",
            )
