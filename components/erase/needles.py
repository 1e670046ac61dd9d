"""Say what counts as something left of a subject, and find it in a value."""

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from components.erase.subject import Subject, digest
from components.erase.texts import IDENTITIES, SHORTEST, Text, normal, texts

Kind: TypeAlias = Literal[
    "id", "mention", "erased row", "erased line", "erased text", "freed bytes"
]
"""``id``: a record says that it is the subject's. ``mention``: the id stands within something else.
``erased row``: the id of a row that was erased. ``erased line`` and ``erased text``: its words.
``freed bytes``: any of it, in a block of the warehouse that is in no row."""

LONGEST_ID = 512
"""Characters of the longest value that may be the subject's id."""

ROW_ID = 32
"""Hexadecimal digits of a row's id."""

_HEXADECIMAL = bytes(one if one in b"0123456789abcdef" else ord(" ") for one in range(256))
"""Turns all but hexadecimal digits into blanks."""

_ROW_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Needles:
    """What is searched for: digests under ``key``, and the id itself where it is known.

    Without ``subject`` only values that are the id as a whole can be found, by ``subject_digest``.
    """

    key: str
    subject_digest: str
    subject: Subject | None = None
    rows: AbstractSet[str] = field(default_factory=frozenset[str])
    lines: AbstractSet[str] = field(default_factory=frozenset[str])
    texts: AbstractSet[str] = field(default_factory=frozenset[str])

    def without_texts(self, held: AbstractSet[str]) -> "Needles":
        """Leave out the texts that other people's rows hold, too."""
        return replace(self, texts=frozenset(self.texts) - held)


def find(needles: Needles, name: str | None, value: object) -> Iterator[Kind]:
    """Say what of the subject stands in the value of the column or key ``name``."""
    if needles.lines and isinstance(value, str | bytes) and _is_line(needles, value):
        yield "erased line"
    for text in texts(name, value):
        yield from _in_text(needles, text)


def in_bytes(content: bytes, needles: Needles, *, with_id: bool) -> bool:
    """Tell whether bytes, of whatever form, hold the id or that of an erased row."""
    subject = needles.subject if with_id else None
    if subject and any(one.encode() in content for one in subject.spellings):
        return re.search(subject.pattern.encode(), content, re.ASCII) is not None
    if not needles.rows:
        return False
    words = {word for word in content.translate(_HEXADECIMAL).split() if len(word) == ROW_ID}
    return any(digest(needles.key, word) in needles.rows for word in words)


def held(needles: Needles, value: object) -> set[str]:
    """Give the digests of the erased texts that stand in a value."""
    return {
        found
        for text in texts(None, value)
        if (found := _text_digest(needles, text.value)) is not None
    }


def _in_text(needles: Needles, text: Text) -> Iterator[Kind]:
    value = text.value
    if len(value) <= LONGEST_ID and digest(needles.key, value) == needles.subject_digest:
        yield "id" if text.key in IDENTITIES else "mention"
    elif needles.subject is not None and _is_mentioned(needles.subject, value):
        yield "mention"
    if any(digest(needles.key, one) in needles.rows for one in _ids(needles, value)):
        yield "erased row"
    if _text_digest(needles, value) is not None:
        yield "erased text"


def _is_line(needles: Needles, value: str | bytes) -> bool:
    return digest(needles.key, value) in needles.lines


def _ids(needles: Needles, value: str) -> Iterable[str]:
    return set(_ROW_ID.findall(value)) if needles.rows else ()


def _text_digest(needles: Needles, value: str) -> str | None:
    if not needles.texts or len(value) < SHORTEST:
        return None
    if len(one := normal(value)) < SHORTEST:
        return None
    found = digest(needles.key, one)
    return found if found in needles.texts else None


def _is_mentioned(subject: Subject, value: str) -> bool:
    """Look for the id first: that is many times faster than for the pattern."""
    near = any(one in value for one in subject.spellings)
    return near and re.search(subject.pattern, value, re.ASCII) is not None
