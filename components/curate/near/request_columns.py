"""The compared parts of requests, read from their messages, and as columns."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa

from components.curate import split
from components.curate.interaction import read_tools
from components.curate.near import hashed_words, text_words
from components.curate.near.hashed_words import Hashes, Positions, TextColumn
from components.curate.split import LABEL_CHARACTERS
from components.schema import Answer, Json, Message
from components.store import manifest

FREE = ""  # the name of longer texts, which never conflict

_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


def answer_name(answer: Answer) -> str:
    """Return an answer's name, equal for equal calls, labels and short JSON in any formatting.

    Longer texts within calls and JSON are ignored, and so are thoughts before the answer.
    """
    if answer.calls:
        calls = [_short({"name": call.name, "arguments": call.arguments}) for call in answer.calls]
        return _write_call(sorted(calls, key=_write_call))
    text = " ".join(_THOUGHTS.sub("", answer.text).casefold().split())
    if text[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            return _write_call(_short(cast("Json", json.loads(text))))
    return FREE if len(text) > LABEL_CHARACTERS else text


def _short(value: Json) -> Json:
    """Replace longer texts by ``None``, and whole floats by integers."""
    match value:
        case str():
            text = " ".join(value.casefold().split())
            return text if len(text) <= LABEL_CHARACTERS else None
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_short(item) for item in value]
        case dict():
            return {key: _short(item) for key, item in value.items()}
        case _:
            return value


def _write_call(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class NearRequest:
    """The compared parts of one request.

    ``tools``, ``tool_names`` and ``form`` (roles, last message) are digests. ``turns`` are its
    messages without system messages, ``roles`` their roles; ``answer_name`` is by ``answer_name``.
    """

    turns: tuple[str, ...]
    roles: tuple[str, ...]
    answer_name: str
    system: str
    tools: str
    tool_names: str
    form: str


class RequestTurns(Protocol):
    """The texts of requests' turns; request i has the next ``sizes[i]``."""

    @property
    def sizes(self) -> Positions:
        """The number of turns of each request."""
        ...

    @property
    def digests(self) -> Hashes:
        """The digest of each turn's text, of two values."""
        ...

    def at(self, places: Positions) -> Iterator[TextColumn]:
        """Yield the texts of some turns, in their order, in parts."""
        ...


class RequestColumns(NamedTuple):
    """Requests as Arrow columns; ``roles`` are those of all turns."""

    turns: RequestTurns
    roles: Any
    answer_name: Any
    system: Any
    tools: Any
    tool_names: Any
    form: Any


def read(
    rendered: Sequence[Message], system: Sequence[str], tools: str, answer: Answer
) -> NearRequest:
    """Return the compared parts of a request; ``tools`` are JSON."""
    turns = [message for message in rendered if message["role"] != "system"]
    roles = tuple(turn["role"] for turn in turns)
    last = " ".join(turns[-1]["content"].casefold().split()) if len(turns) > 1 else ""
    return NearRequest(
        turns=tuple(turn["content"] for turn in turns),
        roles=roles,
        answer_name=answer_name(answer),
        system="\n\n".join(system),
        tools=_offered(tools),
        tool_names=_named(tools),
        form=manifest.digest([[*roles], last]),
    )


def columns_of(requests: Sequence[NearRequest]) -> RequestColumns:
    """Return requests as columns."""
    return RequestColumns(
        _ListedTurns(
            np.array([len(request.turns) for request in requests], np.int64),
            pa.array([turn for request in requests for turn in request.turns], pa.large_string()),
        ),
        _dictionary(role for request in requests for role in request.roles),
        *(
            _dictionary(getattr(request, name) for request in requests)
            for name in RequestColumns._fields[2:]
        ),
    )


class _ListedTurns(NamedTuple):
    """Turns whose ``texts`` are in memory."""

    sizes: Positions
    texts: TextColumn

    @property
    def digests(self) -> Hashes:
        return text_words.digests_of(self.texts)

    def at(self, places: Positions) -> Iterator[TextColumn]:
        yield from hashed_words.taken(self.texts, places)


def _dictionary(texts: Iterable[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return texts as an Arrow column in which each different one is once."""
    numbers: dict[str, int] = {}
    indices = pa.array([numbers.setdefault(text, len(numbers)) for text in texts], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array([*numbers], pa.large_string()))


def codes_of(column: Any) -> tuple[Positions, Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a column's values as numbers, and the different values."""
    is_encoded = pa.types.is_dictionary(column.type)
    encoded = column if is_encoded else column.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


@lru_cache(maxsize=4096)
def _offered(tools: str) -> str:
    """Return the digest of a list of tools in any order; cached, as most requests share it."""
    return manifest.digest(sorted({json.dumps(tool, sort_keys=True) for tool in json.loads(tools)}))


@lru_cache(maxsize=4096)
def _named(tools: str) -> str:
    return split.tools(read_tools(tools)[1])
