"""What comparing texts gave, kept by their words: a later curation compares only new pairs."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from components.curate.near.candidate_pairs import CandidatePairs
from components.curate.near.hashed_words import Hashes, mixed, places_among
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_prefixes import KeptPrefixes

Values: TypeAlias = npt.NDArray[np.float64]


class KeptPairs:
    """Values of pairs of texts, as one function of both texts' words returns them."""

    def __init__(self, kept: KeptArrays, name: str) -> None:
        self._kept = kept
        self._name = name
        self._pairs: Hashes = kept.read(f"{name}-pairs", np.uint64)  # sorted
        self._checks: Hashes = kept.read(f"{name}-checks", np.uint64)
        self._values: Values = kept.read(f"{name}-values", np.float64)
        self._used: list[tuple[Hashes, Hashes, Values]] = []

    def values(
        self,
        digests: Hashes,
        pairs: CandidatePairs,
        compare: Callable[[CandidatePairs], Values],
    ) -> Values:
        """Return each pair's value, from ``compare`` if it isn't known.

        ``digests`` has two values of each text.
        """
        names, checks = (
            _combined(digests[pairs.left, part], digests[pairs.right, part]) for part in (0, 1)
        )
        values = np.empty(len(pairs))
        new = np.arange(len(pairs))
        if len(self._pairs):
            at = np.minimum(np.searchsorted(self._pairs, names), len(self._pairs) - 1)
            are_known = (self._pairs[at] == names) & (self._checks[at] == checks)
            values[are_known] = self._values[at[are_known]]
            new = np.flatnonzero(~are_known)
        values[new] = compare(pairs.where(new))
        self._used.append((names, checks, values))
        return values

    def keep(self) -> None:
        """Keep the pairs that were asked for."""
        if not self._used:
            return
        names, checks, values = zip(*self._used, strict=True)
        firsts = np.unique(np.concatenate(names), return_index=True)[1]
        for part, arrays in (("pairs", names), ("checks", checks), ("values", values)):
            self._kept.write(f"{self._name}-{part}", np.concatenate(arrays)[firsts])
        self._used.clear()


class KeptNear:
    """All near pairs of the last texts, or, in crowds, the Jaccards of those that were compared."""

    def __init__(self, kept: KeptArrays, name: str) -> None:
        self._kept = kept
        self._name = f"{name}-near"
        self.jaccards = KeptPairs(kept, f"{name}-jaccards")
        self.prefixes = KeptPrefixes(kept, name)

    def read(self, threshold: float) -> "NearPairs":
        """Return all pairs of the last texts; no texts if not all pairs were compared."""
        name = f"{self._name}-{threshold}"
        digests: Hashes = self._kept.read(f"{name}-texts", np.uint64).reshape(-1, 2)
        left, right = (self._kept.read(f"{name}-{side}", np.int64) for side in ("left", "right"))
        jaccards: Values = self._kept.read(f"{name}-values", np.float64)
        return NearPairs(digests, CandidatePairs(left, right), jaccards)

    def write(self, threshold: float, near: "NearPairs") -> None:
        """Keep all pairs of some texts."""
        name = f"{self._name}-{threshold}"
        self._kept.write(f"{name}-texts", near.digests.ravel())
        self._kept.write(f"{name}-left", near.pairs.left)
        self._kept.write(f"{name}-right", near.pairs.right)
        self._kept.write(f"{name}-values", near.jaccards)


class NearPairs(NamedTuple):
    """Near pairs of texts of such digests, and the Jaccard of each."""

    digests: Hashes
    pairs: CandidatePairs
    jaccards: Values

    def among(self, digests: Hashes) -> "NearPairs":
        """Return the pairs of texts that are also among others, by their places there."""
        places = places_among(self.digests, digests)
        left, right = places[self.pairs.left], places[self.pairs.right]
        stay = (left >= 0) & (right >= 0)
        left, right = left[stay], right[stay]
        pairs = CandidatePairs(np.minimum(left, right), np.maximum(left, right))
        return NearPairs(digests, pairs, self.jaccards[stay])


_NOBODY = np.zeros(0, np.int64)
NO_PAIRS = NearPairs(
    np.zeros((0, 2), np.uint64), CandidatePairs(_NOBODY, _NOBODY), np.zeros(0, np.float64)
)


def _combined(left: Hashes, right: Hashes) -> Hashes:
    """Return a value of each pair of values, whatever their order."""
    return mixed(left) + mixed(right)
