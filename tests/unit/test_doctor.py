# SPDX-License-Identifier: Apache-2.0
"""The doctor: what is missing is named, with the command that mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import doctor
from testbed.case import Ended, GuestOutcome
from testbed.doctor import Check, Status
from testbed.errors import HostError
from testbed.vm import probe
from tests.unit.live_bench import fake_image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))


def _nothing_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def _outcome(ended: Ended, reason: str = "") -> GuestOutcome:
    return GuestOutcome(accelerator="tcg-single", qemu="10.0.13", ended=ended, reason=reason)


def test_a_check_is_json() -> None:
    check = Check("python", Status.OK, "3.12", "3.11 or newer")
    assert json.loads(json.dumps(check.as_dict())) == {
        "name": "python", "status": "ok", "found": "3.12", "expected": "3.11 or newer", "cure": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("check", "status", "found", "cure"),
    [
        (doctor.python_check((3, 11, 2)), Status.OK, "3.11.2", ""),
        (doctor.python_check((3, 9, 18)), Status.FAIL, "3.9.18", "make setup PYTHON=python3.11"),
        (doctor.architecture_check("x86_64", "Linux"), Status.OK, "Linux x86_64", ""),
        (
            doctor.architecture_check("aarch64", "Linux"),
            Status.FAIL,
            "Linux aarch64",
            "use another machine; there are no images for this one",
        ),
        (doctor.virtme_ng_check("1.42"), Status.OK, "1.42", ""),
        (doctor.memory_check(4 << 30, 2), Status.OK, "4096 MiB available", ""),
        (doctor.memory_check(1 << 30, 2), Status.WARN, "1024 MiB available", "testbed run -j 1 …"),
        (
            doctor.memory_check(512 << 20, 2),
            Status.FAIL,
            "512 MiB available",
            "end other programs, or use a larger machine",
        ),
    ],
)
def test_checks_of_the_machine(check: Check, status: Status, found: str, cure: str) -> None:
    assert (check.status, check.found, check.cure) == (status, found, cure)


@pytest.mark.parametrize("version", ["1.41", "2.0", "0.9.1"])
def test_another_virtme_ng_is_a_warning_with_the_command(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _nothing_on_path(monkeypatch)
    check = doctor.virtme_ng_check(version)
    assert (check.status, check.found, check.cure) == (Status.WARN, version, "pip install 'virtme-ng>=1.42,<2'")


def test_a_failing_bubblewrap_brings_its_own_cure() -> None:
    def refuse() -> None:
        raise HostError("bubblewrap (`bwrap`) is not installed", hint="apt-get install bubblewrap")

    check = doctor.bubblewrap_check(refuse)
    assert (check.status, check.cure) == (Status.FAIL, "apt-get install bubblewrap")


def test_ubuntus_apparmor_matters_only_where_bubblewrap_fails() -> None:
    assert doctor.apparmor_check(True, "").status is Status.OK
    assert doctor.apparmor_check(False, "0").status is Status.OK
    assert doctor.apparmor_check(True, "1").status is Status.OK


def test_ubuntus_apparmor_is_cured_by_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    check = doctor.apparmor_check(False, "1")
    assert check.status is Status.FAIL
    assert "/etc/apparmor.d/bwrap" in check.cure
    assert "apparmor_parser -r" in check.cure


def test_mmdebstrap_is_needed_only_by_whoever_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    _nothing_on_path(monkeypatch)
    assert doctor.mmdebstrap_check(True).status is Status.WARN
    check = doctor.mmdebstrap_check(False)
    assert (check.status, check.cure) == (
        Status.FAIL,
        "apt-get install mmdebstrap, or `testbed image import FILE`",
    )


def test_a_cache_that_cant_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    check = doctor.cache_check(has_image=True)
    assert check.status is Status.FAIL
    assert check.found == f"`{tmp_path / 'cache'}`: file exists"
    assert check.cure.startswith("set TESTBED_CACHE to a directory on another disk")


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    check = doctor.cache_check(has_image=True)
    assert check.status is Status.FAIL
    assert check.found.endswith(", 5 MiB free")
    assert check.expected == "writable, 1024 MiB free"


def test_a_missing_image_is_built_by_one_command() -> None:
    check = doctor.image_check(None)
    assert (check.status, check.cure) == (Status.WARN, "testbed image build")


def test_a_damaged_image_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_: object) -> None:
        raise HostError("image 111111111111 is damaged: `vmlinuz` is not what it was", hint="remove it")

    monkeypatch.setattr("testbed.image.verify", damaged)
    image = fake_image(tmp_path / "image")
    assert doctor.image_check(image).status is Status.OK
    check = doctor.image_check(image, thorough=True)
    assert (check.status, check.cure) == (Status.FAIL, "remove it")


@pytest.mark.parametrize(
    ("outcome", "status", "found"),
    [
        (_outcome(Ended.FINISHED), Status.OK, "a guest booted (tcg-single)"),
        (_outcome(Ended.PANIC), Status.FAIL, "the guest ended as `panic`"),
        (
            _outcome(Ended.WALL_LIMIT, "more than 60 s of host time"),
            Status.FAIL,
            "the guest ended as `wall_limit`: more than 60 s of host time",
        ),
    ],
)
def test_a_probe_boot_says_how_the_guest_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: GuestOutcome, status: Status, found: str
) -> None:
    monkeypatch.setattr(probe, "device_refuses", lambda: "there is no /dev/kvm")
    monkeypatch.setattr(probe, "boot_once", lambda *_: outcome)
    check = doctor.live_check(fake_image(tmp_path / "image"))
    assert (check.status, check.found) == (status, found)


def test_a_guest_that_cant_be_started_brings_the_hosts_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> GuestOutcome:
        raise HostError("found 1 MiB free for a run's evidence", hint="free some space")

    monkeypatch.setattr(probe, "boot_once", refuse)
    check = doctor.sim_check(fake_image(tmp_path / "image"))
    assert (check.status, check.found, check.cure) == (
        Status.FAIL,
        "found 1 MiB free for a run's evidence",
        "free some space",
    )


@pytest.mark.parametrize(
    ("refused", "cure"),
    [
        ("/dev/kvm can't be opened: permission denied", "usermod -aG kvm $USER, and log in again"),
        ("there is no /dev/kvm", "turn on (nested) virtualisation, if there is any"),
    ],
)
def test_kvm_that_is_not_there_is_only_a_warning(monkeypatch: pytest.MonkeyPatch, refused: str, cure: str) -> None:
    monkeypatch.setattr(probe, "device_refuses", lambda: refused)
    check = doctor.kvm_check(None)
    assert (check.status, check.found, check.cure) == (Status.WARN, refused, cure)


def test_kvm_that_opens_proves_nothing_without_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "device_refuses", lambda: "")
    assert doctor.kvm_check(None).found == "opens; whether it works only a probe boot tells"
    good: Callable[[], probe.Remembered] = lambda: probe.Remembered(key="", works=True, reason="a guest ran")  # noqa: E731
    assert doctor.kvm_check(good).status is Status.OK
    bad = probe.Remembered(key="", works=False, reason="/dev/kvm opens, but with it QEMU ends")
    check = doctor.kvm_check(lambda: bad)
    assert (check.status, check.found) == (Status.WARN, bad.reason)


def test_everything_is_looked_at_without_an_image_or_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "device_refuses", lambda: "there is no /dev/kvm")
    assert doctor.current_image() is None
    names = [check.name for check in doctor.checks(None, probe_boots=True)]
    assert names == [
        "python", "machine", "bubblewrap", "apparmor", "mmdebstrap", "cache", "memory", "virtme-ng", "image", "kvm",
        "schbench",
    ]  # fmt: skip


def test_guests_are_booted_where_there_is_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.image.verify", lambda _: None)
    monkeypatch.setattr(probe, "device_refuses", lambda: "")
    monkeypatch.setattr(probe, "boot_once", lambda *_: _outcome(Ended.FINISHED))
    monkeypatch.setattr(doctor, "bubblewrap_check", lambda: Check("bubblewrap", Status.OK, "works", ""))
    monkeypatch.setattr(doctor, "ROOM_TO_RUN", 0)
    monkeypatch.setattr(doctor, "GUEST_MEMORY", 1)
    found = {check.name: check for check in doctor.checks(fake_image(tmp_path / "image"), probe_boots=True)}
    assert {found[name].status for name in ("image", "sim", "kvm", "live")} == {Status.OK}
    assert found["live"].found == "a guest booted (kvm)"
