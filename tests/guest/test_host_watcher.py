# SPDX-License-Identifier: Apache-2.0
"""The watcher on a real kernel: what it attaches, what makes it take back, and that EEVDF is what is left.

One guest, without systemd: root is the image's initramfs with `testbed-host` and a few bundles in it, `systemctl` a
line that starts the watcher. `watched_host.sh` goes through all of it and tells by the console what was said.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testbed import image as images
from testbed.build import Artifact, build, files_for_guest
from testbed.candidate import read_candidate
from testbed.image import Image
from testbed.image.cpio import write_cpio
from testbed.image.tree import scan
from testbed.promote import envelope, law, policy, statement
from testbed.promote.policy import PromotionPolicy, Stage
from testbed.spec import Topology
from testbed.vm import topology
from testbed.vm.live import KVM_DEVICE, Accelerator, probed
from testbed.vm.qemu import room
from tests.guest.conftest import ROOT
from tests.guest.test_host_program import built, now
from tests.unit.test_promote import SIGNER, attested

MACHINE = Topology(cpus=2, memory_mb=1024)
WALL_S = 900
KERNEL_OPTIONS = "console=ttyS0 panic=-1 mitigations=off quiet rdinit=/init tsc=reliable no_timer_check"
REASON = "long enough for a test"

INIT = """\
#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tracefs trace /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
mkdir -p /var/lib /run /tmp /tmp/room; mount -t tmpfs state /var/lib; mount -t tmpfs -o size=95% room /tmp/room
echo 1 >/proc/sys/kernel/printk
exec </dev/null >/dev/ttyS0 2>&1
. /script
echo "@@end 0 {}"
poweroff -f
"""

SYSTEMCTL = "#!/bin/sh\nsetsid testbed-host watch >>/tmp/watch.log 2>&1 </dev/null &\n"


def changed(*stages: tuple[str, str, str], **changes: Any) -> PromotionPolicy:
    lab = policy.load("lab")
    canary = tuple(Stage.model_validate({"name": n, "scope": s, "duration": d, "reason": REASON}) for n, s, d in stages)
    limits = lab.limits.model_copy(update={"attempts": 10, "pressure": 95.0})
    return lab.model_copy(update={"canary": canary, "limits": limits, **changes})


POLICIES = {
    "scopes": changed(("volunteers", "partial", "3s"), ("all", "all", "4s")),
    "plain": changed(("all", "all", "60s")),
    "persist": changed(("all", "all", "3s"), persist=True),
}


def lay(root: Path, name: str, data: bytes | str, mode: int = 0o644) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)


def lay_bundle(root: Path, name: str, artifact: Artifact, image: Image) -> None:
    found = attested(candidate=artifact.candidate, policy_name="quick", time=now(hours=1), self_signed=True)
    document = json.loads(found.payload())
    about = next(one for one in document["predicate"]["configuration"] if one["name"] == "kernel")
    kernel = image.manifest.kernel
    about["annotations"] = {
        "release": kernel.release,
        "version": kernel.version,
        "btf_sha256": images.btf_sha256(image),
    }
    sealed = envelope.seal(json.dumps(document).encode(), SIGNER)
    lay(root, f"bundles/{name}/attestation.json", sealed.model_dump_json())
    lay(root, f"bundles/{name}/manifest.json", statement.manifest(artifact.candidate))
    for path, source in files_for_guest(artifact).items():
        lay(root, f"bundles/{name}/files/{path}", source.read_bytes())


@dataclass(frozen=True)
class Told:
    """What was said under a name, with the exit code of who said it."""

    lines: dict[str, list[tuple[int, dict[str, Any]]]]

    def code(self, name: str) -> int:
        return self.lines[name][-1][0]

    def last(self, name: str) -> dict[str, Any]:
        return self.lines[name][-1][1]

    def events(self, name: str) -> list[str]:
        return [document["event"] for _, document in self.lines[name]]

    def event(self, name: str, word: str) -> dict[str, Any]:
        return next(document for _, document in self.lines[name] if document["event"] == word)


@pytest.fixture(scope="module")
def told(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Told:
    work = tmp_path_factory.mktemp("watcher")
    top, out = work / "top", work / "out"
    out.mkdir()
    (work / "program").mkdir()
    lay(top, "usr/local/sbin/testbed-host", built(image, work / "program").read_bytes(), 0o755)
    lay(top, "usr/bin/systemctl", SYSTEMCTL, 0o755)
    lay(top, "init", INIT, 0o755)
    lay(top, "script", (Path(__file__).parent / "watched_host.sh").read_text())
    lay(top, "etc/passwd", "root:x:0:0::/root:/bin/sh\ntestbed-candidate:x:990:990::/:/bin/false\n")
    lay(
        top,
        "etc/testbed/trusted.d/one.pub",
        SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
    for name, demanded in POLICIES.items():
        lay(top, f"policies/{name}.json", law.document(demanded))
    for path in ("bpf/good/global_fifo", "bpf/bad/ejects_itself", "bpf/bad/init_fails"):
        artifact = build(read_candidate(str(ROOT / f"{path}.bpf.c")), image, work / Path(path).name)
        lay_bundle(top, Path(path).name, artifact, image)
    program = read_candidate(["scx_simple"], examples=image.examples / "bin", examples_root=image.builder)
    lay_bundle(top, "scx_simple", build(program, image, work / "scx_simple"), image)
    with (out / "initrd").open("wb") as file:
        file.write(image.initramfs.read_bytes())
        file.write(b"\0" * (-file.tell() % 512))
        write_cpio(file, top, scan(top))
    accelerator = probed(image)
    devices = (str(KVM_DEVICE),) if accelerator is Accelerator.KVM else ()
    sandbox = room(image, out, MACHINE, *devices).with_limits(wall_s=WALL_S)
    result = sandbox.run([
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *topology.options(MACHINE), *accelerator.options, "-cpu", "max", "-L", "/usr/share/qemu",
        "-chardev", "file,id=console,path=/out/console", "-serial", "chardev:console",
        "-kernel", "/image/vmlinuz", "-initrd", "/out/initrd", "-append", KERNEL_OPTIONS,
    ])  # fmt: skip
    console = (out / "console").read_text(errors="replace").replace("\r", "")
    assert "@@end" in console, (result.text, console[-3000:])
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for name, code, text in re.findall(r"^@@(\S+) (\d+) (\{.*\})$", console, re.MULTILINE):
        lines.setdefault(name, []).append((int(code), json.loads(text)))
    return Told(lines)


EEVDF = {"state": "disabled", "ops": ""}


def test_stages_of_both_scopes_end_in_a_scheduler_that_is_kept(told: Told) -> None:
    assert (told.code("kept-start"), told.last("kept-start")["ops"]) == (0, "global_fifo")
    # Another scope is another load, with EEVDF in between.
    assert told.events("kept") == ["attached", "stage", "attached", "stage", "kept"]
    assert told.code("kept") == 0
    assert told.event("kept", "attached")["timeout_ms"] == POLICIES["scopes"].limits.watchdog
    status = told.last("kept-status")
    assert (told.code("kept-status"), status["holder"], status["record"]["phase"]) == (0, "ours", "kept")


def test_the_one_before_is_restored_when_a_bad_one_is_taken_back(told: Told) -> None:
    assert told.code("restored") == 1
    status = told.last("restored-status")
    assert (told.code("restored-status"), status["kernel"]["ops"], status["holder"]) == (0, "global_fifo", "ours")
    rolled_back = status["last_rollback"]
    assert (rolled_back["back"], rolled_back["restores"]) == (True, status["record"]["id"])
    assert (told.code("stopped"), told.last("stopped")["back"]) == (0, True)
    assert told.last("stopped-kernel") == EEVDF


@pytest.mark.parametrize(
    ("name", "limit", "how"),
    [
        ("eof", "lifeline", {"link"}),
        ("health", "health", {"link"}),
        ("memory", "memory", {"link"}),
        ("program", "left", {"left", "program"}),  # it was killed, and may be on its way when that is seen
    ],
)
def test_a_limit_takes_it_back_in_time(told: Told, name: str, limit: str, how: set[str]) -> None:
    assert told.code(name) == 1
    # A follower that comes too late hears it from the log, without the `limit` before.
    assert told.events(name)[-2:] == ["rollback", "done"]
    rollback = told.event(name, "rollback")
    assert (rollback["limit"], rollback["back"]) == (limit, True)
    assert rollback["how"] in how
    assert rollback["in_time"], rollback
    assert rollback["evidence"] and rollback["logged"]
    assert told.last(f"{name}-kernel") == EEVDF


def test_a_promoter_that_is_silent_or_a_watcher_that_ends(told: Told) -> None:
    assert told.last("cut-status")["last_rollback"]["limit"] == "lifeline"
    assert told.last("cut-kernel") == told.last("killed-kernel") == told.last("term-kernel") == EEVDF
    assert told.code("killed-status") == 1
    assert told.last("killed-status")["discrepancies"] == ["watcher-gone", "not-enabled"]
    assert told.last("killed-stop")["error"]["code"] == "not-running"
    assert (told.code("killed-after"), told.last("killed-after")["record"]["phase"]) == (0, "stopped")


def test_a_sick_host_is_not_taken_for_a_bad_scheduler(told: Told) -> None:
    assert told.code("sick-start") in (1, 3)
    history = [line for line in told.last("history")["lines"] if line["what"] == "not-started"]
    assert "before anything was attached" in history[-1]["message"]


def test_what_can_not_be_attached_is_told_with_the_kernels_words(told: Told) -> None:
    event = told.last("init-start")["event"]
    assert (told.code("init-start"), event["limit"]) == (1, "not-attached")
    assert "ops.init() failed" in event["message"]
    assert told.last("init-kernel") == EEVDF


def test_a_program_has_little_and_dies_with_its_watcher(told: Told) -> None:
    text = told.last("confined")["text"]
    assert "Uid: 990 990 990 990" in text and "NoNewPrivs: 1" in text and text.endswith("/candidate")
    assert "CapEff: 000000c001004000" in text, "BPF, PERFMON, SYS_RESOURCE, IPC_LOCK"
    assert told.last("orphan-kernel") == EEVDF


def test_somebody_elses_scheduler_is_left_alone_and_an_orphan_is_not(told: Told) -> None:
    assert [one["code"] for one in told.last("other-start")["refusals"]] == ["other-scheduler"]
    assert (told.last("other-status")["holder"], told.last("other-stop")["error"]["code"]) == ("other", "not-running")
    assert told.last("other-kernel") == {"state": "enabled", "ops": "simple"}
    assert (told.last("left-status")["holder"], told.code("left-status")) == ("orphan", 1)
    assert (told.code("left-stop"), told.last("left-stop")["how"]) == (0, "sysrq")
    assert told.last("left-kernel") == EEVDF


def test_after_a_boot_only_persist_brings_it_back(told: Told) -> None:
    assert told.last("boot-before")["discrepancies"] == ["rebooted"]
    assert (told.code("boot-after"), told.last("boot-after")["holder"]) == (0, "ours")
    assert told.last("boot-kernel") == {"state": "enabled", "ops": "global_fifo"}
    assert told.last("again-kernel") == EEVDF
    assert (told.code("again-status"), told.last("again-status")["record"]["phase"]) == (0, "stopped")
    words = [line["what"] for line in told.last("history")["lines"]]
    assert words[-2:] == ["resumed", "lost"]


def test_the_log_holds(told: Told) -> None:
    history = told.last("history")
    assert (told.code("history"), history["sound"], history["torn"]) == (0, True, 0)
