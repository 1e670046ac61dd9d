"""Find requests too similar to be on different sides, and those of which one is enough."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from components.curate import split
from components.curate.interaction import read_tools
from components.curate.near import duplicates, shared_text
from components.curate.near.duplicates import smallest_ids
from components.curate.near.shared_text import MANY, Parted
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

    @property
    def user_text(self) -> str:
        """The users' text, templates included."""
        return _by_users(self.turns, self.roles)


@dataclass(frozen=True, slots=True)
class ComparedRequest:
    """A request without shared text: its ``words``, and the users' part of them.

    ``instruction`` is the shared text: system prompt and templates.
    """

    words: str
    user_text: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Place:
    """A request's near-duplicates: each id is the smallest interaction id of its group."""

    cluster_id: str
    twin_id: str
    equal_id: str


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


def compare(requests: Sequence[NearRequest]) -> list[ComparedRequest]:
    """Return each request without text shared by many; order does not matter."""
    answers_by_turn: dict[str, set[str]] = {}
    for request in requests:
        for turn in request.turns:
            answers_by_turn.setdefault(turn, set())
        answers_by_turn[request.turns[-1]].add(request.answer_name)
    parted = shared_text.split_shared(answers_by_turn)
    beginnings = _beginnings(requests)
    return [
        _compared(request, parted, common)
        for request, common in zip(requests, beginnings, strict=True)
    ]


def _compared(request: NearRequest, parted: dict[str, Parted], common: int) -> ComparedRequest:
    own = [parted[turn].own for turn in request.turns[common:]]
    shared = [*request.turns[:common], *(parted[turn].shared for turn in request.turns[common:])]
    words = "\n".join(own)
    if not _has_words(words):
        own, shared, common = [*request.turns], [], 0
        words = "\n".join(own)
    asked = _by_users(own, request.roles[common:])
    return ComparedRequest(words, asked, "\n\n".join(filter(_has_words, [request.system, *shared])))


def _beginnings(requests: Sequence[NearRequest]) -> list[int]:
    """Return the number of leading messages that each request shares with many.

    A shared beginning is followed by many different user messages; in a conversation logged turn by
    turn, each beginning has one continuation.
    """
    names: dict[tuple[int, str, str], int] = {}
    paths: list[list[int]] = []
    followers: Counter[int] = Counter()
    for request in requests:
        path = [0]
        for role, turn in zip(request.roles, request.turns, strict=True):
            step = (path[-1], role, turn)
            if step not in names:
                names[step] = len(names) + 1
                followers[path[-1]] += role == "user"
            path.append(names[step])
        paths.append(path)
    return [
        max((depth for depth, node in enumerate(path) if followers[node] >= MANY), default=0)
        for path in paths
    ]


def place(
    ids: Sequence[str],
    requests: Sequence[NearRequest],
    compared: Sequence[ComparedRequest],
    jaccard: float,
) -> list[Place]:
    """Return each request's cluster, twins and equals; order does not matter."""
    words = [request.words for request in compared]
    clusters = duplicates.find_clusters(ids, words, jaccard)
    systems = sorted({request.instruction for request in compared})
    alike = dict(
        zip(systems, duplicates.find_clusters(systems, systems, jaccard).cluster_ids, strict=True)
    )
    tool_names = [request.tool_names for request in requests]
    near = smallest_ids(ids, list(zip(clusters.cluster_ids, tool_names, strict=True)))
    alike_words = duplicates.without_replaced(ids, words, clusters)
    wishes = [
        (name, request.tools, alike[own.instruction], request.form)
        for name, own, request in zip(alike_words, compared, requests, strict=True)
    ]
    twins = smallest_ids(ids, wishes)
    equals = smallest_ids(ids, _equals(twins, words))
    return [Place(*place_ids) for place_ids in zip(near, twins, equals, strict=True)]


def _equals(twins: Sequence[str], words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a key per request: its twins and, if it has any, its words."""
    sizes = Counter(twins)
    return [
        (name, _spaced(text) or text) if sizes[name] > 1 else (name,)
        for name, text in zip(twins, words, strict=True)
    ]


def _spaced(text: str) -> str:
    """Return a text's words in lower case, separated by single spaces."""
    folded = text.casefold()
    words = folded.translate(_BREAKS).split() if folded.isascii() else _WORD.findall(folded)
    return " ".join(words)


def _by_users(turns: Sequence[str], roles: Sequence[str]) -> str:
    return "\n".join(turn for turn, role in zip(turns, roles, strict=True) if role == "user")


_WORD = re.compile(r"[^\W_]+")
_BREAKS = {code: " " for code in range(128) if not chr(code).isalnum()}
"""ASCII characters outside ``_WORD``; ``translate`` is faster than the regex on ASCII."""


def _has_words(text: str) -> bool:
    return _WORD.search(text) is not None


@lru_cache(maxsize=4096)
def _offered(tools: str) -> str:
    """Return the digest of a list of tools in any order; cached, as most requests share it."""
    return manifest.digest(sorted({json.dumps(tool, sort_keys=True) for tool in json.loads(tools)}))


@lru_cache(maxsize=4096)
def _named(tools: str) -> str:
    return split.tools(read_tools(tools)[1])
