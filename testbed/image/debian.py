# SPDX-License-Identifier: Apache-2.0
"""Debian packages: which mirror, how mmdebstrap is called, and how its result compares with the lock."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import Bug, HostError
from testbed.image.model import DebianRecipe, Drift, Package, Packages, Recipe, SourceFile, SourcePackage
from testbed.image.tree import file_sha256

_APT = Path("/etc/apt")
_KEYRINGS = ("debian-archive-keyring.pgp", "debian-archive-keyring.gpg")
# What a machine's own apt configuration says about the road to its mirror, and about a mirror that is frozen in time.
_CARRIED_OPTIONS = re.compile(
    r"^Acquire::(Check-Valid-Until|Check-Date|Max-ValidTime|Min-ValidTime|Retries|ForceIPv4|ForceIPv6"
    r"|https?::(Proxy|Proxy::.*|Timeout|Pipeline-Depth|CaInfo|CaPath|Verify-Peer|Verify-Host|No-Cache)) "
    r"\"(.*)\";$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Mirror:
    """Where packages come from; None is what mmdebstrap itself would take."""

    main: str | None = None
    security: str | None = None
    options: tuple[str, ...] = ()
    keyring: Path | None = None

    def sources(self, suite: str) -> list[str]:
        """Lines of a sources.list."""
        if self.main is None:
            return []
        signed = f"[signed-by={self.keyring}] " if self.keyring else ""
        lines = [f"deb {signed}{self.main} {name} main" for name in (suite, f"{suite}-updates", f"{suite}-backports")]
        if self.security is not None:
            lines.append(f"deb {signed}{self.security} {suite}-security main")
        return lines


def find_mirror(
    environment: Mapping[str, str] | None = None, apt: Path = _APT, os_release: Path | None = None
) -> Mirror:
    """The mirror to use: $TESTBED_MIRROR, else the machine's own if it runs Debian, else mmdebstrap's default.

    Args:
        environment: TESTBED_MIRROR (a Debian archive's address), TESTBED_SECURITY_MIRROR.
        apt: the machine's apt configuration.
        os_release: the machine's os-release file.
    """
    environment = os.environ if environment is None else environment
    options = tuple(apt_options(environment))
    own = environment.get("TESTBED_MIRROR")
    if own:
        own = own.rstrip("/")
        sibling = f"{own}-security" if own.endswith("/debian") else None
        return Mirror(own, environment.get("TESTBED_SECURITY_MIRROR") or sibling, options, keyring(environment))
    if _is_debian(os_release or Path("/etc/os-release")):
        found = list(apt_sources(apt))
        # Other archives have a component `main` too, but only Debian's own has these suites.
        security = next((address for address, suite in found if suite.endswith("-security")), None)
        main = next((address for address, suite in found if suite.endswith("-updates")), None)
        main = main or next((address for address, _ in found if address.endswith("/debian")), None)
        if main is not None:
            return Mirror(main, security, options, keyring(environment))
    return Mirror(options=options, keyring=keyring(environment))


def keyring(environment: Mapping[str, str]) -> Path:
    """Debian's archive keys on this machine.

    Raises:
        HostError: they are not installed.
    """
    own = environment.get("TESTBED_KEYRING")
    candidates = [Path(own)] if own else [Path("/usr/share/keyrings", name) for name in _KEYRINGS]
    for path in candidates:
        if path.is_file():
            return path
    raise HostError(
        f"Debian's archive keys are not on this machine (`{candidates[0]}`)",
        hint="apt-get install debian-archive-keyring",
    )


def _is_debian(os_release: Path) -> bool:
    try:
        lines = os_release.read_text().splitlines()
    except OSError:
        return False
    return any(line.partition("=")[0] == "ID" and line.partition("=")[2].strip("\"'") == "debian" for line in lines)


def apt_sources(apt: Path = _APT) -> Iterator[tuple[str, str]]:
    """Address and suite of the archives that have a component `main`, from both of apt's formats."""
    parts = apt / "sources.list.d"
    files = [apt / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for address, suite, components in _deb822(text) if file.suffix == ".sources" else _one_line(text):
            if re.fullmatch(r"https?://[^\s\"]+", address) and "main" in components:
                yield address.rstrip("/"), suite


def _one_line(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match:
            yield match[1], match[2], match[3].split()


def _deb822(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for fields in stanzas(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        for address in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield address, suite, fields.get("components", "").split()


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Debian control data: field names in lower case, continuation lines joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line.startswith("#"):
            continue
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


def apt_options(environment: Mapping[str, str], dump: str | None = None) -> Iterator[str]:
    """Options of the machine's apt that the road to its mirror needs, and the CA bundle that the user named."""
    if dump is None:
        try:
            dump = subprocess.run(
                ["apt-config", "dump"], capture_output=True, text=True, check=False, timeout=30
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            dump = ""
    names = set()
    for line in dump.splitlines():
        if _CARRIED_OPTIONS.match(line):
            names.add(line.partition(" ")[0].lower())
            yield line.removesuffix(";")
    for variable in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        bundle = environment.get(variable)
        if bundle and Path(bundle).is_file() and "acquire::https::cainfo" not in names:
            yield f'Acquire::https::CaInfo "{bundle}"'
            return


def check_host() -> None:
    """Find out whether mmdebstrap can work here.

    Raises:
        HostError: it can't, with the cure.
    """
    if shutil.which("mmdebstrap") is None:
        raise HostError("mmdebstrap is not installed", hint="apt-get install mmdebstrap debian-archive-keyring")
    if os.geteuid() == 0:
        return
    if shutil.which("newuidmap") is None:
        raise HostError(
            "`newuidmap` is not installed; an ordinary user needs it to make a Debian root",
            hint="apt-get install uidmap",
        )
    user = pwd.getpwuid(os.getuid()).pw_name
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            lines = []
        if not any(line.split(":")[0] in (user, str(os.getuid())) for line in lines):
            raise HostError(
                f"user `{user}` has no range of subordinate ids in {file}",
                hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )


def mmdebstrap_command(suite: str, install: Sequence[str], mirror: Mirror, scripts: Path) -> list[str]:
    """The command that writes a Debian root as a tar archive to stdout.

    Args:
        suite: of Debian.
        install: names of packages.
        mirror: where they come from.
        scripts: directory with sources.sh, packages.sh, preferences, wanted; it must be readable for everybody.
    """
    command = ["mmdebstrap", "--variant=apt", "--format=tar", "--architectures=amd64"]
    if mirror.keyring is not None and mirror.main is None:
        command.append(f"--keyring={mirror.keyring}")
    options = (*mirror.options, 'Acquire::Languages "none"', 'APT::Install-Recommends "false"')
    command += [f"--aptopt={option}" for option in options]
    for directory in ("doc", "man", "locale", "info", "lintian", "bug"):
        command.append(f"--dpkgopt=path-exclude=/usr/share/{directory}/*")
    command.append(f"--include={','.join(install)}")
    command.append(f'--setup-hook=sh {scripts}/sources.sh "$1" {suite} {scripts}/preferences')
    command.append(f'--customize-hook=sh {scripts}/packages.sh "$1" {scripts}/wanted')
    return [*command, suite, "-", *mirror.sources(suite)]


def hooks(scripts: Path, packages: Path, preferred: str = "", wanted: str = "") -> dict[str, str]:
    """The texts that mmdebstrap's hooks are made of, by the name that each has beside the others.

    Args:
        scripts: folder with `sources.sh`.
        packages: folder with `packages.sh`.
        preferred: of apt (`preferences`).
        wanted: what packages.sh is asked for.
    """
    return {
        "sources.sh": (scripts / "sources.sh").read_text(),
        "packages.sh": (packages / "packages.sh").read_text(),
        "preferences": preferred,
        "wanted": wanted,
    }


def preferences(debian: DebianRecipe, lock: Packages | None) -> str:
    """apt's preferences: what comes from backports, and above it the locked versions if the mirror still has them."""
    text = [
        f"Package: {name}\nPin: release n={debian.suite}-backports\nPin-Priority: 990\n" for name in debian.backports
    ]
    if lock is not None:
        text += [
            f"Package: {package.name}\nPin: version {package.version}\nPin-Priority: 1001\n"
            for package in (*lock.installed, *lock.downloaded)
        ]
    return "\n".join(text)


def wanted(recipe: Recipe, lock: Packages | None) -> str:
    """What packages.sh is asked for."""
    lines = [f"flavour {recipe.kernel.flavour}"]
    lines += [f"option {option}" for option in recipe.kernel.options]
    if lock is not None:
        lines.append(f"kernel {lock.kernel}")
    lines += [f"deb {name}" for name in (*recipe.guest.packages, *recipe.qemu.packages)]
    locked = {source.name: source.version for source in (lock.sources if lock else ())}
    lines.append(f"source {recipe.qemu.source} {locked.get(recipe.qemu.source, '')}".rstrip())
    return "\n".join(lines) + "\n"


def read_packages(recipe: Recipe, directory: Path) -> Packages:
    """What packages.sh left behind, as a value.

    Args:
        directory: with debs/, source/, metadata/, installed, kernel.

    Raises:
        Bug: packages without metadata.
    """
    sources = []
    for dsc in sorted((directory / "source").glob("*.dsc")):
        text = dsc.read_text(encoding="utf-8", errors="replace")
        body = text.partition("\n\n")[2] if text.startswith("-----BEGIN PGP SIGNED") else text
        fields = next(stanzas(body))
        files = [line.split()[2] for line in fields["checksums-sha256"].splitlines() if line.strip()]
        names = sorted([dsc.name, *files])
        sources.append(
            SourcePackage(
                name=fields["source"],
                version=fields["version"],
                files=tuple(SourceFile(name=name, sha256=file_sha256(dsc.parent / name)) for name in names),
            )
        )
    return Packages(
        recipe=recipe.name,
        kernel=(directory / "kernel").read_text().split()[0],
        installed=read_installed(directory),
        downloaded=read_downloaded(directory),
        sources=tuple(sources),
    )


def read_installed(directory: Path) -> tuple[Package, ...]:
    """The packages of a root, as its packages.sh noted them.

    Args:
        directory: with metadata/installed.packages, installed.

    Raises:
        Bug: packages without metadata.
    """
    return _select(
        _metadata(directory / "metadata" / "installed.packages"), (directory / "installed").read_text().split()
    )


def read_downloaded(directory: Path) -> tuple[Package, ...]:
    """The packages that a packages.sh downloaded, as it noted them.

    Args:
        directory: with metadata/downloaded, metadata/downloaded.packages.

    Raises:
        Bug: packages without metadata.
    """
    names = (directory / "metadata" / "downloaded").read_text().split()
    return _select(_metadata(directory / "metadata" / "downloaded.packages"), names)


def _metadata(file: Path) -> dict[tuple[str, str], Package]:
    packages = {}
    for fields in stanzas(file.read_text(encoding="utf-8", errors="replace")):
        package = Package(
            name=fields["package"],
            version=fields["version"],
            architecture=fields["architecture"],
            sha256=fields["sha256"],
        )
        packages[package.name, package.version] = package
    return packages


def _select(described: dict[tuple[str, str], Package], names: list[str]) -> tuple[Package, ...]:
    chosen = []
    for item in names:
        name, _, version = item.partition("=")
        package = described.get((name.partition(":")[0], version))
        if package is None:
            raise Bug(f"package `{item}` is not in the mirror's index")
        chosen.append(package)
    return tuple(sorted(chosen, key=lambda package: (package.name, package.architecture)))


def check_downloads(packages: Sequence[Package], directory: Path) -> None:
    """Hash the downloaded packages once more, now as they lie on our disk.

    Raises:
        HostError: one of them is not what the mirror's signed index says.
    """
    hashes = {file_sha256(path) for path in directory.glob("*.deb")}
    for package in packages:
        if package.sha256 not in hashes:
            raise HostError(
                f"package `{package.name}` {package.version} is damaged: none of the files has the hash of the index",
                hint="look at the disk and the mirror, then try again",
            )


def compare(found: Packages, lock: Packages) -> list[Drift]:
    """What differs from the lock, by package.

    Raises:
        HostError: a version has other bytes than the locked ones, which Debian never does.
    """
    drift: list[Drift] = []
    for kind in ("installed", "downloaded", "sources"):
        ours = {_name(kind, item): item for item in getattr(found, kind)}
        theirs = {_name(kind, item): item for item in getattr(lock, kind)}
        for name in sorted({*ours, *theirs}):
            mine, locked = ours.get(name), theirs.get(name)
            if mine == locked:
                continue
            if mine is not None and locked is not None and mine.version == locked.version:
                raise HostError(
                    f"package `{name}` {mine.version} has other bytes than the lock file says",
                    hint="the mirror can't be trusted, or it rebuilt the package; try another one (TESTBED_MIRROR)",
                )
            drift.append(
                Drift(
                    name=name,
                    locked=locked.version if locked else None,
                    found=mine.version if mine else None,
                )
            )
    return drift


def _name(kind: str, item: Package | SourcePackage) -> str:
    return f"src:{item.name}" if kind == "sources" else item.name
