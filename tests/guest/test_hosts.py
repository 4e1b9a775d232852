# SPDX-License-Identifier: Apache-2.0
"""Promotion to a host for real: a guest with systemd and sshd, reached as any server is, and what can go wrong.

docs/guides/promote.md has a table of the faults and what became of them; each row names its test. Those of `make
test` are one of each kind; the rest is slow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testbed.hosts.guest import HostGuest
from testbed.image import Image, hosts
from tests.guest.conftest import COMMAND, ROOT
from tests.guest.host_bench import Bench, Wire, environment, kill, what

BAD = ROOT / "bpf/bad"
EEVDF = ("disabled", "")
GOOD = ("enabled", "global_fifo")
LONG = "60s"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def machine(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One host for all tests, prepared as its administrator would."""
    guest = HostGuest(image, hosts.build(lambda event: None), tmp_path_factory.mktemp("host"))
    guest.start()
    wire = Wire(guest)
    bench = Bench(image, guest, wire, tmp_path_factory.mktemp("bench"))
    try:
        bench.run("true")  # it has booted
        key = bench.work / "attest.pub"
        code, told = bench.testbed(
            "host",
            "install",
            bench.host("root"),
            "--trust",
            key,
            "--policy",
            bench.policy_file(),
            "--promoter",
            "promoter",
        )
        assert code == 0, told
        yield bench
    finally:
        wire.close()
        guest.power_cut()


@pytest.fixture
def bench(machine: Bench) -> Iterator[Bench]:
    machine.clear()
    machine.policy()
    yield machine
    machine.forget_shell()


def test_a_good_one_is_kept_and_taken_back_by_hand(bench: Bench) -> None:
    code, told = bench.promote(bench.good())
    assert (code, told["outcome"]) == (0, "kept"), told
    assert bench.state() == GOOD
    assert [one["event"] for one in told["events"]] == ["attached", "stage", "stage", "kept"]
    code, status = bench.status()
    assert (code, status["healthy"], status["holder"], status["record"]["phase"]) == (0, True, "ours", "kept")
    assert status["record"]["by"] == "promoter"
    assert what(bench.history())[-5:] == ["start", "attached", "stage", "stage", "kept"]
    code, told = bench.testbed("rollback", "--host", bench.host())
    assert (code, told["hosts"][0]["rollback"]["back"]) == (0, True)
    assert bench.state() == EEVDF
    assert what(bench.history())[-1] == "stopped"
    # Nothing of the upload is left, and the promoter can do this and nothing else.
    assert bench.run("ls -A /tmp | grep testbed || true") == ""
    assert "password is required" in bench.run("setpriv --reuid promoter --clear-groups sudo -n id")


@pytest.mark.parametrize(
    ("name", "changes", "load", "pressure", "limits"),
    [
        pytest.param("forgets_after_a_while", (("(40 *", "(3 *"),), 2, 100, {"wait", "left"}, id="time-bomb"),
        pytest.param(
            "loses_when_crowded", (), 14, 100, {"wait", "left"}, id="stalls-under-load", marks=pytest.mark.slow
        ),
        pytest.param(
            "crawls_in_dispatch",
            (),
            3,
            40,
            {"pressure", "wait", "left", "lifeline"},
            id="crawl",
            marks=pytest.mark.slow,
        ),
        pytest.param("shouts", (), 2, 100, {"log-storm"}, id="log-storm", marks=pytest.mark.slow),
        pytest.param("writes_memoirs", (), 4, 100, {"memory", "wait"}, id="leak", marks=pytest.mark.slow),
    ],
)
def test_a_bad_one_is_taken_back(
    bench: Bench, name: str, changes: tuple[tuple[str, str], ...], load: int, pressure: int, limits: set[str]
) -> None:
    bench.policy(LONG, pressure=pressure)
    folder = BAD if (BAD / f"{name}.bpf.c").exists() else Path(__file__).parent / "candidates"
    bench.load(load)
    code, told = bench.promote(bench.case(folder / f"{name}.bpf.c", *changes))
    assert (code, told["outcome"]) == (1, "rolled-back"), told
    assert told["code"] in limits, told
    assert bench.state() == EEVDF
    line = [one for one in bench.history() if one["what"] == "rolled-back"][-1]
    assert line["back"] is True and line["limit"] == told["code"]
    assert bench.run(f"ls -A {line['evidence']}").split(), "evidence is kept"
    assert bench.status()[0] == 0


def test_who_was_taken_back_is_not_tried_again(bench: Bench) -> None:
    bench.policy(LONG, attempts=1)
    case = bench.case(BAD / "ejects_itself.bpf.c")
    told = bench.promote(case)[1]
    assert told["outcome"] == "rolled-back", (told, bench.history()[-2:])
    code, told = bench.promote(case)
    assert (code, told["outcome"]) == (1, "refused")
    assert [one["code"] for one in told["refusals"]] == ["attempts-used-up"]
    assert bench.state() == EEVDF


# --- what is lost on the way ------------------------------------------------------------------------------------


def test_a_cut_wire_takes_it_back(bench: Bench) -> None:
    bench.policy(LONG)
    process = bench.canary(bench.good(1))
    bench.forget_shell()
    bench.wire.cut()
    bench.wait_for(lambda: bench.state() == EEVDF, "the lifeline ends")
    told = json.loads(process.communicate(timeout=120)[0])["hosts"][0]
    assert (process.returncode, told["outcome"], told["code"]) == (3, "lost", "lifeline"), told
    assert bench.history()[-1]["limit"] == "lifeline"


@pytest.mark.slow
@pytest.mark.parametrize(("word", "stays"), [("start", False), ("attached", False), ("stage", False), ("kept", True)])
def test_a_promoter_may_be_killed_at_any_time(bench: Bench, word: str, stays: bool) -> None:
    bench.policy("2s" if stays else LONG)
    taken = bench.logged("rolled-back")
    process = bench.canary(bench.good(2 + ["start", "attached", "stage", "kept"].index(word)), word)
    kill(process)
    if stays:
        assert bench.state() == GOOD
        assert bench.status()[0] == 0
    else:
        bench.wait_for(lambda: bench.logged("rolled-back") > taken, "the lifeline ends")
        assert bench.history()[-1]["limit"] == "lifeline"
        assert bench.state() == EEVDF


@pytest.mark.slow
def test_a_promoter_killed_while_it_uploads_leaves_nothing_that_runs(bench: Bench) -> None:
    lines = bench.logged("start")
    process = bench.promoting(bench.good(7))
    bench.wait_for(lambda: "testbed-" in bench.run("ls /tmp"), "the upload begins")
    kill(process)
    time.sleep(2)
    assert bench.logged("start") == lines or bench.logged("rolled-back") > 0
    bench.wait_for(lambda: bench.state() == EEVDF, "nothing runs")


def test_a_killed_watcher_takes_it_along(bench: Bench) -> None:
    bench.policy(LONG)
    process = bench.canary(bench.good(8))
    bench.run("pkill -KILL -f 'testbed-host watch'")
    bench.wait_for(lambda: bench.state() == EEVDF, "the kernel detaches")
    told = json.loads(process.communicate(timeout=120)[0])["hosts"][0]
    assert (process.returncode, told["outcome"]) == (3, "lost"), told
    code, status = bench.status()
    assert (code, status["healthy"]) == (1, False)
    assert set(status["discrepancies"]) & {"watcher-gone", "not-enabled"}
    # Whoever comes next finds it put right.
    assert bench.promote(bench.good(9))[0] == 0
    assert "lost" in what(bench.history())


@pytest.mark.slow
def test_a_power_cut_ends_in_eevdf(bench: Bench) -> None:
    bench.policy(LONG)
    process = bench.canary(bench.good(10))
    bench.forget_shell()
    bench.guest.power_cut()
    kill(process)
    bench.guest.start()
    assert bench.state() == EEVDF
    code, status = bench.status()
    assert (code, status["discrepancies"]) == (1, ["rebooted"])
    assert bench.promote(bench.good(11))[1]["outcome"] in ("kept", "rolled-back")
    assert "lost" in what(bench.history())


@pytest.mark.slow
@pytest.mark.parametrize("persist", [False, True])
def test_after_a_reboot_only_persist_brings_it_back(bench: Bench, persist: bool) -> None:
    bench.policy(persist=persist)
    bench.run(f"systemctl {'enable' if persist else 'disable'} --quiet testbed-host")
    assert bench.promote(bench.good(12 + persist))[0] == 0
    bench.run("sync; (sleep 1; systemctl reboot) >/dev/null 2>&1 &")
    bench.forget_shell()
    time.sleep(5)
    bench.wait_for(lambda: float(bench.run("cut -d' ' -f1 /proc/uptime")) < 60, "it boots again", 240)
    if persist:
        bench.wait_for(lambda: bench.state() == GOOD, "it is started again")
        assert bench.status()[0] == 0
        assert "resumed" in what(bench.history())
    else:
        assert bench.state() == EEVDF
    bench.run("systemctl disable --quiet testbed-host")


# --- what is wrong with the host --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_refuses_and_still_takes_back(bench: Bench) -> None:
    bench.policy(LONG)
    process = bench.canary(bench.good(14))
    bench.run("fallocate -l 2G /filler; dd if=/dev/zero of=/filler bs=64k conv=notrunc oflag=append 2>/dev/null; df /")
    bench.forget_shell()
    kill(process)
    bench.wait_for(lambda: bench.state() == EEVDF, "the lifeline ends")
    assert bench.history()[-1]["what"] == "rolled-back"
    code, told = bench.promote(bench.good(15))
    assert (code, told["outcome"]) == (3, "failed"), told
    assert bench.state() == EEVDF


@pytest.mark.slow
def test_a_clock_that_jumps_ends_nothing_and_proves_nothing(bench: Bench) -> None:
    bench.policy("6s")
    process = bench.canary(bench.good(16))
    now = datetime.now(UTC)
    bench.run("date -s '+1 hour'")
    told = json.loads(process.communicate(timeout=120)[0])["hosts"][0]
    assert (process.returncode, told["outcome"]) == (0, "kept"), told
    bench.run("testbed-host stop; date -s '+40 days'")
    refused = {one["code"] for one in bench.promote(bench.good(17))[1]["refusals"]}
    assert refused == {"expired"}
    bench.run(f"date -s @{int(now.timestamp())}")
    refused = {one["code"] for one in bench.promote(bench.good(17))[1]["refusals"]}
    assert refused == {"clock-went-back"}
    bench.run("chattr -a /var/lib/testbed/audit.jsonl; rm -f /var/lib/testbed/audit.jsonl")
    assert bench.state() == EEVDF


def test_the_second_promoter_is_told_who_was_first(bench: Bench) -> None:
    bench.policy("8s")
    process = bench.canary(bench.good(18))
    code, told = bench.promote(bench.good(19))
    assert (code, told["outcome"], told["code"]) == (1, "refused", "busy"), told
    assert "promoter" in told["message"]
    assert json.loads(process.communicate(timeout=120)[0])["hosts"][0]["outcome"] == "kept"
    assert bench.state() == GOOD


@pytest.mark.slow
def test_an_interrupted_promoter_has_it_taken_back(bench: Bench) -> None:
    bench.policy(LONG)
    process = bench.canary(bench.good(20))
    process.terminate()
    told = json.loads(process.communicate(timeout=120)[0])["hosts"][0]
    assert (process.returncode, told["outcome"]) == (130, "stopped"), told
    assert bench.state() == EEVDF
    assert what(bench.history())[-1] == "stopped"


# --- what is refused --------------------------------------------------------------------------------------------


def test_what_is_not_meant_for_this_host_is_refused(bench: Bench) -> None:
    fifo = ROOT / "bpf/good/global_fifo.bpf.c"
    other = bench.case(fifo, ("SCX_SLICE_DFL", "SCX_SLICE_DFL + 30"), kernel="6.1.0-9-amd64")
    stranger = Ed25519PrivateKey.generate()
    unknown = bench.case(fifo, ("SCX_SLICE_DFL", "SCX_SLICE_DFL + 31"), key=stranger)
    for case, code in ((other, "other-kernel"), (unknown, "unknown-key")):
        status, told = bench.promote(case)
        assert (status, told["outcome"]) == (1, "refused"), told
        assert [one["code"] for one in told["refusals"]] == [code]
        assert bench.state() == EEVDF
    altered = bench.work / "altered"
    shutil.copytree(bench.good(21), altered)
    (altered / "candidate/candidate.bpf.o").write_bytes((bench.good(22) / "candidate/candidate.bpf.o").read_bytes())
    status, said = bench.testbed("promote", altered, "--host", bench.host())
    assert (status, "is not what was judged" in said["message"]) == (2, True), said


def test_a_host_that_is_not_known_is_not_believed(bench: Bench) -> None:
    line = (bench.work / "known_hosts").read_text()
    try:
        (bench.work / "known_hosts").write_text("")
        code, told = bench.testbed("status", "--host", bench.host())
        answer: dict[str, Any] = told["hosts"][0]
        assert (code, "is not known" in answer["message"]) == (3, True), told
        assert line.strip() in answer["hint"]
        name, kind, _ = line.split()
        other = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
        (bench.work / "known_hosts").write_text(f"{name} {kind} {other}\n")
        code, told = bench.testbed("status", "--host", bench.host())
        assert (code, "another key" in told["hosts"][0]["message"]) == (3, True), told
    finally:
        (bench.work / "known_hosts").write_text(line)


@pytest.mark.slow
def test_without_the_sudo_rules_nothing_is_done(bench: Bench) -> None:
    bench.run("mv /etc/sudoers.d/testbed /root/rules")
    try:
        code, told = bench.promote(bench.good(23))
        assert (code, told["outcome"]) == (3, "failed"), told
        assert "--promoter" in told["hint"]
    finally:
        bench.run("mv /root/rules /etc/sudoers.d/testbed")


# --- many hosts, and the end ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_inventory_stops_at_the_first_that_does_not_keep_it_and_is_resumed(bench: Bench) -> None:
    inventory = bench.work / "inventory.yaml"
    names = [bench.host(), bench.host("root"), bench.host("nobody")]  # one host, in three ways
    inventory.write_text(json.dumps({"schema": "testbed.inventory/1", "kind": "inventory", "hosts": names}))
    code, told = bench.testbed("promote", bench.good(24), "--host", inventory)
    assert (code, [one["outcome"] for one in told["hosts"]]) == (1, ["kept", "refused", "skipped"]), told
    code, told = bench.testbed("promote", bench.good(24), "--host", inventory)
    assert told["hosts"][0]["message"] == "kept earlier, and still runs"


@pytest.mark.slow
def test_removing_leaves_the_log_and_nothing_else(bench: Bench) -> None:
    assert bench.promote(bench.good(25))[0] == 0
    code, told = bench.testbed("host", "remove", bench.host("root"))
    assert code == 0, told
    assert bench.state() == EEVDF
    left = bench.run("find /usr/local /etc/systemd /etc/sudoers.d /etc/testbed -name '*testbed*' 2>/dev/null")
    assert left == ""
    assert "audit.jsonl" in bench.run("ls /var/lib/testbed")


@pytest.mark.slow
def test_from_a_source_to_a_host_with_nothing_but_the_commands(bench: Bench) -> None:
    """What the tests above take for granted: the verdict is a real one, made again before it was signed."""
    case, config = bench.work / "whole", bench.work / "config"
    words = ["run", "bpf/good/global_fifo.bpf.c", "--policy", "quick", "--clock", "sim", "--out", str(case)]
    for verb in (words, ["attest", str(case)]):
        done = subprocess.run(
            [*COMMAND, *verb],
            capture_output=True,
            cwd=ROOT,
            env=environment() | {"XDG_CONFIG_HOME": str(config)},
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
    lab = bench.work / "lab.yaml"
    lab.write_text((ROOT / "policies/promotion/lab.yaml").read_text().replace("duration: 60s", "duration: 3s"))
    admin = ["host", "install", bench.host("root"), "--promoter", "promoter"]
    key = config / "testbed/attest.pub"
    assert bench.testbed(*admin, "--trust", key, "--policy", lab)[0] == 0
    try:
        code, told = bench.promote(case)
        assert (code, told["outcome"]) == (0, "kept"), told
        assert bench.state() == GOOD
        assert bench.status()[1]["record"]["case"] == json.loads((case / "verdict.json").read_text())["id"]
    finally:
        bench.clear()
        key = bench.work / "attest.pub"
        assert bench.testbed(*admin, "--trust", key, "--policy", bench.policy_file())[0] == 0
