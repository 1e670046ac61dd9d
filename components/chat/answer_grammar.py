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

from components.chat import schema_grammar
from components.chat.dialects import Dialect
from components.chat.schema_grammar import (
    BLANK,
    BLANKS,
    MARKS,
    MAX_CHARACTERS,
    UnsupportedSchemaError,
    ValueRules,
    in_order,
    literal,
)
from components.schema import Json

VERSION = 1
"""The version of the grammars: raise it when answers change. Scorecards record it."""

LIMITS = LLParserLimits(max_grammar_size=100_000, verbose_errors=False)
"""What a grammar may cost to compile; a step has llguidance's own limits."""


def of_request(
    form: Dialect,
    tools: Sequence[Mapping[str, Json]],
    tool_choice: Json = None,
    response_format: Json = None,
    *,
    parallel: bool = True,
    loosely: bool = False,
) -> str | None:
    """Return the grammar of a request's answers; ``None`` if any text is one.

    Args:
        form: The syntax of calls.
        tools: OpenAI tools. Of two with one name the last counts, as in ``tool_schema``.
        tool_choice: ``none``, ``auto`` (also if ``None``), ``required``, or OpenAI's object that
            names a tool or allows some of them.
        response_format: OpenAI's ``text``, ``json_object`` or ``json_schema``.
        parallel: Whether an answer may have several calls.
        loosely: Whether answers are held only to what of the schemas a grammar can express.

    Raises:
        UnsupportedSchemaError: A schema is invalid, impossible, too large or not expressible.
        ValueError: The tools, the choice or the format are malformed.
    """
    places = _places(tools)
    mode, names = _choose(places, tool_choice)
    offered = {name: _arguments_schema(tools[places[name]], loosely=loosely) for name in names}
    answer = _response_schema(response_format, loosely=loosely)
    if not tools and answer is None:
        return None
    if answer is not None and mode == "auto":
        return _checked(_Calls(form, offered).or_json(answer, parallel=parallel))
    try:
        return _checked(_Calls(form, offered).rules(mode, parallel=parallel))
    except (UnsupportedSchemaError, RecursionError):
        # A choice that nothing could be, a large one or a deep one may do in the schemas' order.
        calls = _Calls(form, offered, any_order=False)
        return _checked(calls.rules(mode, parallel=parallel))


def of_labels(labels: Iterable[str]) -> str:
    """Return the grammar of answers that are one of the labels, word for word.

    Raises:
        UnsupportedSchemaError: There is no label, or there are too many.
    """
    distinct = list(dict.fromkeys(labels))
    if not distinct or "" in distinct:
        raise UnsupportedSchemaError(f"constraining an answer to the labels {distinct}: name some")
    return _checked([f"start: {' | '.join(map(literal, distinct))}"])


_ARGUMENTS: dict[Dialect, tuple[str, ...]] = {
    "written": ("arguments",),
    "hermes": ("arguments",),
    "llama3": ("parameters", "arguments"),
}
_BETWEEN: dict[Dialect, str] = {
    "written": BLANK + "{1,20}",
    "hermes": BLANKS,
    "llama3": f"{BLANKS};{BLANKS}",
}
_BEGIN_TAG, _END_TAG, _PYTHON_TAG = "<tool_call>", "</tool_call>", "<|python_tag|>"

_ANY = '~("a" & "b")'
"""Any bytes: not what is both. ``.`` is a character of UTF-8, and models may write others."""


class _Calls:
    """The rules of a form's calls."""

    def __init__(
        self, form: Dialect, tools: Mapping[str, dict[str, Json]], *, any_order: bool = True
    ) -> None:
        self._form: Dialect = form
        self._tools = tools
        self._any_order = any_order
        self._tag = _BEGIN_TAG if form == "hermes" else ""

    def rules(self, mode: Literal["auto", "required"], *, parallel: bool) -> list[str]:
        """Text with calls anywhere in it or, if they are required, calls and nothing else."""
        rules = self._only(parallel=parallel) if mode == "required" else self._free(parallel)
        thoughts = "thoughts[lazy]: THOUGHTS", f"THOUGHTS: /{BLANK}*<think>/ ANY /<\\/think>/"
        return [*rules, f"ANY: {_ANY}", *thoughts, *(self._bodies() if self._tools else [])]

    def or_json(self, answer: Json, *, parallel: bool) -> list[str]:
        """A JSON value of a schema, or calls and nothing else."""
        # Calls are whole JSON values here: llguidance tells values apart that begin alike.
        key = _ARGUMENTS[self._form][0]
        calls = [
            in_order(_object({"name": {"const": name}, key: schema}) | _definitions(schema))
            for name, schema in self._tools.items()
        ]
        rules = [*MARKS, f"answer: {in_order(answer)}"]
        if not calls:
            return ["start: answer", *rules]
        tags = (f"{literal(self._tag)} BLANKS?", f"BLANKS? {literal(_END_TAG)}")
        call = f"{tags[0]} value {tags[1]}" if self._tag else "value"
        return [
            f"start: answer | {call} {f'(BETWEEN {call})*' if parallel else ''}",
            *rules,
            f"BETWEEN: /{_BETWEEN[self._form]}/",
            f"value: {' | '.join(f'value_{number}' for number in range(len(calls)))}",
            *(f"value_{number}: {call}" for number, call in enumerate(calls)),
        ]

    def _only(self, *, parallel: bool) -> list[str]:
        call = f"{literal(self._tag)} OPEN body END_TAG" if self._tag else "OPEN body"
        thoughts = "" if self._form == "written" else "thoughts? BLANKS?"
        several = f"(BETWEEN {call})*" if parallel else ""
        return [
            f"start: {thoughts} {call} {several} BLANKS?",
            f"BETWEEN: /{_BETWEEN[self._form]}/",
        ]

    def _free(self, parallel: bool) -> list[str]:
        # A head is a text that ends where a call begins. It is lazy: it ends at the first place
        # where it can, so that what begins a call can be nothing else.
        heads = {"head": "body"} if self._tools else {}
        if self._tools and self._tag:
            heads["tagged_head"] = "OPEN body END_TAG"
        first = " | ".join(f"first_{head} {body}" for head, body in heads.items())
        later = " | ".join(f"{head} {body}" for head, body in heads.items())
        rest = f"({later})* TEXT" if later and parallel else "TEXT"
        starts = ["FIRST_TEXT"]
        if heads:
            starts.append(f"({first}) {rest}")
        if self._form != "written":
            starts.append(f"thoughts {rest if parallel or not later else f'({later})? TEXT'}")
        names = [f"{order}{head}" for head in heads for order in ("", "first_")]
        return [
            f"start: {' | '.join(starts)}",
            *(f"{name}[lazy]: {name.upper()}" for name in names),
            *self._texts(),
        ]

    def _texts(self) -> list[str]:
        blanks = f"{BLANK}*"
        opening = f'\\{{{blanks}"name"{blanks}:{blanks}"'
        # The rest of what would be read as a call; the reader drops tags, which could join it.
        tags = [] if self._form == "written" else [_BEGIN_TAG, _PYTHON_TAG, _END_TAG]
        marks = [re.escape(tag).replace("/", "\\/") for tag in tags]
        keys = "|".join(_spellings(key) for key in _ARGUMENTS[self._form])
        values = "|".join([r"\{", *marks[:2]])
        arguments = f'[{{,]{blanks}"({keys})"{blanks}:{blanks}({values})'
        begins = f"({marks[1]}{blanks})?{opening}" if marks else opening
        rules = [f"TEXT: ~(ANY /{'|'.join([opening, arguments, *marks])}/ ANY)"]
        rules.append(
            f"FIRST_TEXT: TEXT & ~(/{blanks}<think>/ ANY)" if marks else "FIRST_TEXT: TEXT"
        )
        for text in ("TEXT", "FIRST_TEXT"):
            order = text.removesuffix("TEXT")
            rules.append(f"{order}HEAD: ({text} /{begins}/) & ~(ANY /{arguments}/ ANY)")
            if self._tag:
                tagged = f"({text} {literal(self._tag)}) & ~(ANY /{arguments}/ ANY)"
                rules.append(f"{order}TAGGED_HEAD: {tagged}")
        return rules

    def _bodies(self) -> list[str]:
        """Rules for what follows ``{"name": "``."""
        values, bodies = ValueRules(), list[str]()
        for name, schema in self._tools.items():
            rest_of_name = literal(json.dumps(name, ensure_ascii=False)[1:])
            arguments = values.add(schema) if self._any_order else in_order(schema)
            rule = f"a{len(bodies)}: {arguments}"
            bodies.append(f"b{len(bodies)}: {rest_of_name} ARGUMENTS a{len(bodies)} END\n{rule}")
        keys = "|".join(_ARGUMENTS[self._form])
        return [
            f"body: {' | '.join(f'b{number}' for number in range(len(bodies)))}",
            *bodies,
            *values.rules,
            *MARKS,
            f'ARGUMENTS: /{BLANKS},{BLANKS}"({keys})"{BLANKS}:{BLANKS}/',
            f"END: /{BLANKS}\\}}/",
            f'OPEN: /{BLANKS}\\{{{BLANKS}"name"{BLANKS}:{BLANKS}"/',
            f"END_TAG: /{BLANKS}<\\/tool_call>/",
        ]


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


def _arguments_schema(tool: Mapping[str, Json], *, loosely: bool) -> dict[str, Json]:
    function = cast("dict[str, Json]", tool["function"])
    parameters = function.get("parameters")
    if parameters is None:  # nothing checks their arguments (``tool_schema``)
        return {"type": "object"}
    kinds: Json = None
    if isinstance(parameters, dict):
        schema = schema_grammar.expressible(parameters, loosely=loosely)
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


def _response_schema(response_format: Json, *, loosely: bool) -> Json:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {**body}}:
            schema = body.get("schema", True)
            is_object = isinstance(schema, dict)
            return schema_grammar.expressible(schema, loosely=loosely) if is_object else schema
        case _:
            raise ValueError(
                f"response_format is {response_format!r}; expected type text, json_object or "
                "json_schema"
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


def _checked(rules: Sequence[str]) -> str:
    return of_text("\n".join(["%llguidance {}", *rules, ""]))


def of_text(grammar: str) -> str:
    """Return a grammar in Lark, checked.

    Raises:
        UnsupportedSchemaError: It is too long, or does not compile.
    """
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
        raise UnsupportedSchemaError(
            f"constraining an answer: compiling its grammar: {messages[0].splitlines()[0]}"
        )
    return grammar
