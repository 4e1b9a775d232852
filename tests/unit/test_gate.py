# SPDX-License-Identifier: Apache-2.0
"""The gate, on real git repositories; the trials are a stand-in's, so no guest runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jsonschema
import pytest

from testbed import gate as gates
from testbed.cli import main
from testbed.errors import ExitCode, HostError, Interrupted, ScenarioError, UsageError
from testbed.gate import Config, Document, Session, Settings, State, Survey, survey
from testbed.gate import config as configs
from testbed.gate import document as documents
from testbed.gate.document import Change
from testbed.judge import judge
from testbed.report import gate as report
from testbed.trial import Request, Result
from testbed.verdict import Outcome, Verdict
from tests.unit.case_builder import CaseBuilder, Script


def git(root: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", str(root), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_c", ".bpf.c").replace("_h", ".h")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def commit(root: Path, message: str = "x") -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Two candidates that share a header, one by itself in another folder."""
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    write(
        root,
        sched__one_c='#include "lib/queue.h"\nint one;\n',
        sched__two_c="int two;\n",
        sched__lib__queue_h="int queue;\n",
        other__three_c="int three;\n",
    )
    commit(root)
    return root


def look(root: Path, since: str | None = None, *paths: str, config: Config | None = None) -> Survey:
    return survey(root, paths, config or configs.default(), None, since)


def changed(root: Path, since: str | None = None, *paths: str) -> list[str]:
    return [one.path for one in look(root, since, *paths).changed]


# --- what there is and what changed --------------------------------------------------------------------------


def test_all_candidates_are_found_and_nothing_that_is_ignored(repo: Path) -> None:
    write(repo, build__made_c="int made;\n", new_c="int new;\n")
    (repo / ".gitignore").write_text("build/\n")
    assert changed(repo) == ["new.bpf.c", "other/three.bpf.c", "sched/one.bpf.c", "sched/two.bpf.c"]
    assert changed(repo, None, "sched") == ["sched/one.bpf.c", "sched/two.bpf.c"]
    assert changed(repo / "sched", None, "two.bpf.c") == ["sched/two.bpf.c"]


def test_nothing_changed_means_nothing_to_judge(repo: Path) -> None:
    found = look(repo, "main")
    assert found.changed == ()
    assert len(found.found) == 3


def test_an_edit_and_a_new_file_count_before_they_are_committed(repo: Path) -> None:
    write(repo, sched__two_c="int two = 2;\n", other__four_c="int four;\n")
    assert changed(repo, "main") == ["other/four.bpf.c", "sched/two.bpf.c"]


def test_a_changed_header_changes_who_includes_it(repo: Path) -> None:
    write(repo, sched__lib__queue_h="int queue = 1;\n", sched__unused_h="int unused;\n")
    assert changed(repo, "main") == ["sched/one.bpf.c"]
    (repo / "sched/lib/queue.h").unlink()
    assert changed(repo, "main") == ["sched/one.bpf.c"]


def test_what_was_touched_and_is_the_same_is_not_changed(repo: Path) -> None:
    before = git(repo, "rev-parse", "HEAD")
    write(repo, sched__two_c="int two = 2;\n")
    commit(repo)
    write(repo, sched__two_c="int two;\n")
    commit(repo)
    assert changed(repo, before) == []


def test_a_changed_regression_file_judges_every_candidate(repo: Path) -> None:
    write(repo, kept="a list of runs\n")
    commit(repo)
    config = configs.default().model_copy(update={"regressions": str(repo / "kept")})
    assert look(repo, "main", config=config).changed == ()
    write(repo, kept="a longer list of runs\n")
    found = look(repo, "main", config=config)
    assert len(found.changed) == 3
    assert "`kept` is changed" in found.notes[0]


def test_a_changed_workload_judges_every_candidate(repo: Path) -> None:
    metrics = "metrics: [{name: time, better: lower, duration: true}]"
    (repo / "bench").mkdir()
    (repo / "bench/run.sh").write_text("echo 1\n")
    (repo / "bench/serve.yaml").write_text(f"schema: testbed.workload/1\nname: serve\nargv: [run.sh]\n{metrics}\n")
    file = repo / "testbed.yaml"
    file.write_text("schema: testbed.gate-config/1\nworkload: bench/serve.yaml\nscenarios: serve\n")
    commit(repo)
    config = configs.load(file)
    assert config.workload == str(repo / "bench/serve.yaml")
    assert look(repo, "HEAD", config=config).changed == ()
    (repo / "bench/run.sh").write_text("echo 2\n")
    found = look(repo, "HEAD", config=config)
    assert len(found.changed) == 3
    assert "`bench/run.sh` is changed" in found.notes[0]
    (repo / "bench/run.sh").unlink()
    with pytest.raises(ScenarioError, match=r"testbed.yaml:2: .*serve.yaml:3: `run.sh` is neither a file"):
        configs.load(file)


def test_what_only_moved_is_not_judged_and_what_is_gone_is_told(repo: Path) -> None:
    (repo / "moved").mkdir()
    git(repo, "mv", "other/three.bpf.c", "moved/three.bpf.c")
    git(repo, "rm", "-q", "sched/two.bpf.c")
    found = look(repo, "main")
    assert found.changed == ()
    assert [one.was for one in found.found if one.was] == ["other/three.bpf.c"]
    assert found.deleted == ("sched/two.bpf.c",)


def test_files_that_include_each_other_come_to_an_end(repo: Path) -> None:
    write(repo, sched__a_c='#include "b.bpf.c"\n', sched__b_c='#include "a.bpf.c"\n')
    commit(repo)
    write(repo, sched__b_c='#include "a.bpf.c"\nint b;\n')
    assert changed(repo, "HEAD") == ["sched/a.bpf.c", "sched/b.bpf.c"]


def test_the_base_is_where_the_branches_part(repo: Path) -> None:
    git(repo, "checkout", "-q", "-b", "topic")
    write(repo, sched__two_c="int two = 2;\n")
    commit(repo)
    git(repo, "checkout", "-q", "main")
    write(repo, other__three_c="int three = 3;\n")
    commit(repo)
    git(repo, "checkout", "-q", "topic")
    assert changed(repo, "main") == ["sched/two.bpf.c"]


def test_changed_settings_judge_everybody_and_say_so(repo: Path) -> None:
    file = repo / "testbed.yaml"
    file.write_text("schema: testbed.gate-config/1\npolicy: quick\n")
    found = survey(repo, (), configs.load(file), file, "main")
    assert len(found.changed) == 3
    assert found.notes == ("`testbed.yaml` is changed, so every candidate is judged by it",)


def test_a_link_out_of_the_repository_is_not_read(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.c").write_text("int secret;\n")
    (repo / "evil.bpf.c").symlink_to(tmp_path / "secret.c")
    found = look(repo, "main")
    assert [(one.path, one.sha256) for one in found.changed] == [("evil.bpf.c", "")]
    assert found.changed[0].trouble == "`evil.bpf.c` is a link that leads out of the repository"


@pytest.mark.parametrize("name", ["-x", "", "no-such-branch", "a\nb", "$(touch x)", "--output=x"])
def test_a_base_that_is_no_commit_is_a_usage_error(repo: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"is no name of a commit|there is no commit"):
        look(repo, name)


def test_a_shallow_clone_without_the_base_says_how_to_get_it(repo: Path, tmp_path: Path) -> None:
    base = git(repo, "rev-parse", "HEAD")
    write(repo, sched__two_c="int two = 2;\n")
    commit(repo)
    git(tmp_path, "clone", "-q", "--depth", "1", repo.as_uri(), "shallow")
    with pytest.raises(UsageError, match="there is no commit") as caught:
        look(tmp_path / "shallow", base)
    assert "fetch-depth: 0" in caught.value.hint


def test_histories_that_never_met_have_no_base(repo: Path) -> None:
    git(repo, "checkout", "-q", "--orphan", "other")
    commit(repo, "another beginning")
    with pytest.raises(UsageError, match="have no common commit"):
        look(repo, "main")


def test_a_submodule_that_is_not_there_is_the_checkouts_fault(repo: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    lib.mkdir()
    git(lib, "init", "-q")
    write(lib, shared_h="int shared;\n", sub_c="int sub;\n")
    commit(lib)
    git(repo, "submodule", "--quiet", "add", str(lib), "sched/ext")
    write(repo, sched__two_c='#include "ext/shared.h"\n')
    commit(repo)
    assert "sched/ext/sub.bpf.c" in changed(repo)
    git(tmp_path, "clone", "-q", str(repo), "bare")
    found = look(tmp_path / "bare")
    two = next(one for one in found.found if one.path == "sched/two.bpf.c")
    assert two.trouble == "it includes `ext/shared.h` of the submodule `sched/ext`, which is not checked out"
    assert found.notes == ("submodule `sched/ext` is not checked out; candidates in it were not looked for",)
    with pytest.raises(UsageError, match="is in the submodule") as caught:
        look(tmp_path / "bare", None, "sched/ext")
    assert "git submodule update --init" in caught.value.hint


def test_paths_that_can_not_be_meant(repo: Path) -> None:
    for word, message in (
        ("nowhere", "no such file"),
        ("..", "is outside of"),
        ("sched/lib/queue.h", "not a candidate"),
    ):
        with pytest.raises(UsageError, match=message):
            look(repo, None, word)


def test_without_git_everything_is_judged_and_nothing_compared(tmp_path: Path) -> None:
    write(tmp_path, a_c="int a;\n")
    assert changed(tmp_path) == ["a.bpf.c"]
    with pytest.raises(UsageError, match="needs a git repository"):
        look(tmp_path, "main")


# --- the configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("schema: testbed.gate-config/1\nfile: [x]\n", ":2: unknown key `file`", "did you mean `files`?"),
        ("schema: testbed.gate-config/1\nclock: sin\n", ":2: `clock` is `sin`", "did you mean `sim`?"),
        ("schema: testbed.gate-config/1\npolicy: quik\n", ":2: there is no policy `quik`", "did you mean `quick`?"),
        ("schema: testbed.gate-config/1\nfiles: ['../x']\n", ":2: `../x` is no pattern", "stays below"),
        ("schema: testbed.gate-config/1\nkernels: [a, image, a]\n", ":2: `a` is there twice", "leave one out"),
        ("schema: testbed.gate-config/1\nkernels: ['']\n", ":2: an empty word is no kernel", "debian:VERSION"),
        ("schema: testbed.gate-config/1\nscenarios: xyz\n", ":2: `scenarios: xyz` matches no scenario", "it has"),
        ("schema: testbed.gate-config/1\ncpus: 0\n", ":2: `cpus`", ""),
        ("files: []\n", ":1: `schema` is missing", ""),
    ],
)
def test_a_wrong_configuration_names_the_line(tmp_path: Path, text: str, message: str, hint: str) -> None:
    file = tmp_path / "testbed.yaml"
    file.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        configs.load(file)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_patterns_are_below_the_configuration(repo: Path) -> None:
    file = repo / "sched" / "gate.yaml"
    file.write_text("schema: testbed.gate-config/1\nfiles: ['*.bpf.c']\nexclude: ['t??.bpf.c']\n")
    assert [one.path for one in survey(repo, (), configs.load(file), file, None).found] == ["sched/one.bpf.c"]


# --- judging -------------------------------------------------------------------------------------------------


@dataclass
class Stand:
    """Judges by name: what a candidate called so got; an exception is raised."""

    answers: dict[str, Verdict | Exception]
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: Request, kernel: str) -> Result:
        assert isinstance(request.candidate, str) and request.out is not None
        name = Path(request.candidate).name.partition(".")[0] + (f" on {kernel}" if kernel else "")
        self.asked.append(name)
        request.out.mkdir(parents=True)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return Result(answer, request.out, 1.5)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """One of each kind."""

    def made(script: Script | None, *more: str) -> Verdict:
        builder = CaseBuilder(tmp_path_factory.mktemp("gate") / "case")
        for name in ("starvation", *more):
            builder.demand(name)
        builder.pair("starvation", script or Script())
        return judge(builder.finish())

    bad = made(Script(figures={"polite.gap.max": 1_500_000}))
    return {
        "pass": made(None),
        "reject": bad,
        "other": bad.model_copy(update={"title": "other"}),
        "lost": made(None, "stall"),
    }


def hold(
    root: Path,
    out: Path,
    answers: dict[str, Verdict | Exception],
    *,
    shard: tuple[int, int] | None = None,
    fail_on: Literal["any", "regression"] = "any",
    base: Document | None = None,
    stop: threading.Event | None = None,
    kernels: tuple[str, ...] = ("",),
) -> tuple[Document, Stand]:
    stand = Stand(answers)
    settings = Settings(policy="quick", shard=shard, fail_on=fail_on, kernels=kernels)
    session = Session(look(root), settings, out, stand, lambda _: None, base=base, stop=stop or threading.Event())
    return session.run(), stand


def test_the_worst_verdict_decides(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    good, bad, lost = verdicts["pass"], verdicts["reject"], verdicts["lost"]
    wanted: list[tuple[list[Verdict | Exception], int]] = [
        ([good, good, good], ExitCode.PASS),
        ([good, lost, good], ExitCode.INCONCLUSIVE),
        ([good, lost, bad], ExitCode.REJECT),
        ([good, HostError("the disk is full"), good], ExitCode.INCONCLUSIVE),
    ]
    for number, (answers, code) in enumerate(wanted):
        document, _ = hold(repo, tmp_path / str(number), dict(zip(("one", "two", "three"), answers, strict=True)))
        assert document.exit_code == code
        assert documents.read(tmp_path / str(number)) == document
    assert [entry.trouble for entry in document.candidates if entry.trouble] == ["the disk is full"]


def test_a_full_disk_is_never_a_candidates_fault(
    repo: Path, tmp_path: Path, verdicts: dict[str, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    good = verdicts["pass"]
    document, _ = hold(repo, tmp_path / "g", {"one": good, "two": full, "three": good})
    assert (document.exit_code, document.counts.passed) == (ExitCode.INCONCLUSIVE, 2)
    assert [entry.trouble for entry in document.candidates if entry.trouble] == ["no space left on device"]

    def refuse(directory: Path, document: Document) -> None:
        raise full

    monkeypatch.setattr(documents, "write", refuse)
    monkeypatch.chdir(repo)
    code = main(["gate", "--changed-since", "main", "--out", str(tmp_path / "h")])
    assert code == ExitCode.INCONCLUSIVE, "an answer that nobody could write down is no pass"


def test_a_place_for_artifacts_is_looked_at_before_the_work(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repo)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    assert main(["gate", "--artifacts", str(tmp_path / "full"), "--out", str(tmp_path / "g")]) == ExitCode.USAGE
    assert "exists and is not an empty directory" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()
    words = ["gate", "--changed-since", "main", "--out", str(tmp_path / "g")]
    assert main([*words, "--artifacts", str(tmp_path / "new")]) == ExitCode.PASS
    assert (tmp_path / "new/index.json").is_file()


def test_a_document_is_valid_to_the_published_schema(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    document, _ = hold(
        repo, tmp_path / "g", {"one": verdicts["reject"], "two": verdicts["lost"], "three": UsageError("x")}
    )
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/gate.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(report.render(document, "json")))
    for name in report.FORMATS:
        assert report.render(document, name)
    assert report.render(document, "text").endswith("\nrejected: 1 rejected, 2 inconclusive\n")
    assert report.render(document, "markdown").startswith(
        "## testbed: rejected\n\n<code>1 rejected, 2 inconclusive</code>\n"
    )


def test_an_interrupted_gate_keeps_what_it_has_and_goes_on(
    repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]
) -> None:
    good = verdicts["pass"]
    document, stand = hold(repo, tmp_path / "g", {"three": good, "one": Interrupted("x"), "two": good})
    assert stand.asked == ["three", "one"]
    assert (document.exit_code, document.interrupted, document.complete) == (ExitCode.INTERRUPTED, True, False)
    assert report.render(document, "text").endswith("\ninterrupted: 2 inconclusive, 1 passed\n")
    assert [entry.state for entry in document.candidates] == [State.JUDGED, State.WAITING, State.WAITING]
    document, stand = hold(repo, tmp_path / "g", {"one": good, "two": good})
    assert stand.asked == ["one", "two"]
    assert (document.exit_code, document.complete) == (ExitCode.PASS, True)
    assert sorted(path.name for path in (tmp_path / "g/cases").iterdir()) == [
        "000-three",
        "001-one",
        "001-one-2",
        "002-two",
    ]


def test_a_gate_that_is_stopped_first_judges_nobody(repo: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    document, stand = hold(repo, tmp_path / "g", {}, stop=stop)
    assert stand.asked == []
    assert document.exit_code == ExitCode.INTERRUPTED


def test_a_directory_with_another_question_is_refused(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    answers: dict[str, Verdict | Exception] = dict.fromkeys(("one", "two", "three"), verdicts["pass"])
    hold(repo, tmp_path / "g", answers)
    write(repo, sched__two_c="int two = 2;\n")
    with pytest.raises(UsageError, match="holds another gate"):
        hold(repo, tmp_path / "g", answers)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="holds no gate"):
        hold(repo, tmp_path / "full", answers)


def test_every_candidate_is_judged_on_every_kernel(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    kernels = ("", "debian:7.2")
    answers: dict[str, Verdict | Exception] = {
        f"{name}{where}": verdicts["pass"] for name in ("one", "two", "three") for where in ("", " on debian:7.2")
    }
    base, stand = hold(repo, tmp_path / "base", answers, kernels=kernels)
    assert stand.asked == ["three", "one", "two", "three on debian:7.2", "one on debian:7.2", "two on debian:7.2"]
    assert (base.counts.found, base.counts.passed, base.exit_code) == (6, 6, ExitCode.PASS)

    answers["two on debian:7.2"] = verdicts["reject"]
    document, _ = hold(repo, tmp_path / "now", answers, kernels=kernels, base=base)
    assert [(one.name, one.change) for one in document.candidates if one.change is not Change.SAME] == [
        ("sched/two.bpf.c on debian:7.2", Change.REGRESSION)
    ]
    assert document.exit_code == ExitCode.REJECT
    assert len({one.case for one in document.candidates}) == 6
    assert "sched/two.bpf.c on debian:7.2" in report.render(document, "text")
    bad = next(one for one in document.subjects if one.outcome is Outcome.REJECT)
    assert bad.command == "testbed run sched/two.bpf.c --policy quick --kernel debian:7.2"

    parts = [hold(repo, tmp_path / f"s{n}", answers, kernels=kernels, shard=(n, 2), base=base)[0] for n in (1, 2)]
    assert [one.counts.judged for one in parts] == [3, 3]
    assert gates.merge(parts).counts == document.counts
    with pytest.raises(UsageError, match="holds another gate"):
        hold(repo, tmp_path / "now", answers)


def test_two_gates_do_not_share_a_directory(repo: Path, tmp_path: Path) -> None:
    def second(request: Request, kernel: str) -> Result:
        hold(repo, tmp_path / "g", {})
        raise AssertionError

    session = Session(look(repo), Settings(policy="quick"), tmp_path / "g", second, lambda _: None)
    document = session.run()
    assert "another gate is at work" in document.candidates[0].trouble


# --- shards --------------------------------------------------------------------------------------------------


def test_shards_together_are_the_whole(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    answers: dict[str, Verdict | Exception] = {
        "one": verdicts["pass"],
        "two": verdicts["reject"],
        "three": verdicts["lost"],
    }
    whole, _ = hold(repo, tmp_path / "whole", answers)
    shards = [hold(repo, tmp_path / f"s{index}", answers, shard=(index, 2)) for index in (1, 2)]
    assert sorted(name for _, stand in shards for name in stand.asked) == ["one", "three", "two"]
    merged = gates.merge([document for document, _ in reversed(shards)])
    strip = {"case": "", "elapsed_s": 0}
    assert [entry.model_copy(update=strip) for entry in merged.candidates] == [
        entry.model_copy(update=strip) for entry in whole.candidates
    ]
    assert merged.exit_code == ExitCode.REJECT


def test_a_missing_shard_is_never_a_pass(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    answers: dict[str, Verdict | Exception] = dict.fromkeys(("one", "two", "three"), verdicts["pass"])
    one, _ = hold(repo, tmp_path / "1", answers, shard=(1, 5))
    five, _ = hold(repo, tmp_path / "5", answers, shard=(5, 5))
    merged = gates.merge([one, five])
    assert merged.exit_code == ExitCode.INCONCLUSIVE
    assert [entry.state for entry in merged.candidates] == [State.JUDGED, State.MISSING, State.MISSING]
    everybody = [hold(repo, tmp_path / f"m{index}", answers, shard=(index, 5))[0] for index in range(1, 5)]
    merged = gates.merge(everybody)
    assert merged.exit_code == ExitCode.INCONCLUSIVE, (
        "though all candidates were judged, nobody knows what the last said"
    )
    assert merged.title == "3 passed; shard 5/5 is missing"
    with pytest.raises(UsageError, match="is there twice"):
        gates.merge([one, one])
    write(repo, sched__two_c="int two = 2;\n")
    with pytest.raises(UsageError, match="of different gates"):
        gates.merge([one, hold(repo, tmp_path / "other", answers, shard=(2, 5))[0]])


# --- the base ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "change", "code"),
    [
        ("pass", "reject", Change.REGRESSION, 1),
        ("reject", "reject", Change.BAD_BEFORE, 0),
        ("reject", "other", Change.REGRESSION, 1),
        ("reject", "pass", Change.FIXED, 0),
        ("pass", "pass", Change.SAME, 0),
    ],
)
def test_what_was_bad_before_is_told_apart(
    repo: Path, tmp_path: Path, verdicts: dict[str, Verdict], before: str, now: str, change: Change, code: int
) -> None:
    names = ("one", "two", "three")
    base, _ = hold(repo, tmp_path / "base", dict.fromkeys(names, verdicts[before]))
    answers: dict[str, Verdict | Exception] = dict.fromkeys(names, verdicts[now])
    strict, _ = hold(repo, tmp_path / "any", answers, base=base)
    assert {entry.change for entry in strict.candidates} == {change}
    assert strict.exit_code == verdicts[now].exit_code
    lenient, _ = hold(repo, tmp_path / "regression", answers, base=base, fail_on="regression")
    assert lenient.exit_code == code


def test_what_did_not_run_is_never_excused(repo: Path, tmp_path: Path, verdicts: dict[str, Verdict]) -> None:
    answers: dict[str, Verdict | Exception] = dict.fromkeys(("one", "two", "three"), verdicts["lost"])
    base, _ = hold(repo, tmp_path / "base", answers)
    document, _ = hold(repo, tmp_path / "now", answers, base=base, fail_on="regression")
    assert document.exit_code == ExitCode.INCONCLUSIVE


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repo)
    assert main(["gate", "--changed-since", "main", "--out", str(tmp_path / "g"), "--format", "json"]) == ExitCode.PASS
    assert json.loads(capsys.readouterr().out)["counts"]["unchanged"] == 3
    assert main(["gate", "--dry-run", "--shard", "1/2"]) == ExitCode.PASS
    assert capsys.readouterr().out.splitlines()[0] == "judge     other/three.bpf.c"
    (repo / "testbed.yaml").write_text("schema: testbed.gate-config/1\nfiles: [nothing/*.bpf.c]\n")
    assert main(["gate"]) == ExitCode.USAGE
    assert "no candidates found" in capsys.readouterr().err
    assert main(["gate", "--allow-empty", "--out", str(tmp_path / "e")]) == ExitCode.PASS
    assert main(["gate", "--shard", "3/2"]) == ExitCode.USAGE
    assert main(["gate", "--format", "jsonl"]) == ExitCode.USAGE
    assert main(["merge", str(tmp_path / "nowhere")]) == ExitCode.USAGE
    assert main(["merge", str(tmp_path / "g")]) == ExitCode.USAGE


def test_nothing_to_judge_has_no_outcome_of_its_own() -> None:
    assert gates.Entry(path="a", sha256="", state=State.UNCHANGED).outcome is None
    assert gates.Entry(path="a", sha256="", state=State.FAILED).outcome is Outcome.INCONCLUSIVE
