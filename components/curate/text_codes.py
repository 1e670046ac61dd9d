"""Texts that many rows share, once each, and their codes in NumPy arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.store.arrow import compute

Ints = NDArray[np.int64]
Marks = NDArray[np.bool_]

MISSING = -1
"""The code of no text."""

Texts = Any  # an Arrow column of texts; pyarrow has no types


def encode(columns: Sequence[Texts]) -> tuple["TextCodes", list[Ints]]:
    """Return the distinct texts of some columns together, and the codes of each column."""
    chunks = [
        chunk.cast(pa.large_string())
        for column in columns
        for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])
    ]
    encoded = pa.chunked_array(chunks, pa.large_string()).dictionary_encode().chunks
    texts = encoded[0].dictionary if encoded else pa.array([], pa.large_string())
    codes = [chunk.indices.fill_null(MISSING).to_numpy().astype(np.int64) for chunk in encoded]
    every = np.concatenate([np.zeros(0, np.int64), *codes])
    ends = np.cumsum([len(column) for column in columns])
    return TextCodes(texts), np.split(every, ends[:-1]) if columns else []


@dataclass(frozen=True, slots=True)
class TextCodes:
    """Distinct texts; a text's code is its place."""

    texts: Texts

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    def take(self, codes: Ints) -> Texts:
        """Return the texts of codes as an Arrow column, null for ``MISSING``."""
        return self.texts.take(pa.array(codes, pa.int64(), mask=codes == MISSING))

    def extended(self, more: Iterable[str]) -> "TextCodes":
        """Return these texts and, with the codes that follow, others that are not among them."""
        return TextCodes(pa.concat_arrays([self.texts, pa.array([*more], pa.large_string())]))

    def find(self, texts: Texts) -> Ints:
        """Return for each of these texts its place in a column, ``MISSING`` if it isn't there."""
        places = compute.index_in(self.texts, value_set=texts.cast(pa.large_string()))
        return places.fill_null(MISSING).to_numpy().astype(np.int64)

    def ranks(self, codes: Ints) -> Ints:
        """Return numbers from 0 on that order codes as their texts; ``MISSING`` stays."""
        distinct, places = np.unique(codes, return_inverse=True)
        is_text = distinct != MISSING
        order = compute.sort_indices(self.take(distinct[is_text])).to_numpy()
        ranks = np.full(len(distinct), MISSING)
        ranks[np.flatnonzero(is_text)[order]] = np.arange(len(order))
        return ranks[places]


@dataclass(frozen=True, slots=True)
class CodeLists:
    """A list of codes per row: row i has ``codes[bounds[i]:bounds[i + 1]]``."""

    bounds: Ints
    codes: Ints

    @property
    def rows(self) -> Ints:
        """The row of each code."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def take(self, rows: Ints) -> "CodeLists":
        """Return the lists of some rows, in their order."""
        sizes = np.diff(self.bounds)[rows]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], sizes)
        return CodeLists(bounds, self.codes[np.repeat(self.bounds[rows], sizes) + within])

    def at(self, place: int) -> Ints:
        """Return each row's code at a place of its list, ``MISSING`` where that is shorter."""
        codes = np.full(len(self.bounds) - 1, MISSING)
        has = np.diff(self.bounds) > place
        codes[has] = self.codes[self.bounds[:-1][has] + place]
        return codes

    @staticmethod
    def of(columns: Sequence[Ints]) -> "CodeLists":
        """Return each row's codes in the order of the columns, without ``MISSING`` and repeats."""
        table = np.stack(columns, axis=1)
        for later in range(1, len(columns)):
            for earlier in range(later):
                table[table[:, later] == table[:, earlier], later] = MISSING
        is_there = table != MISSING
        sizes = is_there.sum(axis=1)
        return CodeLists(np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]), table[is_there])
