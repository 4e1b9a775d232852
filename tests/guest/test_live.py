# SPDX-License-Identifier: Apache-2.0
"""Real guests in real time, through virtme-ng: every way to end is told apart, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.case import CONSOLE_FILE, STREAM_FILE, Ended, GuestOutcome, Stream, parse_stream
from testbed.image import Image
from testbed.image.cpio import write_archive
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.vm import probe
from testbed.vm.guest import Boot
from testbed.vm.live import Accelerator, LiveGuest, survivors
from testbed.vm.qmp import Monitor

pytestmark = pytest.mark.guest

KEY = b"k" * 32
JOB = "testbed-job 1\nseed 1\nlimit 120000\nheartbeat 250\nwatchdog 0\ncandidate none\ntimeout_ms 0\nstarved 0\n"
WAIT = "sleep 600000\n"


@dataclass
class Lab:
    """One guest, and what is done to it once its runner has said hello."""

    image: Image
    place: Path
    files: dict[str, Path] = field(default_factory=dict)
    guest: LiveGuest | None = None

    def run(self, job: str, *, wall: int = 240, then: Callable[[Lab], None] | None = None) -> GuestOutcome:
        self.directory.mkdir(parents=True)
        digest = write_archive(self.place / "files", self.files)
        spec = RunSpec(
            schema="testbed.run/1", number=0, role=Role.CANDIDATE, scenario="live", clock=Clock.LIVE,
            topology=Topology(cpus=2, memory_mb=512), seed=1, job=job, files=digest, image=self.image.id,
            wall_limit_s=wall,
        )  # fmt: skip
        self.cancelled = threading.Event()
        greeted = threading.Event()

        def line(text: str) -> None:
            if '"e":"hello"' in text:
                greeted.set()

        boot = Boot(spec, self.image, self.directory, self.place / "files", KEY, self.cancelled, line)
        self.guest = LiveGuest(boot, Accelerator.TCG)

        def act() -> None:
            if greeted.wait(wall) and then is not None:
                then(self)

        actor = threading.Thread(target=act, daemon=True)
        try:
            self.guest.boot()
            actor.start()
            return self.guest.run()
        finally:
            self.guest.close()
            assert survivors(self.guest.name) == []

    @property
    def directory(self) -> Path:
        return self.place / "runs" / "000"

    @property
    def stream(self) -> Stream:
        return parse_stream((self.directory / STREAM_FILE).read_bytes(), KEY)

    @property
    def console(self) -> bytes:
        return (self.directory / CONSOLE_FILE).read_bytes()


@pytest.fixture
def lab(image: Image, tmp_path: Path) -> Lab:
    return Lab(image, tmp_path)


def test_a_scheduler_is_attached_and_detached_in_real_time(lab: Lab) -> None:
    lab.files = {"scx_simple.bpf.o": lab.image.examples / "obj" / "scx_simple.bpf.o"}
    job = JOB.replace("candidate none", "candidate object scx_simple.bpf.o")
    outcome = lab.run(f"{job}attach 60000\nhold 1000\ndetach 5000\nhealth 10000\n")
    assert (outcome.ended, outcome.reason, outcome.accelerator) == (Ended.FINISHED, "", "tcg-single")
    assert outcome.qmp == ("SHUTDOWN:guest-shutdown",)
    stream = lab.stream
    assert not stream.damage
    assert [(event.name, event.flag("ok")) for event in stream.of("attach", "detach", "end")] == [
        ("attach", True), ("detach", True), ("end", True),
    ]  # fmt: skip
    assert any(beat.text("state") == "enabled" for beat in stream.of("beat"))
    assert b"int3" not in lab.console


def test_a_panic_is_a_panic(lab: Lab) -> None:
    outcome = lab.run(f"{JOB}write /proc/sysrq-trigger c\n{WAIT}")
    assert outcome.ended is Ended.PANIC
    assert outcome.qmp == ("SHUTDOWN:guest-reset",)
    assert b"Kernel panic - not syncing: sysrq triggered crash" in lab.console


def test_a_guest_that_takes_too_long_says_nothing_about_the_candidate(lab: Lab) -> None:
    outcome = lab.run(JOB.replace("limit 120000", "limit 900000") + WAIT, wall=60)
    assert (outcome.ended, outcome.reason) == (Ended.WALL_LIMIT, "more than 60 s of host time")


def _kill_qemu(lab: Lab) -> None:
    assert lab.guest is not None
    for number in survivors(lab.guest.name):
        if Path(f"/proc/{number}/comm").read_text().startswith("qemu-system"):
            os.kill(number, signal.SIGKILL)


def test_a_killed_qemu_is_not_the_guests_end(lab: Lab) -> None:
    outcome = lab.run(JOB + WAIT, then=_kill_qemu)
    assert (outcome.ended, outcome.reason) == (Ended.QEMU_DIED, "QEMU was ended by SIGKILL")


def _stop(lab: Lab) -> None:
    # QEMU serves one client at a time, so the question goes through the guest's own connection.
    assert lab.guest is not None
    monitor = lab.guest._process._monitor
    assert isinstance(monitor, Monitor)
    monitor.send("stop")


def test_a_paused_qemu_is_not_a_silent_guest(lab: Lab) -> None:
    outcome = lab.run(JOB + WAIT, then=_stop)
    assert (outcome.ended, outcome.reason) == (Ended.PAUSED, "QEMU says: paused")


def test_an_interrupted_guest_ends_at_once(lab: Lab) -> None:
    asked: list[float] = []

    def cancel(lab: Lab) -> None:
        asked.append(time.monotonic())
        lab.cancelled.set()

    assert lab.run(JOB + WAIT, then=cancel).ended is Ended.INTERRUPTED
    assert time.monotonic() - asked[0] < 5


def test_what_is_no_evidence_is_gone_afterwards(lab: Lab) -> None:
    lab.run(f"{JOB}sleep 10\n")
    assert sorted(path.name for path in lab.directory.iterdir()) == [
        "command.txt", CONSOLE_FILE, "qemu.log", STREAM_FILE,
    ]  # fmt: skip


def test_a_tool_that_is_killed_leaves_nothing_running(image: Image, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from testbed.image import Image, Manifest\n"
        "from tests.guest.test_live import JOB, WAIT, Lab\n"
        "place = Path(sys.argv[1])\n"
        "manifest = Manifest.model_validate_json(Path(sys.argv[2]).read_text())\n"
        "lab = Lab(Image(Path(sys.argv[3]), manifest), place)\n"
        "lab.run(JOB + WAIT, then=lambda lab: print(lab.guest.name, flush=True))\n"
    )
    manifest = tmp_path / "manifest.json"
    manifest.write_text(image.manifest.model_dump_json(by_alias=True))
    command = [sys.executable, "-c", script, str(tmp_path / "lab"), str(manifest), str(image.path)]
    root = str(Path(__file__).parents[2])
    tool = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True)
    try:
        assert tool.stdout is not None
        name = tool.stdout.readline().strip()
        assert len(survivors(name)) > 3
    finally:
        tool.kill()
        tool.wait()
    time.sleep(1)
    assert survivors(name) == []


def test_only_a_guest_that_ran_proves_kvm(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path))
    said = probe.probe(image)
    assert said.available
    if said.accelerator == "kvm":
        assert said.reason == "a guest ran under KVM"
    else:
        assert said.accelerator == "tcg-single"
        assert said.reason.startswith("emulation, because ")
