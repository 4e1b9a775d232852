# SPDX-License-Identifier: Apache-2.0
"""Debian packages: the machine's mirror, apt's options, and the lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.errors import HostError
from testbed.image import debian
from testbed.image.debian import Mirror, apt_options, apt_sources, compare, find_mirror, mmdebstrap_command, stanzas
from testbed.image.model import Package, Packages, SourceFile, SourcePackage
from testbed.image.recipe import Sources

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main contrib
"""
ONE_LINE = """\
deb [arch=amd64 signed-by=/etc/key.gpg] https://vendor.example/debian/12/prod bookworm main
deb http://mirror.example/debian bookworm main contrib # comment
deb http://mirror.example/debian bookworm-updates main
deb-src http://mirror.example/debian bookworm main
#deb http://other.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb http://mirror.example/debian-security bookworm-security main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def _release(apt: Path, name: str) -> Path:
    (apt / "os-release").write_text(f'NAME="x"\nID={name}\nID_LIKE=debian\n')
    return apt / "os-release"


@pytest.fixture
def keyring(tmp_path: Path) -> str:
    (tmp_path / "keyring.gpg").write_bytes(b"")
    return str(tmp_path / "keyring.gpg")


@pytest.mark.parametrize(("file", "text"), [("sources.list.d/debian.sources", DEB822), ("sources.list", ONE_LINE)])
def test_the_machines_own_debian_mirror_is_used(apt: Path, keyring: str, file: str, text: str) -> None:
    (apt / file).write_text(text)
    mirror = find_mirror({"TESTBED_KEYRING": keyring}, apt, _release(apt, "debian"))
    assert mirror.main == "http://mirror.example/debian"
    assert mirror.security == "http://mirror.example/debian-security"
    assert mirror.sources("trixie") == [
        f"deb [signed-by={keyring}] http://mirror.example/debian trixie main",
        f"deb [signed-by={keyring}] http://mirror.example/debian trixie-updates main",
        f"deb [signed-by={keyring}] http://mirror.example/debian trixie-backports main",
        f"deb [signed-by={keyring}] http://mirror.example/debian-security trixie-security main",
    ]


def test_another_distributions_mirror_is_not_used(apt: Path, keyring: str) -> None:
    (apt / "sources.list").write_text(
        "deb http://mirror.example/ubuntu noble main\ndeb http://m/ubuntu noble-updates main"
    )
    mirror = find_mirror({"TESTBED_KEYRING": keyring}, apt, _release(apt, "ubuntu"))
    assert mirror.main is None
    assert mirror.sources("trixie") == []


def test_the_mirror_can_be_given(apt: Path, keyring: str) -> None:
    (apt / "sources.list").write_text(ONE_LINE)
    environment = {"TESTBED_KEYRING": keyring, "TESTBED_MIRROR": "http://given.example/debian/"}
    mirror = find_mirror(environment, apt, _release(apt, "debian"))
    assert (mirror.main, mirror.security) == ("http://given.example/debian", "http://given.example/debian-security")
    environment["TESTBED_SECURITY_MIRROR"] = "http://security.example/x"
    assert find_mirror(environment, apt, _release(apt, "debian")).security == "http://security.example/x"


def test_missing_archive_keys_are_an_error_with_its_cure(apt: Path) -> None:
    with pytest.raises(HostError) as caught:
        find_mirror({"TESTBED_KEYRING": str(apt / "none.gpg")}, apt, _release(apt, "debian"))
    assert caught.value.hint == "apt-get install debian-archive-keyring"


def test_disabled_and_foreign_sources_are_left_out(apt: Path) -> None:
    (apt / "sources.list.d/a.sources").write_text(DEB822.replace("Types: deb\n", "Types: deb\nEnabled: no\n"))
    (apt / "sources.list.d/b.list").write_text("deb [trusted=yes] https://x.example/repo stable extra\n")
    assert list(apt_sources(apt)) == [("http://mirror.example/debian-security", "bookworm-security")]


def test_the_options_of_a_frozen_mirror_and_a_proxy_are_carried_over(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("")
    dump = (
        'APT::Architecture "amd64";\nAcquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\nDPkg::Post-Invoke:: "rm -rf /";\n'
    )
    assert list(apt_options({"SSL_CERT_FILE": str(bundle)}, dump)) == [
        'Acquire::Check-Valid-Until "false"',
        'Acquire::http::Proxy "http://proxy.example:3128"',
        f'Acquire::https::CaInfo "{bundle}"',
    ]


def test_the_machines_own_ca_bundle_wins(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("")
    dump = 'Acquire::https::CaInfo "/etc/own.crt";\n'
    assert list(apt_options({"SSL_CERT_FILE": str(bundle)}, dump)) == ['Acquire::https::CaInfo "/etc/own.crt"']


def test_missing_mmdebstrap_is_an_error_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        debian.check_host()
    assert caught.value.message == "mmdebstrap is not installed"
    assert "apt-get install mmdebstrap" in caught.value.hint


def test_an_ordinary_user_without_newuidmap_gets_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mmdebstrap").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError) as caught:
        debian.check_host()
    assert caught.value.hint == "apt-get install uidmap"


def test_the_command_names_no_host_of_its_own() -> None:
    recipe = Sources.load().recipe
    command = mmdebstrap_command(
        recipe.debian.suite, recipe.builder.install, Mirror(keyring=Path("/k.gpg")), Path("/scripts")
    )
    assert "--keyring=/k.gpg" in command
    assert command[-2:] == ["trixie", "-"]
    assert not any("http" in word for word in command)


def _packages(**versions: str) -> Packages:
    return Packages(
        recipe="debian-13",
        kernel="7.3",
        installed=tuple(
            Package(name=name, version=version, architecture="amd64", sha256=f"{name}-{version}")
            for name, version in versions.items()
        ),
        downloaded=(),
        sources=(SourcePackage(name="qemu", version="1", files=(SourceFile(name="a", sha256="b"),)),),
    )


def test_equal_packages_have_not_drifted() -> None:
    assert compare(_packages(gcc="1", make="2"), _packages(gcc="1", make="2")) == []


def test_drift_names_each_package() -> None:
    drift = compare(_packages(gcc="2", new="1"), _packages(gcc="1", old="1"))
    assert [str(item) for item in drift] == [
        "gcc 2 (locked: 1)",
        "new 1 (locked: none)",
        "old is missing (locked: 1)",
    ]


def test_the_same_version_with_other_bytes_is_an_error() -> None:
    lock = _packages(gcc="1")
    other = lock.model_copy(update={"installed": (lock.installed[0].model_copy(update={"sha256": "evil"}),)})
    with pytest.raises(HostError, match="`gcc` 1 has other bytes than the lock file says"):
        compare(other, lock)


def test_locked_versions_are_pinned_above_backports() -> None:
    recipe = Sources.load().recipe
    text = debian.preferences(recipe.debian, _packages(gcc="1:2-3"))
    assert "Package: bpftool\nPin: release n=trixie-backports\nPin-Priority: 990\n" in text
    assert text.endswith("Package: gcc\nPin: version 1:2-3\nPin-Priority: 1001\n")


def test_the_kernel_and_the_source_of_the_lock_are_asked_for_first() -> None:
    recipe = Sources.load().recipe
    lines = debian.wanted(recipe, _packages()).splitlines()
    assert "kernel 7.3" in lines
    assert "source qemu 1" in lines
    assert "option CONFIG_SCHED_CLASS_EXT=y" in lines
    assert "source qemu" in debian.wanted(recipe, None).splitlines()


def test_control_data_has_continuation_lines() -> None:
    text = "Package: a\nDescription: b\n more\n .\n\n\nPackage: c\n"
    assert list(stanzas(text)) == [{"package": "a", "description": "b\nmore\n."}, {"package": "c"}]
