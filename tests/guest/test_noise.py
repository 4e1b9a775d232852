# SPDX-License-Identifier: Apache-2.0
"""The positive control on real guests: a scheduler that loses 5 % is safe, and found to be worse than its original."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.noise_floor import CONTROL, CONTROL_SEEDS, worse
from testbed.image import Image
from tests.guest.conftest import COMMAND, ROOT, environment, testbed


@pytest.mark.slow
def test_a_scheduler_that_is_five_percent_worse_is_found_to_be_worse(image: Image, tmp_path: Path) -> None:
    figure, scenario, original = worse(CONTROL)
    cases = []
    for file in (CONTROL, ROOT / f"bpf/good/{original}.bpf.c"):
        folder = tmp_path / file.name
        answer = testbed(folder, str(file), "--clock", "sim", "-k", scenario, "--seeds", str(CONTROL_SEEDS))
        assert answer.document["safety"]["outcome"] != "fail", answer.about()
        assert not answer.failures, answer.about()
        cases.append(str(answer.case))
    words = [*COMMAND, "compare", *cases, "--format", "json"]
    result = subprocess.run(words, capture_output=True, text=True, check=True, env=environment(tmp_path), cwd=ROOT)
    judged = {one["name"]: one for one in json.loads(result.stdout)["figures"]}
    assert judged[figure]["judgement"] == "worse", judged[figure]
    assert "better" not in {one["judgement"] for one in judged.values()}, judged
