# SPDX-License-Identifier: Apache-2.0
"""JUnit's XML, for whatever shows test results: a suite per candidate, a case per scenario, and one for the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from testbed.report.escape import harmless, lines
from testbed.report.markdown import body
from testbed.report.subject import Subject
from testbed.report.text import WORDS
from testbed.status import Status
from testbed.verdict import Outcome, ScenarioResult


def render(subjects: Sequence[Subject]) -> str:
    """The document. A verdict that is no pass has a test case that is none, so nothing green hides it."""
    root = Xml.Element("testsuites", name="testbed")
    for subject in subjects:
        suite = Xml.SubElement(root, "testsuite", name=harmless(subject.name))
        _verdict(suite, subject)
        if subject.verdict is not None:
            for result in subject.verdict.scenarios:
                _scenario(suite, subject, result)
        _count(suite)
    _count(root)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _verdict(suite: Xml.Element, subject: Subject) -> None:
    case = Xml.SubElement(suite, "testcase", name="verdict", classname=harmless(subject.name))
    if subject.verdict is not None and subject.verdict.elapsed_s is not None:
        case.set("time", f"{subject.verdict.elapsed_s:.3f}")
    if subject.outcome is not Outcome.PASS:
        kind = "failure" if subject.outcome is Outcome.REJECT else "error"
        found = [line for one in subject.findings if not one.scenario for line in (one.code, *body(one))]
        _trouble(case, kind, f"{WORDS[subject.outcome]}: {subject.title}", found)


def _scenario(suite: Xml.Element, subject: Subject, result: ScenarioResult) -> None:
    name = f"{harmless(result.name)} [{result.clock}]"
    case = Xml.SubElement(suite, "testcase", name=name, classname=harmless(subject.name))
    own = [one for one in subject.findings if (one.scenario, one.clock) == (result.name, result.clock)]
    text = [line for one in own for line in (f"{one.status} {one.code}: {one.title}", *body(one), "")]
    match result.status:
        case Status.FAIL:
            _trouble(case, "failure", result.reason, text)
        case Status.ERROR:
            _trouble(case, "error", result.reason, text)
        case Status.MISS if result.required:
            _trouble(case, "error", f"did not run: {result.reason}", text)
        case Status.MISS | Status.SKIP:
            Xml.SubElement(case, "skipped", message=harmless(result.reason))


def _trouble(case: Xml.Element, kind: str, message: str, text: Sequence[str]) -> None:
    element = Xml.SubElement(case, kind, message=harmless(message))
    element.text = "\n".join(line for part in text for line in lines(part))


def _count(element: Xml.Element) -> None:
    element.set("tests", str(len(element.findall(".//testcase"))))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(len(element.findall(f".//{tag}"))))
