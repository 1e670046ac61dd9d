"""A filter of hashes: which of many may be among some, by tables of bits that the cache holds."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from components.curate.near.hashed_words import Positions

Bits32: TypeAlias = npt.NDArray[np.uint32]

BITS = 32
MAX_BITS, SPARE_BITS = 25, 3
"""Of a table's index: of a larger table fewer entries are set, but it misses the cache."""


class SeenBits:
    """Some values of 32 bits, by their first and their last bits."""

    def __init__(self, values: Bits32) -> None:
        bits = min(MAX_BITS, len(values).bit_length() + SPARE_BITS)
        self._shift, self._last = np.uint32(BITS - bits), np.uint32((1 << bits) - 1)
        self._firsts, self._lasts = (np.zeros(1 << bits, np.bool_) for _ in range(2))
        self._firsts[values >> self._shift] = True
        self._lasts[values & self._last] = True

    def places_of(self, values: Bits32) -> Positions:
        """Return the places of the values that are among these, and of few others."""
        at = np.flatnonzero(self._firsts.take(values >> self._shift))
        return at[self._lasts.take(values[at] & self._last)]
