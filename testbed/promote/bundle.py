# SPDX-License-Identifier: Apache-2.0
"""What is sent to a host: the attestation, the manifest that it is about, and the files that the manifest names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.build import altered, files_for_guest
from testbed.build import load as load_artifact
from testbed.errors import UsageError
from testbed.promote import envelope, statement
from testbed.spec import sha256

ATTESTATION = "attestation.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """Everything that a host needs to decide and to load.

    Attributes:
        name: of the candidate, as its author calls it.
        attestation: the envelope's bytes.
        manifest: bytes whose hash is the statement's subject.
        files: path below `files/` → file.
    """

    name: str
    attestation: bytes
    manifest: bytes
    files: Mapping[str, Path]

    @property
    def id(self) -> str:
        """What hosts call it: the hash of the attestation."""
        return sha256(self.attestation)

    @property
    def subject(self) -> str:
        """Hash of the manifest; the same for every attestation of the same candidate."""
        return sha256(self.manifest)

    def parts(self) -> dict[str, bytes | Path]:
        """What is uploaded, by path."""
        return {
            ATTESTATION: self.attestation,
            MANIFEST: self.manifest,
            **{f"files/{name}": path for name, path in self.files.items()},
        }


def read(place: Path, case: Path | None = None) -> Bundle:
    """Put a bundle together.

    Args:
        place: a case with its attestation in it, or an attestation.
        case: where the candidate's files are, if not around the attestation.

    Raises:
        UsageError: something is missing, or attestation and files are not of the same candidate.
    """
    file = place / ATTESTATION if place.is_dir() else place
    if place.is_dir() and not file.exists():
        raise UsageError(f"`{place}` has no attestation", hint=f"testbed attest {place}")
    signed = envelope.read(file)
    found = statement.parse(signed.content)
    artifact = load_artifact((case or file.parent) / "candidate")
    if (changed := altered(artifact)) is not None:
        raise UsageError(f"`candidate/{changed}` of the case is not what was judged", hint="run the candidate again")
    manifest = statement.manifest(artifact.candidate)
    if found.subject[0] != statement.subject(artifact.candidate):
        raise UsageError(
            f"`{file}` attests another candidate than the one in `{case or file.parent}`",
            hint="name the case that was attested: `--case CASE`",
        )
    return Bundle(artifact.candidate.name, file.read_bytes(), manifest, files_for_guest(artifact))
