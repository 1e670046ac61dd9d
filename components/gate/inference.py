"""What the paired scores of one metric say: is the challenger ahead, by how much, within what.

Right and wrong answers are held to exact tests and score intervals, other scores to the sign-flip
test and the BCa bootstrap; where requests hang together both take whole clusters.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from components.gate import bootstrap, intervals, mcnemar, signs
from components.gate.bootstrap import Bootstrap
from components.gate.intervals import Counts
from components.gate.pairs import Pairs

FEW_DIFFER = 10
"""With fewer differing clusters a bootstrap can't see what it did not draw; see ``Scores``."""


class Inference(Protocol):
    """The lead's interval, and its p-value against any hypothesis."""

    @property
    def noninferiority(self) -> str:
        """Name the test of ``above`` below 0."""
        ...

    def interval(self, tail: float) -> tuple[float, float]:
        """Give the leads that are not refuted, with an error of ``tail`` on either side."""
        ...

    def above(self, difference: float) -> float:
        """Give the one-sided p-value against a true lead of at most ``difference``."""
        ...

    def below(self, difference: float) -> float:
        """Give the one-sided p-value against a true lead of at least ``difference``."""
        ...


@dataclass(frozen=True, slots=True)
class Shares:
    """Inference about right and wrong answers (``intervals``)."""

    counts: Counts

    @property
    def noninferiority(self) -> str:
        """Name the test of ``above`` below 0."""
        clustered = self.counts.clusters is not None
        return "Tango's score test of clusters" if clustered else "Tango's score test"

    def interval(self, tail: float) -> tuple[float, float]:
        """Give Tango's score interval."""
        return intervals.interval(self.counts, tail)

    def above(self, difference: float) -> float:
        """Give the p-value of Tango's score test."""
        return intervals.above(self.counts, difference)

    def below(self, difference: float) -> float:
        """Give the p-value of Tango's score test."""
        return intervals.below(self.counts, difference)


@dataclass(frozen=True, slots=True)
class Scores:
    """Inference about scores between 0 and 1 (``bootstrap``).

    Where hardly any cluster differs, resamples of what was seen miss what was not: the lead is then
    claimed no more narrowly than if each cluster were one request and none had differed.
    """

    resampled: Bootstrap
    unseen: Counts | None

    @property
    def noninferiority(self) -> str:
        """Name the test of ``above`` below 0."""
        return "BCa bootstrap"

    def interval(self, tail: float) -> tuple[float, float]:
        """Give the BCa interval."""
        low, high = self.resampled.end(tail), self.resampled.end(1 - tail)
        if self.unseen is not None:
            least, most = intervals.interval(self.unseen, tail)
            low, high = min(low, least), max(high, most)
        return max(low, -1.0), min(high, 1.0)

    def above(self, difference: float) -> float:
        """Give the tail at which the interval's lower end is ``difference``."""
        p_value = self.resampled.above(difference)
        return (
            p_value
            if self.unseen is None
            else max(p_value, intervals.above(self.unseen, difference))
        )

    def below(self, difference: float) -> float:
        """Give the tail at which the interval's upper end is ``difference``."""
        p_value = 1 - self.resampled.above(difference)
        return (
            p_value
            if self.unseen is None
            else max(p_value, intervals.below(self.unseen, difference))
        )


def infer(pairs: Pairs) -> Inference:
    """Choose by what the scores are; resamples are seeded by the scores, equal ones draw equal."""
    if pairs.is_binary:
        return Shares(intervals.counts(pairs))
    content = pairs.ours.tobytes() + pairs.theirs.tobytes() + pairs.clusters.tobytes()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8])
    differing, clusters = int((pairs.sums != 0).sum()), len(pairs.sums)
    unseen = Counts(0, 0, clusters) if differing < FEW_DIFFER else None
    return Scores(bootstrap.bootstrap(pairs, seed), unseen)


def superiority(pairs: Pairs) -> tuple[str, float]:
    """Test whether the challenger is ahead: the test's name and its one-sided p-value, exact."""
    if pairs.is_clustered:
        return "exact sign flips of clusters", signs.p_value(pairs.sums)
    if pairs.is_binary:
        return "exact McNemar", mcnemar.p_value(pairs.wins, pairs.losses)
    return "exact sign flips", signs.p_value(pairs.sums)


def inferiority(pairs: Pairs) -> float:
    """Test whether the challenger is behind: the one-sided p-value of the same exact test."""
    return superiority(Pairs(pairs.theirs, pairs.ours, pairs.clusters))[1]
