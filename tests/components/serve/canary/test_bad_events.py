"""What counts, for which arm, and what is left out; whatever order the records come in."""

import itertools
import random

import pytest

from components.serve.canary import bad_events
from components.serve.canary.bad_events import ArmAnswer, ArmCounts, BadEvent, BadKind
from components.serve.canary.conversation_arms import Arm

LATER = 1e6


def answer(name: str, arm: Arm = "champion", share: float = 0.1, at: float = 0.0) -> ArmAnswer:
    return ArmAnswer(at, share, arm, name)


def bad(about: ArmAnswer, kind: BadKind = "invalid", after: float = 0.0) -> BadEvent:
    return BadEvent(about, kind, about.at + after)


def test_nothing_counts_as_nothing():
    counts = bad_events.count([], [], LATER)
    assert (counts.conversations, counts.bad, counts.left_out) == ({}, {}, 0)


def test_a_conversation_counts_once_for_each_kind():
    turns = [answer("a", "canary", at=at) for at in range(3)]
    events = [bad(turn) for turn in turns] * 2 + [bad(turns[2], "slow")]
    counts = bad_events.count([*turns, *turns], events, LATER)
    assert counts.conversations == {0.1: ArmCounts(canary=1)}
    assert counts.bad == {"invalid": {0.1: ArmCounts(1, 0)}, "slow": {0.1: ArmCounts(1, 0)}}


def test_late_feedback_counts_for_the_share_and_the_version_of_its_answer():
    early, late = answer("a", "canary", 0.1, 0.0), answer("b", "canary", 0.5, 10.0)
    counts = bad_events.count([late], [bad(early, "disliked", 100.0)], LATER)
    assert counts.bad == {"disliked": {0.1: ArmCounts(canary=1)}}
    assert counts.conversations == {0.1: ArmCounts(canary=1), 0.5: ArmCounts(canary=1)}


def test_what_is_not_known_yet_does_not_count():
    early = answer("a")
    events = [bad(early, "disliked", 100.0)]
    assert bad_events.count([early], events, 99.0).bad == {}
    assert bad_events.count([early], events, 100.0).bad == {"disliked": {0.1: ArmCounts(0, 1)}}
    assert bad_events.count([early], [], -1.0).conversations == {}


def test_a_conversation_that_was_drawn_again_counts_up_to_there_whether_it_moved_or_not():
    moved = [answer("a", "champion", 0.1, 0.0), answer("a", "canary", 0.5, 10.0)]
    stayed = [answer("b", "canary", 0.1, 0.0), answer("b", "canary", 0.5, 10.0)]
    before, after = [bad(moved[0]), bad(stayed[0])], [bad(moved[1]), bad(stayed[1])]
    answers = [*moved, *stayed]
    counts = bad_events.count(answers, after, LATER)
    assert (counts.bad, counts.left_out) == ({}, 2)
    assert bad_events.count(answers, before, LATER).bad == {"invalid": {0.1: ArmCounts(1, 1)}}
    assert counts.conversations == {0.1: ArmCounts(1, 1)}


def test_an_arm_that_differs_from_the_draw_does_not_count():
    turns = [answer("a", "canary", at=0.0), answer("a", "champion", at=1.0)]
    counts = bad_events.count(turns, [bad(turns[1])], LATER)
    assert (counts.bad, counts.left_out) == ({}, 1)


def test_with_a_window_events_count_when_the_conversation_is_so_old():
    turns = [answer("a", at=0.0), answer("a", at=50.0)]
    in_time, late = [bad(turns[1], "disliked", 40.0)], [bad(turns[1], "disliked", 60.0)]
    windows: dict[BadKind, float] = {"disliked": 100.0}
    assert bad_events.count(turns, in_time, 99.0, windows).bad == {}
    assert bad_events.count(turns, in_time, 100.0, windows).bad
    assert bad_events.count(turns, late, LATER, windows).bad == {}
    assert bad_events.count(turns, [bad(turns[0], "slow")], 99.0, windows).bad


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_records_changes_nothing(seed: int):
    shuffled = random.Random(seed)
    answers = [
        answer(str(name), arm, share, float(at))
        for name, arm, share, at in itertools.product(
            range(4), ("canary", "champion"), (0.0, 0.1, 0.5), range(2)
        )
    ]
    answers = shuffled.sample(answers, 20)
    events = [bad(each, shuffled.choice(("error", "cut")), 5.0) for each in answers[:12]]
    before = bad_events.count(answers, events, LATER)
    shuffled.shuffle(answers)
    shuffled.shuffle(events)
    assert bad_events.count([*answers, *answers[:7]], [*events, *events[:3]], LATER) == before
