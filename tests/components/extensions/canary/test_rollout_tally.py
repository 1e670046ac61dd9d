"""What counts, for which arm, and what is left out."""

from collections.abc import Mapping
from dataclasses import replace

from components.extensions.canary import rollout_evidence
from components.extensions.canary.count_evidence import ArmCounts, RolloutCounts
from components.extensions.canary.rollout_evidence import (
    AnswerLine,
    DislikeLine,
    EvidenceLine,
    PairLine,
)
from components.extensions.canary.rollout_tally import RolloutTally
from components.serve.rollout import Arm
from components.serve.rollout_settings import BadKind


def answer(
    name: str, arm: Arm = "champion", share: float = 0.1, at: float = 0.0, *kinds: BadKind
) -> AnswerLine:
    return AnswerLine(at, name, share, arm, frozenset(kinds), f"{name} at {at}")


def tally_of(*lines: EvidenceLine, windows: Mapping[BadKind, float] | None = None) -> RolloutTally:
    tally = RolloutTally(windows or {})
    for line in lines:
        written = rollout_evidence.read_line(rollout_evidence.to_bytes(line))
        assert written == line
        tally.add(line)
    return tally


def test_nothing_counts_as_nothing():
    assert RolloutTally().counts(1.0) == RolloutCounts({}, {})


def test_a_conversation_counts_once_for_each_kind():
    turns = [answer("a", "canary", 0.1, at, "invalid") for at in (0.0, 1.0)]
    counts = tally_of(*turns, *turns, answer("a", "canary", 0.1, 2.0, "slow")).counts(3.0)
    assert counts.conversations == {0.1: ArmCounts(canary=1)}
    assert counts.bad == {"invalid": {0.1: ArmCounts(1, 0)}, "slow": {0.1: ArmCounts(1, 0)}}


def test_late_feedback_counts_for_the_share_and_the_version_of_its_answer():
    early, late = answer("a", "canary", 0.1, 0.0), answer("b", "canary", 0.5, 10.0)
    counts = tally_of(early, late, DislikeLine(100.0, "a at 0.0")).counts(100.0)
    assert counts.bad == {"disliked": {0.1: ArmCounts(canary=1)}}
    assert counts.conversations == {0.1: ArmCounts(canary=1), 0.5: ArmCounts(canary=1)}


def test_a_conversation_that_was_drawn_again_counts_up_to_there_whether_it_moved_or_not():
    counts = tally_of(
        answer("a", "champion", 0.1, 0.0, "invalid"),
        answer("b", "canary", 0.1, 0.0, "invalid"),
        answer("a", "canary", 0.5, 10.0, "cut"),
        answer("b", "canary", 0.5, 10.0, "cut"),
    ).counts(10.0)
    assert counts.bad == {"invalid": {0.1: ArmCounts(1, 1)}}
    assert (counts.conversations, counts.left_out) == ({0.1: ArmCounts(1, 1)}, 2)


def test_an_arm_that_differs_from_the_draw_does_not_count():
    counts = tally_of(answer("a", "canary"), answer("a", "champion", 0.1, 1.0, "cut")).counts(1.0)
    assert (counts.bad, counts.left_out) == ({}, 1)


def test_with_a_window_events_count_when_the_conversation_is_so_old():
    turns = answer("a"), answer("a", at=50.0), answer("b", "canary", 0.1, 0.0, "slow")
    windows: dict[BadKind, float] = {"disliked": 100.0}
    in_time = tally_of(*turns, DislikeLine(90.0, "a at 50.0"), windows=windows)
    assert in_time.counts(99.0).bad == {"slow": {0.1: ArmCounts(1, 0)}}
    assert in_time.counts(100.0).bad["disliked"] == {0.1: ArmCounts(0, 1)}
    late = tally_of(*turns, DislikeLine(110.0, "a at 50.0"), windows=windows)
    assert "disliked" not in late.counts(1e6).bad
    assert late.counts(1e6).late == {"disliked": ArmCounts(0, 1)}


def test_feedback_to_answers_that_nobody_knows_counts_for_nobody():
    tally = RolloutTally(most_answers=1)
    tally.add(AnswerLine(1, "a", 0.5, "canary", frozenset(), "one"))
    tally.add(AnswerLine(2, "b", 0.5, "canary", frozenset(), "two"))
    tally.add(AnswerLine(3, "c", 0.5, "canary", frozenset({"error"}), None))
    for name in ("one", "foreign"):
        tally.add(DislikeLine(4, name))
    assert "disliked" not in tally.counts(5).bad
    tally.add(DislikeLine(4, "two"))
    assert tally.counts(5).bad["disliked"] == {0.5: ArmCounts(1, 0)}


def test_feedback_that_another_gateway_sends_before_the_answer_counts_with_it():
    tally = RolloutTally({"disliked": 30.0}, most_early=2)
    for name in ("forgotten", "one", "two", "two"):
        tally.add(DislikeLine(4, name))
    assert not tally.counts(100).bad
    for conversation in ("one", "two", "forgotten"):
        tally.add(AnswerLine(3, conversation, 0.5, "canary", frozenset(), conversation))
    assert tally.counts(32).bad == {}
    assert tally.counts(33).bad["disliked"] == {0.5: ArmCounts(2, 0)}


def test_conversations_beyond_the_room_are_left_out():
    tally = RolloutTally(most_conversations=2)
    for name in "abc":
        tally.add(AnswerLine(1, name, 0.5, "canary", frozenset({"cut"}), None))
    counts = tally.counts(2)
    assert counts.conversations == {0.5: ArmCounts(2, 0)}
    assert counts.bad == {"cut": {0.5: ArmCounts(2, 0)}}
    assert counts.left_out == 1


def test_a_shadow_counts_the_first_pair_of_a_conversation_that_differs():
    tally = RolloutTally()
    bad, good = frozenset[BadKind]({"invalid"}), frozenset[BadKind]()
    for conversation, canary, champion in [
        ("a", bad, bad),
        ("a", bad, good),
        ("a", good, bad),
        ("b", good, bad),
        ("c", good, good),
    ]:
        tally.add(PairLine(1, conversation, canary, champion))
    assert tally.shadow_counts().bad == {"invalid": {0.5: ArmCounts(1, 1)}}
    assert tally.shadowed == 5


def drawn(name: str, arm: Arm, *asker: str) -> AnswerLine:
    return AnswerLine(0.0, name, 0.5, arm, frozenset({"slow"}), None, asker)


def test_a_user_counts_for_a_tenth_of_a_kind_at_most():
    tally = RolloutTally()
    for number in range(50):
        tally.add(drawn(f"heavy {number}", "champion", "app", "app heavy"))
    assert tally.counts(1.0).bad == {"slow": {0.5: ArmCounts(0, 2)}}
    for number in range(60):
        tally.add(drawn(f"other {number}", "canary", "app", f"app {number}"))
        tally.add(drawn(f"heavy again {number}", "champion", "app", "app heavy"))
    assert tally.counts(1.0).bad == {"slow": {0.5: ArmCounts(60, 7)}}
    assert tally.counts(1.0).conversations == {0.5: ArmCounts(60, 110)}


def test_a_client_with_few_conversations_decides_nothing_alone():
    tally = RolloutTally()
    for number in range(900):
        tally.add(replace(drawn(str(number), "champion", "shop"), kinds=frozenset[BadKind]()))
    for number in range(20):
        tally.add(drawn(f"mine {number}", "canary", "other"))
    assert tally.counts(1.0).bad == {"slow": {0.5: ArmCounts(2, 0)}}
    for number in range(20):
        tally.add(drawn(f"shop {number}", "canary", "shop"))
    assert tally.counts(1.0).bad == {"slow": {0.5: ArmCounts(22, 0)}}
