"""Common ids and requests tie nothing; the turns of one conversation stay together."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from components.curate import interaction, row_clusters
from components.curate.row_clusters import RequestOrigin
from components.curate.settings import SplitBy
from components.curate.split import Shares
from components.schema import Json
from tests.support import curated_rows, logs, placing
from tests.support.placing import Row


def read(
    *texts: str, conversation: str | None = None, user: str | None = None, answer: str = "Fine."
) -> tuple[Row, RequestOrigin]:
    """Return the origin of a request with alternating user and assistant turns."""
    roles = ("user", "assistant") * len(texts)
    messages: list[Json] = [
        {"role": role, "content": text} for role, text in zip(roles, texts, strict=False)
    ]
    row = curated_rows.row(messages=messages, tools=[], message=logs.say(answer))
    row = replace(row, example_id="/".join(texts), conversation_id=conversation, user_id=user)
    origin = row_clusters.request_origin(row, interaction.read(row), "conversation", None)
    return Row((row.example_id,), "text", logs.NOW), origin


def components(
    rows: Sequence[tuple[Row, RequestOrigin]], split_by: SplitBy = "conversation"
) -> list[str]:
    placed = placing.tie_and_place(rows, split_by, Shares(split_by, 0.2, 0))
    return [row.component_id for row in placed]


def test_turns_that_repeat_their_history_are_one_conversation_though_all_begin_alike():
    rows = [
        read(*("hi", "Hello!", f"about {n}", "Yes?", f"more of {n}")[: 2 * turn + 1])
        for n in range(10)
        for turn in (1, 2)
    ]
    names = components(rows)
    assert names[::2] == names[1::2]
    assert len({*names}) == 10


def test_turns_with_a_truncated_history_are_tied_by_the_repeated_answer():
    rows = [
        read(*(f"a{t - 1}", f"b{t - 1}", f"a{t}") if t else ("a0",), answer=f"b{t}")
        for t in range(5)
    ]
    assert len({*components(rows)}) == 1


def test_a_request_that_many_conversations_made_belongs_to_none():
    rows = [read("hi", conversation=f"c{n}") for n in range(10)]
    rows += [read(f"about {n} {t}", conversation=f"c{n}") for n in range(10) for t in range(2)]
    assert len({*components(rows)}) == 11


def test_the_requests_of_one_user_are_one_cluster_but_not_those_of_an_application():
    people = [
        read(f"{n} {t}", conversation=f"c{n} {t}", user=f"u{n}") for n in range(20) for t in (0, 1)
    ]
    assert len({*components(people)}) == 20
    one_id = [read(f"{n}", conversation=f"c{n}", user="service") for n in range(60)]
    assert len({*components([*people, *one_id])}) == 80


def test_a_question_that_many_people_asked_is_nobodys_without_a_conversation_id_too():
    rows = [read("hi", user=f"u{n}") for n in range(6)]
    rows += [read(f"about {n} {t}", user=f"u{n}") for n in range(6) for t in range(2)]
    assert len({*components(rows)}) == 7
    assert len({*components(rows, "user")}) == 7


def test_questions_that_two_people_asked_do_not_join_the_sides_of_all_that_they_asked():
    rng = random.Random(0)
    asked = [(f"u{rng.randrange(200)}", f"about {rng.randrange(500)}") for _ in range(800)]
    rows = [read(question, user=user) for user, question in asked]
    placed = placing.tie_and_place(rows, "user", Shares("user", 0.2, 0))
    sides: dict[str, set[str]] = defaultdict(set)
    askers: dict[str, set[str]] = defaultdict(set)
    for (user, question), row in zip(asked, placed, strict=True):
        sides[question].add(row.side)
        askers[question].add(user)
    held = [question for question, of in sides.items() if of == {"holdout"}]
    assert all(len(of) == 1 for of in sides.values())
    assert 0.16 <= len(held) / len(sides) <= 0.24
    alone = defaultdict[str, set[str]](set)
    for question, (user, *others) in askers.items():
        if not others:
            alone[user] |= sides[question]
    assert all(len(of) == 1 for of in alone.values())


def test_a_person_with_up_to_half_of_the_rows_is_one_cluster():
    for share, clusters in ((0.3, 71), (0.36, 65), (0.5, 51), (0.6, 100)):
        rows = [read(f"{n}", user="heavy" if n < 100 * share else f"u{n}") for n in range(100)]
        assert len({*components(rows)}) == clusters


def test_a_conversation_id_on_every_row_is_ignored():
    assert len({*components([read(f"about {n}", conversation="default") for n in range(40)])}) == 40


def test_one_user_message_in_many_contexts_ties_nothing():
    rows: list[tuple[Row, RequestOrigin]] = []
    for n in range(10):
        messages: Json = [
            {"role": "system", "content": f"Document {n}"},
            {"role": "user", "content": "Go."},
        ]
        row = replace(curated_rows.row(messages=messages, tools=[]), example_id=f"e{n}")
        origin = row_clusters.request_origin(row, interaction.read(row), "conversation", None)
        rows.append((Row((row.example_id,), "text", logs.NOW), origin))
    assert len({*components(rows)}) == 10


@pytest.mark.parametrize("has_ids", [True, False])
@pytest.mark.parametrize("conversations", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_the_holdout_has_its_share_though_half_of_the_conversations_begin_with_hi(
    conversations: int, has_ids: bool
):
    shares: list[float] = []
    for seed in range(20 if conversations == 60 else 6):
        rng = random.Random(seed)
        rows: list[tuple[Row, RequestOrigin]] = []
        for n in range(conversations):
            texts = ["hi" if rng.random() < 0.5 else f"about {n}"]
            for turn in range(min(12, 1 + int(rng.expovariate(0.4)))):
                texts += ["Yes?", f"{n} {turn}"] if turn else []
                member, origin = read(*texts, conversation=f"c{n}" if has_ids else None)
                later = logs.NOW + timedelta(minutes=60 * n + turn)
                label = rng.choice("abcd")
                rows.append((replace(member, label=label, logged_at=later), origin))
        placed = placing.tie_and_place(rows, "conversation", Shares("conversation", 0.2, 0))
        sides = {row.ties[0]: at.side for (row, _), at in zip(rows, placed, strict=True)}
        shares.append([*sides.values()].count("holdout") / len(sides))
    within = [0.16 <= share <= 0.24 for share in shares]
    assert sum(within) >= 0.95 * len(within)
