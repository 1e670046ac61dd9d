"""The scores of a text against its reference."""

import random
import time

import pytest

from components.evaluate import text_answers

EXPECTED = ("exact", "f1", "rouge_l")


def scores(text: str, reference: str) -> tuple[float | None, ...]:
    scored = text_answers.score_text(text, reference)
    return tuple(scored[name] for name in EXPECTED)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        pytest.param("It rains.", "It  rains.\n", (1, 1, 1), id="but-for-blanks"),
        pytest.param("it rains", "It rains.", (0, 1, 1), id="but-for-case-and-punctuation"),
        pytest.param("rains it", "It rains", (0, 1, 0.5), id="in-another-order"),
        pytest.param("it rains here", "it rains now too", (0, 4 / 7, 4 / 7), id="in-part"),
        pytest.param("a a b", "a b b", (0, 2 / 3, 2 / 3), id="each-word-as-often-as-it-occurs"),
        pytest.param("", "It rains", (0, 0, 0), id="nothing"),
        pytest.param("Übermäßig schön", "übermäßig grün", (0, 0.5, 0.5), id="umlauts-are-letters"),
        pytest.param("की बात", "का बात", (0, 0.5, 0.5), id="vowel-signs-are-part-of-a-word"),
        pytest.param("שָׁלוֹם", "שָׁלוֹם.", (0, 1, 1), id="accents-end-no-word"),
        pytest.param("cafe\u0301", "café!", (0, 1, 1), id="accents-in-either-form"),
        pytest.param("cafe\u0301", "caf\u00e9", (1, 1, 1), id="the-same-accents-in-either-form"),
        pytest.param("\U0001f44d", "\U0001f44d", (1, 1, 1), id="the-right-sign"),
        pytest.param("\U0001f44e", "\U0001f44d", (0, 0, 0), id="another-sign"),
        pytest.param("", "\U0001f44d", (0, 0, 0), id="nothing-for-a-sign"),
        pytest.param("ฝนตก", "ฝนหยุด", (0, 4 / 9, 4 / 9), id="thai-by-character"),
        pytest.param("今日は雨", "明日は雨", (0, 0.75, 0.75), id="japanese-by-character"),
    ],
)
def test_a_text_is_scored_by_its_words(text: str, reference: str, expected: tuple[float, ...]):
    assert scores(text, reference) == pytest.approx(expected)


def test_rouge_l_is_that_of_its_authors_library():
    from rouge_score.rouge_scorer import RougeScorer  # it loads NLTK, which no other test does

    library = RougeScorer(["rougeL"])
    draw = random.Random(0)
    for _ in range(100):
        text, reference = (
            " ".join(draw.choices(("rain", "sun", "wind", "snow"), k=draw.randint(1, 90)))
            for _ in range(2)
        )
        expected = library.score(reference, text)["rougeL"].fmeasure
        assert text_answers.score_text(text, reference)["rouge_l"] == expected


def test_long_texts_are_scored_at_once():
    draw = random.Random(0)
    report, other = (" ".join(draw.choices("abcdefgh", k=20_000)) for _ in range(2))
    began = time.process_time()
    scored = text_answers.score_text(report, other)["rouge_l"]
    assert time.process_time() - began < 5
    assert scored is not None
    assert 0.5 < scored < 1
