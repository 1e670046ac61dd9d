"""The records that cross from one stage to the next, and settings that several stages share."""

import json
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any JSON value, as ``json.loads`` gives it."""

Message: TypeAlias = dict[str, str]
"""One chat message whose content is plain text: ``{"role": ..., "content": ...}``."""


def kind_of(value: Json) -> str:
    """Name the type of a JSON value in a reader's words."""
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
    """A closed, frozen set of knobs: an unknown key is an error, not a silent no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of an assistant: a function's name and its arguments by name."""

    name: str
    arguments: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an assistant replied: text, tool calls, or both."""

    text: str = ""
    calls: tuple[Call, ...] = ()

    def to_json(self) -> str:
        """Give the canonical JSON text: sorted keys, so that equal answers are equal text."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Answer":
        """Read what ``to_json`` wrote."""
        raw = json.loads(text)
        return cls(raw["text"], tuple(Call(**call) for call in raw["calls"]))


@dataclass(frozen=True, slots=True)
class AcceptableCall:
    """The values a reference accepts for one call.

    ``arguments`` maps each argument to its acceptable values, as the Berkeley Function Calling
    Leaderboard does: the empty string in a list means that the argument may be left out.
    """

    name: str
    arguments: dict[str, list[Json]]


@dataclass(frozen=True, slots=True)
class Progress:
    """One line that a training or evaluation says while it works.

    ``done`` and ``total`` count ``unit``s (steps, requests); ``figures`` are the metrics of now.
    """

    stage: str
    done: int
    total: int
    unit: str
    figures: dict[str, float] = field(default_factory=dict[str, float])


ALWAYS = 50
"""Requests that a client may always have on a side, however few the others have."""


class ClientShares(Config):
    """What bounds the clients that came after a workload's first; the first has no bound."""

    holdout: float = Field(default=0.5, gt=0, le=1)
    """Share of the holdout, and of the validation side, that one later client may have. What is
    more (``over_client_holdout``) is on no side; ``1`` is without bound."""

    train: float = Field(default=0.5, gt=0, le=1)
    """Share of the training side that one later client may have. What is more
    (``over_client_train``) is left out; ``1`` is without bound."""

    together: list[str] = Field(default_factory=list)
    """Clients that are one, as the parts of one application are: patterns of their ids, such as
    ``shop-*``. Those that match the same pattern have one rank and one share, their conversations
    and users are the same, and what one logs counts for the others."""

    displaced: float = Field(default=0.05, ge=0, le=1)
    """Share of a client's requests to train on that rows held out for later clients may displace,
    as too near, overlapping, or offering the same tools. Where it would be more, those rows
    (``displaces_other_client``) are left out instead; ``1`` is without bound."""
