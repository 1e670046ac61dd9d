"""The gate: what passes, what fails, what stays open, and what it says."""

import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from components.gate.judge import Judgement, Policy, judge
from components.scorecard import Score, Scorecard
from tests.cards import card, pair, under

POLICY = Policy(floor=0.5, min_documents=60)


def with_score(scorecard: Scorecard, metric: str, score: Score) -> Scorecard:
    return replace(scorecard, scores={**scorecard.scores, metric: score})


def fault(judgement: Judgement) -> str:
    """Give the one reason of a failed judgement."""
    assert judgement.outcome == "fail"
    (reason,) = judgement.reasons
    return reason


@pytest.mark.parametrize(
    ("wins", "losses", "both", "neither", "outcome"),
    [
        pytest.param(40, 2, 20, 10, "pass", id="clearly-better"),
        pytest.param(6, 0, 50, 10, "pass", id="few-flips-all-one-way"),
        pytest.param(5, 0, 50, 10, "inconclusive", id="one-flip-short"),
        pytest.param(12, 6, 50, 10, "inconclusive", id="ahead-within-chance"),
        pytest.param(0, 0, 60, 10, "fail", id="same-answers"),
        pytest.param(6, 8, 50, 10, "fail", id="behind-within-chance"),
        pytest.param(2, 40, 20, 10, "fail", id="clearly-worse"),
        pytest.param(30, 0, 0, 70, "fail", id="better-but-below-the-floor"),
        pytest.param(30, 0, 10, 0, "inconclusive", id="better-but-on-too-few"),
    ],
)
def test_outcome(wins: int, losses: int, both: int, neither: int, outcome: str):
    assert judge(*pair(wins, losses, both, neither), POLICY).outcome == outcome


def test_a_pass_says_what_it_counted():
    judgement = judge(*pair(40, 2, 20, 10), POLICY)
    assert (judgement.wins, judgement.losses, judgement.n) == (40, 2, 82)
    assert judgement.p_value is not None
    assert judgement.p_value < 1e-6
    (reason,) = judgement.reasons
    assert reason.startswith("better: right alone on 40 requests, wrong alone on 2, of 82 (exact")
    assert judgement.challenger_score == pytest.approx(70 / 82)


def test_an_open_judgement_says_how_many_more_requests_would_decide():
    judgement = judge(*pair(5, 0, 50, 10), POLICY)
    assert judgement.more_needed == 15
    assert judgement.reasons == (
        "too close to tell: right alone on 5 requests, wrong alone on 0 "
        "(exact McNemar p = 0.0625, not below 0.05)",
        "about 15 more requests would decide, if both keep their rates",
    )


def test_a_small_holdout_is_open_and_says_so():
    judgement = judge(*pair(30, 0, 10, 0), POLICY)
    assert judgement.reasons == (
        "too few requests: the holdout has 50, the policy asks for 60",
        "about 10 more requests would decide, if both keep their rates",
    )


def test_a_hopelessly_close_race_promises_no_number():
    judgement = judge(*pair(1001, 1000, 800, 100), POLICY)
    assert judgement.outcome == "inconclusive"
    assert judgement.more_needed is None
    assert judgement.reasons[-1] == "no number of further requests is in sight that would decide"


def test_below_the_floor_fails_and_names_both_figures():
    assert fault(judge(*pair(30, 0, 0, 70), POLICY)).startswith("below the floor: correct_name is ")


def test_the_same_answers_are_no_reason_to_change():
    assert fault(judge(*pair(0, 0, 60, 10), POLICY)) == (
        "no better: right alone on 0 requests, wrong alone on 0 (exact McNemar p = 1)"
    )


def test_significantly_worse_is_called_worse():
    reasons = judge(*pair(2, 40, 60, 0), POLICY).reasons
    assert any(reason.startswith("worse: right alone on 2 requests") for reason in reasons)


def test_calling_where_no_tool_fits_fails_though_the_calls_got_better():
    challenger = card([1.0] * 60, [1.0] * 8 + [0.0] * 2)
    opponent = card([0.0] * 60, [1.0] * 10)
    assert fault(judge(challenger, opponent, POLICY)) == (
        "abstains too seldom: 80.0% of the requests that no tool fits, the opponent 100.0%, "
        "and the policy allows 10 points less"
    )


def test_abstention_exactly_at_the_margin_passes():
    challenger = card([1.0] * 60, [1.0] * 9 + [0.0])
    assert judge(challenger, card([0.0] * 60), POLICY).outcome == "pass"


def test_a_fault_outweighs_a_doubt_and_all_are_named():
    judgement = judge(*pair(3, 0, 0, 40), POLICY)
    assert judgement.outcome == "fail"
    assert [reason.split(":")[0] for reason in judgement.reasons] == [
        "below the floor",
        "too few requests",
        "too close to tell",
    ]
    assert judgement.more_needed is None


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"holdout_version": "v2"}, "holdout_version is 'v2' for the challenger and 'v1'"),
        ({"task_version": "t2"}, "task_version is 't2' for the challenger and None"),
        ({"settings": {"precision": "bf16"}}, "settings is {'precision': 'bf16'} for the chall"),
    ],
)
def test_other_conditions_are_not_compared(conditions: dict[str, str], said: str):
    challenger, opponent = pair(40, 2, 20, 10)
    assert fault(judge(under(challenger, **conditions), opponent, POLICY)).startswith(
        f"not comparable: {said}"
    )


def test_scorecards_without_conditions_are_not_compared():
    ours, theirs = (replace(one, conditions={}) for one in pair(40, 2, 20, 10))
    assert "does not say under which conditions" in fault(judge(ours, theirs, POLICY))


def test_a_different_number_of_requests_is_not_compared():
    assert fault(judge(card([1.0] * 70), card([0.0] * 69), POLICY)) == (
        "not comparable: the challenger answered 80 requests and the opponent 79"
    )


def test_other_requests_are_not_compared():
    challenger, opponent = pair(40, 2, 20, 10)
    first, *others = challenger.samples
    strange = replace(challenger, samples=(replace(first, doc_hash="x"), *others))
    assert fault(judge(strange, opponent, POLICY)) == (
        "not comparable: 1 of the challenger's requests are not the opponent's"
    )


def test_requests_in_other_words_are_not_compared():
    challenger, opponent = pair(40, 2, 20, 10)
    samples = tuple(replace(s, prompt_hash="other") for s in challenger.samples)
    assert fault(judge(replace(challenger, samples=samples), opponent, POLICY)) == (
        "not comparable: 82 requests were put to the two in different words"
    )


def test_a_request_that_counts_twice_is_not_compared():
    challenger, opponent = pair(40, 2, 20, 10)
    first, second, *others = challenger.samples
    samples = (first, replace(second, doc_hash=first.doc_hash), *others)
    assert "occurs more than once" in fault(
        judge(replace(challenger, samples=samples), opponent, POLICY)
    )


@pytest.mark.parametrize(
    ("score", "said"),
    [
        pytest.param(Score(None, None, 0), "has no value", id="unmeasured"),
        pytest.param(Score(math.nan, None, 82), "is nan, which is no share", id="nan"),
        pytest.param(Score(999.0, None, 82), "is 999.0, which is no share", id="sentinel"),
        pytest.param(Score(-1.0, None, 82), "is -1.0, which is no share", id="negative"),
        pytest.param(
            Score(0.99, None, 82),
            "is 0.99 over 82 requests, but its samples say ",
            id="not-that-of-its-samples",
        ),
    ],
)
def test_unmeasured_metric_blocks_promotion_and_says_so(score: Score, said: str):
    challenger, opponent = pair(40, 2, 20, 10)
    broken = with_score(challenger, "correct_name", score)
    assert fault(judge(broken, opponent, POLICY)).startswith(
        f"not measured: correct_name of the challenger {said}"
    )


def test_an_unmeasured_opponent_blocks_as_well():
    challenger, opponent = pair(40, 2, 20, 10)
    broken = replace(opponent, scores={})
    judgement = judge(challenger, broken, POLICY)
    assert judgement.outcome == "fail"
    assert judgement.reasons == (
        "not measured: correct_name of the opponent has no value",
        "not measured: abstention of the opponent has no value",
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(None, "is missing on 1 requests", id="missing"),
        pytest.param(math.nan, "has a request that is neither right nor wrong", id="nan"),
        pytest.param(0.5, "has a request that is neither right nor wrong", id="half"),
    ],
)
def test_one_unmeasured_request_blocks_promotion(value: float | None, said: str):
    challenger, opponent = pair(40, 2, 20, 10)
    first, *others = challenger.samples
    broken = replace(first, scores={**first.scores, "correct_name": value})
    judgement = judge(replace(challenger, samples=(broken, *others)), opponent, POLICY)
    assert fault(judgement) == f"not measured: correct_name of the challenger {said}"


def test_abstention_that_nothing_measured_blocks_unless_the_policy_does_not_ask():
    challenger, opponent = card([1.0] * 70, []), card([0.0] * 70, [])
    judgement = judge(challenger, opponent, POLICY)
    assert judgement.outcome == "fail"
    assert judgement.reasons[0] == "not measured: abstention of the challenger has no value"
    unasked = POLICY.model_copy(update={"abstention_margin": None})
    assert judge(challenger, opponent, unasked).outcome == "pass"


def test_two_scorecards_of_nothing_do_not_pass():
    assert judge(card([], []), card([], []), POLICY).outcome == "fail"


@pytest.mark.parametrize(
    "knobs", [{"alpha": 0}, {"floor": 1.5}, {"min_documents": 0}, {"metric": "bleu"}, {"alfa": 0.1}]
)
def test_a_policy_that_makes_no_sense_is_refused(knobs: dict[str, object]):
    with pytest.raises(ValidationError):
        Policy.model_validate(knobs)
