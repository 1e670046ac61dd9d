"""In 16 bits answers depend on their batch: nothing passes by what other batches would undo."""

import json
from dataclasses import replace

import numpy as np
import pytest

from components.gate import evidence_folder, judge, judgement
from components.gate.evidence_folder import EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Guard, Policy
from components.gate.report import side_by_side
from components.scorecard import HOLDOUT, Scorecard
from tests.support.cards import asked_again, card, guard_card, in_clusters, pair, under

POLICY = Policy(floor=0.2, abstention_margin=None)
BEGINS = "not shown in spite of rounding: "


def judged(challenger: Scorecard, opponent: Scorecard, policy: Policy = POLICY) -> Judgement:
    return judge.judge({HOLDOUT: challenger}, {HOLDOUT: opponent}, policy)


def scored(first: list[float], second: list[float]) -> Scorecard:
    return asked_again(card(first, ()), "correct_name", second)


def right(count: int, of: int = 100) -> list[float]:
    return [1.0] * count + [0.0] * (of - count)


def test_noise_that_lifts_the_challenger_in_one_direction_does_not_pass():
    ours, theirs = scored(right(72), right(50)), scored(right(50), right(50))
    result = judged(ours, theirs)
    assert judged(card(right(72), ()), card(right(50), ())).outcome == "pass", "without noise"
    assert result.outcome == "inconclusive"
    (reason,) = result.reasons
    assert reason.startswith(f"{BEGINS}correct_name +22.0 points, better on 22 requests")
    assert (
        "the scores of 22 requests changed for the challenger and of 0 for the opponent; with the "
        "worse of the challenger's scores and the better of the other's, +0.0 points, better on 0 "
        "requests, worse on 0 (p = 1, 0.025 is required)"
    ) in reason


def test_noise_that_lowers_the_opponent_in_one_direction_does_not_pass():
    result = judged(scored(right(72), right(72)), scored(right(50), right(72)))
    assert result.outcome == "inconclusive"
    assert result.reasons[0].startswith(BEGINS)


def test_noise_of_both_models_adds_up():
    first, second = right(60), right(56)
    theirs = right(46)
    assert judged(card(first, ()), card(theirs, ())).outcome == "pass"
    assert judged(scored(first, second), scored(theirs, right(46))).outcome == "pass"
    assert judged(scored(first, second), scored(theirs, right(52))).outcome == "inconclusive"


def test_a_clear_lead_passes_in_spite_of_some_noise_and_says_so():
    ours = scored(right(80), right(78))
    result = judged(ours, scored(right(50), right(52)))
    assert result.outcome == "pass"
    assert result.target is not None
    noise = result.target.noise
    assert noise is not None
    assert (noise.challenger_changed, noise.opponent_changed) == (2, 2)
    assert (noise.wins, noise.losses, result.target.wins) == (26, 0, 30)
    assert "changed for the challenger and of 2 for the opponent" in result.reasons[0]


def test_noise_that_hurt_the_challenger_at_first_gives_it_nothing():
    once = judged(card(right(52), ()), card(right(50), ()))
    twice = judged(scored(right(52), right(80)), scored(right(50), right(50)))
    assert once.outcome == twice.outcome == "inconclusive"
    assert once.target is not None
    assert twice.target is not None
    assert twice.target.p_value == once.target.p_value


def test_answers_that_did_not_change_are_judged_as_if_asked_once():
    ours, theirs = pair(40, 2, 20, 10)
    once, twice = judged(ours, theirs), judged(asked_again(ours), asked_again(theirs))
    assert twice.outcome == once.outcome
    assert replace(twice.comparisons[0], noise=None) == once.comparisons[0]


def test_a_guard_must_be_within_its_margin_in_other_batches_too():
    policy = POLICY.model_copy(update={"guards": (Guard(task="arc", metric="acc", margin=0.1),)})
    ours, theirs = asked_again(card(right(90), ())), asked_again(card(right(40), ()))
    acc = [1.0] * 200
    for changed, outcome in ((0, "pass"), (30, "inconclusive")):
        fell = asked_again(guard_card(acc, "arc"), "acc", [0.0] * changed + acc[changed:])
        opposite = asked_again(guard_card(acc, "arc"))
        result = judge.judge(
            {HOLDOUT: ours, "arc": fell}, {HOLDOUT: theirs, "arc": opposite}, policy
        )
        assert result.outcome == outcome


def test_a_guard_that_is_better_when_lower_takes_the_higher_of_the_challengers_scores():
    guard = Guard(metric="over_triggering", margin=0.2)
    policy = POLICY.model_copy(update={"guards": (guard,)})
    ours, theirs = card(right(90), [1.0] * 100), card(right(40), [1.0] * 100)
    second = [sample.scores["over_triggering"] for sample in ours.samples]
    worse = [score if score is None or i % 3 else 1.0 for i, score in enumerate(second)]
    calm = judged(asked_again(ours), asked_again(theirs), policy)
    shaky = judged(asked_again(ours, "over_triggering", worse), asked_again(theirs), policy)
    assert (calm.outcome, shaky.outcome) == ("pass", "inconclusive")


def test_the_floor_holds_for_the_worse_of_two_answers():
    policy = POLICY.model_copy(update={"floor": 0.6})
    ours = scored(right(62), right(58))
    result = judged(ours, scored(right(20), right(20)), policy)
    assert result.outcome == "fail"
    assert result.reasons[0].startswith(
        "below the floor: correct_name is 0.580 by the worse of two answers to each request"
    )


def test_noise_in_clusters_is_bet_on_with_the_worse_scores():
    ours, theirs = card(right(80), ()), card(right(40), ())
    lifted = asked_again(ours, "correct_name", right(40))
    for challenger, outcome in ((asked_again(ours), "pass"), (lifted, "inconclusive")):
        result = judged(in_clusters(challenger, 2), in_clusters(asked_again(theirs), 2))
        assert result.outcome == outcome
        assert result.target is not None
        assert result.target.test.startswith("bets")


@pytest.mark.parametrize(
    "second", [pytest.param(None, id="missing"), pytest.param(float("nan"), id="not-a-number")]
)
def test_a_model_that_was_not_asked_again_is_not_judged(second: float | None):
    challenger, opponent = asked_again(card(right(90), ())), asked_again(card(right(40), ()))
    scores: list[float | None] = [*right(89, 89), second, *right(0, 10)]
    once = asked_again(card(right(90), ()), "correct_name", scores)
    assert judged(challenger, opponent).outcome == "pass"
    result = judged(once, opponent)
    assert result.outcome == "fail"
    assert result.reasons == (
        "not measured: correct_name of the challenger was not measured a second time, in other "
        "batches, on 1 requests",
    )
    never = under(card(right(90), ()), rescored=1)
    assert judged(never, opponent).outcome == "fail"
    assert "not comparable: rescored is" in judged(card(right(90), ()), opponent).reasons[0]


def test_noise_in_one_direction_passes_no_more_often_than_alpha():
    draws, alpha = 30, POLICY.alpha / 2
    generator = np.random.default_rng(5)
    passes = 0
    for _ in range(draws):
        # Equally good in other batches; in its own the challenger gets a tenth more right.
        true = (generator.random((2, 150)) < 0.5).astype(float)
        lifted = np.maximum(true[0], generator.random(150) < 0.2)
        ours = scored(lifted.tolist(), true[0].tolist())
        theirs = scored(true[1].tolist(), true[1].tolist())
        passes += judged(ours, theirs).outcome == "pass"
    assert passes <= draws * alpha + 3 * (draws * alpha) ** 0.5


def test_evidence_without_noise_has_the_digest_and_the_fields_of_older_versions():
    ours, theirs = pair(40, 2, 20, 10)
    subject = EvidenceSubject("support", "s1", "v1", "b1", "a1", "base", "c1", "o1")
    result = judge.judge({HOLDOUT: ours}, {HOLDOUT: theirs}, Policy())
    assert evidence_folder.digest(subject, result, Policy()) == "f84b85012cbbace8"
    assert "noise" not in json.dumps(judgement.to_json(result))
    assert judgement.from_json(json.loads(json.dumps(judgement.to_json(result)))) == result


def test_noise_is_part_of_the_evidence_and_reads_back():
    theirs = scored(right(50), right(50))
    calm, shaky = (judged(scored(right(80), right(n)), theirs) for n in (80, 78))
    assert calm.outcome == shaky.outcome == "pass"
    written = json.loads(json.dumps(judgement.to_json(shaky)))
    assert judgement.from_json(written) == shaky
    assert judgement.to_json(calm) != judgement.to_json(shaky)


def test_the_report_shows_the_p_value_that_decided():
    ours, theirs = scored(right(72), right(50)), scored(right(50), right(50))
    result = judged(ours, theirs)
    figure = side_by_side.figures({HOLDOUT: ours}, {HOLDOUT: theirs}, result)[0]
    assert figure.finding == "too close to tell (p = 1)"
