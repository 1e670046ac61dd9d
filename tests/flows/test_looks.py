"""A turn counts as a look at its holdout once, however often it is run."""

from pathlib import Path

import pytest

from components.gate.evidence import Subject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.scorecard import HOLDOUT, Scorecard
from flows import turn
from tests.cards import pair, under

POLICY = Policy()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))


def judged(
    challenger: str, cards: tuple[Scorecard, Scorecard] | None = None, policy: Policy = POLICY
) -> Judgement:
    ours, theirs = cards or pair(40, 2, 40, 10)
    subject = Subject("support", "s1", "v1", "b1", "a1", "base", challenger, "o1")
    return turn.judged(policy, subject, {HOLDOUT: ours}, {HOLDOUT: theirs})


def test_a_turn_that_is_run_again_is_judged_alike_and_the_next_challenger_more_strictly() -> None:
    first, second = judged("c1"), judged("c2")
    assert (first.look, second.look) == (1, 2)
    assert second.alpha < first.alpha
    assert judged("c1") == first


def test_another_metric_is_another_look() -> None:
    assert judged("c1").look == 1
    assert judged("c1", policy=Policy(metric="correct")).look == 2


def test_what_can_not_be_compared_spends_nothing() -> None:
    ours, theirs = pair(40, 2, 40, 10)
    refused = judged("c1", (under(ours, holdout_version="v0"), theirs))
    assert refused.outcome == "fail"
    assert judged("c2").look == 1
