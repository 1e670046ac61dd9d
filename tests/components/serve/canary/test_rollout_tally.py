"""Lines that are counted as they come give what counting all of them at once gives."""

import random
from dataclasses import replace

import pytest

from components.serve.canary import bad_events, rollout_evidence
from components.serve.canary.bad_events import ArmAnswer, ArmCounts, BadEvent, BadKind
from components.serve.canary.conversation_arms import Arm
from components.serve.canary.rollout_evidence import AnswerLine, DislikeLine, PairLine
from components.serve.canary.rollout_tally import RolloutTally

KINDS: tuple[BadKind, ...] = ("error", "invalid", "cut", "slow")


WINDOWS: list[dict[BadKind, float]] = [{}, {"disliked": 30.0, "cut": 5.0}]


@pytest.mark.parametrize("windows", WINDOWS)
def test_counting_line_by_line_is_counting_all_at_once(windows: dict[BadKind, float]):
    draws = random.Random(7)
    answers, events, made = list[ArmAnswer](), list[BadEvent](), list[tuple[str, ArmAnswer]]()
    tally = RolloutTally(windows)
    for number in range(2_000):
        now = float(number) / 10
        if made and draws.random() < 0.2:
            name, answer = draws.choice(made)
            tally.add(DislikeLine(now, name))
            events.append(BadEvent(answer, "disliked", now))
        else:
            # some conversations are forgotten, and drawn again under another share
            share = draws.choice((0.1, 0.1, 0.1, 0.5))
            arm: Arm = "canary" if draws.random() < share else "champion"
            answer = ArmAnswer(now, share, arm, str(draws.randrange(300)))
            kinds = frozenset[BadKind](kind for kind in KINDS if draws.random() < 0.1)
            made.append((str(number), answer))
            line = AnswerLine(now, answer.conversation, share, arm, kinds, str(number))
            assert rollout_evidence.read_line(rollout_evidence.to_bytes(line)) == line
            tally.add(line)
            answers.append(answer)
            events += [BadEvent(answer, kind, now) for kind in kinds]
        if number % 500 == 499:
            assert tally.counts(now) == bad_events.count(answers, events, now, windows)


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
