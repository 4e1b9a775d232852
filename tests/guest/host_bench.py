# SPDX-License-Identifier: Apache-2.0
"""What tests of promotion need: a guest as a host, a wire to it that can be cut, attested candidates good and bad."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testbed.build import build
from testbed.candidate import read_candidate
from testbed.errors import HostError
from testbed.hosts.guest import HostGuest
from testbed.image import Image
from testbed.promote import envelope, law, statement
from testbed.promote import policy as policies
from testbed.promote.bundle import ATTESTATION
from testbed.promote.envelope import Signer
from testbed.promote.policy import PromotionPolicy
from testbed.spec import sha256
from tests.guest.conftest import COMMAND, ROOT
from tests.unit.test_promote import attested

PATIENCE_S = 240
POLICY = """\
# SPDX-License-Identifier: Apache-2.0
schema: testbed.promotion/1
kind: promotion
name: short
description: for the tests
accepts:
  - {policy: default, reason: only for a test}
runs: {clocks: [sim], seeds: 1, reason: only for a test}
max_age_days: 30
max_age_reason: only for a test
same_kernel: true
same_kernel_reason: only for a test
benefit: {demand: nothing, reason: only for a test}
risks:
  - {code: failure-modes, reason: only for a test}
  - {code: real-speed, reason: only for a test}
  - {code: longer-runs, reason: only for a test}
signatures: {self_signed: false, reason: only for a test}
canary:
  - {name: first, scope: all, duration: FIRST, reason: only for a test}
  - {name: watch, scope: all, duration: 1s, reason: only for a test}
limits: {watchdog: 5s, wait: 3s, pressure: PRESSURE, detach: 10s, attempts: ATTEMPTS, reason: only for a test}
persist: PERSIST
persist_reason: only for a test
"""


# Hogs that come with a scheduler and go with it: what logs in before has a quiet machine.
LOAD = """
state() { cat /sys/kernel/sched_ext/state; }
until [ "$(state)" = enabled ]; do sleep 0.1; done
sleep 0.5
for i in $(seq "$1"); do (exec -a testbed-load bash -c 'while :; do :; done') & done
while [ "$(state)" = enabled ]; do sleep 0.1; done
pkill -KILL -f testbed-load
"""


def short(first: str = "2s", attempts: int = 5, *, persist: bool = False, pressure: int = 70) -> PromotionPolicy:
    """A promotion policy with a canary of two stages, the first as long as a test wants it."""
    return policies.parse(written(first, attempts, persist=persist, pressure=pressure).encode(), "short.yaml")


def written(first: str = "2s", attempts: int = 5, *, persist: bool = False, pressure: int = 70) -> str:
    """The same as a file."""
    text = POLICY.replace("FIRST", first).replace("ATTEMPTS", str(attempts)).replace("PRESSURE", str(pressure))
    return text.replace("PERSIST", str(persist).lower())


class Wire:
    """A TCP port of this machine that leads to the guest's sshd."""

    def __init__(self, guest: HostGuest) -> None:
        self._guest = guest
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        try:
            far = self._guest.dial(60)
        except HostError:
            near.close()
            return
        self._ends += [near, far]
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()

    def cut(self) -> None:
        """Cut every connection, as if somebody had fallen over the cable."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@dataclass
class Bench:
    """A host, who may promote to it, and what can be promoted."""

    image: Image
    guest: HostGuest
    wire: Wire
    work: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    _cases: dict[str, Path] = field(default_factory=dict)
    _shell: paramiko.Transport | None = None

    def __post_init__(self) -> None:
        (self.work / "identity").write_bytes(self.guest.identity)
        (self.work / "identity").chmod(0o600)
        line = f"[127.0.0.1]:{self.wire.port} {self.guest.host_key.get_name()} {self.guest.host_key.get_base64()}\n"
        (self.work / "known_hosts").write_text(line)
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.work / "attest.pub").write_bytes(public)

    # --- candidates -------------------------------------------------------------------------------------------

    def case(
        self, source: Path, *changes: tuple[str, str], kernel: str | None = None, key: Ed25519PrivateKey | None = None
    ) -> Path:
        """An attested case of a scheduler, without the runs that nobody on a host looks at.

        Args:
            source: the scheduler.
            changes: what is another in it.
            kernel: release that it is said to have been judged on; None: the image's.
            key: who attests, if not the one that the host trusts.
        """
        text = source.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        name = f"{source.name}-{sha256(f'{text}{kernel}{key}'.encode())[:12]}"
        if name not in self._cases:
            case = self.work / name
            case.mkdir()
            (case / source.name).write_text(text)
            artifact = build(read_candidate(str(case / source.name)), self.image, case / "candidate")
            assert artifact.ok, artifact.findings
            now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
            found = attested(candidate=artifact.candidate, time=now)
            document = json.loads(found.payload())
            about = next(one for one in document["predicate"]["configuration"] if one["name"] == "kernel")
            about["annotations"] = {"release": kernel or self.image.manifest.kernel.release}
            signer = key or self.key
            sealed = envelope.seal(
                statement.parse(json.dumps(document).encode()).payload(),
                Signer(signer.public_key(), signer.sign, self_signed=False),
            )
            (case / ATTESTATION).write_text(sealed.model_dump_json())
            self._cases[name] = case
        return self._cases[name]

    def good(self, number: int = 0) -> Path:
        """One that is well; each number is another one, so that attempts do not add up."""
        return self.case(ROOT / "bpf/good/global_fifo.bpf.c", ("SCX_SLICE_DFL", f"SCX_SLICE_DFL + {number}"))

    # --- the command ------------------------------------------------------------------------------------------

    def host(self, user: str = "promoter") -> str:
        return f"{user}@127.0.0.1:{self.wire.port}"

    def words(self, *words: str | Path) -> list[str]:
        keys = ["--known-hosts", str(self.work / "known_hosts"), "--identity", str(self.work / "identity")]
        return [*COMMAND, *map(str, words), *keys]

    def testbed(self, *words: str | Path) -> tuple[int, dict[str, Any]]:
        """A verb with `--json`: exit code and document."""
        done = subprocess.run(
            [*self.words(*words), "--json"],
            capture_output=True,
            cwd=ROOT,
            env=environment(),
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode, json.loads(done.stdout or "{}") | {"stderr": done.stderr.decode()}

    def promote(self, case: Path) -> tuple[int, dict[str, Any]]:
        """Exit code, and what became of the host."""
        code, told = self.testbed("promote", case, "--host", self.host())
        return code, told["hosts"][0] | {"stderr": told["stderr"]}

    def canary(self, case: Path, word: str = "stage") -> subprocess.Popen[bytes]:
        """A promotion that goes on and has come so far that the log has a line `word`."""
        before = self.logged(word)
        process = self.promoting(case)
        self.wait_for(lambda: self.logged(word) > before, word)
        return process

    def logged(self, word: str) -> int:
        """How often a word is in the host's log."""
        said = self.run(f'cat /var/lib/testbed/audit.jsonl 2>/dev/null | grep -c \'"what":"{word}"\' || true')
        return int(said.split()[-1])

    def promoting(self, case: Path) -> subprocess.Popen[bytes]:
        """The same, while it goes on."""
        return subprocess.Popen(
            [*self.words("promote", case, "--host", self.host()), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )

    def status(self) -> tuple[int, dict[str, Any]]:
        code, told = self.testbed("status", "--host", self.host())
        return code, told["hosts"][0].get("status", told["hosts"][0])

    def history(self) -> list[dict[str, Any]]:
        code, told = self.testbed("history", "--host", self.host())
        log = told["hosts"][0]["history"]
        assert (code, log["sound"]) == (0, True), told
        return list(log["lines"])

    # --- the host itself --------------------------------------------------------------------------------------

    def run(self, command: str, patience_s: float = 60) -> str:
        """A command of root's on the host; its output, both streams."""
        if self._shell is None or not self._shell.is_active():
            self._shell = self.guest.connect()
        channel = self._shell.open_session(timeout=patience_s)
        channel.settimeout(patience_s)
        channel.set_combine_stderr(True)
        channel.exec_command(command)
        said = b""
        while data := channel.recv(1 << 16):
            said += data
        channel.close()
        return said.decode()

    def forget_shell(self) -> None:
        """After a reboot."""
        if self._shell is not None:
            self._shell.close()
        self._shell = None

    def state(self) -> tuple[str, str]:
        """What the kernel says: state, and name of the scheduler."""
        state, _, ops = self.run(
            "cat /sys/kernel/sched_ext/state; cat /sys/kernel/sched_ext/root/ops 2>/dev/null"
        ).partition("\n")
        return state.strip(), ops.strip()

    def wait_for(self, true: Callable[[], bool], what: str, patience_s: float = 60) -> None:
        deadline = time.monotonic() + patience_s
        while not true():
            assert time.monotonic() < deadline, (
                f"{what}: {self.state()}, {self.run('tail -3 /var/lib/testbed/audit.jsonl')}"
            )
            time.sleep(0.2)

    def load(self, tasks: int) -> None:
        """So many tasks on the host that never sleep, from shortly after a scheduler came until it has gone."""
        self.run(f"setsid bash -c {shlex.quote(LOAD)} load {tasks} </dev/null >/dev/null 2>&1 &")

    def policy_file(self) -> Path:
        """The policy that the host is installed with."""
        file = self.work / "short.yaml"
        file.write_text(written())
        return file

    def policy(self, first: str = "2s", attempts: int = 5, *, persist: bool = False, pressure: int = 70) -> None:
        """Give the host another policy, as its root may."""
        document = law.document(short(first, attempts, persist=persist, pressure=pressure))
        text = base64.b64encode(document).decode()
        self.run(f"echo {text} | base64 -d > /etc/testbed/promotion.json")

    def clear(self) -> None:
        """Nothing runs, and nothing speaks against trying again."""
        self.run("testbed-host stop; rm -f /etc/testbed/health /filler; pkill -KILL -f testbed-load")
        assert self.state() == ("disabled", "")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.wait(PATIENCE_S)


def what(lines: Sequence[dict[str, Any]]) -> list[str]:
    return [str(line["what"]) for line in lines]
