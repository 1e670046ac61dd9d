"""Compare two models on one metric, over all requests and by slice of the traffic."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.gate import paired_scores, significance
from components.gate.judgement import Comparison, Outcome, Role, RoundingNoise, Slice
from components.gate.paired_scores import Floats, PairedScores, TrafficScores
from components.schema import Json
from components.scorecard import CLUSTER_CAP, LARGEST_CLUSTER, RESCORED, Sample, Scorecard


@dataclass(frozen=True)
class CautiousPairs:
    """The worse of the challenger's two scores of each request, and the better of the opponent's.

    ``challenger`` is the mean of the former, ``changed`` counts the requests of which the
    challenger's score changed, and the opponent's.
    """

    pairs: PairedScores
    challenger: float
    changed: tuple[int, int]


@dataclass(frozen=True)
class Compared:
    """One metric's paired scores and its margin, before p-values are corrected for all metrics.

    ``margin`` is ``None`` for the target, which must improve. ``cautious`` is ``None`` where models
    were asked once.
    """

    task: str
    metric: str
    margin: float | None
    pairs: PairedScores
    samples: tuple[Sample, ...]
    challenger: float
    opponent: float
    cautious: CautiousPairs | None = None

    @property
    def deciding(self) -> PairedScores:
        """The pairs by which something is shown in spite of rounding."""
        return self.pairs if self.cautious is None else self.cautious.pairs

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
    others = {sample.doc_hash: sample for sample in opponent.samples}
    measured = sorted(_measured(challenger.samples, metric), key=lambda pair: pair[0].doc_hash)
    samples = tuple(sample for sample, _ in measured)
    opposite = [others[sample.doc_hash] for sample in samples]
    clusters, bound = _clusters(samples), _bound(challenger.conditions)
    is_higher_better = challenger.metrics[metric].higher_is_better

    def paired(ours: Floats, theirs: Floats) -> PairedScores:
        sides = (ours, theirs) if is_higher_better else (theirs, ours)
        return PairedScores(*sides, clusters, bound)

    ours, theirs = _scores(samples, metric), _scores(opposite, metric)
    pairs = paired(ours, theirs)
    compared = Compared(
        challenger.task,
        metric,
        margin,
        pairs,
        samples,
        pairs.mean(ours),
        pairs.mean(theirs),
    )
    if RESCORED not in challenger.conditions:
        return compared
    ours_again, theirs_again = _second_scores(samples, metric), _second_scores(opposite, metric)
    worse, better = (np.minimum, np.maximum) if is_higher_better else (np.maximum, np.minimum)
    worst = worse(ours, ours_again)
    changed = (int((ours != ours_again).sum()), int((theirs != theirs_again).sum()))
    cautious = CautiousPairs(
        paired(worst, better(theirs, theirs_again)), pairs.mean(worst), changed
    )
    return replace(compared, cautious=cautious)


def _scores(samples: Sequence[Sample], metric: str) -> Floats:
    return np.array([sample.scores.get(metric) for sample in samples], dtype=np.float64)


def _second_scores(samples: Sequence[Sample], metric: str) -> Floats:
    # ``comparability`` refuses a model that was asked once; baselines answer without rounding
    scores = [sample.rescored.get(metric, sample.scores.get(metric)) for sample in samples]
    return np.array(scores, dtype=np.float64)


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
        by_bets = compared.margin is not None or significance.is_by_bets(figures[i].deciding)
        if (
            later
            and by_bets
            and paired_scores.carried_evidence(
                [figures[i].deciding, *later], -(compared.margin or 0.0), look.alpha
            )
        ):
            return look
    return None


def _added(figures: Sequence[Compared]) -> Iterator[PairedScores | None]:
    """Yield each figure's clusters that share no request with those before; ``None`` if none."""
    seen: set[tuple[str, str]] = set()
    for figure in figures:
        old = {
            cluster
            for cluster, sample in zip(figure.pairs.clusters, figure.samples, strict=True)
            if not seen.isdisjoint(_identities(sample))
        }
        rows = [row for row, cluster in enumerate(figure.pairs.clusters) if cluster not in old]
        yield figure.deciding.of(rows) if rows else None
        seen.update(*map(_identities, figure.samples))


def _identities(sample: Sample) -> set[tuple[str, str]]:
    # By any of these a request is known again in a grown holdout. Its hash covers its slices and
    # its reference too: a third by length moves with every longer request.
    return {
        ("example", sample.example_id),
        ("cluster", sample.cluster_id),
        ("prompt", sample.prompt_hash),
    }


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
    at = significance.rates(compared.deciding)
    test, p_value = _shown(compared.pairs, compared.margin, alpha)
    if compared.margin is None:
        low, high = significance.lead_interval(compared.pairs, alpha)
    else:
        low, high = paired_scores.betting_interval(compared.pairs, alpha)
    noise = _noise(compared, alpha)
    deciding = p_value if noise is None else max(p_value, noise.p_value)
    outcome = _outcome(compared, deciding, p_worse, alpha, worst)
    begun = continued_look(compared, earlier) if outcome == "inconclusive" else None
    needed = None
    if begun is not None:
        outcome = "pass"
    elif outcome == "inconclusive":
        needed = significance.needed(at, compared.pairs.n, later, compared.margin)
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
        noise=noise,
        detectable=significance.detectable(at, compared.pairs.n, alpha, compared.margin),
        needed=needed,
    )


def _shown(pairs: PairedScores, margin: float | None, alpha: float) -> tuple[str, float]:
    """Return the test's name and the p-value for being ahead, or within the margin."""
    if margin is None:
        return significance.superiority(pairs, alpha)
    return significance.bets(pairs), paired_scores.evidence_above(pairs, -margin, alpha)


def _noise(compared: Compared, alpha: float) -> RoundingNoise | None:
    cautious = compared.cautious
    if cautious is None:
        return None
    pairs = cautious.pairs
    return RoundingNoise(
        *cautious.changed,
        challenger=cautious.challenger,
        difference=pairs.difference,
        wins=pairs.wins,
        losses=pairs.losses,
        p_value=_shown(pairs, compared.margin, alpha)[1],
    )


def _outcome(
    compared: Compared, p_value: float, p_worse: float, alpha: float, worst: float
) -> Outcome:
    # a target that is behind fails however large p_worse is
    if p_worse <= worst or (compared.margin is None and compared.pairs.difference <= 0):
        return "fail"
    return "pass" if p_value <= alpha else "inconclusive"


def traffic_scores(target: Compared, asked: Mapping[str, int]) -> TrafficScores | None:
    """Return the target's scores by traffic; ``None`` if every request was asked once."""
    times = np.array([asked.get(sample.example_id, 1) for sample in target.samples], np.float64)
    return TrafficScores(target.deciding, times) if (times > 1).any() else None


def compare_traffic(
    target: Compared,
    scores: TrafficScores,
    margin: float,
    p_worse: float,
    *,
    alpha: float,
    worst: float,
) -> Comparison:
    """Judge the target by traffic, as a guard: parameters as ``compare``.

    Where rounding matters it reads the scores of ``Compared.deciding``.
    """
    p_value = scores.evidence(-margin, alpha)
    low, high = scores.interval(alpha)
    outcome: Outcome = "pass" if p_value <= alpha else "inconclusive"
    return Comparison(
        task=target.task,
        metric=target.metric,
        role="guard",
        outcome="fail" if p_worse <= worst else outcome,
        n=scores.pairs.n,
        clusters=len(scores.pairs.sizes),
        challenger=scores.mean(scores.pairs.ours),
        opponent=scores.mean(scores.pairs.theirs),
        difference=scores.difference,
        low=low,
        high=high,
        tail=alpha,
        wins=scores.pairs.wins,
        losses=scores.pairs.losses,
        margin=margin,
        test="bets on requests that do not recur",
        p_value=p_value,
        p_worse=p_worse,
        detectable=None,
        needed=None,
        by_traffic=True,
    )


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


DOUBT = 0.2
"""The level at which the requests of all other clients contradict a lead. It errs on the side of
not passing: 2 lost requests and none won are still allowed, 3 are not."""


@dataclass(frozen=True)
class OneClientsLead:
    """A client without whose requests the challenger is behind on the ``rest``."""

    client: str
    requests: int
    rest: PairedScores
    p_worse: float


def leads_of_one_client(target: Compared) -> list[OneClientsLead]:
    """Return the clients without which the challenger is behind on the target, at level ``DOUBT``.

    Each client's references come from its own logs, so one client could otherwise buy a pass with
    requests of its own, however the challenger does on all others.
    """
    clients = [sample.slices.get("client", "") for sample in target.samples]
    found: list[OneClientsLead] = []
    for client in sorted({*clients}):
        others = [row for row, each in enumerate(clients) if each != client]
        if len(others) < SMALLEST:
            continue
        rest = target.deciding.of(others)
        p_worse = significance.inferiority(rest, DOUBT)
        if p_worse <= DOUBT:
            found.append(OneClientsLead(client, len(clients) - len(others), rest, p_worse))
    return found


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
