# SPDX-License-Identifier: Apache-2.0
"""Signed envelopes (DSSE, github.com/secure-systems-lab/dsse, protocol version 1) and the keys that sign them.

An attestation is signed by Ed25519, by a key in a file or by a command that has one. A key is named by the SHA-256 of
its public half (DER, SubjectPublicKeyInfo), so that two keys never share a name.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import Field, ValidationError

from testbed.errors import HostError, UsageError
from testbed.spec import Model, first_mistake, sha256

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE = 4 << 20
MAX_KEY = 16 << 10
SIGNATURE_BYTES = 64
SIGNER_PATIENCE_S = 300


class Signature(Model):
    """One signature; `keyid` is a hint of who made it, and proves nothing."""

    keyid: str = ""
    sig: str


class Envelope(Model):
    """A payload and who vouches for it."""

    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815  # the standard spells it so
    payload: str
    signatures: tuple[Signature, ...] = Field(min_length=1, max_length=16)

    @property
    def content(self) -> bytes:
        """The payload's bytes.

        Raises:
            UsageError: it is not base64.
        """
        return _decoded(self.payload, "payload")


@dataclass(frozen=True)
class Signer:
    """Somebody who can sign.

    Attributes:
        public: the key that a verifier needs.
        sign: makes the 64 bytes of a signature over a message.
        self_signed: the key is a file that the asking user can read, so it proves nothing to anybody else.
    """

    public: Ed25519PublicKey
    sign: Callable[[bytes], bytes]
    self_signed: bool

    @property
    def keyid(self) -> str:
        """Name of the key."""
        return key_id(self.public)


def message(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, which binds the payload to its type."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode("ascii"), len(payload), payload)


def seal(payload: bytes, signer: Signer) -> Envelope:
    """Sign a payload.

    Raises:
        HostError: the signer gave something that its public key does not confirm.
    """
    signature = signer.sign(message(payload))
    try:
        signer.public.verify(signature, message(payload))
    except InvalidSignature:
        raise HostError(
            "the signer's signature does not belong to its public key", hint="give the public half of the same key"
        ) from None
    return Envelope(
        payloadType=PAYLOAD_TYPE,
        payload=base64.b64encode(payload).decode("ascii"),
        signatures=(Signature(keyid=signer.keyid, sig=base64.b64encode(signature).decode("ascii")),),
    )


def signers(envelope: Envelope, trusted: Sequence[Ed25519PublicKey]) -> tuple[str, ...]:
    """The names of the trusted keys that have signed an envelope."""
    signed = message(envelope.content)
    found: list[str] = []
    for key in trusted:
        for one in envelope.signatures:
            try:
                key.verify(_decoded(one.sig, "signature"), signed)
            except InvalidSignature:
                continue
            found.append(key_id(key))
            break
    return tuple(found)


def read(path: Path) -> Envelope:
    """Read an envelope.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    data = _bounded(path, MAX_ENVELOPE, "attestation")
    try:
        return Envelope.model_validate_json(data)
    except ValidationError as error:
        place, wrong = first_mistake(error, "the file")
        raise UsageError(
            f"`{path}` is no attestation: `{place}`: {wrong.lower()}", hint="`testbed attest CASE` makes one"
        ) from None


# --- keys ----------------------------------------------------------------------------------------------------


def key_id(key: Ed25519PublicKey) -> str:
    """Name of a key: SHA-256 of its public half."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def default_key(environ: dict[str, str] | None = None) -> Path:
    """Where the key of a user lies: below $XDG_CONFIG_HOME."""
    known = os.environ if environ is None else environ
    base = known.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "testbed" / "attest.pem"


def signer_from_file(path: Path, *, make: bool = False) -> Signer:
    """A key in a file, which is made on first use if `make` says so; its public half lies beside it (`.pub`).

    Raises:
        UsageError: there is no key, it is no Ed25519 key, or others may read it.
        HostError: it can't be written.
    """
    if make and not path.exists():
        _make_key(path)
    data = _bounded(path, MAX_KEY, "key")
    if path.stat().st_mode & 0o077:
        raise UsageError(
            f"others may read the key `{path}` (mode {path.stat().st_mode & 0o777:03o}, expected 600)",
            hint=f"chmod 600 {shlex.quote(str(path))}, and make a new key if somebody may have read it",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"`{path}` holds no unencrypted Ed25519 key (PEM)", hint="openssl genpkey -algorithm ed25519")
    return Signer(key.public_key(), key.sign, self_signed=True)


def signer_from_command(command: str, public: Path) -> Signer:
    """A key that only a command has: it gets the message on stdin and writes the signature's 64 bytes to stdout.

    Raises:
        UsageError: the command or the public key can't be meant.
    """
    words = shlex.split(command)
    if not words:
        raise UsageError("`--signer` is empty", hint="give a command that signs stdin, e.g. `sudo -u attest sign`")

    def sign(text: bytes) -> bytes:
        try:
            done = subprocess.run(words, input=text, stdout=subprocess.PIPE, check=False, timeout=SIGNER_PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"the signer `{words[0]}` failed: {str(error).lower()}") from None
        if done.returncode or len(done.stdout) != SIGNATURE_BYTES:
            raise HostError(
                f"the signer `{words[0]}` ended with status {done.returncode} and {len(done.stdout)} bytes, "
                f"expected 0 and {SIGNATURE_BYTES}",
                hint="it must write the raw Ed25519 signature of its stdin",
            )
        return done.stdout

    return Signer(read_public(public), sign, self_signed=False)


def read_public(path: Path) -> Ed25519PublicKey:
    """A public key.

    Raises:
        UsageError: it is none.
    """
    data = _bounded(path, MAX_KEY, "public key")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(
            f"`{path}` holds no public Ed25519 key (PEM)", hint="`testbed attest` writes one beside its key, as `.pub`"
        )
    return key


def _make_key(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(private)
            file.flush()
            os.fsync(file.fileno())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        path.with_suffix(".pub").write_bytes(public)
    except FileExistsError:
        return  # somebody else was first, and that one is as good
    except OSError as error:
        raise HostError(f"can't write the key `{path}`: {(error.strerror or '').lower()}") from error


def _bounded(path: Path, limit: int, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"no {what} in `{path}`: {(error.strerror or str(error)).lower()}") from None
    if len(data) > limit:
        raise UsageError(f"`{path}` is larger than {limit} bytes, which no {what} is")
    return data


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"the attestation's {what} is not base64") from None
