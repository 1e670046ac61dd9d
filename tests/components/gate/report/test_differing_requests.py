"""Where two models differ, one did better: who, and in which order it is shown."""

from dataclasses import replace

from components.gate.report.side_by_side import differing_requests, take_turns
from components.scorecard import Metric, Scorecard
from tests.support.cards import card


def shown(ours: Scorecard, theirs: Scorecard, metric: str = "correct_name") -> list[str]:
    return [
        one.challenger.example_id
        for one in take_turns(*differing_requests(ours, theirs, metric), 3)
    ]


def test_lost_and_won_requests_are_shown_by_turns() -> None:
    ours = card([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [])
    theirs = card([0.0, 0.0, 0.0, 1.0, 1.0, 0.0], [])
    assert shown(ours, theirs) == ["e4", "e0", "e1"]


def test_differences_are_those_of_the_metric_that_was_asked_for() -> None:
    ours, theirs = card([1.0], []), card([1.0], [])
    (first,) = theirs.samples
    theirs = replace(theirs, samples=(replace(first, scores={**first.scores, "correct": 0.0}),))
    assert shown(ours, theirs) == []
    assert shown(ours, theirs, "correct") == ["e0"]


def test_of_a_metric_that_is_better_when_lower_the_lower_one_won() -> None:
    lower = {"correct_name": Metric("mistakes", higher_is_better=False)}
    ours, theirs = (replace(one, metrics=lower) for one in (card([0.0], []), card([1.0], [])))
    lost, won = differing_requests(ours, theirs, "correct_name")
    assert (len(lost), len(won)) == (0, 1)


def test_requests_that_only_one_model_saw_are_no_difference() -> None:
    assert shown(card([1.0, 1.0], []), card([1.0], [])) == []
