"""Resolution of disagreement."""

from random import Random

import pytest

from components.curate.preferences import consensus
from components.curate.preferences.consensus import Vote
from components.curate.preferences.feedback_signals import Signal
from components.curate.preferences.pairs_and_labels import Conflict
from tests.support import vote_signals
from tests.support.vote_signals import choose, correct, pairs, signal

ITEMS = 60


def judgement(item: int, judge: str, is_good: bool) -> Vote[int]:
    return Vote(item, f"{judge} {item}", ("app", judge), 1 if is_good else -1, 1.0)


def panel(rates: dict[str, float], seed: int = 1) -> tuple[list[Vote[int]], dict[int, bool]]:
    """Return votes of judges with known reliability on items with known truth."""
    draw = Random(seed)
    truth = {item: draw.random() < 0.5 for item in range(ITEMS)}
    votes = [
        judgement(item, judge, is_good if draw.random() < rate else not is_good)
        for item, is_good in truth.items()
        for judge, rate in rates.items()
    ]
    return votes, truth


def right(posteriors: dict[int, float], truth: dict[int, bool]) -> int:
    return sum((probability > 0.5) == truth[item] for item, probability in posteriors.items())


def majority(votes: list[Vote[int]]) -> dict[int, float]:
    return {
        item: sum(vote.side > 0 for vote in votes if vote.item == item)
        / sum(vote.item == item for vote in votes)
        for item in range(ITEMS)
    }


@pytest.mark.parametrize("symmetric", [True, False])
def test_one_careful_judge_outweighs_four_who_guess(symmetric: bool):
    votes, truth = panel({"careful": 0.97, "a": 0.55, "b": 0.55, "c": 0.55, "d": 0.55, "e": 0.9})
    posteriors = consensus.posteriors(votes, symmetric=symmetric)
    assert right(posteriors, truth) > right(majority(votes), truth)
    assert right(posteriors, truth) >= 0.9 * ITEMS


def test_the_formula_matches_a_calculation_by_hand():
    """Two judges, one item, opposite votes: equal reliability cancels, so the odds are even."""
    votes = [judgement(1, "a", True), judgement(1, "b", False)]
    assert consensus.posteriors(votes, symmetric=True)[1] == pytest.approx(0.5)
    # One vote: the judge is right 8 times of 10 before, and (8 + p) of 11 with it. So p = 0.8.
    assert consensus.posteriors(votes[:1], symmetric=True)[1] == pytest.approx(0.8)


def test_order_makes_no_difference_to_the_last_bit():
    votes, _ = panel({"a": 0.9, "b": 0.7, "c": 0.6})
    mixed = list(votes)
    Random(2).shuffle(mixed)
    assert consensus.posteriors(mixed, symmetric=False) == consensus.posteriors(
        votes, symmetric=False
    )


def conflicts(signals: list[Signal]) -> list[Conflict]:
    return list(vote_signals.weigh_feedback(signals).conflicts)


def test_opposite_choices_are_recorded_and_make_no_pair():
    choices = [choose("a", "b"), choose("b", "a", actor="bob")]
    (conflict,) = conflicts(choices)
    assert (conflict.kind, conflict.method, conflict.resolution) == (
        "pair",
        "majority",
        "undecided",
    )
    assert {conflict.for_ids, conflict.against_ids} == {(choice.feedback_id,) for choice in choices}
    weighed = vote_signals.weigh_feedback(choices)
    assert pairs(weighed) == []
    assert set(weighed.reasons.values()) == {"undecided"}


def test_the_majority_wins_and_the_other_is_overruled():
    choices = [choose("a", "b", actor=who) for who in ("x", "y", "z")] + [choose("b", "a")]
    weighed = vote_signals.weigh_feedback(choices)
    assert pairs(weighed) == [("a", "b", "choice", 0.5)]
    assert weighed.reasons[choices[-1].feedback_id] == "overruled"


def test_more_ties_than_choices_are_a_tie():
    choices = [choose("a", "b"), *(choose("b", "a", tie=True, actor=who) for who in ("x", "y"))]
    (conflict,) = conflicts(choices)
    assert (conflict.method, conflict.resolution, conflict.weight_tied) == ("ties", "undecided", 2)
    assert pairs(vote_signals.weigh_feedback(choices)) == []


def test_an_actors_newest_choice_counts():
    old = choose("a", "b", minutes=1)
    new = choose("b", "a", minutes=2)
    weighed = vote_signals.weigh_feedback([new, old])
    assert pairs(weighed) == [("b", "a", "choice", 1)]
    assert weighed.reasons[old.feedback_id] == "superseded"
    assert not weighed.conflicts


def test_praise_of_a_corrected_answer_is_recorded():
    praise = signal("thumb", "up", actor="bob")
    (conflict,) = conflicts([correct("right"), praise])
    assert (conflict.kind, conflict.method, conflict.for_ids) == (
        "label", "correction", (praise.feedback_id,),
    )  # fmt: skip


def test_of_two_corrections_the_newer_is_the_target_and_both_are_pairs():
    old, new = correct("good", actor="ann", minutes=1), correct("better", actor="bob", minutes=2)
    weighed = vote_signals.weigh_feedback([old, new])
    assert weighed.targets == {new.feedback_id: ("a",)}
    assert [pair[:2] for pair in pairs(weighed)] == [("better", "a"), ("good", "a")]
    (conflict,) = weighed.conflicts
    assert (conflict.kind, conflict.method, conflict.against_ids) == (
        "correction", "newest", (old.feedback_id,),
    )  # fmt: skip


def test_with_enough_shared_judgements_the_reliable_judge_is_believed():
    """Twenty-four pairs with three judges: two always agree, the third always disagrees."""
    answers = [vote_signals.answer(f"{side}{n}", prompt=f"{n}") for n in range(30) for side in "ab"]
    choices = [
        choose(f"a{n}", f"b{n}", actor=who, minutes=600 * n)
        for n in range(24)
        for who in ("x", "y")
    ]
    choices += [choose(f"b{n}", f"a{n}", actor="z", minutes=600 * n) for n in range(24)]
    choices += [choose("a29", "b29", actor="x"), choose("b29", "a29", actor="z")]
    weighed = vote_signals.weigh_feedback(choices, answers, trusted=("x", "y", "z"))
    assert {conflict.method for conflict in weighed.conflicts} == {"dawid_skene"}
    texts = weighed.answers.texts
    assert "a29" in {texts[pair.chosen].text for pair in weighed.pairs}
