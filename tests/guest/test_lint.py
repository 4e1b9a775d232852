# SPDX-License-Identifier: Apache-2.0
"""Every rule of the lint on every scheduler that we have: it fires where a header says so and nowhere else.

No guest is booted, but the compiler and the kernel's types come from the image. `tests/golden/lint` holds the whole
text for each scheduler with a `lint:` line; `TESTBED_UPDATE_GOLDEN=1` writes it anew.
"""

from __future__ import annotations

import functools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.build.compiler import SOURCE, compile_source
from testbed.build.hints import Names, names_of
from testbed.candidate import read_candidate
from testbed.cli import main
from testbed.corpus import members
from testbed.errors import ExitCode
from testbed.image import Image
from testbed.lint.engine import Lint, lint
from testbed.lint.interpret import Interpreter
from testbed.lint.texts import RULES
from tests.guest.conftest import ROOT, testbed
from tests.unit.test_corpus import BAD, GOOD, lint_of, name_of

GOLDEN = ROOT / "tests/golden/lint"
INNOCENT = sorted(GOLDEN.glob("innocent/*.bpf.c"))
# Its header says what it is: everything goes to one CPU, to try the kernel's patience.
BAD_EXAMPLES = {"scx_cpu0": {"lint-one-cpu"}}
# What is wrong with the schedulers of the kernel's selftests, on purpose or because nobody runs them for long.
SELFTESTS = {
    "ddsp_bogus_dsq_fail": {"lint-undrained-queue", "lint-unknown-queue"},
    "ddsp_vtimelocal_fail": {"lint-vtime-builtin"},
    "dequeue_iter": {"lint-no-wakeup"},
    "enq_last_no_enq_fails": {"lint-flags"},
    "maximal": {"lint-no-wakeup", "lint-exit-unrecorded"},
    "nohz_tick": {"lint-infinite-slice"},
    "select_cpu_dfl": {"lint-by-name"},
    "select_cpu_dispatch_bad_dsq": {"lint-undrained-queue", "lint-unknown-queue"},
    "select_cpu_dispatch_dbl_dsp": {"lint-double-insert"},
}


@dataclass(frozen=True)
class Compiled:
    """A scheduler of the corpus; `data` is None if it does not compile."""

    data: bytes | None
    texts: dict[str, str]


@pytest.fixture(scope="session")
def names(image: Image) -> Names:
    return names_of(image.vmlinux_h, image.include, image.include / "bpf")


@pytest.fixture(scope="session")
def corpus(image: Image) -> dict[str, Compiled]:
    """Every scheduler of `bpf/`, compiled."""

    def compiled(path: Path) -> Compiled:
        tree = read_candidate(str(path)).sources
        assert tree is not None
        return Compiled(compile_source(tree, image).data, dict(tree.texts))

    paths = [*GOOD, *BAD]
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(map(name_of, paths), threads.map(compiled, paths), strict=True))


def found_in(one: Compiled, names: Names, *, with_source: bool = True) -> tuple[Lint, ...]:
    if one.data is None:
        return ()
    return lint(one.data, one.texts if with_source else {}, names, SOURCE)


@pytest.mark.parametrize("path", [*GOOD, *BAD], ids=name_of)
def test_the_lint_finds_exactly_what_the_header_says(path: Path, corpus: dict[str, Compiled], names: Names) -> None:
    found = found_in(corpus[name_of(path)], names)
    assert sorted({one.rule.code for one in found}) == lint_of(path), "\n".join(one.text() for one in found)


@pytest.mark.parametrize("path", [path for path in BAD if lint_of(path)], ids=name_of)
def test_the_text_is_the_expected_one(path: Path, corpus: dict[str, Compiled], names: Names) -> None:
    text = "\n\n".join(one.text() for one in found_in(corpus[name_of(path)], names)) + "\n"
    expected = GOLDEN / f"{name_of(path)}.txt"
    if os.environ.get("TESTBED_UPDATE_GOLDEN"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("path", [path for path in BAD if lint_of(path)], ids=name_of)
def test_an_object_without_its_source_gives_the_same_findings(
    path: Path, corpus: dict[str, Compiled], names: Names
) -> None:
    found = found_in(corpus[name_of(path)], names, with_source=False)
    assert sorted({one.rule.code for one in found}) == lint_of(path)
    assert all(one.finding().evidence[0].file == "candidate/artifact.json" for one in found)


@pytest.mark.parametrize("path", INNOCENT, ids=name_of)
def test_code_that_only_looks_dangerous_is_left_alone(path: Path, image: Image, names: Names) -> None:
    tree = read_candidate(str(path)).sources
    assert tree is not None
    compiled = compile_source(tree, image)
    assert compiled.data is not None, compiled.log
    assert [one.text() for one in lint(compiled.data, tree.texts, names, SOURCE)] == []


def test_the_kernels_examples_are_clean(image: Image, names: Names) -> None:
    objects = sorted((image.examples / "obj").glob("*.bpf.o"))
    assert len(objects) >= 6
    found = {path.name.removesuffix(".bpf.o"): lint(path.read_bytes(), {}, names) for path in objects}
    assert {name: {one.rule.code for one in ones} for name, ones in found.items() if ones} == BAD_EXAMPLES


def test_in_the_kernels_selftests_it_finds_what_they_do_wrong_and_nothing_else(image: Image, names: Names) -> None:
    files = [one.selftest for one in members(ROOT / "bpf") if one.selftest]
    assert len(files) >= 25

    def found(name: str) -> set[str]:
        tree = read_candidate(str(image.examples / "selftests" / name)).sources
        assert tree is not None
        compiled = compile_source(tree, image)
        assert compiled.data is not None, compiled.log
        return {one.rule.code for one in lint(compiled.data, tree.texts, names, SOURCE)}

    with ThreadPoolExecutor(2) as threads:
        codes = dict(zip((name.removesuffix(".bpf.c") for name in files), threads.map(found, files), strict=True))
    assert {name: ones for name, ones in codes.items() if ones} == SELFTESTS


def test_every_rule_fires_somewhere(corpus: dict[str, Compiled], names: Names) -> None:
    assert {one.rule.code for each in corpus.values() for one in found_in(each, names)} == set(RULES)


def test_what_is_too_long_to_be_followed_gets_only_the_rules_about_its_table(
    corpus: dict[str, Compiled], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.lint.facts.Interpreter", functools.partial(Interpreter, limit=5))
    assert [one.rule.code for one in found_in(corpus["wants_the_last_task"], names)] == ["lint-flags"]
    assert found_in(corpus["drops_one_process"], names) == ()


def test_without_the_kernels_types_nothing_is_invented(corpus: dict[str, Compiled]) -> None:
    for path in GOOD:
        assert found_in(corpus[name_of(path)], Names()) == ()


def test_the_verb_prints_one_document(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    files = [ROOT / "bpf/bad/lifo.bpf.c", ROOT / "bpf/bad/init_may_not_sleep.bpf.c", ROOT / "bpf/good/deadline.bpf.c"]
    assert main(["lint", "--format", "json", *map(str, files)]) == ExitCode.REJECT
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "testbed.lint/1"
    assert [(one["errors"], one["warnings"]) for one in document["candidates"]] == [(0, 1), (1, 0), (0, 0)]
    (finding,) = document["candidates"][0]["findings"]
    assert (finding["code"], finding["file"], finding["line"]) == ("lint-newest-first", "lifo.bpf.c", 22)
    assert main(["lint", str(files[0])]) == ExitCode.PASS, "a warning is no error"
    assert capsys.readouterr().out.endswith("\n1 candidate: 0 errors, 1 warning\n")


def test_advice_is_in_the_verdict_and_decides_nothing(image: Image, tmp_path: Path) -> None:
    answer = testbed(tmp_path, str(ROOT / "bpf/bad/init_fails.bpf.c"), "--policy", "quick", "--clock", "sim")
    told = {finding["code"]: finding["status"] for finding in answer.document["findings"]}
    assert told["lint-init-fails"] == "DONE"
    assert told["init-failed"] == "FAIL", answer.about()
    assert answer.document["title"] != RULES["lint-init-fails"].title
