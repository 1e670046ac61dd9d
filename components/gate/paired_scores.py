"""Paired scores of two models on the same requests, and a betting test of their mean.

A wealth of 1 is bet on each cluster in turn and multiplied by ``1 + bet * x``, where ``x`` is the
cluster's lead beyond the hypothesis, ``s - w * mean`` for a cluster of weight ``w`` whose weighted
lead is ``s``, and at least ``-largest * (1 + mean)``. Under the hypothesis no bets made before
their cluster is seen win on average, so the chance of ever reaching ``1 / level`` is at most
``level`` (Ville 1939), for any distribution of bounded scores.

The size of the bets affects only the power: they aim for just ``1 / level`` at the last cluster
(STaR: Voracek and Orabona 2025, arXiv 2505.22422; betting: Waudby-Smith and Ramdas 2024, JRSS-B
86:1; Orabona and Jun 2024, IEEE Trans. Inf. Theory 70:436). For equal clusters this is close to the
exact binomial test; constant bets or mixtures of them would need half as many requests again.

A bet's limit is what the largest cluster could lose, so a cluster weighs its number of requests
only up to a cap (``PairedScores.cap``), and the mean is over requests with these weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedScores:
    """Two models' scores of the same requests in the same order, the challenger's in ``ours``.

    Requests of one cluster (such as a conversation) are not independent of each other, those of
    different clusters are. The clusters' order must be independent of their sizes and scores
    (``wealth``). ``bound`` is the most requests that a cluster can have, sampled or not; 0 if
    unknown. ``set_cap`` is the cap of the clusters' weights if it is not that of ``weight_cap``.
    """

    ours: Floats
    theirs: Floats
    clusters: NDArray[np.int64]
    bound: int = 0
    set_cap: int | None = None

    @property
    def n(self) -> int:
        """The number of requests."""
        return len(self.ours)

    @cached_property
    def differences(self) -> Floats:
        """The challenger's lead on each request."""
        return self.ours - self.theirs

    @property
    def difference(self) -> float:
        """The challenger's mean lead, weighted as ``weights``."""
        return self.mean(self.differences)

    def mean(self, scores: Floats) -> float:
        """Return the mean of one score a request, weighted as ``weights``."""
        return float(np.average(scores, weights=self.weights))

    @cached_property
    def is_binary(self) -> bool:
        """Whether all scores are 0 or 1."""
        return bool(np.isin(self.ours, (0, 1)).all() and np.isin(self.theirs, (0, 1)).all())

    @property
    def wins(self) -> int:
        """The number of requests on which the challenger does better."""
        return int((self.differences > 0).sum())

    @property
    def losses(self) -> int:
        """The number of requests on which it does worse."""
        return int((self.differences < 0).sum())

    @cached_property
    def counts(self) -> Floats:
        """The number of requests in each cluster."""
        return np.bincount(self.of_cluster).astype(np.float64)

    @property
    def most(self) -> int:
        """The most requests that a cluster can have."""
        return max(self.bound, int(self.counts.max()))

    @property
    def cap(self) -> int:
        """The most requests that a cluster counts as."""
        return weight_cap(len(self.counts)) if self.set_cap is None else self.set_cap

    @cached_property
    def sizes(self) -> Floats:
        """Each cluster's weight: its number of requests, or the cap if that is less."""
        return np.minimum(self.counts, self.cap)

    @cached_property
    def weights(self) -> Floats:
        """Each request's weight: less than 1 in a cluster of more requests than the cap."""
        return (self.sizes / self.counts)[self.of_cluster]

    @cached_property
    def sums(self) -> Floats:
        """The challenger's weighted lead summed over each cluster's requests."""
        weighted = self.weights * self.differences
        return np.bincount(self.of_cluster, weights=weighted).astype(np.float64)

    @cached_property
    def largest(self) -> int:
        """The most that a cluster can weigh, and so can lose."""
        return min(self.most, self.cap)

    def of(self, rows: Sequence[int]) -> "PairedScores":
        """Return the requests of these rows; the order of clusters and the bound are kept."""
        kept = list(rows)
        return replace(
            self, ours=self.ours[kept], theirs=self.theirs[kept], clusters=self.clusters[kept]
        )

    @property
    def is_clustered(self) -> bool:
        """Whether a cluster can have several requests, even if none of those sampled has."""
        return self.most > 1

    @cached_property
    def of_cluster(self) -> NDArray[np.int64]:
        """Each request's index into ``sizes`` and ``sums``."""
        return np.unique(self.clusters, return_inverse=True)[1].astype(np.int64)


CAP_DIVISOR = 5
"""Larger ones cost more of the requests of large clusters, smaller ones more power by the bets'
limit; of 5, 6, 8 and 10 this one had the most power in simulations of 100 to 900 clusters."""

CAUTIOUS = 0.8  # the share of the wealth exposed to the largest loss, unless few clusters are left

FINEST = 1e-9  # the smallest p-value that is computed

COARSEST = 0.5  # larger p-values become 1

COARSER = 1.05  # the ratio between adjacent levels of the grid of p-values

STEP = 1e-3  # the grid of an interval's ends: a tenth of a percentage point

ROUNDING = 1e-9  # the relative tolerance when wealth is compared with its target

LEAST = 1e-200


def weight_cap(clusters: int) -> int:
    """Return the most requests that one of so many clusters counts as: their root / 5, at least 1.

    A cluster of m requests then counts as their mean times min(m, cap), so no cluster can decide
    alone, however long, and all answers count. Bets lose no power by their limit while what one
    cluster can lose is small beside the standard deviation of the whole lead, which grows with the
    root of the number of clusters. The cap depends on nothing else: not on scores, which would be
    choosing among tests, nor on sizes, which may depend on the scores.
    """
    return max(1, math.isqrt(clusters) // CAP_DIVISOR)


def wealth_reached(
    sums: Floats,
    sizes: Floats,
    largest: Floats | float,
    means: Floats | float,
    levels: Floats | float,
) -> NDArray[np.bool_]:
    """Return at which of the levels the data refute a mean of at most ``means``.

    ``sums`` are the leads summed over each cluster, ``sizes`` their weights; further axes are
    further samples. ``largest`` is the largest weight that any cluster can have.
    """
    target = 1 / np.asarray(levels, dtype=np.float64)
    return wealth(sums, sizes, largest, means, levels) >= target * (1 - ROUNDING)


def wealth(
    sums: Floats,
    sizes: Floats,
    largest: Floats | float,
    means: Floats | float,
    levels: Floats | float,
    start: Floats | float = 1.0,
) -> Floats:
    """Return the wealth after the last cluster of bets that begin with ``start``.

    It can be bet on further clusters: under the hypothesis the chance of ever reaching
    ``1 / level`` is at most ``level``, however often it is checked.
    """
    loss = largest * np.maximum(1 + np.asarray(means, dtype=np.float64), ROUNDING)
    target = 1 / np.asarray(levels, dtype=np.float64)
    shape = np.broadcast_shapes(sums.shape[1:], sizes.shape[1:], loss.shape, target.shape)
    current, total = np.broadcast_to(start, shape).astype(np.float64), np.zeros(shape)
    squares = np.broadcast_to(loss**2, shape).copy()  # a prior: one largest loss
    for i, (lead, size) in enumerate(zip(sums, sizes, strict=True)):
        left = len(sums) - i
        missing = np.log(np.maximum(target / np.maximum(current, LEAST), 1.0))
        preferred = np.sqrt(2 * missing * (i + 1) / (left * squares))
        gain = np.maximum(total / (i + 1), LEAST)
        needed = np.minimum(np.expm1(np.minimum(missing / left, 1.0)) / gain, 1 / loss)
        x = lead - size * means
        current *= 1 + np.minimum(preferred, np.maximum(CAUTIOUS / loss, needed)) * x
        total += x
        squares += x * x
    return current


def evidence_above(pairs: PairedScores, mean: float, level: float) -> float:
    """Return the one-sided p-value against a mean lead over requests of at most ``mean``.

    It is the smallest level of a grid that includes ``level`` at which, and at all larger ones, the
    bets refute it; so it is at most ``level`` only if they refute it at ``level``.
    """
    return _p_value(pairs.sums, pairs, mean, level)


def evidence_below(pairs: PairedScores, mean: float, level: float) -> float:
    """Return the one-sided p-value against a mean lead over requests of at least ``mean``."""
    return _p_value(-pairs.sums, pairs, -mean, level)


def carried_evidence(looks: Sequence[PairedScores], mean: float, level: float) -> bool:
    """Return whether bets that began at the first look refute the mean by the last one.

    ``looks`` are the first look's clusters, then those that each later look added. ``mean`` is
    the highest of the hypothesis; ``level`` is the first look's, and is not spent again.
    """
    current: Floats | float = 1.0
    for grown in looks:
        look = replace(grown, set_cap=looks[0].cap)  # with another cap it is another mean
        current = wealth(look.sums, look.sizes, look.largest, mean, level, current)
    return bool(current >= (1 - ROUNDING) / level)


def betting_interval(pairs: PairedScores, tail: float) -> tuple[float, float]:
    """Return the mean leads that bets do not refute; each side is wrong with at most ``tail``."""
    return _low(pairs.sums, pairs, tail), -_low(-pairs.sums, pairs, tail)


def _p_value(sums: Floats, pairs: PairedScores, mean: float, level: float) -> float:
    return p_value(
        lambda levels: wealth_reached(sums, pairs.sizes, pairs.largest, mean, levels), level
    )


def p_value(refutes: Callable[[Floats], NDArray[np.bool_]], level: float) -> float:
    """Return the smallest level of the grid from which on all larger ones are refuted."""
    finest = int(np.log(level / FINEST) / np.log(COARSER))
    coarsest = int(np.log(COARSEST / level) / np.log(COARSER))
    levels = level * COARSER ** -np.arange(-coarsest, finest + 1, dtype=np.float64)
    run = _leading(refutes(levels))
    return float(levels[run - 1]) if run else 1.0


def _low(sums: Floats, pairs: PairedScores, tail: float) -> float:
    return low_end(
        lambda means: wealth_reached(sums, pairs.sizes, pairs.largest, means, tail),
        sums.sum() / pairs.sizes.sum(),
    )


def low_end(refutes: Callable[[Floats], NDArray[np.bool_]], lead: float) -> float:
    """Return the highest mean of the grid up to ``lead`` below which all are refuted."""
    steps = int(np.floor((1 + lead) / STEP))
    means = -1 + STEP * np.arange(1, max(1, steps) + 1, dtype=np.float64)
    run = _leading(refutes(means))
    return float(means[run - 1]) if run else -1.0


def _leading(refuted: NDArray[np.bool_]) -> int:
    return len(refuted) if refuted.all() else int(np.argmin(refuted))


@dataclass(frozen=True)
class TrafficScores:
    """Two models' scores of the same requests, each of which was ``asked`` so many times.

    A request that recurs is no sample of others: its lead is measured, and it counts with all of
    its traffic. Of the others unseen ones may be worse, so their mean lead is tested by bets.
    Together: "the lead by traffic is at most d" is, with ``A`` the recurring requests' summed lead
    beyond d, ``s`` and ``w`` the summed lead and the weight of one of the ``m`` clusters of others,
    ``A + m * E[s - w * d] <= 0``; so ``s - w * d + A / m`` is bet on. Given the recurring requests
    ``A`` and ``m`` are constants, so the level holds (Ville 1939), as in a survey whose largest
    units are all observed (a take-all stratum: Hidiroglou 1986, The American Statistician 40:27).
    """

    pairs: PairedScores
    asked: Floats

    @property
    def cap(self) -> int:
        """The traffic above which a request recurs; other clusters count as at most so many.

        It depends on the number of clusters only, as ``weight_cap``.
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

        With a ``sign`` of -1 it is the opponent's lead. As ``evidence_above``.
        """
        return p_value(lambda levels: self._refuted(mean, levels, sign), level)

    def interval(self, tail: float) -> tuple[float, float]:
        """Return the leads that are not refuted; each side is wrong with at most ``tail``."""
        low, high = (
            low_end(
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
        reached = wealth_reached(beyond, none, np.maximum(loss, 1e-9), 0.0, levels)
        return reached | (loss <= 0)
