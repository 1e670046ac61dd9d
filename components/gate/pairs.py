"""Paired scores: what two models scored on the same requests, and which of those hang together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Two models' scores request by request.

    Attributes:
        ours: The challenger's scores, one a request.
        theirs: The opponent's, on the same requests in the same order.
        clusters: What each request belongs to, as integers; requests of one cluster (such as a
            conversation) are not independent of each other, those of different clusters are. The
            clusters' order must have nothing to do with their sizes or scores (``betting``).
        bound: The most requests that a cluster can have, drawn or not; 0 where only those that were
            drawn are known.
    """

    ours: Floats
    theirs: Floats
    clusters: NDArray[np.int64]
    bound: int = 0

    @property
    def n(self) -> int:
        """How many requests there are."""
        return len(self.ours)

    @cached_property
    def differences(self) -> Floats:
        """By how much the challenger is ahead on each request."""
        return self.ours - self.theirs

    @property
    def difference(self) -> float:
        """By how much the challenger is ahead on average."""
        return float(self.differences.mean())

    @cached_property
    def is_binary(self) -> bool:
        """Whether every request was either right or wrong."""
        return bool(np.isin(self.ours, (0, 1)).all() and np.isin(self.theirs, (0, 1)).all())

    @property
    def wins(self) -> int:
        """How many requests the challenger does better on."""
        return int((self.differences > 0).sum())

    @property
    def losses(self) -> int:
        """How many it does worse on."""
        return int((self.differences < 0).sum())

    @cached_property
    def sizes(self) -> Floats:
        """How many requests each cluster has."""
        return np.bincount(self.of_cluster).astype(np.float64)

    @cached_property
    def sums(self) -> Floats:
        """By how much the challenger is ahead in each cluster, summed over its requests."""
        return np.bincount(self.of_cluster, weights=self.differences).astype(np.float64)

    @cached_property
    def largest(self) -> int:
        """The most requests that a cluster can have."""
        return max(self.bound, int(self.sizes.max()))

    def of(self, rows: Sequence[int]) -> "Pairs":
        """Return some of the requests; their clusters keep their order and their bound."""
        kept = list(rows)
        return Pairs(self.ours[kept], self.theirs[kept], self.clusters[kept], self.bound)

    @property
    def is_clustered(self) -> bool:
        """Whether requests can hang together, though it be that none of those drawn do."""
        return self.largest > 1

    @cached_property
    def of_cluster(self) -> NDArray[np.int64]:
        """Which of the clusters each request belongs to, numbered as ``sizes`` and ``sums`` are."""
        return np.unique(self.clusters, return_inverse=True)[1].astype(np.int64)


def independent(ours: Floats, theirs: Floats) -> Pairs:
    """Pair scores of requests that are all independent of each other."""
    return Pairs(ours, theirs, np.arange(len(ours), dtype=np.int64))
