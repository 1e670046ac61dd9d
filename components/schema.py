"""The records that cross from one stage to the next, and settings that several stages share."""

import json
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import from_json

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any JSON value, as ``json.loads`` returns it."""

Precision: TypeAlias = Literal["nf4", "fp4", "bf16", "fp32"]
"""The type of a base's weights. ``nf4`` is QLoRA's 4-bit NormalFloat, ``fp4`` its 4-bit float; both
also quantize their constants (double quantization)."""

LEAST_DAYS = 7  # that outputs stay before a prune: for as long a training may go on

WORKLOAD_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""The names that a workload can have."""

WORKLOAD_ID_SENTENCE = "expected at most 63 of a to z, 0 to 9, '.', '_' and '-', and no mark first"

ANONYMOUS = frozenset(
    {"", "anonymous", "anon", "unknown", "none", "null", "undefined", "guest", "api"}
)
"""Names, in lower case, that clients write where they know none: many people or conversations have
them. ``API`` is Langfuse's and LangSmith's for all people whose feedback an application sends.
"""

Message: TypeAlias = dict[str, str]
"""One chat message whose content is plain text: ``{"role": ..., "content": ...}``."""


def parse_json(text: str) -> Any:  # noqa: ANN401 - as `json.loads`
    """Return what ``json.loads`` returns, for requests in a quarter of the time."""
    try:
        return from_json(text)
    except (TypeError, ValueError):
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


def _kinds_in(annotation: object) -> list[object]:
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds_in(part))]


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


PARAPHRASE = 0.45
"""The cosine from which a text counts as a paraphrase, whether or not such rows are left out."""


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """How many of the ``compared`` held-out requests a training row paraphrases.

    The row's words have a TF-IDF cosine of at least ``cosine`` with the request's.
    """

    compared: int = 0
    paraphrased: int = 0
    cosine: float = PARAPHRASE


ALWAYS = 50  # requests that a client may always have on a side, however few others there are


class ClientShares(Config):
    """Caps on the clients of a workload but its first one, which has no cap."""

    first: list[str] = Field(default_factory=list)
    """Clients that rank first, in this order: whose requests the model is for. The others follow in
    the order in which each had 50 requests loaded."""

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
