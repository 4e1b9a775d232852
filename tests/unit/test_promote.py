# SPDX-License-Identifier: Apache-2.0
"""Attestations: what is signed, whose word counts, and every reason to refuse one."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from testbed import policy as verdict_policies
from testbed.build import Artifact, ArtifactFacts
from testbed.candidate import Candidate, Kind, Library
from testbed.cli import main
from testbed.data import data_directory
from testbed.errors import HostError, ScenarioError, UsageError
from testbed.image import Image
from testbed.judge import judge, modes, unseen
from testbed.promote import attest, envelope, policy, statement
from testbed.promote.envelope import Envelope, Signer
from testbed.promote.statement import Descriptor, Judged, Predicate, Ran, Statement, Told
from testbed.promote.verify import Wanted, verify
from testbed.spec import Clock, sha256
from testbed.topology import PRESETS
from testbed.verdict import CandidateFacts
from tests.unit.case_builder import build_golden

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
CANDIDATE = CandidateFacts(
    kind="source", name="fair.bpf.c", sha256="1" * 64, source_sha256="2" * 64, object_sha256="3" * 64, ops_name="fair"
)
KERNEL = "7.3.4+deb13-cloud-amd64"


def signer(key: Ed25519PrivateKey | None = None) -> Signer:
    made = key or Ed25519PrivateKey.generate()
    return Signer(made.public_key(), made.sign, self_signed=False)


SIGNER = signer()


def attested(
    *,
    candidate: CandidateFacts = CANDIDATE,
    policy_name: str = "default",
    policy_sha256: str | None = None,
    scenarios: dict[str, str] | None = None,
    **changes: Any,
) -> Statement:
    """A statement that satisfies `default`, but for the changes."""
    demanded, data = verdict_policies.load(policy_name)
    folder = data_directory("scenarios")
    files = {one.name: sha256((folder / f"{one.name}.yaml").read_bytes()) for one in demanded.scenarios} | (
        scenarios or {}
    )
    ran = {"clocks": (Clock.SIM,), "seeds": 1, "topologies": ("2 CPUs",), "digests": {"runs/000": "d" * 64}}
    told = {"id": "v" * 16, "benefit": "mixed", "baseline": "EEVDF", "not_checked": ("real-speed", "longer-runs")}
    judged = {"version": "0.1", "judge": 3, "time": NOW - timedelta(hours=1), "self_signed": False}
    parts: dict[str, dict[str, Any]] = {"ran": ran, "told": told, "judged": judged}
    for key, value in changes.items():
        next(part for part in parts.values() if key in part)[key] = value
    subject = statement.subject(candidate)

    def resource(name: str, digest: str, annotations: dict[str, Any]) -> Descriptor:
        return Descriptor(name=name, digest={"sha256": digest}, annotations=annotations)

    return Statement(
        _type=statement.STATEMENT,
        subject=(subject,),
        predicateType=statement.PREDICATE,
        predicate=Predicate(
            result="PASSED",
            passedTests=("stall/sim",),
            configuration=(
                resource("candidate", subject.digest["sha256"], candidate.model_dump(mode="json")),
                resource("kernel", "4" * 64, {"release": KERNEL}),
                resource("policy", policy_sha256 or sha256(data), {"name": policy_name}),
                resource("testbed", "5" * 64, Judged(**judged).model_dump(mode="json")),
                resource("verdict", "6" * 64, Told(**told).model_dump(mode="json")),
                resource("runs", "7" * 64, Ran(**ran).model_dump(mode="json")),
                *(resource(f"scenario/{name}", digest, {}) for name, digest in files.items()),
            ),
        ),
    )


def refusals(found: Statement, **wanted: Any) -> set[str]:
    asked: dict[str, Any] = {
        "policy": policy.load("default"),
        "candidate": CANDIDATE,
        "kernel": KERNEL,
        "now": NOW,
    } | wanted
    sealed = envelope.seal(found.payload(), SIGNER)
    return {one.code for one in verify(sealed, [SIGNER.public], Wanted(**asked))[1]}


def test_what_satisfies_everything_is_not_refused() -> None:
    assert refusals(attested()) == set()


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (lambda: attested(time=NOW - timedelta(days=31)), "expired"),
        (lambda: attested(time=NOW + timedelta(hours=1)), "from-the-future"),
        (lambda: attested(self_signed=True), "self-signed"),
        (lambda: attested(policy_name="quick"), "other-policy"),
        (lambda: attested(policy_sha256="0" * 64), "altered-policy"),
        (lambda: attested(scenarios={"stall": "0" * 64}), "altered-scenario"),
        (lambda: attested(clocks=(Clock.LIVE,)), "clock-missing"),
        (lambda: attested(seeds=0), "too-few-seeds"),
        (lambda: attested(not_checked=("real-speed", "gravity")), "risk-not-accepted"),
        (lambda: attested(candidate=CANDIDATE.model_copy(update={"object_sha256": "9" * 64})), "other-bytes"),
        (lambda: attested(candidate=CANDIDATE.model_copy(update={"options": ("-s", "5000")})), "other-options"),
    ],
)
def test_each_reason_has_its_own_name(found: Callable[[], Statement], code: str) -> None:
    assert refusals(found()) == {code}


def test_failure_modes_are_accepted_together_or_by_name() -> None:
    found = attested(not_checked=("real-speed", "overload", "suspend"))
    assert refusals(found) == set()
    default = policy.load("default")
    named = tuple(risk for risk in default.risks if risk.code != "failure-modes")
    assert refusals(found, policy=default.model_copy(update={"risks": named})) == {"risk-not-accepted"}


def test_another_kernel_is_refused_unless_the_policy_says_otherwise() -> None:
    assert refusals(attested(), kernel="6.12.1") == {"other-kernel"}
    lenient = policy.load("default").model_copy(update={"same_kernel": False})
    assert refusals(attested(), kernel="6.12.1", policy=lenient) == set()


def test_what_strict_demands() -> None:
    strict = policy.load("strict")
    found = refusals(attested(benefit="worse"), policy=strict)
    assert {"other-policy", "clock-missing", "too-few-seeds", "topology-missing", "worse", "risk-not-accepted"} == found
    machines = ("2 CPUs", *(str(PRESETS[name]) for name in strict.runs.topologies))
    fine = attested(
        policy_name="full", clocks=(Clock.SIM, Clock.LIVE), seeds=10, topologies=machines, not_checked=("longer-runs",)
    )
    assert refusals(fine, policy=strict) == set()


def test_better_is_demanded_where_the_policy_says_so() -> None:
    demanding = policy.load("default")
    demand = demanding.benefit.model_copy(update={"demand": "better"})
    assert refusals(attested(), policy=demanding.model_copy(update={"benefit": demand})) == {"not-better"}


def test_only_trusted_keys_vouch() -> None:
    sealed = envelope.seal(attested().payload(), SIGNER)
    found, reasons = verify(sealed, [signer().public], Wanted())
    assert found is None, "nothing of an untrusted payload is told"
    assert [one.code for one in reasons] == ["unknown-key"]
    assert verify(sealed, [], Wanted())[1][0].code == "unknown-key"


def test_a_statement_whose_subject_is_something_else_contradicts_itself() -> None:
    found = attested()
    other = statement.subject(CANDIDATE.model_copy(update={"object_sha256": "9" * 64}))
    assert refusals(found.model_copy(update={"subject": (other,)})) == {"contradiction"}


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_is_noticed(place: int, flip: int) -> None:
    sealed = envelope.seal(attested().payload(), SIGNER)
    payload = bytearray(sealed.content)
    payload[place % len(payload)] ^= flip
    changed = sealed.model_copy(update={"payload": base64.b64encode(bytes(payload)).decode()})
    assert verify(changed, [SIGNER.public], Wanted())[1][0].code == "unknown-key"


def test_a_signature_of_another_kind_of_payload_does_not_count() -> None:
    payload = attested().payload()
    key = Ed25519PrivateKey.generate()
    forged = Envelope(
        payloadType=envelope.PAYLOAD_TYPE,
        payload=base64.b64encode(payload).decode(),
        signatures=(envelope.Signature(sig=base64.b64encode(key.sign(payload)).decode()),),
    )
    assert envelope.signers(forged, [key.public_key()]) == ()


def test_the_message_is_what_dsse_says() -> None:
    assert envelope.message(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b'{"_type": "https://in-toto.io/Statement/v1"}', b"\xff\x00", b'{"result": "PASSED"}'],
)
def test_what_is_signed_and_no_statement_is_refused(payload: bytes) -> None:
    found, reasons = verify(envelope.seal(payload, SIGNER), [SIGNER.public], Wanted())
    assert found is None
    assert [one.code for one in reasons] == ["not-a-test-result"]


def test_nothing_but_a_pass_can_be_stated() -> None:
    document = json.loads(attested().payload())
    changes: tuple[dict[str, Any], ...] = ({"result": "FAILED"}, {"failedTests": ["stall/sim"]}, {"passedTests": []})
    for change in changes:
        document["predicate"] = json.loads(attested().payload())["predicate"] | change
        sealed = envelope.seal(json.dumps(document).encode(), SIGNER)
        assert verify(sealed, [SIGNER.public], Wanted())[1][0].code == "not-a-test-result"


# --- a program's case ---------------------------------------------------------------------------------------


def program(tmp: Path, **changes: Any) -> Artifact:
    """A case's program with a library, and what the case says of it."""
    library = Library("libbpf.so.1", tmp, sha256(b"library"), 7)
    given = Candidate(Kind.PROGRAM, "scx_mine", tmp, sha256(b"program"), options=("-s", "5000"), libraries=(library,))
    directory = tmp / "candidate"
    for name, data in (("bin/scx_mine", b"program"), ("bin/scx_other", b"other"), ("lib/libbpf.so.1", b"library")):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    facts = {
        "kind": "program", "name": given.name, "sha256": given.sha256, "program_sha256": given.content_sha256,
        "options": given.options, "libraries": {library.soname: library.sha256},
    }  # fmt: skip
    files = {"bin/scx_mine": given.content_sha256, "lib/libbpf.so.1": library.sha256}
    files = changes.pop("files", files)
    return Artifact(directory, ArtifactFacts(candidate=CandidateFacts(**(facts | changes)), files=files))


@pytest.mark.parametrize(
    "change",
    [
        {"program_sha256": sha256(b"other")},
        {"options": ("-s", "20000")},
        {"libraries": {}},
        {"name": "scx_other"},
        {"sha256": "9" * 64},
        {"files": {"bin/scx_mine": sha256(b"program"), "lib/libbpf.so.1": sha256(b"other")}},
        {"files": {"../candidate/bin/scx_mine": sha256(b"program")}},
    ],
)
def test_a_program_is_attested_by_no_other_name_than_its_files_have(tmp_path: Path, change: dict[str, Any]) -> None:
    image = cast(Image, None)  # a program is copied, so nothing is built
    attest._same_bytes(program(tmp_path), image)
    with pytest.raises(attest.Refused) as refused:
        attest._same_bytes(program(tmp_path, **change), image)
    assert refused.value.code == "other-bytes"


# --- keys ----------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "config" / "testbed" / "attest.pem"
    first = envelope.signer_from_file(path, make=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert envelope.signer_from_file(path, make=True).keyid == first.keyid
    assert envelope.key_id(envelope.read_public(path.with_suffix(".pub"))) == first.keyid
    assert first.self_signed
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others may read the key"):
        envelope.signer_from_file(path)


def test_a_key_that_was_named_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no key in"):
        envelope.signer_from_file(tmp_path / "missing.pem")
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN NONSENSE-----")
    bad.chmod(0o600)
    with pytest.raises(UsageError, match="holds no unencrypted Ed25519 key"):
        envelope.signer_from_file(bad)


def script(tmp: Path, body: str) -> str:
    path = tmp / "sign"
    path.write_text(f"#!/usr/bin/env python3\nimport sys\ndata = sys.stdin.buffer.read()\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_command_signs_by_a_key_that_we_never_see(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "attest.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    payload = attested().payload()
    signature = key.sign(envelope.message(payload))
    made = envelope.signer_from_command(
        script(tmp_path, f"sys.stdout.buffer.write(bytes.fromhex({signature.hex()!r}))"), public
    )
    assert not made.self_signed
    assert envelope.signers(envelope.seal(payload, made), [key.public_key()]) == (made.keyid,)
    with pytest.raises(HostError, match="does not belong to its public key"):
        envelope.seal(payload + b" ", made)
    silent = envelope.signer_from_command(script(tmp_path, "sys.exit(4)"), public)
    with pytest.raises(HostError, match="ended with status 4 and 0 bytes"):
        envelope.seal(payload, silent)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"payloadType": "text/plain", "payload": "", "signatures": []}'])
def test_a_file_that_is_no_attestation_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(UsageError, match="is no attestation"):
        envelope.read(path)


# --- policies ------------------------------------------------------------------------------------------------


def test_the_policies_that_we_ship_are_sound_and_differ_in_what_they_take() -> None:
    shipped = policy.load_all()
    assert set(shipped) == {"default", "strict", "lab"}
    assert [name for name, one in shipped.items() if one.signatures.self_signed] == ["lab"]
    assert shipped["strict"].max_age_days < shipped["default"].max_age_days
    assert shipped["strict"].canary[0].scope == "partial"


def test_the_other_kind_of_policy_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="`quick` is a verdict policy, expected a promotion policy"):
        policy.load("quick")
    with pytest.raises(ScenarioError, match="this is a `verdict` policy, expected `kind: promotion`"):
        policy.load(str(data_directory("policies") / "verdict" / "quick.yaml"))
    with pytest.raises(ScenarioError, match="this is a `promotion` policy, expected `kind: verdict`"):
        verdict_policies.load(str(data_directory("policies") / "promotion" / "lab.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("policy: default", "policy: defualt", "there is no verdict policy `defualt`"),
        ("wait: 2s", "wait: 6s", "6000 ms is longer than the watchdog's 5000 ms"),
        ("name: watch", "name: first-minute", "two stages are called `first-minute`"),
        ("persist: false", "presist: false", "unknown key `presist`"),
        ("clocks: [sim]", "clocks: [sim]\n  topologies: [twoo]", "there is no topology `twoo`"),
    ],
)
def test_mistakes_of_an_author_are_pointed_at(old: str, new: str, message: str) -> None:
    text = (data_directory("policies") / "promotion" / "default.yaml").read_text()
    assert old in text
    with pytest.raises(ScenarioError, match=message):
        policy.parse(text.replace(old, new, 1).encode(), "mine.yaml")


# --- the command ---------------------------------------------------------------------------------------------


def test_verify_tells_a_person_and_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = tmp_path / "attest.pub"
    public.write_bytes(SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    file = tmp_path / "attestation.json"
    # Of today, as the command asks the clock.
    found = attested(time=datetime.now(UTC), seeds=0)
    file.write_text(envelope.seal(found.payload(), SIGNER).model_dump_json())
    assert main(["verify", str(file), "--key", str(public)]) == 0
    assert "verified   fair.bpf.c, signed by" in capsys.readouterr().out
    assert main(["verify", str(file), "--key", str(public), "--policy", "default"]) == 1
    assert "refused    too-few-seeds: 0 orders of events, `default` demands 1" in capsys.readouterr().out
    assert main(["verify", str(file), "--key", str(public), "--policy", "default", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["verified"], [one["code"] for one in document["refusals"]]) == (False, ["too-few-seeds"])
    assert main(["verify", str(file), "--key", str(tmp_path / "no.pub")]) == 2


def test_policy_check_looks_at_both_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data_directory("policies")
    files = [str(file) for file in sorted(folder.glob("*/*.yaml"))]
    assert main(["policy-check", *files]) == 0
    assert capsys.readouterr().out.count("ok  ") == len(files)
    bad = tmp_path / "mine.yaml"
    bad.write_text((folder / "promotion" / "lab.yaml").read_text().replace("attempts: 5", "attempts: 50"))
    assert main(["policy-check", files[0], str(bad)]) == 2
    assert "mine.yaml" in capsys.readouterr().err


# --- what is not checked of a real pass ---------------------------------------------------------------------

PASSED = ("good-stall", "good-starvation", "fifo-is-slower-and-passes", "uneven-queues-pass")


@pytest.mark.parametrize("name", PASSED)
def test_what_no_pass_can_have_looked_at_is_accepted_by_name(name: str, tmp_path: Path) -> None:
    golden = Path(__file__).resolve().parents[1] / "golden" / "cases" / name
    left = {one.code for one in judge(build_golden(golden, tmp_path / "case")).not_checked}
    assert left <= {*unseen.CODES, *modes.CODES}
    assert "own-timeout" in left, "an object's timeout is always another one in a guest"
    for promotion in ("lab", "default"):
        assert left - modes.CODES <= {risk.code for risk in policy.load(promotion).risks}, promotion


def test_a_risk_that_no_verdict_has_is_a_mistake(tmp_path: Path) -> None:
    text = (data_directory("policies") / "promotion" / "default.yaml").read_text()
    with pytest.raises(ScenarioError, match="no verdict has the risk `own-timeuot`") as error:
        policy.parse(text.replace("code: own-timeout", "code: own-timeuot").encode(), "mine.yaml")
    assert "own-timeout" in error.value.hint
