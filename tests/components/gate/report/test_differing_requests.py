"""Differing requests: which model did better, and their order."""

from dataclasses import replace

from components.gate.report.side_by_side import differing_requests, take_turns
from components.scorecard import Metric, Scorecard
from tests.support.cards import card


def shown(ours: Scorecard, theirs: Scorecard, metric: str = "correct_name") -> list[str]:
    return [
        difference.challenger.example_id
        for difference in take_turns(*differing_requests(ours, theirs, metric), 3)
    ]


def test_lost_and_won_requests_alternate() -> None:
    ours = card([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [])
    theirs = card([0.0, 0.0, 0.0, 1.0, 1.0, 0.0], [])
    assert shown(ours, theirs) == ["e4", "e0", "e1"]


def test_differences_are_those_of_the_chosen_metric() -> None:
    ours, theirs = card([1.0], []), card([1.0], [])
    (first,) = theirs.samples
    theirs = replace(theirs, samples=(replace(first, scores={**first.scores, "correct": 0.0}),))
    assert shown(ours, theirs) == []
    assert shown(ours, theirs, "correct") == ["e0"]


def test_the_lower_score_wins_if_lower_is_better() -> None:
    lower = {"correct_name": Metric("mistakes", higher_is_better=False)}
    ours, theirs = (
        replace(scorecard, metrics=lower) for scorecard in (card([0.0], []), card([1.0], []))
    )
    lost, won = differing_requests(ours, theirs, "correct_name")
    assert (len(lost), len(won)) == (0, 1)


def test_requests_of_one_model_only_are_not_differences() -> None:
    assert shown(card([1.0, 1.0], []), card([1.0], [])) == []
