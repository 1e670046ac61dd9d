"""Compare two models on one metric, over all requests and by slice of the traffic."""

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
    """One metric's paired scores and its margin, before p-values are corrected for all metrics.

    ``margin`` is ``None`` for the target, which must improve.
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
        """``target`` must improve, ``guard`` must not get worse by more than its margin."""
        return "target" if self.margin is None else "guard"


def pair_scores(
    challenger: Scorecard, opponent: Scorecard, metric: str, margin: float | None
) -> Compared:
    """Pair two comparable scorecards' scores of one metric, on the requests that measured it.

    The sides are swapped if lower is better, so that a positive lead is always an improvement.
    """
    others = {sample.doc_hash: sample.scores.get(metric) for sample in opponent.samples}
    measured = sorted(_measured(challenger.samples, metric), key=lambda pair: pair[0].doc_hash)
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
    # numbered by a hash, since names may correlate with a cluster's size or its position
    hashes = [hashlib.sha256(sample.cluster_id.encode()).hexdigest() for sample in samples]
    return np.unique(hashes, return_inverse=True)[1].astype(np.int64)


def _bound(conditions: Mapping[str, Json]) -> int:
    # the most requests that a cluster can have by the conditions; 0 if unknown
    bounds = [conditions.get(name) for name in (LARGEST_CLUSTER, CLUSTER_CAP)]
    return min((bound for bound in bounds if isinstance(bound, int)), default=0)


def _measured(samples: Sequence[Sample], metric: str) -> Iterator[tuple[Sample, float]]:
    for sample in samples:
        if (score := sample.scores.get(metric)) is not None:
            yield sample, score


def worse_p_value(compared: Compared, level: float) -> float:
    """Return the p-value for being worse than the margin allows, exact at ``level``."""
    if compared.margin is None:
        return significance.inferiority(compared.pairs, level)
    return paired_scores.evidence_below(compared.pairs, -compared.margin, level)


@dataclass(frozen=True, slots=True)
class EarlierUse:
    """An earlier look at the same challenger and opponent under the same policy."""

    number: int
    alpha: float
    challenger: Scorecard
    opponent: Scorecard


def continued_look(compared: Compared, earlier: Sequence[EarlierUse]) -> EarlierUse | None:
    """Return an earlier look whose bets, continued on the clusters added since, show the claim.

    Its level was spent then. A look adds the clusters of which no request occurred in any look
    before, so ``earlier`` must contain all earlier looks.
    """
    looks = sorted(earlier, key=lambda look: look.number)
    figures = [
        pair_scores(look.challenger, look.opponent, compared.metric, compared.margin)
        for look in looks
    ]
    added = [*_added([*figures, compared])]
    for i, look in enumerate(looks):
        later = [pairs for pairs in added[i + 1 :] if pairs is not None]
        by_bets = compared.margin is not None or significance.is_by_bets(figures[i].pairs)
        if (
            later
            and by_bets
            and paired_scores.carried_evidence(
                [figures[i].pairs, *later], -(compared.margin or 0.0), look.alpha
            )
        ):
            return look
    return None


def _added(figures: Sequence[Compared]) -> Iterator[PairedScores | None]:
    """Yield each figure's clusters that share no request with those before; ``None`` if none."""
    seen: set[str] = set()
    for figure in figures:
        old = {
            cluster
            for cluster, sample in zip(figure.pairs.clusters, figure.samples, strict=True)
            if sample.doc_hash in seen
        }
        rows = [row for row, cluster in enumerate(figure.pairs.clusters) if cluster not in old]
        yield figure.pairs.of(rows) if rows else None
        seen |= {sample.doc_hash for sample in figure.samples}


def compare(
    compared: Compared,
    p_worse: float,
    *,
    alpha: float,
    later: float,
    worst: float,
    earlier: Sequence[EarlierUse] = (),
) -> Comparison:
    """Judge one figure.

    ``p_worse`` is corrected for the other figures. A lead, or staying within the margin, must
    be shown at ``alpha``, being worse at ``worst``; ``later`` is the level of the next look,
    for the number of further requests. The bets of ``earlier`` looks may be continued.
    """
    at = power.rates(compared.pairs)
    if compared.margin is None:
        test, p_value = significance.superiority(compared.pairs, alpha)
        low, high = significance.lead_interval(compared.pairs, alpha)
    else:
        test = significance.bets(compared.pairs)
        p_value = paired_scores.evidence_above(compared.pairs, -compared.margin, alpha)
        low, high = paired_scores.betting_interval(compared.pairs, alpha)
    outcome = _outcome(compared, p_value, p_worse, alpha, worst)
    begun = continued_look(compared, earlier) if outcome == "inconclusive" else None
    needed = None
    if begun is not None:
        outcome = "pass"
    elif outcome == "inconclusive":
        needed = power.needed(at, compared.pairs.n, later, compared.margin)
    return Comparison(
        task=compared.task,
        metric=compared.metric,
        role=compared.role,
        outcome=outcome,
        n=compared.pairs.n,
        clusters=len(compared.pairs.sizes),
        challenger=compared.challenger,
        opponent=compared.opponent,
        difference=compared.pairs.difference,
        low=low,
        high=high,
        tail=alpha,
        wins=compared.pairs.wins,
        losses=compared.pairs.losses,
        margin=compared.margin or 0.0,
        test=test,
        p_value=p_value,
        p_worse=p_worse,
        begun=begun.number if begun else 0,
        begun_alpha=begun.alpha if begun else 0.0,
        detectable=power.detectable(at, compared.pairs.n, alpha, compared.margin),
        needed=needed,
    )


def _outcome(
    compared: Compared, p_value: float, p_worse: float, alpha: float, worst: float
) -> Outcome:
    # a target that is behind fails however large p_worse is
    if p_worse <= worst or (compared.margin is None and compared.pairs.difference <= 0):
        return "fail"
    return "pass" if p_value <= alpha else "inconclusive"


SMALLEST = 8  # smaller slices are skipped: even losing every request would hardly be significant


def compare_slices(target: Compared, *, alpha: float, tail: float) -> tuple[Slice, ...]:
    """Compare the two models on each slice of the target's requests, ordered by name and value.

    ``alpha`` is the family-wise error rate of calling a slice worse, ``tail`` the chance that
    an interval is wrong on either side.
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
    rows: dict[tuple[str, str], list[int]] = {}
    for row, sample in enumerate(target.samples):
        for name, value in sample.slices.items():
            rows.setdefault((name, value), []).append(row)
    return {
        place: members
        for place, members in sorted(rows.items())
        if SMALLEST <= len(members) < target.pairs.n
    }
