"""A poisoned harness never passes, and the gate names the fault."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from components.evaluate.task_metrics import CALL_METRICS
from components.gate import judge as gate
from components.gate.policy import Guard, Policy
from components.schema import Json
from components.scorecard import HOLDOUT, Metric, Score, Scorecard
from tests.support.cards import card, guard_card, pair, rescored, under

POLICY = Policy()
GUARDED = Policy(guards=(Guard(task="arc_easy", metric="acc", margin=0.1),))


def faults(
    challenger: Scorecard | Mapping[str, Scorecard],
    opponent: Scorecard | Mapping[str, Scorecard],
    policy: Policy = POLICY,
) -> tuple[str, ...]:
    """Return the reasons of a judgement that fails before any comparison."""
    both = [
        {HOLDOUT: card} if isinstance(card, Scorecard) else card for card in (challenger, opponent)
    ]
    judgement = gate.judge(both[0], both[1], policy)
    assert judgement.outcome == "fail"
    assert judgement.comparisons == ()
    assert judgement.look == 0, "what was not compared is no look at the holdout"
    return judgement.reasons


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"holdout_version": "v2"}, "holdout_version is 'v2' for the challenger and 'v1'"),
        ({"task_version": "t2"}, "task_version is 't2' for the challenger and None"),
        ({"template": "x"}, "template is 'x' for the challenger and None for the opponent"),
        ({"num_fewshot": 5}, "num_fewshot is 5 for the challenger and None for the opponent"),
        ({"settings": {"precision": "bf16"}}, "settings is {'precision': 'bf16'} for the chall"),
        ({"filters": ["strict"]}, "filters is ['strict'] for the challenger and None"),
    ],
)
def test_different_conditions_are_not_compared(conditions: dict[str, Json], message: str):
    challenger, opponent = pair(40, 2, 20, 10)
    (fault,) = faults(under(challenger, **conditions), opponent)
    assert fault.startswith(f"not comparable: {message}")


def test_scorecards_without_conditions_are_not_compared():
    ours, theirs = (replace(scorecard, conditions={}) for scorecard in pair(40, 2, 20, 10))
    assert faults(ours, theirs) == ("not comparable: a scorecard does not record its conditions",)


def test_a_different_number_of_requests_is_not_compared():
    assert faults(card([1.0] * 70), card([0.0] * 69)) == (
        "not comparable: the challenger answered 110 requests and the opponent 109",
    )


def test_different_requests_are_not_compared():
    challenger, opponent = pair(40, 2, 20, 10)
    first, *others = challenger.samples
    strange = replace(challenger, samples=(replace(first, doc_hash="x"), *others))
    assert faults(strange, opponent) == (
        "not comparable: 1 of the challenger's requests are not the opponent's",
    )


def test_different_prompts_are_not_compared():
    challenger, opponent = pair(40, 2, 20, 10)
    samples = tuple(replace(s, prompt_hash="other") for s in challenger.samples)
    assert faults(replace(challenger, samples=samples), opponent) == (
        "not comparable: the prompts of 112 requests differ between the two",
    )


def test_a_duplicate_request_is_not_compared():
    challenger, opponent = pair(40, 2, 20, 10)
    first, second, *others = challenger.samples
    samples = (first, replace(second, doc_hash=first.doc_hash), *others)
    assert faults(replace(challenger, samples=samples), opponent) == (
        "not comparable: the same request with the same reference occurs more than once",
    )


def test_requests_that_only_one_model_was_measured_on_are_not_compared():
    ours = rescored(card([1.0] * 60), "abstention", [None] * 60 + [1.0] * 39 + [None])
    assert faults(ours, card([0.0] * 60)) == (
        "not comparable: abstention was measured on 1 requests of one model only",
    )


@pytest.mark.parametrize(
    ("score", "message"),
    [
        pytest.param(Score(None, None, 0), "has no value", id="unmeasured"),
        pytest.param(Score(math.nan, None, 82), "is nan, which is not between 0 and 1", id="nan"),
        pytest.param(Score(999.0, None, 82), "is 999.0, which is not between 0 and 1", id="999"),
        pytest.param(Score(-1.0, None, 82), "is -1.0, which is not between 0 and 1", id="-1"),
        pytest.param(
            Score(0.99, None, 112),
            "is 0.99 over 112 requests, but its samples give ",
            id="not-that-of-its-samples",
        ),
    ],
)
def test_unmeasured_metric_blocks_promotion_and_says_so(score: Score, message: str):
    challenger, opponent = pair(40, 2, 20, 10)
    broken = replace(challenger, scores={**challenger.scores, "correct_name": score})
    (fault,) = faults(broken, opponent)
    assert fault.startswith(f"not measured: correct_name of the challenger {message}")


def test_an_unmeasured_opponent_blocks_as_well():
    challenger, opponent = pair(40, 2, 20, 10)
    assert faults(challenger, replace(opponent, scores={})) == (
        "not measured: correct_name of the opponent has no value",
        "not measured: abstention of the opponent has no value",
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(None, "is missing on 1 requests", id="missing"),
        pytest.param(math.nan, "has a request whose score is not between 0 and 1", id="nan"),
        pytest.param(999.0, "has a request whose score is not between 0 and 1", id="999"),
    ],
)
def test_one_unmeasured_request_blocks_promotion(value: float | None, message: str):
    challenger, opponent = pair(40, 2, 20, 10)
    first, *others = challenger.samples
    broken = replace(first, scores={**first.scores, "correct_name": value})
    assert faults(replace(challenger, samples=(broken, *others)), opponent) == (
        f"not measured: correct_name of the challenger {message}",
    )


def test_unmeasured_abstention_blocks_unless_the_policy_has_no_guard_on_it():
    challenger, opponent = card([1.0] * 70, []), card([0.0] * 70, [])
    assert faults(challenger, opponent)[0] == (
        "not measured: abstention of the challenger has no value"
    )
    unasked = POLICY.model_copy(update={"abstention_margin": None})
    both = {HOLDOUT: challenger}, {HOLDOUT: opponent}
    assert gate.judge(*both, unasked).outcome == "pass"


def test_a_metric_that_is_better_when_lower_is_not_a_valid_target():
    lower = {**CALL_METRICS, "correct_name": Metric("mistakes", higher_is_better=False)}
    ours, theirs = (replace(scorecard, metrics=lower) for scorecard in pair(40, 2, 20, 10))
    assert faults(ours, theirs)[0] == (
        "not measured: correct_name of the challenger is better when lower, so it can be a guard "
        "but not the target"
    )


def test_empty_scorecards_do_not_pass():
    assert faults(card([], []), card([], []))[0] == (
        "not measured: correct_name of the challenger has no value"
    )


def test_a_guard_task_that_was_not_run_blocks():
    challenger, opponent = pair(40, 2, 20, 10)
    run = {HOLDOUT: opponent, "arc_easy": guard_card([1.0] * 60)}
    assert faults({HOLDOUT: challenger}, run, GUARDED) == (
        "not measured: the challenger has no scorecard of arc_easy",
    )


def test_a_model_without_any_scorecard_blocks():
    _, opponent = pair(40, 2, 20, 10)
    assert faults({}, {HOLDOUT: opponent}) == (
        "not measured: the challenger has no scorecard of holdout",
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        pytest.param(
            under(guard_card([1.0] * 60), task_version="2"),
            "not comparable on arc_easy: task_version is '2' for the challenger and None",
            id="another-version",
        ),
        pytest.param(
            guard_card([1.0] * 59 + [math.nan]),
            "not measured: acc on arc_easy of the challenger is nan, which is not between 0 and 1",
            id="nan",
        ),
        pytest.param(
            guard_card([1.0] * 59),
            "not comparable on arc_easy: the challenger answered 59 requests and the opponent 60",
            id="fewer",
        ),
        pytest.param(
            guard_card([None] * 60),
            "not measured: acc on arc_easy of the challenger has no value",
            id="nothing",
        ),
    ],
)
def test_a_guard_task_measured_differently_blocks(broken: Scorecard, message: str):
    challenger, opponent = pair(40, 2, 20, 10)
    ours = {HOLDOUT: challenger, "arc_easy": broken}
    (fault,) = faults(ours, {HOLDOUT: opponent, "arc_easy": guard_card([1.0] * 60)}, GUARDED)
    assert fault.startswith(message)
