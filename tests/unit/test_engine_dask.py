# SPDX-License-Identifier: Apache-2.0
"""Runs on a cluster of processes: the same evidence whoever dies, nothing is believed unseen, nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.case import KEY_FILE, OUTCOME_FILE, STREAM_FILE, Ended, read_run
from testbed.cli import engines as engines_options
from testbed.cli.parser import Options
from testbed.digest import of
from testbed.engine import Executed
from testbed.engine import dask as engines
from testbed.engine import worker as workers
from testbed.engine.dask import Cluster, DaskEngine
from testbed.engine.local import LocalEngine
from testbed.engine.worker import Evidence, make_room
from testbed.errors import Bug, HostError, UsageError
from testbed.plan import plan
from testbed.spec import Clock, RunSpec, sha256
from testbed.vm.fake import FakeGuest
from testbed.vm.guest import Boot, Guest
from tests.unit import cluster as fakes
from tests.unit.cluster import IMAGE, Started, notes, wait_for
from tests.unit.test_plan import question
from tests.unit.test_run import GOOD

FILES = b"an archive of a candidate"
SPECS = [spec.model_copy(update={"files": sha256(FILES)}) for spec in plan(question()).specs]


@dataclass
class Bench:
    """A connected cluster, and what was told about it."""

    started: Started
    tmp: Path
    cluster: Cluster
    told: list[str]
    lines: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return self.started.scratch

    def execute(
        self, spec: RunSpec, guest: Callable[[Boot], Guest], stop: threading.Event | None = None
    ) -> Executed | None:
        engine = DaskEngine(self.cluster, IMAGE, {sha256(FILES): self.tmp / "files"}, guest)
        return engine.execute(spec, self.tmp / "runs" / spec.name, stop or threading.Event(), self.lines.append)

    def directory(self, spec: RunSpec) -> Path:
        return self.tmp / "runs" / spec.name


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A scheduler and two workers for the tests that kill nobody."""
    with fakes.cluster(tmp_path_factory.mktemp("cluster")) as found:
        found.add_worker()
        found.add_worker()
        found.wait_for_workers(2)
        yield found


@pytest.fixture
def bench(started: Started, tmp_path: Path) -> Iterator[Bench]:
    yield from connect(started, tmp_path)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Bench]:
    """A cluster of its own, whose workers may die."""
    with fakes.cluster(tmp_path / "cluster") as found:
        found.add_worker()
        found.add_worker()
        found.wait_for_workers(2)
        yield from connect(found, tmp_path)


def connect(started: Started, tmp: Path) -> Iterator[Bench]:
    (tmp / "files").write_bytes(FILES)
    for old in started.scratch.glob("*-*-*"):
        old.unlink()
    told: list[str] = []
    with Cluster.connect(started.address, told.append) as cluster:
        yield Bench(started, tmp, replace(cluster, find=fakes.find), told)


def test_a_run_of_a_worker_leaves_what_a_run_of_this_machine_leaves(bench: Bench) -> None:
    spec = SPECS[0]
    assert bench.execute(spec, fakes.good) == Executed()
    there = bench.directory(spec)
    here = bench.tmp / "here" / spec.name
    LocalEngine(IMAGE, {spec.files: bench.tmp / "files"}, good_here).execute(
        spec, here, threading.Event(), lambda line: None
    )
    assert sorted(path.name for path in there.iterdir()) == sorted(path.name for path in here.iterdir())
    assert of(there) == of(here)
    assert (read_run(there).spec, read_run(there).outcome) == (spec, read_run(here).outcome)
    assert len(bench.lines) == 2, "the lines of the stream are told"


def good_here(boot: Boot) -> Guest:
    return FakeGuest(boot, GOOD)


def test_an_input_is_brought_once_to_each_worker(bench: Bench) -> None:
    threads = [threading.Thread(target=bench.execute, args=(spec, fakes.good)) for spec in SPECS[:4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((bench.directory(spec) / OUTCOME_FILE).is_file() for spec in SPECS[:4])
    sent = [text.split()[-1] for text in bench.told if text.startswith("send ")]
    assert len(sent) == len(set(sent)) <= 2


def test_an_input_that_changed_on_its_way_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.tmp / "files").write_bytes(b"another archive")
    other = SPECS[0].model_copy(update={"files": sha256(b"what was meant")})
    engine = DaskEngine(bench.cluster, IMAGE, {other.files: bench.tmp / "files"}, fakes.good)
    with pytest.raises(HostError, match=r"did not reach the worker .* as it was"):
        engine.execute(other, bench.directory(other), threading.Event(), lambda line: None)
    assert not bench.directory(other).exists()


def test_an_image_that_a_worker_lacks_is_brought(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "export_image", lambda image, file: file.write_bytes(b"x" * 1000))
    cluster = replace(bench.cluster, find=fakes.find_on_disk, take=fakes.take)
    bench.cluster = cluster
    assert bench.execute(SPECS[0], fakes.good) == Executed()
    assert sum("lacks image" in text for text in bench.told) == 1
    assert next(bench.place.glob("image-*")).read_bytes() == b"x" * 1000


def test_cancelling_ends_the_guest_on_its_worker(bench: Bench) -> None:
    stop = threading.Event()
    found: list[Executed | None] = []
    thread = threading.Thread(target=lambda: found.append(bench.execute(SPECS[0], fakes.hangs, stop)))
    thread.start()
    wait_for("hangs", bench.place)
    stop.set()
    thread.join(10)
    assert found == [None]
    wait_for("closed", bench.place)
    assert not bench.directory(SPECS[0]).exists()


def test_a_client_that_is_killed_leaves_no_guest(bench: Bench, tmp_path: Path) -> None:
    script = f"""\
        import sys, threading
        from pathlib import Path
        from tests.unit import cluster as fakes
        from tests.unit.test_engine_dask import SPECS
        from testbed.engine.dask import Cluster, DaskEngine
        with Cluster.connect({bench.started.address!r}, print) as cluster:
            cluster.find = fakes.find
            place = Path({str(tmp_path)!r})
            engine = DaskEngine(cluster, fakes.IMAGE, {{SPECS[0].files: place / "files"}}, fakes.hangs)
            engine.execute(SPECS[0], place / "killed", threading.Event(), print)
    """
    client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=fakes.ROOT)
    wait_for("hangs", bench.place)
    client.send_signal(signal.SIGKILL)
    client.wait()
    wait_for("closed", bench.place)


def test_the_run_of_a_worker_that_is_killed_is_done_again(mortal: Bench) -> None:
    spec = SPECS[0]
    found: list[Executed | None] = []
    thread = threading.Thread(target=lambda: found.append(mortal.execute(spec, fakes.hangs_once)))
    thread.start()
    pid = int(wait_for("hangs", mortal.place)[0].split("-")[2])
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert found == [Executed()]
    assert read_run(mortal.directory(spec)).outcome.ended is Ended.FINISHED
    assert len(notes("ran", mortal.place)) == 1


def test_a_run_that_is_lost_with_two_workers_is_an_error_that_names_them(mortal: Bench) -> None:
    mortal.started.add_worker()
    mortal.started.wait_for_workers(3)
    spec = SPECS[0]
    assert mortal.execute(spec, fakes.kills_its_worker) == Executed()
    outcome = read_run(mortal.directory(spec)).outcome
    assert outcome.ended is Ended.NEVER_CONNECTED
    assert outcome.reason.startswith("lost with its worker 2 times: tcp://")
    assert outcome.digest == "", "so it is kept in no cache"


def test_a_cluster_whose_workers_have_all_gone_is_an_error(mortal: Bench) -> None:
    mortal.cluster.patience_s = 1.0
    for process in mortal.started.processes[1:]:
        process.kill()
    with pytest.raises(HostError, match=r"for 1 s no worker of tcp://.* had \d+ MiB for a guest"):
        mortal.execute(SPECS[0], fakes.good)


def test_a_scheduler_that_goes_is_an_error(mortal: Bench) -> None:
    found: list[BaseException] = []

    def run() -> None:
        try:
            mortal.execute(SPECS[0], fakes.hangs)
        except HostError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for("hangs", mortal.place)
    mortal.started.processes[0].kill()
    thread.join(90)
    assert "was lost" in str(found[0])
    wait_for("closed", mortal.place)


def test_no_more_guests_than_fit_into_a_workers_memory(tmp_path: Path) -> None:
    with fakes.cluster(tmp_path / "cluster") as found:
        need = SPECS[0].topology.memory_mb + workers.OVERHEAD_MB
        found.add_worker(resources=f"GUEST_MB={need + 1}", threads=4)
        found.wait_for_workers(1)
        for bench in connect(found, tmp_path):
            assert bench.cluster.slots(need) == 1
            stop = threading.Event()
            threads = [threading.Thread(target=bench.execute, args=(spec, fakes.hangs, stop)) for spec in SPECS[:3]]
            for thread in threads:
                thread.start()
            wait_for("hangs", bench.place)
            assert not stop.wait(1.5)
            assert len(notes("hangs", bench.place)) == 1
            stop.set()
            for thread in threads:
                thread.join()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CONNECT_S", 0.5)
    with (
        pytest.raises(HostError, match=r"no scheduler answers at tcp://127.0.0.1:1"),
        Cluster.connect("tcp://127.0.0.1:1", print),
    ):
        pass
    with pytest.raises(UsageError, match="`--scheduler nonsense://x:1`"), Cluster.connect("nonsense://x:1", print):
        pass


def test_a_worker_without_memory_for_guests_is_named_as_such(tmp_path: Path) -> None:
    with fakes.cluster(tmp_path / "cluster") as found:
        found.add_worker(resources="")
        found.wait_for_workers(1)
        with (
            pytest.raises(HostError, match="has no worker for guests") as caught,
            Cluster.connect(found.address, print),
        ):
            pass
        assert "GUEST_MB" in caught.value.hint


def test_another_testbed_on_a_worker_is_refused(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = replace(workers.about(), code="0" * 64)
    monkeypatch.setattr(workers, "about", lambda: mine)
    with (
        pytest.raises(HostError, match=r"the worker tcp://.* is another one: testbed .*, expected"),
        Cluster.connect(started.address, print),
    ):
        pass


def test_a_worker_that_joins_later_with_another_testbed_does_not_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(workers.about(), code="0" * 64)
    monkeypatch.setattr(workers, "about", lambda: mine)
    with pytest.raises(HostError, match="can't run it: it has testbed"):
        bench.execute(SPECS[0], fakes.good)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({STREAM_FILE: b"something else"}, "`stream` is not what it was"),
        ({KEY_FILE: b"ab" * 32 + b"\n"}, "it has another key"),
        ({OUTCOME_FILE: b"{}"}, "outcome.json"),
        ({"../../evil": b"x"}, "`evil` is not what it was"),
        ({OUTCOME_FILE: None}, "outcome.json"),
        ({"digest": None}, "its digest is another one"),
    ],
)
def test_what_is_no_evidence_is_not_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: dict[str, bytes | None], why: str
) -> None:
    real = Cluster.ask

    def ask(self: Cluster, *words: object) -> object:
        answer = real(self, *words)  # type: ignore[arg-type]  # handed on as it came
        assert isinstance(answer, Evidence)
        files = dict(answer.files)
        for name, data in change.items():
            if name == "digest":
                files[OUTCOME_FILE] = json.dumps({**json.loads(files[OUTCOME_FILE]), "digest": "d" * 64}).encode()
            elif data is None:
                del files[name]
            else:
                files[name] = data
        hashes = {name: sha256(data) for name, data in files.items()}
        if STREAM_FILE in change or "../../evil" in change:
            hashes = answer.hashes
        return replace(answer, files=files, hashes=hashes)

    monkeypatch.setattr(Cluster, "ask", ask)
    with pytest.raises(HostError, match="sent no evidence") as caught:
        bench.execute(SPECS[0], fakes.good)
    assert why in caught.value.message
    assert not bench.directory(SPECS[0]).exists()


def certificate(place: Path) -> dict[str, str]:
    """A certificate that signs itself, for all: the files of `--tls-ca-file`, `--tls-cert` and `--tls-key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "testbed")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (place / "key.pem").write_bytes(key.private_bytes(encoding, shape, serialization.NoEncryption()))
    cert = str(place / "cert.pem")
    return {"ca-file": cert, "cert": cert, "key": str(place / "key.pem")}


def test_a_cluster_behind_tls_lets_in_who_has_the_certificate(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    words = [word for name, file in files.items() for word in (f"--tls-{name}", file)]
    with fakes.cluster(tmp_path / "cluster", "--protocol", "tls", *words) as found:
        found.add_worker()
        found.wait_for_workers(1)
        script = "import sys; from testbed.engine.dask import Cluster\n"
        script += "with Cluster.connect(sys.argv[1], print) as cluster: print(cluster.slots())"
        environment = {
            **os.environ,
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": files["ca-file"],
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": files["cert"],
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": files["key"],
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        }
        command = [sys.executable, "-c", script, found.address]
        inside = subprocess.run(command, env=environment, cwd=fakes.ROOT, capture_output=True, text=True, check=False)
        assert inside.stdout == "2\n", inside.stderr
        outside = subprocess.run(command, cwd=fakes.ROOT, capture_output=True, text=True, check=False)
        assert "HostError: no scheduler answers at tls://" in outside.stderr


def test_old_inputs_make_room(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / ".d.half").write_bytes(b"x" * 1000)
    make_room(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".d.half", "a", "b"]
    make_room(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".d.half", "a"]


def test_a_live_run_is_not_for_a_cluster(bench: Bench) -> None:
    with pytest.raises(Bug, match="by the clock `live` on a cluster"):
        bench.execute(SPECS[0].model_copy(update={"clock": Clock.LIVE}), fakes.good)


def test_without_dask_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "testbed.engine.dask")
    monkeypatch.delitem(sys.modules, "testbed.engine.worker")
    options = Options(engine="dask", scheduler="tcp://here:8786", program=None)
    with pytest.raises(UsageError, match="not installed") as caught, engines_options.cluster(options, lambda _: None):
        pass
    assert caught.value.hint == "pip install 'testbed[dask]'"


def test_jobs_are_what_fits_unless_they_are_given(bench: Bench) -> None:
    options = Options(engine="dask", scheduler=bench.cluster.address, program=None, jobs=None)
    assert engines_options.jobs(options, bench.cluster) == bench.cluster.slots() == 4
    options.jobs = 3
    assert engines_options.jobs(options, bench.cluster) == 3
