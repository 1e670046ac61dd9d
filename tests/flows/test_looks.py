"""A turn counts as a look at its holdout once, however often it is run."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.gate.evidence import Subject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.scorecard import HOLDOUT, Scorecard
from flows import turn
from tests.cards import guard_card, pair, under

POLICY = Policy()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))


def judged(
    challenger: str,
    cards: tuple[Scorecard, Scorecard] | None = None,
    policy: Policy = POLICY,
    beside: Scorecard | None = None,
) -> Judgement:
    ours, theirs = cards or pair(40, 2, 40, 10)
    subject = Subject("support", "s1", "v1", "b1", "a1", "base", challenger, "o1")
    named = replace(ours, key=challenger)
    mine = {HOLDOUT: named, **({beside.task: beside} if beside else {})}
    other = {HOLDOUT: theirs, **({beside.task: beside} if beside else {})}
    return turn.judged(policy, subject, mine, other)


def test_a_turn_that_is_run_again_is_judged_alike_and_the_next_challenger_more_strictly() -> None:
    first, second = judged("c1"), judged("c2")
    assert (first.look, second.look) == (1, 2)
    assert second.alpha < first.alpha
    assert judged("c1") == first


def test_another_metric_is_another_look() -> None:
    assert judged("c1").look == 1
    assert judged("c1", policy=Policy(metric="correct")).look == 2


def test_a_look_at_another_task_is_told_by_that_tasks_scorecard() -> None:
    policy = Policy(task="arc_easy", metric="acc")
    few, more = guard_card([1.0] * 60), replace(guard_card([1.0] * 80), key="more")
    assert judged("c1", policy=policy, beside=few).look == 1
    assert judged("c2", policy=policy, beside=few).look == 1
    assert judged("c2", policy=policy, beside=more).look == 2


def test_what_can_not_be_compared_spends_nothing() -> None:
    ours, theirs = pair(40, 2, 40, 10)
    refused = judged("c1", (under(ours, holdout_version="v0"), theirs))
    assert refused.outcome == "fail"
    assert judged("c2").look == 1
