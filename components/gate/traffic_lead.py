"""The lead by traffic: each held-out request counts as often as it was asked.

A request that recurs is no sample of others: its lead is measured, and it counts with all of its
traffic. Of the others unseen ones may be worse, so their mean lead is tested by bets
(``paired_scores``). Together: "the lead by traffic is at most d" is, with ``A`` the recurring
requests' summed lead beyond d, ``s`` and ``w`` the summed lead and the weight of one of the ``m``
clusters of others, ``A + m * E[s - w * d] <= 0``; so ``s - w * d + A / m`` is bet on. Given the
recurring requests ``A`` and ``m`` are constants, so the level holds (Ville 1939), as in a survey
whose largest units are all observed (a take-all stratum: Hidiroglou 1986, The American Statistician
40:27).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.gate import paired_scores
from components.gate.paired_scores import Floats, PairedScores


@dataclass(frozen=True)
class TrafficScores:
    """Two models' scores of the same requests, each of which was ``asked`` so many times."""

    pairs: PairedScores
    asked: Floats

    @property
    def cap(self) -> int:
        """The traffic above which a request recurs; other clusters count as at most so many.

        It depends on the number of clusters only, as ``paired_scores.weight_cap``.
        """
        return 1 + self.pairs.cap

    @property
    def recurs(self) -> NDArray[np.bool_]:
        """Which requests recur."""
        return self.asked > self.cap

    @cached_property
    def weights(self) -> Floats:
        """Each request's weight: its traffic, less in a cluster of more traffic than the cap."""
        traffic = np.where(self.recurs, 0.0, self.asked)
        clusters = np.bincount(self.pairs.of_cluster, weights=traffic)
        kept = np.minimum(clusters, self.cap) / np.maximum(clusters, 1.0)
        return np.where(self.recurs, self.asked, traffic * kept[self.pairs.of_cluster])

    def mean(self, scores: Floats) -> float:
        """Return the mean of one score a request by traffic."""
        return float(np.average(scores, weights=self.weights))

    @property
    def difference(self) -> float:
        """The challenger's mean lead by traffic."""
        return self.mean(self.pairs.differences)

    def evidence(self, mean: float, level: float, sign: int = 1) -> float:
        """Return the one-sided p-value against a lead of at most ``mean``.

        With a ``sign`` of -1 it is the opponent's lead. As ``paired_scores.evidence_above``.
        """
        return paired_scores.p_value(lambda levels: self._refuted(mean, levels, sign), level)

    def interval(self, tail: float) -> tuple[float, float]:
        """Return the leads that are not refuted; each side is wrong with at most ``tail``."""
        low, high = (
            paired_scores.low_end(
                lambda means, sign=sign: self._refuted(means, tail, sign), sign * self.difference
            )
            for sign in (1, -1)
        )
        return low, -high

    def _refuted(
        self, means: Floats | float, levels: Floats | float, sign: int
    ) -> NDArray[np.bool_]:
        means, levels = np.broadcast_arrays(np.asarray(means), np.asarray(levels))
        leads = sign * self.weights * self.pairs.differences
        recurs = self.recurs
        known = leads[recurs].sum() - means * self.weights[recurs].sum()
        places = self.pairs.of_cluster[~recurs]
        if not len(places):
            return known > 0
        used = np.unique(places, return_inverse=True)[1]
        sums = np.bincount(used, weights=leads[~recurs])
        sizes = np.bincount(used, weights=self.weights[~recurs])
        beyond = sums[:, None] - sizes[:, None] * means + known / len(sums)
        loss = self.cap * (1 + means) - known / len(sums)
        none = np.zeros_like(beyond)
        reached = paired_scores.wealth_reached(beyond, none, np.maximum(loss, 1e-9), 0.0, levels)
        return reached | (loss <= 0)
