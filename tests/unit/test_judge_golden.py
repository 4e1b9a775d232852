# SPDX-License-Identifier: Apache-2.0
"""Golden cases: a folder says how the runs went (`case.yaml`) and what must be found (`expected.json`).

Adding one is copying one; `UPDATE_GOLDEN=1 pytest tests/unit/test_judge_golden.py` writes what is found, to be read
before it is committed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from testbed.case import canonical_json
from testbed.judge import judge
from tests.unit.case_builder import build_golden

CASES = sorted((Path(__file__).resolve().parents[1] / "golden" / "cases").glob("*/case.yaml"))


@pytest.mark.parametrize("file", CASES, ids=lambda path: path.parent.name)
def test_a_golden_case_is_judged_as_written(file: Path, tmp_path: Path) -> None:
    verdict = judge(build_golden(file.parent, tmp_path / "case"))
    found = {
        "verdict": verdict.verdict,
        "exit_code": verdict.exit_code,
        "title": verdict.title,
        "safety": verdict.safety.model_dump(mode="json"),
        "findings": [
            {
                "code": finding.code,
                "status": finding.status,
                "title": finding.title,
                "confirmed": finding.confirmed,
                "message": finding.message,
                "evidence": [f"{ref.file}:{ref.line}" for ref in finding.evidence],
            }
            for finding in verdict.findings
        ],
    }
    expected = file.parent / "expected.json"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_bytes(canonical_json(found))
    assert found == json.loads(expected.read_text())


@pytest.mark.parametrize("file", CASES, ids=lambda path: path.parent.name)
def test_a_golden_case_says_what_it_is(file: Path) -> None:
    raw = yaml.safe_load(file.read_text())
    assert file.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert raw["why"].strip()
    expected = json.loads((file.parent / "expected.json").read_text())
    assert raw["expect"] == [expected["verdict"], *(finding["code"] for finding in expected["findings"])]
