"""What is claimed of a lead where production may be wrong systematically."""

import random
from dataclasses import dataclass, replace

import pytest

from components.gate import judge, reference_errors
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.gate.reference_errors import ReferenceAudit
from components.scorecard import HOLDOUT
from tests.support.cards import card, pair


def test_the_interval_of_the_error_rate_is_clopper_and_pearsons() -> None:
    """As in SciPy's binomtest(...).proportion_ci(method="exact")."""
    assert reference_errors.exact_interval(0, 50, 0.025) == pytest.approx((0.0, 0.07112), abs=1e-5)
    low, high = reference_errors.exact_interval(6, 50, 0.025)
    assert (low, high) == pytest.approx((0.04534, 0.24310), abs=1e-5)
    assert reference_errors.exact_interval(50, 50, 0.025)[1] == 1.0


def test_an_unanswered_reference_counts_as_wrong() -> None:
    whole = ReferenceAudit(300, 300, drawn=50, answered=50, wrong=6, batches=1)
    skipped = replace(whole, answered=44, wrong=0)
    assert reference_errors.least_lead(0.5, skipped) == reference_errors.least_lead(0.5, whole)


def test_a_further_batch_does_not_have_the_level_of_the_first() -> None:
    first = ReferenceAudit(300, 300, drawn=50, answered=50, batches=1)
    assert first.tail == 0.025
    assert replace(first, batches=2).tail == pytest.approx(0.05 / 6)


def test_without_an_audit_no_lead_in_truth_is_claimed() -> None:
    judgement = judged(*pair(40, 2, 20, 10))
    (sentence,) = reference_errors.claim_sentences(ReferenceAudit(112, 90), judgement.target)
    assert "112 held-out references only production vouches for 90" in sentence
    assert "a lead is agreement with the log" in sentence
    assert reference_errors.COMMAND in sentence
    assert reference_errors.claim_sentences(ReferenceAudit(112, 0), judgement.target) == []


def test_twice_the_most_wrong_references_are_subtracted_from_the_lead() -> None:
    audit = ReferenceAudit(112, 56, 50, 50, wrong=3, batches=1, auditors=("ann",))
    target = judged(*pair(40, 2, 20, 10)).target
    assert target
    counted, claim = reference_errors.claim_sentences(audit, target)
    assert "Of 50 random ones ann called 3 wrong: 6.0% (95 % interval 1.3% to 16.5%)" in counted
    assert "+24.6 points by the references is at least +8.1 points in truth" in claim
    assert "so it is better in truth, too" in claim
    worse = reference_errors.claim_sentences(replace(audit, wrong=30), target)[1]
    assert "so this does not show it better" in worse


def judged(challenger: object, opponent: object) -> Judgement:
    return judge.judge(
        {HOLDOUT: challenger},  # pyright: ignore[reportArgumentType]
        {HOLDOUT: opponent},  # pyright: ignore[reportArgumentType]
        Policy(floor=0.0, abstention_margin=None),
    )


@dataclass(frozen=True)
class Claims:
    """Shares of simulated holdouts: passed by the gate, and claimed to be better in truth."""

    passed: float
    claimed: float


def simulate(
    draws: int,
    *,
    n: int,
    wrong: float,
    corrected: float = 0.0,
    asked: int = 50,
    agrees: float = 0.83,
) -> Claims:
    """Judge a challenger that answers as production did against a champion that is right on 80 %.

    Production is wrong on the share ``wrong``, of which people corrected a share; where they did,
    they vouch for the reference. ``agrees`` is how often the challenger answers as production did:
    at 0.83 it is 7 points behind in truth.
    """
    passed = claimed = 0
    for seed in range(draws):
        draw = random.Random(seed)
        ours: list[float] = []
        theirs: list[float] = []
        unvouched: list[bool] = []  # by reference: is it wrong
        for _ in range(n):
            is_wrong = draw.random() < wrong
            is_corrected = is_wrong and draw.random() < corrected
            learned = draw.random() < agrees  # answers as production did
            is_right = draw.random() < 0.8
            ours.append(float(learned != is_corrected) if is_wrong else float(learned))
            theirs.append(float(is_right and (is_corrected or not is_wrong)))
            if not is_corrected:
                unvouched.append(is_wrong)
        target = judged(card(ours), card(theirs))
        found = draw.sample(unvouched, min(asked, len(unvouched)))
        audit = ReferenceAudit(n, len(unvouched), len(found), len(found), sum(found), 1, ("ann",))
        assert target.target
        passes = target.outcome == "pass"
        passed += passes
        claimed += passes and reference_errors.least_lead(target.target.low, audit) > 0
    return Claims(passed / draws, claimed / draws)


@pytest.mark.parametrize("corrected", [0.0, 0.3])
def test_production_that_is_wrong_systematically_is_not_learned_as_a_lead(corrected: float) -> None:
    """By the log the challenger leads, in truth the champion does."""
    claims = simulate(8, n=200, wrong=0.12, corrected=corrected)
    assert claims.claimed == 0.0
    if corrected == 0.0:
        assert claims.passed >= 0.5
