# SPDX-License-Identifier: Apache-2.0
"""Makes an image: packages → kernel, QEMU, runner, programs → one directory with an id."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from testbed.errors import HostError, TestbedError
from testbed.image import debian
from testbed.image.assemble import Parts, assemble
from testbed.image.cache import Cache, disk_errors, remove_tree, write_atomically
from testbed.image.events import Reporter, Stage
from testbed.image.model import Drift, Image, Packages, pretty
from testbed.image.recipe import Sources
from testbed.image.tree import Extractor, extract_tar, listing, scan
from testbed.sandbox import MOUNT_POINTS, Bind, Limits, Sandbox, kill_group, probe

_STAGE_LIMIT_S = 3600.0
_END_LIMIT_S = 60.0
_MAX_ROOT_BYTES = 16 << 30
_MAX_ROOT_ENTRIES = 1_000_000
_SPACE_NEEDED = 5 << 30

# Of the Debian root: what belongs to the machine that it was made on, and what nobody reads.
_LEFT_OUT = (
    "boot", "dev", "proc", "run", "sys", "tmp", "etc/.pwd.lock", "etc/apt", "etc/hostname", "etc/machine-id",
    "etc/mtab", "etc/resolv.conf", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man",
    "var/backups", "var/cache", "var/lib/apt", "var/lib/dbus", "var/lib/dpkg", "var/lib/systemd", "var/log", "var/tmp",
)  # fmt: skip
_EMPTY_DIRECTORIES = ("boot", "dev", "proc", "run", "sys", "tmp", "var/cache", "var/log", "var/tmp", *MOUNT_POINTS)


@dataclass
class Builder:
    """One build. Stages that were made before of the same inputs are taken from the cache.

    Attributes:
        require_locked: packages that differ from the lock file are an error instead of a warning.
    """

    sources: Sources
    cache: Cache
    reporter: Reporter
    require_locked: bool = False

    def build(self) -> Image:
        """Make the image.

        Raises:
            HostError: this machine can't, with the cure; nothing half is left.
        """
        probe()
        key = self.sources.key()
        self.cache.clean()
        self._check_space()
        packages_part = self.packages()
        packages = Packages.model_validate_json((packages_part / "packages.json").read_bytes())
        drift = self._compare(packages)
        with ThreadPoolExecutor(1, thread_name_prefix="qemu") as pool:
            qemu = pool.submit(self.qemu, packages_part, packages)
            kernel = self.kernel(packages_part, packages)
            runner = self.runner(packages_part, packages, kernel)
            programs = [self.program(path, packages_part, packages, kernel) for path in self.sources.programs]
            parts = Parts(packages_part, packages, kernel, _result(qemu), runner, tuple(programs))
        with self.reporter.stage("image", "put the image together") as stage:
            return self._image(key, parts, drift, stage)

    # --- stages -----------------------------------------------------------------------------------------------

    def packages(self) -> Path:
        """The Debian root and everything else that comes from packages."""
        key = self.sources.packages_key
        return self.part("packages", "make the builder root from Debian packages", key, self._make_packages)

    def kernel(self, packages_part: Path, packages: Packages) -> Path:
        """Kernel, headers, libbpf and example schedulers."""
        return self._script("kernel", "build the kernel's example schedulers", packages_part, packages, "testbed/debs")

    def qemu(self, packages_part: Path, packages: Packages) -> Path:
        """QEMU with our patch."""
        return self._script("qemu", "build QEMU with parallel virtual time", packages_part, packages, "testbed/source")

    def runner(self, packages_part: Path, packages: Packages, kernel: Path) -> Path:
        """The guest's init and runner."""
        return self._program(
            "runner", "build the guest runner", self.sources.directory / "runner", packages_part, packages, kernel
        )

    def program(self, source: Path, packages_part: Path, packages: Packages, kernel: Path) -> Path:
        """One guest program of our own."""
        return self._program(source.name, f"build {source.name}", source, packages_part, packages, kernel)

    # --- how a stage works ------------------------------------------------------------------------------------

    def part(self, name: str, title: str, key: Callable[[], str], make: Callable[[Path, Path, Stage], None]) -> Path:
        """A finished stage from the cache, or made now; `make` gets its place, a scratch directory and the stage.

        Raises:
            HostError: it can't be made here; nothing half is left.
        """
        before = key()
        place = self.cache.parts / f"{name}-{before}"
        with self.reporter.stage(name, title) as stage:
            if place.is_dir():
                stage.summary = "cached"
                return place
            waiting = partial(stage.line, "another process builds this, waiting for it")
            with self.cache.lock(place.name, waiting):
                if place.is_dir():
                    stage.summary = "built by another process"
                    return place
                with disk_errors(f"stage `{name}`", self.cache.root), self.cache.workspace() as work:
                    out, scratch = work / "out", work / "build"
                    out.mkdir()
                    scratch.mkdir()
                    make(out, scratch, stage)
                    self._check_unchanged(before, key())
                    return self.cache.publish(out, place)

    def _script(self, name: str, title: str, packages_part: Path, packages: Packages, source: str) -> Path:
        """A stage that is `vm_images/NAME/build.sh SRC BUILD OUT`, SRC being downloaded files."""
        directory = self._checked(self.sources.directory / name)

        def key() -> str:
            return self.sources.stage_key(name, packages.used_by(name), directory)

        def make(out: Path, scratch: Path, stage: Stage) -> None:
            self.run(
                Sandbox(
                    root=packages_part / "builder",
                    read_only=(Bind(packages_part / source, "/src"), Bind(directory, "/work")),
                    writable=(Bind(scratch, "/build"), Bind(out, "/out")),
                    env=self._environment(),
                    cwd="/build",
                    limits=Limits(wall_s=_STAGE_LIMIT_S),
                ),
                ["sh", "/work/build.sh", "/src", "/build", "/out"],
                stage,
            )

        return self.part(name, title, key, make)

    def _program(
        self, name: str, title: str, directory: Path, packages_part: Path, packages: Packages, kernel: Path
    ) -> Path:
        """A stage that is `DIRECTORY/build.sh SRC OUT`, with the kernel's headers and libbpf at /image."""
        self._checked(directory)

        def key() -> str:
            return self.sources.stage_key(name, packages.used_by(name), directory, self.sources.directory / "kernel")

        def make(out: Path, scratch: Path, stage: Stage) -> None:
            self.run(
                Sandbox(
                    root=packages_part / "builder",
                    read_only=(Bind(directory, "/src"), Bind(kernel, "/image")),
                    writable=(Bind(scratch, "/build"), Bind(out, "/out")),
                    env=self._environment(),
                    cwd="/build",
                    limits=Limits(wall_s=_STAGE_LIMIT_S),
                ),
                ["sh", "/src/build.sh", "/src", "/out"],
                stage,
            )

        return self.part(name, title, key, make)

    def _environment(self) -> tuple[tuple[str, str], ...]:
        return (("SOURCE_DATE_EPOCH", str(self.sources.recipe.debian.source_date_epoch)),)

    @staticmethod
    def _checked(directory: Path) -> Path:
        if not (directory / "build.sh").is_file():
            raise HostError(
                f"`{directory}/build.sh` is missing", hint="the installation is incomplete: install testbed again"
            )
        return directory

    @staticmethod
    def run(sandbox: Sandbox, argv: list[str], stage: Stage) -> None:
        """Run a stage's command, which is noted in the log.

        Raises:
            HostError: it failed.
        """
        stage.command(shlex.join(sandbox.command(argv)))
        result = sandbox.run(argv, merge=True, on_output=stage.output, check_host=False)
        if not result.ok:
            how = "took too long" if result.timed_out else f"ended with {result.returncode}"
            raise stage.failed(f"`{shlex.join(argv)}` {how}")

    # --- packages ---------------------------------------------------------------------------------------------

    def _make_packages(self, out: Path, scratch: Path, stage: Stage) -> None:
        recipe, lock = self.sources.recipe, self.sources.lock
        folder = self.sources.directory
        hooks = debian.hooks(folder, folder, debian.preferences(recipe.debian, lock), debian.wanted(recipe, lock))
        self.make_root(recipe.debian.suite, recipe.builder.install, hooks, out, scratch, stage)
        found = debian.read_packages(recipe, out / "testbed")
        debian.check_downloads(found.downloaded, out / "testbed" / "debs")
        (out / "packages.json").write_bytes(pretty(found))
        self._unpack_debs(out, stage)
        (out / "builder.list").write_bytes(listing(scan(out / "builder")))

    def make_root(
        self, suite: str, install: Sequence[str], hooks: Mapping[str, str], out: Path, scratch: Path, stage: Stage
    ) -> None:
        """Install Debian packages into a new root, `builder` of `out`; what `packages.sh` leaves is in `testbed`.

        Args:
            suite: of Debian.
            install: names of packages.
            hooks: texts of sources.sh and packages.sh, which mmdebstrap runs, and of the files that they read.
            out: directory of the stage.
            scratch: directory for what is needed meanwhile.
            stage: is told what mmdebstrap says.

        Raises:
            HostError: this machine can't, with the cure.
        """
        debian.check_host()
        mirror = debian.find_mirror()
        # In a user namespace mmdebstrap's hooks can't look into a private home or cache.
        scripts = Path(tempfile.mkdtemp(prefix="testbed-packages-"))
        try:
            scripts.chmod(0o755)
            temporary = scripts / "tmp"
            temporary.mkdir(mode=0o755)
            for name, text in hooks.items():
                (scripts / name).write_text(text)
                (scripts / name).chmod(0o644)
            command = debian.mmdebstrap_command(suite, install, mirror, scripts)
            stage.command(shlex.join(command))
            self._unpack(command, scratch / "root", temporary, stage)
        finally:
            remove_tree(scripts)
        (scratch / "root" / "testbed").rename(out / "testbed")
        (scratch / "root").rename(out / "builder")
        for name in _EMPTY_DIRECTORIES:
            (out / "builder" / name).mkdir(parents=True, exist_ok=True)

    def _unpack(self, command: list[str], root: Path, temporary: Path, stage: Stage) -> None:
        """Run mmdebstrap and unpack what it writes at the same time."""
        root.mkdir()
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "USER", "TMPDIR") or name.lower().endswith("_proxy")
        }
        if os.geteuid() == 0:
            # As root mmdebstrap mounts in the machine's own namespace, and killed it leaves that behind. In a namespace
            # of its own its mounts end with it, and what else it leaves is below a directory that we remove.
            command = [*_own_mounts(), *command]
            environment["TMPDIR"] = str(temporary)
        environment |= {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(self.sources.recipe.debian.source_date_epoch)}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stderr is not None
        reader = threading.Thread(target=_forward, args=(process.stderr, stage), daemon=True)
        reader.start()
        failure: Exception | None = None
        extractor = Extractor(root, max_bytes=_MAX_ROOT_BYTES, max_entries=_MAX_ROOT_ENTRIES, contain_links=True)
        try:
            extract_tar(process.stdout, extractor, lambda path, member: not _left_out(path))
        except (TestbedError, OSError, ValueError) as error:  # tarfile.ReadError: mmdebstrap ended early
            failure = error
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # apt and dpkg too; then mmdebstrap cleans up after itself
            raise
        finally:
            process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_LIMIT_S)
            kill_group(process)
            reader.join(timeout=10)
        returncode = process.returncode
        if returncode != 0 and not isinstance(failure, OSError | TestbedError):
            raise stage.failed(f"mmdebstrap ended with {returncode}", _package_hint(stage))
        if failure is not None:
            raise failure

    def _unpack_debs(self, out: Path, stage: Stage) -> None:
        """Unpack the packages that are not installed, all into one tree."""
        (out / "extra").mkdir()
        script = 'for deb in /src/*.deb; do case ${deb##*/} in linux-*) ;; *) dpkg-deb -x "$deb" /out;; esac; done'
        sandbox = Sandbox(
            root=out / "builder",
            read_only=(Bind(out / "testbed" / "debs", "/src"),),
            writable=(Bind(out / "extra", "/out"),),
            limits=Limits(wall_s=_STAGE_LIMIT_S),
        )
        self.run(sandbox, ["sh", "-euc", script], stage)
        sandbox = replace(sandbox, read_only=(Bind(out / "extra" / "usr/bin", "/src"),), writable=())
        (out / "applets").write_bytes(sandbox.run(["/src/busybox", "--list"], check_host=False).stdout)

    def _compare(self, packages: Packages) -> tuple[Drift, ...] | None:
        """What differs from the lock; None if there is none to compare with.

        Raises:
            HostError: something differs and `require_locked` is set.
        """
        lock = self.sources.lock
        if lock is None:
            self.reporter.line("packages", "warning: there is no lock file, so these packages are not locked")
            return None
        drift = tuple(debian.compare(packages, lock))
        if drift:
            names = "".join(f"\n    {item}" for item in drift)
            what = f"{len(drift)} packages are not those of the lock file, the mirror has moved on:{names}"
            if self.require_locked:
                raise HostError(
                    what,
                    hint="`testbed image import FILE` an image that was exported before, use a mirror that is frozen "
                    "at the lock's time (TESTBED_MIRROR), or accept the new packages with "
                    "`testbed image build --update-lock`",
                )
            self.reporter.line("packages", f"warning: {what}")
        return drift

    # --- the image --------------------------------------------------------------------------------------------

    def _image(self, key: str, parts: Parts, drift: tuple[Drift, ...] | None, stage: Stage) -> Image:
        with disk_errors("the image", self.cache.root), self.cache.workspace() as work:
            directory = work / "image"
            manifest = assemble(parts, self.sources.recipe, directory, locked=drift == (), drift=drift or ())
            shutil.copyfile(self.reporter.path, directory / "build.log")
            place = self.cache.publish(directory, self.cache.images / manifest.id)
            # An equal image may have been made under another lock file; its manifest then tells of that one.
            write_atomically(place / "manifest.json", pretty(manifest))
            if self.sources.key() == key:
                self.cache.write_key(key, manifest.id)
            else:  # each stage is sound, but which recipe they are together nobody can say
                stage.line("warning: files of `vm_images` were changed meanwhile, so the next use builds again")
            stage.summary = manifest.id[:12]
            return Image(place, manifest)

    @staticmethod
    def _check_unchanged(before: str, after: str) -> None:
        """A key must name what was really built, also when somebody works on the sources meanwhile."""
        if before != after:
            raise HostError(
                "files of `vm_images` were changed while they were being built",
                hint="build again when they are at rest",
            )

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.cache.root).free
        if free < _SPACE_NEEDED:
            raise HostError(
                f"only {free >> 20} MB are free at `{self.cache.root}`, "
                f"building an image takes {_SPACE_NEEDED >> 20} MB",
                hint="free some space, or set TESTBED_CACHE to another disk",
            )


def _own_mounts() -> list[str]:
    """The words before a command that give it mounts of its own; none where that is forbidden."""
    words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        tried = subprocess.run([*words, "true"], capture_output=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return words if tried.returncode == 0 else []


def _forward(source: IO[bytes], stage: Stage) -> None:
    for line in source:
        stage.output(line)


def _left_out(path: str) -> bool:
    if "__pycache__" in path:
        return True
    return any(path == name or path.startswith(f"{name}/") for name in _LEFT_OUT)


def _package_hint(stage: Stage) -> str:
    text = stage.tail
    if "NO_PUBKEY" in text or "keyring" in text:
        return "the keyring is older than the archive: apt-get install debian-archive-keyring (or TESTBED_KEYRING=FILE)"
    if "Could not resolve" in text or "Temporary failure resolving" in text or "Failed to fetch" in text:
        return "the mirror can't be reached: check network and proxy (http_proxy), or set TESTBED_MIRROR"
    if "unshare" in text or "newuidmap" in text:
        return "mmdebstrap can't make a user namespace here: run `testbed image build` as root, or see `testbed doctor`"
    if "No space left" in text:
        return "the disk of the temporary directory is full: set TMPDIR to another place"
    return ""


def _result(future: Future[Path]) -> Path:
    return future.result()
