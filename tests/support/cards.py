"""Scorecards from lists of right and wrong, for whatever reads scorecards."""

from collections.abc import Sequence
from dataclasses import replace

from components.evaluate.task_metrics import CALL_METRICS
from components.schema import Json
from components.scorecard import HOLDOUT, RESCORED, Metric, Sample, Scorecard, aggregate

CONDITIONS: dict[str, Json] = {
    "task": "holdout_tools",
    "holdout_version": "v1",
    "settings": {"precision": "nf4", "max_new_tokens": 64},
}


def sample(number: int, right: float | None, *, calls: bool = True) -> Sample:
    """Make one request that was answered ``right`` (1 or 0)."""
    mine, others = (right, None) if calls else (None, right)
    return Sample(
        doc_id=number,
        example_id=f"e{number}",
        cluster_id=f"c{number}",
        doc_hash=f"doc{number:04}",
        prompt_hash=f"prompt{number}",
        request=f"request {number}",
        prompt=f"<user> request {number}",
        output="right" if right else "wrong",
        reference="right",
        scores={
            "valid_json": mine,
            "schema_valid": mine,
            "name": mine,
            "name_and_arguments": mine,
            "abstention": others,
            "over_triggering": None if others is None else 1 - others,
            "correct_name": right,
            "correct": right,
        },
        slices={"tool": "weather" if calls else "no call", "client": "app"},
    )


def card(
    calls: Sequence[float | None], abstentions: Sequence[float | None] = (1.0,) * 40
) -> Scorecard:
    """Make a scorecard of requests that want a call, and of those that no tool fits."""
    samples = [sample(i, right) for i, right in enumerate(calls)]
    samples += [sample(len(calls) + i, r, calls=False) for i, r in enumerate(abstentions)]
    return Scorecard(
        key="k",
        base="base",
        adapter="adapter",
        task=HOLDOUT,
        metrics=CALL_METRICS,
        conditions=CONDITIONS,
        scores=aggregate(samples, CALL_METRICS),
        samples=tuple(samples),
    )


def pair(wins: int, losses: int, both: int, neither: int) -> tuple[Scorecard, Scorecard]:
    """Make challenger and opponent with so many requests only the one, or the other, got right."""
    ours = [1.0] * wins + [0.0] * losses + [1.0] * both + [0.0] * neither
    theirs = [0.0] * wins + [1.0] * losses + [1.0] * both + [0.0] * neither
    return card(ours), card(theirs)


def under(scorecard: Scorecard, **conditions: Json) -> Scorecard:
    """Say that a scorecard was made under other conditions."""
    return replace(scorecard, conditions={**scorecard.conditions, **conditions})


def guard_card(scores: Sequence[float | None], task: str = "arc_easy") -> Scorecard:
    """Make a scorecard of a guard task with the one metric ``acc``."""
    samples = [
        replace(sample(i, 1.0), scores={"acc": score}, slices={}) for i, score in enumerate(scores)
    ]
    metrics = {"acc": Metric("the right choice")}
    return Scorecard(
        key=f"k-{task}",
        base="base",
        adapter="adapter",
        task=task,
        metrics=metrics,
        conditions=CONDITIONS | {"task": task},
        scores=aggregate(samples, metrics),
        samples=tuple(samples),
    )


def rescored(scorecard: Scorecard, metric: str, scores: Sequence[float | None]) -> Scorecard:
    """Put other scores of one metric, and their mean, in a scorecard."""
    samples = tuple(
        replace(one, scores={**one.scores, metric: score})
        for one, score in zip(scorecard.samples, scores, strict=True)
    )
    return replace(scorecard, samples=samples, scores=aggregate(samples, scorecard.metrics))


def in_clusters(scorecard: Scorecard, size: int) -> Scorecard:
    """Say that so many requests in a row belong together."""
    samples = tuple(
        replace(one, cluster_id=f"c{number // size}")
        for number, one in enumerate(scorecard.samples)
    )
    return replace(scorecard, samples=samples)


def sliced(scorecard: Scorecard, name: str, values: Sequence[str]) -> Scorecard:
    """Say which part of the traffic each request belongs to."""
    samples = tuple(
        replace(one, slices={name: value})
        for one, value in zip(scorecard.samples, values, strict=True)
    )
    return replace(scorecard, samples=samples)


def asked_again(
    scorecard: Scorecard, metric: str = "", scores: Sequence[float | None] = ()
) -> Scorecard:
    """Say that a model was asked a second time, and with which scores of one metric."""
    second = scores or [None] * len(scorecard.samples)
    samples = tuple(
        replace(each, rescored={**each.scores, **({metric: score} if metric else {})})
        for each, score in zip(scorecard.samples, second, strict=True)
    )
    return under(replace(scorecard, samples=samples), **{RESCORED: 1})
