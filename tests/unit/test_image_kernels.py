# SPDX-License-Identifier: Apache-2.0
"""Packaged kernels beside the image's: which is taken, what is said where there is none, how it is found again."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from testbed import image as images
from testbed.data import data_directory
from testbed.errors import HostError, UsageError
from testbed.image import Image, kernels
from testbed.image.builder import Builder
from testbed.image.events import Stage
from testbed.image.model import Derived
from testbed.image.recipe import Sources
from tests.unit.kernel_maker import put
from tests.unit.live_bench import fake_image

SCRIPT = data_directory("vm_images") / "kernels" / "packages.sh"
RELEASE = "6.17.13+deb13-cloud-amd64"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What mmdebstrap's root would hold; tests change it."""
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "probe", lambda: None)
    left = {"kernel": f"{RELEASE} 6.17.13-1\n", "refused": "", "package": "bytes", "asked": ""}

    def make_root(
        self: Builder, suite: str, install: object, hooks: dict[str, str], out: Path, scratch: Path, stage: Stage
    ) -> None:
        left["asked"] = hooks["wanted"]
        (out / "builder").mkdir()
        place = out / "testbed"
        put(place / "debs/linux-image.deb", "bytes")
        if left["kernel"]:
            put(place / "kernel", left["kernel"])
        put(place / "refused", left["refused"])
        put(place / "metadata/downloaded", "linux-image=6.17.13-1\n")
        digest = hashlib.sha256(left["package"].encode()).hexdigest()
        fields = f"Package: linux-image\nVersion: 6.17.13-1\nArchitecture: amd64\nSHA256: {digest}\n"
        put(place / "metadata/downloaded.packages", fields)

    def unpack(root: Path, packages: list[Path], out: Path) -> None:
        put(out / "boot" / f"vmlinuz-{RELEASE}", packages[0].read_bytes())
        put(out / "usr/share/doc/copyright", "")

    monkeypatch.setattr(Builder, "make_root", make_root)
    monkeypatch.setattr(kernels, "unpack_packages", unpack)
    return left


def quiet(event: object) -> None:
    """Nobody listens."""


def test_a_fetched_kernel_is_found_by_its_version_or_how_it_begins(archive: dict[str, str]) -> None:
    made = kernels.fetch("6.17", quiet)
    assert (made.facts.release, made.facts.version, made.facts.word) == (RELEASE, "6.17.13-1", "debian:6.17")
    assert archive["asked"].splitlines()[-1] == "version 6.17"
    assert (made.tree / "boot" / f"vmlinuz-{RELEASE}").read_text() == "bytes"
    assert not (made.tree / "usr/share").exists()
    assert "linux-image 6.17.13-1" in made.origin
    for word in ("6.17", "6.17.13", "6.17.13+deb13", RELEASE):
        assert kernels.find(word).path == made.path
    for word in ("6.1", "6.17.1", "7.2"):
        with pytest.raises(UsageError, match=f"no packaged kernel `{word}` is here; there are `debian:6.17.13"):
            kernels.find(word)
    assert [one.path for one in kernels.kept()] == [kernels.fetch("6.17", quiet).path]


def test_without_a_version_it_is_a_sound_one_of_another_series_than_the_image_has(
    archive: dict[str, str], tmp_path: Path
) -> None:
    lock = Sources.load().lock
    assert lock is not None
    own = kernels.series(lock.kernel)
    asked: list[str] = []
    manifest = fake_image(tmp_path / "image").manifest

    def image(word: str) -> Image:
        asked.append(word)
        derived = Derived(base="b", origin="o", btf_sha256="", modules={}, config=True)
        if len(asked) == 1:
            derived = derived.model_copy(update={"uncallable": ("scx_bpf_create_dsq",)})
            archive["kernel"] = "6.16.1-cloud-amd64 1-1\n"
        return Image(tmp_path / "image", manifest.model_copy(update={"derived": derived}))

    made = kernels.fetch_other(quiet, image)
    assert asked == [f"debian:{RELEASE}", "debian:6.16.1-cloud-amd64"]
    assert made.facts.release == "6.16.1-cloud-amd64"
    assert archive["asked"].splitlines()[-2:] == [f"other {own}", "other 6.17"]
    assert [one.path for one in kernels.kept()] == [made.path], "a kernel that is built wrongly is not kept"


def test_the_newest_of_a_series_is_meant(archive: dict[str, str]) -> None:
    for release in ("6.17.9+deb13-cloud-amd64", RELEASE, "6.9.1-cloud-amd64"):
        archive["kernel"] = f"{release} 1-1\n"
        kernels.fetch("6.17", quiet)
    assert kernels.find("6.17").facts.release == RELEASE
    assert [one.facts.word for one in kernels.kept()] == ["debian:6.17", "debian:6.17", "debian:6.9"]


def test_a_kernel_without_sched_ext_is_named_with_what_it_lacks(archive: dict[str, str]) -> None:
    archive |= {"kernel": "", "refused": "6.12.118+deb13 CONFIG_SCHED_CLASS_EXT=y \n"}
    with pytest.raises(UsageError, match=r"6\.12\.118\+deb13 can't be used: .* lacks CONFIG_SCHED_CLASS_EXT=y"):
        kernels.fetch("6.12", quiet)
    archive["refused"] = ""
    with pytest.raises(UsageError, match=r"has no linux 9\.9 of flavour `cloud`"):
        kernels.fetch("9.9", quiet)
    assert kernels.kept() == []


def test_a_package_that_is_not_the_one_of_the_index_is_refused(archive: dict[str, str]) -> None:
    archive["package"] = "others"
    with pytest.raises(HostError, match=r"package `linux-image` 6\.17\.13-1 is damaged"):
        kernels.fetch("6.17", quiet)
    assert kernels.kept() == []


@pytest.mark.parametrize("word", ["", "$(reboot)", "../..", "6.17;x", "cloud", "6.17\nversion 1"])
def test_what_is_no_version_reaches_no_script(archive: dict[str, str], word: str) -> None:
    with pytest.raises(UsageError, match="is no version of a kernel"):
        kernels.find(word)
    with pytest.raises(UsageError, match="is no version of a kernel"):
        kernels.fetch(word, quiet)
    assert archive["asked"] == ""


def test_only_prune_everything_removes_fetched_kernels(archive: dict[str, str]) -> None:
    kernels.fetch("6.17", quiet)
    images.prune()
    assert len(kernels.kept()) == 1
    images.prune(everything=True)
    assert kernels.kept() == []


def test_the_recipe_of_kernels_is_no_part_of_an_image() -> None:
    assert not [name for name in Sources.load().files() if name.startswith("kernels/")]


# --- packages.sh, beside an apt of ours ----------------------------------------------------------------------------

#: Names that apt knows, and whether there is a package (`y`), one without sched_ext (`n`), an empty one (`e`), or none.
NAMES = {
    "linux-base-7.3.4+deb13-cloud-amd64": "y",
    "linux-base-7.2.9+deb13-cloud-amd64": "y",
    "linux-base-7.2.12+deb13-cloud-amd64": "y",
    "linux-base-7.2.99+deb13-amd64": "y",
    "linux-image-7.2.12+deb13-cloud-amd64": "y",
    "linux-image-6.19.1+deb13-cloud-amd64": "",
    "linux-image-7.1.13+deb13-cloud-amd64": "e",
    "linux-image-6.17.13+deb13-cloud-amd64": "y",
    "linux-image-6.12.118+deb13-cloud-amd64": "n",
    "linux-image-6.12.99+deb13-cloud-amd64": "n",
    "linux-image-6.12.118+deb13-cloud-amd64-dbg": "y",
}
APT_GET = """#!/bin/sh
for name; do
    name=${name%%=*}
    case $name in
        linux-binary-* | linux-modules-*) ;;
        linux-*) grep -qx "$name" THERE || exit 100 ;;
        *) continue ;;
    esac
    echo "$name" > "${name}_1-1_amd64.deb"
done
"""
DPKG_DEB = """#!/bin/sh
case $1 in
    -f) echo 1-1 ;;
    -W) echo package=1-1 ;;
    *)
        folder=$(mktemp -d)
        mkdir -p "$folder/usr/lib/modules/r"
        grep -qxf "$2" LACKING || echo CONFIG_SCHED_CLASS_EXT=y > "$folder/usr/lib/modules/r/config"
        grep -qxf "$2" LACKING && echo "# none" > "$folder/usr/lib/modules/r/config"
        if grep -qxf "$2" EMPTY; then rm -f "$folder/usr/lib/modules/r/config"; fi
        tar -C "$folder" -c .
        rm -r "$folder"
        ;;
esac
"""


@pytest.mark.parametrize(
    ("wanted", "taken", "kernel", "refused"),
    [
        ("other 7.3", ["base", "binary", "modules"], "7.2.12+deb13-cloud-amd64 1-1", ""),
        ("other 7.3\nother 7.2", ["image"], "6.17.13+deb13-cloud-amd64 1-1", ""),
        ("other 7.2", ["base", "binary", "modules"], "7.3.4+deb13-cloud-amd64 1-1", ""),
        ("version 7.2.9", ["base", "binary", "modules"], "7.2.9+deb13-cloud-amd64 1-1", ""),
        ("version 6.17", ["image"], "6.17.13+deb13-cloud-amd64 1-1", ""),
        ("version 6.1", [], None, ""),
        ("version 6.19", [], None, ""),
        ("version 7.1", [], None, ""),
        ("version 6.12", [], None, "6.12.118+deb13 CONFIG_SCHED_CLASS_EXT=y"),
    ],
)
def test_the_newest_kernel_with_the_options_is_downloaded(
    tmp_path: Path, wanted: str, taken: list[str], kernel: str | None, refused: str
) -> None:
    tools, root = tmp_path / "bin", tmp_path / "root"
    lists = {"names": NAMES, "there": [name for name, has in NAMES.items() if has]}
    lists["empty"] = [name for name, has in NAMES.items() if has == "e"]
    lists["lacking"] = [name for name, has in NAMES.items() if has == "n"]
    places = {name: put(tmp_path / name, "".join(f"{line}\n" for line in lines)) for name, lines in lists.items()}
    put(tools / "dpkg", "#!/bin/sh\necho amd64\n")
    put(tools / "apt-cache", f'#!/bin/sh\n[ "$1" != pkgnames ] || grep "^$2" {places["names"]} || :\n')
    put(tools / "apt-get", APT_GET.replace("THERE", str(places["there"])))
    put(tools / "dpkg-deb", DPKG_DEB.replace("LACKING", str(places["lacking"])).replace("EMPTY", str(places["empty"])))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    root.mkdir()
    put(tmp_path / "wanted", f"flavour cloud\noption CONFIG_SCHED_CLASS_EXT=y\n{wanted}\n")
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "MMDEBSTRAP_APT_CONFIG": "/dev/null"}
    subprocess.run(["sh", SCRIPT, root, tmp_path / "wanted"], check=True, env=environment, timeout=60)
    found = root / "testbed/kernel"
    assert (found.read_text().strip() if found.exists() else None) == kernel
    assert sorted(path.name.split("-")[1] for path in (root / "testbed/debs").iterdir()) == taken
    assert (root / "testbed/refused").read_text().strip() == refused
