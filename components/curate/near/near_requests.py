"""Find requests too similar to be on different sides, and those of which one is enough."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from components.curate.near import duplicates, hashed_words
from components.curate.near.hashed_words import (
    DigestedWords,
    Marks,
    Positions,
    TextColumn,
    Texts,
)
from components.curate.near.request_columns import RequestColumns, RequestTurns, codes_of
from components.curate.near.request_words import RequestParts, RequestWords
from components.curate.near.shared_text import NOTHING, OWN
from components.curate.near.word_runs import MANY

SAME_DOCUMENT = 0.5
"""Jaccard from which documents in system prompts are the same: with another name or time, or a
paragraph more."""


class Places(NamedTuple):
    """Each request's near-duplicates: the place of the request with the group's smallest id.

    Where ``are_fixed``, what the user says is asked about many documents in system prompts, and
    tells nothing of the request.
    """

    clusters: Positions
    twins: Positions
    equals: Positions
    are_fixed: Marks


def place(
    order: Positions, requests: RequestColumns, words: RequestWords, jaccard: float
) -> Places:
    """Return each request's cluster, twins and equals; ``order`` is that of their ids."""
    clusters = duplicates.find_clusters(order, words.words, jaccard)
    alike = _alike(words.instructions, jaccard)[words.instructed]
    documents = _alike(words.documents, SAME_DOCUMENT)[words.systems]
    asked = duplicates.smallest(order, clusters.firsts, codes_of(requests.tool_names)[0])
    # A question about a few documents may have one answer, whatever they say.
    different = hashed_words.sorted_set(asked * len(words.documents) + documents)
    numbers = np.bincount(different // max(len(words.documents), 1), minlength=len(asked))
    are_fixed = (numbers >= MANY)[asked]
    near = duplicates.smallest(order, asked, np.where(are_fixed, documents, 0))
    alike_words = duplicates.without_replaced(order, words.words.words, clusters)
    tools, forms = codes_of(requests.tools)[0], codes_of(requests.form)[0]
    twins = duplicates.smallest(order, alike_words, tools, alike, documents, forms)
    same = _same_words(twins, clusters.numbers, requests, words.parts)
    return Places(near, twins, duplicates.smallest(order, twins, same), are_fixed)


def _alike(texts: DigestedWords, jaccard: float) -> Positions:
    """Return numbers that are equal for texts which a chain of near pairs connects."""
    order = np.arange(len(texts))  # which of a cluster is first does not matter
    return duplicates.find_clusters(order, texts, jaccard).firsts


def _same_words(
    twins: Positions, numbers: Positions, requests: RequestColumns, parts: RequestParts
) -> Positions:
    """Return a number per request, equal for twins with equal words.

    Hashed words differ by the case and the signs of other languages, so that twins of which one
    has such are read.
    """
    turns = parts.turns
    are_ascii = parts.words.are_ascii[turns.texts]
    others = np.bincount(twins[turns.rows[~are_ascii]], minlength=len(twins)) > 0
    read = np.flatnonzero(others[twins] & (np.bincount(twins)[twins] > 1))
    texts: dict[str, int] = {}
    same = numbers.copy()
    for row, text in zip(read.tolist(), _own_texts(read, requests.turns, parts), strict=True):
        same[row] = len(numbers) + texts.setdefault(_spaced(text) or text, len(texts))
    return same


def _own_texts(rows: Positions, texts: RequestTurns, parts: RequestParts) -> Iterator[str]:
    """Yield the texts of some requests without what is shared."""
    bounds, shared = parts.turns.bounds, parts.shared
    turns = hashed_words.members(bounds[rows], bounds[rows + 1] - bounds[rows])
    own: list[str] = []
    for column, places in _with_places(texts.at(turns), turns):
        for place, turn in enumerate(places.tolist()):
            number, row = parts.turns.texts[turn], parts.turns.rows[turn]
            text = column.slice(place, 1)
            if parts.uses[turn] == OWN and shared.have_shared[number]:
                marks = shared.are_shared[shared.bounds[number] : shared.bounds[number + 1]]
                located = hashed_words.hash_words(Texts.of(text))
                own.append(_without(text[0].as_py(), located.starts.tolist(), marks.tolist()))
            elif parts.uses[turn] != NOTHING:
                own.append(text[0].as_py())
            if turn + 1 == bounds[row + 1]:
                yield "\n".join(own)
                own.clear()


def _with_places(
    columns: Iterable[TextColumn], places: Positions
) -> Iterator[tuple[Any, Positions]]:
    """Yield parts of texts with the places of each part's."""
    for column in columns:
        yield column, places[: len(column)]
        places = places[len(column) :]


def _without(text: str, starts: list[int], marks: list[bool]) -> str:
    """Return a text without the marked words, which begin at ``starts``, in bytes."""
    content = text.encode()
    ends = [*starts[1:], len(content)]
    pieces = [
        (content[start:end].decode(), is_after)
        for start, end, mark, is_after in zip(
            starts, ends, marks, [False, *marks[:-1]], strict=True
        )
        if not mark
    ]
    return "".join(f" {piece}" if is_after else piece for piece, is_after in pieces)


def _spaced(text: str) -> str:
    """Return a text's words in lower case, separated by single spaces."""
    folded = text.casefold()
    words = folded.translate(_BREAKS).split() if folded.isascii() else _WORD.findall(folded)
    return " ".join(words)


_WORD = re.compile(r"[^\W_]+")
_BREAKS = {code: " " for code in range(128) if not chr(code).isalnum()}
"""ASCII characters outside ``_WORD``; ``translate`` is faster than the regex on ASCII."""
