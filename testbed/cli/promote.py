# SPDX-License-Identifier: Apache-2.0
"""`testbed attest`, `testbed verify`, `testbed policy-check`."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, count, verb
from testbed.cli.run import cancel_on_signal, listen, make_guest
from testbed.errors import ExitCode, ScenarioError, UsageError

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.promote.envelope import Signer

ATTEST_EXAMPLES = """\
  testbed attest CASE                            make all of it again, sign it by your key (made if need be)
  testbed attest CASE --out case.attestation     where the attestation goes (default: CASE/attestation.json)
  testbed attest CASE --signer 'sudo -u attest sign-raw' --public attest.pub    a key that you can't read
"""
VERIFY_EXAMPLES = """\
  testbed verify case.attestation --key attest.pub                     who signed, and that nothing was changed since
  testbed verify case.attestation --key attest.pub --policy strict     and that it satisfies a promotion policy
  testbed verify case.attestation --key attest.pub --case CASE --kernel "$(uname -r)"
"""
ATTESTATION = "attestation.json"


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = verb(
        verbs, "attest", "prove that a case passed, by making all of it again, and sign that", attest, ATTEST_EXAMPLES
    )
    parser.add_argument("case", type=Path, metavar="CASE", help="a case's directory")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="Ed25519 key (PEM); default: your own, made on first use"
    )
    parser.add_argument("--signer", metavar="COMMAND", help="signs what it reads, by a key that you can't read")
    parser.add_argument("--public", type=Path, metavar="FILE", help="with --signer: the public half of its key")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {ATTESTATION} in the case")
    parser.add_argument("-j", dest="jobs", type=count(1, 256), metavar="N", help="guests side by side (default: CPUs)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the stages")

    parser = verb(verbs, "verify", "say what speaks against an attestation", verify, VERIFY_EXAMPLES)
    parser.add_argument("attestation", type=Path, metavar="ATTESTATION")
    parser.add_argument(
        "--key", type=Path, action="append", metavar="FILE", help="a public key that you trust; may be repeated"
    )
    parser.add_argument("--policy", metavar="NAME|FILE", help="promotion policy that it is to satisfy")
    parser.add_argument(
        "--case", type=Path, metavar="CASE", help="the candidate that is to be loaded, as a case has it"
    )
    parser.add_argument("--kernel", metavar="RELEASE", help="of the kernel that is to carry it (`uname -r`)")
    add_json(parser)

    parser = verb(verbs, "policy-check", "check policy files, of verdicts and of promotions", policy_check)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")


def attest(options: Options) -> int:
    """Make everything again, then sign."""
    from testbed.case import write_model
    from testbed.promote import attest as attests
    from testbed.promote import envelope
    from testbed.replay import image_of

    signer = _signer(options)
    cancelled = threading.Event()
    cancel_on_signal(cancelled)
    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)
        desk = attests.Desk(image_of, make_guest, listener, options.jobs or os.cpu_count() or 1, cancelled)
        statement = attests.attest(options.case, desk, self_signed=signer.self_signed)
    out = options.out or options.case / ATTESTATION
    write_model(out, envelope.seal(statement.payload(), signer))
    kind = "self-signed by" if signer.self_signed else "signed by"
    print(f"attested   {statement.subject[0].name}  {statement.subject[0].digest['sha256'][:16]}")
    print(f"{kind} {signer.keyid[:16]}")
    print(out)
    return int(ExitCode.PASS)


def _signer(options: Options) -> Signer:
    from testbed.promote import envelope

    if options.signer is not None:
        if options.public is None or options.key is not None:
            raise UsageError(
                "`--signer` takes `--public FILE`, and no `--key`", hint="the public half of the signer's key"
            )
        return envelope.signer_from_command(options.signer, options.public)
    if options.public is not None:
        raise UsageError("`--public` is for `--signer`", hint="the public half of a key file lies beside it")
    return envelope.signer_from_file(options.key or envelope.default_key(), make=options.key is None)


def verify(options: Options) -> int:
    """Say what speaks against it."""
    from testbed.build import load as load_artifact
    from testbed.promote import envelope, policy
    from testbed.promote import verify as verifies

    keys = options.key or [envelope.default_key().with_suffix(".pub")]
    demanded = policy.load(options.policy) if options.policy is not None else None
    candidate = load_artifact(options.case / "candidate").candidate if options.case is not None else None
    signed = envelope.read(options.attestation)
    trusted = [envelope.read_public(key) for key in keys]
    statement, refusals = verifies.verify(
        signed, trusted, verifies.Wanted(policy=demanded, candidate=candidate, kernel=options.kernel)
    )
    by = envelope.signers(signed, trusted)
    if options.json:
        document = {
            "verified": not refusals,
            "signed_by": list(by),
            "refusals": [{"code": one.code, "message": one.message, "hint": one.hint} for one in refusals],
            "statement": statement.model_dump(mode="json", by_alias=True) if statement is not None else None,
        }
        print(json.dumps(document, indent=2))
    elif not refusals and statement is not None:
        print(f"verified   {statement.subject[0].name}, signed by {by[0][:16]}")
        print(f"judged {statement.judged.time:%F %T} UTC by `{statement.named('policy').annotations.get('name')}`")
    for one in () if options.json else refusals:
        print(f"refused    {one.code}: {one.message}")
        if one.hint:
            print(f"           hint: {one.hint}")
    return int(ExitCode.REJECT if refusals else ExitCode.PASS)


def policy_check(options: Options) -> int:
    """Check files of either kind."""
    from testbed import policy as verdicts
    from testbed.promote import policy as promotions
    from testbed.yamlfile import Document, read

    wrong = 0
    for file in options.files:
        try:
            data = read(file)
            content = Document(data, str(file)).data
            kind = content.get("kind") if isinstance(content, dict) else None
            if kind == "promotion":
                promotions.parse(data, str(file))
            else:
                verdicts.parse(data, str(file))
            print(f"ok  {file}: {kind} policy")
        except ScenarioError as error:
            wrong += 1
            print(f"error: {error.message}", file=sys.stderr)
            if error.hint:
                print(f"hint: {error.hint}", file=sys.stderr)
    return int(ExitCode.USAGE if wrong else ExitCode.PASS)
