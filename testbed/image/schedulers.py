# SPDX-License-Identifier: Apache-2.0
"""Schedulers that people use (`scx_bpfland`, …), built as the crates registry ships them. An extra of no image.

made = build(listener)      # in the cache, built now if they are not there
directory()                 # where `testbed run -- scx_bpfland` finds them

Three stages: a Debian root with cargo; the crates with what their own lock files name, the only stage with a network;
the programs. Nothing of the host's Rust is used, but the road to the registry is the host's: its name servers, proxies,
CA bundle and cargo configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from testbed.data import data_directory
from testbed.errors import HostError
from testbed.image import debian
from testbed.image.builder import Builder
from testbed.image.elf import Roots
from testbed.image.events import Stage
from testbed.image.extra import Extra, key_of
from testbed.image.model import BuilderRecipe, DebianRecipe, Package, pretty
from testbed.image.recipe import SCHEDULERS, read_recipe
from testbed.image.tree import file_sha256, link_file
from testbed.report.events import Listener
from testbed.sandbox import Bind, Limits, Sandbox
from testbed.spec import Model

#: Raised by hand whenever this module makes something else of the same recipe.
FORMAT = 1

_FACTS = "schedulers.json"
_LIMIT_S = 3600.0
_CA_BUNDLE = "/tmp/ca-bundle.pem"
_CARGO_CONFIG = "/tmp/.cargo/config.toml"
_ROAD = ("/etc/resolv.conf", "/etc/hosts")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Crate(Model):
    """One scheduler of the registry, exactly."""

    name: Annotated[str, StringConstraints(pattern=r"^scx_[a-z0-9_]+$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.+-]*$")]
    sha256: Sha256


class SchedulersRecipe(Model):
    """`vm_images/schedulers/schedulers.toml`."""

    schema_: Literal["testbed.schedulers/1"] = Field(alias="schema")
    debian: DebianRecipe
    builder: BuilderRecipe
    crates: tuple[Crate, ...] = Field(min_length=1)


class Program(Model):
    """A scheduler that was built."""

    crate: Crate
    sha256: Sha256 = Field(description="of the program")
    lock: Sha256 = Field(description="of the crate's own Cargo.lock: versions and hashes of everything that it needs")
    libraries: dict[str, Sha256] = Field(description="soname → sha256; the files are in `lib`")


class Schedulers(Model):
    """`schedulers.json`: what was built of what."""

    schema_: Literal["testbed.schedulers/1"] = Field(default="testbed.schedulers/1", alias="schema")
    programs: dict[str, Program]
    packages: tuple[Package, ...] = Field(description="of the Debian root in which they were built")


@dataclass(frozen=True)
class Made:
    """The schedulers on disk: `bin/`, and `lib/` with everything that they load."""

    path: Path
    facts: Schedulers


def load_recipe(folder: Path | None = None) -> SchedulersRecipe:
    """Read the recipe.

    Raises:
        Bug: it is ours, so it is our fault if it can't be read.
    """
    return read_recipe((folder or data_directory("vm_images") / SCHEDULERS) / "schedulers.toml", SchedulersRecipe)


def directory() -> Path | None:
    """Where the programs of this version's recipe are; None if nobody has built them. Writes nothing."""
    return _EXTRA.directory()


def build(listener: Listener) -> Made:
    """The schedulers, built now if they are not in the cache.

    Raises:
        HostError: they can't be built here, with the cure.
    """
    place = _EXTRA.build(listener, _Workshop)
    return Made(place, Schedulers.model_validate_json((place / _FACTS).read_bytes()))


def _key(folder: Path) -> str:
    files = [*sorted((folder / SCHEDULERS).iterdir()), folder / "sources.sh"]
    return key_of(FORMAT, ((path.name, file_sha256(path)) for path in files if path.suffix in (".sh", ".toml")))


_EXTRA = Extra(SCHEDULERS, "the schedulers", _FACTS, _key)


class _Workshop:
    """One build of the schedulers."""

    def __init__(self, folder: Path, builder: Builder) -> None:
        self._folder = folder
        self._builder = builder
        self._recipe = load_recipe(folder / SCHEDULERS)
        self._names = [word for one in self._recipe.crates for word in (one.name, one.version, one.sha256)]

    def make(self) -> None:
        def key() -> str:
            return _key(self._folder)

        self._root = self._builder.part("cargo", "make a Debian root with cargo", key, self._make_root)
        self._crates = self._builder.part("crates", "fetch the schedulers' sources", key, self._fetch)
        self._built = self._builder.part("scx", "build the schedulers", key, self._compile)

    def _make_root(self, out: Path, scratch: Path, stage: Stage) -> None:
        recipe = self._recipe
        hooks = debian.hooks(self._folder, self._folder / SCHEDULERS, debian.preferences(recipe.debian, None))
        self._builder.make_root(recipe.debian.suite, recipe.builder.install, hooks, out, scratch, stage)
        for name in _ROAD:  # to mount the machine's own on
            (out / "builder" / name.lstrip("/")).touch()

    def _fetch(self, out: Path, scratch: Path, stage: Stage) -> None:
        binds, variables = road(os.environ)
        sandbox = Sandbox(
            root=self._root / "builder",
            read_only=(Bind(self._folder / SCHEDULERS, "/work"), *binds),
            writable=(Bind(scratch, "/build"), Bind(out, "/out")),
            env=variables,
            cwd="/build",
            network=True,
            limits=Limits(wall_s=_LIMIT_S),
        )
        try:
            self._builder.run(sandbox, ["sh", "/work/fetch.sh", "/build", "/out", *self._names], stage)
        except HostError as error:
            if hint := _fetch_hint(stage.tail):
                raise HostError(error.message, hint=hint) from error
            raise

    def _compile(self, out: Path, scratch: Path, stage: Stage) -> None:
        sandbox = Sandbox(
            root=self._root / "builder",
            read_only=(Bind(self._crates, "/src"), Bind(self._folder / SCHEDULERS, "/work")),
            writable=(Bind(scratch, "/build"), Bind(out, "/out")),
            env=(("SOURCE_DATE_EPOCH", str(self._recipe.debian.source_date_epoch)),),
            cwd="/build",
            limits=Limits(wall_s=_LIMIT_S),
        )
        self._builder.run(sandbox, ["sh", "/work/build.sh", "/src", "/build", "/out", *self._names], stage)

    def collect(self, out: Path) -> None:
        """The programs with their libraries, and what they are."""
        roots = Roots((self._root / "builder",))
        programs = {}
        for crate in self._recipe.crates:
            program = self._built / "bin" / crate.name
            link_file(program, out / "bin" / crate.name)
            libraries = {}
            for place, file in roots.closure([program]).items():
                name = PurePosixPath(place).name
                libraries[name] = file_sha256(file)
                if not (out / "lib" / name).exists():
                    link_file(file, out / "lib" / name)
            programs[crate.name] = Program(
                crate=crate,
                sha256=file_sha256(program),
                lock=file_sha256(self._crates / "src" / f"{crate.name}-{crate.version}" / "Cargo.lock"),
                libraries=libraries,
            )
        packages = debian.read_installed(self._root / "testbed")
        (out / _FACTS).write_bytes(pretty(Schedulers(programs=programs, packages=packages)))


def road(environment: Mapping[str, str]) -> tuple[tuple[Bind, ...], tuple[tuple[str, str], ...]]:
    """What of the machine leads to the crates registry: files, bound read-only, and variables that name them.

    Args:
        environment: the caller's; `CARGO_HOME`, `CARGO_HTTP_CAINFO` or `SSL_CERT_FILE`, proxies.
    """
    binds = [Bind(Path(name).resolve(), name) for name in _ROAD if Path(name).is_file()]
    variables = dict(_passed_on(environment))
    bundle = next(iter(_files(environment, ("CARGO_HTTP_CAINFO", "SSL_CERT_FILE", "CURL_CA_BUNDLE"))), None)
    if bundle is not None:
        binds.append(Bind(bundle.resolve(), _CA_BUNDLE))
        variables |= {"CARGO_HTTP_CAINFO": _CA_BUNDLE, "SSL_CERT_FILE": _CA_BUNDLE}
    home = Path(environment.get("CARGO_HOME") or Path(environment.get("HOME", "/")) / ".cargo")
    for config in (home / "config.toml", home / "config"):
        if config.is_file():
            binds.append(Bind(config.resolve(), _CARGO_CONFIG))
            variables["CARGO_BUILD_RUSTC_WRAPPER"] = ""  # a wrapper of the machine is not in the root
            break
    return tuple(binds), tuple(sorted(variables.items()))


def _passed_on(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Proxies, and what cargo's own variables say of network and registries."""
    prefixes = ("CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_")
    for name, value in environment.items():
        secret = name.endswith(("_TOKEN", "_CREDENTIAL_PROVIDER"))  # nothing is published
        proxy = name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
        if proxy or (name.startswith(prefixes) and not secret and name != "CARGO_HTTP_CAINFO"):
            yield name, value


def _files(environment: Mapping[str, str], names: Sequence[str]) -> Iterator[Path]:
    """Files that exist, of variables that name one."""
    for name in names:
        value = environment.get(name)
        if value and Path(value).is_file():
            yield Path(value)


def _fetch_hint(said: str) -> str:
    if "certificate" in said or "SSL" in said:
        return "a proxy that looks into TLS has a CA of its own: name its bundle in SSL_CERT_FILE"
    if any(word in said for word in ("resolve host", "Couldn't connect", "Timeout", "timed out", "spurious network")):
        return (
            "the crates registry can't be reached: look at the network, the proxy (https_proxy) and cargo's config.toml"
        )
    return ""
