# SPDX-License-Identifier: Apache-2.0
"""Promotions without a host: what is sent, what is believed, who comes next, and an administrator's commands."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from testbed.build import ArtifactFacts
from testbed.case import write_model
from testbed.cli import main
from testbed.errors import ExitCode, HostError, ScenarioError, UsageError
from testbed.hosts import install, promotion, reach
from testbed.hosts.inventory import Rollout, rollout
from testbed.hosts.program import Program
from testbed.hosts.promotion import HostResult, Outcome
from testbed.hosts.reach import Answer, Here, Keys, Line
from testbed.hosts.resident import PROGRAM, HostSays, Resident, parse
from testbed.hosts.ssh import Remote
from testbed.promote import bundle, envelope, law, policy, statement
from testbed.promote.bundle import Bundle
from testbed.report.events import Event
from testbed.spec import sha256
from testbed.verdict import CandidateFacts
from tests.unit.test_promote import SIGNER, attested

ID = "a" * 64
WAIT_S = 20
FACTS = {
    "schema": "testbed.host-facts/1",
    "root": False,
    "kernel": {"release": "7.3.4"},
    "program": {"version": "1", "sha256": sha256(b"program")},
}
KEPT: list[dict[str, Any]] = [
    {"event": "attached", "ops": "fifo", "enable_seq": 1},
    {"event": "stage", "stage": "watch", "scope": "all", "number": 1, "of": 1, "duration_ms": 1000},
    {"event": "sample", "wait_us": 900, "pressure": 3.5},
    {"event": "sample", "wait_us": 200, "pressure": 9.5},
    {"event": "kept", "ops": "fifo"},
]
ROLLBACK: list[dict[str, Any]] = [
    *KEPT[:3],
    {"event": "limit", "limit": "wait", "message": "a task waits"},
    {"event": "rollback", "limit": "wait", "message": "a task waits", "back": True, "back_us": 900, "how": "link"},
    {"event": "done", "outcome": "rolled-back"},
]
QUIET: dict[str, Any] = {"healthy": True, "kernel": {"state": "disabled"}, "record": None, "discrepancies": []}


class Talk:
    """What a watcher says, by heart."""

    def __init__(self, events: Sequence[object], ends: bool = True) -> None:
        self._lines = [json.dumps(event).encode() for event in events]
        self._ends = ends
        self.let_go = False
        self.sent = b""

    def poll(self, wait_s: float) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines

    @property
    def open(self) -> bool:
        return bool(self._lines) or not self._ends

    def send(self, data: bytes) -> None:
        self.sent += data

    def end_input(self) -> None:
        self._ends = self.let_go = True

    def status(self) -> int | None:
        return 0

    def close(self) -> None:
        pass


class Fake:
    """A host that answers by heart."""

    def __init__(self, name: str, answers: Mapping[str, Any], events: Sequence[object] = KEPT) -> None:
        self._name = name
        self.answers = {"facts": FACTS, "stage": {"staged": True, "id": ID}, "status": QUIET, **answers}
        self.events = events
        self.ends = True
        self.talks: list[Talk] = []
        self.asked: list[list[str]] = []
        self.uploaded: dict[str, bytes | Path] = {}
        self.places: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    def run(self, words: Sequence[str], wall_s: float = 0) -> Answer:
        self.asked.append(list(words))
        if "stop" in words and self.talks and self.answers["stop"] == {"stopped": True, "back": True}:
            self.talks[-1].end_input()
        answer = self.answers.get(words[words.index(PROGRAM) + 1] if PROGRAM in words[:-1] else words[0])
        if isinstance(answer, Answer):
            return answer
        return Answer(0, json.dumps(answer).encode(), "")

    def talk(self, words: Sequence[str]) -> Line:
        self.asked.append(list(words))
        self.talks.append(Talk(self.events, self.ends))
        return self.talks[-1]

    def upload(self, files: Mapping[str, bytes | Path]) -> str:
        self.uploaded = dict(files)
        self.places.append("/tmp/testbed-00000000")
        return self.places[-1]

    def discard(self, place: str, files: Mapping[str, bytes | Path]) -> None:
        self.places.remove(place)

    def close(self) -> None:
        pass


class Sent(Bundle):
    """A bundle that has the id of the fakes."""

    @property
    def id(self) -> str:
        return ID


BUNDLE = Sent("fifo.bpf.c", b"{}", b"{}", {})
STARTED = {"started": True, "id": ID}


def promote(fake: Fake, cancelled: bool = False) -> tuple[HostResult, list[Event]]:
    events: list[Event] = []
    stop = threading.Event()
    if cancelled:
        stop.set()
    return promotion.promote(BUNDLE, fake.name, lambda host: fake, events.append, stop), events


def refusing(code: int, error: Mapping[str, str]) -> Answer:
    return Answer(code, json.dumps({"error": error}).encode(), "")


# --- one host -----------------------------------------------------------------------------------------------------


def test_what_is_kept_was_asked_for_in_order_and_leaves_no_upload() -> None:
    fake = Fake("web", {"start": STARTED})
    result, events = promote(fake)
    assert (result.outcome, result.exit_code) == (Outcome.KEPT, ExitCode.PASS)
    assert result.worst == {"wait_us": 900, "pressure": 9.5}
    assert [one["event"] for one in result.events] == ["attached", "stage", "kept"]
    sudo = ["sudo", "-n", PROGRAM]
    stage = [*sudo, "stage", "/tmp/testbed-00000000"]
    assert fake.asked == [[PROGRAM, "facts"], stage, [*sudo, "start", ID], [*sudo, "follow"]]
    assert fake.places == []
    assert [event.event for event in events if event.event != "stage_line"] == ["stage_started"] * 2 + [
        "stage_ended"
    ] * 2


def test_root_needs_no_sudo() -> None:
    fake = Fake("web", {"start": STARTED, "facts": FACTS | {"root": True}})
    promote(fake)
    assert all(words[0] == PROGRAM for words in fake.asked)


def test_a_rollback_says_why_and_whether_it_is_confirmed() -> None:
    result, _ = promote(Fake("web", {"start": STARTED}, ROLLBACK))
    assert (result.outcome, result.code, result.exit_code) == (Outcome.ROLLED_BACK, "wait", ExitCode.REJECT)
    not_back = [{**one, "back": False} if one["event"] == "rollback" else one for one in ROLLBACK]
    result, _ = promote(Fake("web", {"start": STARTED}, not_back))
    assert "could not confirm" in result.message


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        ({"started": False, "refusals": [{"code": "expired", "message": "old"}]}, Outcome.REFUSED, "expired"),
        ({"started": False, "event": {"event": "rollback", "message": "init"}}, Outcome.ROLLED_BACK, "not-attached"),
        (refusing(1, {"code": "busy", "message": "by anna", "hint": "wait"}), Outcome.REFUSED, "busy"),
        (refusing(3, {"code": "disk-full", "message": "no room", "hint": ""}), Outcome.FAILED, "disk-full"),
        (Answer(1, b"", "sudo: a password is required"), Outcome.FAILED, ""),
        (Answer(127, b"", "sh: not found"), Outcome.FAILED, ""),
        (Answer(0, b"[1, 2]", ""), Outcome.FAILED, ""),
        ({}, Outcome.REFUSED, ""),
        ({"started": "yes", "refusals": "none"}, Outcome.REFUSED, ""),
    ],
)
def test_what_is_not_started_is_told_apart(answer: object, outcome: Outcome, code: str) -> None:
    result, _ = promote(Fake("web", {"start": answer}))
    assert (result.outcome, result.code) == (outcome, code)
    assert result.message


@pytest.mark.parametrize(
    ("record", "outcome", "code"),
    [
        ({"id": ID, "phase": "kept"}, Outcome.KEPT, ""),
        ({"id": ID, "phase": "rolled-back", "limit": "wait", "message": "waited"}, Outcome.ROLLED_BACK, "wait"),
        ({"id": ID, "phase": "rolled-back", "limit": "lifeline"}, Outcome.LOST, "lifeline"),
        ({"id": "b" * 64, "phase": "kept"}, Outcome.LOST, ""),
        ("nonsense", Outcome.LOST, ""),
    ],
)
def test_after_a_lost_connection_the_host_is_asked(record: object, outcome: Outcome, code: str) -> None:
    fake = Fake("web", {"start": STARTED, "status": QUIET | {"record": record}}, KEPT[:2])
    result, _ = promote(fake)
    assert (result.outcome, result.code) == (outcome, code)
    assert result.status is not None


def test_who_is_gone_before_anybody_saw_it_was_rolled_back() -> None:
    gone = refusing(3, {"code": "unit-failed", "message": "the watcher has ended", "hint": ""})
    record = {"id": ID, "phase": "rolled-back", "limit": "left", "message": "runtime error"}
    result, _ = promote(Fake("web", {"start": gone, "status": QUIET | {"record": record}}))
    assert (result.outcome, result.code, result.message) == (Outcome.ROLLED_BACK, "left", "runtime error")
    result, _ = promote(Fake("web", {"start": gone}))
    assert (result.outcome, result.code) == (Outcome.FAILED, "unit-failed")


def test_who_changes_their_mind_has_it_taken_back_by_hand() -> None:
    stopped = {"stopped": True, "back": True}
    fake = Fake("web", {"start": STARTED, "stop": stopped}, [*KEPT[:2], {"event": "done", "outcome": "stopped"}])
    fake.ends = False
    result, _ = promote(fake, cancelled=True)
    assert (result.outcome, result.exit_code) == (Outcome.STOPPED, ExitCode.INTERRUPTED)
    assert fake.asked[-1] == ["sudo", "-n", PROGRAM, "stop"]
    # Where even that does not get through, the lifeline is let go.
    fake = Fake("web", {"start": STARTED, "stop": Answer(255, b"", "")}, KEPT[:2])
    fake.ends = False
    assert promote(fake, cancelled=True)[0].outcome is Outcome.LOST
    assert fake.talks[0].let_go


def test_a_host_that_stages_something_else_is_not_trusted_with_more() -> None:
    fake = Fake("web", {"stage": {"staged": True, "id": "b" * 64}, "start": STARTED})
    assert promote(fake)[0].outcome is Outcome.FAILED
    assert not any("start" in words for words in fake.asked)
    fake = Fake("web", {"stage": {"staged": True, "id": "x; reboot"}, "start": STARTED})
    assert promote(fake)[0].outcome is Outcome.FAILED


# --- what a host says -----------------------------------------------------------------------------------------------


def test_nothing_of_a_host_reaches_a_terminal_as_it_is() -> None:
    told = parse(json.dumps({"a\x1b[2J": ["\x1b]0;title\x07ok", {"b": "x" * 9000}], "n": 1}).encode())
    assert told["a"][0] == "ok" and len(told["a"][1]["b"]) <= 2000 and told["n"] == 1
    deep = "[" * 100_000 + "]" * 100_000
    for bad in (b"", b"[]", b'"x"', b'{"a": ' + deep.encode() + b"}", b"\xff\xfe"):
        with pytest.raises(ValueError):
            parse(bad)


@given(st.binary(max_size=200))
def test_any_bytes_of_a_host_are_a_document_or_none(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse(data), dict)


def test_an_error_of_a_host_keeps_its_code_and_names_the_host() -> None:
    resident = Resident(
        Fake("web", {"stop": refusing(1, {"code": "not-running", "message": "nothing", "hint": "status"})})
    )
    with pytest.raises(HostSays, match="web: nothing") as caught:
        resident.stop()
    assert (caught.value.code, caught.value.exit_code, caught.value.hint) == ("not-running", ExitCode.REJECT, "status")


# --- several hosts --------------------------------------------------------------------------------------------------


def roll(hosts: Sequence[Fake], hands: Rollout) -> promotion.PromotionResult:
    by_name = {host.name: host for host in hosts}
    hands.begin(ID)
    return promotion.promote_all(
        BUNDLE, [host.name for host in hosts], lambda name: by_name[name], lambda event: None, threading.Event(),
        share=hands.share, before=hands.note, known=hands.known,
    )  # fmt: skip


def test_the_first_rollback_ends_it_and_a_second_try_goes_on_from_there(tmp_path: Path) -> None:
    running = QUIET | {"record": {"id": ID, "phase": "kept"}}
    one, two, three = (Fake(name, {"start": STARTED}) for name in ("one", "two", "three"))
    two.events = ROLLBACK
    hands = Rollout(("one", "two", "three"), file=tmp_path / "state.json")
    result = roll([one, two, three], hands)
    assert [host.outcome for host in result.hosts] == [Outcome.KEPT, Outcome.ROLLED_BACK, Outcome.SKIPPED]
    assert (result.exit_code, three.asked) == (ExitCode.REJECT, [])
    two.events = KEPT
    one.answers["status"] = running
    one.asked.clear()
    result = roll([one, two, three], Rollout(("one", "two", "three"), file=tmp_path / "state.json"))
    assert [host.outcome for host in result.hosts] == [Outcome.KEPT] * 3
    assert result.exit_code is ExitCode.PASS
    assert not any("start" in words for words in one.asked), "it runs there already, by its own word"


def test_who_does_not_run_it_any_more_gets_it_again(tmp_path: Path) -> None:
    one = Fake("one", {"start": STARTED})
    hands = Rollout(("one",), file=tmp_path / "state.json")
    roll([one], hands)
    one.asked.clear()
    assert roll([one], Rollout(("one",), file=tmp_path / "state.json")).hosts[0].outcome is Outcome.KEPT
    assert any("start" in words for words in one.asked)


def test_a_share_goes_at_once_and_all_of_it_ends() -> None:
    hosts = [Fake(str(number), {"start": STARTED}) for number in range(4)]
    hosts[0].events = ROLLBACK
    result = roll(hosts, Rollout(tuple("0123"), share=0.5))
    assert [host.outcome for host in result.hosts] == [
        Outcome.ROLLED_BACK, Outcome.KEPT, Outcome.SKIPPED, Outcome.SKIPPED,
    ]  # fmt: skip


def test_an_inventory_says_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("schema: testbed.inventory/1\nkind: inventory\nshare: 25%\nhosts:\n  - deploy@web1\n  - local\n")
    found = rollout([str(file)])
    assert (found.hosts, found.share, found.file) == (("deploy@web1", "local"), 0.25, tmp_path / "web.state.json")
    file.write_text("schema: testbed.inventory/1\nkind: inventory\nhosts:\n  - deploy@web1\n  - -oProxyCommand=x\n")
    with pytest.raises(ScenarioError, match=r"web.yaml:5: `-oProxyCommand=x` is no host"):
        rollout([str(file)])
    for words in ([], [str(file), "local"], ["local", "local"], ["a b"], ["user@host:port"]):
        with pytest.raises(UsageError):
            rollout(list(words))


# --- what is sent ---------------------------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path: Path) -> Path:
    place = tmp_path / "case"
    (place / "candidate").mkdir(parents=True)
    (place / "candidate/candidate.bpf.o").write_bytes(b"object")
    candidate = CandidateFacts(
        kind="object", name="fifo.bpf.o", sha256="1" * 64, object_sha256=sha256(b"object"), ops_name="fifo"
    )
    files = {"candidate.bpf.o": sha256(b"object")}
    write_model(place / "candidate/artifact.json", ArtifactFacts(candidate=candidate, files=files))
    sealed = envelope.seal(attested(candidate=candidate).payload(), SIGNER)
    write_model(place / "attestation.json", sealed)
    return place


def test_a_bundle_is_what_was_attested(case: Path, tmp_path: Path) -> None:
    found = bundle.read(case)
    assert found.id == sha256((case / "attestation.json").read_bytes())
    signed = statement.parse(envelope.read(case / "attestation.json").content)
    assert signed.subject[0].digest["sha256"] == found.subject
    assert set(found.parts()) == {"attestation.json", "manifest.json", "files/candidate.bpf.o"}
    alone = tmp_path / "alone"
    alone.write_bytes((case / "attestation.json").read_bytes())
    assert bundle.read(alone, case) == found
    (case / "candidate/candidate.bpf.o").write_bytes(b"other")
    with pytest.raises(UsageError, match="is not what was judged"):
        bundle.read(case)


def test_an_attestation_of_something_else_is_not_sent(case: Path) -> None:
    write_model(case / "attestation.json", envelope.seal(attested().payload(), SIGNER))
    with pytest.raises(UsageError, match="attests another candidate"):
        bundle.read(case)
    (case / "attestation.json").unlink()
    with pytest.raises(UsageError, match="has no attestation"):
        bundle.read(case)


def test_promoting_asks_no_host_before_the_question_is_right(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", str(case)]) == 2
    assert "--host local" in capsys.readouterr().err
    assert main(["promote", str(case / "nothing"), "--host", "local"]) == 2
    assert main(["promote", str(case), "--host", "$(reboot)"]) == 2


# --- an administrator's commands -----------------------------------------------------------------------------------


def wanted(tmp_path: Path, **changes: Any) -> install.Wanted:
    for name in ("testbed-host", "testbed-host.service"):
        (tmp_path / name).write_bytes(b"program")
    key = tmp_path / "attest.pub"
    key.write_bytes(SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    program = Program(tmp_path / "testbed-host", tmp_path / "testbed-host.service")
    known: dict[str, Any] = {"program": program, "policy": policy.load("default"), "trusted": [key]}
    return install.Wanted(**(known | changes))


def test_installing_is_fixed_words_and_everything_is_roots(tmp_path: Path) -> None:
    fake = Fake("web", {"id": Answer(0, b"1000\n", ""), "sudo": Answer(0, b"", "")})
    install.install(fake, wanted(tmp_path, promoter="deploy"))
    steps = [words for words in fake.asked if words[:2] == ["sudo", "-n"]]
    assert all(words[:2] == ["sudo", "-n"] for words in fake.asked[1:-1])
    assert fake.uploaded["promotion.json"] == law.document(policy.load("default"))
    assert steps[0][2:4] == ["visudo", "-c"], "before anything is written"
    for words in steps:
        if words[2] == "install":
            assert words[-1].startswith(("/etc/", "/usr/local/sbin/")) and "root" in words
    assert ["sudo", "-n", "systemctl", "disable", "--quiet", "testbed-host"] in steps
    assert fake.places == []


def test_a_step_that_fails_is_told_and_the_upload_removed(tmp_path: Path) -> None:
    fake = Fake("web", {"id": Answer(0, b"1000\n", ""), "sudo": Answer(1, b"", "sudo: a password is required")})
    with pytest.raises(HostError, match="refuses `install -d`"):
        install.install(fake, wanted(tmp_path))
    assert fake.places == []


def test_another_program_than_was_installed_is_noticed(tmp_path: Path) -> None:
    fake = Fake("web", {"id": Answer(0, b"0\n", ""), "facts": FACTS | {"program": {"sha256": "0" * 64}}})
    with pytest.raises(HostError, match="has another"):
        install.install(fake, wanted(tmp_path))


@pytest.mark.parametrize("user", ["", "ALL", "a b", "x\nroot ALL=(ALL) ALL", "#1000", "%wheel", "-x"])
def test_no_name_of_a_user_becomes_another_rule(user: str) -> None:
    with pytest.raises(UsageError):
        install.sudo_rules(user)


def test_nobody_trusted_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no key is trusted"):
        install.install(Fake("web", {"id": Answer(0, b"0\n", "")}), wanted(tmp_path, trusted=[]))


# --- this machine, and ssh -----------------------------------------------------------------------------------------


def test_this_machine_is_a_host_too(tmp_path: Path) -> None:
    here = Here()
    assert here.run(["printf", "%s", "a b; c"]).out == b"a b; c"
    assert here.run(["/nowhere/program"]).code == 127
    place = here.upload({"one": b"1", "files/two": tmp_path / "two"} if (tmp_path / "two").write_bytes(b"2") else {})
    assert (Path(place).stat().st_mode & 0o777, (Path(place) / "files/two").read_bytes()) == (0o700, b"2")
    here.discard(place, {})
    assert not Path(place).exists()
    line = here.talk(["cat"])
    line.send(b"beat\n")
    assert line.poll(WAIT_S) == [b"beat"]
    line.end_input()
    assert (line.poll(WAIT_S), line.open, line.status()) == ([], False, 0)
    line.close()


class Server(paramiko.ServerInterface):
    """A host that knows one key and runs what it is told."""

    def __init__(self, allowed: paramiko.PKey) -> None:
        self.allowed = allowed

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        fine = key.asbytes() == self.allowed.asbytes()
        return int(AUTH_SUCCESSFUL if fine else AUTH_FAILED)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        done = subprocess.run(
            ["sh", "-c", command.decode()], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
        channel.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[], tuple[str, paramiko.PKey]]]:
    """Starts a server for one connection; its target and host key."""
    listening = socket.create_server(("127.0.0.1", 0))
    own = paramiko.ECDSAKey.generate()
    client = paramiko.ECDSAKey.generate()
    client.write_private_key_file(str(tmp_path / "identity"))
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        connection, _ = listening.accept()
        transport = paramiko.Transport(connection)
        transports.append(transport)
        transport.add_server_key(own)
        transport.start_server(event=threading.Event(), server=Server(client))

    def start() -> tuple[str, paramiko.PKey]:
        threading.Thread(target=serve, daemon=True).start()
        return f"somebody@127.0.0.1:{listening.getsockname()[1]}", own

    yield start
    for transport in transports:
        transport.close()
    listening.close()


def test_an_unknown_host_is_refused_with_the_line_that_would_make_it_known(
    server: Callable[[], tuple[str, paramiko.PKey]], tmp_path: Path
) -> None:
    target, key = server()
    keys = Keys(tmp_path / "known_hosts", tmp_path / "identity")
    with pytest.raises(HostError, match="is not known: its key ecdsa-sha2-nistp256 SHA256:") as caught:
        Remote(target, keys)
    line = f"[127.0.0.1]:{target.rpartition(':')[2]} {key.get_name()} {key.get_base64()}"
    assert line in caught.value.hint
    (tmp_path / "known_hosts").write_text(line + "\n")
    server()
    remote = Remote(target, keys)
    # Words stay words: no shell of the other end makes something else of them.
    assert remote.run(["printf", "%s|", "a b", "$(id)", "'; exit 7"]) == Answer(0, b"a b|$(id)|'; exit 7|", "")
    assert remote.run(["sh", "-c", "echo no >&2; exit 5"]) == Answer(5, b"", "no ")
    talk = remote.talk(["printf", "one\\ntwo\\n"])
    heard: list[bytes] = []
    while talk.open:
        heard += talk.poll(WAIT_S)
    assert (heard, talk.status()) == ([b"one", b"two"], 0)
    remote.close()


def test_another_key_than_the_known_one_is_refused(
    server: Callable[[], tuple[str, paramiko.PKey]], tmp_path: Path
) -> None:
    target, _ = server()
    other = paramiko.ECDSAKey.generate()
    line = f"[127.0.0.1]:{target.rpartition(':')[2]} {other.get_name()} {other.get_base64()}\n"
    (tmp_path / "known_hosts").write_text(line)
    with pytest.raises(HostError, match="shows another key than the known one"):
        Remote(target, Keys(tmp_path / "known_hosts", tmp_path / "identity"))


def test_who_is_not_let_in_is_told_what_to_do(server: Callable[[], tuple[str, paramiko.PKey]], tmp_path: Path) -> None:
    target, key = server()
    line = f"[127.0.0.1]:{target.rpartition(':')[2]} {key.get_name()} {key.get_base64()}\n"
    (tmp_path / "known_hosts").write_text(line)
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "other"))
    with pytest.raises(HostError, match="does not let us in") as caught:
        Remote(target, Keys(tmp_path / "known_hosts", tmp_path / "other"))
    assert "--identity" in caught.value.hint
    with pytest.raises(UsageError, match="holds no key"):
        Remote(target, Keys(tmp_path / "known_hosts", tmp_path / "nothing"))


def test_nobody_there_is_the_hosts_fault(tmp_path: Path) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(HostError, match="can't be reached"):
        reach.reach(f"127.0.0.1:{port}", Keys(tmp_path / "known_hosts"))


def test_a_key_of_another_kind_is_never_trusted(tmp_path: Path) -> None:
    (tmp_path / "bad.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(UsageError, match="holds no public Ed25519 key"):
        install.install(Fake("web", {"id": Answer(0, b"0\n", "")}), wanted(tmp_path, trusted=[tmp_path / "bad.pub"]))
    assert envelope.key_id(Ed25519PrivateKey.generate().public_key())
