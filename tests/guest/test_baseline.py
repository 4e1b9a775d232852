# SPDX-License-Identifier: Apache-2.0
"""Another scheduler in the place of EEVDF on real guests, in both directions, and with what is bad on each side."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed import digest
from testbed.image import Image
from tests.guest.conftest import COMMAND, Answer, environment, testbed

FIFO, WEIGHTED = "bpf/good/global_fifo.bpf.c", "bpf/good/weighted_vtime.bpf.c"
OPTIONS = ("--policy", "quick", "--clock", "sim", "-k", "starvation")


def judgements(answer: Answer) -> dict[str, str]:
    return {figure["name"]: figure["judgement"] for figure in answer.document["benefit"]["figures"]}


def reference(answer: Answer) -> Path:
    """The directory of the run of what figures are compared with."""
    runs = [run for result in answer.document["scenarios"] for run in result["runs"] if run["role"] == "reference"]
    assert len(runs) == 1, answer.about()
    return answer.case / str(runs[0]["run"])


def test_two_good_schedulers_each_against_the_other(image: Image, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = testbed(tmp_path / "one", FIFO, *OPTIONS, "--baseline", WEIGHTED)
    assert one.document["baseline"]["name"] == "weighted_vtime.bpf.c", one.about()
    assert judgements(one)["plain.gap.p50"] == "worse", one.about()
    assert one.document["benefit"]["summary"].startswith("worse than weighted_vtime.bpf.c in plain.gap.p50")

    # The other way round, and against what the case judged: both runs have been made before.
    two = testbed(tmp_path / "two", WEIGHTED, *OPTIONS, "--baseline", str(one.case))
    assert two.document["baseline"]["sha256"] == one.document["candidate"]["sha256"], two.about()
    assert judgements(two)["plain.gap.p50"] == "better", two.about()
    assert digest.parting(reference(two), one.case / "runs/000") is None
    assert digest.parting(two.case / "runs/000", reference(one)) is None

    # The case needs nothing outside it.
    words = [*COMMAND, "replay", str(reference(one))]
    again = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.startswith("identical"), again.stdout


def test_a_bad_scheduler_is_rejected_whatever_it_is_compared_with(image: Image, tmp_path: Path) -> None:
    answer = testbed(tmp_path, "bpf/bad/lifo.bpf.c", *OPTIONS, "--baseline", "bpf/bad/lifo.bpf.c")
    assert (answer.code, answer.document["safety"]["outcome"]) == (1, "fail"), answer.about()


def test_a_bad_baseline_is_named_and_the_candidate_is_not_blamed(image: Image, tmp_path: Path) -> None:
    # One that loses tasks whatever the order of events; how long one that starves them lets them wait depends on it.
    answer = testbed(tmp_path, FIFO, *OPTIONS, "--baseline", "bpf/bad/drops_one_process.bpf.c")
    assert answer.code == 3, answer.about()
    assert answer.failures == set(), answer.about()
    assert "reference-failed" in {finding["code"] for finding in answer.document["findings"]}, answer.about()
    assert "the baseline drops_one_process.bpf.c failed in starvation" in answer.document["benefit"]["summary"], (
        answer.about()
    )
