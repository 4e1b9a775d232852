# SPDX-License-Identifier: Apache-2.0
"""SARIF 2.1.0 for code scanning: a rule per code of the catalogue, a result per finding that is about the candidate.

What the testbed or the machine got wrong is no result (it would be an alert about somebody's code), but a notification
of the invocation, which then counts as not successful.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from testbed import __version__
from testbed.case import canonical_json
from testbed.errors import UsageError
from testbed.judge import catalogue
from testbed.judge.catalogue import Entry
from testbed.report.escape import bounded, lines
from testbed.report.markdown import body
from testbed.report.subject import Subject, place
from testbed.spec import sha256
from testbed.status import Status
from testbed.verdict import Finding, Outcome

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "testbedFinding/v1"
MAX_MESSAGE = 4000
LEVELS = {Status.FAIL: "error", Status.ERROR: "warning", Status.DONE: "note"}


def render(subjects: Sequence[Subject]) -> str:
    """The document."""
    codes = _codes(subjects)
    run = {
        "tool": {"driver": {"name": "testbed", "version": __version__, "rules": [_rule(code) for code in codes]}},
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "root of the repository"}}},
        "columnKind": "unicodeCodePoints",
        "results": _results(subjects, codes),
        "invocations": [_invocation(subjects)],
    }
    return canonical_json({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}).decode("ascii")


def _codes(subjects: Sequence[Subject]) -> list[str]:
    """The whole catalogue, so that an alert that is gone still has its text, and what else was found and has a text."""
    found = {finding.code for subject in subjects for finding in subject.findings}
    return sorted({*catalogue.CODES, *(code for code in found if _known(code))})


def _known(code: str) -> bool:
    try:
        catalogue.explain(code)
    except UsageError:
        return False
    return True


def _rule(code: str) -> dict[str, Any]:
    entry: Entry = catalogue.explain(code)
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("-")),
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": entry.meaning},
        "help": {
            "text": f"{entry.meaning} {entry.why} Usual cause: {entry.cause}. Smallest fix: {entry.fix}.",
            "markdown": f"{entry.meaning} {entry.why}\n\n**Usual cause:** {entry.cause}.\n\n"
            f"**Smallest fix:** {entry.fix}.\n\n{entry.example}",
        },
        "defaultConfiguration": {"level": LEVELS[entry.status]},
        "properties": {"tags": [entry.family]},
    }


def _results(subjects: Sequence[Subject], codes: list[str]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for subject in subjects:
        for finding in subject.findings:
            if finding.status not in (Status.FAIL, Status.DONE):
                continue
            file, line = place(subject, finding)
            identity = (subject.name, file, finding.code, finding.title, str(finding.clock or ""))
            result: dict[str, Any] = {
                "ruleId": finding.code,
                "level": LEVELS[finding.status],
                "message": {"text": _message(finding)},
                # No line and no content: an edit elsewhere in the file leaves the alert the same.
                "partialFingerprints": {FINGERPRINT: sha256("\0".join((*identity, str(seen[identity]))).encode())},
            }
            if finding.code in codes:
                result["ruleIndex"] = codes.index(finding.code)
            if file:
                result["locations"] = [_location(file, line)]
            seen[identity] += 1
            results.append(result)
    return results


def _location(file: str, line: int) -> dict[str, Any]:
    artifact = {"uri": quote(file.encode("utf-8", "replace"), safe="/"), "uriBaseId": "%SRCROOT%"}
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}


def _message(finding: Finding) -> str:
    return _plain("\n".join([*lines(finding.title), *body(finding)]))


def _plain(text: str) -> str:
    """A plain-text message in which nothing is an embedded link, which is `[text](target)` even there."""
    return bounded(text.replace("](", "] ("), MAX_MESSAGE)


def _invocation(subjects: Sequence[Subject]) -> dict[str, Any]:
    notifications = []
    for subject in subjects:
        told = [_message(one) for one in subject.findings if one.status is Status.ERROR]
        if subject.outcome is Outcome.INCONCLUSIVE:
            told.insert(0, _plain("\n".join(lines(f"{subject.name}: inconclusive: {subject.title}"))))
        notifications += [{"level": "error", "message": {"text": text}} for text in told]
    successful = all(subject.outcome is not Outcome.INCONCLUSIVE for subject in subjects)
    return {"executionSuccessful": successful, "toolExecutionNotifications": notifications}
