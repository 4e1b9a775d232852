# SPDX-License-Identifier: Apache-2.0
"""The probe of the live clock: only a guest that ran proves KVM, and the answer is remembered as long as it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.case import Ended, GuestOutcome
from testbed.errors import HostError
from testbed.image import Image
from testbed.vm import probe
from testbed.vm.live import Accelerator
from tests.unit.live_bench import fake_image


def _outcome(ended: Ended, reason: str = "") -> GuestOutcome:
    return GuestOutcome(accelerator="kvm", qemu="10.0.13", ended=ended, reason=reason)


class Boots:
    """Stands in for `boot_once`: counts, and ends as it is told."""

    def __init__(self, outcome: GuestOutcome) -> None:
        self.outcome = outcome
        self.count = 0

    def __call__(self, *_: object) -> GuestOutcome:
        self.count += 1
        return self.outcome


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "device_refuses", lambda: "")
    return fake_image(tmp_path / "image")


def test_a_guest_that_did_its_job_proves_kvm(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "boot_once", Boots(_outcome(Ended.FINISHED)))
    said = probe.probe(image)
    assert (said.available, said.accelerator, said.reason) == (True, "kvm", "a guest ran under KVM")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            _outcome(Ended.QEMU_DIED, "QEMU was ended by SIGABRT; error: failed to set MSR 0x10a"),
            "QEMU ends: QEMU was ended by SIGABRT; error: failed to set MSR 0x10a",
        ),
        (
            _outcome(Ended.PAUSED, "QEMU says: internal-error"),
            "QEMU stops the guest (a nested host that lacks what the kernel needs): QEMU says: internal-error",
        ),
        (_outcome(Ended.PANIC), "the kernel panics"),
        (_outcome(Ended.POWEROFF), "the guest ends before its job does"),
        (_outcome(Ended.NEVER_CONNECTED, "silence"), "nothing comes of the guest in 20 s: silence"),
        (_outcome(Ended.WALL_LIMIT), "nothing comes of the guest in 20 s"),
    ],
)
def test_kvm_that_opens_and_does_not_work_means_emulation(
    image: Image, monkeypatch: pytest.MonkeyPatch, outcome: GuestOutcome, words: str
) -> None:
    monkeypatch.setattr(probe, "boot_once", Boots(outcome))
    said = probe.probe(image)
    assert (said.available, said.accelerator) == (True, "tcg-single")
    assert said.reason == f"emulation, because /dev/kvm opens, but with it {words}"


def test_the_answer_is_remembered_until_the_machine_starts_again(
    image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boots = Boots(_outcome(Ended.FINISHED))
    monkeypatch.setattr(probe, "boot_once", boots)
    assert probe.probe(image) == probe.probe(image)
    assert boots.count == 1
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another\n")
    monkeypatch.setattr(probe, "BOOT_ID", boot_id)
    probe.probe(image)
    assert boots.count == 2
    assert len(list((tmp_path / "cache/live").iterdir())) == 1


def test_a_damaged_memory_is_made_anew(image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boots = Boots(_outcome(Ended.FINISHED))
    monkeypatch.setattr(probe, "boot_once", boots)
    probe.probe(image)
    (place,) = (tmp_path / "cache/live").iterdir()
    place.write_text('{"key": "1", "works": tr')
    assert probe.probe(image).accelerator == "kvm"
    assert boots.count == 2


def test_a_cache_that_cant_be_written_only_costs_time(
    image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(probe, "boot_once", Boots(_outcome(Ended.PANIC)))
    assert probe.probe(image).accelerator == "tcg-single"


def test_without_the_device_nothing_is_booted(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    boots = Boots(_outcome(Ended.FINISHED))
    monkeypatch.setattr(probe, "boot_once", boots)
    monkeypatch.setattr(probe, "device_refuses", lambda: "there is no /dev/kvm")
    said = probe.probe(image)
    assert (said.accelerator, said.reason) == ("tcg-single", "emulation, because there is no /dev/kvm")
    assert boots.count == 0


def test_without_virtme_ng_there_is_no_live_clock(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise HostError("virtme-ng is not installed beside the testbed", hint="pip install it")

    monkeypatch.setattr(probe, "packages", missing)
    said = probe.probe(image)
    assert (said.available, said.accelerator) == (False, None)
    assert said.reason == "virtme-ng is not installed beside the testbed; pip install it"


def test_a_missing_device_is_named(tmp_path: Path) -> None:
    assert probe.device_refuses(tmp_path / "kvm") == f"there is no {tmp_path / 'kvm'}"


def test_a_device_that_cant_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "kvm").mkdir()
    assert probe.device_refuses(tmp_path / "kvm") == f"{tmp_path / 'kvm'} can't be opened: is a directory"


def test_the_guests_accelerator_is_the_one_that_was_found(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.vm import live

    monkeypatch.setattr(probe, "boot_once", Boots(_outcome(Ended.FINISHED)))
    assert live.probed(image) is Accelerator.KVM
