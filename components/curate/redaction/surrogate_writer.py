"""One surrogate per value of a conversation, drawn under the conversation's random key."""

import hashlib
import json
import re
import secrets
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from components.curate.redaction import json_texts, surrogate_names, surrogates
from components.curate.redaction.patterns import PLACEHOLDER, Kind, digits_of, placeholder
from components.curate.redaction.placeholders import IN_DIGITS, Occurrence
from components.curate.redaction.surrogate_names import Chance
from components.curate.settings import Allowed, Redaction
from components.schema import Json
from components.store import warehouse
from components.store.arrow import compute
from components.store.warehouse import Connection

ATTEMPTS = 200  # maximum draws of a surrogate; after that the value keeps its placeholder

FROM_LISTS = 12
"""Draws of a name from a list, which a large log may exhaust; later draws are made up."""

MIN_OVERLAP = 4
"""From this many characters, no surrogate may contain another value of the turn or be part of
one."""

Value = tuple[Kind, str]  # a value's kind and its form by ``surrogates.canonical``.


@dataclass(frozen=True)
class Marked:
    """Texts with marks in place of values, and the values' occurrences.

    ``texts`` are JSON by name; ``context`` is the other text of the turn, without marks.
    """

    first_mark: int
    occurrences: tuple[Occurrence, ...]
    texts: dict[str, str]
    context: str = ""

    @cached_property
    def values(self) -> dict[Value, Occurrence]:
        """The distinct values in order, each with its first occurrence."""
        firsts: dict[Value, Occurrence] = {}
        for occurrence in self.occurrences:
            value = (occurrence.kind, surrogates.canonical(occurrence.kind, occurrence.key))
            firsts.setdefault(value, occurrence)
        return firsts


class TurnTexts:
    """The texts and values of a turn, in which a surrogate must not occur."""

    def __init__(self, marked: Marked) -> None:
        self.values = marked.values
        self.text = "\n".join([*marked.texts.values(), marked.context]).lower()

    @cached_property
    def digits(self) -> str:
        """The digits of the texts."""
        return digits_of(self.text)

    def holds(self, kind: Kind, drawn: str) -> bool:
        """Return whether a surrogate occurs in the texts, or overlaps with a value."""
        if drawn in self.text or (kind in IN_DIGITS and drawn in self.digits):
            return True
        lowered = (key.lower() for _, key in self.values)
        return len(drawn) >= MIN_OVERLAP and any(
            drawn in value or (len(value) >= MIN_OVERLAP and value in drawn) for value in lowered
        )


@dataclass(slots=True)
class ConversationSurrogates:
    """The surrogates of a conversation, drawn under one key for all its turns.

    ``taken`` are all values of the workload, in lower case, which are never drawn.
    """

    key: bytes
    taken: AbstractSet[str]
    allowed: Allowed
    language: str | None = None
    drawn: dict[Value, str | None] = field(default_factory=dict[Value, "str | None"])
    used: set[str] = field(default_factory=set[str])

    def draw(self, marked: Sequence[Marked]) -> None:
        """Draw surrogates for the new values of turns, in order."""
        places: dict[Value, list[TurnTexts]] = {}
        for turn in map(TurnTexts, marked):
            for value in turn.values.keys() - self.drawn.keys():
                places.setdefault(value, []).append(turn)
        ordered = dict.fromkeys(value for turn in marked for value in turn.values)
        new = [value for value in ordered if value in places]
        # Names first: e-mail addresses are built from their surrogates.
        for value in sorted(new, key=lambda value: value[0] is not Kind.NAME):
            self.drawn[value] = self._draw(value, places[value])

    def _draw(self, value: Value, turns: Sequence[TurnTexts]) -> str | None:
        for attempt in range(ATTEMPTS):
            drawn = self._candidate(value, turns, attempt)
            lowered = drawn.lower()
            if (
                lowered not in self.taken
                and lowered not in self.used
                and not self.allowed.value(drawn)
                and not any(turn.holds(value[0], lowered) for turn in turns)
            ):
                self.used.add(lowered)
                return drawn
        return None

    def _candidate(self, value: Value, turns: Sequence[TurnTexts], attempt: int) -> str:
        kind, key = value
        tried = str(attempt or "")
        chance = Chance(self.key, kind, key, tried)
        match kind:
            case Kind.NAME:
                is_made_up = attempt >= FROM_LISTS
                return surrogate_names.draw(key, self.language, chance, is_made_up=is_made_up)
            case Kind.EMAIL:
                names = self._names(turns)
                return surrogates.email(key, self.language, self.key, tried, names)
            case Kind.ADDRESS:
                return surrogates.address(key, self.language, self.key, tried)
            case Kind.PHONE:
                is_international = any(_has_country(key, turn.values[value]) for turn in turns)
                return surrogates.phone(key, chance, is_international=is_international)
            case Kind.CARD:
                return surrogates.card(key, chance)
            case Kind.IBAN:
                return surrogates.iban(key, chance)
            case Kind.SSN:
                return surrogates.ssn(chance)
            case Kind.NATIONAL_ID:
                return surrogates.identity(key, chance)
            case Kind.IP:
                return surrogates.ip(key, chance)
            case Kind.PASSWORD:
                return surrogates.password(key, chance)
            case Kind.SECRET:
                return surrogates.secret(key, chance)

    def _names(self, turns: Sequence[TurnTexts]) -> Mapping[str, str]:
        parts = {key for turn in turns for kind, key in turn.values if kind is Kind.NAME}
        drawn = {key: self.drawn.get((Kind.NAME, key)) for key in parts}
        return {key: surrogate for key, surrogate in drawn.items() if surrogate}

    def write(self, marked: Marked, name: str) -> str | None:
        """Return a JSON text with surrogates in place of marks; ``None`` if the text is missing."""
        text = marked.texts.get(name)
        return None if text is None else json_texts.dumps(self._put(marked, json.loads(text)))

    def _put(self, marked: Marked, value: Json) -> Json:
        match value:
            case str():
                return self._in_text(marked, value) if "<" in value else value
            case list():
                return [self._put(marked, item) for item in value]
            case dict():
                return {
                    str(self._put(marked, key)): self._put(marked, item)
                    for key, item in value.items()
                }
            case _:
                return value

    def _in_text(self, marked: Marked, text: str) -> Json:
        if (read := json_texts.read(text)) is not None:
            rewritten = self._put(marked, read)
            return text if rewritten == read else json_texts.write(rewritten, like=text)
        is_number = False

        def put(match: re.Match[str]) -> str:
            nonlocal is_number
            place = int(match[2]) - marked.first_mark
            if not 0 <= place < len(marked.occurrences):
                return match.group()
            occurrence = marked.occurrences[place]
            is_number = is_number or occurrence.is_number
            return self._as_written(occurrence)

        written = PLACEHOLDER.sub(put, text)
        return _number(written) if is_number else written

    def _as_written(self, occurrence: Occurrence) -> str:
        value = surrogates.canonical(occurrence.kind, occurrence.key)
        drawn = self.drawn[occurrence.kind, value]
        if drawn is None:
            return placeholder(occurrence.kind, occurrence.number)
        return surrogates.write(occurrence.kind, value, drawn, occurrence.written)


def _has_country(key: str, first: Occurrence) -> bool:
    called = re.split("[a-zA-Z]", first.written, maxsplit=1)[0]
    has_prefix = called.startswith(("+", "00"))
    return has_prefix and digits_of(called).removeprefix("00") == key


def _number(written: str) -> Json:
    try:
        return json.loads(written)
    except ValueError:
        return written


KEY_BYTES = 32

COLUMNS = ("messages", "tools", "answer", "acceptable", "logged_answer")
"""Columns of ``curated.examples`` that may contain values."""


NAME = pa.binary(KEY_BYTES)
"""The type of a conversation's name."""


def conversation_name(conversation: str, seed: int | None) -> bytes:
    """Return a conversation's name: a digest, and its key where keys are drawn from a seed."""
    return hashlib.blake2b(f"{seed}\0{conversation}".encode(), digest_size=KEY_BYTES).digest()


class Conversations:
    """The names of the logged interactions' conversations.

    ``read`` returns the interactions in the order of their ids, and the names, as Arrow columns; it
    is called when they are used first.
    """

    def __init__(self, read: Callable[[], tuple[Any, Any]]) -> None:
        self._read = read

    @cached_property
    def _columns(self) -> tuple[Any, Any]:
        return self._read()

    def get(self, interaction_id: str) -> bytes | None:
        """Return the name of an interaction's conversation, ``None`` if it is not logged."""
        ids, names = self._columns
        place = bisect_left(range(len(ids)), interaction_id, key=lambda n: ids[n].as_py())
        is_logged = place < len(ids) and ids[place].as_py() == interaction_id
        return names[place].as_py() if is_logged else None

    def of(self, names: Collection[bytes]) -> Iterator[tuple[str, bytes]]:
        """Yield the interactions of conversations, with the names."""
        if not names:
            return
        ids, of_ids = self._columns
        is_named = compute.is_in(of_ids, value_set=pa.array([*names], NAME))
        columns = ids.filter(is_named), of_ids.filter(is_named)
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


@dataclass(frozen=True, slots=True)
class RedactedTurn:
    """An interaction that redaction changed, with its conversation's name and language."""

    interaction_id: str
    conversation: bytes
    language: str | None
    marked: Marked


@dataclass(slots=True)
class Keyring:
    """The keys and surrogates of a workload during curation.

    All but ``conversations`` is by conversation; ``turns`` are in order. ``name_of`` returns the
    name of an interaction's conversation.
    """

    workload_id: str
    settings: Redaction
    conversations: Conversations
    name_of: Callable[[str], bytes]
    turns: dict[bytes, list[RedactedTurn]]
    taken: frozenset[str]
    keys: dict[bytes, bytes]
    allowed: Allowed
    drawn: dict[bytes, ConversationSurrogates] = field(
        default_factory=dict[bytes, ConversationSurrogates]
    )
    used: dict[bytes, set[str]] = field(default_factory=dict[bytes, "set[str]"])

    @property
    def is_used(self) -> bool:
        """Whether the workload uses surrogates, not placeholders."""
        return self.settings.replace == "surrogates"

    def columns(self, interaction_ids: Iterable[str]) -> dict[str, Sized]:
        """Return the changed texts of interactions as the columns of the table ``surrogates``."""
        written_ids = set(interaction_ids) if self.is_used else set[str]()
        columns: dict[str, list[str | None]] = {name: [] for name in ("interaction_id", *COLUMNS)}
        for turn in (turn for turns in self.turns.values() for turn in turns):
            if turn.interaction_id in written_ids:
                drawn = self._conversation(turn.interaction_id, turn.conversation, turn.language)
                columns["interaction_id"].append(turn.interaction_id)
                for name in COLUMNS:
                    columns[name].append(drawn.write(turn.marked, name))
        return {name: pa.array(column, pa.string()) for name, column in columns.items()}

    def write(self, interaction_id: str, marked: Marked) -> dict[str, str]:
        """Return marked texts with surrogates, those of the interaction's conversation if known."""
        conversation = self.name_of(interaction_id)
        drawn = self._conversation(interaction_id, conversation, None)
        drawn.draw([marked])
        written = {name: drawn.write(marked, name) for name in marked.texts}
        return {name: text for name, text in written.items() if text is not None}

    def _conversation(
        self, interaction_id: str, name: bytes, language: str | None
    ) -> ConversationSurrogates:
        self.used.setdefault(name, set()).add(interaction_id)
        if name not in self.drawn:
            turns = self.turns.get(name, [])
            languages = (turn.language for turn in turns if turn.language)
            surrogates = ConversationSurrogates(
                self._key(name), self.taken, self.allowed, next(languages, language)
            )
            surrogates.draw([turn.marked for turn in turns])
            self.used[name].update(turn.interaction_id for turn in turns)
            self.drawn[name] = surrogates
        return self.drawn[name]

    def _key(self, conversation: bytes) -> bytes:
        if self.settings.seed is not None:
            return conversation
        if conversation not in self.keys:
            self.keys[conversation] = secrets.token_bytes(KEY_BYTES)
        return self.keys[conversation]

    def save(self, con: Connection) -> None:
        """Store the keys of conversations still logged or used; delete the others."""
        members: dict[bytes, set[str]] = {name: set(ids) for name, ids in self.used.items()}
        for interaction_id, name in self.conversations.of(self.keys):
            members.setdefault(name, set()).add(interaction_id)
        is_kept = self.is_used and self.settings.seed is None
        rows: list[dict[str, warehouse.Value]] = [
            {"key": key.hex(), "interaction_ids": [*sorted(members[name])]}
            for name, key in sorted(self.keys.items())
            if is_kept and members.get(name)
        ]
        warehouse.replace(con, "curated.surrogate_keys", rows, self.workload_id)


def open_keyring(
    con: Connection,
    workload_id: str,
    settings: Redaction,
    conversations: Conversations,
    turns: Sequence[RedactedTurn],
) -> Keyring:
    """Return a workload's keyring with its stored keys; ``turns`` are in logged order."""
    by_conversation: dict[bytes, list[RedactedTurn]] = {}
    for turn in turns:
        by_conversation.setdefault(turn.conversation, []).append(turn)
    taken = frozenset(
        text.lower()
        for turn in turns
        for occurrence in turn.marked.occurrences
        for text in (occurrence.key, occurrence.written)
    )
    name_of = _name_of(conversations, turns, settings)
    return Keyring(
        workload_id,
        settings,
        conversations,
        name_of,
        by_conversation,
        taken,
        _keys(con, workload_id, name_of),
        Allowed.by(settings),
    )


def _keys(con: Connection, workload_id: str, name_of: Callable[[str], bytes]) -> dict[bytes, bytes]:
    rows = con.execute(
        "select key, interaction_ids from curated.surrogate_keys"
        " where workload_id = $workload_id order by key",
        {"workload_id": workload_id},
    ).fetchall()
    keys: dict[bytes, bytes] = {}
    for key, interaction_ids in rows:
        for interaction_id in interaction_ids:
            keys.setdefault(name_of(str(interaction_id)), bytes.fromhex(key))
    return keys


def _name_of(
    conversations: Conversations, turns: Sequence[RedactedTurn], settings: Redaction
) -> Callable[[str], bytes]:
    """Return a function of an interaction: its conversation's name, its own if it is not logged."""
    changed = {turn.interaction_id: turn.conversation for turn in turns}

    def name(interaction_id: str) -> bytes:
        # Most that are asked for are of such turns, and reading the others' names reads all rows.
        known = changed.get(interaction_id) or conversations.get(interaction_id)
        return conversation_name(interaction_id, settings.seed) if known is None else known

    return name
