# SPDX-License-Identifier: Apache-2.0
"""YAML that people write: read with line numbers, checked by a model, refused with a pointer.

Scenarios and policies share this road: the file becomes plain data and a map from place to line, the model checks
the data, and whatever it refuses is reported as `file:line: what was found`, with "did you mean" for unknown words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, PlainSerializer, SerializationInfo, ValidationError
from pydantic_core import PydanticCustomError

from testbed.errors import ScenarioError, UsageError

MAX_BYTES = 256 * 1024

Place = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|min)")
_PERCENT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?%")
_UNIT_MS = {"ms": 1, "s": 1000, "min": 60_000}


def duration_ms(value: object) -> int:
    """Whole milliseconds of a duration such as `5s`, `250ms` or `2min`."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError(
            "duration",
            "{value} is not a duration, expected a number and `ms`, `s` or `min`",
            {"value": _quoted(value)},
        )
    milliseconds = float(found[1]) * _UNIT_MS[found[2]]
    if milliseconds != int(milliseconds):
        raise PydanticCustomError(
            "duration", "{value} is not a whole number of milliseconds", {"value": _quoted(value)}
        )
    return int(milliseconds)


AS_WRITTEN = "as-written"
"""Context of a dump that is to be a file again: durations in the words of its author."""


def _duration_text(value: int, info: SerializationInfo) -> int | str:
    """The inverse of `duration_ms` where a file is written; else milliseconds, as everywhere."""
    if info.context != AS_WRITTEN:
        return value
    return f"{value}ms" if value % 1000 else f"{value // 1000}s"


DurationMs = Annotated[int, BeforeValidator(duration_ms), PlainSerializer(_duration_text)]


def share(value: object) -> float:
    """The share that a percentage such as `5%` or `0.5%` is."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError(
            "percent", "{value} is not a percentage, expected a number and `%`", {"value": _quoted(value)}
        )
    return float(found[1]) / 100


def _percent_text(value: float, info: SerializationInfo) -> float | str:
    """The inverse of `share` where a file is written; else the share, as everywhere."""
    return f"{value * 100:.10g}%" if info.context == AS_WRITTEN else value


Percent = Annotated[float, BeforeValidator(share), PlainSerializer(_percent_text)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, else all of them."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(words)}"


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a text. libyaml, where PyYAML has it, is ten times as fast; PyYAML itself tells what is wrong."""
    if hasattr(yaml, "CSafeLoader"):
        try:
            return yaml.compose(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            pass
    return yaml.compose(text, Loader=yaml.SafeLoader)


class Document:
    """A YAML file as plain data, with the line of every place in it."""

    def __init__(self, data: bytes, file: str) -> None:
        """Parse `data`; `file` is how messages name it."""
        self.file = file
        self.lines: dict[Place, int] = {}
        if len(data) > MAX_BYTES:
            raise ScenarioError(f"{file}: larger than {MAX_BYTES // 1024} KiB")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{file}: not UTF-8 at byte {error.start}") from None
        try:
            # The composer of SafeLoader makes nodes only; no object is built from a tag.
            node = _compose(text)
            self._seen: set[int] = set()
            self.data = self._plain(node, ()) if node is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{file}:{mark.line + 1}" if mark else file
            raise ScenarioError(f"{where}: not YAML: {error.problem or error.context}") from None
        except yaml.YAMLError as error:
            raise ScenarioError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
        except RecursionError:
            raise ScenarioError(f"{file}: nested too deeply") from None

    def line(self, place: Place) -> int:
        """The line of `place`, or of the nearest place around it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, place: Place, message: str, hint: str = "") -> ScenarioError:
        """An error that points to `place`."""
        return ScenarioError(f"{self.file}:{self.line(place)}: {message}", hint=hint)

    def model(self, kind: type[T], known: dict[str, Iterable[str]] | None = None) -> T:
        """The file as a `kind`; `known` names keys for places whose model can't be found by walking."""
        if not isinstance(self.data, dict):
            raise self.error((), f"expected a mapping, found {_kind(self.data)}")
        try:
            return kind.model_validate(self.data)
        except ValidationError as error:
            raise self._explain(kind, error) from None

    def _explain(self, kind: type[BaseModel], error: ValidationError) -> ScenarioError:
        """The first thing that the model refused, in the words of the file's author."""
        # The first in the file is the one that the author sees first; unknown keys explain missing ones, and what is
        # wrong with the only item of a list explains that the list is too short.
        details = sorted(
            error.errors(include_url=False),
            key=lambda one: (
                one["type"] != "extra_forbidden",
                one["type"] == "too_short",
                self.line(self._place(one["loc"])),
            ),
        )
        first = details[0]
        place = self._place(first["loc"])
        name = ".".join(str(part) for part in place) or "the file"
        match first["type"]:
            case "extra_forbidden":
                keys = _keys(kind, place[:-1])
                return self.error(place, f"unknown key `{place[-1]}`", did_you_mean(str(place[-1]), keys))
            case "missing":
                return self.error(place[:-1], f"`{name}` is missing")
            case "enum" | "literal_error":
                expected = first.get("ctx", {}).get("expected", "")
                words = re.findall(r"'([^']*)'", str(expected))
                return self.error(
                    place,
                    f"`{name}` is {_quoted(first['input'])}, which is unknown",
                    did_you_mean(str(first["input"]), words),
                )
            case _:
                message = first["msg"].removeprefix("Value error, ")
                return self.error(place, f"`{name}`: {message[:1].lower()}{message[1:]}")

    def _place(self, loc: Place) -> Place:
        """`loc` of pydantic without the parts that are no place in the file (names of union members)."""
        place: Place = ()
        for part in loc:
            if (*place, part) in self.lines or part == loc[-1]:
                place = (*place, part)
        return place

    def _plain(self, node: yaml.Node, place: Place) -> Any:
        if id(node) in self._seen:
            raise ScenarioError(f"{self.file}:{node.start_mark.line + 1}: anchors and aliases are not allowed")
        self._seen.add(id(node))
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ScenarioError(f"{self.file}:{line}: a key must be a word")
                key = str(key_node.value)
                if key in result:
                    raise ScenarioError(f"{self.file}:{line}: `{key}` is given twice")
                self.lines[(*place, key)] = line
                result[key] = self._plain(value_node, (*place, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*place, index)) for index, item in enumerate(node.value)]
        return _scalar(node, self.file)


def plain(model: BaseModel) -> Any:
    """A model as the data of a file that gives it again: what was left out stays out."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True, context=AS_WRITTEN)


def write(data: object) -> bytes:
    """Plain data as a YAML file; what holds no other list or mapping stands on one line."""
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    return str(text).encode("utf-8")


def read(path: Path) -> bytes:
    """The bytes of a file that the user named."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from None


def _scalar(node: yaml.Node, file: str) -> object:
    text = str(node.value)
    match node.tag.rpartition(":")[2]:
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() in {"true", "yes", "on"}
        case "int":
            try:
                return int(text.replace("_", ""), 0)
            except ValueError:
                return text
        case "float":
            try:
                return float(text.replace("_", ""))
            except ValueError:
                return text
        case other:
            # Times, binaries and private tags: nothing here needs them, so the words are taken as written.
            if node.tag.startswith("!"):
                raise ScenarioError(f"{file}:{node.start_mark.line + 1}: tag `{other}` is not allowed")
            return text


def _keys(kind: type[BaseModel], place: Place) -> list[str]:
    """The keys that the model at `place` below `kind` knows."""
    models: list[Any] = [kind]
    for part in place:
        following: list[Any] = []
        for model in models:
            if isinstance(part, int):
                following.append(model)
                continue
            for name, field in model.model_fields.items():
                if part in (name, field.alias):
                    following.extend(_models(field.annotation))
        models = following or models
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _quoted(value: object) -> str:
    return f"`{value}`" if not isinstance(value, dict | list) else _kind(value)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return {"dict": "a mapping", "list": "a list", "str": "a word", "bool": "true or false"}.get(
        type(value).__name__, "a number"
    )
