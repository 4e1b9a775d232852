# SPDX-License-Identifier: Apache-2.0
"""What `testbed-host` takes in and what it refuses: the same as `testbed verify`, whatever is uploaded.

The program is a build that finds everything below its working directory, so that each test has a host of its own.
"""

from __future__ import annotations

import base64
import copy
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.build import build
from testbed.candidate import read_candidate
from testbed.errors import TestbedError
from testbed.image import Image
from testbed.promote import envelope, law, policy, statement
from testbed.promote.envelope import Envelope
from testbed.promote.policy import PromotionPolicy
from testbed.promote.statement import Statement
from testbed.promote.verify import Wanted, verify
from testbed.sandbox import Bind, Limits, Sandbox
from testbed.spec import Clock, sha256
from testbed.topology import PRESETS
from testbed.verdict import CandidateFacts
from tests.guest.conftest import ROOT
from tests.unit.test_promote import SIGNER, attested, signer

DEFAULT = policy.load("default")
BOOT = "6a2215f9-a698-487b-a997-12f25db47759"
STALL = "stall"


def built(image: Image, out: Path, root: str = "") -> Path:
    """The program, as `host/build.sh` makes it."""
    sandbox = Sandbox(
        root=image.builder,
        read_only=(Bind(ROOT / "host", "/src"), Bind(ROOT / "vm_images/runner", "/work")),
        writable=(Bind(out, "/out"),),
        limits=Limits(wall_s=300),
    )
    result = sandbox.run(["sh", "/src/build.sh", "/src", "/out", "/work", *([root] if root else [])], merge=True)
    assert result.ok, result.text
    return out / "testbed-host"


@dataclass
class Host:
    """A host of a test: a directory that the program takes for `/`."""

    program: Path
    root: Path

    def __post_init__(self) -> None:
        for name in ("etc/testbed/trusted.d", "var/lib", "run", "proc/sys/kernel/random", "sys/kernel/sched_ext/root"):
            (self.root / name).mkdir(parents=True)
        self.write("proc/sys/kernel/random/boot_id", f"{BOOT}\n")
        self.write("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
        self.scheduler("", 3)
        self.trust(SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.policy(DEFAULT)

    def write(self, name: str, data: str | bytes, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    def trust(self, pem: bytes, name: str = "one") -> None:
        self.write(f"etc/testbed/trusted.d/{name}.pub", pem)

    def policy(self, demanded: PromotionPolicy) -> None:
        self.write("etc/testbed/promotion.json", law.document(demanded))

    def scheduler(self, ops: str, seq: int) -> None:
        self.write("sys/kernel/sched_ext/state", "enabled\n" if ops else "disabled\n")
        self.write("sys/kernel/sched_ext/enable_seq", f"{seq}\n")
        self.write("sys/kernel/sched_ext/root/ops", f"{ops}\n")

    def run(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run([self.program, *words], cwd=self.root, capture_output=True, timeout=60, check=False)
        assert done.returncode in (0, 1, 2, 3), (done.returncode, done.stderr)
        return done.returncode, json.loads(done.stdout)

    def stage(self, bundle: Path) -> str:
        code, said = self.run("stage", str(bundle))
        assert (code, said["staged"]) == (0, True), said
        return str(said["id"])

    def codes(self, bundle: Path) -> set[str]:
        """What speaks against a bundle, `check`'s exit code among it."""
        code, said = self.run("check", self.stage(bundle))
        found = {one["code"] for one in said["refusals"]}
        assert (code, said["ok"]) == (int(bool(found)), not found)
        return found

    def history(self) -> list[dict[str, Any]]:
        code, said = self.run("history")
        assert (code, said["sound"], said["broken"]) == (0, True, 0), said
        return list(said["lines"])


@pytest.fixture(scope="session")
def program(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(image, tmp_path_factory.mktemp("host-program"), ".")


@pytest.fixture
def host(program: Path, tmp_path: Path) -> Host:
    return Host(program, tmp_path / "root")


@contextmanager
def another_host(program: Path, tmp: Path) -> Iterator[Host]:
    """A host for one example."""
    place = tmp / f"host-{time.monotonic_ns()}"
    yield Host(program, place)
    shutil.rmtree(place)


def compiled(image: Image, out: Path, change: tuple[str, str] = ("", "")) -> bytes:
    source = (ROOT / "bpf/good/global_fifo.bpf.c").read_text()
    assert change[0] in source
    (out / "global_fifo.bpf.c").write_text(source.replace(*change) if change[0] else source)
    artifact = build(read_candidate(str(out / "global_fifo.bpf.c")), image, out / "candidate")
    assert artifact.ok, artifact.findings
    return (out / "candidate/candidate.bpf.o").read_bytes()


@pytest.fixture(scope="session")
def bpf_object(image: Image, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(image, tmp_path_factory.mktemp("object"))


def facts(data: bytes, **changes: Any) -> CandidateFacts:
    known: dict[str, Any] = {
        "kind": "object", "name": "fifo.bpf.o", "sha256": "1" * 64, "object_sha256": sha256(data), "ops_name": "fifo",
    }  # fmt: skip
    return CandidateFacts(**(known | changes))


def here(found: Statement, **annotations: str) -> Statement:
    """The same statement, of the kernel that this machine runs."""
    document = json.loads(found.payload())
    about = next(one for one in document["predicate"]["configuration"] if one["name"] == "kernel")
    about["annotations"] = {"release": os.uname().release} | annotations
    return statement.parse(json.dumps(document).encode())


def now(**ago: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**ago)


def bundle(place: Path, sealed: Envelope | bytes, candidate: CandidateFacts, files: dict[str, bytes]) -> Path:
    """What a promoter uploads."""
    place.mkdir(parents=True, exist_ok=True)
    data = sealed if isinstance(sealed, bytes) else sealed.model_dump_json().encode()
    (place / "attestation.json").write_bytes(data)
    (place / "manifest.json").write_bytes(statement.manifest(candidate))
    for name, content in files.items():
        (place / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "files" / name).write_bytes(content)
    return place


def object_bundle(place: Path, data: bytes, found: Statement | None = None) -> Path:
    candidate = facts(data)
    document = found or here(attested(candidate=candidate, time=now(hours=1)))
    return bundle(place, envelope.seal(document.payload(), SIGNER), candidate, {"candidate.bpf.o": data})


# --- both say the same --------------------------------------------------------------------------------------------

CASES: tuple[tuple[dict[str, Any], set[str]], ...] = (
    ({}, set()),
    ({"time": now(days=31)}, {"expired"}),
    ({"time": now(days=29)}, set()),
    ({"time": now(hours=-1)}, {"from-the-future"}),
    ({"time": now(minutes=-3)}, set()),
    ({"self_signed": True}, {"self-signed"}),
    ({"policy_name": "quick"}, {"other-policy"}),
    ({"policy_name": "full"}, set()),
    ({"policy_sha256": "0" * 64}, {"altered-policy"}),
    ({"scenarios": {STALL: "0" * 64}}, {"altered-scenario"}),
    ({"scenarios": {"of-somebody": "0" * 64}}, set()),
    ({"clocks": (Clock.LIVE,)}, {"clock-missing"}),
    ({"seeds": 0}, {"too-few-seeds"}),
    ({"not_checked": ("real-speed", "gravity")}, {"risk-not-accepted"}),
    ({"not_checked": ("overload", "suspend")}, set()),
    ({"benefit": "worse"}, set()),
    ({"clocks": (Clock.LIVE,), "seeds": 0, "self_signed": True}, {"clock-missing", "too-few-seeds", "self-signed"}),
)


@pytest.mark.parametrize(("changes", "expected"), CASES, ids=[",".join(one[0]) or "fine" for one in CASES])
def test_host_and_verify_refuse_for_the_same_reasons(
    host: Host, bpf_object: bytes, tmp_path: Path, changes: dict[str, Any], expected: set[str]
) -> None:
    candidate = facts(bpf_object)
    found = here(attested(candidate=candidate, **({"time": now(hours=1)} | changes)))
    sealed = envelope.seal(found.payload(), SIGNER)
    wanted = Wanted(DEFAULT, candidate, os.uname().release)
    assert {one.code for one in verify(sealed, [SIGNER.public], wanted)[1]} == expected
    assert host.codes(object_bundle(tmp_path / "bundle", bpf_object, found)) == expected


def all_tasks(name: str) -> PromotionPolicy:
    """A policy without its partial stages."""
    demanded = policy.load(name)
    return demanded.model_copy(update={"canary": tuple(one for one in demanded.canary if one.scope == "all")})


def test_what_strict_demands_is_demanded_on_the_host(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    strict = all_tasks("strict")
    host.policy(strict)
    candidate = facts(bpf_object)
    bad = here(attested(candidate=candidate, benefit="worse", time=now(hours=1)))
    expected = {"other-policy", "clock-missing", "too-few-seeds", "topology-missing", "worse", "risk-not-accepted"}
    assert host.codes(object_bundle(tmp_path / "bad", bpf_object, bad)) == expected
    machines = ("2 CPUs", *(str(PRESETS[name]) for name in strict.runs.topologies))
    fine = attested(
        candidate=candidate, policy_name="full", clocks=(Clock.SIM, Clock.LIVE), seeds=10, topologies=machines,
        not_checked=("longer-runs",), time=now(hours=1),
    )  # fmt: skip
    assert host.codes(object_bundle(tmp_path / "fine", bpf_object, here(fine))) == set()


def test_better_is_demanded_where_the_policy_says_so(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    demand = DEFAULT.benefit.model_copy(update={"demand": "better"})
    host.policy(DEFAULT.model_copy(update={"benefit": demand}))
    assert host.codes(object_bundle(tmp_path / "bundle", bpf_object)) == {"not-better"}


def test_risks_can_be_accepted_by_name_only(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    named = tuple(risk for risk in DEFAULT.risks if risk.code != "failure-modes")
    host.policy(DEFAULT.model_copy(update={"risks": named}))
    found = here(attested(candidate=facts(bpf_object), not_checked=("overload",), time=now(hours=1)))
    assert host.codes(object_bundle(tmp_path / "bundle", bpf_object, found)) == {"risk-not-accepted"}


def test_the_kernel_is_the_one_it_was_judged_on(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    candidate = facts(bpf_object)
    plain = attested(candidate=candidate, time=now(hours=1))  # of a kernel that this machine does not run
    assert host.codes(object_bundle(tmp_path / "other", bpf_object, plain)) == {"other-kernel"}
    host.write("sys/kernel/btf/vmlinux", b"types")
    same = here(plain, btf_sha256=sha256(b"types"))
    assert host.codes(object_bundle(tmp_path / "same", bpf_object, same)) == set()
    other = here(plain, btf_sha256=sha256(b"others"))
    assert host.codes(object_bundle(tmp_path / "btf", bpf_object, other)) == {"other-btf"}
    host.policy(DEFAULT.model_copy(update={"same_kernel": False}))
    assert host.codes(object_bundle(tmp_path / "other", bpf_object, plain)) == set()


def test_only_keys_of_the_host_count(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    fine = object_bundle(tmp_path / "bundle", bpf_object)
    host.trust(signer().public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert host.codes(fine) == {"unknown-key"}
    _, said = host.run("check", host.stage(fine))
    assert (said["case"], said["key"]) == ("", ""), "nothing of an untrusted payload is told"
    host.trust(SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "second")
    assert host.codes(fine) == set()
    for file in (host.root / "etc/testbed/trusted.d").iterdir():
        file.unlink()
    assert host.codes(fine) == {"unknown-key"}


def test_a_signature_of_another_kind_of_payload_does_not_count(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    payload = here(attested(candidate=facts(bpf_object), time=now(hours=1))).payload()
    sealed = envelope.seal(payload, SIGNER)
    raw = sealed.model_copy(
        update={"signatures": (envelope.Signature(sig=base64.b64encode(SIGNER.sign(payload)).decode()),)}
    )
    assert host.codes(bundle(tmp_path / "b", raw, facts(bpf_object), {"candidate.bpf.o": bpf_object})) == {
        "unknown-key"
    }


def test_another_candidate_than_the_attested_one(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    """Signed for one, uploaded with another, each in itself sound."""
    sealed = envelope.seal(here(attested(candidate=facts(b"another"), time=now(hours=1))).payload(), SIGNER)
    place = bundle(tmp_path / "b", sealed, facts(bpf_object), {"candidate.bpf.o": bpf_object})
    assert host.codes(place) == {"other-bytes"}


def test_the_subject_is_the_candidate_that_is_described(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    found = here(attested(candidate=facts(bpf_object), time=now(hours=1)))
    other = found.model_copy(update={"subject": (statement.subject(facts(b"another")),)})
    assert host.codes(object_bundle(tmp_path / "b", bpf_object, other)) == {"contradiction"}


def scheduler_program(place: Path, **changes: Any) -> Path:
    """A bundle of a program with a library, and with what is attested of it."""
    known: dict[str, Any] = {
        "kind": "program", "name": "scx_mine", "sha256": "1" * 64, "program_sha256": sha256(b"program"),
        "libraries": {"libbpf.so.1": sha256(b"library")}, "options": ("-s", "5000", "\u00e4\U0001f600\x7f\"\\"),
    }  # fmt: skip
    sealed = envelope.seal(
        here(attested(candidate=CandidateFacts(**(known | changes)), time=now(hours=1))).payload(), SIGNER
    )
    return bundle(place, sealed, CandidateFacts(**known), {"bin/scx_mine": b"program", "lib/libbpf.so.1": b"library"})


def test_a_program_with_its_libraries_and_options(host: Host, tmp_path: Path) -> None:
    assert host.codes(scheduler_program(tmp_path / "fine")) == set()
    assert host.codes(scheduler_program(tmp_path / "options", options=("-s", "20000"))) == {"other-options"}
    assert host.codes(scheduler_program(tmp_path / "library", libraries={})) == {"other-bytes"}
    both = scheduler_program(tmp_path / "both", options=(), program_sha256="9" * 64)
    assert host.codes(both) == {"other-options", "other-bytes"}


def test_a_file_that_changes_after_it_was_staged_is_noticed(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    id_ = host.stage(object_bundle(tmp_path / "bundle", bpf_object))
    staged = host.root / "var/lib/testbed/staged" / id_
    (staged / "files/candidate.bpf.o").write_bytes(bpf_object + b"\0")
    assert {one["code"] for one in host.run("check", id_)[1]["refusals"]} == {"other-bytes"}
    (staged / "attestation.json").write_bytes(b"{}")
    assert host.run("check", id_) == (1, {"error": {
        "code": "damaged-bundle", "message": f"the bundle `{id_}` is damaged", "hint": "stage it again",
    }})  # fmt: skip
    # The same upload once more repairs it.
    assert host.codes(tmp_path / "bundle") == set()


# --- scope --------------------------------------------------------------------------------------------------------


def test_who_was_judged_on_volunteers_is_not_switched_to_all(image: Image, host: Host, tmp_path: Path) -> None:
    data = compiled(image, tmp_path, (".name", ".flags = SCX_OPS_SWITCH_PARTIAL,\n\t.name"))
    place = object_bundle(tmp_path / "bundle", data)
    assert host.codes(place) == {"scope"}
    partial = tuple(one.model_copy(update={"scope": "partial"}) for one in DEFAULT.canary)
    host.policy(DEFAULT.model_copy(update={"canary": partial}))
    assert host.codes(place) == set()
    assert host.codes(scheduler_program(tmp_path / "program")) == {"scope"}


# --- the host's own state -----------------------------------------------------------------------------------------


def test_nobody_elses_scheduler_is_replaced(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    place = object_bundle(tmp_path / "bundle", bpf_object)
    host.scheduler("somebodys", 4)
    assert host.codes(place) == {"other-scheduler"}
    shutil.rmtree(host.root / "sys/kernel/sched_ext")
    assert host.codes(place) == {"no-sched-ext"}
    host.scheduler("", 4)
    (host.root / "proc/pressure/cpu").unlink()
    assert host.codes(place) == {"no-pressure"}


def test_a_host_without_a_policy_or_with_one_that_others_can_write(
    host: Host, bpf_object: bytes, tmp_path: Path
) -> None:
    id_ = host.stage(object_bundle(tmp_path / "bundle", bpf_object))
    path = host.root / "etc/testbed/promotion.json"
    path.chmod(0o664)
    code, said = host.run("check", id_)
    assert (code, said["error"]["code"]) == (3, "untrusted-file")
    path.chmod(0o644)
    (host.root / "etc/testbed/trusted.d/one.pub").chmod(0o666)
    assert host.run("check", id_)[1]["error"]["code"] == "untrusted-file"
    (host.root / "etc/testbed/trusted.d/one.pub").chmod(0o644)
    (host.root / "etc/testbed/trusted.d").chmod(0o777)
    assert host.run("check", id_)[1]["error"]["code"] == "untrusted-file"
    (host.root / "etc/testbed/trusted.d").chmod(0o755)
    assert host.run("check", id_)[0] == 0
    host.trust(b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", "short")
    assert host.run("check", id_)[1]["error"]["code"] == "bad-key"
    path.unlink()
    assert host.run("check", id_)[1]["error"]["code"] == "no-policy"


def test_a_policy_is_read_strictly(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    id_ = host.stage(object_bundle(tmp_path / "bundle", bpf_object))
    sound = json.loads(law.document(DEFAULT))
    changes: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda one: one.pop("failure_modes"),
        lambda one: one.update(more=1),
        lambda one: one["policy"].update(canary=[]),
        lambda one: one["policy"]["canary"][0].update(scope="some"),
        lambda one: one["policy"]["canary"][0].update(duration=True),
        lambda one: one["policy"]["limits"].update(watchdog=10**9),
        lambda one: one["policy"]["limits"].update(wait=30000),
        lambda one: one["policy"]["limits"].update(pressure="30"),
        lambda one: one["policy"]["limits"].update(attempts=0),
        lambda one: one["policy"].update(persist=1),
        lambda one: one["verdict_policies"].pop("full"),
        lambda one: one["policy"].update(kind="verdict"),
    )
    for change in changes:
        document = copy.deepcopy(sound)
        change(document)
        host.write("etc/testbed/promotion.json", json.dumps(document))
        code, said = host.run("check", id_)
        assert (code, said["error"]["code"]) == (3, "bad-policy"), said


def test_attempts_are_counted_from_the_log(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    """There is no unit here, so an attempt begins and does not get further: that is not the candidate's fault."""
    place = object_bundle(tmp_path / "bundle", bpf_object)
    id_ = host.stage(place)
    code, said = host.run("start", id_)
    assert (code, said["error"]["code"]) == (3, "unit-failed")
    assert [line["what"] for line in host.history()] == ["start", "not-started"]
    assert host.codes(place) == set()
    # A host that goes down with it leaves a beginning without an end.
    log = host.root / "var/lib/testbed/audit.jsonl"
    subprocess.run(["chattr", "-a", log], check=False, capture_output=True)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0])
    assert host.codes(place) == {"attempts-used-up"}
    assert host.run("forgive", id_)[0] == 0
    assert host.codes(place) == set()


def test_a_refusal_to_start_is_logged(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    id_ = host.stage(object_bundle(tmp_path / "bundle", bpf_object))
    host.scheduler("somebodys", 4)
    code, said = host.run("start", id_)
    assert (code, said["started"], said["ok"]) == (1, False, False)
    assert [(line["what"], line["codes"]) for line in host.history()] == [("refused", ["other-scheduler"])]


def test_two_promoters_at_once(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    id_ = host.stage(object_bundle(tmp_path / "bundle", bpf_object))
    with (host.root / "run/testbed/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("somebody", file=lock, flush=True)
        code, said = host.run("start", id_)
    assert "somebody" in said["error"]["message"]
    assert (code, said["error"]["code"]) == (1, "busy")


def test_a_clock_behind_the_log_tells_no_age(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    place = object_bundle(tmp_path / "bundle", bpf_object)
    host.run("forgive", host.stage(place))
    log = host.root / "var/lib/testbed/audit.jsonl"
    subprocess.run(["chattr", "-a", log], check=False, capture_output=True)
    line = json.loads(log.read_bytes())
    line["time"] = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    log.write_text(json.dumps(line) + "\n")
    assert host.codes(place) == {"clock-went-back"}


# --- the log ------------------------------------------------------------------------------------------------------


def logged(host: Host, bpf_object: bytes, tmp: Path, times: int) -> Path:
    id_ = host.stage(object_bundle(tmp / "bundle", bpf_object))
    for _ in range(times):
        assert host.run("forgive", id_)[0] == 0
    log = host.root / "var/lib/testbed/audit.jsonl"
    subprocess.run(["chattr", "-a", log], check=False, capture_output=True)
    return log


def test_the_log_is_chained(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    log = logged(host, bpf_object, tmp_path, 4)
    lines = log.read_bytes().splitlines()
    assert json.loads(lines[0])["prev"] == "0" * 64
    for before, after in itertools.pairwise(lines):
        assert json.loads(after)["prev"] == sha256(before)
    assert [line["seq"] for line in host.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", ["edited", "removed", "swapped", "garbage"])
def test_a_changed_log_is_found(host: Host, bpf_object: bytes, tmp_path: Path, change: str) -> None:
    log = logged(host, bpf_object, tmp_path, 4)
    lines = log.read_bytes().splitlines(keepends=True)
    if change == "edited":
        lines[1] = lines[1].replace(b"forgiven", b"forgotten")
    elif change == "removed":
        del lines[1]
    elif change == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines[1] = b"\0\xff{\n"
    log.write_bytes(b"".join(lines))
    code, said = host.run("history")
    assert (code, said["sound"]) == (1, False)
    assert said["broken"] == {"edited": 3, "removed": 2, "swapped": 2, "garbage": 2}[change]


@pytest.mark.parametrize("torn", [b'{"seq":4,"ti', b"\0\0\0\0"])
def test_a_line_that_a_power_cut_tore_is_told_and_breaks_nothing(
    host: Host, bpf_object: bytes, tmp_path: Path, torn: bytes
) -> None:
    log = logged(host, bpf_object, tmp_path, 3)
    with log.open("ab") as file:
        file.write(torn)
    assert host.run("history")[1]["torn"] == 1
    host.run("forgive", next((host.root / "var/lib/testbed/staged").iterdir()).name)
    code, said = host.run("history")
    assert (code, said["torn"], said["lines"][-1]["torn"]) == (0, 1, True)
    assert [line["seq"] for line in said["lines"]] == [1, 2, 3, 4]


# --- what strangers upload ----------------------------------------------------------------------------------------


def refused(host: Host, place: Path) -> str:
    code, said = host.run("stage", str(place))
    assert code == 1, said
    assert [one.name for one in (host.root / "var/lib/testbed/staged").iterdir()] == []
    return str(said["error"]["code"])


def test_links_and_other_things_are_not_followed(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    place = object_bundle(tmp_path / "bundle", bpf_object)
    file = place / "files/candidate.bpf.o"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert refused(host, place) == "bad-bundle"
    file.unlink()
    os.mkfifo(file)
    assert refused(host, place) == "bad-bundle"
    file.unlink()
    file.mkdir()
    assert refused(host, place) == "bad-bundle"
    file.rmdir()
    (place / "files").rmdir()
    (place / "files").symlink_to(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "candidate.bpf.o")
    assert refused(host, place) == "bad-bundle"
    (tmp_path / "link").symlink_to(place)
    assert refused(host, tmp_path / "link") == "bad-bundle"
    (place / "manifest.json").rename(tmp_path / "manifest")
    (place / "manifest.json").symlink_to(tmp_path / "manifest")
    assert refused(host, place) == "bad-bundle"


def test_files_that_are_too_large_are_not_read(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    place = object_bundle(tmp_path / "bundle", bpf_object)
    os.truncate(place / "files/candidate.bpf.o", 1 << 40)  # holes: it takes no room
    assert refused(host, place) == "bad-bundle"
    os.truncate(place / "attestation.json", 1 << 30)
    assert refused(host, place) == "bad-bundle"


def test_other_bytes_than_the_manifest_names_are_not_taken(host: Host, bpf_object: bytes, tmp_path: Path) -> None:
    place = object_bundle(tmp_path / "bundle", bpf_object)
    (place / "files/candidate.bpf.o").write_bytes(bpf_object[:-1])
    assert refused(host, place) == "other-bytes"


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "a/b", ".", "..", "", ".hidden", "a b", "a\nb", "a\0b", "x" * 300]
)
def test_names_lead_nowhere_else(host: Host, tmp_path: Path, name: str) -> None:
    place = scheduler_program(tmp_path / "bundle")
    manifest = json.loads((place / "manifest.json").read_bytes())
    for change in ({"name": name}, {"libraries": {name: "0" * 64}}):
        changed = copy.deepcopy(manifest)
        changed["candidate"] |= change
        (place / "manifest.json").write_text(json.dumps(changed))
        assert refused(host, place) == "bad-manifest"


@pytest.mark.parametrize("id_", ["", "..", "../staged", "0" * 63, "0" * 64, "G" * 64, "/" + "0" * 63])
def test_ids_lead_nowhere_else(host: Host, id_: str) -> None:
    for verb in ("check", "start", "forgive"):
        code, said = host.run(verb, id_)
        assert (code, said["error"]["code"]) == (1, "not-staged")


def test_old_bundles_make_room(host: Host, tmp_path: Path) -> None:
    for number in range(20):
        data = b"object %d" % number
        host.stage(object_bundle(tmp_path / str(number), data))
    assert len(list((host.root / "var/lib/testbed/staged").iterdir())) == 16


def test_wrong_use(host: Host) -> None:
    for words in ((), ("attach",), ("check",), ("facts", "x"), ("stage", "a", "b"), ("--help",)):
        code, said = host.run(*words)
        assert (code, said["error"]["code"]) == (2, "usage")


def test_facts_and_status_of_a_host_that_has_nothing(host: Host) -> None:
    code, said = host.run("facts")
    assert (code, said["boot"], said["sched_ext"]["state"]) == (0, BOOT, "disabled")
    assert said["kernel"]["release"] == os.uname().release
    code, said = host.run("status")
    assert (code, said["healthy"], said["record"], said["holder"]) == (0, True, None, "nobody")
    host.scheduler("somebodys", 4)
    code, said = host.run("status")
    assert (code, said["discrepancies"], said["holder"]) == (1, ["no-record"], "other")
    assert host.run("stop")[1]["error"]["code"] == "not-running"
    assert host.run("follow")[1]["error"]["code"] == "no-watcher"


@pytest.mark.parametrize(
    ("phase", "boot", "enabled", "wrong"),
    [
        ("kept", BOOT, "fifo", ["watcher-gone", "orphan"]),
        ("kept", BOOT, "", ["watcher-gone", "not-enabled"]),
        ("canary", BOOT, "other", ["watcher-gone", "other-scheduler"]),
        ("kept", "another", "", ["rebooted"]),
        ("stopped", BOOT, "fifo", ["still-enabled"]),
        ("rolled-back", BOOT, "other", ["other-scheduler"]),
        ("rolled-back", BOOT, "", []),
    ],
)
def test_status_tells_what_record_and_kernel_disagree_about(
    host: Host, phase: str, boot: str, enabled: str, wrong: list[str]
) -> None:
    record = {"id": "a" * 64, "phase": phase, "boot": boot, "ops": "fifo", "enable_seq": 7}
    host.run("status")
    host.write("var/lib/testbed/current", json.dumps(record))
    host.scheduler(enabled, 7)
    code, said = host.run("status")
    assert (code, said["discrepancies"]) == (int(bool(wrong)), wrong)


# --- damage -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["PASSED", "sim", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def altered(document: Any, path: tuple[str | int, ...], value: Any, how: str) -> Any:
    if not path:
        return value
    found = document
    for key in path[:-1]:
        found = found[key]
    if how == "removed":
        del found[path[-1]]
    elif how == "added" and isinstance(found, dict):
        found["more"] = value
    else:
        found[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("resource", "changes"),
    [
        ("candidate", {"programs": None}),
        ("candidate", {"programs": {}}),
        ("candidate", {"programs": [None]}),
        ("candidate", {"programs": [{}]}),
        ("candidate", {"programs": [{"name": 1}]}),
        ("candidate", {"programs": [{"name": "", "x": 1}]}),
        ("runs", {"digests": {"runs/000": None}}),
        ("runs", {"clocks": ["sim", "lunar"]}),
        ("runs", {"seeds": -1}),
        ("testbed", {"time": "2026-02-30T12:00:00Z"}),
        ("testbed", {"time": "2026-02-03T12:00:00"}),
    ],
)
def test_what_no_policy_asks_for_must_be_right_all_the_same(
    host: Host, bpf_object: bytes, tmp_path: Path, resource: str, changes: dict[str, object]
) -> None:
    document = json.loads(here(attested(candidate=facts(bpf_object), time=now(hours=1))).payload())
    found = next(one for one in document["predicate"]["configuration"] if one["name"] == resource)
    found["annotations"] |= changes
    sealed = envelope.seal(json.dumps(document).encode(), SIGNER)
    wanted = Wanted(DEFAULT, facts(bpf_object), os.uname().release)
    assert {one.code for one in verify(sealed, [SIGNER.public], wanted)[1]} == {"not-a-test-result"}
    place = bundle(tmp_path / "bundle", sealed, facts(bpf_object), {"candidate.bpf.o": bpf_object})
    assert host.codes(place) == {"not-a-test-result"}


@SLOW
@given(data=st.data())
def test_what_verify_refuses_the_host_refuses(
    program: Path, bpf_object: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    """A signed statement with one thing changed: the host may be stricter, and never takes more."""
    candidate = facts(bpf_object)
    document = json.loads(here(attested(candidate=candidate, time=now(hours=1))).payload())
    path = data.draw(st.sampled_from(sorted(places(document), key=repr)))
    document = altered(document, path, data.draw(JSON), data.draw(st.sampled_from(["changed", "removed", "added"])))
    sealed = envelope.seal(json.dumps(document).encode(), SIGNER)
    try:
        reasons = {
            one.code for one in verify(sealed, [SIGNER.public], Wanted(DEFAULT, candidate, os.uname().release))[1]
        }
    except TestbedError:
        reasons = {"raised"}
    with another_host(program, tmp_path) as host:
        place = bundle(tmp_path / "bundle", sealed, candidate, {"candidate.bpf.o": bpf_object})
        said = host.codes(place)
    assert bool(said) >= bool(reasons), (path, reasons, said)


@SLOW
@given(data=st.data())
def test_damaged_uploads_never_pass(program: Path, bpf_object: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Any byte of the attestation or the manifest changed, cut or put in: refused, and nothing crashes."""
    place = object_bundle(tmp_path / "bundle", bpf_object)
    name = data.draw(st.sampled_from(["attestation.json", "manifest.json"]))
    content = bytearray((place / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "put", "bits"]))
    if how == "cut":
        del content[at:]
    elif how == "put":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=8).filter(lambda one: bool(one.strip(b" \n\t\r"))))
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    (place / name).write_bytes(bytes(content))
    with another_host(program, tmp_path) as host:
        code, said = host.run("stage", str(place))
        if code == 0:
            code, said = host.run("check", said["id"])
            if json_equal(bytes(content), name, bpf_object, tmp_path):
                return
            assert (code, bool(said["refusals"])) == (1, True), said
        else:
            assert said["error"]["code"] in ("bad-manifest", "other-bytes", "bad-bundle"), said


def json_equal(content: bytes, name: str, bpf_object: bytes, tmp: Path) -> bool:
    """Whether an attestation that was changed still says the same: `keyid` is a hint that nobody signs."""
    if name != "attestation.json":
        return False
    try:
        changed = Envelope.model_validate_json(content)
        return bool(envelope.signers(changed, [SIGNER.public]))
    except (ValueError, TestbedError):
        return False
