"""Draw the scores of two models on a made-up holdout, with a true lead that is known exactly."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.gate.pairs import Pairs, independent

DIFFERING = 0.3
"""On this share of the requests only one of the two models is right."""


def answers(n: int, lead: float, rng: np.random.Generator) -> Pairs:
    """Draw independent right and wrong answers; where both agree, most are right."""
    place = rng.random(n)
    won = place < (DIFFERING + lead) / 2
    lost = place > 1 - (DIFFERING - lead) / 2
    both = (rng.random(n) < 0.6) & ~won & ~lost
    return independent((won | both).astype(np.float64), (lost | both).astype(np.float64))


def conversations(clusters: int, lead: float, rng: np.random.Generator) -> Pairs:
    """Draw answers in conversations of 1 to 6 turns, which are won or lost together."""
    codes = np.repeat(np.arange(clusters), rng.integers(1, 7, clusters))
    shared, own = rng.normal(size=clusters)[codes], rng.normal(size=len(codes))
    tendency = np.sqrt(0.7) * shared + np.sqrt(0.3) * own
    won = tendency > stats.norm.isf((DIFFERING + lead) / 2)
    lost = tendency < stats.norm.ppf((DIFFERING - lead) / 2)
    both = (rng.random(len(codes)) < 0.6) & ~won & ~lost
    return Pairs((won | both).astype(np.float64), (lost | both).astype(np.float64), codes)


def scores(n: int, lead: float, rng: np.random.Generator) -> Pairs:
    """Draw independent scores between 0 and 1: half of them equal, the other leads skewed."""
    theirs = rng.uniform(0.2, 0.5, n)
    leads = 0.6 * (rng.beta(2, 4, n) - 1 / 3) + 2 * lead  # a beta of 2 and 4 has the mean 1/3
    return independent(np.where(rng.random(n) < 0.5, theirs + leads, theirs), theirs)


def scored_conversations(clusters: int, lead: float, rng: np.random.Generator) -> Pairs:
    """Draw scores in conversations of 1 to 6 turns, which lead or trail together."""
    codes = np.repeat(np.arange(clusters), rng.integers(1, 7, clusters))
    shared, own = rng.uniform(-0.15, 0.15, clusters)[codes], rng.uniform(-0.15, 0.15, len(codes))
    theirs = rng.uniform(0.35, 0.6, len(codes))
    return Pairs(theirs + lead + shared + own, theirs, codes)


def challengers(n: int, count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Draw many challengers that are no better, judged on one holdout: their wins and losses.

    All meet the same answers of the opponent on the same easy and hard requests, so that what one
    finds out about the holdout is near what the next does.
    """
    ease = rng.beta(2, 1.5, n)
    opponent = rng.random(n) < ease
    own = rng.random((count, n)) < ease
    ours = np.where(rng.random((count, n)) < 0.5, opponent, own)
    return (ours & ~opponent).sum(axis=1), (~ours & opponent).sum(axis=1)


def repeated(pairs: Pairs, times: int) -> Pairs:
    """Count every request several times over, as one cluster."""
    return Pairs(
        np.repeat(pairs.ours, times),
        np.repeat(pairs.theirs, times),
        np.repeat(pairs.clusters, times),
    )
