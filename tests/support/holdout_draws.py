"""Draw many made-up holdouts at once, with a true mean lead that is known exactly.

It is the mean over requests with the weights that the gate gives them (``paired_scores``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.gate.paired_scores import Floats, PairedScores, weight_cap

DIFFERING = 0.3
"""On this share of the requests only one of the two models is right."""

OFTEN = 0.6
"""The same where conversations are very different."""

LONGEST = 40
"""So many turns a conversation can have that gets worse with each."""

RARE = 0.02
"""So many requests, or conversations, end in a catastrophe."""

WORKLOAD = 5
"""A workload has so many times the conversations of its holdout, and its largest is known."""


@dataclass(frozen=True)
class Drawn:
    """Holdouts side by side: a row is a cluster, a column a holdout.

    ``sums`` and ``sizes`` are those of ``Pairs``; ``largest`` is what the workload knows, one a
    holdout. ``is_binary`` tells that all answers are right or wrong.
    """

    sums: Floats
    sizes: Floats
    largest: Floats
    is_binary: bool = False
    was_clustered: bool = False

    @property
    def mirrored(self) -> "Drawn":
        """The same with the two models exchanged."""
        return replace(self, sums=-self.sums)

    @property
    def weighted(self) -> "Drawn":
        """The same with each cluster's weight capped, as the gate does."""
        cap = weight_cap(len(self.sums))
        sizes = np.minimum(self.sizes, cap)
        sums = self.sums * sizes / self.sizes
        return Drawn(sums, sizes, np.minimum(self.largest, cap), self.is_binary, self.is_clustered)

    @property
    def is_clustered(self) -> bool:
        """Whether requests can hang together."""
        return self.was_clustered or bool(self.largest.max() > 1)


Draw = Callable[[int, int, float, np.random.Generator], Drawn]
"""Draws so many clusters of so many holdouts with that mean lead."""


def independent(ours: Floats, theirs: Floats) -> PairedScores:
    """Pair the scores of requests that are all independent of each other."""
    return PairedScores(ours, theirs, np.arange(len(ours), dtype=np.int64))


def answers(differing: float) -> Draw:
    """Draw independent right and wrong answers, of which that share differs."""

    def draw(n: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
        place = rng.random((n, count))
        won, lost = place < (differing + lead) / 2, place > 1 - (differing - lead) / 2
        return _alone(won.astype(np.float64) - lost, is_binary=True)

    return draw


def scores(n: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
    """Draw independent scores: half of them equal, the other leads skewed to the right."""
    leads = 0.6 * (rng.beta(2, 4, (n, count)) - 1 / 3) + 2 * lead  # a beta of 2, 4 has the mean 1/3
    return _alone(np.where(rng.random((n, count)) < 0.5, leads, 0.0))


def skewed(n: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
    """Draw independent scores with many small gains and rare large losses."""
    lost = rng.random((n, count)) < RARE
    return _alone(np.where(lost, -0.49, 0.01) + lead)


def conversations(clusters: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
    """Draw answers in conversations of 1 to 6 turns, which are won or lost together."""
    sizes = rng.integers(1, 7, (clusters, count)).astype(np.float64)
    shared = rng.normal(size=(clusters, count))
    sums = np.zeros((clusters, count))
    for turn in range(6):
        tendency = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=(clusters, count))
        won = tendency > stats.norm.isf((DIFFERING + lead) / 2)
        lost = tendency < stats.norm.ppf((DIFFERING - lead) / 2)
        sums += (won.astype(np.float64) - lost) * (turn < sizes)
    return Drawn(sums, sizes, np.full(count, 6.0), is_binary=True)


def scored_conversations(clusters: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
    """Draw scores in conversations of 1 to 6 turns, which lead or trail together."""
    sizes = rng.integers(1, 7, (clusters, count)).astype(np.float64)
    shared = rng.uniform(-0.3, 0.3, (clusters, count))
    own = sum((rng.uniform(-0.3, 0.3, sizes.shape) * (turn < sizes) for turn in range(6)), 0.0)
    return Drawn(sizes * (lead + shared) + own, sizes, np.full(count, 6.0))


def twins(clusters: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
    """Draw answers of which hardly any hang together: of 20 conversations one has two turns."""
    sizes = 1 + (rng.random((clusters, count)) < 0.05).astype(np.float64)
    one, other = (answers(DIFFERING)(clusters, count, lead, rng).sums for _ in range(2))
    return Drawn(np.where(sizes > 1, one + other, one), sizes, np.full(count, 2.0), is_binary=True)


def losing(turns: int) -> Draw:
    """Draw conversations of one turn, some won (or lost, to match the mean), and rare lost ones."""

    def draw(clusters: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
        weight = min(turns, weight_cap(clusters))
        mean_weight = 1 - RARE + RARE * weight
        won = (lead * mean_weight + RARE * weight) / (1 - RARE)
        long = rng.random((WORKLOAD * clusters, count)) < RARE
        largest = np.where(long.any(axis=0), float(turns), 1.0)
        long = long[:clusters]
        single = np.sign(won) * (rng.random((clusters, count)) < abs(won))
        sizes = np.where(long, float(turns), 1.0)
        return Drawn(np.where(long, -float(turns), single), sizes, largest, is_binary=True)

    return draw


def worsening(cap: Literal[1, 2] | None) -> Draw:
    """Draw conversations of 1 to 40 turns: the longer the rarer and the worse, most so late turns.

    With a cap so many turns of each are drawn, as a hash would, and the mean lead is that of these.
    """
    turns = np.arange(1, LONGEST + 1)
    often = turns**-1.5 / (turns**-1.5).sum()
    worse = 0.5 * np.log(turns)[:, None] / np.log(LONGEST) + 0.1 * (turns > 5)  # by size and turn
    means = np.array([worse[size - 1, :size].mean() for size in turns])

    def draw(clusters: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
        weights = often * np.minimum(turns, min(cap or LONGEST, weight_cap(clusters)))
        centre = float((weights * means).sum() / weights.sum())
        sizes = rng.choice(turns, (clusters, count), p=often)
        kept = np.minimum(sizes, cap or LONGEST)
        first = rng.integers(0, sizes) if cap else np.zeros_like(sizes)
        step = rng.integers(1, np.maximum(sizes, 2)) if cap else np.ones_like(sizes)
        shared = rng.normal(size=sizes.shape)
        sums = np.zeros(sizes.shape)
        for nth in range(int(kept.max())):
            asked = kept > nth
            turn = (first + nth * step)[asked] % sizes[asked]
            lead_there = lead + centre - worse[sizes[asked] - 1, turn]
            tendency = np.sqrt(0.5) * (shared[asked] + rng.normal(size=turn.shape))
            won = tendency > stats.norm.isf((OFTEN + lead_there) / 2)
            lost = tendency < stats.norm.ppf((OFTEN - lead_there) / 2)
            sums[asked] += won.astype(np.float64) - lost
        largest = np.full(count, float(cap or LONGEST))
        return Drawn(sums, kept.astype(np.float64), largest, is_binary=True)

    return draw


def catastrophes(clusters: int, count: int, lead: float, rng: np.random.Generator) -> Drawn:
    """Draw conversations of 1 to 6 turns with small gains; rare ones lose half a point a turn."""
    sizes = rng.integers(1, 7, (clusters, count)).astype(np.float64)
    lost = rng.random((clusters, count)) < RARE
    return Drawn(sizes * (np.where(lost, -0.49, 0.01) + lead), sizes, np.full(count, 6.0))


def challengers(n: int, count: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Draw many challengers that are no better, on one holdout: their leads, a row each.

    All meet the same answers of the opponent on the same easy and hard requests, so that what one
    finds out about the holdout is near what the next does.
    """
    ease = rng.beta(2, 1.5, n)
    opponent = rng.random(n) < ease
    own = rng.random((count, n)) < ease
    ours = np.where(rng.random((count, n)) < 0.5, opponent, own)
    return ours.astype(np.int8) - opponent


def pairs(drawn: Drawn, holdout: int) -> PairedScores:
    """Make the scores of one of the holdouts, every request of a cluster with its mean lead."""
    sums, sizes = drawn.sums[:, holdout], drawn.sizes[:, holdout].astype(np.int64)
    leads = np.repeat(sums / sizes, sizes)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    bound = int(drawn.largest[holdout])
    return PairedScores(np.maximum(leads, 0.0), np.maximum(-leads, 0.0), codes, bound)


def repeated(alone: PairedScores, times: int) -> PairedScores:
    """Count every request several times over, as one cluster."""
    return PairedScores(
        np.repeat(alone.ours, times),
        np.repeat(alone.theirs, times),
        np.repeat(alone.clusters, times),
    )


def answered(n: int, lead: float, rng: np.random.Generator) -> PairedScores:
    """Draw one holdout of independent right and wrong answers."""
    leads = answers(DIFFERING)(n, 1, lead, rng).sums[:, 0]
    return independent(np.maximum(leads, 0.0), np.maximum(-leads, 0.0))


def _alone(leads: Floats, *, is_binary: bool = False) -> Drawn:
    return Drawn(leads, np.ones_like(leads), np.ones(leads.shape[1]), is_binary)
