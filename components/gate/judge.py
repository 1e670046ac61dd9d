"""Judge a challenger against an opponent: pass, fail or inconclusive, with its reasons.

It fails closed: what is not comparable, not measured or not a score never passes. A fault outweighs
a doubt, and a doubt outweighs a pass.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import Field

from components.gate import mcnemar
from components.schema import Config
from components.scorecard import Sample, Score, Scorecard

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]


class Policy(Config):
    """What a challenger must show before a person is asked."""

    metric: Literal["correct_name", "correct"] = "correct_name"
    """What counts as right: ``correct`` asks for every argument, ``correct_name`` for the name."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Smaller means that luck passes less often, and that more requests are needed to pass."""

    floor: float = Field(default=0.5, ge=0, le=1)
    """A challenger that scores below this fails, however much worse the opponent is."""

    abstention_margin: float | None = Field(default=0.10, ge=0, le=1)
    """How much less often than the opponent it may rightly not call; null doesn't ask."""

    min_documents: int = Field(default=60, ge=1)
    """With fewer holdout requests nothing passes: the set is too small to stand for the traffic."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate made of a challenger.

    ``wins`` counts the requests that only the challenger got right, ``losses`` those that only the
    opponent did, of ``n``. ``p_value`` is ``None`` where the two could not be compared.
    ``more_needed`` estimates the further requests that would decide an inconclusive comparison;
    ``None`` there says that no number is in sight.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    metric: str
    challenger_score: float | None = None
    opponent_score: float | None = None
    p_value: float | None = None
    wins: int = 0
    losses: int = 0
    n: int = 0
    more_needed: int | None = None


def judge(challenger: Scorecard, opponent: Scorecard, policy: Policy) -> Judgement:
    """Compare two scorecards request by request (exact McNemar) and hold them to the policy."""
    refusals = [*incomparable(challenger, opponent), *_unmeasured(challenger, opponent, policy)]
    if refusals:
        return Judgement("fail", tuple(refusals), policy.metric, n=len(challenger.samples))
    wins, losses = count(challenger, opponent, policy.metric)
    p_value = mcnemar.exact(wins, losses)
    n = len(challenger.samples)
    faults = [
        *_below_floor(challenger, policy),
        *_abstains_less(challenger, opponent, policy),
        *_no_better(wins, losses, p_value, policy),
    ]
    doubts = [*_too_few(n, policy), *_too_close(wins, losses, p_value, policy)]
    outcome: Outcome = "fail" if faults else "inconclusive" if doubts else "pass"
    more = _more_needed(wins, losses, n, policy) if outcome == "inconclusive" else None
    reasons = [*faults, *doubts, *_forecast(outcome, more)] or [
        f"better: right alone on {wins} requests, wrong alone on {losses}, of {n} "
        f"(exact McNemar p = {p_value:.3g}, below {policy.alpha:g})"
    ]
    return Judgement(
        outcome=outcome,
        reasons=tuple(reasons),
        metric=policy.metric,
        challenger_score=challenger.scores[policy.metric].value,
        opponent_score=opponent.scores[policy.metric].value,
        p_value=p_value,
        wins=wins,
        losses=losses,
        n=n,
        more_needed=more,
    )


def count(challenger: Scorecard, opponent: Scorecard, metric: str) -> tuple[int, int]:
    """Count the requests that only the challenger got right, and those that only the opponent did.

    Both must hold the same requests, with ``metric`` measured on each.
    """
    others = {sample.doc_hash: sample.scores[metric] for sample in opponent.samples}
    pairs = [(sample.scores[metric], others[sample.doc_hash]) for sample in challenger.samples]
    return pairs.count((1, 0)), pairs.count((0, 1))


def incomparable(challenger: Scorecard, opponent: Scorecard) -> list[str]:
    """Say why two scorecards can't be compared; nothing when they can."""
    names = sorted({*challenger.conditions, *opponent.conditions})
    faults = [
        f"not comparable: {name} is {challenger.conditions.get(name)!r} for the challenger "
        f"and {opponent.conditions.get(name)!r} for the opponent"
        for name in names
        if challenger.conditions.get(name) != opponent.conditions.get(name)
    ]
    if not challenger.conditions or not opponent.conditions:
        faults.append("not comparable: a scorecard does not say under which conditions it was made")
    return faults + _different_requests(challenger.samples, opponent.samples)


def _different_requests(ours: tuple[Sample, ...], theirs: tuple[Sample, ...]) -> list[str]:
    if len(ours) != len(theirs):
        return [
            f"not comparable: the challenger answered {len(ours)} requests and the opponent "
            f"{len(theirs)}"
        ]
    prompts = {sample.doc_hash: sample.prompt_hash for sample in ours}
    others = {sample.doc_hash: sample.prompt_hash for sample in theirs}
    if not len(prompts) == len(others) == len(ours):
        return ["not comparable: the same request with the same reference occurs more than once"]
    if prompts.keys() != others.keys():
        missing = len(prompts.keys() - others.keys())
        return [f"not comparable: {missing} of the challenger's requests are not the opponent's"]
    changed = sum(prompts[doc] != others[doc] for doc in prompts)
    if changed:
        return [f"not comparable: {changed} requests were put to the two in different words"]
    return []


def _unmeasured(challenger: Scorecard, opponent: Scorecard, policy: Policy) -> list[str]:
    metrics = [policy.metric] + ["abstention"] * (policy.abstention_margin is not None)
    return [
        f"not measured: {metric} of the {role} {fault}"
        for role, scorecard in (("challenger", challenger), ("opponent", opponent))
        for metric in metrics
        for fault in _faults(scorecard, metric, whole=metric == policy.metric)
    ]


def _faults(scorecard: Scorecard, metric: str, *, whole: bool) -> list[str]:
    """Say what keeps a metric from being a score; ``whole`` wants it on every request."""
    score = scorecard.scores.get(metric)
    if score is None or score.value is None or score.n == 0:
        return ["has no value"]
    if not 0 <= score.value <= 1:  # NaN is in no range
        return [f"is {score.value}, which is no share"]
    measured = [value for s in scorecard.samples if (value := s.scores.get(metric)) is not None]
    if any(value not in (0, 1) for value in measured):
        return ["has a request that is neither right nor wrong"]
    if whole and len(measured) < len(scorecard.samples):
        return [f"is missing on {len(scorecard.samples) - len(measured)} requests"]
    return _disagreement(score, measured)


def _disagreement(score: Score, measured: list[float]) -> list[str]:
    mean = math.fsum(measured) / max(1, len(measured))
    if score.n == len(measured) and score.value is not None and math.isclose(score.value, mean):
        return []
    return [
        f"is {score.value} over {score.n} requests, but its samples say {mean} over {len(measured)}"
    ]


def _below_floor(challenger: Scorecard, policy: Policy) -> list[str]:
    score = challenger.scores[policy.metric].value
    if score is not None and score >= policy.floor:
        return []
    return [
        f"below the floor: {policy.metric} is {score:.3f}, the policy asks for {policy.floor:g}"
    ]


def _abstains_less(challenger: Scorecard, opponent: Scorecard, policy: Policy) -> list[str]:
    margin = policy.abstention_margin
    ours, theirs = challenger.scores["abstention"].value, opponent.scores["abstention"].value
    if margin is None or ours is None or theirs is None or ours >= theirs - margin - 1e-9:
        return []
    return [
        f"abstains too seldom: {ours:.1%} of the requests that no tool fits, the opponent "
        f"{theirs:.1%}, and the policy allows {100 * margin:g} points less"
    ]


def _no_better(wins: int, losses: int, p_value: float, policy: Policy) -> list[str]:
    if wins > losses:
        return []
    worse = "worse" if losses > wins and p_value < policy.alpha else "no better"
    return [
        f"{worse}: right alone on {wins} requests, wrong alone on {losses} "
        f"(exact McNemar p = {p_value:.3g})"
    ]


def _too_few(n: int, policy: Policy) -> list[str]:
    if n >= policy.min_documents:
        return []
    return [f"too few requests: the holdout has {n}, the policy asks for {policy.min_documents}"]


def _too_close(wins: int, losses: int, p_value: float, policy: Policy) -> list[str]:
    if wins <= losses or p_value < policy.alpha:
        return []
    return [
        f"too close to tell: right alone on {wins} requests, wrong alone on {losses} "
        f"(exact McNemar p = {p_value:.3g}, not below {policy.alpha:g})"
    ]


def _more_needed(wins: int, losses: int, n: int, policy: Policy) -> int | None:
    more = mcnemar.more_needed(wins, losses, n, policy.alpha)
    return None if more is None else max(more, policy.min_documents - n)


def _forecast(outcome: Outcome, more: int | None) -> list[str]:
    if outcome != "inconclusive":
        return []
    if more is None:
        return ["no number of further requests is in sight that would decide"]
    return [f"about {more} more requests would decide, if both keep their rates"]
