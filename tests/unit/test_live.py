# SPDX-License-Identifier: Apache-2.0
"""The live clock without a guest: what virtme-ng is told, what it makes of it, and what becomes of that."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from testbed import sandbox
from testbed.case import Ended
from testbed.errors import Bug, HostError
from testbed.spec import Topology
from testbed.vm import live, qemu, wrapper
from testbed.vm.live import Accelerator
from tests.unit.live_bench import RELEASE, fake_boot


def _works() -> bool:
    try:
        sandbox.probe()
    except HostError:
        return False
    return True


needs_bubblewrap = pytest.mark.skipif(not _works(), reason="bubblewrap does not work here")


def _value(command: list[str], option: str) -> str:
    assert command.count(option) == 1, f"{option} in {command}"
    return command[command.index(option) + 1]


def _asks(accelerator: Accelerator, place: Path) -> list[str]:
    """What the real virtme-ng would start, taken from its own dry run in our sandbox."""
    boot = fake_boot(place)
    live.furnish(boot, accelerator)
    # /dev/kvm need not be there for a dry run.
    box = live.outer(boot, Accelerator.TCG)
    result = box.run([*live.virtme_ng(boot, accelerator, "testbed-1-007-ab"), "--dry-run"])
    assert result.ok, result.text
    line = next(line for line in result.stdout.decode().splitlines() if "-nodefaults" in line)
    return shlex.split(line)


@needs_bubblewrap
@pytest.mark.parametrize(("accelerator", "option"), [(Accelerator.TCG, "tcg,thread=single"), (Accelerator.KVM, "kvm")])
def test_the_real_virtme_ng_asks_for_nothing_that_the_wrapper_refuses(
    tmp_path: Path, accelerator: Accelerator, option: str
) -> None:
    asked = _asks(accelerator, tmp_path)
    assert asked[0] == "/run/testbed/bin/qemu"
    command = wrapper.translate(asked[1:])
    assert _value(command, "-accel") == option
    assert "accel=" not in _value(command, "-machine")
    assert _value(command, "-name") == "testbed-1-007-ab"
    assert _value(command, "-kernel") == "/image/vmlinuz"
    assert _value(command, "-initrd") == "/image/initramfs.cpio"
    assert _value(command, "-serial") == "chardev:console"
    assert _value(command, "-qmp") == "unix:/out/qmp,server=on,wait=off"
    assert {command[n + 1] for n, word in enumerate(command) if word == "-smp"} == {"3"}
    assert {command[n + 1] for n, word in enumerate(command) if word == "-m"} == {"640M", "640"}
    devices = [command[n + 1] for n, word in enumerate(command) if word == "-device"]
    assert devices == ["isa-debugcon,iobase=0x402,chardev=stream", "vmcoreinfo", "i6300esb"]


@needs_bubblewrap
def test_the_kernel_hears_our_words_and_none_that_name_the_host(tmp_path: Path) -> None:
    words = _value(wrapper.translate(_asks(Accelerator.TCG, tmp_path)[1:]), "-append").split()
    assert set(words) >= {"console=ttyS0", "panic=-1", "oops=panic", "nokaslr", "loglevel=7"}
    assert not [word for word in words if "/" in word or word.startswith(("init", "virtme", "root", "quiet"))]


def test_neither_list_nor_threads_of_emulation_can_be_asked_for() -> None:
    assert [accelerator.options for accelerator in Accelerator] == [["-accel", "kvm"], ["-accel", "tcg,thread=single"]]


@pytest.mark.parametrize(
    "more",
    [
        ["-netdev", "user,id=n0"],
        ["-net", "user"],
        ["-device", "virtio-net-pci,netdev=n0"],
        ["-device", "virtio-net-pci,netdev=virtio-9p-"],
        ["-drive", "if=none,file=/etc/shadow"],
        ["-machine", "accel=kvm:tcg"],
        ["-qmp", "tcp:localhost:3636,server,nowait"],
        ["-incoming", "tcp:0:4444"],
        ["-initrd", "/proc/self/fd/5"],
        ["-virtfs", "local,path=/"],
    ],
)
def test_the_wrapper_refuses_what_no_guest_of_ours_has(more: list[str]) -> None:
    with pytest.raises(wrapper.RefusedError) as caught:
        wrapper.translate(["-name", "x", *more, "-nodefaults"])
    assert str(caught.value) == f"virtme-ng asks QEMU for `{' '.join(more)}`, which a guest of ours never has"


def test_the_wrapper_refuses_a_machine_without_our_options() -> None:
    with pytest.raises(wrapper.RefusedError, match="lost our own options"):
        wrapper.translate(["-name", "x", "-m", "512M"])
    with pytest.raises(wrapper.RefusedError, match="`-m` without a value"):
        wrapper.translate(["-m", "-nodefaults"])


def test_the_wrapper_drops_the_doors_that_are_not_ours() -> None:
    theirs = ["-fsdev", "local,id=v,path=/", "-device", "virtio-9p-pci,fsdev=v", "-echr", "1", "-serial", "chardev:c"]
    theirs += ["-chardev", "stdio,id=c", "-device", "virtconsole,chardev=dmesg", "-kernel", "/run/vmlinuz", "-m", "9"]
    assert wrapper.translate([*theirs, "-nodefaults", "-serial", "x"]) == ["-m", "9", "-nodefaults", "-serial", "x"]


def test_the_wrapper_knows_qemus_version_without_starting_it(tmp_path: Path) -> None:
    config = tmp_path / "qemu.json"
    config.write_text(json.dumps({"version": "10.0.13", "sandbox": ["false"]}))
    command = [sys.executable, "-I", wrapper.__file__, str(config)]
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == "QEMU emulator version 10.0.13\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", ""),
        ("exit 3", "testbed: QEMU ended with status 3\n"),
        ("exit 137", "testbed: QEMU was ended by SIGKILL\n"),
        ("kill -ABRT $$", "testbed: QEMU was ended by SIGABRT\n"),
    ],
)
def test_the_wrapper_says_how_qemu_ended(tmp_path: Path, script: str, words: str) -> None:
    config = tmp_path / "qemu.json"
    config.write_text(json.dumps({"version": "1", "sandbox": ["sh", "-c", script]}))
    said = subprocess.run(
        [sys.executable, "-I", wrapper.__file__, str(config), "-nodefaults"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stderr == words


def test_the_wrapper_says_what_it_refused(tmp_path: Path) -> None:
    config = tmp_path / "qemu.json"
    config.write_text(json.dumps({"version": "1", "sandbox": ["true"]}))
    command = [sys.executable, "-I", wrapper.__file__, str(config), "-netdev", "user", "-nodefaults"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == wrapper.REFUSED
    assert said.stderr == "testbed: virtme-ng asks QEMU for `-netdev user`, which a guest of ours never has\n"


def test_only_the_runs_directory_can_be_written(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path)
    command = live.command(boot, Accelerator.TCG, "testbed-x")
    assert command[:3] == ["bwrap", "--unshare-all", "--die-with-parent"]
    assert _value(command, "--bind") == str(boot.directory)
    assert "--share-net" not in command
    assert "--dev-bind" not in command


def test_qemu_sees_its_inputs_and_kvm_only_where_it_is_used(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path)
    command = live.inner(boot, Accelerator.TCG)
    assert command[-1] == "qemu-system-x86_64"
    assert "--proc" not in command
    assert [command[n + 1] for n, word in enumerate(command) if word == "--ro-bind"] == [
        str(boot.image.qemu), str(boot.image.path), "/run/out/in", "/run/files",
    ]  # fmt: skip
    assert "/dev/kvm" not in command
    assert _value(live.inner(boot, Accelerator.KVM), "--dev-bind") == "/dev/kvm"


def test_a_word_that_a_shell_would_read_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(Bug, match="can't go through virtme-ng's shell"):
        live.virtme_ng(fake_boot(tmp_path), Accelerator.TCG, "$(reboot)")


def test_a_case_with_spaces_in_its_path_needs_no_quotes(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path / "my cases; rm -rf")
    assert "my cases" not in shlex.join(live.virtme_ng(boot, Accelerator.TCG, "testbed-x"))


def test_what_virtme_ng_finds_on_its_path_is_ours(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path)
    live.furnish(boot, Accelerator.TCG)
    room = boot.directory / "vng"
    said = subprocess.run([room / "bin" / "file", "x"], capture_output=True, text=True, check=True)
    assert f"version {RELEASE}," in said.stdout
    assert json.loads((room / "home/.config/virtme-ng/virtme-ng.conf").read_text()) == {}


def test_every_guest_has_a_name_of_its_own(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path)
    names = {live.LiveGuest(boot, Accelerator.TCG).name for _ in range(50)}
    assert len(names) == 50


def test_survivors_are_found_by_name() -> None:
    name = f"testbed-{uuid.uuid4()}"
    process = subprocess.Popen(["sh", "-c", "read line", name], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 5  # a program has no command line for a moment after its start
        while not live.survivors(name) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert live.survivors(name) == [process.pid]
    finally:
        process.kill()
        process.wait()
    assert live.survivors(name) == []


def test_closing_a_guest_that_never_started_is_harmless(tmp_path: Path) -> None:
    guest = live.LiveGuest(fake_boot(tmp_path), Accelerator.TCG)
    guest.close()
    guest.close()


# --- what QMP says decides ---------------------------------------------------------------------------------------

FAKE_QEMU = """
import json, os, socket, sys
os.chdir(sys.argv[1])
answers, events, end = json.loads(sys.argv[2])
server = socket.socket(socket.AF_UNIX)
server.bind("qmp")
server.listen()
connection, _ = server.accept()
stream, said = connection.makefile("w"), connection.makefile("r")
def say(value):
    stream.write(json.dumps(value) + "\\n")
    stream.flush()
say({"QMP": {}})
for _ in range(3):
    say({"return": answers.get(json.loads(said.readline())["execute"], {})})
open("stream", "w").write(end)
for event in events:
    say(event)
if "stay" in sys.argv:
    while said.readline():
        say({"return": answers["query-status"]})
print("testbed: QEMU ended", flush=True)
"""
KVM = {"query-kvm": {"enabled": True, "present": True}, "query-status": {"status": "running"}}
TCG = {"query-kvm": {"enabled": False, "present": True}, "query-status": {"status": "running"}}
POWERED_OFF = [{"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}]
HELLO = '0 00 {"t":1,"e":"hello"}\n'
END = HELLO + '1 00 {"t":2,"e":"end","ok":true}\n'


def _watch(place: Path, accelerator: str, answers: object, events: object, end: str, *more: str) -> tuple[Ended, str]:
    boot = fake_boot(place, wall_limit_s=20)
    process = qemu.Process(boot, accelerator, launched=True)
    process.prepare()
    process.start([sys.executable, "-c", FAKE_QEMU, str(boot.directory), json.dumps([answers, events, end]), *more])
    try:
        outcome = process.wait()
    finally:
        process.close()
    return outcome.ended, outcome.reason


@pytest.mark.parametrize(("accelerator", "answers"), [("kvm", KVM), ("tcg-single", TCG)])
def test_a_guest_that_qmp_confirms_has_finished(tmp_path: Path, accelerator: str, answers: object) -> None:
    assert _watch(tmp_path, accelerator, answers, POWERED_OFF, END) == (Ended.FINISHED, "")


def test_a_qemu_that_is_ended_before_it_made_its_files_has_not_ended_by_itself(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path)
    process = qemu.Process(boot, "tcg-single")
    process.prepare()
    process.start([sys.executable, "-c", "import time; time.sleep(60)"])
    boot.cancelled.set()
    try:
        assert process.wait().ended is Ended.INTERRUPTED
        assert not process.ended_by_itself
    finally:
        process.close()


def test_another_accelerator_than_asked_for_ends_the_run(tmp_path: Path) -> None:
    ended, reason = _watch(tmp_path, "kvm", TCG, [], HELLO, "stay")
    assert (ended, reason) == (Ended.QEMU_DIED, "asked for kvm, and QEMU says that KVM is off")


def test_an_accelerator_that_qmp_never_named_is_no_evidence(tmp_path: Path) -> None:
    ended, reason = _watch(tmp_path, "kvm", {}, POWERED_OFF, END)
    assert (ended, reason) == (Ended.QEMU_DIED, "QEMU never said which accelerator runs the guest")


def test_a_guest_that_stopped_before_anybody_listened_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "LATE_OOPS_S", 0.2)
    answers = {**KVM, "query-status": {"status": "internal-error"}}
    assert _watch(tmp_path, "kvm", answers, [], HELLO, "stay") == (Ended.PAUSED, "QEMU says: internal-error")


def test_what_virtme_ng_returns_is_not_asked(tmp_path: Path) -> None:
    ended, reason = _watch(tmp_path, "tcg-single", TCG, [], HELLO)
    assert (ended, reason) == (Ended.QEMU_DIED, "QEMU ended")


def test_a_topology_is_passed_on(tmp_path: Path) -> None:
    boot = fake_boot(tmp_path)
    assert boot.spec.topology == Topology(cpus=3, memory_mb=640)
    command = live.virtme_ng(boot, Accelerator.TCG, "n")
    assert _value(command, "--cpus") == "3"
    assert _value(command, "--memory") == "640M"
