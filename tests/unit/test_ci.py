# SPDX-License-Identifier: Apache-2.0
"""The scripts of the action, with a stand-in for the command: what a workflow passes, and what it may not do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAND_IN = """\
#!/bin/sh
printf '%s\\n' "$@" >"$ARGUMENTS"
echo '::set-output name=verdict::pass'
for word in "$@"; do
    case $word in
    github=*) echo '::error::ours' >"${word#github=}" ;;
    markdown=*) echo '## ours' >"${word#markdown=}" ;;
    esac
done
exit 1
"""
WORKFLOWS = sorted([*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "ci/templates/github.yml"])
ACTIONS = [ROOT / "ci/gate/action.yml", ROOT / "ci/merge/action.yml"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The action's scripts beside a command that only remembers its arguments."""
    root = tmp_path / "testbed"
    shutil.copytree(ROOT / "ci" / "gate", root / "ci" / "gate")
    command = root / ".venv" / "bin" / "testbed"
    command.parent.mkdir(parents=True)
    command.write_text(STAND_IN)
    command.chmod(0o755)
    return root


def call(root: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    environment = {"PATH": os.environ["PATH"], "ARGUMENTS": str(root / "arguments"), **inputs}
    done = subprocess.run(
        [root / "ci/gate/gate"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done, (root / "arguments").read_text().splitlines()


def test_inputs_are_arguments_and_never_commands(copy: Path) -> None:
    hostile = "$(touch pwned); `touch pwned` && touch pwned"
    done, arguments = call(copy, GATE_PATHS=f"{hostile}\n--no-cache", GATE_POLICY=hostile, GATE_SINCE="--output=x")
    assert done.returncode == 1, "the gate's exit code is the step's"
    assert arguments[arguments.index("--policy") + 1] == hostile
    assert {f"./{hostile}", "./--no-cache"} <= set(arguments)
    assert "--changed-since=--output=x" in arguments
    assert not (copy / "pwned").exists()


def test_kernels_are_fetched_before_they_are_judged_on(copy: Path) -> None:
    hostile = "$(touch pwned)"
    _, arguments = call(copy, GATE_KERNELS=f"image\n{hostile}\n\n--no-cache")
    assert [word for word in arguments if word.startswith("--kernel")] == [
        "--kernel=image", f"--kernel={hostile}", "--kernel=--no-cache"
    ]  # fmt: skip
    assert "--no-cache" not in arguments
    assert not (copy / "pwned").exists()
    done, arguments = call(copy, GATE_KERNELS="debian:7.2")
    assert (done.returncode, arguments) == (1, ["image", "kernel", "7.2"]), "what can't be fetched is not judged on"


def test_the_runner_obeys_nothing_that_the_command_prints(copy: Path) -> None:
    summary = copy / "summary"
    done, _ = call(copy, GITHUB_STEP_SUMMARY=str(summary))
    lines = done.stdout.splitlines()
    stop = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", lines[0])
    assert stop is not None
    assert lines.index(f"::{stop[1]}::") > lines.index("::set-output name=verdict::pass")
    assert lines[-1] == "::error::ours"
    assert summary.read_text() == "## ours\n"
    again, _ = call(copy)
    assert again.stdout.splitlines()[0] != lines[0], "a token is used once"


def test_a_pull_request_is_compared_with_what_it_is_merged_into(copy: Path) -> None:
    _, arguments = call(copy, GITHUB_EVENT_NAME="pull_request")
    assert "--changed-since=HEAD^1" in arguments
    _, arguments = call(copy, GITHUB_EVENT_NAME="push")
    assert not any(word.startswith("--changed-since") for word in arguments)


@pytest.mark.parametrize("script", ["gate", "merge"])
def test_without_results_a_step_never_passes(copy: Path, script: str) -> None:
    (copy / ".venv/bin/testbed").write_text("#!/bin/sh\nexit 3\n")
    done = subprocess.run([copy / "ci/gate" / script, str(copy / "none")], cwd=copy, capture_output=True, check=False)
    assert done.returncode == 3


@pytest.mark.parametrize("file", [*WORKFLOWS, *ACTIONS], ids=lambda file: file.name)
def test_actions_are_pinned_and_expressions_stay_out_of_scripts(file: Path) -> None:
    text = file.read_text()
    assert "pull_request_target" not in text
    for line in re.findall(r"uses: (\S+)", text):
        assert re.fullmatch(r"\$/\S+|[\w./-]+@[0-9a-f]{40}", line), line
    steps = yaml.safe_load(text)
    groups = steps["jobs"].values() if "jobs" in steps else [steps["runs"]]
    for step in (step for group in groups for step in group["steps"]):
        assert "${{" not in step.get("run", "")
    if "jobs" in steps:
        assert steps["permissions"] == {"contents": "read"}


def test_a_pull_request_writes_no_cache() -> None:
    steps = yaml.safe_load(ACTIONS[0].read_text())["runs"]["steps"]
    saving = [step for step in steps if "cache/save" in step.get("uses", "")]
    assert ["github.event_name == 'push'" in step["if"] for step in saving] == [True]
    assert not any(re.match(r"actions/cache@", step.get("uses", "")) for step in steps), "it saves by itself"


def nightly(root: Path, code: int, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    for script in ("nightly", "nightly-issues"):
        shutil.copy(ROOT / "ci" / script, root / "ci" / script)
    (root / ".venv/bin/testbed").write_text(STAND_IN.replace("exit 1", f"exit {code}"))
    given = {"PATH": os.environ["PATH"], "ARGUMENTS": str(root / "arguments"), **environment}
    done = subprocess.run(
        [root / "ci/nightly", "--only", "x y"], env=given, capture_output=True, text=True, check=False
    )
    return done, (root / "arguments").read_text().splitlines()


def test_a_night_keeps_its_state_and_its_exit_code(copy: Path) -> None:
    old = copy / "testbed-nightly" / "issue-2.md"
    old.parent.mkdir()
    old.write_text("of an earlier night")
    summary = copy / "summary"
    done, arguments = nightly(copy, 3, NIGHTLY_BUDGET="90min", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 3
    assert arguments[0] == "nightly"
    assert arguments[arguments.index("--out") + 1] == str(copy / "testbed-nightly" / "state")
    assert arguments[arguments.index("--budget") + 1] == "90min"
    assert arguments[-2:] == ["--only", "x y"]
    assert not old.exists()
    assert summary.read_text() == "## ours\n"
    assert "::stop-commands::" not in done.stdout
    done, _ = nightly(copy, 1, GITHUB_ACTIONS="true")
    lines = done.stdout.splitlines()
    stop = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", lines[0])
    assert stop is not None
    assert lines.index(f"::{stop[1]}::") > lines.index("::set-output name=verdict::pass")


GH = """\
#!/bin/sh
case "$1 $2" in
"issue list") case $* in *00000000000000aa*) echo 12 ;; esac ;;
*) printf '%s\\n' "$*" >>"$ARGUMENTS" ;;
esac
"""


def test_an_open_issue_is_added_to_and_a_new_one_is_opened(tmp_path: Path) -> None:
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ARGUMENTS": str(tmp_path / "arguments")}
    for name, key in (("issue", "00000000000000aa"), ("issue-2", "00000000000000bb")):
        text = f"# nightly: {name}: verdict is worse\n\nwords\n\n<!-- testbed-nightly {key} -->\n"
        (tmp_path / f"{name}.md").write_text(text)
    command = [str(ROOT / "ci/nightly-issues"), str(tmp_path)]
    subprocess.run(command, env=environment, check=True)
    assert sorted((tmp_path / "arguments").read_text().splitlines()) == [
        f"issue comment 12 --body-file {tmp_path}/issue.md",
        f"issue create --title nightly: issue-2: verdict is worse --body-file {tmp_path}/issue-2.md",
    ]
    (tmp_path / "issue.md").write_text("# something else\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is no text of `testbed nightly`" in done.stderr


def test_what_failed_is_handed_on_and_told_in_the_summary(copy: Path) -> None:
    summary = copy / "summary"
    (copy / ".venv/bin/testbed").write_text(
        STAND_IN.replace("exit 1", "mkdir -p out/failures\necho '- told' >out/failures/summary.md\nexit 1")
    )
    old = copy / "out" / "failures" / "old"
    old.mkdir(parents=True)
    done, arguments = call(copy, GITHUB_STEP_SUMMARY=str(summary), GATE_OUT="out", GATE_MINIMIZE="40")
    assert done.returncode == 1
    assert arguments[arguments.index("--artifacts") + 1] == "out/failures"
    assert arguments[arguments.index("--minimize") + 1] == "40"
    assert not old.exists()
    assert summary.read_text() == "## ours\n\n- told\n"
    _, arguments = call(copy, GATE_MINIMIZE="0")
    assert "--minimize" not in arguments
