"""The records that cross from one stage to the next, and settings that several stages share."""

import json
import re
from collections.abc import Container, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any JSON value, as ``json.loads`` returns it."""

WORKLOAD_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""The names that a workload can have."""

WORKLOAD_ID_SENTENCE = "expected at most 63 of a to z, 0 to 9, '.', '_' and '-', and no mark first"

ANONYMOUS = frozenset({"", "anonymous", "anon", "unknown", "none", "null", "undefined", "guest"})
"""Names of actors, in lower case, that any number of people of a client may have."""

Message: TypeAlias = dict[str, str]
"""One chat message whose content is plain text: ``{"role": ..., "content": ...}``."""


def parse_json(text: str) -> Any:  # noqa: ANN401 - as `json.loads`
    """Return what ``json.loads`` returns, for requests in a quarter of the time."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)  # which also reads lone surrogates, and nests deeper


def kind_of(value: Json) -> str:
    """Return the type of a JSON value in plain words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case _:
            return "an object"


class Config(BaseModel):
    """A closed, frozen set of options: an unknown key is an error, not a silent no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _take_no_boolean_as_number(cls, values: object) -> object:
        # pydantic reads `yes` as 1: a floor of 1.0, which nothing passes. As text it is refused.
        if not isinstance(values, dict):
            return values
        return values | {
            name: str(value).lower()
            for name, value in values.items()
            if isinstance(value, bool) and cls._is_number(name)
        }

    @classmethod
    def _is_number(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        kinds = _kinds_in(field.annotation) if field else []
        return (int in kinds or float in kinds) and bool not in kinds and str not in kinds


class _SettingsLoader(yaml.SafeLoader):
    """YAML in which a mapping has each key once; PyYAML keeps the last and drops the others."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in names:
                    raise yaml.constructor.ConstructorError(
                        problem=f"`{key.value}` is there twice, and only one of them could count",
                        problem_mark=key.start_mark,
                    )
                names.add(key.value)
                _read_as_text(key, ("off",))  # kinds that redaction leaves
        return super().construct_mapping(node, deep=deep)

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> list[Any]:
        for item in node.value:
            _read_as_text(item, ("no",))  # Norwegian, among languages
        return super().construct_sequence(node, deep=deep)


def _read_as_text(node: yaml.Node, words: Container[str]) -> None:
    """Have words stand for themselves that YAML 1.1 takes for ``false``."""
    if isinstance(node, yaml.ScalarNode) and node.value in words:
        node.tag = "tag:yaml.org,2002:str"


def parse_yaml(text: str, source: Path | str) -> Json:
    """Return what a YAML text holds; ``source`` names it in the messages of ``yaml.YAMLError``."""
    loader = _SettingsLoader(text)
    loader.name = str(source)
    try:
        return cast("Json", loader.get_single_data())
    finally:
        loader.dispose()


NUMBERS = ("greater_than", "less_than", "int_", "float_", "finite_number")
"""How the types of pydantic's errors in numbers begin."""

SIMILAR = 0.75  # the ratio from which a name may stand for another

_Path: TypeAlias = tuple[int | str, ...]


def describe_mistake(error: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """Return one of pydantic's errors as ``train.r: what is wrong (found ...)``.

    ``model`` is what was validated; its settings are those that an unknown one may stand for.
    """
    place = _place(error)
    if error["type"] == "extra_forbidden":
        known = () if model is None else _settings_beside(model, error["loc"])
        return f"{place}: no such setting{_meant(str(error['loc'][-1]), [*known])}"
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {error.get('ctx', {})['error']}"
    if error["type"] == "union_tag_invalid":
        context: dict[str, str] = error.get("ctx", {})
        expected, tag = context["expected_tags"], context["tag"]
        return f"{place}: expected one of {expected} (found {tag!r})"
    if error["type"] == "string_pattern_mismatch" and error.get("ctx") == {"pattern": WORKLOAD_ID}:
        return f"{place}: {WORKLOAD_ID_SENTENCE} (found {error['input']!r})"
    return f"{place}: {error['msg']} (found {error['input']!r}{_percentage(error)})"


def describe_mistakes(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return a sentence for each setting that is wrong; what it may be instead is in one."""
    merged: list[ErrorDetails] = []
    for mistake in error.errors():
        if merged and len(mistake["loc"]) > 1 and _place(merged[-1]) == _place(mistake):
            mistake["msg"] = f"{merged.pop()['msg']}; {mistake['msg']}"
        merged.append(mistake)
    return [describe_mistake(mistake, model) for mistake in merged]


def every_mistake(
    error: ValidationError, model: type[BaseModel], raw: Json, context: object = None
) -> list[str]:
    """Return ``describe_mistakes``, and what pydantic looks for only where those are mended.

    That is what must agree between settings. It is looked for with what is wrong left out, and
    listed unless the right setting might make it agree: it names that, or is of another section
    than what is left out, and that is more than a number.
    """
    mistakes, raw = describe_mistakes(error, model), deepcopy(raw)
    left_out, names, changed = set[_Path](), dict[str, float](), set[int | str]()
    while wrong := {
        path: each["type"] for each in error.errors() if (path := _removable(raw, each, left_out))
    }:
        for path in sorted(wrong, key=_last_first, reverse=True):
            left_out.add(path)
            hints = (*path[1:], _remove(raw, path))
            ratio = SIMILAR if wrong[path] == "extra_forbidden" else 1.0
            names |= {hint: ratio for hint in hints if isinstance(hint, str)}
            changed |= set() if wrong[path].startswith(NUMBERS) else {path[0]}
        try:
            model.model_validate(raw, context=context)
        except ValidationError as later:
            error = later
        else:
            break
        for mistake in describe_mistakes(error, model):
            words = re.findall(r"\w+", mistake)
            is_named = any(
                get_close_matches(name, words, n=1, cutoff=ratio) for name, ratio in names.items()
            )
            section = re.split(r"[.:]", mistake)[0]
            if mistake not in mistakes and not is_named and changed <= {section}:
                mistakes.append(mistake)
    return mistakes


def _removable(raw: Json, error: ErrorDetails, left_out: Container[_Path]) -> _Path | None:
    """Return the setting that is wrong; ``None`` for a whole section, which others depend on."""
    place, path = error["loc"], list[int | str]()
    if error["type"] == "missing" and place not in left_out:
        return None
    for part in place:  # some are names of members of a union
        if (isinstance(raw, dict) and part in raw) or (
            isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        ):
            raw = raw[part]  # pyright: ignore[reportArgumentType, reportCallIssue] - as checked
            path.append(part)
    return tuple(path) if len(path) > 1 else None


def _remove(raw: Json, path: _Path) -> Json:
    for part in path[:-1]:
        raw = raw[part]  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript] - `_removable` walked it
    assert isinstance(raw, dict | list)
    return raw.pop(path[-1])  # pyright: ignore[reportArgumentType, reportCallIssue] - as before


def _last_first(path: _Path) -> list[tuple[bool, int | str]]:
    return [(isinstance(part, int), part) for part in path]


def _place(error: ErrorDetails) -> str:
    """Return the setting's name; pydantic names the member of a union as in ``literal['any']``."""
    return ".".join(str(part) for part in error["loc"] if "[" not in str(part))


def _percentage(error: ErrorDetails) -> str:
    """Return what a percentage is as a share, where one was written for it."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)( ?%)?", str(error["input"]))
    if number is None or float(number[1]) > 100:
        return ""
    bounds = [error.get("ctx", {}).get(name) for name in ("le", "lt")]
    is_share = any(bound is not None and bound <= 1 < float(number[1]) for bound in bounds)
    return f"; {number[1]} % is {float(number[1]) / 100:g}" if number[2] or is_share else ""


def _meant(unknown: str, known: Sequence[str]) -> str:
    if similar := get_close_matches(unknown, known, n=1, cutoff=SIMILAR):
        return f"; did you mean {similar[0]}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _settings_beside(model: type[BaseModel], place: Sequence[int | str]) -> Iterable[str]:
    """Return the names of the settings in the section that a place of an error is in."""
    models = [model]
    for part in place[:-1]:
        fields = [each.model_fields[str(part)] for each in models if part in each.model_fields]
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return [name for each in models for name in each.model_fields]


def _kinds_in(annotation: object) -> list[object]:
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds_in(part))]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


@dataclass(frozen=True, slots=True)
class Call:
    """An assistant's tool call: a function's name and its arguments by name."""

    name: str
    arguments: dict[str, Json]


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False)  # `json.dumps` makes one a call


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant's reply: text, tool calls, or both."""

    text: str = ""
    calls: tuple[Call, ...] = ()

    def to_json(self) -> str:
        """Return canonical JSON with sorted keys, so that equal answers are equal texts."""
        # Not `asdict`, which copies the arguments of each call.
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.calls]
        return _CANONICAL.encode({"text": self.text, "calls": calls})

    @classmethod
    def from_json(cls, text: str) -> "Answer":
        """Parse the text of ``to_json``."""
        raw = json.loads(text)
        return cls(raw["text"], tuple(Call(**call) for call in raw["calls"]))


@dataclass(frozen=True, slots=True)
class AcceptableCall:
    """The acceptable values of a reference call.

    ``arguments`` maps each argument to its acceptable values, as the Berkeley Function Calling
    Leaderboard does: an empty string in a list means that the argument is optional.
    """

    name: str
    arguments: dict[str, list[Json]]


@dataclass(frozen=True, slots=True)
class Progress:
    """A progress line of a training or an evaluation.

    ``done`` and ``total`` count ``unit``s (steps, requests); ``figures`` are the current metrics.
    """

    stage: str
    done: int
    total: int
    unit: str
    figures: dict[str, float] = field(default_factory=dict[str, float])


ALWAYS = 50  # requests that a client may always have on a side, however few others there are


class ClientShares(Config):
    """Caps on the clients that came after a workload's first; the first has no cap."""

    holdout: float = Field(default=0.5, gt=0, le=1)
    """Share of the holdout, and of the validation side, that one later client may have. Surplus
    rows (``over_client_holdout``) are on no side; ``1`` means no cap."""

    train: float = Field(default=0.5, gt=0, le=1)
    """Share of the training side that one later client may have. Surplus rows
    (``over_client_train``) are left out; ``1`` means no cap."""

    together: list[str] = Field(default_factory=list)
    """Clients that count as one, such as the parts of one application: patterns of their ids, such
    as ``shop-*``. Those that match the same pattern share one rank, one cap, and the same
    conversations and users."""

    displaced: float = Field(default=0.05, ge=0, le=1)
    """Share of a client's training requests that rows held out for later clients may displace,
    because they are near, overlap, or offer the same tools. Beyond it those rows
    (``displaces_other_client``) are left out instead; ``1`` means no cap."""
