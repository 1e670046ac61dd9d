"""Read the Berkeley Function Calling Leaderboard's requests out of its wheel, in OpenAI's form.

The references stand for the answers of a production model. BFCL's types are not JSON Schema
(``dict``, ``float``, ``tuple``, ``any``) and its names hold dots, which OpenAI does not allow.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from components.schema import AcceptableCall, Call, Json

CALLS = ("live_multiple", "multiple", "live_simple", "simple_python")
NO_CALLS = ("live_irrelevance", "irrelevance")
TYPES = {"dict": "object", "float": "number", "tuple": "array"}
SCHEMA_KEYS = ("type", "properties", "required", "items", "enum", "description")


@dataclass(frozen=True, slots=True)
class Request:
    """One request with its reference: the right call, or none where no tool fits."""

    id: str
    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]]
    call: Call | None
    acceptable: AcceptableCall | None

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The sorted names of the offered tools: requests with equal ones are alike."""
        return tuple(sorted(_name(tool) for tool in self.tools))


def read(wheel: Path) -> list[Request]:
    """Read all single-turn requests that offer tools and want at most one call."""
    with zipfile.ZipFile(wheel) as archive:
        rows = [
            request
            for category in (*CALLS, *NO_CALLS)
            for request in _category(archive, category, has_answers=category in CALLS)
        ]
    return [row for row in rows if row.tools and len(set(row.tool_names)) == len(row.tools)]


def _category(archive: zipfile.ZipFile, category: str, *, has_answers: bool) -> Iterator[Request]:
    folder, name = "bfcl_eval/data", f"BFCL_v4_{category}.json"
    answers = _lines(archive, f"{folder}/possible_answer/{name}") if has_answers else []
    answer_of = {cast("str", row["id"]): row["ground_truth"] for row in answers}
    for row in _lines(archive, f"{folder}/{name}"):
        request = _request(row, answer_of.get(cast("str", row["id"])))
        if request is not None:
            yield request


def _lines(archive: zipfile.ZipFile, name: str) -> list[dict[str, Json]]:
    return [json.loads(line) for line in archive.read(name).splitlines() if line.strip()]


def _request(row: dict[str, Json], answer: Json) -> Request | None:
    """Translate one row; ``None`` for several turns, several calls, or an assistant's turn."""
    match row, answer:
        case {"id": str(key), "question": [list(turn)], "function": list(tools)}, None:
            call = acceptable = None
        case (
            {"id": str(key), "question": [list(turn)], "function": list(tools)},
            [{**reference}],
        ) if len(reference) == 1:
            acceptable = _acceptable(reference)
            call = Call(acceptable.name, _first_choices(acceptable.arguments))
        case _:
            return None
    messages = cast("list[dict[str, Json]]", turn)
    if any(message["role"] not in ("system", "user") for message in messages):
        return None
    offered = [_tool(cast("dict[str, Json]", tool)) for tool in tools]
    return Request(key, messages, offered, call, acceptable)


def _acceptable(reference: dict[str, Json]) -> AcceptableCall:
    ((name, arguments),) = reference.items()
    return AcceptableCall(_safe(name), cast("dict[str, list[Json]]", arguments))


def _first_choices(acceptable: dict[str, list[Json]]) -> dict[str, Json]:
    """Take the first acceptable value of each argument; leave out those that may be missing."""
    firsts = {name: values[0] for name, values in acceptable.items() if values}
    return {name: _concrete(first) for name, first in firsts.items() if first != ""}


def _concrete(value: Json) -> Json:
    """Undo the nesting: within an object, each value is a list of acceptable ones again."""
    if isinstance(value, dict):
        return _first_choices({name: v for name, v in value.items() if isinstance(v, list)})
    return [_concrete(item) for item in value] if isinstance(value, list) else value


def _tool(tool: dict[str, Json]) -> dict[str, Json]:
    function: dict[str, Json] = {
        "name": _safe(cast("str", tool["name"])),
        "description": tool["description"],
        "parameters": _schema(tool["parameters"]),
    }
    return {"type": "function", "function": function}


def _name(tool: dict[str, Json]) -> str:
    return cast("dict[str, str]", tool["function"])["name"]


def _safe(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def _schema(schema: Json) -> Json:
    """Translate a parameter's description to JSON Schema, at every depth."""
    if not isinstance(schema, dict):
        return schema
    result = {key: schema[key] for key in SCHEMA_KEYS if key in schema}
    if isinstance(kind := schema.get("type"), str):
        result["type"] = TYPES.get(kind, kind)
    if result.get("type") == "any":
        del result["type"]
    if isinstance(properties := schema.get("properties"), dict):
        result["properties"] = {name: _schema(value) for name, value in properties.items()}
    if "items" in schema:
        result["items"] = _schema(schema["items"])
    return result
