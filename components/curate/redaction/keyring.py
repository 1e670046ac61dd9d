"""Draw the surrogates of a workload's conversations, each under a random key of its own.

The keys are kept in the warehouse, beside the raw rows whose values they hide, and go with them:
by an erasure, by retention, or when the workload's surrogates are no longer wanted.
"""

import hashlib
import secrets
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field

import pyarrow as pa

from components import warehouse
from components.curate.redaction.allowed import Allowed
from components.curate.redaction.settings import Redaction
from components.curate.redaction.stand_ins import Conversation, Marked
from components.warehouse import Connection

KEY_BYTES = 32

COLUMNS = ("messages", "tools", "answer", "acceptable", "logged_answer")
"""Texts of an interaction that may hold values, as ``curated.examples`` calls them."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An interaction that redaction changed: of which conversation, and in which language."""

    interaction_id: str
    conversation: str
    language: str | None
    marked: Marked


@dataclass(slots=True)
class Keyring:
    """Holds the keys and the surrogates of a workload while it is curated.

    ``conversations`` names that of each interaction; ``turns`` are by conversation, in order.
    """

    workload_id: str
    settings: Redaction
    conversations: dict[str, str]
    turns: dict[str, list[Turn]]
    taken: frozenset[str]
    keys: dict[str, bytes]
    allowed: Allowed
    drawn: dict[str, Conversation] = field(default_factory=dict[str, Conversation])
    used: dict[str, set[str]] = field(default_factory=dict[str, "set[str]"])

    @property
    def is_used(self) -> bool:
        """Whether surrogates are wanted, and not placeholders."""
        return self.settings.replace == "surrogates"

    def columns(self, interaction_ids: Iterable[str]) -> dict[str, Sized]:
        """Return the changed texts of interactions as the columns of the table ``surrogates``."""
        wanted = set(interaction_ids) if self.is_used else set[str]()
        turns = [turn for some in self.turns.values() for turn in some]
        turns = [turn for turn in turns if turn.interaction_id in wanted]
        rows = [self._texts(turn) for turn in turns]
        return {
            "interaction_id": pa.array([turn.interaction_id for turn in turns], pa.string()),
            **{name: pa.array([row[name] for row in rows], pa.string()) for name in COLUMNS},
        }

    def _texts(self, turn: Turn) -> dict[str, str | None]:
        drawn = self._conversation(turn.interaction_id, turn.conversation, turn.language)
        return {name: drawn.write(turn.marked, name) for name in COLUMNS}

    def write(self, interaction_id: str, marked: Marked) -> dict[str, str]:
        """Write the texts of what belongs to an interaction, or of a row that is in no log."""
        conversation = self.conversations.get(interaction_id, interaction_id)
        drawn = self._conversation(interaction_id, conversation, None)
        drawn.draw([marked])
        written = {name: drawn.write(marked, name) for name in marked.texts}
        return {name: text for name, text in written.items() if text is not None}

    def _conversation(self, interaction_id: str, name: str, language: str | None) -> Conversation:
        self.used.setdefault(name, set()).add(interaction_id)
        if name not in self.drawn:
            turns = self.turns.get(name, [])
            told = (turn.language for turn in turns if turn.language)
            found = Conversation(self._key(name), self.taken, self.allowed, next(told, language))
            found.draw([turn.marked for turn in turns])
            self.used[name].update(turn.interaction_id for turn in turns)
            self.drawn[name] = found
        return self.drawn[name]

    def _key(self, conversation: str) -> bytes:
        if self.settings.seed is not None:
            seeded = f"{self.settings.seed}\0{conversation}"
            return hashlib.blake2b(seeded.encode(), digest_size=KEY_BYTES).digest()
        if conversation not in self.keys:
            self.keys[conversation] = secrets.token_bytes(KEY_BYTES)
        return self.keys[conversation]

    def save(self, con: Connection) -> None:
        """Keep the keys of conversations that are still logged or used; throw the others away."""
        members: dict[str, set[str]] = {name: set(ids) for name, ids in self.used.items()}
        for interaction_id, name in self.conversations.items():
            if name in self.keys:
                members.setdefault(name, set()).add(interaction_id)
        is_kept = self.is_used and self.settings.seed is None
        rows: list[dict[str, warehouse.Value]] = []
        for name, key in sorted(self.keys.items()):
            if is_kept and members.get(name):
                rows.append({"key": key.hex(), "interaction_ids": [*sorted(members[name])]})
        warehouse.replace(con, "curated.surrogate_keys", rows, self.workload_id)


def open_keyring(
    con: Connection,
    workload_id: str,
    settings: Redaction,
    conversations: dict[str, str],
    turns: Sequence[Turn],
) -> Keyring:
    """Read the keys of a workload, and gather its turns.

    Args:
        con: The warehouse.
        workload_id: The workload.
        settings: What its file says of redaction.
        conversations: The conversation of each of its interactions, by id.
        turns: The interactions that redaction changed, in the order in which they were logged.
    """
    by_conversation: dict[str, list[Turn]] = {}
    for turn in turns:
        by_conversation.setdefault(turn.conversation, []).append(turn)
    taken = frozenset(
        text.lower()
        for turn in turns
        for one in turn.marked.occurrences
        for text in (one.key, one.written)
    )
    return Keyring(
        workload_id,
        settings,
        conversations,
        by_conversation,
        taken,
        _keys(con, workload_id, conversations),
        Allowed.by(settings),
    )


def _keys(con: Connection, workload_id: str, conversations: dict[str, str]) -> dict[str, bytes]:
    rows = con.execute(
        "select key, interaction_ids from curated.surrogate_keys"
        " where workload_id = $workload_id order by key",
        {"workload_id": workload_id},
    ).fetchall()
    found: dict[str, bytes] = {}
    for key, interaction_ids in rows:
        for one in interaction_ids:
            found.setdefault(conversations.get(one) or str(one), bytes.fromhex(key))
    return found
