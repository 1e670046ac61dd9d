"""Why two scorecards can't be compared, or a score in them is not a valid measurement."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from components.gate.policy import Policy
from components.scorecard import HOLDOUT, RESCORED, Sample, Score, Scorecard

Measured = Mapping[str, Scorecard]  # one model's scorecards by task


@dataclass(frozen=True, slots=True)
class Anchor:
    """A fixed model, such as ``base``, that guards are compared with next to the opponent."""

    name: str
    cards: Measured


def objections(
    challenger: Measured, opponent: Measured, policy: Policy, anchor: Anchor | None = None
) -> list[str]:
    """Return all reasons why the models can't be judged; empty if they can."""
    guarded: dict[str, list[str]] = {}
    for guard in policy.guarding():
        guarded.setdefault(guard.task, []).append(guard.metric)
    metrics_by_task = {policy.task: [policy.metric]}
    for task, metrics in guarded.items():
        metrics_by_task[task] = [*metrics_by_task.get(task, []), *metrics]
    reasons = _between(challenger, opponent, metrics_by_task, (policy.task, policy.metric))
    if not reasons and anchor is not None:
        of_anchor = _between(challenger, anchor.cards, guarded)
        reasons = [reason.replace("the opponent", f"the {anchor.name}") for reason in of_anchor]
    return reasons


def _between(
    challenger: Measured,
    opponent: Measured,
    metrics_by_task: Mapping[str, list[str]],
    target: tuple[str, str] | None = None,
) -> list[str]:
    reasons: list[str] = []
    for task, metrics in metrics_by_task.items():
        if absent := _absent(task, challenger, opponent):
            reasons += absent
            continue
        ours, theirs = challenger[task], opponent[task]
        reasons += [_about_task(task, reason) for reason in incomparable(ours, theirs)]
        reasons += [
            f"not measured: {_about_task(task, metric)} of the {role} {fault}"
            for role, card in (("challenger", ours), ("opponent", theirs))
            for metric in metrics
            for fault in _faults(card, metric, whole=(task, metric) == target)
        ]
        reasons += [] if reasons else _measured_on_others(task, ours, theirs, metrics)
    return reasons


def incomparable(challenger: Scorecard, opponent: Scorecard) -> list[str]:
    """Return the reasons why two scorecards can't be compared; empty if they can."""
    names = sorted({*challenger.conditions, *opponent.conditions})
    faults = [
        f"not comparable: {name} is {challenger.conditions.get(name)!r} for the challenger "
        f"and {opponent.conditions.get(name)!r} for the opponent"
        for name in names
        if challenger.conditions.get(name) != opponent.conditions.get(name)
    ]
    if not challenger.conditions or not opponent.conditions:
        faults.append("not comparable: a scorecard does not record its conditions")
    return faults + _different_requests(challenger.samples, opponent.samples)


def _about_task(task: str, text: str) -> str:
    if task == HOLDOUT:
        return text
    head, colon, rest = text.partition(": ")
    return f"{head} on {task}: {rest}" if colon else f"{text} on {task}"


def _absent(task: str, challenger: Measured, opponent: Measured) -> list[str]:
    return [
        f"not measured: the {role} has no scorecard of {task}"
        for role, cards in (("challenger", challenger), ("opponent", opponent))
        if task not in cards
    ]


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
    if changed := sum(prompts[doc] != others[doc] for doc in prompts):
        return [f"not comparable: the prompts of {changed} requests differ between the two"]
    return []


def _faults(card: Scorecard, metric: str, *, whole: bool) -> list[str]:
    """Return why a metric is not valid; with ``whole`` it must be a target's, on every request."""
    score = card.scores.get(metric)
    if score is None or score.value is None or score.n == 0:
        return ["has no value"]
    if (doubt := card.metrics[metric].doubt) is not None:
        return [doubt]
    if not 0 <= score.value <= 1:  # false for NaN
        return [f"is {score.value}, which is not between 0 and 1"]
    measured = [value for s in card.samples if (value := s.scores.get(metric)) is not None]
    if any(not 0 <= value <= 1 for value in measured):
        return ["has a request whose score is not between 0 and 1"]
    if RESCORED in card.conditions and (missing := _asked_once(card, metric)):
        return [f"was not measured a second time, in other batches, on {missing} requests"]
    if whole and not card.metrics[metric].higher_is_better:
        return ["is better when lower, so it can be a guard but not the target"]
    if whole and len(measured) < len(card.samples):
        return [f"is missing on {len(card.samples) - len(measured)} requests"]
    return _disagreement(score, measured)


def _asked_once(card: Scorecard, metric: str) -> int:
    # the requests whose second score is missing or no share
    scores = [
        sample.rescored.get(metric)
        for sample in card.samples
        if sample.scores.get(metric) is not None
    ]
    return sum(score is None or not 0 <= score <= 1 for score in scores)


def _disagreement(score: Score, measured: list[float]) -> list[str]:
    mean = math.fsum(measured) / max(1, len(measured))
    if score.n == len(measured) and score.value is not None and math.isclose(score.value, mean):
        return []
    return [
        f"is {score.value} over {score.n} requests, but its samples give {mean} over "
        f"{len(measured)}"
    ]


def _measured_on_others(
    task: str, ours: Scorecard, theirs: Scorecard, metrics: list[str]
) -> list[str]:
    differing = {m: ours.measured(m).keys() ^ theirs.measured(m).keys() for m in metrics}
    return [
        f"not comparable: {_about_task(task, metric)} was measured on {len(requests)} requests of "
        "one model only"
        for metric, requests in differing.items()
        if requests
    ]
