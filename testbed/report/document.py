# SPDX-License-Identifier: Apache-2.0
"""The documents that scripts read: `testbed.verdict/1` on stdout, `testbed.error/1`, and their JSON Schema."""

from __future__ import annotations

from typing import Any

from testbed.errors import TestbedError
from testbed.spec import published_schema, schema_text_of
from testbed.verdict import Verdict


class PrintedVerdict(Verdict):
    """A verdict as it is printed: with the two things that are true of this machine and this moment only."""

    case_dir: str | None = None
    elapsed_s: float | None = None


def printed(verdict: Verdict, *, case_dir: str | None, elapsed_s: float | None) -> PrintedVerdict:
    """The verdict with where its case lies and how long it took."""
    values = verdict.model_dump(mode="json", by_alias=True)
    if case_dir is not None:
        values["case_dir"] = case_dir
    if elapsed_s is not None:
        values["elapsed_s"] = round(elapsed_s, 3)
    return PrintedVerdict.model_validate(values)


def dump(verdict: PrintedVerdict) -> dict[str, Any]:
    """The document as plain data; what is not known of this machine is left out."""
    values: dict[str, Any] = verdict.model_dump(mode="json", by_alias=True)
    for key in ("case_dir", "elapsed_s"):
        if values[key] is None:
            del values[key]
    return values


def schema() -> dict[str, Any]:
    """JSON Schema of `testbed.verdict/1`, for the file and for stdout."""
    told = "The whole answer of `testbed run`. `case_dir` and `elapsed_s` are on stdout only."
    result = published_schema(PrintedVerdict, "testbed.verdict/1", told)
    optional = {"case_dir", "elapsed_s"}
    for key in optional:
        plain = next(one for one in result["properties"][key]["anyOf"] if one["type"] != "null")
        result["properties"][key] = plain
    result["required"] = sorted(set(result["required"]) - optional)
    return result


def schema_text() -> str:
    """The published schema, byte for byte."""
    return schema_text_of(schema())


def error_document(error: TestbedError) -> dict[str, Any]:
    """`testbed.error/1`: what exit code 2 prints with `--format json`."""
    return {
        "schema": "testbed.error/1",
        "exit_code": int(error.exit_code),
        "addressee": error.addressee,
        "message": error.message,
        "hint": error.hint,
    }
