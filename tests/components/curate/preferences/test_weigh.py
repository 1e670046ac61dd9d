"""The table of README.md, row by row: the result of each kind of feedback."""

import re
from pathlib import Path

import pytest

from components.curate import preferences
from components.curate.preferences.feedback_signals import Signal
from components.schema import Json
from tests.support import vote_signals
from tests.support.vote_signals import choose, correct, labels, pairs, rate, say, signal

TALK = ("a", "b")


TABLE = [
    pytest.param([signal("thumb", "up")], [], [("a", True, 1)], id="thumb-up"),
    pytest.param([signal("thumb", "down")], [], [("a", False, 1)], id="thumb-down"),
    pytest.param([rate(5)], [], [("a", True, 1)], id="rating-at-the-top"),
    pytest.param([rate(4)], [], [("a", True, 0.5)], id="rating-above-the-middle"),
    pytest.param([rate(1)], [], [("a", False, 1)], id="rating-at-the-bottom"),
    pytest.param([rate(3)], [], [], id="rating-in-the-middle"),
    pytest.param(
        [rate(4), rate(2, about=["b"])], [("a", "b", "rating", 0.5)], [], id="ratings-apart"
    ),
    pytest.param(
        [rate(3), rate(5, about=["b"])], [("b", "a", "rating", 0.5)], [], id="middle-and-top"
    ),
    pytest.param(
        [rate(5), rate(4.5, about=["b"])], [], [("a", True, 1), ("b", True, 0.75)],
        id="ratings-alike",
    ),
    pytest.param(
        [rate(5), rate(3, about=["b"]), rate(1, about=["c"])],
        [("a", "c", "rating", 1)], [], id="three-ratings-one-pair",
    ),
    pytest.param(
        [rate(5), rate(1, about=["b"]), choose("b", "a", actor="bob")],
        [("b", "a", "choice", 1)], [("a", True, 1), ("b", False, 1)],
        id="compared-themselves-over-ratings",
    ),
    pytest.param([choose("a", "b")], [("a", "b", "choice", 1)], [], id="choice-of-responses"),
    pytest.param(
        [signal("choice", {"chosen": say("x"), "rejected": say("y")})],
        [("x", "y", "choice", 1)], [], id="choice-of-messages",
    ),
    pytest.param([choose("a", "b", tie=True)], [], [], id="tie"),
    pytest.param(
        [choose("a", "b"), choose("a", "b", tie=True, actor="bob")],
        [("a", "b", "choice", 0.5)], [], id="choice-and-tie",
    ),
    pytest.param(
        [signal("choice", {"chosen": say("x"), "rejected": say(" x ")})], [], [],
        id="choice-of-equals",
    ),
    pytest.param([correct("right")], [("right", "a", "correction", 1)], [], id="correction"),
    pytest.param([correct("a")], [], [], id="correction-that-changes-nothing"),
    pytest.param(
        [correct("right"), signal("thumb", "down")],
        [("right", "a", "correction", 1)], [("a", False, 1)], id="disliked-and-corrected",
    ),
    pytest.param(
        [correct("right"), signal("thumb", "up", actor="bob")],
        [("right", "a", "correction", 1)], [], id="corrected-over-liked",
    ),
    pytest.param(
        [correct("b"), signal("thumb", "down", about=["b"], actor="bob")],
        [("b", "a", "correction", 1)], [], id="corrected-to-a-disliked-one",
    ),
    pytest.param(
        [correct("a"), signal("thumb", "down", actor="bob")], [], [], id="disliked-and-confirmed"
    ),
    pytest.param([signal("regenerate", True)], [], [("a", False, 0.25)], id="regenerate"),
    pytest.param(
        [signal("regenerate", "r", named=(None, None, "b"))],
        [("b", "a", "regenerate", 0.25)], [("a", False, 0.25)], id="regenerate-with-new",
    ),
    pytest.param([signal("comment", "bad answer")], [], [], id="comment"),
    pytest.param(
        [signal("outcome", {"name": "solved", "value": True}, about=TALK)],
        [], [("a", True, 0.5), ("b", True, 0.5)], id="outcome-of-a-conversation",
    ),
    pytest.param(
        [signal("outcome", {"name": "escalated", "value": True})],
        [], [("a", False, 1)], id="outcome-that-means-failure",
    ),
    pytest.param(
        [signal("outcome", {"name": "escalated", "value": False})],
        [], [("a", True, 1)], id="failure-averted",
    ),
    pytest.param(
        [signal("outcome", {"name": "quality", "value": 0.2})],
        [], [("a", False, 0.6)], id="outcome-from-0-to-1",
    ),
    pytest.param(
        [signal("outcome", {"name": "task", "value": "Failed"})],
        [], [("a", False, 1)], id="outcome-in-words",
    ),
    pytest.param(
        [signal("outcome", {"name": "cost", "value": 37})], [], [], id="outcome-without-scale"
    ),
    pytest.param(
        [
            signal("outcome", {"name": "Toxicity", "value": 0.1}),
            signal("outcome", {"name": "hallucination", "value": True}, about=["b"]),
        ],
        [], [("a", True, 0.8), ("b", False, 1)], id="outcome-of-a-harm",
    ),
    pytest.param(
        [
            signal("outcome", {"name": "stars", "value": 1}),
            signal("outcome", {"name": "Stars", "value": 4}, about=["b"]),
        ],
        [], [], id="outcome-in-stars",
    ),
    pytest.param(
        [signal("thumb", "up"), signal("thumb", "up", actor="bob")],
        [], [("a", True, 1)], id="two-agree",
    ),
    pytest.param(
        [signal("regenerate", True), signal("regenerate", True, actor="bob")],
        [], [("a", False, 0.5)], id="two-weak-ones",
    ),
    pytest.param(
        [signal("thumb", "up"), signal("thumb", "down", actor="bob")], [], [],
        id="one-against-one",
    ),
    pytest.param(
        [signal("thumb", "up", actor=who) for who in "xyz"]
        + [signal("thumb", "down", actor="bob")],
        [], [("a", True, 0.5)], id="three-against-one",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("signals", "expected_pairs", "expected_labels"), TABLE)
def test_each_kind_of_feedback_has_the_documented_result(
    signals: list[Signal],
    expected_pairs: list[tuple[str, str, str, float]],
    expected_labels: list[tuple[str, bool, float]],
):
    weighed = vote_signals.weigh_feedback(signals)
    assert pairs(weighed) == expected_pairs
    assert labels(weighed) == expected_labels


@pytest.mark.parametrize(
    ("feedback", "regard", "dislike"),
    [
        pytest.param(signal("thumb", "up"), 1, None, id="liked"),
        pytest.param(signal("thumb", "down"), -1, "thumbs_down", id="disliked"),
        pytest.param(rate(4), 0.5, None, id="rated-high"),
        pytest.param(rate(1), -1, "rated_low", id="rated-low"),
        pytest.param(rate(2), -0.5, "rated_low", id="rated-in-the-lowest-quarter"),
        pytest.param(rate(2.2), -0.4, None, id="rated-below-the-middle"),
        pytest.param(
            signal("outcome", {"name": "solved", "value": False}), -1, None, id="not-solved"
        ),
        pytest.param(signal("regenerate", True), -0.25, None, id="regenerated"),
    ],
)
def test_feedback_raises_or_lowers_an_answer_or_leaves_it_out(
    feedback: Signal, regard: float, dislike: str | None
):
    (score,) = vote_signals.weigh_feedback([feedback]).regards
    assert score.interaction_id == "a"
    assert score.regard == pytest.approx(regard)
    assert score.dislike == dislike


@pytest.mark.parametrize(
    ("feedback", "reason"),
    [
        pytest.param(signal(is_waiting=True), "waiting", id="target-has-not-arrived"),
        pytest.param(
            signal("choice", {"chosen": "a", "rejected": "z"}, named=("a", None, None)),
            "waiting",
            id="rejected-has-not-arrived",
        ),
        pytest.param(signal(is_ambiguous=True), "different_prompts", id="id-of-several-prompts"),
        pytest.param(signal("comment", "why"), "says_nothing", id="comment"),
        pytest.param(
            signal("rating", 4, scale=[1, float("inf")]), "says_nothing", id="endless-scale"
        ),
        pytest.param(
            signal("rating", 4.5, scale=[1, 10**400]), "says_nothing", id="scale-beyond-floats"
        ),
        pytest.param(
            signal("rating", 0, scale=[-1e308, 1e308]), "says_nothing", id="ends-too-far-apart"
        ),
        pytest.param(
            signal("outcome", {"name": "solved", "value": float("nan")}), "says_nothing", id="nan"
        ),
        pytest.param(rate(3), "says_nothing", id="in-the-middle"),
        pytest.param(choose("a", "b", tie=True), "tie", id="tie"),
        pytest.param(
            signal("choice", {"chosen": say("x"), "rejected": say("x")}), "identical", id="equal"
        ),
        pytest.param(choose("a", "elsewhere"), "different_prompts", id="two-prompts"),
        pytest.param(
            signal("choice", {"chosen": say("x"), "rejected": say("y")}, about=["a", "elsewhere"]),
            "different_prompts",
            id="messages-to-no-one-prompt",
        ),
        pytest.param(signal("correction", {"role": "assistant"}), "unreadable_answer", id="empty"),
        pytest.param(signal(about=["silent"]), "unreadable_answer", id="nothing-was-answered"),
    ],
)
def test_a_signal_without_meaning_has_the_reason(feedback: Signal, reason: str):
    answers = [
        *(vote_signals.answer(interaction_id) for interaction_id in "ab"),
        vote_signals.answer("elsewhere", prompt="other"),
    ]
    weighed = vote_signals.weigh_feedback([feedback], [*answers, vote_signals.answer("silent", "")])
    assert weighed.reasons[feedback.feedback_id] == reason
    assert not weighed.pairs
    assert not weighed.labels


def test_equal_answers_to_one_prompt_share_their_feedback():
    answers = [vote_signals.answer("a", "same"), vote_signals.answer("b", " same\n")]
    weighed = vote_signals.weigh_feedback(
        [signal(), signal("thumb", "up", about=["b"], actor="bob")], answers
    )
    (label,) = weighed.labels
    assert label.interaction_ids == ("a", "b")
    assert len(label.feedback_ids) == 2


COPIES = [vote_signals.answer(name, "same") for name in "abc"]
FAILED: list[Json] = [{"name": name, "value": "no"} for name in ("solved", "closed", "useful")]


@pytest.mark.parametrize(
    "repeated",
    [
        pytest.param(
            [signal("thumb", "down", about=[name]) for name in "abc"], id="on-three-copies"
        ),
        pytest.param([signal("outcome", value) for value in FAILED], id="by-three-outcomes"),
    ],
)
def test_a_person_has_one_vote_on_an_answer_however_often_it_is_judged(repeated: list[Signal]):
    others = [signal("thumb", "up", actor=who) for who in ("bob", "eve")]
    (label,) = vote_signals.weigh_feedback([*repeated, *others], COPIES, actor_cap=1).labels
    assert (label.is_good, round(label.weight, 3)) == (True, 0.333)


def test_a_person_who_rates_copies_of_an_answer_counts_once_in_its_rating():
    others = [rate(5, actor="bob"), rate(5, actor="eve"), rate(1, about=["d"], actor="dan")]
    weighed = vote_signals.weigh_feedback(
        [*(rate(1, about=[name]) for name in "abc"), *others],
        [*COPIES, vote_signals.answer("d")],
        actor_cap=1,
    )
    assert pairs(weighed) == [("same", "d", "rating", 0.667)]


@pytest.mark.parametrize("actor", ["", "app"], ids=["without-a-name", "under-the-clients"])
def test_anonymous_people_have_a_vote_each(actor: str):
    likes = [signal("thumb", "up", about=[name], actor=actor) for name in "abc"]
    dislike = signal("thumb", "down", actor="bob")
    (label,) = vote_signals.weigh_feedback([*likes, dislike], COPIES, actor_cap=1).labels
    assert (label.is_good, label.weight) == (True, 0.5)


def test_anonymous_people_who_compared_two_answers_have_a_vote_each():
    voters = [choose("a", "b", actor="", minutes=n) for n in range(3)]
    last = choose("b", "a", actor="", minutes=3)
    weighed = vote_signals.weigh_feedback([*voters, last])
    assert pairs(weighed) == [("a", "b", "choice", 0.5)]
    assert weighed.reasons[last.feedback_id] == "overruled"


def test_the_table_in_the_docs_names_every_case():
    documented = Path(preferences.__path__[0], "README.md").read_text()
    rows = [line for line in documented.splitlines() if line.startswith("| ")]
    named = [case for line in rows for case in re.findall(r"`([a-z0-9-]+)`", line.split(" | ")[-1])]
    tested = [str(row.id) for row in TABLE]
    assert sorted(named) == sorted(tested)
