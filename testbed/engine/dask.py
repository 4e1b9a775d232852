# SPDX-License-Identifier: Apache-2.0
"""The engine that gives each run to a worker of a Dask cluster (docs/guides/many-machines.md).

A worker gets the spec, the stream's key and, once, the inputs that the spec names by hash; it gives back the files of
evidence, which are looked at here before anybody believes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import secrets
import shutil
import tempfile
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed

from testbed import digest
from testbed.case import (
    KEY_BYTES,
    KEY_FILE,
    OUTCOME_FILE,
    QEMU_LOG_FILE,
    SPEC_FILE,
    STREAM_FILE,
    DamagedCaseError,
    Ended,
    GuestOutcome,
    canonical_json,
    read_run,
    write_atomic,
    write_model,
)
from testbed.engine import Executed
from testbed.engine import worker as workers
from testbed.engine.cached import EVIDENCE
from testbed.engine.local import HOST_FILE
from testbed.engine.worker import OVERHEAD_MB, TOKEN, About, Evidence, Lacks, Order, Refused
from testbed.errors import Bug, HostError, UsageError
from testbed.image import Image
from testbed.image import export as export_image
from testbed.image import import_ as import_image
from testbed.image import load as load_image
from testbed.spec import Clock, RunSpec, sha256
from testbed.vm.guest import STREAM_LIMIT, Boot, Guest

CONNECT_S = 10.0
POLL_S = 0.1
#: How long no worker may be there for a run, before the run is given up: one that restarts takes some seconds.
PATIENCE_S = 60.0
#: A run that was lost with so many workers is not tried again.
LOST_WORKERS = 2
#: So many workers may say that their machine can't run it, before that is believed.
REFUSALS = 3
PART = 16 << 20
#: How long a worker may take for an answer, and for unpacking an image.
CALL_S = 60.0
IMPORT_S = 900.0
_FITS_NOBODY = f"start workers with `--resources {TOKEN}=N`, N being the MiB of memory that guests may take there"
_Answer = Evidence | Lacks | Refused | tuple[str, ...] | None
"""Of one question to the cluster; words are the workers that were lost with the run, None: it is wanted no more."""


@dataclass
class Cluster:
    """A connection to a cluster, shared by all candidates of a command.

    Attributes:
        address: the scheduler's.
        client: Dask's.
        told: called with a line for people.
        find, take: of the image on a worker; tests put others here.
        patience_s: how long it may have no worker for a run.
    """

    address: str
    client: Any
    told: Callable[[str], None]
    find: Callable[[str], Image] = load_image
    take: Callable[[Path], Image] = import_image
    patience_s: float = PATIENCE_S
    _topic: str = field(default_factory=lambda: f"testbed-{secrets.token_hex(8)}")
    _began: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _sending: dict[tuple[str, str], threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    _exporting: threading.Lock = field(default_factory=threading.Lock)
    _exported: dict[str, tuple[Path, str]] = field(default_factory=dict)
    _scratch: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    @contextmanager
    def connect(cls, address: str, told: Callable[[str], None]) -> Iterator[Cluster]:
        """Connect, and look whether the workers are the same testbed as this one.

        TLS is Dask's own configuration (`distributed.comm.tls`, `distributed.comm.require-encryption`).

        Raises:
            UsageError: the address can't be meant.
            HostError: nobody answers, nobody works there, or somebody is another testbed.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # versions are compared below, in words of ours
            try:
                client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
            except ValueError as error:
                raise UsageError(
                    f"`--scheduler {address}`: {error}",
                    hint="as the scheduler says: tcp://HOST:8786 or tls://HOST:8786",
                ) from error
            except (OSError, TypeError, RuntimeError) as error:
                raise HostError(
                    f"no scheduler answers at {address}: {_first_line(error)}",
                    hint="`dask scheduler` starts one; with TLS both sides need the certificates",
                ) from error
        cluster = cls(address, client, told)
        try:
            cluster.check()
            client.subscribe_topic(cluster._topic, cluster._hear)
            yield cluster
        finally:
            with contextlib.suppress(Exception):  # a cluster that has gone can't be told
                client.close(timeout=CONNECT_S)
            if cluster._scratch is not None:
                cluster._scratch.cleanup()

    def check(self) -> None:
        """Find what is wrong with the cluster before a run is.

        Raises:
            HostError: it has no worker for guests, or one that is another testbed.
        """
        own = workers.about()
        try:
            theirs = _within(CALL_S, self.client.get_versions)["scheduler"]
            answers: Mapping[str, About] = self._call(workers.here)
        except Exception as error:  # whatever a stranger's cluster says
            raise HostError(
                f"the cluster at {self.address} can't run the testbed: {_first_line(error)}",
                hint="install testbed[dask], the same everywhere, for the scheduler and the workers",
            ) from error
        packages = theirs["packages"] if theirs is not None else {}
        if (found := packages.get("distributed")) != own.distributed:
            raise HostError(
                f"the scheduler at {self.address} has distributed {found}, expected {own.distributed}", hint=_SAME
            )
        for place, one in sorted(answers.items()):
            if one != own:
                raise HostError(f"the worker {place} is another one: {one}, expected {own}", hint=_SAME)
        if not self.slots():
            raise HostError(f"the cluster at {self.address} has no worker for guests", hint=_FITS_NOBODY)

    def engine(self, image: Image, inputs: Mapping[str, Path], guest: Callable[[Boot], Guest]) -> DaskEngine:
        """The engine of one case."""
        return DaskEngine(self, image, inputs, guest)

    def slots(self, need_mb: int = 512 + OVERHEAD_MB) -> int:
        """How many guests of a size fit into the cluster as it is now."""
        found = 0
        for one in self._workers():
            found += min(one["nthreads"], int(one["resources"].get(TOKEN, 0) // need_mb))
        return found

    def _call(self, function: Callable[..., Any], *words: object, to: str | None = None, within: float = CALL_S) -> Any:
        """Call a function on a worker's event loop, past its guests; without `to` on all, with their answers by name.

        Raises:
            OSError: it has gone, or does not answer.
        """
        if to is None:
            return _within(within, lambda: self.client.run(function, *words))
        answers = _within(within, lambda: self.client.run(function, *words, workers=[to]))
        if to not in answers:
            raise OSError("the worker has gone")
        return answers[to]

    def _workers(self) -> list[dict[str, Any]]:
        try:
            return list(self.client.scheduler_info()["workers"].values())
        except Exception as error:
            raise self._gone(error) from error

    def _hear(self, event: tuple[float, Mapping[str, str]]) -> None:
        """A run has begun somewhere."""
        self._began[event[1]["ticket"]].append(event[1]["worker"])

    def ask(
        self, order: Order, need_mb: int, stop: threading.Event, inputs: Mapping[str, Path], image: Image
    ) -> Evidence | tuple[str, ...] | None:
        """Have a run done; its evidence, the workers that were lost with it, or None if `stop` ended it.

        Raises:
            HostError: nobody can do it.
        """
        try:
            return self._ask(order, need_mb, stop, inputs, image)
        finally:
            self._began.pop(order.ticket, None)

    def _ask(
        self, order: Order, need_mb: int, stop: threading.Event, inputs: Mapping[str, Path], image: Image
    ) -> Evidence | tuple[str, ...] | None:
        refused: list[Refused] = []
        while True:
            answer = self._once(order, need_mb, stop)
            if answer is None or isinstance(answer, tuple | Evidence):
                return answer
            if isinstance(answer, Refused):
                refused.append(answer)
                with contextlib.suppress(ValueError):
                    self._began[order.ticket].remove(answer.worker)  # it has not been lost
                self.told(f"warning: worker {answer.worker} can't run {order.spec.name}: {answer.message}")
                if len(refused) == REFUSALS:
                    raise HostError(f"worker {answer.worker} can't run it: {answer.message}", hint=answer.hint)
                continue
            if stop.is_set():
                return None
            try:
                self._send(answer, inputs, image)
            except TimeoutError as error:
                raise HostError(
                    f"the worker {answer.worker} does not take what it lacks: {error}", hint="look at that machine"
                ) from error
            except OSError:
                continue  # the worker has gone: another one will say what it lacks

    def _gone(self, error: BaseException) -> HostError:
        return HostError(
            f"the connection to the cluster was lost: {_first_line(error)}",
            hint=f"look at the scheduler at {self.address}, then run it again",
        )

    def _once(self, order: Order, need_mb: int, stop: threading.Event) -> _Answer:
        key = f"testbed-run-{secrets.token_hex(8)}"
        done = threading.Event()
        try:
            future = self.client.submit(workers.work, order, key=key, pure=False, resources={TOKEN: need_mb})
            future.add_done_callback(lambda _: done.set())
        except Exception as error:
            raise self._gone(error) from error
        look = time.monotonic() + 1.0
        absent: float | None = None
        try:
            while not done.wait(POLL_S):
                if stop.is_set():
                    return None
                if len(self._began[order.ticket]) > LOST_WORKERS:
                    return tuple(self._began[order.ticket][:LOST_WORKERS])
                if (now := time.monotonic()) < look:
                    continue
                look = now + 1.0
                absent = None if self.slots(need_mb) else absent or now
                if absent is not None and now - absent > self.patience_s:
                    if len(self._began[order.ticket]) == LOST_WORKERS:
                        return tuple(self._began[order.ticket])
                    raise HostError(
                        f"for {self.patience_s:.0f} s no worker of {self.address} had {need_mb} MiB for a guest",
                        hint=_FITS_NOBODY,
                    )
            return self._result(future, order, stop)
        finally:
            with contextlib.suppress(Exception):
                future.cancel(reason="testbed wants it no more")

    def _result(self, future: distributed.Future[Any], order: Order, stop: threading.Event) -> _Answer:
        try:
            answer: Evidence | Lacks | Refused = future.result(timeout=CONNECT_S)
        except distributed.KilledWorker:
            return tuple(self._began[order.ticket] or ["a worker"])
        except (CancelledError, distributed.CancelledError, OSError, TimeoutError) as error:
            if stop.is_set():
                return None
            raise self._gone(error) from error
        except Exception as error:
            raise HostError(
                f"a worker of {self.address} failed: {type(error).__name__}: {_first_line(error)}",
                hint="look at the worker's log; all machines need the same testbed",
            ) from error
        if isinstance(answer, Evidence) and not answer.files and not stop.is_set():
            raise HostError(f"the worker {answer.worker} was told to end a run that is wanted", hint="run it again")
        return answer

    def _send(self, lacks: Lacks, inputs: Mapping[str, Path], image: Image) -> None:
        """Bring a worker what it lacks, once, however many runs ask for it.

        Raises:
            HostError: it did not arrive as it was.
            OSError: the worker has gone.
        """
        to = lacks.worker
        with self._sending[lacks.worker, lacks.files or lacks.image]:
            if lacks.files:
                if not self._call(workers.has, lacks.files, to=to):
                    self._send_file(inputs[lacks.files], lacks.files, to)
                return
            if self._call(workers.has_image, lacks.image, self.find, to=to):
                return
            file, name = self._export(image)
            self._send_file(file, name, to)
            wrong = self._call(workers.take_image, name, lacks.image, self.take, to=to, within=IMPORT_S)
            if wrong:
                raise HostError(f"the worker {lacks.worker} can't take image {lacks.image[:12]}: {wrong}")

    def _send_file(self, file: Path, name: str, worker: str) -> None:
        token = secrets.token_hex(8)
        size = file.stat().st_size
        self.told(f"send {name[:12]} ({size >> 10} KiB) to worker {worker}")
        with file.open("rb") as source:
            for offset in range(0, max(size, 1), PART):
                last = offset + PART >= size
                if not self._call(workers.receive, name, token, offset, source.read(PART), last, to=worker):
                    raise HostError(f"`{name[:12]}` did not reach the worker {worker} as it was", hint="run it again")

    def _export(self, image: Image) -> tuple[Path, str]:
        """The image as a file with its hash, made once."""
        with self._exporting:
            if image.id not in self._exported:
                self.told(f"a worker lacks image {image.id[:12]}; it is exported")
                self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="testbed-cluster-")
                file = Path(self._scratch.name) / f"{image.id}.tar.zst"
                export_image(image, file)
                with file.open("rb") as source:
                    self._exported[image.id] = file, hashlib.file_digest(source, "sha256").hexdigest()
            return self._exported[image.id]


_SAME = "install the same testbed[dask] on all machines, from the same lock file"


@dataclass(frozen=True)
class DaskEngine:
    """An engine around a cluster; the arguments are those of `LocalEngine`."""

    cluster: Cluster
    image: Image
    inputs: Mapping[str, Path]
    guest: Callable[[Boot], Guest]

    def execute(
        self, spec: RunSpec, directory: Path, stop: threading.Event, line: Callable[[str], None]
    ) -> Executed | None:
        """Have a run done by a worker, look at what came, keep it."""
        if spec.files not in self.inputs:
            raise Bug(f"nobody has the files {spec.files[:16]} of {spec.name}")
        if spec.clock is not Clock.SIM:
            raise Bug(f"{spec.name} is to run by the clock `{spec.clock}` on a cluster")
        cluster = self.cluster
        key = secrets.token_bytes(KEY_BYTES)
        order = Order(workers.about(), spec, key, secrets.token_hex(8), cluster._topic, self.guest, cluster.find)
        answer = cluster.ask(order, spec.topology.memory_mb + OVERHEAD_MB, stop, self.inputs, self.image)
        if answer is None or (isinstance(answer, Evidence) and not answer.files):
            return None
        directory.mkdir(parents=True)
        write_model(directory / SPEC_FILE, spec)
        write_atomic(directory / KEY_FILE, key.hex() + "\n")
        if isinstance(answer, Evidence):
            try:
                self._keep(answer, spec, directory, line)
            except HostError:
                shutil.rmtree(directory)
                raise
        else:
            self._lost(answer, directory)
        return Executed()

    def _keep(self, evidence: Evidence, spec: RunSpec, directory: Path, line: Callable[[str], None]) -> None:
        """Write down what a worker sent, if it is what a run leaves."""
        for name, data in evidence.files.items():
            if name not in EVIDENCE or len(data) > 2 * STREAM_LIMIT or sha256(data) != evidence.hashes.get(name):
                raise _unbelievable(evidence, spec, f"`{os.path.basename(name)}` is not what it was")
            if name not in (KEY_FILE, OUTCOME_FILE):
                (directory / name).write_bytes(data)
        if evidence.files.get(KEY_FILE) != (directory / KEY_FILE).read_bytes():
            raise _unbelievable(evidence, spec, "it has another key")
        (directory / OUTCOME_FILE).write_bytes(evidence.files.get(OUTCOME_FILE, b""))
        try:
            run = read_run(directory)
        except DamagedCaseError as error:
            raise _unbelievable(evidence, spec, error.message) from error
        if run.outcome.digest and run.outcome.digest != digest.of(directory):
            raise _unbelievable(evidence, spec, "its digest is another one")
        for said in evidence.files.get(STREAM_FILE, b"").splitlines():
            line(said.decode("ascii", "replace"))

    def _lost(self, lost: tuple[str, ...], directory: Path) -> None:
        """A run that takes its worker's machine with it says nothing about a candidate; it is told as a lost guest."""
        (directory / QEMU_LOG_FILE).write_bytes(b"")
        write_atomic(directory / HOST_FILE, canonical_json({"seconds": 0}))
        outcome = GuestOutcome(
            accelerator="none",
            qemu=self.image.manifest.qemu.version,
            ended=Ended.NEVER_CONNECTED,
            reason=f"lost with its worker {len(lost)} times: {', '.join(lost)}",
        )
        write_model(directory / OUTCOME_FILE, outcome)


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that Dask gives no time limit.

    Raises:
        TimeoutError: there was none so long; nobody waits for it any more.
    """
    answer: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((call(), None))
        except Exception as error:
            answer.put((None, error))

    threading.Thread(target=run, name="cluster", daemon=True).start()
    try:
        result, error = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None
    if error is not None:
        raise error
    return result


def _unbelievable(evidence: Evidence, spec: RunSpec, why: str) -> HostError:
    return HostError(
        f"the worker {evidence.worker} sent no evidence of run {spec.name}: {why}",
        hint="look at that machine, or leave it out of the cluster",
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()[:1]
    return "".join(c for c in (text or [type(error).__name__])[0] if c.isprintable())[:300]
