r"""Grammars of answers: calls of offered tools only, JSON of a schema, or one of a few labels.

The grammars are llguidance's Lark. Free text stays free; only what would be read as a call
(``dialects.read_answer``) must be a call of an offered tool, with arguments that its JSON Schema
allows, from the text that begins one: ``{"name": "``, with any blanks, or the form's tag. Text
cannot hold the rest of what the reader takes for a call: a key for arguments with an object.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

from llguidance import LLMatcher, LLParserLimits

from components.chat import dialects, tool_schema
from components.chat.dialects import Dialect
from components.schema import Json

MAX_CHARACTERS = 128 * 1024
"""The most characters of a grammar. The time to compile one grows with the square of an object's
properties: at this size it is below a second."""

MAX_COUNT = 10_000
"""Schemas may not require more items, characters or properties than this; a higher maximum is as
good as none, and llguidance 1.7 (vLLM's) does not return from one of 1e9 items."""

LIMITS = LLParserLimits(max_grammar_size=100_000, verbose_errors=False)
"""What a grammar may cost to compile; a step has llguidance's own limits."""

FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
)
"""The formats that llguidance enforces. JSON Schema has others ignored."""


class UnsupportedSchemaError(ValueError):
    """Raised when a schema is invalid, impossible, too large, or not expressible as a grammar."""


def of_request(
    form: Dialect,
    tools: Sequence[Mapping[str, Json]],
    tool_choice: Json = None,
    response_format: Json = None,
    *,
    parallel: bool = True,
) -> str | None:
    """Return the grammar of a request's answers; ``None`` if any text is one.

    Args:
        form: The syntax of calls.
        tools: OpenAI tools. Of two with one name the last counts, as in ``tool_schema``.
        tool_choice: ``none``, ``auto`` (also if ``None``), ``required``, or OpenAI's object that
            names a tool or allows some of them.
        response_format: OpenAI's ``text``, ``json_object`` or ``json_schema``.
        parallel: Whether an answer may have several calls.

    Raises:
        UnsupportedSchemaError: A schema is invalid, impossible, too large or not expressible.
        ValueError: The tools, the choice or the format are malformed.
    """
    places = _places(tools)
    mode, names = _choose(places, tool_choice)
    offered = {name: _arguments_schema(tools[places[name]]) for name in names}
    answer = _response_schema(response_format)
    if not offered and answer is None:
        return None if not tools else _checked(_Calls(form, {}).free(parallel=parallel))
    calls = _Calls(form, offered)
    if mode == "required":
        return _checked(calls.only(parallel=parallel))
    if answer is not None:
        return _checked(calls.or_json(answer, parallel=parallel))
    return _checked(calls.free(parallel=parallel))


def of_labels(labels: Iterable[str]) -> str:
    """Return the grammar of answers that are one of the labels, word for word.

    Raises:
        UnsupportedSchemaError: There is no label, or there are too many.
    """
    distinct = list(dict.fromkeys(labels))
    if not distinct or "" in distinct:
        raise UnsupportedSchemaError(f"constraining an answer to the labels {distinct}: name some")
    return _checked([f"start: {' | '.join(map(_literal, distinct))}"])


_BLANK = r"[ \t\n\r]"
_BLANKS = _BLANK + "{0,20}"  # more of them in a call would be a model that got stuck
_JSON = {"x-guidance": {"whitespace_pattern": _BLANK + "{1,20}"}}

_ARGUMENTS: dict[Dialect, tuple[str, ...]] = {
    "written": ("arguments",),
    "hermes": ("arguments",),
    "llama3": ("parameters", "arguments"),
}
_BETWEEN: dict[Dialect, str] = {
    "written": _BLANK + "{1,20}",
    "hermes": _BLANKS,
    "llama3": f"{_BLANKS};{_BLANKS}",
}


class _Calls:
    """The rules of a form's calls."""

    def __init__(self, form: Dialect, tools: Mapping[str, dict[str, Json]]) -> None:
        self._form: Dialect = form
        self._tools = tools
        self._tag = dialects.CALL_STARTS["hermes"] if form == "hermes" else None

    def free(self, *, parallel: bool) -> list[str]:
        """Text, with calls anywhere in it."""
        heads = ["head"] * bool(self._tools) + ["tagged"] * bool(self._tools and self._tag)
        # Lazy: a head ends as soon as its text does, so nothing else can be made of it.
        rules = [f"{name}[lazy]: {name.upper()}" for name in heads]
        rules += [f"first_{name}[lazy]: FIRST_{name.upper()}" for name in heads]
        first = " | ".join([*(self._call(f"first_{name}") for name in heads)])
        more = " | ".join([*(self._call(name) for name in heads)])
        rest = "TEXT" if not more or not parallel else f"({more})* TEXT"
        starts = ["FIRST_TEXT", *([f"({first}) {rest}"] if first else [])]
        if self._form != "written":
            rules.append(f"thoughts[lazy]: {_THOUGHTS}")
            after = f"({more})? TEXT" if more and not parallel else rest
            starts.append(f"thoughts {after}")
        return [f"start: {' | '.join(starts)}", *rules, *self._bodies(), *self._text()]

    def only(self, *, parallel: bool) -> list[str]:
        """One call or several, and nothing else."""
        call = self._call("TAG OPEN" if self._tag else "OPEN")
        several = f"(BETWEEN {call})*" if parallel else ""
        thoughts = "" if self._form == "written" else "thoughts? BLANKS? "
        rules = [f"start: {thoughts}{call} {several} BLANKS?", *self._bodies()]
        if thoughts:
            rules.append(f"thoughts[lazy]: {_THOUGHTS}")
        if self._tag:
            rules.append(f"TAG: {_literal(self._tag)}")
        return [*rules, f"BETWEEN: /{_BETWEEN[self._form]}/", f"BLANKS: /{_BLANK}{{1,20}}/"]

    def or_json(self, answer: Json, *, parallel: bool) -> list[str]:
        """A JSON value of a schema, or calls and nothing else."""
        # Calls are whole JSON values here: llguidance tells values apart that begin alike.
        key = _ARGUMENTS[self._form][0]
        calls = [
            _object({"name": {"const": name}, key: schema}) | _definitions(schema)
            for name, schema in self._tools.items()
        ]
        names = [f"c{number}" for number in range(len(calls))]
        rules = [f"{name}: {_json(call)}" for name, call in zip(names, calls, strict=True)]
        start = ["answer"]
        if names:
            tags = ("TAG BLANKS? ", " BLANKS? ENDTAG") if self._tag else ("", "")
            call = f"{tags[0]}({' | '.join(names)}){tags[1]}"
            start.append(f"{call} {f'(BETWEEN {call})*' if parallel else ''}")
            rules.append(f"BETWEEN: /{_BETWEEN[self._form]}/")
        if names and self._tag:
            rules += [f"TAG: {_literal(self._tag)}", f"BLANKS: /{_BLANK}{{1,20}}/"]
            rules.append(f"ENDTAG: {_literal('</tool_call>')}")
        return [f"start: {' | '.join(start)}", f"answer: {_json(answer)}", *rules]

    def _call(self, head: str) -> str:
        if self._tag is None or head.endswith("head"):
            return f"{head} body"
        return f"{head} body CLOSE" if "OPEN" in head else f"{head} OPEN body CLOSE"

    def _bodies(self) -> list[str]:
        if not self._tools:
            return []
        rules = [f"body: {' | '.join(f'b{number}' for number in range(len(self._tools)))}"]
        for number, (name, schema) in enumerate(self._tools.items()):
            rest_of_name = json.dumps(name, ensure_ascii=False)[1:]
            rules.append(f"b{number}: {_literal(rest_of_name)} COLON a{number} END")
            rules.append(f"a{number}: {_json(schema)}")
        keys = "|".join(_ARGUMENTS[self._form])
        rules.append(f'COLON: /{_BLANKS},{_BLANKS}"({keys})"{_BLANKS}:{_BLANKS}/')
        rules.append(f"END: /{_BLANKS}\\}}/")
        rules.append(f'OPEN: /{_BLANKS}\\{{{_BLANKS}"name"{_BLANKS}:{_BLANKS}"/')
        if self._tag:
            rules.append(f"CLOSE: /{_BLANKS}<\\/tool_call>/")
        return rules

    def _text(self) -> list[str]:
        blanks, spoken = f"{_BLANK}*", self._form == "written"
        opening = f'\\{{{blanks}"name"{blanks}:{blanks}"'
        keys = "|".join(_spellings(key) for key in _ARGUMENTS[self._form])
        # The reader drops tags, which could join what they part.
        tags = [] if spoken else [r"<tool_call>", r"<\|python_tag\|>", r"<\/tool_call>"]
        begun = "|".join([r"\{", *tags[:2]])
        arguments = f'[{{,]{blanks}"({keys})"{blanks}:{blanks}({begun})'
        rules = [
            f"TEXT: /(?s:.*)/ & {_without(opening, arguments, *tags)}",
            f"FIRST_TEXT: TEXT & {_without(f'^{blanks}<think>')}"
            if not spoken
            else "FIRST_TEXT: TEXT",
        ]
        begins = opening if spoken else f"(<\\|python_tag\\|>{blanks})?{opening}"
        for first in ("", "FIRST_"):
            ends = {"HEAD": f"/{begins}/", **({"TAGGED": _literal(self._tag)} if self._tag else {})}
            for name, end in ends.items():
                rules.append(f"{first}{name}: ({first}TEXT {end}) & {_without(arguments)}")
        return rules


def _without(*patterns: str) -> str:
    """Match texts in which none of the patterns occurs; ``^`` is a text's beginning."""
    anywhere = [pattern[1:] if pattern[0] == "^" else f"(?s:.*)({pattern})" for pattern in patterns]
    return f"~/({'|'.join(anywhere)})(?s:.*)/"


_THOUGHTS = f"/{_BLANK}*<think>(?s:.*)<\\/think>/"


def _spellings(key: str) -> str:
    r"""Match a key in any JSON spelling, such as ``n\u0061me``."""

    def spelled(letter: str) -> str:
        digits = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{ord(letter):04x}")
        return f"({letter}|\\\\u{digits})"

    return "".join(map(spelled, key))


def _places(tools: Sequence[Mapping[str, Json]]) -> dict[str, int]:
    """Return the place of each tool by its name."""
    places: dict[str, int] = {}
    for place, tool in enumerate(tools):
        match tool:
            case {"function": {"name": str(name)}} if name:
                places[name] = place
            case _:
                raise ValueError(f"expected a tool with a `function` with a name, found {tool!r}")
    return places


def _arguments_schema(tool: Mapping[str, Json]) -> dict[str, Json]:
    function = cast("dict[str, Json]", tool["function"])
    parameters = function.get("parameters")
    if parameters is None:  # OpenAI: "defines a function with an empty parameter list"
        return {"type": "object", "additionalProperties": False}
    kinds: Json = None
    if isinstance(parameters, dict):
        schema = _expressible(parameters)
        kinds = schema.get("type", "object")
        if "object" in (kinds if isinstance(kinds, list) else [kinds]):
            return {**schema, "type": "object"}
    raise UnsupportedSchemaError(
        f"constraining calls of {function['name']!r}: its `parameters` are of type {kinds!r}; "
        "expected a JSON Schema of type object"
    )


def _choose(
    offered: Iterable[str], tool_choice: Json
) -> tuple[Literal["auto", "required"], list[str]]:
    """Return whether a tool must be called, and which may be."""
    names: list[str] = list(offered)
    match tool_choice:
        case None | "auto":
            return "auto", names
        case "none":
            return "auto", []
        case "required":
            mode, chosen = "required", names
        case {"type": "function", "function": {"name": str(name)}} | {
            "type": "function",
            "name": str(name),
        }:
            mode, chosen = "required", [name]
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)},
        }:
            chosen = [_tool_name(tool) for tool in allowed]
        case _:
            raise ValueError(
                f"tool_choice is {tool_choice!r}; expected none, auto, required, or an object that "
                "names a function"
            )
    if missing := [name for name in chosen if name not in names]:
        raise ValueError(
            f"tool_choice names {', '.join(map(repr, missing))}; offered are "
            f"{', '.join(map(repr, names)) or 'no tools'}"
        )
    if mode == "required" and not chosen:
        raise ValueError("tool_choice is 'required', and no tools are offered")
    return mode, chosen


def _tool_name(tool: Json) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
        case _:
            return repr(tool)


def _response_schema(response_format: Json) -> Json:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {**body}}:
            schema = body.get("schema", True)
            return _expressible(schema) if isinstance(schema, dict) else schema
        case _:
            raise ValueError(
                f"response_format is {response_format!r}; expected type text, json_object or "
                "json_schema"
            )


def _expressible(schema: dict[str, Json]) -> dict[str, Json]:
    """Rewrite what llguidance does not take though JSON Schema does; its meaning stays."""
    return cast("dict[str, Json]", _rewritten(schema, 0))


_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_LEAVES = (
    *("type", "enum", "const", "$ref", "$anchor", "required", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("uniqueItems", "dependentRequired", "dependencies", "propertyNames", "minContains"),
    *("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)


def _rewritten(schema: Json, depth: int) -> Json:
    if depth > tool_schema.MAX_DEPTH:
        raise UnsupportedSchemaError(
            f"constraining an answer: its schema has more than {tool_schema.MAX_DEPTH} levels"
        )
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Json] = {}
    for keyword, value in schema.items():
        if keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
            result[keyword] = {name: _rewritten(part, depth + 1) for name, part in value.items()}
        elif keyword in _SCHEMA_LISTS and isinstance(value, list):
            result[keyword] = [_rewritten(part, depth + 1) for part in value]
        elif keyword in _SCHEMAS and not isinstance(value, list):
            result[keyword] = _rewritten(value, depth + 1)
        elif keyword in _LEAVES:
            result[keyword] = value
    if isinstance(items := schema.get("items"), list):  # until draft 2019-09
        result["prefixItems"] = [_rewritten(part, depth + 1) for part in items]
        if "additionalItems" in schema:
            result["items"] = _rewritten(schema["additionalItems"], depth + 1)
    _rewrite_leaves(result)
    return {"anyOf": [{"type": "null"}, result]} if schema.get("nullable") is True else result


def _rewrite_leaves(schema: dict[str, Json]) -> None:
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    if not all(isinstance(kind, str) and kind in tool_schema.TYPES for kind in listed):
        schema.pop("type", None)  # as in ``tool_schema``: it says nothing that could be checked
    if schema.get("format") not in FORMATS:
        schema.pop("format", None)
    if schema.get("uniqueItems") is False:
        del schema["uniqueItems"]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):  # draft 4
            strict = schema.pop(exclusive)
            if strict and bound in schema:
                schema[exclusive] = schema.pop(bound)
    for counted in ("Length", "Items", "Properties"):
        least, most = schema.get(f"min{counted}"), schema.get(f"max{counted}")
        if isinstance(most, int | float) and most > MAX_COUNT:
            del schema[f"max{counted}"]
        if isinstance(least, int | float) and least > MAX_COUNT:
            raise UnsupportedSchemaError(
                f"constraining an answer: its schema has min{counted} {least}; at most {MAX_COUNT} "
                "are supported"
            )


def _object(properties: dict[str, Json]) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _definitions(schema: dict[str, Json]) -> dict[str, Json]:
    """Return what a schema may refer to, for the root of a schema around it."""
    text = json.dumps(schema)
    if re.search(r'"\$ref": "#(?!/(\$defs|definitions)/)', text):
        raise UnsupportedSchemaError(
            "constraining an answer to calls or JSON: a tool's schema refers to its own parts; "
            "what it refers to must be in $defs"
        )
    return {key: schema[key] for key in ("$defs", "definitions") if key in schema}


def _json(schema: Json) -> str:
    return f"%json {json.dumps({**schema, **_JSON} if isinstance(schema, dict) else schema)}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _checked(rules: Sequence[str]) -> str:
    grammar = "\n".join(["%llguidance {}", *rules, ""])
    if len(grammar) > MAX_CHARACTERS:
        raise UnsupportedSchemaError(
            f"constraining an answer: its grammar has {len(grammar):,} characters, and at most "
            f"{MAX_CHARACTERS:,} are compiled; offer fewer tools or smaller schemas"
        )
    try:
        failed, messages = LLMatcher.validate_grammar_with_warnings(
            LLMatcher.grammar_from_lark(grammar), limits=LIMITS
        )
    except ValueError as error:  # a lone surrogate
        raise UnsupportedSchemaError(f"constraining an answer: {error}") from error
    if failed:
        raise UnsupportedSchemaError(f"constraining an answer: {messages[0].splitlines()[0]}")
    return grammar
