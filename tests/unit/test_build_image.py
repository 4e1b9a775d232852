# SPDX-License-Identifier: Apache-2.0
"""The build stage with the real compiler, in the image's builder root.

`TESTBED_TEST_IMAGE=DIR` names an image that is not in the cache.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.build import build, files_for_guest, guest_command, load
from testbed.build.compiler import FLAGS, LIMITS, Compiled, compile_source
from testbed.build.hints import names_of
from testbed.candidate import read_candidate
from testbed.sources import SourceTree, collect
from testbed.spec import sha256
from testbed.status import Status

pytestmark = pytest.mark.guest

BPF = Path(__file__).parents[2] / "bpf"
HEAD = '#include <scx/common.bpf.h>\nchar _license[] SEC("license") = "GPL";\n'
GOOD = (
    HEAD + "void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)\n{\n"
    "\tscx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);\n}\n"
    'SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .timeout_ms = 4000, .name = "x");\n'
)


@dataclass(frozen=True)
class Tools:
    path: Path

    @property
    def builder(self) -> Path:
        return self.path / "builder"

    @property
    def include(self) -> Path:
        return self.path / "include"

    @property
    def vmlinux_h(self) -> Path:
        return self.path / "include" / "vmlinux.h"


@pytest.fixture(scope="module")
def tools() -> Tools:
    named = os.environ.get("TESTBED_TEST_IMAGE")
    if named:
        return Tools(Path(named))
    from testbed import image

    # Never just any image of the cache: there may be one with an older kernel.
    return Tools(image.ensure().path)


def source(folder: Path, text: str, name: str = "x.bpf.c") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def compiled(tools: Tools, folder: Path, text: str) -> Compiled:
    path = Path(source(folder, text))
    return compile_source(collect(path, text.encode()), tools)


def test_a_source_becomes_an_artifact_with_its_facts(tools: Tools, tmp_path: Path) -> None:
    artifact = build(read_candidate(source(tmp_path / "src", GOOD)), tools, tmp_path / "candidate")
    assert artifact.ok
    assert artifact.findings == ()
    facts = artifact.facts
    assert facts.object is not None
    assert (facts.candidate.ops_name, facts.timeout_ms, facts.object.callbacks) == ("x", 4000, {"enqueue": "x_enqueue"})
    made = (tmp_path / "candidate" / "candidate.bpf.o").read_bytes()
    assert sha256(made) == facts.candidate.object_sha256
    assert files_for_guest(artifact) == {"candidate.bpf.o": tmp_path / "candidate" / "candidate.bpf.o"}
    assert guest_command(artifact) == ("object", "candidate.bpf.o")
    assert load(tmp_path / "candidate").facts == facts
    written = json.loads((tmp_path / "candidate" / "artifact.json").read_text())
    assert written["schema"] == "testbed.artifact/1"
    assert str(tmp_path) not in json.dumps(written)
    assert str(tmp_path) not in (tmp_path / "candidate" / "build.log").read_text()


def test_the_same_source_gives_the_same_bytes_anywhere(tools: Tools, tmp_path: Path) -> None:
    text = (
        GOOD + "const char stamp[] = __DATE__ __TIME__ __TIMESTAMP__ __FILE__;\nint where(void) { return stamp[0]; }\n"
    )
    one, two = compiled(tools, tmp_path / "a", text), compiled(tools, tmp_path / "b" / "c", text)
    assert one.data is not None
    assert one.data == two.data
    assert one.log == two.log


def test_the_object_judged_alone_has_the_same_facts(tools: Tools, tmp_path: Path) -> None:
    first = build(read_candidate(source(tmp_path, GOOD)), tools, tmp_path / "one")
    again = build(read_candidate(str(tmp_path / "one" / "candidate.bpf.o")), tools, tmp_path / "two")
    assert again.facts.object == first.facts.object
    assert again.candidate.object_sha256 == first.candidate.object_sha256
    assert again.candidate.kind == "object"


@pytest.mark.parametrize("path", sorted((BPF / "good").glob("*.bpf.c")), ids=lambda path: path.name)
def test_the_good_schedulers_compile_without_a_finding(tools: Tools, tmp_path: Path, path: Path) -> None:
    artifact = build(read_candidate(str(path)), tools, tmp_path / "candidate")
    assert [finding.message for finding in artifact.findings] == []
    assert artifact.facts.warnings == ()


@pytest.mark.parametrize("name", ["simple", "central", "qmap", "cpu0", "flatcg"])
def test_the_kernels_examples_compile(tools: Tools, tmp_path: Path, name: str) -> None:
    folder = tools.path / "examples" / "src"
    if not folder.is_dir():
        pytest.skip("this image has no sources of the examples")
    artifact = build(read_candidate(str(folder / f"scx_{name}.bpf.c")), tools, tmp_path / "candidate")
    # scx_cpu0 is made to be as bad as that: everything on one CPU.
    advice = ["lint-one-cpu"] if name == "cpu0" else []
    assert [finding.code for finding in artifact.findings] == advice
    assert artifact.ok
    assert artifact.candidate.ops_name == name


@pytest.mark.parametrize("name", ["simple", "qmap", "cpu0"])
def test_the_kernels_examples_travel_as_programs(tools: Tools, tmp_path: Path, name: str) -> None:
    folder = tools.path / "examples" / "bin"
    if not folder.is_dir():
        pytest.skip("this image has no built examples")
    words = [f"scx_{name}", "-v"]
    candidate = read_candidate(words, examples=folder, examples_root=tools.builder)
    artifact = build(candidate, tools, tmp_path / "candidate")
    files = files_for_guest(artifact)
    assert f"bin/scx_{name}" in files
    assert "lib/libc.so.6" in files
    assert {key: sha256(path.read_bytes()) for key, path in files.items()} == artifact.facts.files
    command = guest_command(artifact)
    assert command[0] == "program"
    assert command[1] in files
    assert command[-2:] == (f"/job/bin/scx_{name}", "-v")


def test_kernel_functions_of_the_guest_are_known(tools: Tools) -> None:
    names = names_of(tools.vmlinux_h, tools.include, tools.include / "bpf")
    assert "scx_bpf_dsq_insert" in names.functions
    assert "bpf_map_lookup_elem" in names.functions
    assert "SCX_DSQ_GLOBAL" in names.constants
    assert {"enqueue", "timeout_ms", "name", "flags"} <= set(names.members("sched_ext_ops"))
    assert not names.lacks_kfunc("scx_bpf_kick_cpu")
    assert names.lacks_kfunc("scx_bpf_consume")


def test_a_kernel_function_that_is_gone_is_told_at_its_line(tools: Tools, tmp_path: Path) -> None:
    text = GOOD.replace("{\n\tscx", "{\n\tscx_bpf_consume(3);\n\tscx").replace(
        "void BPF", "extern bool scx_bpf_consume(u64 dsq_id) __ksym;\nvoid BPF"
    )
    (finding,) = build(read_candidate(source(tmp_path / "s", text)), tools, tmp_path / "candidate").findings
    assert finding.code == "unknown-kfunc"
    assert finding.evidence[0].file == "candidate/x.bpf.c"
    assert finding.evidence[0].line == 6
    assert " 6 |     scx_bpf_consume(3);\n   |     ^" in finding.message


def test_a_helper_that_reaches_out_is_told_at_its_line(tools: Tools, tmp_path: Path) -> None:
    text = GOOD.replace("{\n\tscx", "{\n\tbpf_send_signal(9);\n\tscx")
    (finding,) = build(read_candidate(source(tmp_path / "s", text)), tools, tmp_path / "candidate").findings
    assert (finding.code, finding.title) == ("forbidden-helper", "calls bpf_send_signal")
    assert finding.message.split("\n")[1] == " 5 |     bpf_send_signal(9);"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD, "not-a-scheduler"),
        (GOOD + GOOD.split("\n")[-2].replace("x_ops", "y_ops") + "\n", "several-schedulers"),
        (GOOD + 'SEC("xdp")\nint drop(struct xdp_md *ctx) { return 1; }\n', "forbidden-program"),
        (GOOD + 'SEC("fmod_ret/x")\nint lie(void *ctx) { return 1; }\n', "forbidden-program"),
        (GOOD + 'SEC("kprobe/x")\nint lie(void *ctx) { return bpf_override_return(ctx, 1); }\n', "forbidden-helper"),
        (GOOD.replace('"GPL"', '"MIT"'), "license-not-gpl"),
        (GOOD.replace("4000", "40000"), "ops-invalid"),
        (GOOD.replace("SCX_DSQ_GLOBAL", "SCX_DSQ_GLOBALL"), "compile-error"),
        ('#include "../secret.h"\n' + GOOD, "include-refused"),
        ('#include "/usr/include/bpf/bpf_helpers.h"\n' + GOOD, "include-refused"),
        (GOOD + 'asm(".incbin \\"/etc/passwd\\"");\n', "include-refused"),
    ],
)  # fmt: skip
def test_a_bad_source_is_a_finding_and_no_error(tools: Tools, tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "secret.h").write_text("int secret;\n")
    artifact = build(read_candidate(source(tmp_path / "s", text)), tools, tmp_path / "candidate")
    assert [(finding.code, finding.status) for finding in artifact.findings] == [(code, Status.FAIL)]
    assert not artifact.ok


def test_a_branch_that_is_not_compiled_may_lead_out(tools: Tools, tmp_path: Path) -> None:
    text = '#ifdef LSP\n#include "../../scx/common.bpf.h"\n#endif\n' + GOOD
    assert build(read_candidate(source(tmp_path / "s", text)), tools, tmp_path / "candidate").ok


def test_a_file_of_the_builder_root_is_no_header(tools: Tools, tmp_path: Path) -> None:
    text = GOOD.replace("\n", '\n#include "../etc/debian_version.h"\n', 1)
    tree = SourceTree("x.bpf.c", {"x.bpf.c": text.encode()})
    assert compile_source(tree, tools).data is None
    # the assembler's own way in, past our scan: nothing of the host is there to be read
    sly = GOOD + 'asm(".inc" "bin \\"/home\\"");\n'
    assert compile_source(SourceTree("x.bpf.c", {"x.bpf.c": sly.encode()}), tools).data is None


def test_a_local_copy_of_vmlinux_h_does_not_count(tools: Tools, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    path = source(folder, '#include "vmlinux.h"\n' + GOOD)
    (folder / "vmlinux.h").write_text("#error stale\n")
    assert build(read_candidate(path), tools, tmp_path / "candidate").ok


def test_macros_without_end_meet_a_limit(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from testbed.build import compiler

    monkeypatch.setattr(compiler, "LIMITS", replace(LIMITS, memory_bytes=400 << 20, cpu_s=5))
    lines = ["#define A0 x x x x x x x x x x"]
    lines += [f"#define A{n} " + " ".join([f"A{n - 1}"] * 10) for n in range(1, 10)]
    text = "\n".join(lines) + "\nint y = A9;\n"
    artifact = build(read_candidate(source(tmp_path / "s", text)), tools, tmp_path / "candidate")
    assert [finding.code for finding in artifact.findings] == ["compile-limit"]


def test_the_kernels_own_flags_are_used() -> None:
    assert "-mcpu=v3" in FLAGS
    assert "-D__TARGET_ARCH_x86" in FLAGS
