# SPDX-License-Identifier: Apache-2.0
"""Schedulers of the crates registry: pinned, fetched with a network and built without one, found by name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from testbed import image as images
from testbed.candidate import read_candidate
from testbed.data import data_directory
from testbed.errors import HostError
from testbed.image import extra, schedulers
from testbed.image.builder import Builder
from testbed.image.events import Stage
from testbed.image.recipe import Sources
from testbed.image.schedulers import directory, load_recipe, road
from testbed.sandbox import Sandbox

FOLDER = data_directory("vm_images") / "schedulers"
PROGRAM = Path("/usr/bin/true")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(extra, "probe", lambda: None)
    return tmp_path / "cache"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sandbox]]:
    """The stages' commands, which are not run: what they would leave is made."""
    seen: list[tuple[str, Sandbox]] = []
    libraries = [library.path for library in read_candidate([str(PROGRAM)]).libraries]

    def make_root(
        self: Builder, suite: str, install: object, hooks: object, out: Path, scratch: Path, stage: Stage
    ) -> None:
        place = out / "builder/usr/lib/x86_64-linux-gnu"
        place.mkdir(parents=True)
        (out / "builder/etc").mkdir()
        (out / "builder/lib64").symlink_to("usr/lib/x86_64-linux-gnu")
        for library in libraries:
            shutil.copy(library, place)
        (out / "testbed/metadata").mkdir(parents=True)
        (out / "testbed/installed").write_text("cargo=1.96\n")
        fields = "Package: cargo\nVersion: 1.96\nArchitecture: amd64\nSHA256: c0ffee\n"
        (out / "testbed/metadata/installed.packages").write_text(fields)

    def run(sandbox: Sandbox, argv: list[str], stage: Stage) -> None:
        seen.append((argv[1], sandbox))
        out = next(bind.source for bind in sandbox.writable if bind.target == "/out")
        for crate in load_recipe().crates:
            if argv[1].endswith("fetch.sh"):
                (out / f"src/{crate.name}-{crate.version}").mkdir(parents=True)
                (out / f"src/{crate.name}-{crate.version}/Cargo.lock").write_text(crate.name)
            else:
                (out / "bin").mkdir(exist_ok=True)
                shutil.copy(PROGRAM, out / "bin" / crate.name)

    monkeypatch.setattr(Builder, "make_root", make_root)
    monkeypatch.setattr(Builder, "run", staticmethod(run))
    return seen


def test_the_recipe_pins_every_crate_and_names_no_host() -> None:
    recipe = load_recipe()
    assert {crate.name for crate in recipe.crates} == {"scx_bpfland", "scx_lavd"}
    assert {"cargo", "rustc"} <= set(recipe.debian.backports) & set(recipe.builder.install)
    for file in FOLDER.iterdir():
        text = file.read_text()
        assert not re.search(r"https?://|\.(io|org|com)\b", text), file.name


def test_they_are_no_part_of_an_image(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_directory("vm_images"), tmp_path / "vm_images"))
    before, key = Sources.load(copy).key(), schedulers._key(copy)
    (copy / "schedulers/build.sh").write_text("other")
    assert Sources.load(copy).key() == before
    assert schedulers._key(copy) != key


def test_they_are_built_once_and_found_by_name(cache: Path, ran: list[tuple[str, Sandbox]]) -> None:
    assert directory() is None
    assert not cache.exists()
    made = schedulers.build(lambda event: None)
    assert directory() == made.path
    assert [name for name, _ in ran] == ["/work/fetch.sh", "/work/build.sh"]
    assert [sandbox.network for _, sandbox in ran] == [True, False]
    program = made.facts.programs["scx_lavd"]
    assert program.crate in load_recipe().crates
    assert program.libraries.keys() == {path.name for path in (made.path / "lib").iterdir()}
    assert [package.name for package in made.facts.packages] == ["cargo"]
    assert schedulers.build(lambda event: None) == made
    assert len(ran) == 2
    found = read_candidate(["scx_lavd", "--performance"], schedulers=directory(), environ={"PATH": "/nowhere"})
    assert (found.name, found.content_sha256, found.options) == ("scx_lavd", program.sha256, ("--performance",))
    assert {library.soname: library.sha256 for library in found.libraries} == program.libraries
    assert all(library.path.is_relative_to(made.path) for library in found.libraries)


def test_one_on_path_comes_before_them(cache: Path, ran: list[tuple[str, Sandbox]], tmp_path: Path) -> None:
    made = schedulers.build(lambda event: None)
    (tmp_path / "bin").mkdir()
    own = shutil.copy(PROGRAM, tmp_path / "bin/scx_lavd")
    found = read_candidate(["scx_lavd"], schedulers=made.path, environ={"PATH": str(tmp_path / "bin")})
    assert found.path == Path(own)


def test_prune_keeps_what_a_run_would_use(cache: Path, ran: list[tuple[str, Sandbox]]) -> None:
    made = schedulers.build(lambda event: None)
    (cache / "schedulers/older").mkdir()
    images.prune()
    assert list((cache / "schedulers").iterdir()) == [made.path]
    images.prune(everything=True)
    assert directory() is None


def test_a_fetch_that_fails_leaves_nothing_and_names_the_cure(
    cache: Path, ran: list[tuple[str, Sandbox]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(sandbox: Sandbox, argv: list[str], stage: Stage) -> None:
        stage.line("error: [60] SSL peer certificate or SSH remote key was not OK")
        raise stage.failed("`sh /work/fetch.sh` ended with 101")

    monkeypatch.setattr(Builder, "run", staticmethod(run))
    with pytest.raises(HostError) as caught:
        schedulers.build(lambda event: None)
    assert "name its bundle in SSL_CERT_FILE" in caught.value.hint
    assert directory() is None


def test_the_road_to_the_registry_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[net]\n")
    (tmp_path / "ca.pem").write_text("x")
    binds, variables = road(
        {
            "CARGO_HOME": str(tmp_path),
            "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
            "CARGO_HTTP_CAINFO": str(tmp_path / "none.pem"),
            "https_proxy": "http://proxy.example:3128",
            "CARGO_NET_RETRY": "5",
            "CARGO_REGISTRIES_MINE_TOKEN": "a secret",
            "CARGO_BUILD_JOBS": "7",
        }
    )
    targets = {bind.target: bind.source for bind in binds}
    assert targets["/tmp/.cargo/config.toml"] == tmp_path / "config.toml"
    assert targets["/tmp/ca-bundle.pem"] == tmp_path / "ca.pem"
    assert dict(variables) == {
        "CARGO_BUILD_RUSTC_WRAPPER": "",
        "CARGO_HTTP_CAINFO": "/tmp/ca-bundle.pem",
        "CARGO_NET_RETRY": "5",
        "SSL_CERT_FILE": "/tmp/ca-bundle.pem",
        "https_proxy": "http://proxy.example:3128",
    }


def test_a_machine_without_any_of_it_has_a_plain_road(tmp_path: Path) -> None:
    binds, variables = road({"HOME": str(tmp_path)})
    assert {bind.target for bind in binds} <= {"/etc/resolv.conf", "/etc/hosts"}
    assert variables == ()
