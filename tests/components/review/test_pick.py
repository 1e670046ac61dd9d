"""Which interactions are picked first, and the reasons, on made-up tables."""

import random
import tracemalloc

import pytest

from components.review.pick import Reviewable, pick


def known(name: str, **changes: object) -> Reviewable:
    """Make an interaction without feedback and measurements."""
    plain: dict[str, object] = {
        "interaction_id": name,
        "workload_id": "weather",
        "client_id": "app",
        "response_id": f"r-{name}",
        "example_id": f"e-{name}",
        "messages": "[]",
        "tools": "[]",
        "answer": "{}",
        "cluster_id": name,
        "requests": 1,
        "judged": 0,
        "labels": 1,
        "people_for": 0,
        "people_against": 0,
        "flags": [],
    }
    return Reviewable(**(plain | changes))  # pyright: ignore[reportArgumentType]


TABLE = [
    known("disputed", judged=2, people_for=2, people_against=1),
    known("divided", models=3, right=1),
    known("contradicted", models=2),
    known("varied", requests=4, labels=2),
    known("large", requests=40),
    known("small", requests=3),
    known("flagged", flags=["refusal"]),
    known("flagged-twice", flags=["language", "refusal"]),
    known("agreed", models=2, right=2),
    known("covered", requests=40, judged=1),
]


def test_disputes_come_first_then_divided_models_then_unjudged_requests() -> None:
    order = [question.about.interaction_id for question in pick(TABLE, 20)]
    assert order == [
        "disputed",
        "divided",
        "varied",
        "contradicted",
        "large",
        "flagged-twice",
        "flagged",
        "small",
        "agreed",
        "covered",
    ]


def test_the_order_of_the_input_does_not_matter() -> None:
    shuffled = list(TABLE)
    random.Random(1).shuffle(shuffled)
    assert pick(shuffled, 5) == pick(TABLE, 5)
    assert len(pick(TABLE, 5)) == 5


def test_one_of_several_near_duplicates_is_picked() -> None:
    twins = [known(name, cluster_id="twins", requests=2) for name in ("b", "a")]
    picked = pick([*twins, known("c")], 5)
    assert [question.about.interaction_id for question in picked] == ["a", "c"]


@pytest.mark.parametrize(
    ("facts", "texts"),
    [
        pytest.param(TABLE[0], ["people disagree: 2 for, 1 against"], id="people"),
        pytest.param(
            TABLE[1],
            ["models disagree: 1 of 3 answer as logged", "nobody has judged it"],
            id="models",
        ),
        pytest.param(
            TABLE[3],
            [
                "4 requests like it were answered in 2 ways",
                "nobody has judged any of the 4 requests like it",
            ],
            id="answers",
        ),
        pytest.param(
            TABLE[7], ["flagged by language, refusal", "nobody has judged it"], id="rules"
        ),
        pytest.param(TABLE[9], [], id="nothing"),
    ],
)
def test_every_part_of_a_score_has_a_reason(facts: Reviewable, texts: list[str]) -> None:
    (question,) = pick([facts], 1)
    assert [reason.text for reason in question.reasons] == texts
    assert question.points == sum(reason.points for reason in question.reasons)


def test_of_a_long_log_only_the_best_are_held():
    texts = (known(f"{n:05}", messages=f"{n}" * 4000, requests=1 + n % 997) for n in range(4000))
    tracemalloc.start()
    picked = pick(texts, 5)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [question.about.requests for question in picked] == [997] * 4 + [996]
    assert most < 40_000_000  # all are 64 MB
