import random
import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.near import candidate_pairs, duplicates, hashed_words
from components.curate.near.hashed_words import DigestedWords
from components.curate.settings import THRESHOLD
from tests.support.cases import cases

LETTERS = st.sampled_from("abcde")
TEXTS = st.lists(st.lists(LETTERS, max_size=12).map(" ".join), min_size=1, max_size=25)


def triples(text: str) -> set[tuple[str, ...]]:
    """Return a text's runs of three words; one run of all words if it has fewer."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(max(len(words) - 2, min(len(words), 1)))}


def jaccard(text: str, other: str) -> float:
    if text == other:
        return 1.0
    first, second = triples(text), triples(other)
    return len(first & second) / len(first | second) if first | second else 0.0


class Clustered(NamedTuple):
    """Clusters by the texts' ids: each one's smallest, and the pairs with their Jaccards."""

    smallest: list[str]
    pairs: dict[tuple[str, str], float]


def cluster(
    names: str | list[str], texts: Sequence[str], threshold: float = THRESHOLD
) -> Clustered:
    ids = [*names]
    words = DigestedWords.of(hashed_words.column_of(pa.array(texts, pa.large_string())))
    clusters = duplicates.find_clusters(duplicates.by_id(ids), words, threshold)
    pairs = clusters.equal.joined(clusters.near)
    left, right = pairs.left.tolist(), pairs.right.tolist()
    paired = [(ids[first], ids[second]) for first, second in zip(left, right, strict=True)]
    jaccards = [*(1.0 for _ in clusters.equal.left), *clusters.jaccard.tolist()]
    return Clustered(
        [ids[first] for first in clusters.firsts.tolist()],
        dict(zip(paired, jaccards, strict=True)),
    )


def by_hand(ids: Sequence[str], texts: Sequence[str], threshold: float) -> list[str]:
    """Compare all pairs, and return for each text the smallest id that a chain of pairs reaches."""
    smallest = {name: name for name in ids}
    joined = [
        (name, other)
        for (name, text), (other, its) in combinations(zip(ids, texts, strict=True), 2)
        if jaccard(text, its) >= threshold
    ]
    for _ in ids:
        for name, other in joined:
            smallest[name] = smallest[other] = min(smallest[name], smallest[other])
    return [smallest[name] for name in ids]


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
@cases(100)
def test_clusters_match_a_brute_force_comparison(texts: list[str], threshold: float):
    ids = [f"{number:03d}" for number in range(len(texts))]
    assert cluster(ids, texts, threshold).smallest == by_hand(ids, texts, threshold)


@given(TEXTS, st.randoms(use_true_random=False))
@cases(100)
def test_the_order_of_the_texts_changes_nothing(texts: list[str], chance: random.Random):
    named = {f"{number:03d}": text for number, text in enumerate(texts)}
    shuffled = list(named)
    chance.shuffle(shuffled)
    clusters = cluster(list(named), texts, 0.5)
    again = cluster(shuffled, [named[name] for name in shuffled], 0.5)
    assert clusters.pairs == again.pairs
    assert dict(zip(named, clusters.smallest, strict=True)) == dict(
        zip(shuffled, again.smallest, strict=True)
    )


def test_a_pair_has_its_jaccard_regardless_of_case_and_punctuation():
    texts = ["a b c d e f g", "A, b c d e f g!", "a b c d e f h", "x y z"]
    assert cluster("0123", texts, 0.6).pairs == {
        ("0", "1"): 1.0,
        ("0", "2"): 4 / 6,
    }


@pytest.mark.parametrize(
    ("text", "other", "near"),
    [
        pytest.param("", "", True, id="empty"),
        pytest.param("?!", "?!", True, id="equal-marks"),
        pytest.param("?!", "!?", False, id="other-marks"),
        pytest.param("yes", "Yes.", True, id="one-word"),
        pytest.param("yes", "no", False, id="other-word"),
        pytest.param("a b", "b a", False, id="other-order"),
        pytest.param(
            "東京の天気を教えてください", "東京の天気を教えて下さい", False, id="no-spaces"
        ),
        pytest.param(
            "東京の天気を教えてくださいね", "東京の天気を教えてください", True, id="no-spaces-near"
        ),
        pytest.param("Привет как дела сегодня", "Привет, как дела сегодня?", True, id="cyrillic"),
        pytest.param("🙂 🙂 🙂 🙃", "🙂 🙂 🙂 😀", False, id="emoji"),
    ],
)
def test_words_are_found_in_any_script(text: str, other: str, near: bool):
    assert (cluster("ab", [text, other]).smallest == ["a", "a"]) == near


def test_long_texts_among_short_ones_are_compared_whole():
    long = " ".join(str(number) for number in range(60_000))
    texts = ["short and sweet", long, f"{long} and more", "short and sweet, too"]
    assert cluster("abcd", texts).smallest == ["a", "b", "b", "d"]


def variants(count: int, words: int, changed: int) -> list[str]:
    """Return copies of one text with different words in some random places."""
    rng = np.random.default_rng(3)
    base = [f"w{number}" for number in range(words)]
    texts: list[str] = []
    for number in range(count):
        copy = list(base)
        for place in rng.integers(0, words, changed):
            copy[place] = f"v{number}"
        texts.append(" ".join(copy))
    return texts


def test_a_crowd_of_near_copies_is_one_cluster_without_all_comparisons():
    count = 8_000
    clusters = cluster([f"{number:05d}" for number in range(count)], variants(count, 100, 2))
    assert max(Counter(clusters.smallest).values()) >= 0.99 * count
    assert len(clusters.pairs) <= (candidate_pairs.ROUNDS + 1) * count


def test_texts_of_one_template_are_not_near_duplicates_and_stay_cheap():
    texts = variants(3_000, 60, 6)
    clusters = cluster([f"{number:05d}" for number in range(3_000)], texts)
    assert len(set(clusters.smallest)) > 2_900


def test_clusters_of_any_size_are_compared_exactly():
    chance = random.Random(4)
    texts = [
        " ".join(chance.choices(f"a{group} b{group} c{group} d{group}".split(), k=9))
        for group in range(25)
        for _ in range(chance.choice([1, 2, 8, 30]))
    ]
    texts += [f"{' '.join('abcdefghij'[n % 5 :])} {n}" for n in range(45)]
    ids = [f"{number:05d}" for number in range(len(texts))]
    assert cluster(ids, texts, 0.4).pairs == {
        (ids[left], ids[right]): value
        for (left, text), (right, other) in combinations(enumerate(texts), 2)
        if (value := jaccard(text, other)) >= 0.4
    }
