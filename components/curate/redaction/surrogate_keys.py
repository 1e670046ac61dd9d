"""The random keys of conversations, under which their surrogates are drawn.

The extension that draws them is ``components.extensions.surrogates``, found by its name.
"""

import hashlib
import secrets
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, cast

import pyarrow as pa

from components.curate.redaction.placeholders import Occurrence
from components.curate.settings import Allowed, Redaction
from components.store import warehouse
from components.store.arrow import compute
from components.store.warehouse import Connection


@dataclass(frozen=True)
class Marked:
    """Texts with marks in place of values, and the values' occurrences.

    ``texts`` are JSON by name; ``context`` is the other text of the turn, without marks.
    """

    first_mark: int
    occurrences: tuple[Occurrence, ...]
    texts: dict[str, str]
    context: str = ""


class Surrogates(Protocol):
    """The surrogates of a conversation, drawn under one key for all its turns."""

    def draw(self, marked: Sequence[Marked], /) -> None:
        """Draw surrogates for the new values of turns, in order."""
        ...

    def write(self, marked: Marked, name: str, /) -> str | None:
        """Return a JSON text with surrogates in place of marks; ``None`` if the text is missing."""
        ...


def _surrogates(
    key: bytes, taken: frozenset[str], allowed: Allowed, language: str | None
) -> Surrogates:
    """Return a conversation's surrogates, which are never of ``taken``; from the extension."""
    name = "components.extensions.surrogates.conversation_surrogates"
    drawn = import_module(name).ConversationSurrogates(key, taken, allowed, language)
    return cast("Surrogates", drawn)


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
    drawn: dict[bytes, Surrogates] = field(default_factory=dict[bytes, Surrogates])
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

    def _conversation(self, interaction_id: str, name: bytes, language: str | None) -> Surrogates:
        self.used.setdefault(name, set()).add(interaction_id)
        if name not in self.drawn:
            turns = self.turns.get(name, [])
            languages = (turn.language for turn in turns if turn.language)
            surrogates = _surrogates(
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
