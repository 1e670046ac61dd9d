import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.near import hashed_words, nearest_texts
from components.curate.near.hashed_words import DigestedWords, WordColumn
from components.curate.near.nearest_texts import Nearest
from tests.support.cases import cases

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=12)


def nearest(texts: Sequence[str], references: Sequence[str], words: int = 3) -> Nearest:
    ours, theirs = (
        DigestedWords.of(hashed_words.column_of(pa.array(written, pa.large_string())))
        for written in (texts, references)
    )
    with ThreadPoolExecutor(2) as pool:
        return nearest_texts.nearest_by_ngrams(ours.words, theirs, words, pool)


def runs(text: str, words: int) -> set[tuple[str, ...]]:
    spoken = text.split()
    return {tuple(spoken[at : at + words]) for at in range(len(spoken) - words + 1)}


def share(text: str, other: str, words: int) -> float:
    first, second = runs(text, words), runs(other, words)
    shorter, common = min(len(first), len(second)), len(first & second)
    return common / shorter if common >= min(3, shorter) > 0 else 0.0


@given(TEXTS, TEXTS)
@cases(100)
def test_the_nearest_text_matches_a_brute_force_comparison(texts: list[str], references: list[str]):
    nearest_references = nearest(texts, references)
    for text, reference, most in zip(
        texts, nearest_references.references, nearest_references.shares, strict=True
    ):
        shares = [share(text, other, 3) for other in references]
        assert most == max(shares, default=0.0)
        assert (shares[reference] == most) if most else reference == -1


@pytest.mark.parametrize(("texts", "references"), [(3000, 1500), (1500, 3000)])
def test_a_phrase_of_many_texts_costs_memory_for_the_nearest_pairs_only(
    texts: int, references: int
):
    words = np.random.default_rng(0).integers(0, 1 << 60, (4500, 40), np.uint64)
    words[:, 20:30] = words[0, 20:30]
    column = WordColumn(words.ravel(), np.arange(4500) * 40, np.full(4500, 40))
    digested = DigestedWords.of(column)
    tracemalloc.start()
    with ThreadPoolExecutor(2) as pool:
        phrase = nearest_texts.nearest_by_ngrams(
            digested.at(slice(texts)).words, digested.at(slice(texts, None)), 8, pool
        )
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({*phrase.references.tolist()}) == 1
    assert most < 24 * texts * references  # bytes of all pairs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("so we came and the quick brown fox jumps over it", 0.5, id="half-of-it"),
        pytest.param("The QUICK, brown fox: jumps!", 1.0, id="a-part-in-other-writing"),
        pytest.param("the quick brown", 0.0, id="fewer-words-than-a-run"),
        pytest.param("a slow red hen sits under the hard-working cat", 0.0, id="nothing"),
    ],
)
def test_the_share_is_of_the_shorter_text(text: str, expected: float):
    nearest_references = nearest([text], ["the quick brown fox jumps over the lazy dog"], 4)
    assert nearest_references.shares[0] == pytest.approx(expected)  # pyright: ignore[reportUnknownMemberType]
