"""Conversations keep their arm whatever the share becomes, and nobody can choose one."""

from collections import Counter

import numpy as np
import pytest

from components.extensions.canary import conversation_arms
from components.extensions.canary.conversation_arms import (
    Assignment,
    DrawnConversation,
    RunningConversations,
)
from components.schema import Json

SEED = bytes(range(32))
SHARES = (0.01, 0.1, 0.5)


def chat(question: str, *turns: str) -> list[dict[str, Json]]:
    messages: list[dict[str, Json]] = [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": question},
    ]
    for number, turn in enumerate(turns):
        role = "user" if number % 2 else "assistant"
        messages.append({"role": role, "content": turn})
    return messages


def identify(
    seed: bytes, client: str, messages: list[dict[str, Json]], named: str | None = None
) -> DrawnConversation:
    return conversation_arms.identify(seed, client, messages, named)[0]


def test_turns_of_a_conversation_are_the_same_conversation():
    turns = ("There.", "Thanks", "You're welcome.", "Bye")
    for _ in range(2):  # the second time with what a restart has of it
        running = RunningConversations()
        began = ask(running, chat("Where is it?"))
        again = RunningConversations(shares={began.conversation: began.share})
        for known in (running, again):
            for number in (2, 4):
                assert ask(known, chat("Where is it?", *turns[:number])) == began


def ask(running: RunningConversations, messages: list[dict[str, Json]]) -> Assignment:
    return running.assign(conversation_arms.identify(SEED, "shop", messages), 0.5)


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(chat("good", "positive", "bad", "negative"), id="examples"),
        pytest.param([{"role": "assistant", "content": "Hello! How can I help?"}], id="greeting"),
    ],
)
def test_requests_that_begin_alike_are_drawn_apart_and_their_later_turns_with_them(
    beginning: list[dict[str, Json]],
):
    running = RunningConversations()
    arms = Counter[str]()
    for number in range(400):
        asked: list[dict[str, Json]] = [
            *beginning,
            {"role": "user", "content": f"question {number}"},
        ]
        first = ask(running, asked)
        answered: dict[str, Json] = {"role": "assistant", "content": "x"}
        assert ask(running, [*asked, answered, {"role": "user", "content": "And?"}]) == first
        arms[first.arm] += 1
    assert arms.total() == 400
    assert 160 < arms["canary"] < 240


@pytest.mark.parametrize(
    ("client", "question", "name", "seed"),
    [
        pytest.param("other", "Where is it?", None, SEED, id="another-client"),
        pytest.param("shop", "Where is he?", None, SEED, id="another-question"),
        pytest.param("shop", "Where is it?", "c-1", SEED, id="named"),
        pytest.param("shop", "Where is it?", None, SEED[::-1], id="another-canary"),
    ],
)
def test_other_conversations_have_other_points(
    client: str, question: str, name: str | None, seed: bytes
):
    usual = identify(SEED, "shop", chat("Where is it?"))
    other = identify(seed, client, chat(question), name)
    assert other.key != usual.key
    assert other.point != usual.point


def test_a_name_counts_instead_of_the_text():
    named = [identify(SEED, "shop", chat(text), "c-1") for text in ("a", "b")]
    assert named[0] == named[1]
    assert identify(SEED, "shop", chat("a"), "c-2") != named[0]


def test_a_name_is_not_mistaken_for_a_text():
    opening: list[dict[str, Json]] = [{"role": "user", "content": "x"}]
    text = identify(SEED, "shop", opening)
    assert identify(SEED, "shop", opening, '[["user", "x"]]').key != text.key


def test_content_in_parts_and_no_user_message_are_conversations_too():
    parts: list[Json] = [{"type": "text", "text": "é \ud800"}]
    assert identify(SEED, "shop", [{"role": "user", "content": parts}]).point < 1
    alone = identify(SEED, "shop", [{"role": "system", "content": "a"}])
    assert alone != identify(SEED, "shop", [])


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_seed_that_is_no_secret_is_refused(size: int):
    with pytest.raises(ValueError, match="seed"):
        identify(bytes(size), "shop", [])


def test_points_are_uniform_and_independent_of_another_canarys():
    def points(seed: bytes) -> list[float]:
        named = (identify(seed, "c", [], str(i)) for i in range(4_000))
        return [each.point for each in named]

    one, other = np.array(points(SEED)), np.array(points(SEED[::-1]))
    assert 0 <= one.min() <= one.max() < 1
    counts = np.histogram(one, 20, (0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 43.8  # chi-square, 19 degrees of freedom, 0.1 %
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def test_a_ramp_moves_no_running_conversation():
    running = RunningConversations()
    named = [identify(SEED, "c", [], str(i)) for i in range(3_000)]
    began = dict[str, Assignment]()
    for step, share in enumerate(SHARES):
        for each in named[: 1_000 * (step + 1)]:
            assigned = running.assign([each], share)
            assert began.setdefault(each.key, assigned) == assigned
    late = [began[each.key] for each in named[2_000:]]
    assert {each.share for each in late} == {0.5}
    assert 440 < sum(each.arm == "canary" for each in late) < 560


def test_a_higher_share_keeps_everybody_in_the_canary():
    named = [identify(SEED, "c", [], str(i)) for i in range(1_000)]
    inside = [{c.key for c in named if conversation_arms.arm_of(c, s) == "canary"} for s in SHARES]
    assert inside[0] < inside[1] < inside[2]
    assert {conversation_arms.arm_of(c, 1.0) for c in named} == {"canary"}
    assert {conversation_arms.arm_of(c, 0.0) for c in named} == {"champion"}


def test_the_least_recently_used_conversations_are_forgotten():
    a, b, c = ([identify(SEED, "c", [], name)] for name in "abc")
    running = RunningConversations(capacity=2)
    running.assign(a, 0.1)
    running.assign(b, 0.1)
    running.assign(a, 0.5)
    assert running.assign(c, 0.5).is_new
    assert running.assign(a, 0.7).share == 0.1
    assert running.assign(b, 0.5).share == 0.5
