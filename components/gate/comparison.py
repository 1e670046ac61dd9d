"""Compare two models on one metric, as a whole and by slice of the traffic."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.gate import paired_scores, power, significance
from components.gate.judgement import Comparison, Outcome, Role, Slice
from components.gate.paired_scores import PairedScores
from components.schema import Json
from components.scorecard import CLUSTER_CAP, LARGEST_CLUSTER, Sample, Scorecard


@dataclass(frozen=True)
class Compared:
    """What is asked of one figure, and what was scored: before it is judged beside the others.

    ``margin`` is ``None`` for what must get better.
    """

    task: str
    metric: str
    margin: float | None
    pairs: PairedScores
    samples: tuple[Sample, ...]
    challenger: float
    opponent: float

    @property
    def role(self) -> Role:
        """Whether it must get better, or only not worse."""
        return "target" if self.margin is None else "guard"


def pair_scores(
    challenger: Scorecard, opponent: Scorecard, metric: str, margin: float | None
) -> Compared:
    """Pair two comparable scorecards' scores of one metric, where it was measured.

    Of a metric that is better when lower the sides change, so that a lead is always an improvement.
    """
    others = {sample.doc_hash: sample.scores.get(metric) for sample in opponent.samples}
    measured = sorted(_measured(challenger.samples, metric), key=lambda found: found[0].doc_hash)
    samples = tuple(sample for sample, _ in measured)
    ours = np.array([score for _, score in measured], dtype=np.float64)
    theirs = np.array([others[sample.doc_hash] for sample in samples], dtype=np.float64)
    sides = (ours, theirs) if challenger.metrics[metric].higher_is_better else (theirs, ours)
    return Compared(
        challenger.task,
        metric,
        margin,
        PairedScores(*sides, _clusters(samples), _bound(challenger.conditions)),
        samples,
        float(ours.mean()),
        float(theirs.mean()),
    )


def _clusters(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Number the clusters by a hash of their names, which may tell their size or their place."""
    hashes = [hashlib.sha256(sample.cluster_id.encode()).hexdigest() for sample in samples]
    return np.unique(hashes, return_inverse=True)[1].astype(np.int64)


def _bound(conditions: Mapping[str, Json]) -> int:
    """Return how many requests a cluster can have as the task's data know; 0 if they don't."""
    bounds = [conditions.get(name) for name in (LARGEST_CLUSTER, CLUSTER_CAP)]
    return min((bound for bound in bounds if isinstance(bound, int)), default=0)


def _measured(samples: Sequence[Sample], metric: str) -> Iterator[tuple[Sample, float]]:
    for sample in samples:
        score = sample.scores.get(metric)
        if score is not None:
            yield sample, score


def worse(one: Compared, level: float) -> float:
    """Give the p-value of the claim that the challenger is worse than it may be.

    It is exact at ``level`` (``betting.above``).
    """
    if one.margin is None:
        return significance.inferiority(one.pairs, level)
    return paired_scores.evidence_below(one.pairs, -one.margin, level)


@dataclass(frozen=True, slots=True)
class EarlierUse:
    """An earlier look at the same challenger and opponent, by bets, under the same policy."""

    number: int
    alpha: float
    challenger: Scorecard
    opponent: Scorecard


def carried(one: Compared, earlier: Sequence[EarlierUse]) -> EarlierUse | None:
    """Find an earlier look whose bets, staked on what was added since, show what is to be shown.

    Its level was spent then. Each look adds the clusters of which no request was seen before, as
    the looks in between did; so ``earlier`` must be all of them.
    """
    looks = sorted(earlier, key=lambda look: look.number)
    figures = [
        pair_scores(look.challenger, look.opponent, one.metric, one.margin) for look in looks
    ]
    added = [*_added([*figures, one])]
    for i, look in enumerate(looks):
        later = [pairs for pairs in added[i + 1 :] if pairs is not None]
        by_bets = one.margin is not None or significance.is_by_bets(figures[i].pairs)
        if (
            later
            and by_bets
            and paired_scores.carried_evidence(
                [figures[i].pairs, *later], -(one.margin or 0.0), look.alpha
            )
        ):
            return look
    return None


def _added(figures: Sequence[Compared]) -> Iterator[PairedScores | None]:
    """Yield of each figure the clusters without a request of those before; ``None`` without any."""
    seen: set[str] = set()
    for one in figures:
        old = {
            cluster
            for cluster, sample in zip(one.pairs.clusters, one.samples, strict=True)
            if sample.doc_hash in seen
        }
        rows = [row for row, cluster in enumerate(one.pairs.clusters) if cluster not in old]
        yield one.pairs.of(rows) if rows else None
        seen |= {sample.doc_hash for sample in one.samples}


def compare(
    one: Compared,
    p_worse: float,
    *,
    alpha: float,
    later: float,
    worst: float,
    earlier: Sequence[EarlierUse] = (),
) -> Comparison:
    """Judge one figure.

    Args:
        one: The paired scores, and what is asked of them.
        p_worse: The p-value of being worse than allowed, corrected for the other figures.
        alpha: The level at which a lead, or the margin's keeping, must be shown.
        later: The level that the next look will have, at which more requests would decide.
        worst: The level at which being worse counts as shown.
        earlier: The looks whose bets may be carried on.
    """
    at = power.rates(one.pairs)
    if one.margin is None:
        test, p_value = significance.superiority(one.pairs, alpha)
        low, high = significance.lead_interval(one.pairs, alpha)
    else:
        test, p_value = (
            significance.bets(one.pairs),
            paired_scores.evidence_above(one.pairs, -one.margin, alpha),
        )
        low, high = paired_scores.betting_interval(one.pairs, alpha)
    outcome = _outcome(one, p_value, p_worse, alpha, worst)
    begun = carried(one, earlier) if outcome == "inconclusive" else None
    outcome = outcome if begun is None else "pass"
    more = power.needed(at, one.pairs.n, later, one.margin) if outcome == "inconclusive" else None
    return Comparison(
        task=one.task,
        metric=one.metric,
        role=one.role,
        outcome=outcome,
        n=one.pairs.n,
        clusters=len(one.pairs.sizes),
        challenger=one.challenger,
        opponent=one.opponent,
        difference=one.pairs.difference,
        low=low,
        high=high,
        tail=alpha,
        wins=one.pairs.wins,
        losses=one.pairs.losses,
        margin=one.margin or 0.0,
        test=test,
        p_value=p_value,
        p_worse=p_worse,
        begun=begun.number if begun else 0,
        begun_alpha=begun.alpha if begun else 0.0,
        detectable=power.detectable(at, one.pairs.n, alpha, one.margin),
        needed=more,
    )


def _outcome(one: Compared, p_value: float, p_worse: float, alpha: float, worst: float) -> Outcome:
    """Call a figure shown, refuted or open; a target that is not even ahead is refuted."""
    behind = one.margin is None and one.pairs.difference <= 0
    if behind or p_worse <= worst:
        return "fail"
    return "pass" if p_value <= alpha else "inconclusive"


SMALLEST = 8
"""Smaller parts are left out: even one that loses every request could hardly be called worse."""


def compare_slices(target: Compared, *, alpha: float, tail: float) -> tuple[Slice, ...]:
    """Compare the two models on each slice of the target's requests, ordered by name and value.

    Args:
        target: The paired scores.
        alpha: The chance that any slice is called worse which is not.
        tail: The chance that a slice's interval is wrong on either side.
    """
    parts = {place: target.pairs.of(rows) for place, rows in _places(target).items()}
    corrected = significance.holm(
        [significance.inferiority(part, alpha) for part in parts.values()]
    )
    return tuple(
        Slice(
            name,
            value,
            part.n,
            part.wins,
            part.losses,
            part.difference,
            *significance.lead_interval(part, tail),
            p_worse,
            is_worse=p_worse <= alpha,
            clusters=len(part.sizes),
        )
        for ((name, value), part), p_worse in zip(parts.items(), corrected, strict=True)
    )


def _places(target: Compared) -> dict[tuple[str, str], list[int]]:
    """Give the rows of each slice; a name that has the same value everywhere is none."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, sample in enumerate(target.samples):
        for name, value in sample.slices.items():
            rows.setdefault((name, value), []).append(row)
    return {
        place: found
        for place, found in sorted(rows.items())
        if SMALLEST <= len(found) < target.pairs.n
    }
